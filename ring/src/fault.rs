//! Faults in the ring's logic. A model is run with each of them to show that the model fails.
//!
//! Each fault is one wrong step in the ring's code. Under `--cfg loom` the environment variable `SLIPRING_MUTANT`
//! switches one of them on by its name. loom-tests runs every fault and requires that a model fails. In production
//! [`fault`] is the constant `false`.

macro_rules! faults {
    ($($(#[doc = $doc:literal])* $name:ident;)*) => {
        /// A wrong step in the ring's logic.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Fault { $($(#[doc = $doc])* $name,)* }

        /// All faults, for the mutants.
        #[cfg_attr(not(loom), allow(dead_code))]
        pub const FAULTS: &[Fault] = &[$(Fault::$name),*];
    };
}

faults! {
    /// A sleeper arms its bell and sleeps without looking again.
    SleepWithoutASecondLook;
    /// A sleeper looks again and then sleeps at the bell of the stage that was furthest behind before it armed.
    SleepAtTheBellOfTheLastBefore;
    /// A waiter is armed without looking again.
    ArmedWithoutASecondLook;
    /// A waiter stays armed at the bell of the stage that was furthest behind before it armed.
    ArmedAtTheBellOfTheLastBefore;
    /// A ringing bell wakes no thread.
    NoWake;
    /// A producer's limit is one event more than the capacity allows.
    RoomForOneMoreThanTheCapacity;
    /// A producer reads the claimed position first, and then the count of producers.
    LooksForCompanyAfterTheClaimedPosition;
    /// A producer that is cloned still claims as if it were the only one.
    ClonedProducerStaysAlone;
    /// A consumer moves its gate when a batch begins, not when it has read the batch.
    GateMovedBeforeTheRead;
    /// A dropped claim is stamped as if it had been filled.
    AbortedClaimStampedAsAnEvent;
    /// Consumers ignore the bit of skipped slots.
    SkipBitNotLookedAt;
    /// A newcomer's gate is pinned at the published position.
    NewcomerPinnedAtThePublishedPosition;
    /// A newcomer starts at the requested sequence, kept or not.
    NewcomerStartsWhereItLikes;
    /// A newcomer lets through all sequences before its start, even if the stages before it have not.
    NewcomerLetsThroughWhatItPassesOver;
    /// A consumer that skips sequences gets the end before it has let them through.
    EndToldBeforeAllIsLetThrough;
    /// After a seek back, the consumer still trusts the run of readable events that it found before.
    SeekBackKeepsWhatItKnew;
    /// A consumer that seeks forward lets all skipped sequences through at once.
    SeekForwardLetsThroughWhatItPassesOver;
    /// Workers ignore the bit of skipped slots.
    WorkersIgnoreTheSkipBit;
    /// A consumer that passes skipped slots does not ring its bell.
    SkippedSlotsGivenBackWithoutARing;
    /// A worker that passes skipped slots does not ring its bell.
    WorkerPassesSkippedSlotsWithoutARing;
    /// The position of a stage of workers goes back to a sequence that a worker announced and did not get.
    WorkersPositionGoesBack;
    /// A newcomer is pinned at the lowest gate, which may be above the retained events.
    NewcomerPinnedWithoutTheFloor;
    /// A seek back removes the old gate before it installs the new one.
    SeekBackLetsTheOldGateGoFirst;
    /// The walk for the published position begins at a floor that is laps behind.
    PublishedWalksFromAFloorLapsBehind;
    /// Workers get the end when all events are taken, not when all are finished.
    EndToldWhenAllIsTaken;
    /// A seek back rings the new bell of its stage, but not the old one.
    OldBellNotRungAfterASeekBack;
    /// A ring without stages has no gate.
    NoFloor;
    /// A producer that refreshes its limit does not read the version of the gating set again.
    NoSecondLookAtTheVersion;
    /// A gating set is freed as soon as it is replaced.
    ReplacedGatingSetFreedAtOnce;
    /// A stage's gate is removed while its consumer holds a batch.
    EvictedInABatch;
    /// A worker takes events before it announces them.
    WorkerTakesBeforeItAnnounces;
    /// A worker that withdraws an announcement, because another worker took the events, does not ring the stage's bell.
    AnnouncementInVainWakesNobody;
    /// An orphan's announcement moves to its adopter's place.
    AdoptedAnnouncementMoves;
    /// A consumer that ends a batch does not check for its eviction.
    NoLookForAnEvictionAfterTheBatch;
    /// The position of a stage of workers is computed from announcements that were read before the counter.
    WorkersReadBeforeTheCounter;
    /// A seek back reads the other gates without a fence.
    SeekBackIssuesNoFence;
    /// A seek back moves to the requested sequence, kept or not.
    SeekBackGoesWhereItLikes;
    /// The consumer of an evicted stage is not woken.
    EvictionWakesNobody;
    /// The end of the ring wakes no thread.
    CloseWakesNobody;
    /// A consumer that finds no event in a closed ring gets the end, even if it has not reached the end.
    ToldTheEndTooEarly;
    /// A single producer does not show its claims.
    SingleProducerShowsNoClaim;
    /// A producer does not check for the ring's end after its claim.
    NoLookForTheEndBehindAClaim;
    /// A producer does not check for the ring's end after its publish.
    NoLookForTheEndBehindAPublish;
    /// The closing thread reads the claimed position before it stores the phase.
    EndReadBeforeTheRingIsClosed;
    /// A single producer's claim that is dropped after the close is not recorded as a gap.
    WithdrawnClaimLeavesNoGap;
    /// A producer claims slots that are free only because stages have left a closed ring.
    WithdrawnClaimStampsOverTheUnread;
    /// The commit of a cut claim returns `Ok`.
    CutClaimIsCommitted;
    /// Cut claims are not recorded as gaps.
    CutLeavesNoGap;
    /// A cut wakes no thread.
    CutWakesNobody;
    /// A cut leaves out those slots of a claim that are stamped before its first slot.
    CutTakesUnstampedSlotsOnly;
    /// A claim of several slots is stamped from its first slot to its last.
    ClaimStampedFromItsFirstSlot;
    /// A consumer checks that the ring is open before the fence that follows its look at the published events.
    StageLooksForTheEndTooEarly;
    /// A worker checks that the ring is open before it looks at the published events.
    WorkerLooksForTheEndTooEarly;
    /// A worker gets the slots of a gap as events.
    WorkerTakesAGapForEvents;
    /// A worker never moves past a gap.
    WorkerStopsAtAGap;
    /// The initial stamp of a slot is the stamp of the first lap.
    FirstLapCountsAsPublished;
    /// A lossy reader does not check the stamp after the copy.
    LossyStampNotLookedAtAgain;
    /// A lossy writer enters a slot that another writer is writing.
    LossyWriterEntersASlotInWriting;
}

/// True if the model runs with this fault. Always false in production.
#[inline(always)]
pub(crate) fn fault(_fault: Fault) -> bool {
    #[cfg(loom)]
    return crate::ordering::mutant::fault() == Some(_fault);
    #[cfg(not(loom))]
    false
}
