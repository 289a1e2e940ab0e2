//! What a ring says of itself: positions while it runs, a report when it ends.

use crate::sequence::{Sequence, Sequences};
use crate::text;
use std::fmt;

/// All positions of a ring at a moment. Each is true at some moment of the reading; none is torn, no lag negative.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Positions {
    /// How many events the ring holds.
    pub capacity: u64,
    /// The earliest event that is kept for whoever joins.
    pub earliest: Sequence,
    /// The next sequence to be published: everything below is, without a hole.
    pub published: Sequence,
    /// The next sequence to be claimed. For a single producer the same as published.
    pub claimed: Sequence,
    /// How many slots hold what some stage has not read, or what is retained.
    pub fill: u64,
    /// How many slots are free to be claimed.
    pub free: u64,
    /// The lowest sequence that is claimed and not published; `None` if no claim is open. If the value is the same in one report
    /// after the other, a producer is stopped between claim and publish, or has leaked its claim.
    pub oldest_unpublished: Option<Sequence>,
    /// Each stage, in the order of joining.
    pub stages: Vec<StagePosition>,
}

/// Where one stage stands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StagePosition {
    /// Its name.
    pub name: String,
    /// The stages that it stands behind.
    pub after: Vec<String>,
    /// Everything below it has let through: the next sequence that it will read, or a lower one while the stages before it
    /// have not passed what it passes over unread.
    pub consumed: Sequence,
    /// How many published events it has not let through.
    pub lag: u64,
    /// How often a producer had to wait because of this stage.
    pub stalls: u64,
    /// Events that its handler failed on and that were passed over, as its policy says.
    pub skipped: u64,
    /// Events that its workers had in hand when they went down.
    pub lost: u64,
}

/// How a stage ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It read everything that was published.
    Drained,
    /// It was halted, or stopped by another stage's failure.
    Stopped(String),
    /// It was evicted, and took no part in the end.
    Evicted,
    /// Its handler failed or panicked.
    Failed(String),
    /// It is polled, and had not read everything. Unless the ring was halted or has failed, it may read on.
    Unread,
    /// It was declared, and nobody ever took it.
    Untaken,
}

/// What became of a ring's stages.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// The next sequence that would have been published.
    pub published: Sequence,
    /// The claims that were not published before the shutdown's limit: their commits are errors, and their slots hold no event.
    pub cut: Vec<Sequences>,
    /// Each stage that took part at the end.
    pub stages: Vec<StageReport>,
}

/// What became of one stage.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StageReport {
    /// Its name.
    pub name: String,
    /// The next sequence that it would have read.
    pub consumed: Sequence,
    /// How many published events it did not read. Slots whose claims were dropped or cut hold none.
    pub left: u64,
    /// Events that its handler failed on and that were passed over, as its policy says.
    pub skipped: u64,
    /// Events that its workers had in hand when they went down.
    pub lost: u64,
    /// How it ended; none if it still runs because its handler has not returned.
    pub ending: Option<Ending>,
    /// Whether its thread still runs, or, if it is polled, somebody holds a batch of it: then some of what is left may have
    /// been read.
    pub running: bool,
}

impl Report {
    /// Whether every stage that took part in the end read everything.
    pub fn is_complete(&self) -> bool {
        let mut stages = self.stages.iter().filter(|stage| stage.ending != Some(Ending::Evicted));
        stages.all(|stage| stage.left == 0 && !stage.running)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "published up to {}", self.published)?;
        for claim in &self.cut {
            write!(f, "\na claim of {} at {} was cut", claim.len, claim.first)?;
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
