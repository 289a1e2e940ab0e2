//! The page, the charts and the lines of `peers`.

use super::results::{PeersDocument, Row, is_floor};
use super::text::{self, Table};
use crate::cli::Format;
use crate::failure::Failure;
use crate::output::page::Page;
use crate::output::plot::{self, Bar, Panel, escape};
use crate::output::{self, Output, Results};
use crate::quantity::{grouped, three};

/// Writes a document in every format asked for, and prints its tables.
///
/// # Errors
///
/// [`Failure::File`], or [`Failure::Usage`] for a format that `peers` does not have.
pub fn write(document: &PeersDocument, output: &mut Output) -> Result<(), Failure> {
    for (format, name) in [(Format::Hgrm, "hgrm"), (Format::Hlog, "hlog")] {
        if output.wants(format) {
            return Err(Failure::usage(format!(
                "{name} holds a latency histogram, and peers compares throughput; use run for it"
            )));
        }
    }
    output.results(&Results { document, name: "peers", text: text::render, csv, pictures, page })
}

/// A picture of each table, named by what it compares.
fn pictures(document: &PeersDocument) -> Vec<(String, String)> {
    let picture = |table: Table<'_>| {
        let row = table.rows[0];
        let unit = row.unit.replace(['/', ' '], "-");
        let name = format!("peers-{}-{}-{}B-{unit}", row.scenario, row.mode, row.payload);
        (name, plot::standalone(&chart(document, &table)))
    };
    text::tables(document).into_iter().map(picture).collect()
}

fn csv(document: &PeersDocument) -> String {
    let titles = [
        "scenario",
        "contender",
        "ours",
        "mode",
        "batch",
        "capacity",
        "payload",
        "producers",
        "consumers",
        "unit",
        "median",
        "min",
        "max",
        "rounds",
        "valid",
    ];
    output::csv(&titles, &document.rows)
}

fn class(row: &Row) -> &'static str {
    match (row.ours, is_floor(&row.contender)) {
        (true, _) => "ours",
        (_, true) => "floor",
        _ => "rival",
    }
}

/// The bar chart of a table, with the best contender on top.
fn chart(document: &PeersDocument, table: &Table<'_>) -> String {
    let panels: Vec<Panel> = table
        .capacities()
        .into_iter()
        .map(|capacity| {
            let mut rows: Vec<&Row> = table.rows.iter().filter(|row| row.capacity == capacity).copied().collect();
            rows.sort_by(|one, other| {
                let order = one.median.total_cmp(&other.median);
                if one.more_is_better() { order.reverse() } else { order }
            });
            let bars = rows
                .into_iter()
                .map(|row| Bar {
                    name: row.contender.clone(),
                    class: class(row),
                    value: row.median,
                    ends: (row.min, row.max),
                    label: table.ratio(document, &row.contender, capacity).map_or_else(
                        || three(row.median),
                        |ratio| format!("{}  ({:.2}x)", three(row.median), ratio.ratio),
                    ),
                })
                .collect();
            Panel { title: format!("capacity {}", grouped(capacity as u64)), bars }
        })
        .collect();
    let rounds = table.rows.iter().map(|row| row.rounds).max().unwrap_or(0);
    let note = format!(
        "Median of {rounds} interleaved rounds; whiskers are the lowest and highest round; in brackets: ours against it. Pale bars: the floor."
    );
    plot::bars(&table.title(), &note, &panels)
}

fn page(document: &PeersDocument) -> String {
    let scenarios: Vec<&str> = {
        let mut names: Vec<&str> = document.rows.iter().map(|row| row.scenario.as_str()).collect();
        names.dedup();
        names
    };
    let mut page = Page::new(
        &format!("slipring and its peers: {}", scenarios.join(", ")),
        &document.environment.headline().replace('\n', " | "),
    );
    let reason = if document.valid() {
        "every value of every round arrived once, in order and intact"
    } else {
        "some values were wrong: see below"
    };
    let word = if document.valid() { "VALID" } else { "INVALID" };
    page.verdict(&document.environment, document.valid(), word, reason);
    if let Some(warning) = document.warning() {
        page.badge(false, "WIDE", &warning);
    }
    for line in &document.setup {
        page.text(line);
    }
    for table in text::tables(document) {
        page.figure(&chart(document, &table));
        page.table(&head(&table), &body(document, &table));
        for told in table.regimes(document) {
            page.text(&told);
        }
    }
    if !document.not_applicable.is_empty() {
        page.heading("Not applicable");
        let rows: Vec<_> = text::absences(document)
            .into_iter()
            .map(|(who, place, why)| {
                let cells = [who, place, why].iter().map(|cell| escape(cell)).collect();
                ("words".to_owned(), cells)
            })
            .collect();
        let head = ["contender", "where", "why"].map(str::to_owned);
        page.table(&head, &rows);
    }
    for fault in &document.faults {
        page.badge(false, "INVALID", fault);
    }
    page.heading("How to read this");
    page.text(
        "Every contender did the same work on the same cores, with the same capacity, payload and class of waiting. \
         Rounds took turns (A B C, B C A, ...), so that what the machine does to one it does to all. The ratio is ours \
         against the other over paired rounds in which the cores stayed where they are, as the bare line tells, above 1 ours is better; in brackets its 95 % bootstrap interval. The \
         bare-ring rows are no rivals but the floor: slots and two positions, without closing, gates, stages or parking.",
    );
    page.origin(&document.environment, &document.command);
    page.finish()
}

fn head(table: &Table<'_>) -> Vec<String> {
    let capacities = table.capacities().into_iter().map(|it| grouped(it as u64));
    std::iter::once("contender, capacity".to_owned()).chain(capacities).collect()
}

fn body(document: &PeersDocument, table: &Table<'_>) -> Vec<(String, Vec<String>)> {
    table
        .contenders()
        .into_iter()
        .map(|contender| {
            let mut cells = vec![escape(contender)];
            let mut kind = "";
            for capacity in table.capacities() {
                let Some(row) = table.cell(contender, capacity) else {
                    cells.push("-".to_owned());
                    continue;
                };
                kind = class(row);
                let ratio = table.ratio(document, contender, capacity).map_or_else(String::new, |it| {
                    format!("<br><small>{:.2}x [{:.2}..{:.2}]</small>", it.ratio, it.low, it.high)
                });
                let mark = if row.valid { "" } else { "INVALID " };
                cells.push(format!(
                    "{mark}{} <small>[{}..{}]</small>{ratio}",
                    three(row.median),
                    three(row.min),
                    three(row.max)
                ));
            }
            (kind.to_owned(), cells)
        })
        .collect()
}
