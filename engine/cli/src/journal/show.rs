//! The subcommands `ls` and `stat`.

use crate::failure::Done;
use crate::inspected::Listing;
use crate::output::{SKIPS, Table, cells, plain, print_json, size, time};
use serde_json::json;
use slipring::journal::{SegmentReport, producer_names, state_kind_name};
use slipring::replication::bridge_positions;
use std::collections::BTreeMap;
use std::io::Write;

fn state(segment: &SegmentReport, last: bool) -> &'static str {
    match (segment.header.lost, segment.sealed, last) {
        (true, _, _) => "lost",
        (_, true, _) => "sealed",
        (_, _, true) => "last",
        _ => "unsealed",
    }
}

pub(super) fn ls(arguments: &Listing) -> Done {
    let inspected = arguments.directory.inspect()?;
    let segments = inspected.survey.segments();
    let last = segments.last().map_or(0, |last| last.header.number);
    let mut out = std::io::stdout().lock();
    let records = |segment: &SegmentReport| segment.partitions.iter().map(|of| of.records).sum::<u64>();
    let latest = |segment: &SegmentReport| segment.partitions.iter().map(|of| of.latest).max();
    if arguments.json {
        let listed = segments.iter().map(|segment| {
            let header = &segment.header;
            json!({
                "segment": header.number, "first_position": header.first, "size": header.size, "file_bytes": segment.file,
                "used_bytes": segment.end, "incarnation": header.incarnation,
                "state": state(segment, header.number == last), "records": records(segment), "latest_ns": latest(segment),
            })
        });
        let document = json!({
            "version": 1, "segments": listed.collect::<Vec<_>>(), "others": inspected.survey.others(),
            "damage": inspected.damage_text(),
        });
        print_json(&mut out, &document)?;
        return inspected.end();
    }
    let mut table = Table::new(&["segment", "position", "used", "records", "opening", "state", "latest"], &[5, 6]);
    for segment in &segments {
        let header = &segment.header;
        let newest = latest(segment).map_or(String::new(), time);
        let kind = state(segment, header.number == last);
        let (used, count) = (size(segment.end), records(segment));
        table.row(cells![header.number, header.first, used, count, header.incarnation, kind, newest]);
    }
    write!(out, "{table}")?;
    for name in inspected.survey.others() {
        writeln!(out, "beside them: {}", plain(name))?;
    }
    inspected.end()
}

