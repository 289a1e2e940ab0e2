//! Plain data with named fields as events: the macro that declares it, and the functions that the macro calls.

use crate::event::codec::Unreadable;
use crate::event::layout;
use slipring_ring::shared;

#[doc(hidden)]
pub use crate::event::codec::Plain;
#[doc(hidden)]
pub use slipring_ring::shared_event;

/// Declares a struct of plain data whose fields the journal's catalogue names: an event of durable topics
/// ([`Persist`](crate::Persist)), and of rings between processes (`slipring_ring::shared`).
///
/// The struct is `repr(C)` and `Copy`. Its fields are numbers of fixed sizes (`u8` to `u64`, `i8` to `i64`, `f32`, `f64`)
/// and arrays of them. A struct with padding does not compile: put the largest fields first, or fill the gaps with fields
/// such as `unused: [u8; 3]`. In the journal an event is its bytes in memory, as with zerocopy's traits; what is new is
/// that its [layout](crate::Persist::layout) names each field with its type and offset. So a topic that is opened with other
/// fields of the same size is refused, and `slipring journal export` writes each field as a typed column.
///
/// A topic whose events were recorded without names, as plain data of the same size, is opened and gets the names.
///
/// ```
/// use slipring::{Engine, Persist, journal::{self, simulated::SimulatedDisk}};
///
/// slipring::plain_event! {
///     /// A change of the best price.
///     #[derive(Debug, Default, PartialEq)]
///     pub struct Quote {
///         /// Price in ticks.
///         pub px: i64,
///         pub qty: u32,
///         pub venue: [u8; 4],
///     }
/// }
///
/// let engine = Engine::builder().journal_in(SimulatedDisk::new()).build()?;
/// let quotes = engine.topic::<Quote>("quotes").durable().create()?;
/// quotes.producer().create()?.publish(|quote| *quote = Quote { px: 101, qty: 2, venue: *b"XETR" })?;
///
/// assert_eq!(Quote::layout(), "plain data px:i64@0 qty:u32@8 venue:u8[4]@12 size=16 align=8");
/// let layout = journal::fields(&Quote::layout()).unwrap();             // as tools read it from the catalogue
/// assert_eq!((layout.fields()[1].name(), layout.fields()[1].offset()), ("qty", 8));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// The struct must not derive zerocopy's `IntoBytes`, `FromBytes` and `Immutable` as well: these make it an event without
/// names.
///
/// Padding is refused:
///
/// ```compile_fail
/// slipring::plain_event! {
///     pub struct Padded { pub flag: u8, pub px: i64 }
/// }
/// ```
#[macro_export]
macro_rules! plain_event {
    ($(#[$about:meta])* $public:vis struct $name:ident { $($fields:tt)* }) => {
        $crate::__plain::shared_event! { $(#[$about])* $public struct $name { $($fields)* } }

        impl $crate::Persist for $name {
            fn write(&self, out: &mut ::std::vec::Vec<u8>) {
                $crate::__plain::write(self, out);
            }

            fn read(&mut self, bytes: &[u8]) -> ::core::result::Result<(), $crate::topic::Unreadable> {
                $crate::__plain::read(self, bytes)
            }

            fn layout() -> ::std::string::String {
                $crate::__plain::layout::<Self>()
            }

            fn size() -> ::core::option::Option<usize> {
                ::core::option::Option::Some(::core::mem::size_of::<Self>())
            }

            fn plain() -> ::core::option::Option<$crate::__plain::Plain<Self>> {
                $crate::__plain::plain()
            }
        }
    };
}

/// [`Persist::write`](crate::Persist::write) of plain data.
#[doc(hidden)]
pub fn write<E: shared::Event>(event: &E, out: &mut Vec<u8>) {
    out.extend_from_slice(shared::as_bytes(std::slice::from_ref(event)));
}

/// [`Persist::read`](crate::Persist::read) of plain data.
#[doc(hidden)]
pub fn read<E: shared::Event>(event: &mut E, bytes: &[u8]) -> Result<(), Unreadable> {
    *event = shared::read_from_bytes(bytes).ok_or(Unreadable("it has another size"))?;
    Ok(())
}

/// [`Persist::layout`](crate::Persist::layout) of plain data.
#[doc(hidden)]
pub fn layout<E: shared::Event>() -> String {
    layout::named(&shared::layout::<E>())
}

/// `Persist::plain` of plain data.
#[doc(hidden)]
pub fn plain<E: shared::Event>() -> Option<Plain<E>> {
    let write = |events: &[E], out: &mut Vec<u8>| out.extend_from_slice(shared::as_bytes(events));
    (size_of::<E>() > 0).then_some(Plain { write, view: shared::from_bytes })
}
