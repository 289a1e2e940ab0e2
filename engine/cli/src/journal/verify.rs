//! The subcommand `verify`.

use crate::failure::{Done, Failure, STRAY, TORN};
use crate::inspected::Listing;
use crate::output::{print_json, progress_bar, size};
use serde_json::json;
use slipring::journal::OpenError;
use std::io::Write;
use std::time::Instant;

pub(super) fn run(arguments: &Listing) -> Done {
    let begun = Instant::now();
    let bar = progress_bar(arguments.directory.bytes());
    let inspected = arguments.directory.inspect_with(true, &mut |read| bar.set_position(read));
    bar.finish_and_clear();
    let inspected = inspected?;
    let seconds = begun.elapsed().as_secs_f64();
    let survey = &inspected.survey;
    let segments = survey.segments();
    let records: u64 = segments.iter().flat_map(|segment| &segment.partitions).map(|of| of.records).sum();
    let (stale, stray) = (survey.stale_indexes(), survey.stray_bytes());
    let state = match (&inspected.damage, survey.torn()) {
        (Some(_), _) => "damaged",
        (None, Some(_)) => "torn",
        (None, None) if !stale.is_empty() || !stray.is_empty() => "stray",
        (None, None) => "sound",
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let damage = inspected.damage.as_ref().map(|damage| match damage {
            OpenError::Damaged { segment, at, position, durable, what } => json!({
                "segment": segment, "byte": at, "position": position, "durable": durable, "what": what.to_string(),
            }),
            other => json!({ "what": other.to_string() }),
        });
        let torn = survey
            .torn()
            .map(|torn| json!({ "position": torn.position, "bytes": torn.bytes, "what": torn.what.to_string() }));
        let stray: Vec<_> = stray.iter().map(|(segment, at)| json!({ "segment": segment, "byte": at })).collect();
        let document = json!({
            "version": 1, "state": state, "segments": segments.len(), "records": records, "bytes": survey.scanned(),
            "seconds": seconds, "durable": survey.durable(), "end": survey.end(), "damage": damage, "torn": torn,
            "stale_indexes": stale, "stray_bytes": stray,
        });
        print_json(&mut out, &document)?;
    } else {
        let (bytes, count) = (size(survey.scanned()), segments.len());
        let rate = survey.scanned() as f64 / 1e6 / seconds;
        writeln!(out, "{count} segments, {records} records, {bytes} checked in {seconds:.3} s ({rate:.0} MB/s)")?;
        // In a damaged journal no index is named here, because the index may be correct and the segment damaged.
        for number in stale.iter().filter(|_| inspected.damage.is_none()) {
            writeln!(
                out,
                "the index of segment {number} contradicts the segment's frames: delete that file, and the next opening makes \
                 it again"
            )?;
        }
        for (number, at) in stray {
            writeln!(out, "segment {number} at byte {at}: not zero, as it was written; no record is made of it")?;
        }
        if state == "sound" {
            writeln!(out, "sound: whole up to position {}, durable up to {} at least", survey.end(), survey.durable())?;
        }
    }
    if let Some(torn) = survey.torn().filter(|_| inspected.damage.is_none()) {
        let segment = segments.last().map_or(1, |last| last.header.number);
        let cause = format!(
            "torn: behind position {} (in segment {segment} or after it) {} bytes are no whole frames: {}. None of these bytes \
             was durable; the next opening puts them aside. If a program is writing there, verify again",
            torn.position, torn.bytes, torn.what
        );
        return Err(Failure::new(TORN, cause));
    }
    if state == "stray" {
        let cause = "every record is whole, but something has changed the files: copy them to another disk, and let \
                     `slipring journal repair` put them right";
        return Err(Failure::new(STRAY, cause));
    }
    inspected.end()
}
