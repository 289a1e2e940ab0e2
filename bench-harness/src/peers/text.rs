//! The tables that `peers` prints.

use std::fmt::Write as _;

use super::regime::Line;
use super::results::{PeersDocument, Ratio, Row};
use crate::quantity::{grouped, three};
use crate::statistics;

/// The tables of a document.
pub fn render(document: &PeersDocument) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}\n", document.environment.headline());
    for line in &document.setup {
        let _ = writeln!(text, "{line}");
    }
    if document.environment.profile == "debug" {
        text.push_str("\nThis is a debug build: its figures mean nothing. Build with --release.\n");
    }
    for table in tables(document) {
        text.push('\n');
        text.push_str(&table.render(document));
        for told in table.regimes(document) {
            let _ = writeln!(text, "  {told}");
        }
    }
    if !document.not_applicable.is_empty() {
        text.push_str("\nN/A\n");
        for (contenders, where_, reason) in absences(document) {
            let _ = writeln!(text, "  {contenders} ({where_}): {reason}");
        }
    }
    if let Some(warning) = document.warning() {
        let _ = writeln!(text, "\nWIDE {warning}");
    }
    for fault in &document.faults {
        let _ = writeln!(text, "\nINVALID {fault}");
    }
    let _ = writeln!(text, "\n{}", document.command);
    text
}

/// The contenders that cannot do the work: their names, the scenarios with modes, and the reason. Those with equal
/// scenarios and reason share an entry.
pub fn absences(document: &PeersDocument) -> Vec<(String, String, String)> {
    let mut places: Vec<(String, Vec<String>, &str)> = Vec::new();
    for entry in &document.not_applicable {
        let place = format!("{} {}", entry.scenario, entry.mode);
        match places.iter_mut().find(|(who, _, why)| *who == entry.contender && *why == entry.reason) {
            Some((_, all, _)) => all.push(place),
            None => places.push((entry.contender.clone(), vec![place], &entry.reason)),
        }
    }
    let mut merged: Vec<(String, String, String)> = Vec::new();
    for (who, place, why) in places {
        let place = place.join(", ");
        match merged.iter_mut().find(|(_, other, reason)| *other == place && *reason == why) {
            Some((all, _, _)) => {
                all.push_str(", ");
                all.push_str(&who);
            }
            None => merged.push((who, place, why.to_owned())),
        }
    }
    merged
}

/// The rows of a table: they differ only in contender and capacity.
pub struct Table<'a> {
    /// The rows, at least one.
    pub rows: Vec<&'a Row>,
}

/// The tables of a document, in the order of its rows.
pub fn tables(document: &PeersDocument) -> Vec<Table<'_>> {
    let mut tables: Vec<Table<'_>> = Vec::new();
    for row in &document.rows {
        let key = |row: &Row| (row.scenario.clone(), row.mode.clone(), row.batch, row.payload, row.unit.clone());
        match tables.iter_mut().find(|table| key(table.rows[0]) == key(row)) {
            Some(table) => table.rows.push(row),
            None => tables.push(Table { rows: vec![row] }),
        }
    }
    tables
}

