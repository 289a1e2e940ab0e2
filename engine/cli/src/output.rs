//! The output of commands: JSON, tables, times and sizes, all safe for a terminal.

use crate::failure::Done;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};
use slipring::clock::{Clock, SystemClock, Timestamp};
use slipring::text;
use std::fmt::{self, Display};
use std::io::{IsTerminal, Write};
use std::time::{Duration, UNIX_EPOCH};
use unicode_width::UnicodeWidthStr;

/// What a command says below a table in which offsets jump.
pub(crate) const SKIPS: &str =
    "offsets skip after a crash, and where a claim was given up: count records or lag, not offsets";

/// Prints a JSON document.
pub(crate) fn print_json(out: &mut impl Write, document: &impl Display) -> Done {
    Ok(writeln!(out, "{}", text::json(&document.to_string()))?)
}

/// Prints what a command did, or with `dry_run` would do.
pub(crate) fn tell(out: &mut impl Write, done: &str, dry_run: bool) -> Done {
    match dry_run {
        true => writeln!(out, "would be {done}\nnothing was changed")?,
        false => writeln!(out, "{done}")?,
    }
    Ok(())
}

/// A name from a journal or a socket as one line without characters that control a terminal.
pub(crate) fn plain(name: &str) -> String {
    text::line(name).to_string()
}

/// Adds `bytes` to a JSON object: as `name` if they are text, otherwise as `name_hex` in hexadecimal digits.
pub(crate) fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match text::as_text(bytes) {
        Some(text) => object.insert(name.to_owned(), json!(text)),
        None => object.insert(format!("{name}_hex"), json!(text::hex(bytes).to_string())),
    };
}

/// The present time.
pub(crate) fn now() -> Timestamp {
    SystemClock::default().wall()
}

/// A time, given in nanoseconds since the Unix epoch, as RFC 3339 text.
pub(crate) fn time(nanos: u64) -> String {
    humantime::format_rfc3339_nanos(UNIX_EPOCH + Duration::from_nanos(nanos)).to_string()
}

/// A count of bytes as text with a binary unit, such as `1.50 KiB`.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// A progress bar for `bytes` bytes on standard error; hidden if standard error is not a terminal.
pub(crate) fn progress_bar(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    let style = "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta:>4} left";
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}

/// A table of text. Each column is as wide as its widest cell on a terminal, where a character may take two places or
/// none.
pub(crate) struct Table {
    /// Indexes of the text columns, which are aligned to the left. All other columns hold numbers, aligned to the
    /// right.
    texts: &'static [usize],
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(titles: &[&str], texts: &'static [usize]) -> Self {
        Self { texts, rows: vec![titles.iter().map(|&title| title.to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows[0].len();
        let width = |column: usize| self.rows.iter().map(|row| row[column].width()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                let space = " ".repeat(width - cell.width());
                if self.texts.contains(&column) { format!("{cell}{space}") } else { format!("{space}{cell}") }
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// The cells of a table's row, from values that implement `Display`.
macro_rules! cells {
    ($($cell:expr),+ $(,)?) => { vec![$($cell.to_string()),+] };
}
pub(crate) use cells;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stay_aligned_beside_the_longest_names() {
        // Two bytes are one column, three bytes two, and a combining accent none.
        let names =
            ["t".repeat(249), "\u{e9}".repeat(124), "\u{6f22}".repeat(83), "e\u{301}".repeat(83), "s".to_owned()];
        let mut table = Table::new(&["topic", "lag", "state"], &[0, 2]);
        for name in &names {
            table.row(cells![name, 17, "stable"]);
        }
        let text = table.to_string();
        assert_eq!(text.lines().count(), 1 + names.len());
        for line in text.lines().skip(1) {
            let before = line.strip_suffix(" 17  stable").expect(line);
            assert_eq!(before.width(), 249 + 2, "{line}");
        }
    }
}
