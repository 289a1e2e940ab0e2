//! Layouts of events that are known when a program runs, not when it is compiled.
//!
//! A layout's text comes from another language or from a file that another process wrote: every number of it is
//! computed anew here and compared.

use super::error::SharedError;
use super::layout::{Event, Field};
use std::fmt;
use std::str::FromStr;

/// The most bytes of an event.
pub(crate) const LARGEST_EVENT: usize = 1 << 30;

/// The type of a field's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberType {
    /// 1 byte, unsigned.
    U8,
    /// 2 bytes, unsigned.
    U16,
    /// 4 bytes, unsigned.
    U32,
    /// 8 bytes, unsigned.
    U64,
    /// 1 byte, signed.
    I8,
    /// 2 bytes, signed.
    I16,
    /// 4 bytes, signed.
    I32,
    /// 8 bytes, signed.
    I64,
    /// 4 bytes, floating point.
    F32,
    /// 8 bytes, floating point.
    F64,
}

impl NumberType {
    /// All types.
    pub const ALL: [Self; 10] =
        [Self::U8, Self::U16, Self::U32, Self::U64, Self::I8, Self::I16, Self::I32, Self::I64, Self::F32, Self::F64];

    /// The name of the type, as Rust has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I8 => "i8",
            Self::I16 => "i16",
            Self::I32 => "i32",
            Self::I64 => "i64",
            Self::F32 => "f32",
            Self::F64 => "f64",
        }
    }

    /// Size in bytes, which is the alignment, too.
    pub const fn size(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The type that is called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|it| it.name() == name)
    }
}

/// A number of an event: [`LayoutField::number`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum NumberValue {
    /// Of the types `u8` to `u64`.
    Unsigned(u64),
    /// Of the types `i8` to `i64`.
    Signed(i64),
    /// Of the type `f32`.
    Float(f32),
    /// Of the type `f64`.
    Double(f64),
}

impl fmt::Display for NumberValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(number) => number.fmt(f),
            Self::Signed(number) => number.fmt(f),
            Self::Float(number) => number.fmt(f),
            Self::Double(number) => number.fmt(f),
        }
    }
}

/// A field of an [`EventLayout`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutField {
    name: String,
    number: NumberType,
    len: Option<usize>,
    offset: usize,
}

impl LayoutField {
    /// The field's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type of its numbers.
    pub fn number_type(&self) -> NumberType {
        self.number
    }

    /// Count of its numbers if it is an array; `None` for a single number.
    pub fn len(&self) -> Option<usize> {
        self.len
    }

    /// True for an array without numbers.
    pub fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// Offset from the start of the event, in bytes.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The number with this index in an event's bytes, 0 for a single number. `None` if the field has no such number, or
    /// the bytes end before it.
    pub fn number(&self, event: &[u8], index: usize) -> Option<NumberValue> {
        if index >= self.len.unwrap_or(1) {
            return None;
        }
        let at = self.offset + index * self.number.size();
        let bytes = event.get(at..at + self.number.size())?;
        macro_rules! read {
            ($number:ty) => {
                <$number>::from_ne_bytes(bytes.try_into().ok()?)
            };
        }
        Some(match self.number {
            NumberType::U8 => NumberValue::Unsigned(read!(u8).into()),
            NumberType::U16 => NumberValue::Unsigned(read!(u16).into()),
            NumberType::U32 => NumberValue::Unsigned(read!(u32).into()),
            NumberType::U64 => NumberValue::Unsigned(read!(u64)),
            NumberType::I8 => NumberValue::Signed(read!(i8).into()),
            NumberType::I16 => NumberValue::Signed(read!(i16).into()),
            NumberType::I32 => NumberValue::Signed(read!(i32).into()),
            NumberType::I64 => NumberValue::Signed(read!(i64)),
            NumberType::F32 => NumberValue::Float(read!(f32)),
            NumberType::F64 => NumberValue::Double(read!(f64)),
        })
    }
}

impl fmt::Display for LayoutField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, number, len, offset } = self;
        match len {
            None => write!(f, "{name}:{}@{offset}", number.name()),
            Some(len) => write!(f, "{name}:{}[{len}]@{offset}", number.name()),
        }
    }
}

