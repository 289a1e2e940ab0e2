//! The header of a shared ring's file: 4,096 bytes that never change after the file was created. `docs/SHARED_MEMORY.md`
//! draws it. Reading and writing it are pure functions of bytes.

use super::error::Property;
use super::event_layout::EventLayout;
use super::layout::{Event, layout};
use super::region::{Control, LARGEST_CAPACITY};

/// Size of the header in bytes; the positions and the table of participants follow.
pub(crate) const HEADER: usize = 4096;
/// The first eight bytes of the file.
pub(crate) const MAGIC: [u8; 8] = *b"SLIPSHM\n";
/// The version of the format.
pub(crate) const VERSION: u32 = 1;
/// Full fences on both sides: the only kind of fence of this version.
const FULL_FENCE: u32 = 1;
/// Offset of the text of the layout.
const TEXT: usize = 96;
/// The most bytes of that text.
pub(crate) const LONGEST_LAYOUT: usize = HEADER - TEXT;
/// Offset of the checksum of the header.
const CHECKSUM: usize = 88;
/// Sizes and places in the file are multiples of this, so that consumers can map the events read-only.
const PAGE: u64 = 4096;

/// The sizes of a ring, from which the places in its file follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    /// True for several producers: then each slot has a stamp.
    pub(crate) is_multi: bool,
    /// Count of slots, a power of two.
    pub(crate) capacity: u64,
    /// Count of events that are kept for consumers that join later.
    pub(crate) retain: u64,
    /// Size of an event in bytes.
    pub(crate) event_size: u64,
    /// The text of the event's layout.
    pub(crate) layout: String,
}

/// A difference between two sides, shown as texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    pub(crate) property: Property,
    pub(crate) expected: String,
    pub(crate) found: String,
}

fn differs(property: Property, expected: impl ToString, found: impl ToString) -> Difference {
    Difference { property, expected: expected.to_string(), found: found.to_string() }
}

impl Geometry {
    pub(crate) fn new(is_multi: bool, capacity: u64, retain: u64, layout: &EventLayout) -> Self {
        Self { is_multi, capacity, retain, event_size: layout.size() as u64, layout: layout.to_string() }
    }

    /// Offset of the stamps.
    pub(crate) fn stamps(&self) -> u64 {
        HEADER as u64 + (size_of::<Control>() as u64).next_multiple_of(PAGE)
    }

    /// Offset of the events; the first page that consumers map read-only.
    pub(crate) fn events(&self) -> u64 {
        let stamps = if self.is_multi { self.capacity * 8 } else { 0 };
        self.stamps() + stamps.next_multiple_of(PAGE)
    }

    /// Size of the file in bytes. Cannot overflow: a geometry's numbers have been checked.
    pub(crate) fn bytes(&self) -> u64 {
        self.events() + (self.capacity * self.event_size).next_multiple_of(PAGE)
    }

    /// The header's bytes.
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &MAGIC);
        put(8, &VERSION.to_ne_bytes());
        put(12, &(HEADER as u32).to_ne_bytes());
        put(16, &self.capacity.to_ne_bytes());
        put(24, &self.retain.to_ne_bytes());
        put(32, &self.event_size.to_ne_bytes());
        put(40, &(if self.is_multi { 2u32 } else { 1 }).to_ne_bytes());
        put(44, &FULL_FENCE.to_ne_bytes());
        put(48, &self.bytes().to_ne_bytes());
        put(56, &self.stamps().to_ne_bytes());
        put(64, &self.events().to_ne_bytes());
        put(72, &hash(self.layout.as_bytes()).to_ne_bytes());
        put(80, &(self.layout.len() as u64).to_ne_bytes());
        put(TEXT, self.layout.as_bytes());
        let checksum = checksum(&bytes);
        bytes[CHECKSUM..CHECKSUM + 8].copy_from_slice(&checksum.to_ne_bytes());
        bytes
    }

    /// Reads a header. Every number is checked before another one is computed from it.
    pub(crate) fn decode(bytes: &[u8; HEADER]) -> Result<Self, Difference> {
        let u32_at = |at: usize| u32::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
        let u64_at = |at: usize| u64::from_ne_bytes(std::array::from_fn(|index| bytes[at + index]));
        if bytes[..8] != MAGIC {
            return Err(differs(Property::Magic, format_args!("{:?}", MAGIC), format_args!("{:?}", &bytes[..8])));
        }
        if u32_at(8) != VERSION {
            return Err(differs(Property::Version, VERSION, u32_at(8)));
        }
        if u64_at(CHECKSUM) != checksum(bytes) {
            return Err(differs(
                Property::Checksum,
                format_args!("{:#x}", checksum(bytes)),
                format_args!("{:#x}", u64_at(CHECKSUM)),
            ));
        }
        let is_multi = match u32_at(40) {
            1 => false,
            2 => true,
            other => return Err(differs(Property::Kind, "1 (one producer) or 2 (several)", other)),
        };
        if u32_at(44) != FULL_FENCE {
            return Err(differs(Property::Fence, "1 (full fences)", u32_at(44)));
        }
        let (capacity, retain, event_size) = (u64_at(16), u64_at(24), u64_at(32));
        let largest = LARGEST_CAPACITY / event_size.max(8);
        if event_size == 0 || event_size > LARGEST_CAPACITY {
            return Err(differs(Property::EventSize, format_args!("1 to {LARGEST_CAPACITY}"), event_size));
        }
        if !capacity.is_power_of_two() || capacity > largest {
            return Err(differs(Property::Capacity, format_args!("a power of two up to {largest}"), capacity));
        }
        if retain >= capacity {
            return Err(differs(Property::Retain, format_args!("below {capacity}"), retain));
        }
        let text = usize::try_from(u64_at(80)).ok().and_then(|len| bytes.get(TEXT..TEXT.checked_add(len)?));
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        let Some(text) = text.filter(|text| hash(text.as_bytes()) == u64_at(72)) else {
            return Err(differs(Property::Layout, "a text of its length and hash", u64_at(80)));
        };
        let geometry = Self { is_multi, capacity, retain, event_size, layout: text.to_owned() };
        let places = [(12, HEADER as u64), (48, geometry.bytes()), (56, geometry.stamps()), (64, geometry.events())];
        for (at, expected) in places {
            let found = if at == 12 { u64::from(u32_at(at)) } else { u64_at(at) };
            if found != expected {
                return Err(differs(Property::Size, expected, found));
            }
        }
        Ok(geometry)
    }

    /// Compares the type of the events with what the file has.
    pub(crate) fn check<E: Event>(&self) -> Result<(), Difference> {
        if E::IS_RAW {
            return self.check_text();
        }
        let expected = layout::<E>();
        if self.layout != expected {
            return Err(differs(Property::Layout, &expected, &self.layout));
        }
        if self.event_size != size_of::<E>() as u64 {
            return Err(differs(Property::EventSize, size_of::<E>(), self.event_size));
        }
        Ok(())
    }
}

