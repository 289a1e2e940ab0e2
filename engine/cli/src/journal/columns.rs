//! Events of plain data as typed columns.

use crate::inspected::Topics;
use crate::output::put_bytes;
use serde_json::{Map, Value, json};
use slipring::journal::{EventLayout, NumberType, PartitionId, RecordedTopic, fields};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A field in an event's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number(NumberType),
    /// Numbers of one type other than `u8`, and their count.
    Numbers(NumberType, usize),
    /// An array of `u8`, and its length.
    Bytes(usize),
    /// Bytes that are no column, and their count.
    Skipped(usize),
}

impl Kind {
    fn new(number: NumberType, len: Option<usize>) -> Self {
        match (number, len) {
            (number, None) => Self::Number(number),
            (NumberType::U8, Some(len)) => Self::Bytes(len),
            (number, Some(len)) => Self::Numbers(number, len),
        }
    }

    /// Size in bytes. No field of a layout or of `--columns` is so large that this overflows.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Number(number) => number.size(),
            Self::Numbers(number, len) => number.size() * len,
            Self::Bytes(size) | Self::Skipped(size) => size,
        }
    }
}

/// The value of a field.
pub(super) enum Cell<'e> {
    /// Infinities and NaN, which JSON lacks, are null.
    Number(Value),
    Numbers(Vec<Value>),
    Bytes(&'e [u8]),
}

impl fmt::Display for Cell<'_> {
    /// A number as digits, and nothing for null; the numbers of an array with semicolons between them; bytes as a message's
    /// value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = |value: &Value| if value.is_null() { String::new() } else { value.to_string() };
        match self {
            Self::Number(value) => f.write_str(&digits(value)),
            Self::Numbers(values) => f.write_str(&values.iter().map(digits).collect::<Vec<_>>().join(";")),
            Self::Bytes(bytes) => slipring::text::value(bytes).fmt(f),
        }
    }
}

/// The first eight bytes of a number, with `fill` behind those that it lacks.
fn widened(bytes: &[u8], fill: u8) -> [u8; 8] {
    let mut whole = [fill; 8];
    whole[..bytes.len()].copy_from_slice(bytes);
    whole
}

/// The signed number in `bytes`, of which there are at most 8.
pub(super) fn signed(bytes: &[u8]) -> i64 {
    let is_negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
    i64::from_le_bytes(widened(bytes, if is_negative { 0xff } else { 0 }))
}

/// The number without a sign in `bytes`, of which there are at most 8.
pub(super) fn unsigned(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(widened(bytes, 0))
}

/// The number in `bytes`, which are as many as the type's size.
fn number(number: NumberType, bytes: &[u8]) -> Value {
    match number {
        NumberType::U8 | NumberType::U16 | NumberType::U32 | NumberType::U64 => json!(unsigned(bytes)),
        NumberType::I8 | NumberType::I16 | NumberType::I32 | NumberType::I64 => json!(signed(bytes)),
        NumberType::F32 => json!(bytes.try_into().map(f32::from_le_bytes).unwrap_or(f32::NAN)),
        NumberType::F64 => json!(f64::from_le_bytes(widened(bytes, 0))),
    }
}

/// The fields of an event, in the order of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns(Vec<(String, Kind)>);

/// The columns of a topic's events.
pub(super) struct TopicColumns {
    /// Those of the present layout; `None` if it names no fields.
    pub(super) present: Option<Columns>,
    /// Those of the older layouts, the oldest first.
    pub(super) older: Vec<Option<Columns>>,
}

impl TopicColumns {
    /// The columns of the record at this offset; `None` if its layout names no fields.
    pub(super) fn at(&self, topics: &Topics, partition: PartitionId, offset: u64) -> Option<&Columns> {
        match topics.older_at(partition, offset) {
            Some(index) => self.older.get(index)?.as_ref(),
            None => self.present.as_ref(),
        }
    }
}

/// The most bytes of a field of `--columns`.
const LARGEST: usize = 1 << 20;

impl FromStr for Columns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let field = |field: &str| {
            let (name, kind) = field.split_once(':').ok_or_else(|| format!("{field:?} is not NAME:TYPE"))?;
            let (name, kind) = (name.trim(), kind.trim());
            let count = |text: &str, most| text.parse().ok().filter(|count| (1..=most).contains(count));
            let typed = || {
                let (number, len) = match kind.split_once('[') {
                    None => (kind, None),
                    Some((number, len)) => (number, Some(count(len.strip_suffix(']')?, LARGEST / 8)?)),
                };
                Some(Kind::new(NumberType::named(number)?, len))
            };
            let kind = if name == "_" { count(kind, LARGEST).map(Kind::Skipped) } else { typed() };
            let kind = kind.ok_or_else(|| {
                format!(
                    "{field:?}: a type is one of u8 u16 u32 u64 i8 i16 i32 i64 f32 f64, or an array such as u8[4]; `_:COUNT` skips so many bytes"
                )
            })?;
            Ok::<_, String>((name.to_owned(), kind))
        };
        let fields = text.split(',').map(field).collect::<Result<Vec<_>, _>>()?;
        let mut names: Vec<_> = fields.iter().map(|(name, _)| name).filter(|name| *name != "_").collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => Err(format!("two columns are called {:?}", pair[0])),
            None if names.is_empty() => Err("no column has a name".to_owned()),
            None => Ok(Self(fields)),
        }
    }
}

impl Columns {
    fn of(layout: &EventLayout) -> Self {
        let fields = layout.fields().iter();
        let fields = fields.map(|field| (field.name().to_owned(), Kind::new(field.number_type(), field.len())));
        Self(fields.collect())
    }