/// The layout of events: their fields at their offsets, without padding. A program that does not have the events' type
/// reads it from a ring, or parses it from a text.
///
/// A text is a list of fields, `name:type` or `name:type[count]`, separated by spaces. The offsets, the size and the
/// alignment may be left out; if they are there, they must be right. The full text, as [`layout`](super::layout())
/// returns it for a type, is the [`Display`](fmt::Display) of the layout.
///
/// ```
/// use slipring_ring::shared::EventLayout;
/// let layout: EventLayout = "px:i64 qty:u32 venue:u8[4]".parse()?;
/// assert_eq!(layout.to_string(), "px:i64@0 qty:u32@8 venue:u8[4]@12 size=16 align=8");
/// assert_eq!(layout.fields()[1].offset(), 8);
/// assert!("flag:u8 px:i64".parse::<EventLayout>().is_err(), "it has padding");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventLayout {
    fields: Vec<LayoutField>,
    size: usize,
    align: usize,
}

impl EventLayout {
    /// The layout of a type.
    pub fn of<E: Event>() -> Self {
        let field = |field: &Field| LayoutField {
            name: field.name.strip_prefix("r#").unwrap_or(field.name).to_owned(),
            number: NumberType::named(field.number).expect("fields have the types of the list above"),
            len: field.len,
            offset: field.offset,
        };
        Self { fields: E::FIELDS.iter().map(field).collect(), size: size_of::<E>(), align: align_of::<E>() }
    }

    /// The fields in the order of their offsets.
    pub fn fields(&self) -> &[LayoutField] {
        &self.fields
    }

    /// Size of an event in bytes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Alignment of an event in bytes.
    pub fn align(&self) -> usize {
        self.align
    }
}

impl fmt::Display for EventLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fields.iter().try_for_each(|field| write!(f, "{field} "))?;
        write!(f, "size={} align={}", self.size, self.align)
    }
}

fn refused(part: &str, why: &'static str) -> SharedError {
    SharedError::LayoutText { part: part.to_owned(), why }
}

/// The field at offset `end`, where the one before it ends, and whether the text has its offset.
fn parse_field(part: &str, end: usize) -> Result<(LayoutField, bool), SharedError> {
    let shape = "a field is name:type or name:type[count], with @offset in all fields or in none";
    let (name, rest) = part.split_once(':').ok_or_else(|| refused(part, shape))?;
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
    if !is_name || name.is_empty() || name.starts_with(|c: char| c.is_numeric()) {
        return Err(refused(part, "a field's name has letters, digits and underscores, no digit first"));
    }
    let (rest, offset) = match rest.split_once('@') {
        None => (rest, None),
        Some((rest, offset)) => (rest, Some(parse_number(part, offset)?)),
    };
    let (number, len) = match rest.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
        None => (rest, None),
        Some((number, len)) => (number, Some(parse_number(part, len)?)),
    };
    let number = NumberType::named(number)
        .ok_or_else(|| refused(part, "the types are u8 to u64, i8 to i64, f32 and f64, and arrays of them"))?;
    if !end.is_multiple_of(number.size()) {
        return Err(refused(part, "there is padding before it: put the largest fields first, or fill the gap"));
    }
    if offset.is_some_and(|offset| offset != end) {
        return Err(refused(part, "its offset is not the end of the field before it"));
    }
    Ok((LayoutField { name: name.to_owned(), number, len, offset: end }, offset.is_some()))
}

/// A number without a sign and without zeros before it, so that each layout has one full text.
fn parse_number(part: &str, text: &str) -> Result<usize, SharedError> {
    let number = text.parse::<usize>().ok().filter(|number| number.to_string() == text);
    number.filter(|number| *number <= LARGEST_EVENT).ok_or_else(|| refused(part, "its number is none up to 2^30"))
}

impl FromStr for EventLayout {
    type Err = SharedError;

