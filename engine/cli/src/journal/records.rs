//! `cat`, `tail` and `export`: records, chosen and printed.

use super::check::bar;
use super::{Directory, Done, Failure, Looked, Topic, plain, print_json, size, time, topic_name, topics};
use serde_json::{Map, Value, json};
use slipring::journal::format::{Entry, FrameKind, entries};
use slipring::journal::{Frames, Gap, PartitionId, PlaceReport, ReplayError, gaps};
use slipring::text;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{BufWriter, IsTerminal, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) const EXAMPLES: &str = "\
Examples:
  slipring journal cat ./journal --topic orders --partition 0 --offsets 100..200
  slipring journal cat ./journal --since 15m --json | jq .value
  slipring journal cat ./journal --since 2026-11-21T08:00:00Z --until 2026-11-21T09:00:00Z

A value that is text is printed in one line, with \\\\ for a backslash and escapes such as \\n or \\u{1b} for characters that a
terminal would obey or hide; any other value as 0x and hexadecimal digits. Text that begins with 0x has \\u{30} for its zero.
Exit codes: see slipring journal --help.";

#[derive(clap::Args)]
pub(crate) struct Filter {
    /// Only this topic: its name, or its number in the catalogue
    #[arg(long, value_name = "NAME")]
    topic: Option<String>,
    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,
    /// Only these offsets: FROM..TO, FROM.. or ..TO; TO itself is left out
    #[arg(long, value_name = "RANGE", value_parser = offsets)]
    offsets: Option<(u64, u64)>,
    /// Only records of this time or later: 2026-11-21T08:00:00Z, or how long ago, as in 15m
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Only records before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
}

fn offsets(text: &str) -> Result<(u64, u64), String> {
    let bad = || format!("{text:?} is no range of offsets: write 100..200, 100.. or ..200");
    let (from, to) = text.split_once("..").ok_or_else(bad)?;
    let end = |text: &str, open: u64| if text.is_empty() { Ok(open) } else { text.parse().map_err(|_| bad()) };
    let (from, to) = (end(from, 0)?, end(to, u64::MAX)?);
    if from < to { Ok((from, to)) } else { Err(bad()) }
}

