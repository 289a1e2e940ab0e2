//! What can be refused, each with what was asked and what to do.

use crate::closing::Closed;
use crate::fence::Refused;
use crate::memory;
use crate::pin::PinError;
use crate::sequence::Sequence;
use crate::text;

/// A ring could not be built, or a stage could not join it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The system refuses what joining a ring that was made before needs.
    #[error("stage {stage:?} cannot join a ring that was made before: {cause}")]
    Fence {
        /// The stage.
        stage: String,
        /// Which fence the system refused, and why.
        cause: Refused,
    },
    /// The capacity is no power of two, or too large.
    #[error("a capacity of {asked} is refused: take a power of two from 1 to {largest}")]
    Capacity {
        /// The number that was asked for.
        asked: usize,
        /// The largest.
        largest: usize,
    },
    /// A ring cannot retain as many events as its capacity, or more.
    #[error("retaining {asked} events in a ring of {capacity} leaves no room to publish: retain fewer")]
    Retain {
        /// The number that was asked for.
        asked: usize,
        /// The ring's capacity.
        capacity: usize,
    },
    /// The system does not give so much memory.
    #[error(
        "the system does not give the {bytes} bytes that this capacity takes: take a smaller one{}",
        memory::limit()
    )]
    Memory {
        /// The size of the slots in bytes.
        bytes: usize,
    },
    /// A stage without a name.
    #[error("a stage needs a name")]
    NoName,
    /// Two stages of one name.
    #[error("there is a stage called {name:?} already: give each its own name")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A stage stands behind one that is not there.
    #[error("stage {stage:?} stands behind {after:?}, which this ring does not have (it has {known:?})")]
    UnknownStage {
        /// The stage declared.
        stage: String,
        /// The stage it names.
        after: String,
        /// The stages there are.
        known: Vec<String>,
    },
    /// A stage stands behind one of another ring.
    #[error("stage {stage:?} stands behind {after:?} of another ring: stages order only within one ring")]
    ForeignStage {
        /// The stage declared.
        stage: String,
        /// The stage it names.
        after: String,
    },
    /// Stages stand behind one another in a circle.
    #[error("these stages stand behind one another in a circle: {}", text::line(stages.join(" -> ")))]
    Cycle {
        /// The circle, its first stage repeated at the end.
        stages: Vec<String>,
    },
    /// A stage that changes events must be ordered against every other one.
    #[error("stage {mutable:?} changes events, but {other:?} may read them at the same time: put one behind the other")]
    UnorderedMutable {
        /// The stage with `&mut` access.
        mutable: String,
        /// The stage that is neither before nor behind it.
        other: String,
    },
    /// A stage that changes events stands behind a journaler.
    #[error("stage {mutable:?} would change events that {journaler:?} has written already: put it before")]
    MutableBehindJournaler {
        /// The stage with `&mut` access.
        mutable: String,
        /// The journaler.
        journaler: String,
    },
    /// A stage that changes events cannot join a running ring.
    #[error("stage {stage:?} changes events, so it must be there from the start: declare it when the ring is built")]
    MutableAtRunTime {
        /// The stage.
        stage: String,
    },
    /// The start is not kept any more, or not published yet.
    #[error("stage {stage:?} cannot start at {asked}: the ring keeps {earliest} up to, not including, {latest}")]
    OutOfRange {
        /// The stage.
        stage: String,
        /// The sequence at which it was to start.
        asked: Sequence,
        /// The earliest that it could have had.
        earliest: Sequence,
        /// The next to be published.
        latest: Sequence,
    },
    /// A stage shared by no workers at all.
    #[error("stage {stage:?} needs at least one worker")]
    NoWorkers {
        /// The stage.
        stage: String,
    },
    /// The ring is closed.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// A thread could not be pinned.
    #[error("stage {stage:?}: {cause}")]
    Pin {
        /// The stage.
        stage: String,
        /// Why the core was refused.
        cause: PinError,
    },
    /// The system gave no thread.
    #[error("stage {stage:?} got no thread: {cause}")]
    Thread {
        /// The stage.
        stage: String,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The handler of a managed stage panicked while it was made.
    #[error("the handler of stage {stage:?} panicked while it was made: {}", text::line(.cause))]
    Handler {
        /// The stage.
        stage: String,
        /// The panic's message.
        cause: String,
    },
}

