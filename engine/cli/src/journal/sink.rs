//! Output of records as text, JSON lines, CSV or Parquet.

use super::columns::{Cell, Columns, TopicColumns};
use super::parquet::Parquet;
use crate::failure::{Done, FAILED, Failure};
use crate::inspected::Topics;
use crate::output::{plain, print_json, put_bytes, time};
use serde_json::{Map, Value, json};
use slipring::journal::PartitionId;
use slipring::{Message, text};
use std::collections::BTreeMap;
use std::io::Write;

/// A record to print.
pub(super) struct Row {
    pub(super) partition: PartitionId,
    pub(super) offset: u64,
    /// The record's time, in nanoseconds since the Unix epoch.
    pub(super) time: u64,
    pub(super) content: Content,
}

pub(super) enum Content {
    Message(Message),
    /// The bytes of an event that is not a message.
    Event(Vec<u8>),
}

impl Content {
    pub(super) fn key(&self) -> Option<&[u8]> {
        match self {
            Self::Message(message) => message.key(),
            Self::Event(_) => None,
        }
    }

    pub(super) fn value(&self) -> &[u8] {
        match self {
            Self::Message(message) => message.value(),
            Self::Event(bytes) => bytes,
        }
    }

    pub(super) fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let message = if let Self::Message(message) = self { Some(message) } else { None };
        let headers = message.into_iter().flat_map(Message::headers);
        headers.map(|(name, value)| (name.as_bytes(), value))
    }
}

/// The columns of events that are not messages, by the topic's number. Events of other topics are written as bytes.
pub(super) type ColumnsOf = BTreeMap<u32, TopicColumns>;

pub(super) enum Sink<W: Write> {
    Text(W, ColumnsOf),
    Json(W, ColumnsOf),
    Csv {
        out: Box<csv::Writer<W>>,
        /// The fields of events, each a column in place of the columns of messages; `None` to write their bytes.
        columns: Option<Columns>,
        /// True if a cell that a spreadsheet would run as a formula gets an apostrophe in front.
        guard: bool,
    },
    Parquet(Box<Parquet>),
}

/// True for a cell that a spreadsheet would run as a formula.
fn is_formula(cell: &str) -> bool {
    cell.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠'])
}

/// The cell, with an apostrophe in front if `guard` asks for it and a spreadsheet would run it as a formula.
fn guarded(cell: String, guard: bool) -> String {
    if guard && is_formula(&cell) { format!("'{cell}") } else { cell }
}

/// The columns of every CSV line before those of the event.
const FIRST: [&str; 4] = ["topic", "partition", "offset", "time_ns"];

pub(super) fn other_size(row: &Row, columns: &Columns) -> Failure {
    let (offset, has, size) = (row.offset, row.content.value().len(), columns.size());
    Failure::new(FAILED, format!("the event at offset {offset} has {has} bytes, and the columns have {size}"))
}

/// Refuses a record of an older layout, whose fields are not the columns of the table.
fn refuse_older(topics: &Topics, row: &Row) -> Done {
    if topics.older_at(row.partition, row.offset).is_none() {
        return Ok(());
    }
    let (topic, partition, offset) = (topics.name(row.partition.topic), row.partition.partition, row.offset);
    let cause = format!(
        "the record at offset {offset} of {topic:?}, partition {partition}, has an older layout: leave it out by `--offsets`, or convert the journal first; JSON lines have each record in its own layout"
    );
    Err(Failure::new(FAILED, cause))
}

impl<W: Write> Sink<W> {
    /// Lines of text or JSON, with the fields of events whose layout names them.
    pub(super) fn lines(out: W, topics: &Topics, json: bool) -> Self {
        let columns = Columns::recorded(topics);
        if json { Self::Json(out, columns) } else { Self::Text(out, columns) }
    }

    pub(super) fn csv(out: W, columns: Option<Columns>, guard: bool) -> Result<Self, Failure> {
        let mut writer = csv::Writer::from_writer(out);
        let first = FIRST.map(str::to_owned).into_iter();
        match &columns {
            Some(columns) => {
                let titles = columns.titles(&FIRST).into_iter().map(|title| guarded(plain(&title), guard));
                writer.write_record(first.chain(titles))?;
            }
            None => writer.write_record(first.chain(["key", "headers", "value"].map(str::to_owned)))?,
        }
        Ok(Self::Csv { out: Box::new(writer), columns, guard })
    }

