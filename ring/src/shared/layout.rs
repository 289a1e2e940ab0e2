//! Events of shared rings: plain data with named fields at fixed offsets, their bytes, and the text that describes them.

use std::fmt::Write as _;

/// A type of events that processes can share: plain data without padding, for which every pattern of bits is a valid
/// value. Implemented by [`shared_event!`](crate::shared_event) for structs, and for the number types.
///
/// # Safety
/// The type is `repr(C)` or a number, has no padding, and every pattern of bits is a valid value of it. `FIELDS` lists
/// all its fields in the order of their offsets.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no event of a shared ring",
    note = "declare the struct inside of `slipring_ring::shared_event! {{ .. }}`"
)]
pub unsafe trait Event: Copy + Send + Sync + 'static {
    /// The fields in the order of their offsets.
    const FIELDS: &'static [Field];

    /// True for the events of a [`RawRing`](super::RawRing), whose size and layout are those of the ring's header.
    #[doc(hidden)]
    const IS_RAW: bool = false;
}

/// A field of an [`Event`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field's name.
    pub name: &'static str,
    /// The type of its numbers: `u8` to `u64`, `i8` to `i64`, `f32` or `f64`.
    pub number: &'static str,
    /// Count of the numbers if the field is an array; `None` for a single number.
    pub len: Option<usize>,
    /// Offset of the field from the start of the event, in bytes.
    pub offset: usize,
}

impl Field {
    /// The description of a field of type `T`, for [`shared_event!`](crate::shared_event).
    pub const fn of<T: FieldType>(name: &'static str, offset: usize) -> Self {
        Self { name, number: T::NUMBER, len: T::LEN, offset }
    }
}

/// A type of the fields of an [`Event`]: a number of a fixed size, or an array of them. `usize`, `bool`, `char`,
/// references and 128-bit numbers are none: their size or their valid values differ between languages or machines.
///
/// # Safety
/// Every pattern of bits is a valid value, there is no padding, and `NUMBER` and `LEN` describe the type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a shared event",
    note = "take a number of a fixed size (u8 to u64, i8 to i64, f32, f64), or an array of them"
)]
pub unsafe trait FieldType: Copy + Send + Sync + 'static {
    /// The type of the numbers.
    const NUMBER: &'static str;
    /// Count of the numbers of an array; `None` for a single number.
    const LEN: Option<usize>;
}

/// A number of a fixed size. Arrays are of numbers only, so that every language can describe them.
///
/// # Safety
/// As for [`FieldType`].
#[diagnostic::on_unimplemented(
    message = "an array of `{Self}` cannot be a field of a shared event",
    note = "take an array of numbers of a fixed size (u8 to u64, i8 to i64, f32, f64)"
)]
pub unsafe trait Number: FieldType {}

macro_rules! numbers {
    ($($number:ident)*) => {$(
        // SAFETY: a number has no padding, and every pattern of bits is one.
        unsafe impl FieldType for $number {
            const NUMBER: &'static str = stringify!($number);
            const LEN: Option<usize> = None;
        }
        // SAFETY: as above.
        unsafe impl Number for $number {}
        // SAFETY: as above; its only field is the number.
        unsafe impl Event for $number {
            const FIELDS: &'static [Field] = &[Field::of::<$number>("value", 0)];
        }
    )*};
}

numbers!(u8 u16 u32 u64 i8 i16 i32 i64 f32 f64);

// SAFETY: an array has its elements only, without padding, and every pattern of bits of an element is a number.
unsafe impl<N: Number, const LEN: usize> FieldType for [N; LEN] {
    const NUMBER: &'static str = N::NUMBER;
    const LEN: Option<usize> = Some(LEN);
}

/// The canonical text of an event's layout. Two programs share a ring only if their texts are equal. It has the fields
/// in the order of their offsets, then size and alignment; the name of the type is not part of it.
///
/// ```
/// use slipring_ring::shared::layout;
/// slipring_ring::shared_event! {
///     pub struct Quote { pub px: i64, pub qty: u32, pub venue: [u8; 4] }
/// }
/// assert_eq!(layout::<Quote>(), "px:i64@0 qty:u32@8 venue:u8[4]@12 size=16 align=8");
/// ```
pub fn layout<E: Event>() -> String {
    let mut text = String::new();
    for Field { name, number, len, offset } in E::FIELDS {
        let name = name.strip_prefix("r#").unwrap_or(name);
        let _ = match len {
            None => write!(text, "{name}:{number}@{offset} "),
            Some(len) => write!(text, "{name}:{number}[{len}]@{offset} "),
        };
    }
    let _ = write!(text, "size={} align={}", size_of::<E>(), align_of::<E>());
    text
}

/// The bytes of these events, as they lie in memory.
///
/// ```
/// use slipring_ring::shared::{as_bytes, from_bytes, read_from_bytes};
/// assert_eq!(as_bytes(&[0x0201_u16.to_le(), 0x0403_u16.to_le()]), [1, 2, 3, 4]);
/// assert_eq!(read_from_bytes::<u16>(&[1, 2]).map(u16::from_le), Some(0x0201));
/// assert_eq!(read_from_bytes::<u16>(&[1, 2, 3]), None);
/// assert_eq!(from_bytes::<u8>(&[7, 8]), Some(&[7, 8][..]));
/// ```
pub fn as_bytes<E: Event>(events: &[E]) -> &[u8] {
    // SAFETY: the pointer and the size are those of `events`, which the result borrows. An event has no padding, so each
    // of its bytes is initialised, and `Copy` types have no interior mutability.
    unsafe { std::slice::from_raw_parts(events.as_ptr().cast(), size_of_val(events)) }
}