impl Geometry {
    /// Compares the text with the layout that it describes, and the sizes. For programs that do not have the events' type.
    fn check_text(&self) -> Result<(), Difference> {
        let described = self.layout.parse::<EventLayout>().ok().filter(|it| it.to_string() == self.layout);
        let Some(described) = described else {
            return Err(differs(Property::Layout, "the full text of a layout", &self.layout));
        };
        if self.event_size != described.size() as u64 {
            return Err(differs(Property::EventSize, described.size(), self.event_size));
        }
        Ok(())
    }
}

/// FNV-1a with 64 bits.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

/// The hash of the header without its checksum.
fn checksum(bytes: &[u8; HEADER]) -> u64 {
    let mut covered = *bytes;
    covered[CHECKSUM..CHECKSUM + 8].fill(0);
    hash(&covered)
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::super::raw::RawEvent;
    use super::*;

    fn geometry() -> Geometry {
        Geometry::new(true, 64, 8, &EventLayout::of::<u64>())
    }

    #[test]
    fn a_header_comes_back_as_it_was_written() {
        for is_multi in [false, true] {
            let geometry = Geometry::new(is_multi, 1 << 10, 3, &EventLayout::of::<u32>());
            assert_eq!(Geometry::decode(&geometry.encode()), Ok(geometry));
        }
        assert!(geometry().check::<u64>().is_ok());
        assert_eq!(geometry().check::<i64>().unwrap_err().property, Property::Layout);
        assert!(geometry().check::<RawEvent>().is_ok());
    }

    #[test]
    fn a_text_that_describes_another_size_is_refused_for_events_of_bytes() {
        let other = Geometry { event_size: 16, ..geometry() };
        assert_eq!(other.check::<RawEvent>().unwrap_err().property, Property::EventSize);
        for text in ["value:u64", "value:u64@0  size=8 align=8", "\u{1b}[2J", "size=8 align=8"] {
            let other = Geometry { layout: text.to_owned(), ..geometry() };
            assert_eq!(other.check::<RawEvent>().unwrap_err().property, Property::Layout, "{text:?}");
        }
    }

    #[test]
    fn the_offsets_are_those_of_the_documentation() {
        let geometry = Geometry::new(true, 64, 0, &EventLayout::of::<u64>());
        assert_eq!(size_of::<Control>(), 17_152);
        assert_eq!((geometry.stamps(), geometry.events(), geometry.bytes()), (24_576, 28_672, 32_768));
        assert_eq!(Geometry::new(false, 64, 0, &EventLayout::of::<u64>()).events(), 24_576);
    }

    /// Changes bytes at random, half of the time with a checksum that fits. `SLIPRING_HEADERS=1000000` tries so many.
    #[test]
    fn a_damaged_header_is_an_error_or_a_geometry_that_fits_its_sizes() {
        let tries =
            std::env::var("SLIPRING_HEADERS").map_or(if cfg!(miri) { 20 } else { 5_000 }, |it| it.parse().unwrap());
        let mut random = fastrand::Rng::with_seed(7);
        let (mut refused, mut behind) = (0u64, 0u64);
        for turn in 0..tries {
            let mut bytes = geometry().encode();
            for _ in 0..random.usize(1..4) {
                let (at, len) = (random.usize(0..140), random.usize(1..9));
                match random.u8(0..3) {
                    0 => bytes[at..at + len].fill(0xff),
                    1 => bytes[at] ^= 1 << random.u8(0..8),
                    _ => bytes[at..at + len].iter_mut().for_each(|byte| *byte = random.u8(..)),
                }
            }
            if turn % 2 == 0 {
                let fits = checksum(&bytes);
                bytes[CHECKSUM..CHECKSUM + 8].copy_from_slice(&fits.to_ne_bytes());
            }
            match Geometry::decode(&bytes) {
                Ok(geometry) => {
                    assert!(geometry.bytes() < 1 << 50 && geometry.events() >= geometry.stamps());
                    assert!(geometry.events() + geometry.capacity * geometry.event_size <= geometry.bytes());
                }
                Err(difference) => {
                    assert_ne!(difference.expected, difference.found);
                    refused += 1;
                    let before = [Property::Magic, Property::Version, Property::Checksum];
                    behind += u64::from(!before.contains(&difference.property));
                }
            }
        }
        assert!(refused > tries / 2 && behind > tries / 8, "{refused} refused, {behind} behind the checksum");
    }
}
