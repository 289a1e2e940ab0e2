//! A progress bar on standard error, when that is a terminal.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressStyle};

/// A progress bar; hidden unless standard error is a terminal.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar without steps.
    pub fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() {
            // Drawn 5 times a second at most, since the cores are being measured.
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

    /// Sets the count of steps, of which none has begun.
    pub fn begin(&self, steps: u64) {
        self.bar.set_length(steps);
        self.bar.set_position(0);
    }

    /// Begins the next step, with its message.
    pub fn step(&self, message: &str) {
        self.bar.set_message(message.to_owned());
        self.bar.inc(1);
    }

    /// Sets the message.
    pub fn say(&self, message: &str) {
        self.bar.set_message(message.to_owned());
    }

    /// Prints a line above the bar, or on standard error if the bar is hidden.
    pub fn print(&self, line: &str) {
        if self.bar.is_hidden() {
            eprintln!("{line}");
        } else {
            self.bar.println(line);
        }
    }

    /// Removes the bar.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
