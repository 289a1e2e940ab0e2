//! The subcommands `ls` and `describe`.

use super::position::Position;
use super::{Describe, Kind};
use crate::failure::Done;
use crate::inspected::{Inspected, Listing};
use crate::output::{SKIPS, Table, cells, plain, print_json, time};
use serde_json::json;
use slipring::journal::{GroupKind, ReportedGap, reported_gaps};
use slipring::text;
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;

/// The gaps (offsets lost to damage) that were reported to a group or a transform and not acknowledged yet.
fn unacknowledged(inspected: &Inspected, kind: Kind, name: &str) -> Vec<ReportedGap> {
    let told = reported_gaps(inspected.state()).into_iter();
    told.filter(|told| told.kind == kind.reader() && told.reader == name).collect()
}

pub(super) fn ls(arguments: &Listing) -> Done {
    let inspected = arguments.directory.inspect()?;
    let mut readers: BTreeMap<(String, GroupKind), Vec<Position>> = BTreeMap::new();
    for position in Position::all(inspected.state(), &inspected.journal()) {
        readers.entry((position.committed.group.clone(), position.committed.kind)).or_default().push(position);
    }
    let listed = readers.iter().map(|((name, kind), positions)| {
        let mut topics: Vec<_> = positions.iter().map(|position| position.topic.clone()).collect();
        topics.dedup();
        let kind = Kind::of(*kind);
        let lag: u64 = positions.iter().map(|position| position.lag).sum();
        let lost: u64 = positions.iter().map(Position::lost).sum();
        let epoch = positions.iter().filter_map(Position::epoch).max();
        (name, kind.name(), topics, positions.len(), epoch, lag, lost, unacknowledged(&inspected, kind, name).len())
    });
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let listed = listed.map(|(name, kind, topics, partitions, epoch, lag, lost, gaps)| {
            json!({
                "group": name, "kind": kind, "topics": topics, "partitions": partitions, "epoch": epoch, "lag": lag,
                "lost": lost, "unacknowledged_gaps": gaps,
            })
        });
        let listed: Vec<_> = listed.collect();
        print_json(&mut out, &json!({ "version": 1, "groups": listed, "damage": inspected.damage_text() }))?;
        return inspected.end();
    }
    let mut table = Table::new(&["group", "kind", "partitions", "lag", "epoch", "topics"], &[0, 1, 5]);
    for (name, kind, topics, partitions, epoch, lag, lost, gaps) in listed {
        let mut read = plain(&topics.join(", "));
        if lost > 0 {
            read += "  (retention has taken away records that were not read: describe it)";
        }
        if gaps > 0 {
            read += &format!("  ({gaps} gaps were reported and not acknowledged: describe it)");
        }
        let epoch = epoch.map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
        table.row(cells![plain(name), kind, partitions, lag, epoch, read]);
    }
    write!(out, "{table}")?;
    inspected.end()
}

pub(super) fn describe(arguments: &Describe) -> Done {
    let inspected = arguments.directory.inspect()?;
    let all = Position::all(inspected.state(), &inspected.journal());
    let (name, kind) = (&arguments.reader.name, arguments.reader.kind(&all)?);
    let positions: Vec<_> = all.into_iter().filter(|position| position.is_of(kind, name)).collect();
    let gaps = unacknowledged(&inspected, kind, name);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let listed: Vec<_> = positions.iter().map(Position::json).collect();
        let gaps = gaps.iter().map(|ReportedGap { gap, time, .. }| {
            let (first, end) = (gap.offsets.start, gap.offsets.end);
            json!({ "topic": gap.topic, "partition": gap.partition, "first": first, "end": end, "told_ns": time.as_nanos() })
        });
        let document = json!({
            "version": 1, "group": name, "kind": kind.name(), "partitions": listed, "gaps": gaps.collect::<Vec<_>>(),
            "damage": inspected.damage_text(),
        });
        print_json(&mut out, &document)?;
        return inspected.end();
    }
    let mut table = Table::new(&["topic", "partition", "committed", "earliest", "latest", "lag", ""], &[0, 6]);
    for position in &positions {
        let Position { topic, committed, extent, lag, .. } = position;
        let note = match position.lost() {
            0 => committed.metadata.as_ref().map_or_else(String::new, |it| format!("metadata {}", text::value(it))),
            lost => format!("{lost} not kept any more: `slipring group reset` says where to go on"),
        };
        table.row(cells![plain(topic), committed.of.partition, committed.offset, extent.start, extent.end, lag, note]);
    }
    write!(out, "{table}")?;
    if positions.iter().any(Position::skips) {
        writeln!(out, "{SKIPS}")?;
    }
    for ReportedGap { gap, time: told, .. } in &gaps {
        let (topic, partition, Range { start, end }) = (plain(&gap.topic), gap.partition, &gap.offsets);
        let told = time(told.as_nanos());
        writeln!(
            out,
            "{topic}/{partition}: {start} up to, not including, {end} were lost to damage; the {} was told at {told}",
            kind.name()
        )?;
    }
    if !gaps.is_empty() {
        writeln!(out, "`slipring group acknowledge` takes these from the list")?;
    }
    inspected.end()
}
