//! Partitioners, which choose the partition of an event.

use crate::base::threads::blaming;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// How the partition of an event is chosen if the call names none.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum Partitioner {
    /// By a hash of the key. The hash is that of Kafka's default partitioner, murmur2, so with the same count of
    /// partitions a key goes to the same partition as in Kafka, in every run and version. Events without a key are
    /// spread as by [`Sticky`](Self::Sticky). The default.
    ///
    /// When partitions are added, keys are mapped anew.
    #[default]
    KeyHash,
    /// To each partition in turn.
    RoundRobin,
    /// To one partition for a whole batch, or for [`STICK`](Self::STICK) single events, then to the next partition. So
    /// readers get fewer and longer batches.
    Sticky,
    /// None: an event whose call names no partition is an error.
    Explicit,
    /// By your own function: see [`custom`](Self::custom).
    Custom(Arc<dyn Partitioning>),
}

/// A partitioner of your own: a closure, or a type with state.
///
/// ```
/// use slipring::producer::{Partitioner, Partitioning};
/// let by_length = |key: Option<&[u8]>, partitions: u32| key.map_or(0, |key| key.len() as u32 % partitions);
/// let partitioner = Partitioner::custom(by_length);
///
/// struct Pinned(u32);
/// impl Partitioning for Pinned {
///     fn partition(&self, _: Option<&[u8]>, partitions: u32) -> u32 {
///         self.0 % partitions
///     }
/// }
/// let partitioner = Partitioner::custom(Pinned(3));
/// ```
pub trait Partitioning: Send + Sync + 'static {
    /// Returns a partition below `partitions`, which is at least 1. The producer returns an error for any other number.
    /// `key` is `None` for an event without a key.
    fn partition(&self, key: Option<&[u8]>, partitions: u32) -> u32;
}

impl<F: Fn(Option<&[u8]>, u32) -> u32 + Send + Sync + 'static> Partitioning for F {
    fn partition(&self, key: Option<&[u8]>, partitions: u32) -> u32 {
        self(key, partitions)
    }
}

impl Partitioner {
    /// Count of single events that [`Sticky`](Self::Sticky) sends to one partition before it goes to the next.
    pub const STICK: u32 = 64;

    /// Creates a partitioner from your own function.
    pub fn custom(partition: impl Partitioning) -> Self {
        Self::Custom(Arc::new(partition))
    }

    /// The partition of `key` among `partitions`, by [`KeyHash`](Self::KeyHash).
    ///
    /// ```
    /// use slipring::producer::Partitioner;
    /// assert_eq!(Partitioner::of_key(b"foobar", 10), 6);
    /// ```
    ///
    /// # Panics
    /// If `partitions` is 0.
    #[inline]
    pub fn of_key(key: &[u8], partitions: u32) -> u32 {
        (murmur2(key) & 0x7fff_ffff) % partitions
    }
}

impl fmt::Debug for Partitioner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyHash => "KeyHash",
            Self::RoundRobin => "RoundRobin",
            Self::Sticky => "Sticky",
            Self::Explicit => "Explicit",
            Self::Custom(_) => "Custom",
        })
    }
}

/// Parses `key-hash`, `round-robin`, `sticky` or `explicit`.
impl FromStr for Partitioner {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "key-hash" => Ok(Self::KeyHash),
            "round-robin" => Ok(Self::RoundRobin),
            "sticky" => Ok(Self::Sticky),
            "explicit" => Ok(Self::Explicit),
            _ => Err(format!("no partitioner is called {name:?}; take one of key-hash, round-robin, sticky, explicit")),
        }
    }
}

/// A producer's partitioner, with the state that it needs to spread events.
pub(crate) struct PartitionPicker {
    pub(crate) partitioner: Partitioner,
    turn: u32,
    stuck: u32,
}

impl PartitionPicker {
    pub(crate) fn new(partitioner: Partitioner) -> Self {
        Self { partitioner, turn: 0, stuck: 0 }
    }

    /// The partition of the next event, or of the next batch if `batch` is true. `None` if the partitioner is
    /// `Explicit`. A custom partitioner may return a number that is too large.
    #[inline]
    pub(crate) fn pick(&mut self, key: Option<&[u8]>, partitions: u32, batch: bool) -> Option<u32> {
        match (&self.partitioner, key) {
            (Partitioner::KeyHash, Some(key)) => Some(Partitioner::of_key(key, partitions)),
            (Partitioner::KeyHash | Partitioner::Sticky, _) => {
                let here = self.turn % partitions;
                self.stuck += 1;
                if batch || self.stuck >= Partitioner::STICK {
                    self.stuck = 0;
                    self.turn = here + 1;
                }
                Some(here)
            }
            (Partitioner::RoundRobin, _) => {
                let here = self.turn % partitions;
                self.turn = here + 1;
                Some(here)
            }
            (Partitioner::Explicit, _) => None,
            (Partitioner::Custom(own), key) => Some(blaming("the partitioner", || own.partition(key, partitions))),
        }
    }
}

/// MurmurHash2 with 32 bits and Kafka's seed: public domain, by Austin Appleby.
#[inline]
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ key.len() as u32;
    let (words, tail) = key.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes are those of Kafka's own client.
    #[test]
    fn keys_hash_as_in_kafka() {
        for (key, hash) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, hash, "{key}");
        }
    }

    #[test]
    fn each_partitioner_keeps_to_its_rule() {
        let picks = |partitioner, keys: &[Option<&[u8]>], batch| {
            let mut picker = PartitionPicker::new(partitioner);
            keys.iter().map(|key| picker.pick(*key, 3, batch)).collect::<Vec<_>>()
        };
        let none: [Option<&[u8]>; 5] = [None; 5];
        assert_eq!(picks(Partitioner::RoundRobin, &none, false), [0, 1, 2, 0, 1].map(Some));
        assert_eq!(picks(Partitioner::Sticky, &none, false), [0; 5].map(Some));
        assert_eq!(picks(Partitioner::Sticky, &none, true), [0, 1, 2, 0, 1].map(Some));
        assert_eq!(picks(Partitioner::Explicit, &none, false), [None; 5]);
        let same = picks(Partitioner::KeyHash, &[Some(b"21"), None, Some(b"21")], true);
        assert_eq!((same[0], same[1]), (same[2], Some(0)));
        let mut sticky = PartitionPicker::new(Partitioner::Sticky);
        let run: Vec<_> = (0..130).map(|_| sticky.pick(None, 3, false)).collect();
        assert!(run[..64].iter().all(|&at| at == Some(0)) && run[64..128].iter().all(|&at| at == Some(1)));
        assert_eq!(run[128], Some(2));
    }
}
