//! The errors of shared rings. Each says what was rejected and what to do.

use crate::sequence::Sequence;
use crate::text;
use std::fmt;
use std::io;
use std::path::PathBuf;

/// What differs between a file, or its folder, and what this program expects of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Property {
    /// The type of the file: a regular file, or a directory for the folder.
    FileType,
    /// The user id of the file's owner.
    Owner,
    /// The permission bits.
    Mode,
    /// The file system, which must be a tmpfs.
    FileSystem,
    /// Size of the file in bytes.
    Size,
    /// The first eight bytes of the header.
    Magic,
    /// The version of the format.
    Version,
    /// The checksum of the header.
    Checksum,
    /// The kind of the ring: one producer or several.
    Kind,
    /// The kind of fence that publishers and sleepers issue.
    Fence,
    /// Count of slots.
    Capacity,
    /// Count of retained events.
    Retain,
    /// Size of an event in bytes.
    EventSize,
    /// The text of the event's layout: fields, types and offsets.
    Layout,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FileType => "file type",
            Self::Owner => "owner",
            Self::Mode => "mode",
            Self::FileSystem => "file system",
            Self::Size => "size",
            Self::Magic => "magic",
            Self::Version => "format version",
            Self::Checksum => "header checksum",
            Self::Kind => "kind",
            Self::Fence => "fence kind",
            Self::Capacity => "capacity",
            Self::Retain => "count of retained events",
            Self::EventSize => "event size",
            Self::Layout => "event layout",
        })
    }
}

/// The reason why a shared ring could not be created, opened, removed or joined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SharedError {
    /// The operating system is not Linux.
    #[error("shared rings need Linux, and this is {system}: use a ring of one process")]
    Unsupported {
        /// The name of the operating system.
        system: &'static str,
    },
    /// The name of the ring, or of a participant, is not allowed.
    #[error("the name {name:?} is refused: take 1 to {longest} of A-Z, a-z, 0-9, '.', '_' and '-', no '.' first")]
    Name {
        /// The requested name.
        name: String,
        /// The most characters of a name.
        longest: usize,
    },
    /// The capacity is not a power of two, or is too large.
    #[error("a capacity of {asked} is refused: take a power of two from 1 to {largest}")]
    Capacity {
        /// The requested capacity in slots.
        asked: usize,
        /// The largest capacity for this event.
        largest: usize,
    },
    /// The count of retained events is not less than the capacity.
    #[error("retaining {asked} events in a ring of {capacity} leaves no room to publish: retain fewer")]
    Retain {
        /// The requested count of retained events.
        asked: usize,
        /// The ring's capacity.
        capacity: usize,
    },
    /// The size or the layout's text of an event is too large, or the size is 0.
    #[error("events of {size} bytes with the layout {layout:?} are refused: {limit}")]
    EventType {
        /// Size of an event in bytes.
        size: usize,
        /// The text of the layout.
        layout: String,
        /// The limit that is exceeded.
        limit: &'static str,
    },
    /// A text does not describe a layout of events.
    #[error("the layout text {:?} is refused: {why}", text::line(.part).to_string())]
    LayoutText {
        /// The part of the text that is refused.
        part: String,
        /// The reason.
        why: &'static str,
    },
    /// There is no ring with this name.
    #[error("there is no shared ring called {name:?} in {}: create it first", folder.display())]
    NotFound {
        /// The requested name.
        name: String,
        /// The folder that was searched.
        folder: PathBuf,
    },
    /// There is a ring with this name already.
    #[error("there is a shared ring called {name:?} already: open it, or remove it first")]
    Exists {
        /// The requested name.
        name: String,
    },
    /// The file or its folder is not what this program expects.
    #[error("{}: the {property} is {}, and not {}", path.display(), text::line(.found), text::line(.expected))]
    Mismatch {
        /// The path of the file or folder.
        path: PathBuf,
        /// What differs.
        property: Property,
        /// What this program expects.
        expected: String,
        /// What it found.
        found: String,
    },
    /// The file system has no room for the ring.
    #[error("{} has no room for the {bytes} bytes of this ring: take a smaller capacity, or a larger /dev/shm", path.display())]
    Memory {
        /// The path of the file.
        path: PathBuf,
        /// Size of the file in bytes.
        bytes: u64,
    },
    /// Participants are alive in the ring that is to be removed.
    #[error("the shared ring {name:?} is in use by {participants:?}: stop them, or remove it by force")]
    InUse {
        /// The name of the ring.
        name: String,
        /// The names of the participants.
        participants: Vec<String>,
    },
    /// The ring has a living producer already, and is for one only.
    #[error("the ring has a producer already (process {pid}): stop it, or create the ring for several producers")]
    ProducerTaken {
        /// The process id that the living producer gave when it joined.
        pid: u64,
    },
    /// A living consumer has this name.
    #[error("a consumer called {name:?} reads this ring already: give each its own name")]
    NameTaken {
        /// The name in use.
        name: String,
    },
    /// No participant has this name, or the one that has it is alive.
    #[error("no consumer called {name:?} is held here without being alive")]
    NotHeld {
        /// The requested name.
        name: String,
    },
    /// The requested start is no longer kept, or beyond the next sequence to be published.
    #[error("consumer {name:?} cannot start at {asked}: the ring keeps {earliest} up to, not including, {latest}")]
    OutOfRange {
        /// The consumer's name.
        name: String,
        /// The requested start.
        asked: Sequence,
        /// The earliest possible start.
        earliest: Sequence,
        /// The next sequence to be published.
        latest: Sequence,
    },
    /// The ring's table of participants is full.
    #[error("the ring has {most} participants already, and takes no more: stop one, or release a held one")]
    Full {
        /// The most participants of a ring.
        most: usize,
    },
    /// Another participant has been joining or removing for a second, without an end: its process may be stopped.
    #[error("another process has kept this ring's register locked for a second: is it stopped?")]
    Busy,
    /// The ring has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
    /// A call of the operating system failed.
    #[error("{} failed: {cause}", text::line(.doing))]
    System {
        /// What was being done.
        doing: String,
        /// The system's error.
        cause: io::Error,
    },
}