fn moment(text: &str) -> Result<u64, String> {
    let at = match humantime::parse_rfc3339_weak(text) {
        Ok(at) => at,
        Err(_) => {
            let ago = humantime::parse_duration(text);
            let ago = ago.map_err(|_| "write a time as 2026-11-21T08:00:00Z, or how long ago, as in 15m".to_owned())?;
            SystemTime::now().checked_sub(ago).unwrap_or(UNIX_EPOCH)
        }
    };
    Ok(at.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}

#[derive(clap::Args)]
pub(crate) struct Cat {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    filter: Filter,
    /// Print no more than so many records
    #[arg(long, short = 'n', value_name = "COUNT")]
    limit: Option<u64>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    filter: Filter,
    /// So many records
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    lines: usize,
    /// Go on with records as they are written, durable or not
    #[arg(long, short)]
    follow: bool,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Format {
    /// One JSON object a line
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
    /// What to write
    #[arg(long, value_enum, default_value = "jsonl")]
    format: Format,
    /// Put an apostrophe before each CSV cell that begins with =, +, - or @, which a spreadsheet would run as a formula
    #[arg(long)]
    guard_formulas: bool,
    /// The file to write, which must not be there yet; without it standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// A record as it is printed.
struct Row {
    partition: PartitionId,
    offset: u64,
    time: u64,
    key: Option<Vec<u8>>,
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    value: Vec<u8>,
}

/// What a filter asks for, with its topic looked up.
struct Wanted<'f> {
    filter: &'f Filter,
    topic: Option<u32>,
}

impl<'f> Wanted<'f> {
    fn new(filter: &'f Filter, topics: &[Topic], looked: &Looked) -> Result<Wanted<'f>, Failure> {
        let Some(name) = &filter.topic else {
            return Wanted { filter, topic: None }.if_there("the journal", looked);
        };
        let known = topics.iter().find(|topic| topic.name == *name).map(|topic| topic.number);
        let number = name.parse().ok().filter(|number| {
            topics.iter().any(|topic| topic.number == *number)
                || looked.survey.state().extents().any(|(partition, _)| partition.topic == *number)
        });
        match known.or(number) {
            Some(number) => Wanted { filter, topic: Some(number) }.if_there(&format!("topic {name:?}"), looked),
            None => Err(Failure::new(1, format!("there is no topic {name:?}: `slipring journal stat` lists them"))),
        }
    }

    /// Itself, unless it asks for a partition that nobody has.
    fn if_there(self, of: &str, looked: &Looked) -> Result<Self, Failure> {
        let Some(asked) = self.filter.partition else { return Ok(self) };
        let known = looked.survey.state().extents().map(|(partition, _)| partition);
        let known = known.filter(|known| self.topic.is_none_or(|topic| topic == known.topic));
        let known: BTreeSet<u32> = known.map(|known| known.partition).collect();
        if known.contains(&asked) {
            return Ok(self);
        }
        let known: Vec<String> = known.iter().map(u32::to_string).collect();
        let which = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Err(Failure::new(1, format!("{of} has no partition {asked}: there are {which}")))
    }

    fn partition(&self, partition: PartitionId) -> bool {
        self.topic.is_none_or(|topic| topic == partition.topic)
            && self.filter.partition.is_none_or(|number| number == partition.partition)
    }

    fn place(&self, place: &PlaceReport) -> bool {
        self.partition(place.partition)
            && self.filter.offsets.is_none_or(|(from, to)| place.end > from && place.first < to)
            && self.filter.since.is_none_or(|since| place.latest >= since)
    }

    fn gap(&self, gap: &Gap) -> bool {
        let Range { start, end } = gap.offsets;
        self.partition(gap.partition) && self.filter.offsets.is_none_or(|(from, to)| end > from && start < to)
    }

    fn record(&self, offset: u64, time: u64) -> bool {
        self.filter.offsets.is_none_or(|(from, to)| (from..to).contains(&offset))
            && self.filter.since.is_none_or(|since| time >= since)
            && self.filter.until.is_none_or(|until| time < until)
    }
}

/// How messages name their layout in the catalogue.
const MESSAGE: &str = "slipring message 1";

/// Key, headers by name, and value.
pub(crate) type Parts = (Option<Vec<u8>>, Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>);

/// Key, headers and value of a message; none if the bytes are no message.
pub(crate) fn message(bytes: &[u8]) -> Option<Parts> {
    let word = |at: usize| Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let (key, value, headers) = (word(0)?, word(4)? as usize, word(8)? as usize);
    let keyed = key != u32::MAX;
    let key = if keyed { key as usize } else { 0 };
    let cell = bytes.get(20..)?;
    if cell.len() as u64 != key as u64 + value as u64 + headers as u64 {
        return None;
    }
    let (name, rest) = cell.split_at(key);
    let (value, mut rest) = rest.split_at(value);
    let mut parsed = Vec::new();
    while !rest.is_empty() {
        let named = u16::from_le_bytes(*rest.first_chunk()?) as usize;
        let valued = u32::from_le_bytes(*rest.get(2..)?.first_chunk()?) as usize;
        let (name, after) = rest.get(6..)?.split_at_checked(named)?;
        let (value, after) = after.split_at_checked(valued)?;
        rest = after;
        parsed.push((name.to_vec(), value.to_vec()));
    }
    Some((keyed.then(|| name.to_vec()), parsed, value.to_vec()))
}

enum Sink<W: Write> {
    Text(W),
    Json(W),
    Csv {
        out: Box<csv::Writer<W>>,
        /// An apostrophe is put before a cell that a spreadsheet would run.
        guard: bool,
    },
}

/// True for a cell that a spreadsheet runs as a formula.
fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}

/// Puts a value under `name` if it is text, else its digits under `name` with `_hex`.
pub(crate) fn put_bytes(object: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match text::as_text(bytes) {
        Some(text) => object.insert(name.to_owned(), json!(text)),
        None => object.insert(format!("{name}_hex"), json!(text::hex(bytes).to_string())),
    };
}

impl<W: Write> Sink<W> {
    fn csv(into: W, guard: bool) -> Result<Self, Failure> {
        let mut writer = csv::Writer::from_writer(into);
        writer.write_record(["topic", "partition", "offset", "time_ns", "key", "headers", "value"])?;
        Ok(Self::Csv { out: Box::new(writer), guard })
    }

    fn write(&mut self, topics: &[Topic], row: &Row) -> Done {
        let topic = topic_name(topics, row.partition.topic);
        let partition = row.partition.partition;
        match self {
            Self::Text(out) => {
                write!(out, "{}/{partition} {} {}", text::line(&topic), row.offset, time(row.time))?;
                if let Some(key) = &row.key {
                    write!(out, " {}:", text::value(key))?;
                }
                for (name, value) in &row.headers {
                    write!(out, " [{}={}]", text::value(name), text::value(value))?;
                }
                writeln!(out, " {}", text::value(&row.value))?;
            }
            Self::Json(out) => {
                let mut object = Map::new();
                let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
                put("topic", json!(topic));
                put("topic_id", json!(row.partition.topic));
                put("partition", json!(partition));
                put("offset", json!(row.offset));
                put("time_ns", json!(row.time));
                if let Some(key) = &row.key {
                    put_bytes(&mut object, "key", key);
                }
                put_bytes(&mut object, "value", &row.value);
                if !row.headers.is_empty() {
                    let header = |(name, value): &(Vec<u8>, Vec<u8>)| {
                        let mut header = Map::new();
                        put_bytes(&mut header, "name", name);
                        put_bytes(&mut header, "value", value);
                        Value::Object(header)
                    };
                    object.insert("headers".to_owned(), row.headers.iter().map(header).collect());
                }
                print_json(out, &Value::Object(object))?;
            }
            Self::Csv { out, guard } => {
                let header =
                    |(name, value): &(Vec<u8>, Vec<u8>)| format!("{}={}", text::value(name), text::value(value));
                let headers: Vec<_> = row.headers.iter().map(header).collect();
                let key = row.key.as_deref().map_or_else(String::new, |key| text::value(key).to_string());
                let (offset, time, value) = (row.offset.to_string(), row.time.to_string(), text::value(&row.value));
                let cells =
                    [plain(&topic), partition.to_string(), offset, time, key, headers.join(";"), value.to_string()];
                out.write_record(
                    cells.map(|cell| if *guard && is_formula(&cell) { format!("'{cell}") } else { cell }),
                )?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Done {
        match self {
            Self::Text(out) | Self::Json(out) => out.flush()?,
            Self::Csv { out, .. } => out.flush()?,
        }
        Ok(())
    }
}

/// What goes through the frames and gives the rows that are wanted.
struct Scan<'s> {
    frames: Frames,
    wanted: &'s Wanted<'s>,
    messages: Vec<u32>,
    /// What retention has taken away is no more, though it may still stand in a segment.
    starts: BTreeMap<PartitionId, u64>,
}

impl<'s> Scan<'s> {
    /// What was lost of the wanted partitions is told on standard error.
    fn new(looked: &Looked, topics: &[Topic], wanted: &'s Wanted<'s>) -> Self {
        for gap in gaps(looked.survey.state()).iter().filter(|gap| wanted.gap(gap)) {
            let (name, Gap { partition, offsets: Range { start, end }, .. }) =
                (topic_name(topics, gap.partition.topic), gap);
            let partition = partition.partition;
            eprintln!(
                "slipring: {name}/{partition}: the records at {start} up to, not including, {end} were lost to damage"
            );
        }
        let frames = looked.survey.frames(std::sync::Arc::clone(&looked.storage));
        let messages = topics.iter().filter(|topic| topic.layout == MESSAGE).map(|topic| topic.number).collect();
        let starts = looked.survey.state().extents().map(|(partition, extent)| (partition, extent.start)).collect();
        Self { frames, wanted, messages, starts }
    }

    /// The rows of the next frame; none at the end.
    fn next(&mut self, each: &mut dyn FnMut(Row) -> Result<bool, Failure>) -> Result<Option<bool>, Failure> {
        let frame = match self.frames.next() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(cause) => return Err(cause.into()),
        };
        if frame.header.kind != FrameKind::Data {
            return Ok(Some(true));
        }
        for entry in entries(&frame.plain) {
            let damaged = |what| ReplayError::Damaged { segment: frame.segment, at: frame.at, what };
            let Entry::Run(run) = entry.map_err(damaged)? else { continue };
            if !self.wanted.partition(run.partition) {
                continue;
            }
            let start = self.starts.get(&run.partition).copied().unwrap_or(0);
            for record in run.records() {
                let time = record.time.unwrap_or(frame.header.time);
                if record.offset < start || !self.wanted.record(record.offset, time) {
                    continue;
                }
                let apart = if self.messages.contains(&run.partition.topic) { message(record.bytes) } else { None };
                let (key, headers, value) = apart.unwrap_or_else(|| (None, Vec::new(), record.bytes.to_vec()));
                let row = Row { partition: run.partition, offset: record.offset, time, key, headers, value };
                if !each(row)? {
                    return Ok(Some(false));
                }
            }
        }
        Ok(Some(true))
    }
}

pub(crate) fn cat(arguments: &Cat) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let topics = topics(looked.survey.state());
    let wanted = Wanted::new(&arguments.filter, &topics, &looked)?;
    let mut scan = Scan::new(&looked, &topics, &wanted);
    scan.frames = scan.frames.only(|segment| segment.places.iter().any(|place| wanted.place(place)));
    let out = BufWriter::new(std::io::stdout().lock());
    let mut sink = if arguments.json { Sink::Json(out) } else { Sink::Text(out) };
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
    // What was found before damage is shown in any case.
    sink.flush()?;
    match done? {
        Some(_) => Ok(()),
        None => looked.end(),
    }
}

pub(crate) fn tail(arguments: &Tail) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let topics = topics(looked.survey.state());
    let wanted = Wanted::new(&arguments.filter, &topics, &looked)?;
    let mut scan = Scan::new(&looked, &topics, &wanted);
    // From the first segment on, counted from the end, that may have as many as asked for.
    let mut from = 0;
    let mut found = 0;
    for segment in looked.survey.segments().iter().rev() {
        from = segment.header.number;
        found += segment.places.iter().filter(|place| wanted.place(place)).map(|place| place.records).sum::<u64>();
        let exact =
            arguments.filter.since.is_none() && arguments.filter.until.is_none() && arguments.filter.offsets.is_none();
        if exact && found >= arguments.lines as u64 {
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
    let out = BufWriter::new(std::io::stdout().lock());
    let mut sink = if arguments.json { Sink::Json(out) } else { Sink::Text(out) };
    for row in &last {
        sink.write(&topics, row)?;
    }
    sink.flush()?;
    done?;
    if !arguments.follow || looked.damage.is_some() {
        return looked.end();
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

pub(crate) fn export(arguments: &Export) -> Done {
    let begun = Instant::now();
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let topics = topics(looked.survey.state());
    let wanted = Wanted::new(&arguments.filter, &topics, &looked)?;
    let mut scan = Scan::new(&looked, &topics, &wanted);
    scan.frames = scan.frames.only(|segment| segment.places.iter().any(|place| wanted.place(place)));
    let total = scan.frames.left();
    let out: Box<dyn Write> = match &arguments.output {
        Some(path) => {
            let file = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
            Box::new(file.map_err(|cause| Failure::new(1, format!("cannot make {path:?}: {cause}")))?)
        }
        None => Box::new(std::io::stdout().lock()),
    };
    let out = BufWriter::with_capacity(1 << 18, out);
    let mut sink = match arguments.format {
        Format::Jsonl => Sink::Json(out),
        Format::Csv => Sink::csv(out, arguments.guard_formulas)?,
    };
    let bar = bar(total);
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
    looked.end()
}
