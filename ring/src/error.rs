//! The errors of a ring. Each states what was requested and what to do.

use crate::closing::Closed;
use crate::fence::Refused;
use crate::memory;
use crate::pin::PinError;
use crate::sequence::Sequence;
use crate::text;

/// The reason why a ring could not be built, or a stage could not join it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The system refuses a fence that joining this ring needs, because the ring was built before the refusal (see
    /// [`Refused`]).
    #[error("stage {stage:?} cannot join a ring that was made before: {cause}")]
    Fence {
        /// The stage's name.
        stage: String,
        /// The system's refusal, with the reason.
        cause: Refused,
    },
    /// The capacity is not a power of two, or is above `largest`.
    #[error("a capacity of {asked} is refused: take a power of two from 1 to {largest}")]
    Capacity {
        /// The requested capacity.
        asked: usize,
        /// The largest capacity.
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
    /// The system refuses the memory of the slots, or the thread that constructs large events.
    #[error(
        "the system does not give the {bytes} bytes that this capacity takes: take a smaller one{}",
        memory::limit()
    )]
    Memory {
        /// Size of the slots in bytes.
        bytes: usize,
    },
    /// A stage has no name.
    #[error("a stage needs a name")]
    NoName,
    /// Two stages have one name.
    #[error("there is a stage called {name:?} already: give each its own name")]
    NameTaken {
        /// The name in use.
        name: String,
    },
    /// A stage is ordered after a stage that the ring does not have.
    #[error("stage {stage:?} stands behind {after:?}, which this ring does not have (it has {known:?})")]
    UnknownStage {
        /// The declared stage.
        stage: String,
        /// The stage that it names.
        after: String,
        /// The stages that the ring has.
        known: Vec<String>,
    },
    /// A stage is ordered after a stage of another ring.
    #[error("stage {stage:?} stands behind {after:?} of another ring: stages order only within one ring")]
    ForeignStage {
        /// The declared stage.
        stage: String,
        /// The stage that it is ordered after.
        after: String,
    },
    /// Stages are ordered after one another in a cycle.
    #[error("these stages stand behind one another in a circle: {}", text::line(stages.join(" -> ")))]
    Cycle {
        /// The cycle, with its first stage repeated at the end.
        stages: Vec<String>,
    },
    /// A stage that changes events is not ordered before or after another stage.
    #[error("stage {mutable:?} changes events, but {other:?} may read them at the same time: put one behind the other")]
    UnorderedMutable {
        /// The stage with `&mut` access.
        mutable: String,
        /// The stage that is ordered neither before nor after it.
        other: String,
    },
    /// A stage that changes events is ordered after a [journaler](crate::Stage::journaler).
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
        /// The stage's name.
        stage: String,
    },
    /// The requested start is no longer kept, or beyond the next sequence to be published.
    #[error("stage {stage:?} cannot start at {asked}: the ring keeps {earliest} up to, not including, {latest}")]
    OutOfRange {
        /// The stage's name.
        stage: String,
        /// The requested start.
        asked: Sequence,
        /// The earliest possible start.
        earliest: Sequence,
        /// The next sequence to be published.
        latest: Sequence,
    },
    /// A stage of workers was declared with 0 workers.
    #[error("stage {stage:?} needs at least one worker")]
    NoWorkers {
        /// The stage's name.
        stage: String,
    },
    /// The ring is not open, for this reason.
    #[error(transparent)]
    Closed(#[from] Closed),
    /// The stage's thread could not be pinned to its core.
    #[error("stage {stage:?}: {cause}")]
    Pin {
        /// The stage's name.
        stage: String,
        /// The reason why the core was refused.
        cause: PinError,
    },
    /// The system refused a thread.
    #[error("stage {stage:?} got no thread: {cause}")]
    Thread {
        /// The stage's name.
        stage: String,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The handler of a managed stage panicked while it was constructed.
    #[error("the handler of stage {stage:?} panicked while it was made: {}", text::line(.cause))]
    Handler {
        /// The stage's name.
        stage: String,
        /// The panic's message.
        cause: String,
    },
}

/// The error of a claim, or of a publish, which claims and commits. No event was published.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimError {
    /// The claim has 0 slots.
    #[error("a claim of 0 slots is refused: claim at least 1")]
    Nothing,
    /// The claim has more slots than the ring can ever have free.
    #[error("a claim of {asked} slots never fits a ring that holds {largest}: claim fewer at a time")]
    TooLarge {
        /// The requested count of slots.
        asked: usize,
        /// The largest possible claim: the capacity minus the count of retained events.
        largest: usize,
    },
    /// The ring does not have enough room for the claim now. Only the `try_` methods return this.
    #[error("the ring is full")]
    Full,
    /// The ring did not have enough room for the claim until the deadline.
    #[error("no room until the deadline: {}", held_by(.by))]
    TimedOut {
        /// The stage that held the lowest gate; `None` if the ring waited for another producer's uncommitted claim.
        by: Option<String>,
    },
    /// The ring is not open, for this reason.
    #[error(transparent)]
    Closed(#[from] Closed),
}

fn held_by(stage: &Option<String>) -> String {
    match stage {
        Some(stage) => format!("the stage {stage:?} is the furthest behind"),
        None => "another producer's claim is not committed yet".to_owned(),
    }
}

/// The reason why a consumer did not move to the requested sequence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeekError {
    /// The requested sequence is no longer kept, or beyond the published position.
    #[error("stage {stage:?} cannot move to {asked}: it may be anywhere from {earliest} to {latest}")]
    OutOfRange {
        /// The stage's name.
        stage: String,
        /// The requested sequence.
        asked: Sequence,
        /// The earliest possible sequence.
        earliest: Sequence,
        /// The latest possible sequence.
        latest: Sequence,
    },
    /// Another stage is ordered after this one and may have read the events in between, so this one cannot move
    /// backward.
    #[error("stage {stage:?} cannot go back while {behind:?} stands behind it")]
    StoodBehind {
        /// The stage's name.
        stage: String,
        /// A stage that is ordered after it.
        behind: String,
    },
    /// The system refuses a fence that a backward move needs, because the ring was built before the refusal (see
    /// [`Refused`]).
    #[error("stage {stage:?} cannot go back: {cause}")]
    Fence {
        /// The stage's name.
        stage: String,
        /// The system's refusal, with the reason.
        cause: Refused,
    },
    /// The ring was halted or has failed, or this stage was evicted.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// The error of a value that was not sent, which contains the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct SendError<E> {
    /// The value that was not sent.
    pub value: E,
    /// The reason.
    pub reason: ClaimError,
}

