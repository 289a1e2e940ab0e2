//! `verify` and `repair`.

use super::{CHANGED, Directory, Done, Failure, TORN, plain, print_json, size, topic_name, topics};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use slipring::journal::repair::{How, rehearse, repair};
use slipring::journal::{OpenError, clear, inspect_to_damage};
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[derive(clap::Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    directory: Directory,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct Repair {
    #[command(flatten)]
    directory: Directory,
    /// Say all that is wrong and what would be done about it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A bar of bytes on standard error, if that is a terminal.
pub(crate) fn bar(bytes: u64) -> ProgressBar {
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

pub(crate) fn verify(arguments: &Verify) -> Done {
    let begun = Instant::now();
    let bar = bar(arguments.directory.bytes());
    let looked = arguments.directory.look(true, &mut |read| bar.set_position(read));
    bar.finish_and_clear();
    let looked = looked?;
    let seconds = begun.elapsed().as_secs_f64();
    let survey = &looked.survey;
    let rate = survey.scanned() as f64 / 1e6 / seconds;
    let segments = survey.segments();
    let records: u64 = segments.iter().flat_map(|segment| &segment.places).map(|place| place.records).sum();
    let (stale, stray) = (survey.stale_indexes(), survey.stray_bytes());
    let state = match (&looked.damage, survey.torn()) {
        (Some(_), _) => "damaged",
        (None, Some(_)) => "torn",
        (None, None) if !stale.is_empty() || !stray.is_empty() => "stray",
        (None, None) => "sound",
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let damage = looked.damage.as_ref().map(|damage| match damage {
            OpenError::Damaged { segment, at, position, durable, what } => json!({
                "segment": segment, "byte": at, "position": position, "durable": durable, "what": what.to_string(),
            }),
            other => json!({ "what": other.to_string() }),
        });
        let torn = survey
            .torn()
            .map(|torn| json!({ "position": torn.position, "bytes": torn.bytes, "what": torn.what.to_string() }));
        let document = json!({
            "version": 1, "state": state, "segments": segments.len(), "records": records, "bytes": survey.scanned(),
            "seconds": seconds, "durable": survey.durable(), "end": survey.end(), "damage": damage, "torn": torn,
            "stale_indexes": stale,
            "stray_bytes": stray.iter().map(|(segment, at)| json!({ "segment": segment, "byte": at })).collect::<Vec<_>>(),
        });
        print_json(&mut out, &document)?;
    } else {
        let (bytes, count) = (size(survey.scanned()), segments.len());
        writeln!(out, "{count} segments, {records} records, {bytes} checked in {seconds:.3} s ({rate:.0} MB/s)")?;
        for number in stale {
            writeln!(
                out,
                "the index of segment {number} does not say what stands there: delete that file, it is made again"
            )?;
        }
        for (number, at) in stray {
            writeln!(out, "segment {number} at byte {at}: not zero, as it was written; no record is made of it")?;
        }
        if state == "sound" {
            writeln!(out, "sound: whole up to position {}, durable up to {} at least", survey.end(), survey.durable())?;
        }
    }
    if let Some(torn) = survey.torn().filter(|_| looked.damage.is_none()) {
        let segment = segments.last().map_or(1, |last| last.header.number);
        let cause = format!(
            "torn: behind position {} (in segment {segment} or after it) {} bytes are no whole frames: {}. None of that was \
             durable; the next opening puts it aside. If a program is writing there, look again",
            torn.position, torn.bytes, torn.what
        );
        return Err(Failure::new(TORN, cause));
    }
    if state == "stray" {
        let cause = "every record is whole, but something has changed the files: copy them to another disk, and let \
                     `slipring journal repair` put them right";
        return Err(Failure::new(CHANGED, cause));
    }
    looked.end()
}

pub(crate) fn repair_command(arguments: &Repair) -> Done {
    let bytes = arguments.directory.bytes();
    let bar = bar(bytes);
    let disk = arguments.directory.disk();
    // Looked at first: no file of a directory is touched that has no journal.
    let looked = arguments.directory.look(true, &mut |read| bar.set_position(read))?;
    let changed = looked.survey.stray_bytes().len() + looked.survey.stale_indexes().len();
    // Damage comes first.
    let changed = if looked.damage.is_none() { changed } else { 0 };
    drop(looked);
    if changed > 0 && !arguments.dry_run {
        clear(Arc::new(disk.clone()), &mut |read| bar.set_position(read))?;
    }
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let work = if arguments.dry_run { rehearse } else { repair };
    let repaired = work(Arc::new(disk.clone()), time, &mut |read| bar.set_position(read));
    bar.finish_and_clear();
    let repaired = repaired?;
    // What is damaged still.
    let end = || match repaired.mended.len() {
        0 if changed > 0 && arguments.dry_run => {
            let cause =
                format!("{changed} places that belong to no record have changed: without --dry-run they are put right");
            Err(Failure::new(CHANGED, cause))
        }
        0 => Ok(()),
        _ if !arguments.dry_run => Ok(()),
        places => {
            let cause = format!("damaged in {places} places: without --dry-run that is what a repair does");
            Err(Failure::new(super::DAMAGED, cause))
        }
    };
    let named = inspect_to_damage(Arc::new(disk), false, &mut |_| {})
        .map(|(survey, _)| topics(survey.state()))
        .unwrap_or_default();
    let mut out = std::io::stdout().lock();
    let how = |how: How| match how {
        How::Gap(bytes) => ("gap", bytes),
        How::Lost(bytes) => ("lost", bytes),
        How::Head => ("head", 0),
        How::Name => ("name", 0),
        How::Cut(bytes) => ("cut", bytes),
        _ => ("other", 0),
    };
    if arguments.json {
        let mended: Vec<_> = repaired
            .mended
            .iter()
            .map(|mended| {
                let (how, bytes) = how(mended.how);
                json!({
                    "segment": mended.segment, "byte": mended.at, "what": mended.what.to_string(), "how": how,
                    "bytes": bytes, "copy": mended.copy,
                })
            })
            .collect();
        let lost: Vec<_> = repaired
            .lost
            .iter()
            .map(|(partition, range)| {
                json!({
                    "topic": topic_name(&named, partition.topic), "topic_id": partition.topic, "partition": partition.partition,
                    "from": range.start, "to": range.end,
                })
            })
            .collect();
        let document = json!({ "version": 1, "dry_run": arguments.dry_run, "put_right": changed, "mended": mended, "lost": lost, "skipped_offsets": repaired.skipped_offsets });
        print_json(&mut out, &document)?;
        return end();
    }
    if repaired.mended.is_empty() {
        match (changed, arguments.dry_run) {
            (0, _) => writeln!(out, "nothing was damaged, and nothing was changed")?,
            (_, true) => writeln!(out, "nothing was damaged")?,
            (_, false) => {
                writeln!(out, "nothing was damaged; {changed} places that belong to no record were put right")?
            }
        }
        return end();
    }
    for mended in &repaired.mended {
        let did = match mended.how {
            How::Gap(bytes) => format!("{bytes} bytes were given up, and a gap stands there"),
            How::Lost(bytes) => format!("{bytes} bytes of segments are lost, and empty ones stand in their place"),
            How::Head if mended.copy.is_some() && mended.at == 0 => "the head of the file was taken out".to_owned(),
            How::Head => "the head of the file was made again".to_owned(),
            How::Name => "the file got its own name back; no frame was lost".to_owned(),
            How::Cut(bytes) => format!("{bytes} bytes behind the last frame were cut; no frame was lost"),
            _ => "mended".to_owned(),
        };
        let copy =
            mended.copy.as_ref().map_or_else(|| "only zeros".to_owned(), |copy| format!("kept in {}", plain(copy)));
        writeln!(out, "segment {} at byte {}: {}: {did} ({copy})", mended.segment, mended.at, mended.what)?;
    }
    for (partition, range) in &repaired.lost {
        let topic = plain(&topic_name(&named, partition.topic));
        writeln!(out, "lost: {topic} partition {}, offsets {}..{}", partition.partition, range.start, range.end)?;
    }
    if repaired.skipped_offsets {
        writeln!(
            out,
            "the end of the journal is among it: partitions go on at offsets that nothing lost can have had"
        )?;
    }
    end()
}
