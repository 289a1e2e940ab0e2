//! The subcommand `export`.

use super::columns::{Columns, TopicColumns};
use super::filter::{Filter, Selection};
use super::parquet::Parquet;
use super::records::Scan;
use super::sink::{Row, Sink};
use super::target::Target;
use crate::failure::{Done, FAILED, Failure};
use crate::inspected::{Directory, Topics};
use crate::output::{progress_bar, size};
use slipring::journal::{RecordedTopic, plain_size};
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::time::Instant;

pub(crate) const EXAMPLES: &str = "\
Examples:
  slipring journal export ./journal --topic orders -o orders.jsonl
  slipring journal export ./journal --topic quotes --since 1h --format parquet -o quotes.parquet

Events whose layout names their fields (slipring::plain_event!) have a column of its type for each field; others need --columns, or
are written as their bytes in JSON and CSV. An array of u8 is bytes: text where it is text, otherwise hexadecimal digits.

A Parquet file holds one topic. Its columns are partition, offset and timestamp (UTC), then the fields of events, or of messages
time, key, value and headers. A field of one of these three names gets event_ in front. Rows are written in groups of
--row-group rows, or of about 32 MiB if that is less.

A file is written as FILE.<process>.partial, and gets its name when it is whole. Records that come before damage are written.
Exit codes: see slipring journal --help.";

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One JSON object per line
    Jsonl,
    /// Comma-separated values with a line of titles
    Csv,
    /// Apache Parquet, compressed with Snappy: needs --output, and one topic
    Parquet,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    filter: Filter,
    /// The format of the output
    #[arg(long, value_enum, default_value = "jsonl", requires_if("parquet", "output"))]
    format: Format,
    /// Put an apostrophe before each CSV cell that begins with =, +, - or @, which a spreadsheet would run as a formula
    #[arg(long)]
    guard_formulas: bool,
    /// The fields of events of plain data, in the order of their bytes, as in `price:i64,quantity:u32,_:4`: one column each.
    /// Types: u8 u16 u32 u64 i8 i16 i32 i64 f32 f64, and arrays such as u8[4]; `_:4` skips 4 bytes. Default: the fields that the
    /// catalogue names
    #[arg(long, value_name = "NAME:TYPE,...", requires = "topic")]
    columns: Option<Columns>,
    /// The most rows of a group of a Parquet file
    #[arg(long, value_name = "ROWS", default_value_t = 1 << 18, value_parser = clap::value_parser!(u32).range(1..))]
    row_group: u32,
    /// The file to write, which must not exist yet (default: standard output)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Refuses columns for a topic whose events they cannot be: messages, or plain data of another size.
fn check_columns(columns: &Columns, topic: &RecordedTopic) -> Done {
    let (name, size) = (&topic.name, columns.size());
    if topic.max_message > 0 {
        let cause = format!("topic {name:?} has messages, which have columns of their own: leave `--columns` out");
        return Err(Failure::new(FAILED, cause));
    }
    match plain_size(&topic.layout).filter(|bytes| *bytes != size) {
        Some(bytes) => {
            let cause = format!(
                "an event of topic {name:?} has {bytes} bytes, and the columns have {size}: `_:COUNT` skips bytes"
            );
            Err(Failure::new(FAILED, cause))
        }
        None => Ok(()),
    }
}

/// The only topic whose records are written. `None` if there are several, or the catalogue does not have it.
fn only_topic<'t>(selection: &Selection<'_>, topics: &'t Topics) -> Option<&'t RecordedTopic> {
    match (selection.topic(), &topics.0[..]) {
        (Some(number), topics) => topics.iter().find(|topic| topic.number == number),
        (None, [topic]) => Some(topic),
        _ => None,
    }
}

/// Begins a Parquet file of the only topic.
fn parquet<W: Write>(
    target: &Target,
    topic: Option<&RecordedTopic>,
    columns: Option<Columns>,
    arguments: &Arguments,
) -> Result<Sink<W>, Failure> {
    let topic = topic.ok_or_else(|| {
        Failure::new(FAILED, "a Parquet file has the columns of one topic of the catalogue: name it with `--topic`")
    })?;
    if topic.max_message == 0 && columns.is_none() {
        let cause = format!(
            "the layout of topic {:?} is {:?}, which names no fields: name them with `--columns`, or declare the event with `slipring::plain_event!`",
            topic.name, topic.layout
        );
        return Err(Failure::new(FAILED, cause));
    }
    Ok(Sink::Parquet(Box::new(Parquet::new(target.writer()?, topic, columns, arguments.row_group as usize)?)))
}

pub(super) fn run(arguments: &Arguments) -> Done {
    let begun = Instant::now();
    let inspected = arguments.directory.inspect()?;
    let topics = inspected.topics();
    let selection = Selection::new(&arguments.filter, &topics, &inspected)?;
    let topic = only_topic(&selection, &topics);
    let mut recorded = Columns::recorded(&topics);
    if let (Some(columns), Some(number)) = (&arguments.columns, selection.topic()) {
        topic.map_or(Ok(()), |topic| check_columns(columns, topic))?;
        recorded.insert(number, TopicColumns { present: Some(columns.clone()), older: Vec::new() });
    }
    let of_topic =
        selection.topic().or(topic.map(|topic| topic.number)).and_then(|number| recorded.get(&number)?.present.clone());
    let mut scan = Scan::new(&inspected, &topics, &selection).only_selected_segments();
    let total = scan.frames.left();
    let target = arguments.output.as_deref().map(Target::create).transpose()?;
    let buffered = |out: Box<dyn Write>| BufWriter::with_capacity(1 << 18, out);
    let out = |target: &Option<Target>| {
        let out: Box<dyn Write> = match target {
            Some(target) => Box::new(target.writer()?),
            None => Box::new(std::io::stdout().lock()),
        };
        Ok::<_, Failure>(buffered(out))
    };
    let mut sink = match (arguments.format, &target) {
        (Format::Parquet, Some(target)) => parquet(target, topic, of_topic, arguments)?,
        (Format::Csv, target) => Sink::csv(out(target)?, of_topic, arguments.guard_formulas)?,
        (Format::Jsonl | Format::Parquet, target) => Sink::Json(out(target)?, recorded),
    };
    let bar = progress_bar(total);
    let (mut count, mut refused) = (0_u64, None);
    let mut print = |row: Row| {
        count += 1;
        refused = sink.write(&topics, &row).err();
        Ok(refused.is_none())
    };
    let mut done = Ok(Some(true));
    while let Ok(Some(true)) = done {
        done = scan.next(&mut print);
        bar.set_position(total.saturating_sub(scan.frames.left()));
    }
    bar.finish_and_clear();
    // What was refused leaves no file; damage leaves one of the records before it.
    refused.map_or(Ok(()), Err)?;
    let flushed = sink.flush();
    let done = done.map(drop);
    match done {
        Err(cause) if !cause.is_damage() && target.is_some() => return Err(cause),
        done => {
            flushed?;
            target.map_or(Ok(()), Target::finish)?;
            let seconds = begun.elapsed().as_secs_f64();
            if arguments.output.is_some() || std::io::stderr().is_terminal() {
                let rate = total as f64 / 1e6 / seconds;
                eprintln!("{count} records from {} in {seconds:.3} s ({rate:.0} MB/s)", size(total));
            }
            done?;
        }
    }
    inspected.end()
}