/// The reason why a consumer or worker could not be taken, or a stage could not be evicted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// The ring has no stage of this name.
    #[error("there is no stage called {name:?}")]
    Unknown {
        /// The requested name.
        name: String,
    },
    /// The stage's consumer was taken already, or the stage was declared in another way: managed, for workers, or with
    /// the other kind of access. For a worker: all places are taken, the last worker was dropped, or the stage has no
    /// workers.
    #[error("the consumer of {name:?} is not here to take: it was taken before, or is not polled in this way")]
    NotHere {
        /// The stage's name.
        name: String,
    },
    /// Another stage is ordered after the stage, so the stage cannot be removed.
    #[error("{name:?} cannot go while {behind:?} stands behind it: let that one go first")]
    StoodBehind {
        /// The stage that was to be removed.
        name: String,
        /// A stage that is ordered after it.
        behind: String,
    },
    /// The consumer holds a batch. The stage leaves when that batch ends; while the batch exists, the stage stays.
    #[error("{name:?} holds a batch: it leaves when that ends")]
    InBatch {
        /// The stage's name.
        name: String,
    },
    /// The system refuses a fence that an eviction needs, because the ring was built before the refusal (see
    /// [`Refused`]). The stage leaves when its consumer polls the next time.
    #[error("{name:?} leaves only when its consumer polls: {cause}")]
    Fence {
        /// The stage's name.
        name: String,
        /// The system's refusal, with the reason.
        cause: Refused,
    },
    /// Workers share the stage. It leaves when the last worker is dropped.
    #[error("{name:?} is shared by workers: it goes when the last of them is dropped")]
    Workers {
        /// The stage's name.
        name: String,
    },
}