/// A claim was refused. Nothing was claimed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// A claim of nothing.
    #[error("a claim of 0 slots is refused: claim at least 1")]
    Nothing,
    /// A claim that can never succeed.
    #[error("a claim of {asked} slots never fits a ring that holds {largest}: claim fewer at a time")]
    TooLarge {
        /// The number that was asked for.
        asked: usize,
        /// The most that ever fits: the capacity, less what is retained.
        largest: usize,
    },
    /// There is no room now. Only from the forms that try.
    #[error("the ring is full")]
    Full,
    /// There was no room until the deadline.
    #[error("no room until the deadline: {}", held_by(.by))]
    TimedOut {
        /// The stage that held the lowest gate; none if it was a claim that another producer has not committed.
        by: Option<String>,
    },
    /// The ring takes nothing more.
    #[error(transparent)]
    Closed(#[from] Closed),
}

fn held_by(stage: &Option<String>) -> String {
    match stage {
        Some(stage) => format!("the stage {stage:?} is the furthest behind"),
        None => "another producer's claim is not committed yet".to_owned(),
    }
}

/// A consumer did not move to where it was told to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeekError {
    /// The sequence is not kept any more, or not published yet.
    #[error("stage {stage:?} cannot move to {asked}: it may be anywhere from {earliest} to {latest}")]
    OutOfRange {
        /// The stage.
        stage: String,
        /// The sequence to which it was to seek.
        asked: Sequence,
        /// The earliest that it may move to.
        earliest: Sequence,
        /// The latest.
        latest: Sequence,
    },
    /// Others stand behind it: they have read on already.
    #[error("stage {stage:?} cannot go back while {behind:?} stands behind it")]
    StoodBehind {
        /// The stage.
        stage: String,
        /// One that stands behind it.
        behind: String,
    },
    /// The system refuses what going back in a ring that was made before needs.
    #[error("stage {stage:?} cannot go back: {cause}")]
    Fence {
        /// The stage.
        stage: String,
        /// Which fence the system refused, and why.
        cause: Refused,
    },
    /// The ring was halted or has failed, or this stage was evicted.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// A value was not sent; here it is again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SendError<E> {
    /// The value that was not sent.
    pub value: E,
    /// Why it was not.
    pub reason: ClaimError,
}

/// No such consumer to take, evict or remove.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The ring has no stage of this name.
    #[error("there is no stage called {name:?}")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The stage is not to be polled, or was taken already, or has the other kind of access.
    #[error("the consumer of {name:?} is not here to take: it was taken before, or is not polled in this way")]
    NotHere {
        /// The name.
        name: String,
    },
    /// Others stand behind it.
    #[error("{name:?} cannot go while {behind:?} stands behind it: let that one go first")]
    StoodBehind {
        /// The stage that was to go.
        name: String,
        /// One that stands behind it.
        behind: String,
    },
    /// It holds a batch. It leaves by itself when that ends; if it never does, neither does it.
    #[error("{name:?} holds a batch: it leaves when that ends")]
    InBatch {
        /// The stage.
        name: String,
    },
    /// The system refuses what taking a gate away needs. The stage leaves by itself when its consumer polls the next time.
    #[error("{name:?} leaves only when its consumer polls: {cause}")]
    Fence {
        /// The stage.
        name: String,
        /// Which fence the system refused, and why.
        cause: Refused,
    },
    /// Workers share it: it goes when the last of them is dropped.
    #[error("{name:?} is shared by workers: it goes when the last of them is dropped")]
    Workers {
        /// The stage.
        name: String,
    },
}
