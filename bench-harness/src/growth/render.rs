//! The table, the lines and the picture of `growth`.

use std::fmt::Write as _;

use super::document::{GrowthDocument, Line};
use super::row::Verdict;
use crate::failure::Failure;
use crate::output::page::Page;
use crate::output::plot::{self, Bar, Panel, escape};
use crate::output::{self, Output, Results};
use crate::quantity::grouped;
use unicode_width::UnicodeWidthStr;

/// Writes a document in every format asked for, and prints its table.
///
/// # Errors
///
/// [`Failure::File`].
pub fn write(document: &GrowthDocument, output: &mut Output) -> Result<(), Failure> {
    let pictures = |document: &_| vec![("growth".to_owned(), plot::standalone(&chart(document)))];
    output.results(&Results { document, name: "growth", text, csv, pictures, page })
}

const HEAD: [&str; 7] = ["row", "n", "cost at n", "exponent", "bound", "verdict", "before"];

/// A line's cells, in the order of [`HEAD`].
pub fn cells(line: &Line) -> [String; 7] {
    let sizes = line.points.iter().map(|point| grouped(point.n)).collect::<Vec<_>>().join(", ");
    let costs = line.points.iter().map(|point| point.shown.as_str()).collect::<Vec<_>>().join(", ");
    let known = line.today.as_ref().map_or_else(String::new, |today| format!(" (today {today})"));
    [
        line.row.clone(),
        sizes,
        costs,
        line.exponent.map_or_else(|| "-".to_owned(), |exponent| format!("{exponent:.2}")),
        format!("{}{known}", line.target),
        line.verdict.word().to_owned(),
        line.before.clone(),
    ]
}

/// The width of each column on a terminal, in columns of one digit.
fn widths(rows: &[[String; 7]]) -> [usize; 7] {
    std::array::from_fn(|column| rows.iter().map(|row| row[column].width()).max().unwrap_or(0))
}

/// The cell with spaces behind it, so that it fills `width` columns of a terminal.
fn padded(cell: &str, width: usize) -> String {
    format!("{cell}{}", " ".repeat(width - cell.width()))
}

fn text(document: &GrowthDocument) -> String {
    let mut text = format!("{}\n\n", document.environment.headline());
    let rows: Vec<_> = std::iter::once(HEAD.map(str::to_owned)).chain(document.rows.iter().map(cells)).collect();
    let widths = widths(&rows);
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| padded(cell, width)).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text.push_str("\nwhat the costs are of\n");
    for line in &document.rows {
        let _ = writeln!(text, "{}  {}, by {}", padded(&line.row, widths[0]), line.cost, line.of);
    }
    let _ = writeln!(text, "\n{}\n{}", document.verdict_line(), document.command);
    text
}

fn csv(document: &GrowthDocument) -> String {
    let titles = ["row", "unit", "n", "cost", "exponent", "bound", "today", "verdict"];
    let records = document.rows.iter().flat_map(|it| {
        let exponent = it.exponent.map(|exponent| format!("{exponent:.3}"));
        it.points.iter().map(move |point| {
            (&it.row, &it.unit, point.n, point.cost, exponent.clone(), &it.target, &it.today, it.verdict.word())
        })
    });
    output::csv(&titles, records)
}

/// The bar chart of the exponents. Rows without an exponent have no bar.
fn chart(document: &GrowthDocument) -> String {
    let bars = document.rows.iter().filter_map(|line| {
        let exponent = line.exponent?.max(0.0);
        Some(Bar {
            name: line.row.clone(),
            class: match line.verdict {
                Verdict::Met => "ours",
                Verdict::Known => "floor",
                Verdict::Worse => "rival",
            },
            value: exponent,
            ends: (exponent.min(line.allowed.unwrap_or(0.0)), exponent.max(line.allowed.unwrap_or(0.0))),
            label: format!("{exponent:.2} ({})", line.verdict.word()),
        })
    });
    let panel = Panel { title: "exponent: 0 is constant, 1 linear, 2 quadratic".to_owned(), bars: bars.collect() };
    let note = "The slope of log cost over log n. The thin line goes to the bound; a bar beyond it is within the slack. Pale: known to be worse.";
    plot::bars("How cost grows", note, &[panel])
}

fn page(document: &GrowthDocument) -> String {
    let mut page = Page::new("How cost grows", &document.environment.headline().replace('\n', " | "));
    let good = document.worse().next().is_none();
    page.badge(good, if good { "WITHIN BOUNDS" } else { "WORSE" }, &document.verdict_line());
    page.figure(&chart(document));
    let rows: Vec<_> = document
        .rows
        .iter()
        .map(|line| {
            let mut cells = cells(line).map(|cell| escape(&cell)).to_vec();
            let _ = write!(cells[0], "<br><small>{}, by {}</small>", escape(&line.cost), escape(&line.of));
            ("words".to_owned(), cells)
        })
        .collect();
    page.table(&HEAD.map(str::to_owned), &rows);
    page.origin(&document.environment, &document.command);
    page.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stay_aligned_beside_the_longest_names() {
        let row = |name: String| [&name, "1,024", "3", "0.00", "1", "met", "-"].map(str::to_owned);
        let rows = ["t".repeat(249), "\u{6f22}".repeat(83), "e\u{301}".repeat(83), "s".to_owned()].map(row);
        let widths = widths(&rows);
        assert_eq!(widths, [249, 5, 1, 4, 1, 3, 1]);
        assert!(rows.iter().all(|row| padded(&row[0], widths[0]).width() == 249), "{rows:?}");
    }
}