    /// Writes a record. In a table, all records must have the present layout of their topic.
    pub(super) fn write(&mut self, topics: &Topics, row: &Row) -> Done {
        if matches!(self, Self::Parquet(_) | Self::Csv { columns: Some(_), .. }) {
            refuse_older(topics, row)?;
        }
        let Row { partition: PartitionId { topic: id, partition }, offset, content, .. } = row;
        let topic = topics.name(*id);
        match self {
            Self::Parquet(out) => out.write(row)?,
            Self::Text(out, columns) => {
                write!(out, "{}/{partition} {offset} {}", text::line(&topic), time(row.time))?;
                if let Some(key) = content.key() {
                    write!(out, " {}:", text::value(key))?;
                }
                for (name, value) in content.headers() {
                    write!(out, " [{}={}]", text::value(name), text::value(value))?;
                }
                match columns.get(id).and_then(|of| of.at(topics, row.partition, *offset)) {
                    Some(columns) => {
                        for (name, cell) in columns.cells(content.value()).ok_or_else(|| other_size(row, columns))? {
                            write!(out, " {}={cell}", text::line(name))?;
                        }
                        writeln!(out)?;
                    }
                    None => writeln!(out, " {}", text::value(content.value()))?,
                }
            }
            Self::Json(out, columns) => {
                let mut object = Map::new();
                let mut put = |name: &str, value: Value| drop(object.insert(name.to_owned(), value));
                put("topic", json!(topic));
                put("topic_id", json!(id));
                put("partition", json!(partition));
                put("offset", json!(offset));
                put("time_ns", json!(row.time));
                if let Some(key) = content.key() {
                    put_bytes(&mut object, "key", key);
                }
                match columns.get(id).and_then(|of| of.at(topics, row.partition, *offset)) {
                    Some(columns) => {
                        let event = columns.object(content.value()).ok_or_else(|| other_size(row, columns))?;
                        object.insert("event".to_owned(), event);
                    }
                    None => put_bytes(&mut object, "value", content.value()),
                }
                let headers = content.headers().map(|(name, value)| {
                    let mut header = Map::new();
                    put_bytes(&mut header, "name", name);
                    put_bytes(&mut header, "value", value);
                    Value::Object(header)
                });
                let headers: Vec<_> = headers.collect();
                if !headers.is_empty() {
                    object.insert("headers".to_owned(), headers.into());
                }
                print_json(out, &Value::Object(object))?;
            }
            Self::Csv { out, columns: Some(columns), guard } => {
                let cells = columns.cells(content.value()).ok_or_else(|| other_size(row, columns))?;
                // A negative number is no formula, so of the event only bytes are guarded.
                let cells = cells.map(|(_, cell)| match cell {
                    Cell::Bytes(_) => guarded(cell.to_string(), *guard),
                    cell => cell.to_string(),
                });
                let first =
                    [guarded(plain(&topic), *guard), partition.to_string(), offset.to_string(), row.time.to_string()];
                out.write_record(first.into_iter().chain(cells))?;
            }
            Self::Csv { out, columns: None, guard } => {
                let header = |(name, value)| format!("{}={}", text::value(name), text::value(value));
                let headers: Vec<_> = content.headers().map(header).collect();
                let key = content.key().map_or_else(String::new, |key| text::value(key).to_string());
                let (offset, time, value) = (offset.to_string(), row.time.to_string(), text::value(content.value()));
                let cells =
                    [plain(&topic), partition.to_string(), offset, time, key, headers.join(";"), value.to_string()];
                out.write_record(cells.map(|cell| guarded(cell, *guard)))?;
            }
        }
        Ok(())
    }

    /// Writes what is buffered. No row may follow in a Parquet file.
    pub(super) fn flush(&mut self) -> Done {
        match self {
            Self::Text(out, _) | Self::Json(out, _) => out.flush()?,
            Self::Csv { out, .. } => out.flush()?,
            Self::Parquet(out) => out.finish()?,
        }
        Ok(())
    }
}
