//! The encoding of events as bytes in a journal, and the decoding.

use crate::base::clock::Timestamp;
use crate::base::threads::blaming;
use crate::event::layout;
use zerocopy::{FromBytes as _, IntoBytes as _};

/// An event that a durable topic can carry. It is implemented for plain data, that is, for every type with zerocopy's
/// `IntoBytes`, `FromBytes` and `Immutable` and every type that [`plain_event!`](crate::plain_event) declares, and for
/// [`Message`](crate::Message). Implement it for other types of your own.
///
/// ```
/// use slipring::{Persist, topic::Unreadable};
///
/// #[derive(Default)]
/// struct Order { account: String, price: i64 }
///
/// impl Persist for Order {
///     fn write(&self, out: &mut Vec<u8>) {
///         out.extend_from_slice(&self.price.to_le_bytes());
///         out.extend_from_slice(self.account.as_bytes());
///     }
///
///     fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
///         let (price, account) = bytes.split_first_chunk().ok_or(Unreadable("an order has 8 bytes or more"))?;
///         self.price = i64::from_le_bytes(*price);
///         self.account.clear();
///         self.account.push_str(std::str::from_utf8(account).map_err(|_| Unreadable("an account is text"))?);
///         Ok(())
///     }
///
///     fn layout() -> String {
///         "order 1".to_owned()
///     }
/// }
/// ```
pub trait Persist: Send + Sync + Sized + 'static {
    /// Appends the encoded event to `out`, and leaves the bytes that `out` has already. Called on the journal's thread.
    /// A panic fails the event's topic, as a failing handler does; other topics continue.
    fn write(&self, out: &mut Vec<u8>);

    /// Turns `self` into the event that [`write`](Self::write) encoded in `bytes`. `self` holds an earlier event, so
    /// overwrite every field that matters.
    ///
    /// # Errors
    /// The bytes do not decode as an event.
    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable>;

    /// Names the encoding in the journal's catalogue: a topic whose recorded events have another one is not opened.
    /// Choose a name that stays when the type is renamed or moved, and a new name when the encoding changes. For plain
    /// data the name holds only the size; a type that [`plain_event!`](crate::plain_event) declares names each field with
    /// its type and offset.
    fn layout() -> String;

    /// The size of every encoded event, in bytes; `None` if events differ in size.
    fn size() -> Option<usize> {
        None
    }

    /// The event's own time, for reading by time; `None` if it has none.
    fn time(&self) -> Option<Timestamp> {
        None
    }

    /// The functions that encode and decode many events at once. `None` unless the encoding of an event is its bytes in
    /// memory, with a size above 0, and events have no time of their own.
    #[doc(hidden)]
    fn plain() -> Option<Plain<Self>> {
        None
    }
}

/// The functions that encode and decode many events at once, for events whose encoding is their bytes in memory.
#[doc(hidden)]
pub struct Plain<E> {
    pub(crate) write: fn(&[E], &mut Vec<u8>),
    /// Returns the events that the bytes hold, without a copy. `None` if the length of the bytes is not a multiple of
    /// an event's size, or the bytes are not aligned for the event type.
    pub(crate) view: fn(&[u8]) -> Option<&[E]>,
}

impl<E> Clone for Plain<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Plain<E> {}

/// The reason why bytes in the journal do not decode as an event of the topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bytes are no event of this topic: {0}")]
pub struct Unreadable(pub &'static str);

impl<E> Persist for E
where
    E: zerocopy::IntoBytes + zerocopy::FromBytes + zerocopy::Immutable + Send + Sync + 'static,
{
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        *self = Self::read_from_bytes(bytes).map_err(|_| Unreadable("it has another size"))?;
        Ok(())
    }

    fn layout() -> String {
        layout::nameless(size_of::<Self>())
    }

    fn size() -> Option<usize> {
        Some(size_of::<Self>())
    }

    fn plain() -> Option<Plain<Self>> {
        // A slice of bytes does not tell the count of its events if events have size 0.
        (size_of::<Self>() > 0).then_some(Plain {
            write: |events, out| out.extend_from_slice(events.as_bytes()),
            view: |bytes| {
                let count = bytes.len().checked_div(size_of::<Self>())?;
                <[Self]>::ref_from_bytes_with_elems(bytes, count).ok()
            },
        })
    }
}

/// The functions of [`Persist`] for the event type `E`, for code whose `E` has no bound `Persist`.
pub(crate) struct Persistence<E> {
    write: fn(&E, &mut Vec<u8>),
    read: fn(&mut E, &[u8]) -> Result<(), Unreadable>,
    time: fn(&E) -> Option<Timestamp>,
    pub(crate) layout: fn() -> String,
    pub(crate) size: Option<usize>,
    pub(crate) plain: Option<Plain<E>>,
}

impl<E> Clone for Persistence<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Persistence<E> {}

impl<E: Persist> Persistence<E> {
    pub(crate) fn of() -> Self {
        Self { write: E::write, read: E::read, time: E::time, layout: E::layout, size: E::size(), plain: E::plain() }
    }
}

/// The name that panic messages give to the user's implementation of [`Persist`].
const PERSIST: &str = "the event's Persist";

/// These functions call the user's code. If it panics, the panic's message names [`PERSIST`] as the source.
impl<E> Persistence<E> {
    /// Calls [`Persist::write`].
    #[inline]
    pub(crate) fn write(&self, event: &E, out: &mut Vec<u8>) {
        blaming(PERSIST, || (self.write)(event, out));
    }

    /// Calls [`Persist::read`].
    #[inline]
    pub(crate) fn read(&self, event: &mut E, bytes: &[u8]) -> Result<(), Unreadable> {
        blaming(PERSIST, || (self.read)(event, bytes))
    }

    /// Calls [`Persist::time`].
    #[inline]
    pub(crate) fn time(&self, event: &E) -> Option<Timestamp> {
        blaming(PERSIST, || (self.time)(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_data_is_seen_where_it_stands_if_it_can_stand_there() {
        let plain = <[u64; 2]>::plain().expect("it is plain data");
        let (events, mut bytes) = ([[1_u64, 2], [3, 4]], Vec::new());
        (plain.write)(&events, &mut bytes);
        assert_eq!(bytes, [1_u64, 2, 3, 4].map(u64::to_le_bytes).concat());
        let mut room = [0_u64; 9];
        let room = room.as_mut_bytes();
        for shift in 0..16 {
            room[shift..shift + 32].copy_from_slice(&bytes);
            let seen = (plain.view)(&room[shift..shift + 32]);
            assert_eq!(seen, shift.is_multiple_of(align_of::<u64>()).then_some(&events[..]));
        }
        assert_eq!((plain.view)(&room[..31]), None);
        assert!(<()>::plain().is_none(), "nobody can say how many there are");
    }
}
