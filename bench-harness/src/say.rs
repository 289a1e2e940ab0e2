//! Standard output and standard error of a program that must not panic, whatever they are: std's macros do where the reader
//! of a pipe has gone, or where the device is full. The macros here have their names and take their place everywhere.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

/// The first refusal of standard output, told at the end: results are written to their files first.
static REFUSED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes to standard output. That the reader has gone is no failure.
pub fn out(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    let Err(cause) = out.write_fmt(text).and_then(|()| out.flush()) else { return };
    if cause.kind() != ErrorKind::BrokenPipe {
        REFUSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(cause);
    }
}

/// Writes to standard error, if that takes it: nobody else could be told.
pub fn error(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// What standard output refused, if it did.
pub fn refused() -> Option<io::Error> {
    REFUSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take()
}

macro_rules! print {
    ($($text:tt)*) => { $crate::say::out(format_args!($($text)*)) };
}

macro_rules! println {
    ($($text:tt)*) => { $crate::say::out(format_args!("{}\n", format_args!($($text)*))) };
}

macro_rules! eprint {
    ($($text:tt)*) => { $crate::say::error(format_args!($($text)*)) };
}

macro_rules! eprintln {
    () => { $crate::say::error(format_args!("\n")) };
    ($($text:tt)*) => { $crate::say::error(format_args!("{}\n", format_args!($($text)*))) };
}
