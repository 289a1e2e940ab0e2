//! `slipring topic`: shows the topics of a journal.

use crate::failure::{Done, FAILED, Failure};
use crate::inspected::{Directory, Inspected, Listing};
use crate::output::{SKIPS, Table, cells, plain, print_json};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use slipring::journal::{EventLayout, Extent, LayoutField, PartitionId, RecordedTopic, recorded_topics};
use std::io::Write;

/// Shows the durable topics of a journal: their partitions, and the range of offsets that each one keeps.
///
/// Both commands also work while a program has the journal open, and show what that program has written so far. Topics are
/// created and deleted by the program: `Engine::topic` and `Engine::delete`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  slipring topic ls ./journal
  slipring topic describe ./journal orders --json

Exit codes:
  0  done
  1  it could not be done: no such topic, no journal there, the disk fails
  2  the command line was not understood
  3  the journal is damaged
  5  a newer program wrote it";

#[derive(Subcommand)]
enum Command {
    /// List the topics with their counts of partitions and of kept records
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show the fields of a topic's events, and the range of offsets and the count of records that each partition keeps
    Describe(Describe),
}

#[derive(Args)]
struct Describe {
    #[command(flatten)]
    directory: Directory,
    /// The topic's name
    topic: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    match &arguments.command {
        Command::Ls(arguments) => ls(arguments),
        Command::Describe(arguments) => describe(arguments),
    }
}

/// What a partition keeps.
struct Kept {
    partition: u32,
    extent: Extent,
    records: u64,
}

impl Kept {
    /// The partitions of a topic, in order.
    fn all(inspected: &Inspected, topic: &RecordedTopic) -> Vec<Self> {
        let journal = inspected.journal();
        let kept = |partition| {
            let of = PartitionId { topic: topic.number, partition };
            let extent = journal.extent(of).unwrap_or_default();
            Self { partition, extent, records: journal.records_in(of, extent.start..extent.end) }
        };
        (0..topic.partitions).map(kept).collect()
    }

    /// Count of kept offsets without a record.
    fn skipped(&self) -> u64 {
        (self.extent.end - self.extent.start).saturating_sub(self.records)
    }

    fn json(&self) -> Value {
        let Self { partition, extent, records } = self;
        json!({
            "partition": partition, "earliest": extent.start, "latest": extent.end, "records": records,
            "skipped": self.skipped(),
        })
    }
}

/// What the topic's events are, in words.
fn events(topic: &RecordedTopic) -> String {
    match topic.max_message {
        0 => plain(&topic.layout),
        bytes => format!("messages of up to {bytes} bytes"),
    }
}

/// The fields of a layout as JSON; null if it names none.
fn fields(layout: Option<EventLayout>) -> Value {
    let field = |of: &LayoutField| json!({ "name": of.name(), "type": of.number_type().name(), "len": of.len(), "offset": of.offset() });
    layout.map_or(Value::Null, |layout| layout.fields().iter().map(field).collect())
}

fn ls(arguments: &Listing) -> Done {
    let inspected = arguments.directory.inspect()?;
    let topics = inspected.topics().0;
    let listed = topics.iter().map(|topic| (topic, Kept::all(&inspected, topic)));
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let listed = listed.map(|(topic, kept)| {
            let kept: Vec<_> = kept.iter().map(Kept::json).collect();
            json!({ "topic": topic.name, "topic_id": topic.number, "max_message": topic.max_message, "partitions": kept })
        });
        let listed: Vec<_> = listed.collect();
        print_json(&mut out, &json!({ "version": 1, "topics": listed, "damage": inspected.damage_text() }))?;
        return inspected.end();
    }
    let mut table = Table::new(&["topic", "partitions", "records", "events"], &[0, 3]);
    for (topic, kept) in listed {
        let records: u64 = kept.iter().map(|of| of.records).sum();
        table.row(cells![plain(&topic.name), topic.partitions, records, events(topic)]);
    }
    write!(out, "{table}")?;
    inspected.end()
}

fn describe(arguments: &Describe) -> Done {
    let inspected = arguments.directory.inspect()?;
    let topics = recorded_topics(inspected.state());
    let Some(topic) = topics.iter().find(|topic| topic.name == arguments.topic) else {
        let known: Vec<_> = topics.into_iter().map(|topic| topic.name).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Failure::new(FAILED, format!("the journal has no topic {:?}: it has {known}", arguments.topic)));
    };
    let kept = Kept::all(&inspected, topic);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let older = topic.older.iter().map(|older| {
            json!({ "layout": older.layout, "fields": fields(slipring::journal::fields(&older.layout)), "ends": older.ends })
        });
        let older: Vec<_> = older.collect();
        let document = json!({
            "version": 1, "topic": topic.name, "topic_id": topic.number, "max_message": topic.max_message,
            "layout": topic.layout, "fields": fields(topic.fields()), "older": older, "partitions": kept.iter().map(Kept::json).collect::<Vec<_>>(),
            "damage": inspected.damage_text(),
        });
        print_json(&mut out, &document)?;
        return inspected.end();
    }
    writeln!(out, "topic   {}", plain(&topic.name))?;
    writeln!(out, "events  {}", events(topic))?;
    if let Some(layout) = topic.fields() {
        let mut table = Table::new(&["field", "type", "offset"], &[0, 1]);
        for field in layout.fields() {
            let number = field.number_type().name();
            let kind = field.len().map_or_else(|| number.to_owned(), |len| format!("{number}[{len}]"));
            table.row(cells![plain(field.name()), kind, field.offset()]);
        }
        write!(out, "\n{table}")?;
    }
    if !topic.older.is_empty() {
        let mut table = Table::new(&["older layout", "partition", "before"], &[0]);
        for older in &topic.older {
            for (partition, end) in older.ends.iter().enumerate() {
                table.row(cells![plain(&older.layout), partition, end]);
            }
        }
        write!(out, "\n{table}")?;
    }
    let mut table = Table::new(&["partition", "earliest", "latest", "records", "skipped"], &[]);
    for of in &kept {
        table.row(cells![of.partition, of.extent.start, of.extent.end, of.records, of.skipped()]);
    }
    write!(out, "\n{table}")?;
    if kept.iter().any(|of| of.skipped() > 0) {
        writeln!(out, "{SKIPS}")?;
    }
    inspected.end()
}
