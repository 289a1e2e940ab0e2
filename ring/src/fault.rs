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
    /// A waiting thread registers for a wake-up and sleeps without checking again. The correct code checks once more
    /// after it has registered, because the event or the room may have come before the registration was visible.
    SleepWithoutASecondLook;
    /// A waiting thread does not check, after registering for wake-ups, whether another stage has become the slowest.
    /// It then sleeps until the old one moves, which may never happen. The correct code registers again with the stage
    /// that is slowest now.
    SleepAtTheBellOfTheLastBefore;
    /// A caller's waiter is registered for a wake-up without a check afterwards. The correct code checks once more
    /// after it has registered, as a sleeping thread does.
    ArmedWithoutASecondLook;
    /// A caller's waiter stays registered with the stage that was slowest before the registration. The correct code
    /// registers it again if another stage is the slowest now.
    ArmedAtTheBellOfTheLastBefore;
    /// A thread that moves a position wakes none of the threads that are registered for it. The correct code wakes them
    /// all.
    NoWake;
    /// A producer may write up to the lowest gate plus the capacity plus one, so it overwrites an event that is being
    /// read. The correct limit is the lowest gate plus the capacity.
    RoomForOneMoreThanTheCapacity;
    /// A multi producer reads the claimed position first and the count of producers second, so it may claim again what
    /// a producer claimed that was dropped in between. The correct code reads the count first.
    LooksForCompanyAfterTheClaimedPosition;
    /// A producer that is cloned still claims by a plain store, as the only producer may. The correct clone makes both
    /// claim by compare-and-swap.
    ClonedProducerStaysAlone;
    /// A consumer moves its gate past a batch when the batch begins. The correct code moves it past the events that
    /// were read.
    GateMovedBeforeTheRead;
    /// The slots of a multi producer's dropped claim are stamped as events. The correct stamps have the skip bit.
    AbortedClaimStampedAsAnEvent;
    /// Consumers ignore the skip bit of stamps, and read the slots of dropped claims as events. The correct code passes
    /// these slots.
    SkipBitNotLookedAt;
    /// While a stage joins, its gate is held at the published position, so producers may overwrite its first event. The
    /// correct code holds it at or below the lowest gate and the floor.
    NewcomerPinnedAtThePublishedPosition;
    /// A joining stage starts at the requested sequence, even if that is no longer kept or not published yet. The
    /// correct code returns an error then.
    NewcomerStartsWhereItLikes;
    /// A joining stage publishes its start as its position, even if the stages before it have not passed the start. The
    /// correct code publishes the lower of both.
    NewcomerLetsThroughWhatItPassesOver;
    /// A consumer that skipped sequences gets `Closed` although the stages before it have not passed these yet. The
    /// correct code returns it only when the stage's published position has reached the consumer's.
    EndToldBeforeAllIsLetThrough;
    /// After a backward seek, a consumer takes all sequences up to the last one that it had found readable for events.
    /// The correct code reads their stamps again, because skipped slots may be among them.
    SeekBackKeepsWhatItKnew;
    /// A consumer that seeks forward publishes its new position at once. The correct code publishes no more than the
    /// lowest position of the stages before it.
    SeekForwardLetsThroughWhatItPassesOver;
    /// Workers ignore the skip bit of stamps, and take the slots of dropped claims as events. The correct code passes
    /// these slots.
    WorkersIgnoreTheSkipBit;
    /// A consumer that passes skipped slots moves its position without waking anybody. The correct code wakes the
    /// threads that wait for the position.
    SkippedSlotsGivenBackWithoutARing;
    /// A worker that passes skipped slots wakes no thread. The correct code wakes the threads that wait for the stage's
    /// position.
    WorkerPassesSkippedSlotsWithoutARing;
    /// The position of a stage of workers falls to a sequence that a worker announced and then did not get. The correct
    /// code keeps the highest position that any thread computed.
    WorkersPositionGoesBack;
    /// While a stage joins, its gate is held at the lowest other gate, which may be above the retained events at which
    /// the stage may start. The correct code holds it at the lower of that gate and the floor.
    NewcomerPinnedWithoutTheFloor;
    /// A backward seek removes the old gate before it installs the new one, so no gate protects the events in between.
    /// The correct code replaces the gate in one step.
    SeekBackLetsTheOldGateGoFirst;
    /// The search for the published position begins at the floor, which may be laps behind, and there takes stamps of
    /// later laps for published events. The correct code begins no lower than the claimed position less the capacity.
    PublishedWalksFromAFloorLapsBehind;
    /// A worker gets the end as an error when all events are taken. The correct code returns the end when all are
    /// finished, because a dropped worker leaves its unfinished events to the others.
    EndToldWhenAllIsTaken;
    /// A backward seek wakes the threads that wait for the stage's new gate, but not those that wait for the old one.
    /// The correct code wakes both.
    OldBellNotRungAfterASeekBack;
    /// A ring without stages has no gate, so producers overwrite retained events and slots that another producer is
    /// still writing. The correct code always counts the floor as a gate.
    NoFloor;
    /// A producer that computes its limit from the gates does not read the version of the gating set again, and may
    /// miss a stage that joins. The correct code reads the version again and starts over if it has changed.
    NoSecondLookAtTheVersion;
    /// A gating set is freed as soon as it is replaced. The correct code frees it when no thread can be reading it any
    /// more.
    ReplacedGatingSetFreedAtOnce;
    /// An eviction removes a stage's gate while its consumer holds a batch. The correct code leaves the removal to the
    /// consumer, when the batch ends.
    EvictedInABatch;
    /// A worker takes events from the shared counter before it announces them, so the stage's position may pass them
    /// unfinished. The correct code announces first.
    WorkerTakesBeforeItAnnounces;
    /// A worker announces events, another worker takes them first, and the withdrawn announcement wakes no thread. The
    /// correct code wakes the threads that wait for the stage's position, because the announcement may have lowered it.
    AnnouncementInVainWakesNobody;
    /// A worker that adopts a dropped worker's events announces them at its own place and clears the old place; a
    /// thread that reads all places meanwhile may miss both. The correct code makes the worker move to the old place.
    AdoptedAnnouncementMoves;
    /// A consumer that ends a batch does not check whether its stage was evicted meanwhile. The correct code checks,
    /// and then removes the stage's gate.
    NoLookForAnEvictionAfterTheBatch;
    /// The position of a stage of workers is computed from announcements that were read before the shared counter. The
    /// correct code reads the counter first.
    WorkersReadBeforeTheCounter;
    /// A backward seek issues no fence (JOIN_FENCE) between installing its gate and reading the other gates. The
    /// correct code issues it, because a producer may otherwise miss the gate.
    SeekBackIssuesNoFence;
    /// A backward seek moves to the requested sequence, even if that is no longer kept. The correct code returns an
    /// error then.
    SeekBackGoesWhereItLikes;
    /// An eviction does not wake the evicted consumer, which may sleep for ever. The correct code wakes it.
    EvictionWakesNobody;
    /// A ring that is closed, halted or failed, or whose last producer is dropped, wakes no waiting thread. The correct
    /// code wakes all of them.
    CloseWakesNobody;
    /// A consumer that finds no event in a closed ring gets the end as an error, even if it has not reached the
    /// recorded end. The correct code lets it wait for claims that may still be committed.
    ToldTheEndTooEarly;
    /// A single producer does not store its claimed position, so a thread that closes the ring misses the claim. The
    /// correct code stores it before it checks that the ring is open.
    SingleProducerShowsNoClaim;
    /// A producer does not check after its claim that the ring is still open, so the claim may lie beyond the recorded
    /// end. The correct code withdraws such a claim.
    NoLookForTheEndBehindAClaim;
    /// A producer does not check after its publish that the ring is still open, so a commit returns `Ok` for a claim
    /// that was cut. The correct code returns an error.
    NoLookForTheEndBehindAPublish;
    /// A thread that closes the ring reads the claimed position, which becomes the recorded end, before it stores the
    /// phase. The correct code reads it afterwards, so that no later claim is accepted beyond the end.
    EndReadBeforeTheRingIsClosed;
    /// A single producer's claim that is dropped after the ring was closed is not recorded as a gap, so stages wait for
    /// it for ever. The correct code records it.
    WithdrawnClaimLeavesNoGap;
    /// A producer claims slots that are free only because stages have left a closed ring; the claim is withdrawn, and
    /// its stamps replace those of unread events. The correct code does not raise the limit once the ring is closed.
    WithdrawnClaimStampsOverTheUnread;
    /// The commit of a cut claim returns `Ok`, although no stage reads its events. The correct code returns an error.
    CutClaimIsCommitted;
    /// Cut claims are not recorded as gaps, so stages wait for them. The correct code records them, and stages pass
    /// them.
    CutLeavesNoGap;
    /// A cut wakes no thread, so stages sleep although events after the cut claims can be read. The correct code wakes
    /// all waiting threads.
    CutWakesNobody;
    /// A cut takes only the unstamped slots of a claim whose first slot is not stamped yet. The correct code takes all
    /// its slots.
    CutTakesUnstampedSlotsOnly;
    /// A claim of several slots is stamped from its first slot to its last, so a cut in between divides it. The correct
    /// order is from the last slot to the first.
    ClaimStampedFromItsFirstSlot;
    /// A consumer checks that the ring is open before the fence (HOLD_FENCE) that follows its search for events, so it
    /// may read an event that a cut has missed. The correct code checks after the fence.
    StageLooksForTheEndTooEarly;
    /// A worker checks that the ring is open before it searches for published events, so it may take an event that a
    /// cut has missed. The correct code checks after the search and SHARE_FENCE.
    WorkerLooksForTheEndTooEarly;
    /// A worker receives the slots of a gap as events. The correct code passes the gap.
    WorkerTakesAGapForEvents;
    /// A worker never moves past a gap in a closed ring. The correct code passes it.
    WorkerStopsAtAGap;
    /// A wake-up from outside wakes the waiter before it sets the flag, so the reader may check the flag too early and
    /// sleep again. The correct code sets the flag first.
    WakeupBeforeItsFlag;
    /// A stage that is the last one to leave does not wake the threads that wait until no stage reads the ring. The
    /// correct code wakes them.
    LastToLeaveWakesNobody;
    /// A slot's initial stamp equals the stamp of its first event, so the slot counts as published before it is
    /// written. The correct initial stamp is one lap lower.
    FirstLapCountsAsPublished;
    /// A lossy reader does not check the stamp after the copy, so it may return a torn event. The correct code checks,
    /// and then discards an event that was overwritten.
    LossyStampNotLookedAtAgain;
    /// A lossy writer writes into a slot that another writer is still writing. The correct code drops the event
    /// instead.
    LossyWriterEntersASlotInWriting;
    /// A participant of a shared ring that moves a position wakes none of the sleepers. The correct code wakes them all.
    SharedWakeWakesNobody;
    /// A participant of a shared ring sleeps without looking again after it has announced that. The correct code looks
    /// once more.
    SharedSleepWithoutASecondLook;
    /// A joining consumer of a shared ring is not pinned until it has found its start. The correct code pins its gate at
    /// what is kept.
    SharedNewcomerIsNotPinned;
    /// A producer of a shared ring does not read the version again after the gates, and may miss a consumer that joins.
    /// The correct code starts over if the version has changed.
    SharedNoSecondLookAtTheVersion;
    /// A consumer of a shared ring moves its gate past a batch when the batch begins. The correct code moves it past
    /// what was iterated, when the batch ends.
    SharedGateMovedBeforeTheRead;
    /// The entry of a consumer of a shared ring is freed although its process lives. The correct code frees the entries
    /// of the dead only, as their locks tell.
    SharedLivingTakenForDead;
    /// Whoever closes a shared ring settles the end before it clears the open bit, so a publish in between is
    /// acknowledged and lies beyond the end. The correct code settles it afterwards.
    SharedEndSettledBeforeTheClose;
    /// A producer of several of a shared ring claims without announcing it, so nobody finds the owner of the claim. The
    /// correct code announces first.
    SharedClaimIsNotAnnounced;
    /// A claim of several slots of a shared ring is stamped from its first slot to its last, so a death in between
    /// divides it. The correct order is from the last slot to the first.
    SharedClaimStampedFromItsFirstSlot;
    /// A producer of several of a shared ring clears its announcement before it stamps its claim, so an heir takes the
    /// claim for one without an owner, or for somebody else's. The correct code clears it afterwards.
    SharedWithdrawnBeforeTheStamp;
    /// A claim of a shared ring that is dropped is stamped as events. The correct stamps have the skip bit.
    SharedDroppedClaimStampedAsAnEvent;
    /// A walk over the stamps of a shared ring begins at a published position that is laps behind, and there takes stamps
    /// of later laps for what is out. The correct code begins no lower than the claimed position less the capacity.
    SharedWalksFromAFloorLapsBehind;
    /// A consumer of a shared ring that passes skipped slots keeps its gate. The correct code moves it, since a producer
    /// may wait for the room.
    SharedSkippedSlotsKeepTheGate;
    /// An heir of a dead producer reads the claimed position after the announcements, and may miss what the owner of a
    /// claim has announced. The correct code reads it before them.
    SharedHeirLooksAtTheClaimedPositionLast;
    /// An heir of a dead producer looks at the stamp before the announcements only, and may miss that the owner has
    /// stamped and cleared in between. The correct code looks at the stamp after them.
    SharedHeirLooksAtTheSlotFirst;
    /// An heir skips a claim although only one of those who may own it is dead. The correct code requires the locks of
    /// all.
    SharedHeirIsContentWithOneDead;
    /// An heir takes the longest of the announced lengths. The correct code takes the shortest one behind which a claim
    /// begins.
    SharedHeirTakesTheLongest;
    /// An heir that skips a claim wakes nobody. The correct code wakes those who sleep behind the claim.
    SharedHeirWakesNobody;
    /// The entry of a dead producer is freed although its claim is not out, so that no heir finds it. The correct code
    /// keeps the entry until the claim is settled.
    SharedEntryFreedBeforeItsClaimIsSettled;
    /// A participant of a shared ring sleeps at the bell that was the right one before it announced that it sleeps. The
    /// correct code starts over if it has to wait for something else by then.
    SharedSleepAtTheBellOfTheLastBefore;
    /// The limit of a producer of several of a shared ring without consumers is not bounded by what is out, so it
    /// overtakes another one that still writes. The correct code counts the floor as a gate.
    SharedNoFloor;
}

/// True if the model runs with this fault. Always false in production.
#[inline(always)]
pub(crate) fn fault(_fault: Fault) -> bool {
    #[cfg(loom)]
    return crate::ordering::mutant::fault() == Some(_fault);
    #[cfg(not(loom))]
    false
}