impl Table<'_> {
    /// The capacities, in order.
    pub fn capacities(&self) -> Vec<usize> {
        let mut capacities: Vec<usize> = self.rows.iter().map(|row| row.capacity).collect();
        capacities.sort_unstable();
        capacities.dedup();
        capacities
    }

    /// The contenders, in order of appearance.
    pub fn contenders(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for row in &self.rows {
            if !names.contains(&row.contender.as_str()) {
                names.push(&row.contender);
            }
        }
        names
    }

    /// The row of a contender at a capacity; `None` if there is none.
    pub fn cell(&self, contender: &str, capacity: usize) -> Option<&Row> {
        self.rows.iter().find(|row| row.contender == contender && row.capacity == capacity).copied()
    }

    /// How far apart the cores were, a line for each capacity.
    pub fn regimes(&self, document: &PeersDocument) -> Vec<String> {
        let row = self.rows[0];
        let of =
            |capacity: &usize| document.lines.iter().find(|line| line.capacity == *capacity && row.is_of_table(line));
        self.capacities().iter().filter_map(of).map(Line::told).collect()
    }

    /// The title of the table.
    pub fn title(&self) -> String {
        let row = self.rows[0];
        let how = match row.mode.as_str() {
            "batch" => format!("batches of {}", row.batch),
            _ => "one by one".to_owned(),
        };
        let unit = match row.unit.as_str() {
            "M/s" => "million messages a second, more is better".to_owned(),
            unit => format!("{unit}, less is better"),
        };
        format!("{}, {how}, {}-byte messages: {unit}", row.scenario, row.payload)
    }

    /// The ratio of our first contender to `against` at a capacity; `None` if there is none.
    pub fn ratio<'d>(&self, document: &'d PeersDocument, against: &str, capacity: usize) -> Option<&'d Ratio> {
        let row = self.rows[0];
        document.ratios.iter().find(|ratio| {
            ratio.against == against
                && ratio.capacity == capacity
                && ratio.scenario == row.scenario
                && ratio.mode == row.mode
                && ratio.payload == row.payload
                && ratio.unit == row.unit
        })
    }

    /// The rival with the best median at a capacity; `None` if there is no rival.
    pub fn best_rival(&self, capacity: usize) -> Option<&Row> {
        let rivals = self.rows.iter().filter(|row| row.capacity == capacity && row.is_rival()).copied();
        let better = |one: &&Row, other: &&Row| one.median.total_cmp(&other.median);
        if self.rows[0].more_is_better() { rivals.max_by(better) } else { rivals.min_by(better) }
    }

    fn render(&self, document: &PeersDocument) -> String {
        let capacities = self.capacities();
        let mut text = format!("{}\n", self.title());
        let contenders = self.contenders();
        let width = contenders.iter().map(|name| name.len()).max().unwrap_or(0).max(16);
        let _ = write!(text, "  {:<width$}", "");
        for capacity in &capacities {
            let _ = write!(text, "{:>26}", format!("capacity {}", grouped(*capacity as u64)));
        }
        text.push('\n');
        for contender in contenders {
            let _ = write!(text, "  {contender:<width$}");
            for capacity in &capacities {
                let cell = self.cell(contender, *capacity).map_or_else(
                    || "-".to_owned(),
                    |row| {
                        let spread = format!("{} [{}..{}]", three(row.median), three(row.min), three(row.max));
                        let ratio = self
                            .ratio(document, contender, *capacity)
                            .map_or_else(|| "      ".to_owned(), |it| format!("{:>5.2}x", it.ratio));
                        let mark = if row.valid { "" } else { "!" };
                        format!("{mark}{spread} {ratio}")
                    },
                );
                let _ = write!(text, "{cell:>26}");
            }
            text.push('\n');
        }
        text.push_str(&self.summary(document));
        text
    }

    /// The ratios of ours to the best rival at each capacity, and their geometric mean.
    fn summary(&self, document: &PeersDocument) -> String {
        let mut text = String::new();
        let mut ratios = Vec::new();
        for capacity in self.capacities() {
            let Some(rival) = self.best_rival(capacity) else { continue };
            let Some(ratio) = self.ratio(document, &rival.contender, capacity) else { continue };
            let verdict = match (ratio.low > 1.0, ratio.high < 1.0) {
                (true, _) => "ahead of",
                (_, true) => "behind",
                _ => "too close to call against",
            };
            let _ = writeln!(
                text,
                "  {} at {}: {verdict} the best rival, {}: {:.2}x, 95 % in {:.2}..{:.2}",
                ratio.ours,
                grouped(capacity as u64),
                rival.contender,
                ratio.ratio,
                ratio.low,
                ratio.high
            );
            ratios.push(ratio.ratio);
        }
        if ratios.len() > 1
            && let Some(mean) = statistics::geometric_mean(&ratios)
        {
            let _ = writeln!(text, "  geometric mean over the capacities: {mean:.2}x");
        }
        text
    }
}
