//! A progress bar on standard error, when that is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar, or nothing where nobody looks.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar on a terminal, silence elsewhere.
    pub fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            // Drawn at 5 a second only: the cores are being measured.
            let target = indicatif::ProgressDrawTarget::stderr_with_hz(5);
            ProgressBar::with_draw_target(Some(0), target)
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta:>4} left  {msg}") {
            bar.set_style(style);
        }
        Self { bar }
    }

    /// So many steps are to come.
    pub fn begin(&self, steps: u64) {
        self.bar.set_length(steps);
        self.bar.set_position(0);
    }

    /// A step begins.
    pub fn step(&self, message: &str) {
        self.bar.set_message(message.to_owned());
        self.bar.inc(1);
    }

    /// Says what is going on.
    pub fn say(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    /// Sets how much of a stretch of time is over.
    pub fn at(&self, gone: Duration) {
        self.bar.set_position(gone.as_millis() as u64);
    }

    /// Prints a line above the bar.
    pub fn print(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