    fn from_str(text: &str) -> Result<Self, SharedError> {
        let (mut fields, mut size, mut align) = (Vec::<LayoutField>::new(), 0usize, 1usize);
        let mut words = text.split_whitespace().peekable();
        let mut has_offsets = None;
        while let Some(part) = words.next_if(|word| !word.starts_with("size=")) {
            let (field, has_offset) = parse_field(part, size)?;
            if *has_offsets.get_or_insert(has_offset) != has_offset {
                return Err(refused(part, "either all fields have their offset, or none"));
            }
            if fields.iter().any(|other| other.name == field.name) {
                return Err(refused(part, "another field has this name"));
            }
            let (len, number) = (field.len.unwrap_or(1), field.number);
            fields.push(field);
            // Both factors are at most 2^30, and the sum is checked each time.
            let bytes = (len as u64).saturating_mul(number.size() as u64).saturating_add(size as u64);
            size = usize::try_from(bytes).ok().filter(|bytes| *bytes <= LARGEST_EVENT).unwrap_or(0);
            if size == 0 {
                return Err(refused(part, "an event has 1 byte to 1 gigabyte"));
            }
            align = align.max(number.size());
        }
        if fields.is_empty() {
            return Err(refused(text, "it has no field"));
        }
        if !size.is_multiple_of(align) {
            return Err(refused(text, "there is padding at its end: add fields of u8 that fill it"));
        }
        for (key, expected) in [("size=", size), ("align=", align)] {
            let Some(word) = words.next() else { break };
            if word.strip_prefix(key) != Some(&*expected.to_string()) {
                return Err(refused(word, "its end is size=.. align=.., with the size and alignment of the fields"));
            }
        }
        words.next().map_or(Ok(Self { fields, size, align }), |more| Err(refused(more, "it comes after the end")))
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;
    use crate::shared::layout;

    crate::shared_event! {
        struct Mixed { id: u64, r#type: u16, side: i8, flags: [u8; 5], px: f64, none: [u8; 0] }
    }

    #[test]
    fn a_type_and_its_text_have_one_layout() {
        let layout_of = EventLayout::of::<Mixed>();
        assert_eq!(layout_of.to_string(), layout::<Mixed>());
        assert_eq!(layout::<Mixed>().parse::<EventLayout>().unwrap(), layout_of);
        let short = "id:u64 type:u16 side:i8\tflags:u8[5] px:f64 none:u8[0]";
        assert_eq!(short.parse::<EventLayout>().unwrap(), layout_of);
        assert_eq!((layout_of.size(), layout_of.align(), layout_of.fields().len()), (24, 8, 6));
        let value = EventLayout::of::<f32>();
        assert_eq!(value.to_string(), layout::<f32>());
    }

    #[test]
    fn numbers_are_read_from_the_bytes_of_an_event() {
        let layout = EventLayout::of::<Mixed>();
        let mut event = [0; 24];
        event[..8].copy_from_slice(&7u64.to_ne_bytes());
        event[10] = 0xff;
        event[15] = 9;
        event[16..].copy_from_slice(&0.5f64.to_ne_bytes());
        let number = |field: usize, index| layout.fields()[field].number(&event, index);
        assert_eq!(number(0, 0), Some(NumberValue::Unsigned(7)));
        assert_eq!(number(2, 0), Some(NumberValue::Signed(-1)));
        assert_eq!(number(3, 4), Some(NumberValue::Unsigned(9)));
        assert_eq!(number(4, 0), Some(NumberValue::Double(0.5)));
        assert_eq!((number(0, 1), number(3, 5), number(5, 0)), (None, None, None));
        assert_eq!(layout.fields()[4].number(&event[..20], 0), None, "bytes that end before it");
    }

    #[test]
    fn other_texts_are_refused_with_the_part_and_a_reason() {
        for (text, part, why) in [
            ("", "", "no field"),
            ("size=0 align=1", "size=0 align=1", "no field"),
            ("px", "px", "name:type"),
            ("px:i128", "px:i128", "the types"),
            ("px:i64[", "px:i64[", "the types"),
            ("px:i64[-1]", "px:i64[-1]", "up to 2^30"),
            ("px:i64[01]", "px:i64[01]", "up to 2^30"),
            ("px:i64[99999999999999999999]", "px:i64[99999999999999999999]", "up to 2^30"),
            ("px:i64[1073741824]", "px:i64[1073741824]", "1 gigabyte"),
            ("none:u8[0]", "none:u8[0]", "1 byte"),
            ("1px:i64", "1px:i64", "no digit first"),
            ("p\u{202e}x:i64", "p\u{202e}x:i64", "letters"),
            ("px:i64 px:i64", "px:i64", "this name"),
            ("flag:u8 px:i64", "px:i64", "padding before"),
            ("px:i64 flag:u8", "px:i64 flag:u8", "padding at its end"),
            ("px:i64@0 qty:i64", "qty:i64", "either all"),
            ("px:i64@8", "px:i64@8", "not the end"),
            ("px:i64 size=9 align=8", "size=9", "its end"),
            ("px:i64 size=8 align=4", "align=4", "its end"),
            ("px:i64 size=8 align=8 more", "more", "after the end"),
        ] {
            let error = text.parse::<EventLayout>().unwrap_err();
            let SharedError::LayoutText { part: found, why: reason } = &error else { panic!("{error}") };
            assert_eq!(found, part, "{text:?}");
            assert!(reason.contains(why), "{text:?}: {reason}");
            assert!(!error.to_string().contains('\u{202e}'));
        }
    }
}
