//! Events of plain data as typed columns.

use serde_json::{Map, Value, json};
use std::str::FromStr;

/// A number in an event's bytes, lowest byte first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Unsigned(usize),
    Signed(usize),
    Float(usize),
    /// Bytes that are no column.
    Skipped(usize),
}

impl Kind {
    /// Size in bytes.
    fn size(self) -> usize {
        match self {
            Self::Unsigned(size) | Self::Signed(size) | Self::Float(size) | Self::Skipped(size) => size,
        }
    }

    /// The number in `bytes`, which are as many as the kind's size. Infinities and NaN, which JSON lacks, are null.
    fn decode(self, bytes: &[u8]) -> Value {
        let widened = |fill: u8| {
            let mut whole = [fill; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            whole
        };
        match self {
            Self::Unsigned(_) => json!(u64::from_le_bytes(widened(0))),
            Self::Signed(_) => {
                let is_negative = bytes.last().is_some_and(|top| top & 0x80 != 0);
                json!(i64::from_le_bytes(widened(if is_negative { 0xff } else { 0 })))
            }
            Self::Float(4) => json!(bytes.try_into().map(f32::from_le_bytes).unwrap_or(f32::NAN)),
            Self::Float(_) => json!(f64::from_le_bytes(widened(0))),
            Self::Skipped(_) => Value::Null,
        }
    }
}

/// The fields of an event, in the order of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Columns(Vec<(String, Kind)>);

impl FromStr for Columns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let field = |field: &str| {
            let (name, kind) = field.split_once(':').ok_or_else(|| format!("{field:?} is not NAME:TYPE"))?;
            let (name, kind) = (name.trim(), kind.trim());
            let size = |bits: &str| match bits {
                "8" => Some(1),
                "16" => Some(2),
                "32" => Some(4),
                "64" => Some(8),
                _ => None,
            };
            let kind = match (name, kind.split_at_checked(1)) {
                ("_", _) => kind.parse().ok().filter(|size| (1..=1 << 20).contains(size)).map(Kind::Skipped),
                (_, Some(("u", bits))) => size(bits).map(Kind::Unsigned),
                (_, Some(("i", bits))) => size(bits).map(Kind::Signed),
                (_, Some(("f", bits))) => size(bits).filter(|size| *size >= 4).map(Kind::Float),
                _ => None,
            };
            let kind = kind.ok_or_else(|| {
                format!(
                    "{field:?}: a type is one of u8 u16 u32 u64 i8 i16 i32 i64 f32 f64; `_:COUNT` skips so many bytes"
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
    /// Size of an event, in bytes.
    pub(super) fn size(&self) -> usize {
        self.0.iter().map(|(_, kind)| kind.size()).sum()
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, kind)| !matches!(kind, Kind::Skipped(_))).map(|(name, _)| name.as_str())
    }

    /// The values of an event, in the order of [`names`](Self::names). `None` if the event has another size.
    pub(super) fn decode(&self, event: &[u8]) -> Option<Vec<Value>> {
        if event.len() != self.size() {
            return None;
        }
        let mut at = 0;
        let mut values = Vec::with_capacity(self.0.len());
        for (_, kind) in &self.0 {
            let bytes = &event[at..at + kind.size()];
            at += kind.size();
            if !matches!(kind, Kind::Skipped(_)) {
                values.push(kind.decode(bytes));
            }
        }
        Some(values)
    }

    /// The values of an event as a JSON object. `None` if the event has another size.
    pub(super) fn object(&self, event: &[u8]) -> Option<Value> {
        let values = self.names().map(str::to_owned).zip(self.decode(event)?);
        Some(Value::Object(values.collect::<Map<_, _>>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_each_kind_are_read_where_they_stand() {
        let columns: Columns = "a:u8, b:i16,_:1,c:u64,d:i32,e:f32,f:f64,g:i8".parse().unwrap();
        assert_eq!((columns.size(), columns.names().collect::<String>()), (29, "abcdefg".to_owned()));
        let mut event = vec![200];
        event.extend((-2_i16).to_le_bytes());
        event.push(9);
        event.extend(u64::MAX.to_le_bytes());
        event.extend(i32::MIN.to_le_bytes());
        event.extend(0.5_f32.to_le_bytes());
        event.extend(f64::NAN.to_le_bytes());
        event.push(0xff);
        let expected = json!({ "a": 200, "b": -2, "c": u64::MAX, "d": i32::MIN, "e": 0.5, "f": null, "g": -1 });
        assert_eq!(columns.object(&event), Some(expected));
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
            ("_:0", "skips"),
            ("_:x", "skips"),
            ("_:4", "no column"),
            ("a:u8,b:u8,a:i8", "two columns"),
        ] {
            let refused = text.parse::<Columns>().unwrap_err();
            assert!(refused.contains(told), "{text:?}: {refused}");
        }
    }
}
