//! Printing that never panics. The macros of std panic if the reader of a pipe is gone or the device is full; the macros of
//! this module replace them everywhere in this program.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

/// The first error of standard output; reported at the end, when the results are in their files.
static REFUSED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes to standard output. A reader that is gone is no failure.
pub fn out(text: Arguments<'_>) {
    let mut out = io::stdout().lock();
    let Err(cause) = out.write_fmt(text).and_then(|()| out.flush()) else { return };
    if cause.kind() != ErrorKind::BrokenPipe {
        REFUSED.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(cause);
    }
}

/// Writes to standard error. An error is ignored: there is no other place to report it.
pub fn error(text: Arguments<'_>) {
    let _ = io::stderr().lock().write_fmt(text);
}

/// Takes the first error of standard output; `None` if there was none.
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
