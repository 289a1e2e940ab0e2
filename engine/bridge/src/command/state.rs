//! `slipring-bridge status`.

use crate::Settings;
use crate::failure::{Done, Failure};
use crate::recorded::RecordedJournal;
use serde_json::{Value, json};
use slipring::Message;
use slipring::clock::{Clock as _, SystemClock};
use slipring::journal::{PartitionId, Start, Visible};
use slipring_bridge::{Head, Kind, Record, Remote, RemoteError, verify};
use std::io::Write as _;
use std::time::{Duration, Instant};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How long an answer of the servers is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most records whose bytes are summed.
const SUMMED: u64 = 65_536;
/// How many messages are read at the stream's end: a fence, and what stands around it.
const TAIL: u64 = 1100;

pub(crate) fn run(arguments: &Arguments) -> Done {
    let config = arguments.settings.read()?;
    let recorded = RecordedJournal::read(&config.journal)?;
    let cluster = config.cluster.connect()?;
    let mut rows = Vec::new();
    for bridge in &config.outward {
        for of in recorded.partitions(&bridge.topic.name)? {
            let mut stream = bridge.stream(&config.cluster, &cluster, of.partition);
            let last = newest(&mut stream);
            let mut row = json!({
                "direction": "outward", "bridge": bridge.name, "topic": bridge.topic.name, "partition": of.partition,
            });
            put(&mut row, outward(&recorded, of, &last)?);
            rows.push(row);
        }
    }
    for import in &config.inward {
        for of in recorded.partitions(&import.topic.name)? {
            let mut stream = import.stream(&config.cluster, &cluster, of.partition);
            let last = newest(&mut stream);
            let here = match &last {
                Ok(Some(head)) => verify::imported(&recorded.journal, of, head.writer.journal)?,
                _ => None,
            };
            let is_empty = recorded.journal.extent(of).is_none_or(|extent| extent.end == 0);
            let here = here.or(is_empty.then_some(0));
            let mut row = json!({
                "direction": "inward", "bridge": import.name, "topic": import.topic.name, "partition": of.partition,
                "imported": here,
            });
            let there = match &last {
                Ok(head) => json!({
                    "stream_records": head.map_or(0, |head| head.tip.count),
                    "lag": here.map(|here| head.map_or(0, |head| head.tip.count).saturating_sub(here)),
                }),
                Err(cause) => json!({ "error": cause.to_string() }),
            };
            put(&mut row, there);
            rows.push(row);
        }
    }
    print(rows, arguments.json)
}

fn put(row: &mut Value, more: Value) {
    if let (Value::Object(row), Value::Object(more)) = (row, more) {
        row.extend(more);
    }
}

/// A partition of the journal, and where its stream ends.
fn outward(
    recorded: &RecordedJournal,
    of: PartitionId,
    last: &Result<Option<Head>, RemoteError>,
) -> Result<Value, Failure> {
    let head = match last {
        Ok(head) => head,
        Err(cause) => return Ok(json!({ "error": cause.to_string() })),
    };
    let (next, journal) = (head.map_or(0, |head| head.tip.next), &recorded.journal);
    let extent = journal.extent(of).unwrap_or_default();
    let mut row = json!({
        "replicated": next, "end": extent.end,
        "stream_records": head.map_or(0, |head| head.tip.count),
        "lag": journal.records_in(of, next..extent.end.max(next)),
    });
    let (mut bytes, mut count, mut own, mut oldest) = (0, 0, 0, None);
    if next < extent.end {
        let from = next.max(extent.start);
        let mut reader = journal.reader(of, Start::Offset(from), Visible::Written)?.pass_gaps();
        while count < SUMMED
            && let Some(record) = reader.next()?
        {
            count += 1;
            let copy = |message: Message| Record::of(&message, of.partition, record.offset);
            // What an import has brought is not copied.
            if Message::decode(record.bytes).map(copy).is_none_or(|it| !it.is_imported(recorded.id, of)) {
                (bytes, own) = (bytes + record.bytes.len(), own + 1);
                oldest.get_or_insert(record.written);
            }
        }
    }
    row["lag_is_exact"] = json!(count < SUMMED);
    if count < SUMMED {
        (row["lag_bytes"], row["lag"]) = (json!(bytes), json!(own));
    }
    let now = SystemClock::default().wall().as_nanos();
    row["lag_seconds"] = json!(oldest.map(|written| Duration::from_nanos(now.saturating_sub(written)).as_secs_f64()));
    if let Some(head) = head {
        row["writer"] = json!(head.writer.to_string());
        row["epoch"] = json!(head.writer.epoch);
        row["written_by"] = json!(if head.writer.journal == recorded.id { "this journal" } else { "another journal" });
        row["has_ended"] = json!(head.kind == Kind::End);
    }
    Ok(row)
}

