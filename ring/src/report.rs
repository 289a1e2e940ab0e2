//! Reports of a ring: its positions while it runs, and the result of each stage at the end.

use crate::fence::Refused;
use crate::sequence::{Sequence, Sequences};
use crate::text;
use std::fmt;

/// All positions of a ring. They are not read at one moment: each value was true at some moment during the call. No lag
/// is negative.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Positions {
    /// Count of slots.
    pub capacity: u64,
    /// The earliest kept event: the lowest sequence at which a stage that joins can start.
    pub earliest: Sequence,
    /// The next sequence to be published: all events below it can be read.
    pub published: Sequence,
    /// The next sequence to be claimed. For a single producer it equals `published`.
    pub claimed: Sequence,
    /// Count of slots in use, because they are claimed, or their event is unread by a stage or retained.
    pub fill: u64,
    /// Count of slots that can be claimed now.
    pub free: u64,
    /// The lowest sequence that is claimed but not published; `None` if no claim is uncommitted, and always for a
    /// single producer. If the value does not change between reports, a producer is stopped between claim and publish,
    /// or has leaked its claim.
    pub oldest_unpublished: Option<Sequence>,
    /// The stages in the order in which they joined.
    pub stages: Vec<StagePosition>,
}

/// The position of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StagePosition {
    /// The stage's name.
    pub name: String,
    /// The names of the stages that this stage is ordered after; empty if it follows the producers.
    pub after: Vec<String>,
    /// The position that the stage publishes. It is the next sequence that the stage will read, or lower while the
    /// stages before it have not passed sequences that this stage skips.
    pub consumed: Sequence,
    /// Count of published sequences that the stage has not passed.
    pub lag: u64,
    /// Count of claims that had to wait for room while this stage was the slowest.
    pub stalls: u64,
    /// Count of events on which the stage's handler failed, and which were skipped under its
    /// [`OnError`](crate::OnError).
    pub skipped: u64,
    /// Count of events whose worker panicked while it handled the event.
    pub lost: u64,
}

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// The stage has read all published events.
    Drained,
    /// The stage was halted, or stopped by another stage's failure. The text states the reason.
    Stopped(String),
    /// The stage was evicted before the ring ended.
    Evicted,
    /// The stage's handler failed or panicked. The text states the cause.
    Failed(String),
    /// The stage is polled and has unread events. Its consumer may still read them, unless the ring was halted or has
    /// failed.
    Unread,
    /// The stage's consumer was never taken, and the stage has not reached the ring's end.
    Untaken,
}

/// The result of a ring's shutdown, by stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The next sequence that would have been published: all events below it were published.
    pub published: Sequence,
    /// The claims that were cut, because they were not committed before the ring was halted or the time limit passed.
    /// Their commits return errors, and their slots hold no events.
    pub cut: Vec<Sequences>,
    /// The refusal of the barrier that orders the end of the ring against its producers, see [`Refused`]; `None`
    /// ordinarily. With it, an event whose publish overlapped the end may be unread and not counted, although its
    /// commit returned `Ok`.
    pub unfenced: Option<Refused>,
    /// The stages that the ring had at its end, except evicted ones, and except polled ones whose consumers were dropped
    /// before the ring was halted or failed.
    pub stages: Vec<StageReport>,
}

/// The result of a stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageReport {
    /// The stage's name.
    pub name: String,
    /// The next sequence that the stage would have read.
    pub consumed: Sequence,
    /// Count of published events that the stage did not read. Slots whose claims were dropped or cut are not counted.
    pub left: u64,
    /// Count of events on which the stage's handler failed, and which were skipped under its
    /// [`OnError`](crate::OnError).
    pub skipped: u64,
    /// Count of events whose worker panicked while it handled the event.
    pub lost: u64,
    /// How the stage ended; `None` if it still runs because its handler has not returned.
    pub ending: Option<Ending>,
    /// True if the stage's thread still runs, or if the stage is polled and its consumer holds a batch. Then some of
    /// the events counted in `left` may have been read.
    pub running: bool,
}

impl Report {
    /// True if every stage that was not evicted has read all events and has stopped, and the end had its barrier.
    pub fn is_complete(&self) -> bool {
        let mut stages = self.stages.iter().filter(|stage| stage.ending != Some(Ending::Evicted));
        self.unfenced.is_none() && stages.all(|stage| stage.left == 0 && !stage.running)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "published up to {}", self.published)?;
        for claim in &self.cut {
            write!(f, "\na claim of {} at {} was cut", claim.len, claim.first)?;
        }
        if let Some(refused) = &self.unfenced {
            write!(f, "\nan event that was published while the ring ended may be missing: {refused}")?;
        }
        for stage in &self.stages {
            write!(f, "\n{}: consumed up to {}, {} left", text::line(&stage.name), stage.consumed, stage.left)?;
            for (count, what) in [(stage.skipped, "skipped"), (stage.lost, "lost")] {
                if count > 0 {
                    write!(f, ", {count} {what}")?;
                }
            }
            match &stage.ending {
                Some(Ending::Unread) if stage.running => write!(f, ", polled, holds a batch")?,
                _ if stage.running => write!(f, ", still in its handler")?,
                Some(Ending::Stopped(why)) => write!(f, ", stopped: {}", text::line(why))?,
                Some(Ending::Failed(why)) => write!(f, ", failed: {}", text::line(why))?,
                Some(Ending::Evicted) => write!(f, ", evicted")?,
                Some(Ending::Unread) => write!(f, ", polled, not read to the end")?,
                Some(Ending::Untaken) => write!(f, ", polled by nobody")?,
                Some(Ending::Drained) | None => {}
            }
        }
        Ok(())
    }
}
