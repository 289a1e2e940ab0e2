//! The layout of plain data in the journal's catalogue: the text of `slipring_ring::shared` with the names of all fields, or the
//! size alone.

use slipring_ring::shared::EventLayout;

/// What the layout of plain data begins with. The text of an [`EventLayout`] follows, or, for a type whose fields have no
/// names, `of N bytes`.
const PLAIN: &str = "plain data ";

/// The layout of plain data of `size` bytes whose fields have no names.
pub(crate) fn nameless(size: usize) -> String {
    format!("{PLAIN}of {size} bytes")
}

/// The layout of plain data whose fields `text` names, as `slipring_ring::shared::layout` writes it.
pub(crate) fn named(text: &str) -> String {
    format!("{PLAIN}{text}")
}

/// True if events that were recorded with one layout may be read with another one: they are the same, or the recorded one
/// is plain data of the same size without names of fields.
pub(crate) fn is_same(recorded: &str, asked: &str) -> bool {
    recorded == asked || fields(asked).is_some_and(|named| recorded == nameless(named.size()))
}

/// The fields that a layout in the journal's catalogue names. `None` if it names none, or is damaged.
///
/// ```
/// use slipring::journal::{NumberType, fields};
///
/// let layout = fields("plain data px:i64@0 qty:u32@8 venue:u8[4]@12 size=16 align=8").unwrap();
/// assert_eq!((layout.size(), layout.fields().len()), (16, 3));
/// let venue = &layout.fields()[2];
/// assert_eq!((venue.name(), venue.number_type(), venue.len(), venue.offset()), ("venue", NumberType::U8, Some(4), 12));
/// assert_eq!(fields("plain data of 16 bytes"), None);                 // the fields have no names
/// ```
pub fn fields(layout: &str) -> Option<EventLayout> {
    let text = layout.strip_prefix(PLAIN)?;
    // Each layout has one full text.
    text.parse().ok().filter(|fields: &EventLayout| fields.to_string() == text)
}

/// Size in bytes of an event with this layout; `None` unless the layout is that of plain data.
pub fn plain_size(layout: &str) -> Option<usize> {
    let size = layout.strip_prefix(PLAIN)?.strip_prefix("of ").and_then(|rest| rest.strip_suffix(" bytes"));
    match size {
        Some(size) => size.parse().ok(),
        None => fields(layout).map(|layout| layout.size()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_read_back_as_it_was_written() {
        slipring_ring::shared_event! {
            struct Order { id: u64, r#type: u16, side: i8, flags: [u8; 5], px: f64 }
        }
        let text = named(&slipring_ring::shared::layout::<Order>());
        assert_eq!(fields(&text), Some(EventLayout::of::<Order>()));
        assert_eq!((plain_size(&text), plain_size(&nameless(7)), plain_size("order 1")), (Some(24), Some(7), None));
        assert!(is_same(&nameless(24), &text) && !is_same(&text, &nameless(24)) && !is_same(&nameless(23), &text));
        // A field with the name of a word of the other form.
        assert!(fields("plain data of:u8@0 size=1 align=1").is_some());
    }

    #[test]
    fn what_no_type_has_is_no_layout() {
        for text in [
            "",
            "plain data ",
            "plain data of 24 bytes",
            "plain data a:u8@0",
            "plain data a:u8@0 size=1",
            "plain data a:u8",
            "plain data a:u8@0 size=2 align=1",
            "plain data a:u8@1 size=1 align=1",
            "plain data a:u8@0  size=1 align=1",
            "a:u8@0 size=1 align=1",
        ] {
            assert_eq!(fields(text), None, "{text:?}");
        }
    }
}