/// The head of the stream's last message that counts; `None` if it has none.
fn newest(stream: &mut impl Remote) -> Result<Option<Head>, RemoteError> {
    let until = Instant::now() + PATIENCE;
    loop {
        let read = stream.numbers().and_then(|numbers| {
            let first = numbers.end.saturating_sub(TAIL).max(numbers.start);
            let last = stream.read(numbers.end.saturating_sub(1).max(first)..numbers.end)?;
            // Late messages of an older bridge are only behind marks, which a bridge that was ended does not leave last.
            match last.into_iter().flatten().find_map(|stored| stored.head).filter(|head| head.kind == Kind::End) {
                Some(head) => Ok(vec![head]),
                None => Ok(stream.read(first..numbers.end)?.into_iter().flatten().filter_map(|it| it.head).collect()),
            }
        });
        match read {
            Ok(heads) => {
                let newest = heads.iter().map(|head| head.writer.epoch).max();
                return Ok(heads.into_iter().rfind(|head| Some(head.writer.epoch) == newest));
            }
            Err(RemoteError::Transient(_)) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(cause) => return Err(cause),
        }
    }
}

fn print(rows: Vec<Value>, as_json: bool) -> Done {
    let mut out = std::io::stdout().lock();
    if as_json {
        writeln!(out, "{}", Value::Array(rows))?;
        return Ok(());
    }
    for row in &rows {
        let word = |name: &str| row[name].as_str().unwrap_or_default();
        let (direction, name, topic) = (word("direction"), word("bridge"), word("topic"));
        write!(out, "{direction} {name}: topic {topic}, partition {}: ", row["partition"])?;
        if let Some(cause) = row["error"].as_str() {
            writeln!(out, "{}", slipring::text::line(cause))?;
            continue;
        }
        match direction {
            "outward" => {
                let (next, end, lag) = (&row["replicated"], &row["end"], &row["lag"]);
                if next.as_u64() > end.as_u64() {
                    write!(out, "the stream ends at offset {next}, this journal at {end}: it lacks records")?;
                } else {
                    // Records that an import has brought are not copied. Of many, only the first are looked at.
                    let most = if row["lag_is_exact"] == true { "" } else { "at most " };
                    write!(out, "replicated to {next} of {end}, lag {most}{lag} records")?;
                    if let Some(bytes) = row["lag_bytes"].as_u64() {
                        write!(out, ", {bytes} bytes")?;
                    }
                    if let Some(seconds) = row["lag_seconds"].as_f64() {
                        write!(out, ", {seconds:.1} s")?;
                    }
                }
                if let Some(by) = row["written_by"].as_str() {
                    let ended = if row["has_ended"] == true { ", ended" } else { "" };
                    write!(out, "; written by {by} in epoch {}{ended}", row["epoch"])?;
                }
            }
            _ => {
                let number = |name: &str| row[name].as_u64().map_or("?".to_owned(), |number| number.to_string());
                let (here, there, lag) = (number("imported"), number("stream_records"), number("lag"));
                write!(out, "imported {here} of {there} records, lag {lag}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