    /// The columns of plain data with this layout; `None` if it names no fields.
    fn of_layout(layout: &str) -> Option<Self> {
        fields(layout).map(|layout| Self::of(&layout))
    }

    /// The columns of each topic, by the topic's number.
    pub(super) fn recorded(topics: &Topics) -> BTreeMap<u32, TopicColumns> {
        let of = |topic: &RecordedTopic| TopicColumns {
            present: topic.fields().map(|layout| Self::of(&layout)),
            older: topic.older.iter().map(|older| Self::of_layout(&older.layout)).collect(),
        };
        topics.0.iter().filter(|topic| topic.max_message == 0).map(|topic| (topic.number, of(topic))).collect()
    }

    /// Size of an event, in bytes.
    pub(super) fn size(&self) -> usize {
        self.0.iter().map(|(_, kind)| kind.size()).sum()
    }

    /// Names and kinds of the columns, with the offset of each from the start of an event in bytes.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&str, Kind, usize)> {
        let mut next = 0;
        let placed = self.0.iter().map(move |(name, kind)| {
            let at = next;
            next += kind.size();
            (name.as_str(), *kind, at)
        });
        placed.filter(|(_, kind, _)| !matches!(kind, Kind::Skipped(_)))
    }

    /// The columns' titles in a table that has columns called `taken`: a name that is taken, or is another field's, gets
    /// `event_` in front.
    pub(super) fn titles(&self, taken: &[&str]) -> Vec<String> {
        let names: Vec<&str> = self.columns().map(|(name, ..)| name).collect();
        let title = |name: &&str| {
            let mut title = Cow::Borrowed(*name);
            while taken.contains(&&*title) || (title != *name && names.contains(&&*title)) {
                title = format!("event_{title}").into();
            }
            title.into_owned()
        };
        names.iter().map(title).collect()
    }

    /// The names and values of an event's columns. `None` if the event has another size.
    pub(super) fn cells<'e>(&'e self, event: &'e [u8]) -> Option<impl Iterator<Item = (&'e str, Cell<'e>)>> {
        let cell = move |(name, kind, at): (&'e str, Kind, usize)| {
            let bytes = &event[at..at + kind.size()];
            let cell = match kind {
                Kind::Number(of) => Cell::Number(number(of, bytes)),
                Kind::Numbers(of, _) => {
                    Cell::Numbers(bytes.chunks_exact(of.size()).map(|bytes| number(of, bytes)).collect())
                }
                Kind::Bytes(_) | Kind::Skipped(_) => Cell::Bytes(bytes),
            };
            (name, cell)
        };
        (event.len() == self.size()).then(|| self.columns().map(cell))
    }

    /// The values of an event as a JSON object. `None` if the event has another size.
    pub(super) fn object(&self, event: &[u8]) -> Option<Value> {
        let mut object = Map::new();
        for (name, cell) in self.cells(event)? {
            match cell {
                Cell::Number(value) => drop(object.insert(name.to_owned(), value)),
                Cell::Numbers(values) => drop(object.insert(name.to_owned(), values.into())),
                Cell::Bytes(bytes) => put_bytes(&mut object, name, bytes),
            }
        }
        Some(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_each_kind_are_read_where_they_stand() {
        let columns: Columns = "a:u8, b:i16,_:1,c:u64,d:i32,e:f32,f:f64,g:i8,h:u8[3],i:i16[2],j:u8[1]".parse().unwrap();
        let names: String = columns.columns().map(|(name, ..)| name).collect();
        assert_eq!((columns.size(), &*names), (37, "abcdefghij"));
        let mut event = vec![200];
        event.extend((-2_i16).to_le_bytes());
        event.push(9);
        event.extend(u64::MAX.to_le_bytes());
        event.extend(i32::MIN.to_le_bytes());
        event.extend(0.5_f32.to_le_bytes());
        event.extend(f64::NAN.to_le_bytes());
        event.push(0xff);
        event.extend(b"abc");
        event.extend([1, 0, 0xff, 0xff]);
        event.push(0xfe);
        let expected = json!({
            "a": 200, "b": -2, "c": u64::MAX, "d": i32::MIN, "e": 0.5, "f": null, "g": -1, "h": "abc", "i": [1, -1],
            "j_hex": "fe",
        });
        assert_eq!(columns.object(&event), Some(expected));
        let cells: Vec<_> = columns.cells(&event).unwrap().map(|(_, cell)| cell.to_string()).collect();
        assert_eq!(cells[5..], ["", "-1", "abc", "1;-1", "0xfe"]);
        event.push(0);
        assert_eq!(columns.object(&event), None);
    }

    #[test]
    fn what_is_no_column_is_named() {
        for (text, told) in [
            ("", "NAME:TYPE"),
            ("a", "NAME:TYPE"),
            ("a:u128", "u8 u16"),
            ("a:f16", "u8 u16"),
            ("a:", "u8 u16"),
            ("a:u8[", "u8 u16"),
            ("a:u8[0]", "u8 u16"),
            ("a:u64[18446744073709551615]", "u8 u16"),
            ("_:0", "skips"),
            ("_:x", "skips"),
            ("_:4", "no column"),
            ("a:u8,b:u8,a:i8", "two columns"),
        ] {
            let refused = text.parse::<Columns>().unwrap_err();
            assert!(refused.contains(told), "{text:?}: {refused}");
        }
    }

    #[test]
    fn no_two_titles_are_alike() {
        let columns: Columns = "time:u8,offset:u8,event_offset:u8,px:u8".parse().unwrap();
        let titles = columns.titles(&["partition", "offset"]);
        assert_eq!(titles, ["time", "event_event_offset", "event_offset", "px"]);
    }
}