pub(super) fn stat(arguments: &Listing) -> Done {
    let inspected = arguments.directory.inspect()?;
    let (survey, topics) = (&inspected.survey, inspected.topics());
    let segments = survey.segments();
    let mut kept: BTreeMap<_, (u64, u64, u64)> = BTreeMap::new();
    for of in segments.iter().flat_map(|segment| &segment.partitions) {
        let (records, bytes, latest) = kept.entry(of.partition).or_default();
        *records += of.records;
        *bytes += of.bytes;
        *latest = of.latest.max(*latest);
    }
    let used: u64 = segments.iter().map(|segment| segment.end).sum();
    let files: u64 = segments.iter().map(|segment| segment.file).sum();
    let id: String = survey.id().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
    let state: BTreeMap<u16, usize> = inspected.state().kinds().collect();
    let (options, state_bytes) = (inspected.options(), inspected.state().size());
    let names = producer_names(inspected.state(), &options);
    let bridges = bridge_positions(inspected.state());
    let partitions = inspected.state().extents().map(|(partition, extent)| {
        let (records, bytes, latest) = kept.get(&partition).copied().unwrap_or_default();
        (partition, extent, records, bytes, (latest > 0).then_some(latest))
    });
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let partitions = partitions.map(|(partition, extent, records, bytes, latest)| {
            json!({
                "topic": topics.name(partition.topic), "topic_id": partition.topic, "partition": partition.partition,
                "start": extent.start, "end": extent.end, "reserved": extent.reserved,
                "records": records, "bytes": bytes, "latest_ns": latest,
            })
        });
        let entries = state.iter().map(|(kind, entries)| json!({ "kind": kind, "entries": entries }));
        let kept_for = bridges.iter().map(|at| {
            json!({
                "bridge": at.bridge, "topic": topics.name(at.of.topic), "topic_id": at.of.topic,
                "partition": at.of.partition, "from": at.offset, "hold_bytes": at.hold,
            })
        });
        let compacted = topics.0.iter().filter_map(|topic| {
            let by = topic.compaction.as_ref()?.to_string();
            Some(json!({ "topic": topic.name, "topic_id": topic.number, "compaction": by }))
        });
        let document = json!({
            "version": 1, "journal_id": id, "segments": segments.len(), "used_bytes": used, "file_bytes": files,
            "incarnation": survey.incarnation(), "durable": survey.durable(), "end": survey.end(),
            "first_segment": segments.first().map(|first| first.header.number), "floor": inspected.state().floor(),
            "state_bytes": state_bytes, "state_limit": options.state_limit(),
            "producer_names": { "count": names.count, "limit": names.limit },
            "torn_bytes": survey.torn().map(|torn| torn.bytes), "state": entries.collect::<Vec<_>>(),
            "partitions": partitions.collect::<Vec<_>>(), "kept_for": kept_for.collect::<Vec<_>>(),
            "compacted": compacted.collect::<Vec<_>>(), "damage": inspected.damage_text(),
            "lock": inspected.storage.lock_weakness(),
        });
        print_json(&mut out, &document)?;
        return inspected.end();
    }
    writeln!(out, "journal      {id}, opened {} times", survey.incarnation())?;
    writeln!(out, "segments     {}, {} of {} used", segments.len(), size(used), size(files))?;
    writeln!(out, "whole up to  position {}", survey.end())?;
    writeln!(out, "durable      up to position {} at least", survey.durable())?;
    if let Some(torn) = survey.torn() {
        writeln!(out, "behind that  {} bytes that are no whole frame: being written, or torn by a crash", torn.bytes)?;
    }
    if let Some(weakness) = inspected.storage.lock_weakness() {
        writeln!(out, "lock         {}", plain(&weakness))?;
    }
    let most = size(options.state_limit() as u64);
    writeln!(out, "state        {} of at most {most}, at the beginning of each segment", size(state_bytes as u64))?;
    writeln!(out, "names        {} of idempotent producers, of at most {}", names.count, names.limit)?;
    for (kind, entries) in &state {
        let what = state_kind_name(*kind).unwrap_or("unknown to this command");
        writeln!(out, "state        {entries} values of kind {kind}: {what}")?;
    }
    for topic in &topics.0 {
        writeln!(out, "topic        {} is number {}: {}", plain(&topic.name), topic.number, plain(&topic.layout))?;
    }
    for (topic, compaction) in topics.0.iter().filter_map(|topic| Some((topic, topic.compaction.as_ref()?))) {
        writeln!(out, "compacted    topic {}: {compaction}", plain(&topic.name))?;
    }
    let mut skips = false;
    for at in &bridges {
        let (bridge, topic, partition) = (plain(&at.bridge), plain(&topics.name(at.of.topic)), at.of.partition);
        let hold = at.hold.map_or_else(|| "without limit".to_owned(), |hold| format!("at most {}", size(hold)));
        writeln!(
            out,
            "kept for     bridge {bridge}: topic {topic}, partition {partition}, from offset {} on, {hold}",
            at.offset
        )?;
    }
    let titles = ["topic", "partition", "start", "end", "reserved", "records", "bytes", "latest"];
    let mut table = Table::new(&titles, &[0, 7]);
    for (partition, extent, records, bytes, latest) in partitions {
        let (topic, latest) = (plain(&topics.name(partition.topic)), latest.map_or_else(String::new, time));
        let (start, end, reserved) = (extent.start, extent.end, extent.reserved);
        skips |= end - start > records;
        table.row(cells![topic, partition.partition, start, end, reserved, records, size(bytes), latest]);
    }
    write!(out, "\n{table}")?;
    if skips {
        writeln!(out, "{SKIPS}")?;
    }
    inspected.end()
}
