//! The subcommand `repair`.

use crate::failure::{DAMAGED, Done, Failure, STRAY};
use crate::inspected::{Directory, Topics};
use crate::output::{now, plain, print_json, progress_bar};
use serde_json::json;
use slipring::journal::repair::{RepairAction, RepairReport, RepairedPlace, rehearse, repair};
use slipring::journal::{Survey, inspect_to_damage, recorded_topics, scrub};
use std::io::Write;
use std::sync::Arc;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: Directory,
    /// Print all damage and what would be done about it, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let bar = progress_bar(arguments.directory.bytes());
    let disk = arguments.directory.disk();
    // A directory without a journal is refused before any file in it changes.
    let inspected = arguments.directory.inspect_with(true, &mut |read| bar.set_position(read))?;
    let count = |survey: &Survey| survey.stray_bytes().len() + survey.stale_indexes().len();
    let is_damaged = inspected.damage.is_some();
    // The count of changed places that belong to no record. In a damaged journal they are counted after the repair, and
    // with `--dry-run` not at all.
    let mut stray = if is_damaged { 0 } else { count(&inspected.survey) };
    drop(inspected);
    if stray > 0 && !arguments.dry_run {
        scrub(Arc::new(disk.clone()), &mut |read| bar.set_position(read))?;
    }
    let work = if arguments.dry_run { rehearse } else { repair };
    let repaired = work(Arc::new(disk.clone()), now().as_nanos(), &mut |read| bar.set_position(read));
    let repaired = repaired.inspect_err(|_| bar.finish_and_clear())?;
    let left = inspect_to_damage(Arc::new(disk.clone()), is_damaged, &mut |read| bar.set_position(read));
    let left = left.map(|(survey, _)| survey).ok();
    if is_damaged && !arguments.dry_run {
        // Bytes outside the damaged places, which belong to no record, may have changed as well.
        stray = left.as_ref().map_or(0, count);
        if stray > 0 {
            scrub(Arc::new(disk), &mut |read| bar.set_position(read))?;
        }
    }
    bar.finish_and_clear();
    let topics = Topics(left.as_ref().map(|survey| recorded_topics(survey.state())).unwrap_or_default());
    let torn = left.as_ref().and_then(|survey| survey.torn()).map_or(0, |torn| torn.bytes);
    if arguments.json {
        print_report(&repaired, &topics, stray, arguments.dry_run)?;
    } else {
        write_report(&repaired, &topics, (stray, torn), arguments.dry_run)?;
    }
    match repaired.places.len() {
        _ if !arguments.dry_run => Ok(()),
        0 if stray > 0 => {
            let cause =
                format!("{stray} places that belong to no record have changed: without --dry-run they are put right");
            Err(Failure::new(STRAY, cause))
        }
        0 => Ok(()),
        places => {
            let cause = format!("damaged in {places} places: without --dry-run the repair is done as shown");
            Err(Failure::new(DAMAGED, cause))
        }
    }
}

/// Prints the report as JSON. `stray` is the count of changed places that belong to no record.
fn print_report(repaired: &RepairReport, topics: &Topics, stray: usize, dry_run: bool) -> Done {
    let mended = repaired.places.iter().map(|mended| {
        let (how, bytes) = match mended.action {
            RepairAction::Gap(bytes) => ("gap", bytes),
            RepairAction::Lost(bytes) => ("lost", bytes),
            RepairAction::Head => ("head", 0),
            RepairAction::Name => ("name", 0),
            RepairAction::Cut(bytes) => ("cut", bytes),
            _ => ("other", 0),
        };
        let RepairedPlace { segment, at, what, copy, .. } = mended;
        json!({ "segment": segment, "byte": at, "what": what.to_string(), "how": how, "bytes": bytes, "copy": copy })
    });
    let lost = repaired.lost.iter().map(|(partition, range)| {
        json!({
            "topic": topics.name(partition.topic), "topic_id": partition.topic, "partition": partition.partition,
            "from": range.start, "to": range.end,
        })
    });
    let document = json!({
        "version": 1, "dry_run": dry_run, "put_right": stray, "mended": mended.collect::<Vec<_>>(),
        "lost": lost.collect::<Vec<_>>(), "skipped_offsets": repaired.skipped_offsets,
    });
    print_json(&mut std::io::stdout().lock(), &document)
}

/// Prints the report as text. `stray` is the count of changed places that belong to no record, `torn` the size of the
/// torn tail in bytes.
fn write_report(repaired: &RepairReport, topics: &Topics, (stray, torn): (usize, u64), dry_run: bool) -> Done {
    let mut out = std::io::stdout().lock();
    if torn > 0 && repaired.places.is_empty() {
        writeln!(out, "the end is torn: {torn} bytes are no whole frames, and the next opening puts them aside")?;
    }
    if repaired.places.is_empty() {
        match (stray, dry_run) {
            (0, _) => writeln!(out, "nothing was damaged, and nothing was changed")?,
            (_, true) => writeln!(out, "nothing was damaged")?,
            _ => writeln!(out, "nothing was damaged; {stray} places that belong to no record were put right")?,
        }
        return Ok(());
    }
    for mended in &repaired.places {
        let did = match mended.action {
            RepairAction::Gap(bytes) => format!("{bytes} bytes were given up, and a gap stands there"),
            RepairAction::Lost(bytes) => {
                format!("{bytes} bytes of segments are lost, and empty ones stand in their place")
            }
            RepairAction::Head if mended.copy.is_some() && mended.at == 0 => {
                "the head of the file was taken out".to_owned()
            }
            RepairAction::Head => "the head of the file was made again".to_owned(),
            RepairAction::Name => "the file got its own name back; no frame was lost".to_owned(),
            RepairAction::Cut(bytes) => format!("{bytes} bytes behind the last frame were cut; no frame was lost"),
            _ => "repaired".to_owned(),
        };
        let copy =
            mended.copy.as_ref().map_or_else(|| "only zeros".to_owned(), |copy| format!("kept in {}", plain(copy)));
        writeln!(out, "segment {} at byte {}: {}: {did} ({copy})", mended.segment, mended.at, mended.what)?;
    }
    for (partition, range) in &repaired.lost {
        let topic = plain(&topics.name(partition.topic));
        writeln!(out, "lost: {topic} partition {}, offsets {}..{}", partition.partition, range.start, range.end)?;
    }
    if stray > 0 {
        writeln!(out, "{stray} places that belong to no record were put right, too")?;
    }
    if repaired.skipped_offsets {
        writeln!(
            out,
            "the end of the journal is damaged: partitions go on at offsets that no lost record can have had"
        )?;
    }
    Ok(())
}
