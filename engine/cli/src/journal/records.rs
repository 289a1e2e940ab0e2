//! The subcommands `cat` and `tail`, and the scan that they share with `export`.

use super::filter::{Filter, Selection};
use super::sink::{Content, Row, Sink};
use crate::failure::{Done, Failure};
use crate::inspected::{Directory, Inspected, Topics};
use slipring::Message;
use slipring::journal::format::{Entry, FrameKind, entries};
use slipring::journal::{Frames, Gap, PartitionId, ReplayError, gaps};
use std::collections::{BTreeMap, VecDeque};
use std::io::BufWriter;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const EXAMPLES: &str = "\
Examples:
  slipring journal cat ./journal --topic orders --partition 0 --offsets 100..200
  slipring journal cat ./journal --since 15m --json | jq .value
  slipring journal cat ./journal --since 2026-11-21T08:00:00Z --until 2026-11-21T09:00:00Z

A value that is text is printed in one line, with \\\\ for a backslash and escapes such as \\n or \\u{1b} for characters that a
terminal would obey or hide; any other value as 0x and hexadecimal digits. Text that begins with 0x has \\u{30} for its zero.
Exit codes: see slipring journal --help.";

#[derive(clap::Args)]
pub(crate) struct Cat {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    filter: Filter,
    /// The most records to print
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    filter: Filter,
    /// Count of last records to print
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    lines: usize,
    /// Continue with new records as they are written, durable or not
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

/// Reads the frames of a journal, and returns rows for the selected records.
pub(super) struct Scan<'s> {
    pub(super) frames: Frames,
    selection: &'s Selection<'s>,
    topics: &'s Topics,
    /// The first kept offset of each partition. Segments may still contain earlier records, which retention has
    /// deleted: they are skipped.
    starts: BTreeMap<PartitionId, u64>,
}

impl<'s> Scan<'s> {
    /// Starts a scan, and prints the gaps of the selected partitions on standard error.
    pub(super) fn new(inspected: &Inspected, topics: &'s Topics, selection: &'s Selection<'s>) -> Self {
        for gap in gaps(inspected.state()).iter().filter(|gap| selection.has_gap(gap)) {
            let (name, Gap { partition, offsets: Range { start, end }, .. }) = (topics.name(gap.partition.topic), gap);
            let partition = partition.partition;
            eprintln!(
                "slipring: {name}/{partition}: the records at {start} up to, not including, {end} were lost to damage"
            );
        }
        let frames = inspected.survey.frames(Arc::clone(&inspected.storage));
        let starts = inspected.state().extents().map(|(partition, extent)| (partition, extent.start)).collect();
        Self { frames, selection, topics, starts }
    }

    /// Skips segments without selected records.
    pub(super) fn only_selected_segments(mut self) -> Self {
        let selection = self.selection;
        self.frames = self.frames.only(|segment| segment.partitions.iter().any(|of| selection.may_have(of)));
        self
    }

    /// Calls `each` for the rows of the next frame, until `each` returns false. `None` after the last frame;
    /// `Some(false)` if `each` returned false, otherwise `Some(true)`.
    pub(super) fn next(&mut self, each: &mut dyn FnMut(Row) -> Result<bool, Failure>) -> Result<Option<bool>, Failure> {
        let Some(frame) = self.frames.next()? else { return Ok(None) };
        if frame.header.kind != FrameKind::Data {
            return Ok(Some(true));
        }
        for entry in entries(&frame.plain) {
            let damaged = |what| ReplayError::Damaged { segment: frame.segment, at: frame.at, what, next: None };
            let Entry::Run(run) = entry.map_err(damaged)? else { continue };
            let partition = run.partition;
            if !self.selection.has_partition(partition) {
                continue;
            }
            let start = self.starts.get(&partition).copied().unwrap_or(0);
            let has_messages = self.topics.has_messages(partition.topic);
            for record in run.records() {
                let (offset, time) = (record.offset, record.time.unwrap_or(frame.header.time));
                if offset < start || !self.selection.has_record(offset, time) {
                    continue;
                }
                let message = if has_messages { Message::decode(record.bytes) } else { None };
                let content = message.map_or_else(|| Content::Event(record.bytes.to_vec()), Content::Message);
                if !each(Row { partition, offset, time, content })? {
                    return Ok(Some(false));
                }
            }
        }
        Ok(Some(true))
    }
}

pub(super) fn cat(arguments: &Cat) -> Done {
    let inspected = arguments.directory.inspect()?;
    let topics = inspected.topics();
    let selection = Selection::new(&arguments.filter, &topics, &inspected)?;
    let mut scan = Scan::new(&inspected, &topics, &selection).only_selected_segments();
    let mut sink = Sink::lines(BufWriter::new(std::io::stdout().lock()), &topics, arguments.json);
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut print = |row: Row| {
        if left > 0 {
            sink.write(&topics, &row)?;
        }
        left = left.saturating_sub(1);
        Ok(left > 0)
    };
    let mut done = Ok(Some(arguments.limit != Some(0)));
    while let Ok(Some(true)) = done {
        done = scan.next(&mut print);
    }
    // Records before the damage are printed in any case.
    sink.flush()?;
    match done? {
        Some(_) => Ok(()),
        None => inspected.end(),
    }
}

pub(super) fn tail(arguments: &Tail) -> Done {
    let inspected = arguments.directory.inspect()?;
    let topics = inspected.topics();
    let selection = Selection::new(&arguments.filter, &topics, &inspected)?;
    let mut scan = Scan::new(&inspected, &topics, &selection);
    // Without a range of offsets or times, reading begins at the last segment from which on the journal has at least as
    // many records as requested; with one, at the first segment.
    let mut from = 0;
    let mut found = 0;
    for segment in inspected.survey.segments().iter().rev() {
        from = segment.header.number;
        found += segment.partitions.iter().filter(|of| selection.may_have(of)).map(|of| of.records).sum::<u64>();
        if selection.takes_all_of_a_partition() && found >= arguments.lines as u64 {
            break;
        }
    }
    scan.frames = scan.frames.only(|segment| segment.header.number >= from);
    let mut last = VecDeque::with_capacity(arguments.lines.min(4096));
    let mut keep = |row: Row| {
        last.push_back(row);
        if last.len() > arguments.lines {
            last.pop_front();
        }
        Ok(true)
    };
    let mut done = Ok(Some(true));
    while let Ok(Some(_)) = done {
        done = scan.next(&mut keep);
    }
    let mut sink = Sink::lines(BufWriter::new(std::io::stdout().lock()), &topics, arguments.json);
    for row in &last {
        sink.write(&topics, row)?;
    }
    sink.flush()?;
    done?;
    if !arguments.follow || inspected.damage.is_some() {
        return inspected.end();
    }
    scan.frames = scan.frames.follow();
    loop {
        let mut more = false;
        while scan.next(&mut |row| sink.write(&topics, &row).map(|()| true))?.is_some() {
            more = true;
        }
        if more {
            sink.flush()?;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
