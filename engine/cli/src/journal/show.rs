//! `ls` and `stat`.

use super::{Directory, Done, plain, print_json, size, time, topic_name, topics};
use serde_json::json;
use slipring::journal::SegmentReport;
use std::collections::BTreeMap;
use std::io::Write;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: Directory,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

fn state(segment: &SegmentReport, last: bool) -> &'static str {
    match (segment.header.lost, segment.sealed, last) {
        (true, _, _) => "lost",
        (_, true, _) => "sealed",
        (_, _, true) => "last",
        _ => "unsealed",
    }
}

pub(crate) fn ls(arguments: &Arguments) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let segments = looked.survey.segments();
    let last = segments.last().map_or(0, |last| last.header.number);
    let mut out = std::io::stdout().lock();
    let records = |segment: &SegmentReport| segment.places.iter().map(|place| place.records).sum::<u64>();
    let latest = |segment: &SegmentReport| segment.places.iter().map(|place| place.latest).max();
    if arguments.json {
        let listed: Vec<_> = segments
            .iter()
            .map(|segment| {
                let header = &segment.header;
                json!({
                    "segment": header.number, "first_position": header.first, "size": header.size, "file_bytes": segment.file,
                    "used_bytes": segment.end, "incarnation": header.incarnation,
                    "state": state(segment, header.number == last), "records": records(segment), "latest_ns": latest(segment),
                })
            })
            .collect();
        let document = json!({
            "version": 1, "segments": listed, "others": looked.survey.others(),
            "damage": looked.damage.as_ref().map(ToString::to_string),
        });
        print_json(&mut out, &document)?;
        return looked.end();
    }
    let titles = ["segment", "position", "used", "records", "opening", "state", "latest"];
    let [number, position, used, count, opening, kind, newest] = titles;
    writeln!(out, "{number:>10} {position:>16} {used:>12} {count:>12} {opening:>8}  {kind:<9} {newest}")?;
    for segment in &segments {
        let header = &segment.header;
        let (used, count) = (size(segment.end), records(segment));
        let (kind, newest) = (state(segment, header.number == last), latest(segment).map_or(String::new(), time));
        let (number, first, opening) = (header.number, header.first, header.incarnation);
        writeln!(out, "{number:>10} {first:>16} {used:>12} {count:>12} {opening:>8}  {kind:<9} {newest}")?;
    }
    for name in looked.survey.others() {
        writeln!(out, "beside them: {}", plain(name))?;
    }
    looked.end()
}

pub(crate) fn stat(arguments: &Arguments) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let survey = &looked.survey;
    let segments = survey.segments();
    let named = topics(survey.state());
    let mut kept: BTreeMap<_, (u64, u64, u64)> = BTreeMap::new();
    for place in segments.iter().flat_map(|segment| &segment.places) {
        let (records, bytes, latest) = kept.entry(place.partition).or_default();
        *records += place.records;
        *bytes += place.bytes;
        *latest = place.latest.max(*latest);
    }
    let used: u64 = segments.iter().map(|segment| segment.end).sum();
    let files: u64 = segments.iter().map(|segment| segment.file).sum();
    let id: String = survey.id().unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
    let state: BTreeMap<u16, usize> = survey.state().kinds().collect();
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let partitions: Vec<_> = survey
            .state()
            .extents()
            .map(|(partition, extent)| {
                let (records, bytes, latest) = kept.get(&partition).copied().unwrap_or_default();
                json!({
                    "topic": topic_name(&named, partition.topic), "topic_id": partition.topic, "partition": partition.partition,
                    "start": extent.start, "end": extent.end, "reserved": extent.reserved,
                    "records": records, "bytes": bytes, "latest_ns": (latest > 0).then_some(latest),
                })
            })
            .collect();
        let entries: Vec<_> = state.iter().map(|(kind, entries)| json!({ "kind": kind, "entries": entries })).collect();
        let document = json!({
            "version": 1, "journal_id": id, "segments": segments.len(), "used_bytes": used, "file_bytes": files,
            "incarnation": survey.incarnation(), "durable": survey.durable(), "end": survey.end(),
            "first_segment": segments.first().map(|first| first.header.number), "floor": survey.state().floor(),
            "torn_bytes": survey.torn().map(|torn| torn.bytes), "state": entries, "partitions": partitions,
            "damage": looked.damage.as_ref().map(ToString::to_string), "lock": looked.storage.lock_weakness(),
        });
        print_json(&mut out, &document)?;
        return looked.end();
    }
    writeln!(out, "journal      {id}, opened {} times", survey.incarnation())?;
    writeln!(out, "segments     {}, {} of {} used", segments.len(), size(used), size(files))?;
    writeln!(out, "whole up to  position {}", survey.end())?;
    writeln!(out, "durable      up to position {} at least", survey.durable())?;
    if let Some(torn) = survey.torn() {
        writeln!(out, "behind that  {} bytes that are no whole frame: being written, or torn by a crash", torn.bytes)?;
    }
    if let Some(weakness) = looked.storage.lock_weakness() {
        writeln!(out, "lock         {}", plain(&weakness))?;
    }
    for (kind, entries) in &state {
        let what = match *kind {
            super::CATALOGUE => "topics",
            2 => "places of groups",
            3 => "producers with names",
            4 => "queues",
            5 => "places of transforms",
            _ => "unknown to this command",
        };
        writeln!(out, "state        {entries} values of kind {kind}: {what}")?;
    }
    for topic in &named {
        writeln!(out, "topic        {} is number {}: {}", plain(&topic.name), topic.number, plain(&topic.layout))?;
    }
    let titles = ["topic", "partition", "start", "end", "reserved", "records", "bytes", "latest"];
    let [topic, partition, start, end, reserved, records, bytes, latest] = titles;
    writeln!(
        out,
        "\n{topic:<20} {partition:>9} {start:>12} {end:>12} {reserved:>12} {records:>12} {bytes:>12}  {latest}"
    )?;
    for (partition, extent) in survey.state().extents() {
        let (records, bytes, latest) = kept.get(&partition).copied().unwrap_or_default();
        let (topic, partition) = (plain(&topic_name(&named, partition.topic)), partition.partition);
        let (start, end, reserved) = (extent.start, extent.end, extent.reserved);
        let (bytes, latest) = (size(bytes), if latest > 0 { time(latest) } else { String::new() });
        writeln!(
            out,
            "{topic:<20} {partition:>9} {start:>12} {end:>12} {reserved:>12} {records:>12} {bytes:>12}  {latest}"
        )?;
    }
    looked.end()
}
