//! The subcommands `cat`, `tail` and `export`.

use super::columns::Columns;
use super::filter::{Filter, Selection};
use super::sink::{Content, Row, Sink};
use crate::failure::{Done, FAILED, Failure};
use crate::inspected::{Directory, Inspected, Topics};
use crate::output::{progress_bar, size};
use slipring::Message;
use slipring::journal::format::{Entry, FrameKind, entries};
use slipring::journal::{Frames, Gap, PartitionId, ReplayError, gaps};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufWriter, IsTerminal, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

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

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// One JSON object per line
    Jsonl,
    /// Comma-separated values with a line of titles
    Csv,
}

#[derive(clap::Args)]
pub(crate) struct Export {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    filter: Filter,
    /// The format of the output
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    /// Put an apostrophe before each CSV cell that begins with =, +, - or @, which a spreadsheet would run as a formula
    #[arg(long)]
    guard_formulas: bool,
    /// The fields of events of plain data, in the order of their bytes, as in `price:i64,quantity:u32,_:4`: one column each.
    /// Types: u8 u16 u32 u64 i8 i16 i32 i64 f32 f64; `_:4` skips 4 bytes
    #[arg(long, value_name = "NAME:TYPE,...", requires = "topic")]
    columns: Option<Columns>,
    /// The file to write, which must not exist yet (default: standard output)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Reads the frames of a journal, and returns rows for the selected records.
struct Scan<'s> {
    frames: Frames,
    selection: &'s Selection<'s>,
    topics: &'s Topics,
    /// The first kept offset of each partition. Segments may still contain earlier records, which retention has
    /// deleted: they are skipped.
    starts: BTreeMap<PartitionId, u64>,
}

impl<'s> Scan<'s> {
    /// Starts a scan, and prints the gaps of the selected partitions on standard error.
    fn new(inspected: &Inspected, topics: &'s Topics, selection: &'s Selection<'s>) -> Self {
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
    fn only_selected_segments(mut self) -> Self {
        let selection = self.selection;
        self.frames = self.frames.only(|segment| segment.partitions.iter().any(|of| selection.may_have(of)));
        self
    }

    /// Calls `each` for the rows of the next frame, until `each` returns false. `None` after the last frame;
    /// `Some(false)` if `each` returned false, otherwise `Some(true)`.
    fn next(&mut self, each: &mut dyn FnMut(Row) -> Result<bool, Failure>) -> Result<Option<bool>, Failure> {
        let Some(frame) = self.frames.next()? else { return Ok(None) };
        if frame.header.kind != FrameKind::Data {
            return Ok(Some(true));
        }
        for entry in entries(&frame.plain) {
            let damaged = |what| ReplayError::Damaged { segment: frame.segment, at: frame.at, what };
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
    let mut sink = Sink::new(BufWriter::new(std::io::stdout().lock()), arguments.json);
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
    let mut sink = Sink::new(BufWriter::new(std::io::stdout().lock()), arguments.json);
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

/// Refuses columns for a topic whose events they cannot be: messages, or plain data of another size.
fn check_columns(columns: &Columns, selection: &Selection<'_>, topics: &Topics) -> Done {
    let Some(topic) = topics.0.iter().find(|topic| Some(topic.number) == selection.topic()) else { return Ok(()) };
    let (name, size) = (&topic.name, columns.size());
    if topic.max_message > 0 {
        let cause = format!("topic {name:?} has messages, which have columns of their own: leave `--columns` out");
        return Err(Failure::new(FAILED, cause));
    }
    let plain = topic.layout.strip_prefix("plain data of ").and_then(|rest| rest.strip_suffix(" bytes"));
    match plain.and_then(|bytes| bytes.parse().ok()).filter(|bytes: &usize| *bytes != size) {
        Some(bytes) => {
            let cause = format!(
                "an event of topic {name:?} has {bytes} bytes, and the columns have {size}: `_:COUNT` skips bytes"
            );
            Err(Failure::new(FAILED, cause))
        }
        None => Ok(()),
    }
}

pub(super) fn export(arguments: &Export) -> Done {
    let begun = Instant::now();
    let inspected = arguments.directory.inspect()?;
    let topics = inspected.topics();
    let selection = Selection::new(&arguments.filter, &topics, &inspected)?;
    if let Some(columns) = &arguments.columns {
        check_columns(columns, &selection, &topics)?;
    }
    let mut scan = Scan::new(&inspected, &topics, &selection).only_selected_segments();
    let total = scan.frames.left();
    let out: Box<dyn Write> = match &arguments.output {
        Some(path) => {
            let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
            Box::new(file.map_err(|cause| Failure::new(FAILED, format!("cannot make {path:?}: {cause}")))?)
        }
        None => Box::new(std::io::stdout().lock()),
    };
    let out = BufWriter::with_capacity(1 << 18, out);
    let mut sink = match arguments.format {
        Format::Jsonl => Sink::json(out, arguments.columns.clone()),
        Format::Csv => Sink::csv(out, arguments.columns.clone(), arguments.guard_formulas)?,
    };
    let bar = progress_bar(total);
    let mut count = 0_u64;
    let mut print = |row: Row| {
        count += 1;
        sink.write(&topics, &row).map(|()| true)
    };
    let mut done = Ok(Some(true));
    while let Ok(Some(_)) = done {
        done = scan.next(&mut print);
        bar.set_position(total.saturating_sub(scan.frames.left()));
    }
    bar.finish_and_clear();
    sink.flush()?;
    let seconds = begun.elapsed().as_secs_f64();
    if arguments.output.is_some() || std::io::stderr().is_terminal() {
        let rate = total as f64 / 1e6 / seconds;
        eprintln!("{count} records from {} in {seconds:.3} s ({rate:.0} MB/s)", size(total));
    }
    done?;
    inspected.end()
}