/// The reason why a shared ring gives or takes no more events.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The ring was closed. Consumers get this after they have read everything that was published before.
    #[error("the shared ring was closed")]
    Closed,
    /// Every producer's process has died, and no successor has joined. Consumers get this after they have read
    /// everything that was published. If a successor joins, the next poll reads on.
    #[error("the last producer of the shared ring died without closing it: wait for a successor, or start one")]
    ProducerDied,
    /// The ring's file was removed, or another file has its name now. Open the ring again.
    #[error("the file of the shared ring was removed or replaced: open it again")]
    Replaced,
    /// This process is a fork of the one that joined. A copy of a participant cannot go on.
    #[error("a forked process cannot use its parent's shared ring: open the ring in this process")]
    Forked,
    /// A number in the shared memory is not possible, so another process has written over it.
    #[error("the shared ring is damaged: {what} is {found}; remove it and create it anew")]
    Damaged {
        /// What is wrong.
        what: &'static str,
        /// The impossible value.
        found: u64,
    },
}

/// The reason why an event was not published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The ring is full, and the call does not wait.
    #[error("the shared ring is full: {slowest:?} is a whole capacity behind")]
    Full {
        /// The name of the consumer that is furthest behind; without consumers, of the producer whose claim is not out.
        slowest: String,
    },
    /// The deadline has passed while the ring was full.
    #[error("the shared ring stayed full until the deadline: {slowest:?} is a whole capacity behind")]
    TimedOut {
        /// The name of the consumer that is furthest behind; without consumers, of the producer whose claim is not out.
        slowest: String,
    },
    /// The claim is empty or larger than the ring.
    #[error("a claim of {asked} slots is refused: take 1 to {largest}")]
    TooLong {
        /// The requested count of slots.
        asked: usize,
        /// The most slots of a claim.
        largest: usize,
    },
    /// The ring has ended.
    #[error(transparent)]
    Ended(#[from] Ended),
}