/// The events that these bytes hold, without a copy. `None` if their length is no multiple of an event's size, if they
/// are not aligned for the event, or if an event has size 0.
pub fn from_bytes<E: Event>(bytes: &[u8]) -> Option<&[E]> {
    let events = bytes.as_ptr().cast::<E>();
    let is_whole = bytes.len().checked_rem(size_of::<E>())? == 0 && events.is_aligned();
    // SAFETY: the pointer is aligned, and so many whole events lie in `bytes`, which the result borrows. Every pattern of
    // bits is a valid event.
    is_whole.then(|| unsafe { std::slice::from_raw_parts(events, bytes.len() / size_of::<E>()) })
}

/// The event with these bytes, aligned or not. `None` if an event has another size.
pub fn read_from_bytes<E: Event>(bytes: &[u8]) -> Option<E> {
    // SAFETY: there are as many bytes as an event has, they need no alignment here, and every pattern of bits is a valid
    // event.
    (bytes.len() == size_of::<E>()).then(|| unsafe { bytes.as_ptr().cast::<E>().read_unaligned() })
}

/// Sum of the sizes, for [`shared_event!`](crate::shared_event).
#[doc(hidden)]
pub const fn sum(sizes: &[usize]) -> usize {
    let (mut sum, mut index) = (0, 0);
    while index < sizes.len() {
        sum += sizes[index];
        index += 1;
    }
    sum
}

/// Declares a struct that is an [`Event`](crate::shared::Event) of shared rings: `repr(C)`, `Copy`, with numbers of
/// fixed sizes and arrays of them as fields. A struct with padding does not compile; put the largest fields first, or
/// fill the gaps with fields such as `unused: [u8; 3]`.
///
/// ```
/// slipring_ring::shared_event! {
///     /// A change of the best price.
///     #[derive(Debug, PartialEq)]
///     pub struct Quote {
///         /// Price in ticks.
///         pub px: i64,
///         pub qty: u32,
///         pub venue: [u8; 4],
///     }
/// }
/// let quote = Quote { px: 101, qty: 7, venue: *b"XETR" };
/// assert_eq!(quote.clone(), quote);
/// ```
///
/// Padding is refused:
///
/// ```compile_fail
/// slipring_ring::shared_event! {
///     pub struct Padded { pub flag: u8, pub px: i64 }
/// }
/// ```
///
/// So are types without a fixed layout:
///
/// ```compile_fail
/// slipring_ring::shared_event! {
///     pub struct Owning { pub text: String }
/// }
/// ```
#[macro_export]
macro_rules! shared_event {
    ($(#[$about:meta])* $public:vis struct $name:ident {
        $($(#[$about_field:meta])* $public_field:vis $field:ident : $type:ty),+ $(,)?
    }) => {
        $(#[$about])*
        #[derive(Clone, Copy)]
        #[repr(C)]
        $public struct $name { $($(#[$about_field])* $public_field $field: $type),+ }

        const _: () = assert!(
            $crate::shared::sum(&[$(::core::mem::size_of::<$type>()),+]) == ::core::mem::size_of::<$name>(),
            "the event has padding: put the largest fields first, or fill the gaps with fields of u8",
        );

        // SAFETY: the struct is `repr(C)`, each field is a `FieldType`, all of them are listed in their order, and the
        // sum of their sizes is the size of the struct, so there is no padding.
        unsafe impl $crate::shared::Event for $name {
            const FIELDS: &'static [$crate::shared::Field] = &[$(
                $crate::shared::Field::of::<$type>(::core::stringify!($field), ::core::mem::offset_of!($name, $field))
            ),+];
        }
    };
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::*;

    crate::shared_event! {
        struct Order { id: u64, r#type: u16, side: i8, flags: [u8; 5], px: f64 }
    }

    #[test]
    fn the_text_has_every_field_with_its_type_and_offset() {
        let text = "id:u64@0 type:u16@8 side:i8@10 flags:u8[5]@11 px:f64@16 size=24 align=8";
        assert_eq!(layout::<Order>(), text);
        let order = Order { id: 1, r#type: 2, side: -1, flags: [3; 5], px: 0.5 };
        assert_eq!((order.id, order.r#type, order.side, order.flags[4], order.px), (1, 2, -1, 3, 0.5));
        assert_eq!(layout::<f32>(), "value:f32@0 size=4 align=4");
    }

    #[test]
    fn bytes_are_events_wherever_as_many_stand_aligned() {
        crate::shared_event! {
            #[derive(Debug, PartialEq)]
            struct Pair { a: u64, b: [u32; 2] }
        }
        let events = [Pair { a: 1, b: [2, 3] }, Pair { a: u64::MAX, b: [0, 4] }];
        let bytes = as_bytes(&events);
        assert_eq!(bytes.len(), 32);
        let mut room = [0_u64; 6];
        for shift in 0..16 {
            // A copy of the bytes at each distance from an aligned place.
            let mut moved = vec![0; shift];
            moved.extend_from_slice(bytes);
            moved.resize(48, 0);
            room.iter_mut().zip(moved.chunks(8)).for_each(|(word, bytes)| {
                *word = u64::from_ne_bytes(bytes.try_into().unwrap());
            });
            let seen = &as_bytes(&room)[shift..shift + 32];
            assert_eq!(from_bytes(seen), shift.is_multiple_of(align_of::<Pair>()).then_some(&events[..]));
            assert_eq!(read_from_bytes(&seen[16..]), Some(events[1]));
        }
        assert_eq!(from_bytes::<Pair>(&as_bytes(&room)[..31]), None);
        assert_eq!(read_from_bytes::<Pair>(&bytes[..15]), None);
        assert_eq!(from_bytes::<Pair>(&bytes[..0]).map(<[Pair]>::len), Some(0));
    }
}
