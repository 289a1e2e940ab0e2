//! Faults of logic that a model can be run with, to see that the model fails.
//!
//! Each is one wrong step of ring's code. Under `--cfg loom` the environment variable `SLIPRING_MUTANT` turns one of them
//! on by its name; loom-tests does so for every one of them and requires that a model fails. In production
//! [`fault`] is the constant `false`.

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $name:ident;)*) => {
        /// One wrong step.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault { $($(#[doc = $doc])* $name,)* }

        /// All of them, for the mutants.
        #[cfg_attr(not(loom), allow(dead_code))]
        pub const FAULTS: &[Fault] = &[$(Fault::$name),*];
    };
}

faults! {
    /// A sleeper arms its bell and sleeps without looking again.
    SleepWithoutASecondLook;
    /// A sleeper that looked again sleeps at the bell of the one that was furthest behind before it armed.
    SleepAtTheBellOfTheLastBefore;
    /// A waiter is armed without looking again.
    ArmedWithoutASecondLook;
    /// A waiter stays armed at the bell of the one that was furthest behind before.
    ArmedAtTheBellOfTheLastBefore;
    /// A bell that rings wakes nobody.
    NoWake;
    /// A producer has room for one event more than the capacity.
    RoomForOneMoreThanTheCapacity;
    /// A producer reads the claimed position first, and then whether it is the only producer.
    LooksForCompanyAfterTheClaimedPosition;
    /// A producer that is cloned goes on as the only one.
    ClonedProducerStaysAlone;
    /// A consumer moves its gate when it takes a batch, not when it has read it.
    GateMovedBeforeTheRead;
    /// A claim that is dropped is stamped as if it had been filled.
    AbortedClaimStampedAsAnEvent;
    /// Nobody looks at the bit that says that a slot is skipped.
    SkipBitNotLookedAt;
    /// A newcomer's gate is pinned at the published position.
    NewcomerPinnedAtThePublishedPosition;
    /// A newcomer starts where it asked, kept or not.
    NewcomerStartsWhereItLikes;
    /// A newcomer lets through all that lies before where it starts, whether those before it have or not.
    NewcomerLetsThroughWhatItPassesOver;
    /// A consumer that passes something over is told the end before it has let that through.
    EndToldBeforeAllIsLetThrough;
    /// A seek back keeps what the consumer knew of what may be read.
    SeekBackKeepsWhatItKnew;
    /// A consumer that seeks forward lets all that it passes over through at once.
    SeekForwardLetsThroughWhatItPassesOver;
    /// Workers do not look at the bit that says that a slot is skipped.
    WorkersIgnoreTheSkipBit;
    /// Skipped slots that a consumer passes wake nobody who waits for them.
    SkippedSlotsGivenBackWithoutARing;
    /// Skipped slots that a worker passes wake nobody who waits for them.
    WorkerPassesSkippedSlotsWithoutARing;
    /// Where workers stand goes back to what one of them announced in vain.
    WorkersPositionGoesBack;
    /// A newcomer is pinned at the lowest gate, which may lie above what is retained.
    NewcomerPinnedWithoutTheFloor;
    /// A seek back takes the old gate away before it shows the new one.
    SeekBackLetsTheOldGateGoFirst;
    /// Whoever looks for what is published walks on from a floor that lies laps behind.
    PublishedWalksFromAFloorLapsBehind;
    /// Workers are told the end when everything is taken, not when it is done.
    EndToldWhenAllIsTaken;
    /// A seek back wakes those who sleep at the new bell of its stage, but not those at the old one.
    OldBellNotRungAfterASeekBack;
    /// A ring without stages has no gate at all.
    NoFloor;
    /// A producer that refreshes its limit does not look at the version of the gating set again.
    NoSecondLookAtTheVersion;
    /// A gating set is freed as soon as it is replaced.
    ReplacedGatingSetFreedAtOnce;
    /// A stage's gate is taken away though its consumer holds a batch.
    EvictedInABatch;
    /// A worker takes events before it announces them.
    WorkerTakesBeforeItAnnounces;
    /// A worker that announced what another one took wakes nobody when it withdraws.
    AnnouncementInVainWakesNobody;
    /// What a worker left behind is announced at its adopter's place, not where it was.
    AdoptedAnnouncementMoves;
    /// A consumer that ends a batch does not look whether it was evicted.
    NoLookForAnEvictionAfterTheBatch;
    /// Whoever computes where workers stand reads their announcements before the counter.
    WorkersReadBeforeTheCounter;
    /// A seek back reads the other gates without a fence.
    SeekBackIssuesNoFence;
    /// A seek back goes where it asked, kept or not.
    SeekBackGoesWhereItLikes;
    /// The consumer of an evicted stage is not woken.
    EvictionWakesNobody;
    /// The end of the ring wakes nobody.
    CloseWakesNobody;
    /// A consumer that finds nothing in a closed ring is told the end, wherever that is.
    ToldTheEndTooEarly;
    /// A single producer does not show what it claims.
    SingleProducerShowsNoClaim;
    /// A producer does not look for the ring's end behind its claim.
    NoLookForTheEndBehindAClaim;
    /// A producer does not look for the ring's end behind its publish.
    NoLookForTheEndBehindAPublish;
    /// Whoever closes the ring reads what is claimed before it says that the ring is closed.
    EndReadBeforeTheRingIsClosed;
    /// A single producer's claim that is dropped after the close is recorded as no gap.
    WithdrawnClaimLeavesNoGap;
    /// A producer takes room that is there because stages have left a closed ring.
    WithdrawnClaimStampsOverTheUnread;
    /// The commit of a claim that was cut is told that it was published.
    CutClaimIsCommitted;
    /// Claims that are cut are recorded as no gaps.
    CutLeavesNoGap;
    /// A cut wakes nobody.
    CutWakesNobody;
    /// A cut leaves out the slots of a claim that are stamped before its first one.
    CutTakesUnstampedSlotsOnly;
    /// A claim of several slots is stamped from its first slot on.
    ClaimStampedFromItsFirstSlot;
    /// A consumer looks whether the ring is open before the fence behind its look at what is published.
    StageLooksForTheEndTooEarly;
    /// A worker looks whether the ring is open before it looks at what is published.
    WorkerLooksForTheEndTooEarly;
    /// A worker is given the slots of a gap.
    WorkerTakesAGapForEvents;
    /// A worker takes nothing of a gap, and so nothing behind it.
    WorkerStopsAtAGap;
    /// A slot's first stamp is that of the first lap.
    FirstLapCountsAsPublished;
    /// A lossy reader does not look at the stamp again.
    LossyStampNotLookedAtAgain;
    /// A lossy writer enters a slot that another one is writing.
    LossyWriterEntersASlotInWriting;
}

/// Whether the model runs with this fault. Never in production.
#[inline(always)]
pub(crate) fn fault(_fault: Fault) -> bool {
    #[cfg(loom)]
    return crate::ordering::mutant::fault() == Some(_fault);
    #[cfg(not(loom))]
    false
}
