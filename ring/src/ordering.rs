//! The memory orderings of the crate: each is a named site with its partner.
//!
//! No other file of the crate has a literal `Ordering::…`. A site has one strength in production, a constant. Under
//! `--cfg loom` the environment variable `SLIPRING_MUTANT` can weaken a site at run time, everywhere
//! (`PUBLISH=>Relaxed`) or at one place in the source (`PUBLISH@single_producer.rs:87=>Relaxed`), or switch on one of
//! the [faults](crate::fault). loom-tests does so for every place and fault, and requires that a model fails. A place
//! is a line that names a site. Functions that are passed a site, or that use one for their caller, such as
//! [`Bell::ring`](crate::bell::Bell), are `track_caller` in a model: then the place is the line that calls them.
//! `docs/MEMORY_ORDERING.md` gives the reasons.

pub(crate) use crate::sync::Ordering;
use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// A named memory ordering.
// Production uses the strength only; the other fields are for the models and for the check of the documentation.
#[cfg_attr(not(loom), allow(dead_code))]
pub struct Site {
    /// The site's name, as in this file, in the documentation and in mutants.
    pub name: &'static str,
    /// The ordering that production uses.
    pub order: Ordering,
    /// The next weaker orderings, with which a mutant replaces `order`; empty if `order` is relaxed.
    pub weaker: &'static [Ordering],
    /// The names of the sites that this one synchronises with.
    pub partner: &'static str,
}

impl Site {
    /// The ordering to use: `order`, except for a site that a model's mutant weakens.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn get(&self) -> Ordering {
        #[cfg(loom)]
        if let Some(order) = mutant::weakened(self, std::panic::Location::caller()) {
            return order;
        }
        self.order
    }

    /// Issues a fence of this site's ordering. A site that a mutant has weakened to relaxed issues none.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn fence(&self) {
        let order = self.get();
        if order != Relaxed {
            crate::sync::fence(order);
        }
    }
}

/// The ordering of accesses that a fence orders: relaxed. ThreadSanitizer does not understand fences and would report
/// races, so in its run (`--cfg slipring_tsan`) the accesses themselves have the fence's `order`. The models check the
/// fences.
const fn by_fence(order: Ordering) -> Ordering {
    if cfg!(slipring_tsan) { order } else { Relaxed }
}

macro_rules! sites {
    ($($(#[doc = $doc:literal])* $name:ident: $order:expr => [$($weaker:ident),*], $partner:literal;)*) => {
        $($(#[doc = $doc])* pub(crate) const $name: Site =
            Site { name: stringify!($name), order: $order, weaker: &[$($weaker),*], partner: $partner };)*
        /// All sites, for the check of the documentation and for the mutants.
        #[cfg_attr(not(loom), allow(dead_code))]
        pub const SITES: &[&Site] = &[$(&$name),*];
    };
}

sites! {
    /// The single producer moves the published position, after it wrote the events.
    PUBLISH: Release => [Relaxed], "OBSERVE_PUBLISHED";
    /// A consumer reads the single producer's published position before it reads the events.
    OBSERVE_PUBLISHED: Acquire => [Relaxed], "PUBLISH";
    /// A multi producer stamps the first slot of its claim, after it wrote the events and stamped the other slots.
    STAMP: Release => [Relaxed], "STAMP_READ_FENCE, READ_STAMP_IN_TURN";
    /// A fence of a multi producer, after it wrote the events of a claim of several slots and before it stamps the
    /// slots after the first.
    STAMP_FENCE: Release => [Relaxed], "STAMP_READ_FENCE, READ_STAMP_IN_TURN";
    /// A multi producer stamps a slot after the first one of its claim; STAMP_FENCE orders the store.
    STAMP_BEHIND: by_fence(Release) => [], "READ_STAMP";
    /// A consumer, or a thread that computes the published position, reads stamps; STAMP_READ_FENCE orders the loads.
    READ_STAMP: by_fence(Acquire) => [], "STAMP, STAMP_BEHIND";
    /// A fence of a thread that found a published slot by its stamp, before it reads the event or overwrites the slot.
    STAMP_READ_FENCE: Acquire => [Relaxed], "STAMP, STAMP_FENCE";
    /// A thread that cuts claims reads the stamps in the order of sequences: if it sees the stamp of a claim's first
    /// slot, it must see the stamps of the claim's other slots.
    READ_STAMP_IN_TURN: Acquire => [Relaxed], "STAMP";
    /// A stage after others reads a stamp for the skip bit only. It has acquired the event already with the position of
    /// the stage before (FOLLOW).
    READ_SKIP: Relaxed => [], "STAMP";
    /// A multi producer claims sequences. The producer's limit ensures that the slots are free, and STAMP publishes the
    /// events, so the exchange only has to be atomic.
    CLAIM: Relaxed => [], "CLAIM";
    /// The only producer of a multi-producer ring claims sequences by a plain store; CLAIM has the reason for the
    /// ordering.
    CLAIM_ALONE: Relaxed => [], "ONE_PRODUCER";
    /// Any thread reads the next sequence to be claimed.
    READ_CLAIMED: Relaxed => [], "CLAIM, SHOW_CLAIM";
    /// A single producer stores its claimed position, so that closing threads see a claim, or its withdrawal;
    /// CLAIM_FENCE orders the store.
    SHOW_CLAIM: Relaxed => [], "READ_CLAIMED";
    /// A fence of a producer, after its claim is stored and before it checks the closed bit.
    CLAIM_FENCE: SeqCst => [AcqRel], "CLOSE_FENCE";
    /// A fence of the thread that closes the ring, after it stored the phase and the closed bit and before it reads the
    /// claimed and published positions.
    CLOSE_FENCE: SeqCst => [AcqRel], "CLAIM_FENCE, RING_FENCE, HOLD_FENCE, SHARE_FENCE";
    /// A fence of a worker, after it searched for published events and before it checks that the ring is open.
    SHARE_FENCE: SeqCst => [AcqRel], "CLOSE_FENCE";
    /// A stage moves its position, after it read the events.
    CONSUME: Release => [Relaxed], "GATE, FOLLOW";
    /// A thread reads a stage's position to choose the bell at which it waits, to count, or to report: it reads or
    /// writes no slot because of the position.
    LOOK_AT_STAGE: Relaxed => [], "CONSUME";
    /// A producer reads a gate, before it overwrites slots that the gate has passed.
    GATE: Acquire => [Relaxed], "CONSUME";
    /// A stage reads the position of an earlier stage, before it reads the events that the earlier stage has passed.
    FOLLOW: Acquire => [Relaxed], "CONSUME";
    /// A thread that read stamps raises the floor to the first unpublished sequence.
    RAISE_FLOOR: Release => [Relaxed], "READ_FLOOR";
    /// A thread reads the floor: a search for the published position begins there, and a producer may overwrite slots
    /// below.
    READ_FLOOR: Acquire => [Relaxed], "RAISE_FLOOR";
    /// A thread that computed the position of a stage of workers raises the stored position to the result.
    RAISE_WORKERS: Release => [Relaxed], "READ_WORKERS";
    /// A producer or a later stage reads the stored position of a stage of workers, after it raised that position.
    READ_WORKERS: Acquire => [Relaxed], "RAISE_WORKERS, START";
    /// A thread reads a position before it raises the position. It publishes only what it acquired by other loads.
    RAISE_FROM: Relaxed => [], "RAISE_FLOOR, RAISE_WORKERS";
    /// A joining or leaving stage installs the new gating set.
    SWAP_GATES: Release => [Relaxed], "LOAD_GATES";
    /// A thread loads the present gating set.
    LOAD_GATES: Acquire => [Relaxed], "SWAP_GATES";
    /// A thread that installed a new gating set raises the version. A thread that sees the version before the set
    /// starts over.
    SET_VERSION: Relaxed => [], "READ_VERSION";
    /// A producer reads the version before the gates, to see if there is a newer gating set.
    READ_VERSION: Relaxed => [], "SET_VERSION";
    /// A producer reads the version again after the gates; REFRESH_FENCE orders the two loads. A thread that installs a
    /// new set reads the version under the members' lock.
    CHECK_VERSION: Relaxed => [], "SET_VERSION";
    /// A fence of a producer, after it read the gates and before it reads the version again.
    REFRESH_FENCE: SeqCst => [AcqRel], "JOIN_FENCE";
    /// A fence of a joining stage, after it stored the new version and before it reads the other gates.
    JOIN_FENCE: SeqCst => [AcqRel], "REFRESH_FENCE";
    /// A joining stage moves its position from where it was held during the join to its start.
    START: Release => [Relaxed], "GATE";
    /// A joining stage of workers stores the first sequence that its workers take. Such stages join only while the ring
    /// is being built, by one thread.
    START_TAKING: Relaxed => [], "READ_TAKEN";
    /// A fence of a thread that moved a position, before it checks for sleeping threads.
    RING_FENCE: SeqCst => [AcqRel], "ARM_FENCE";
    /// A fence of a thread that registered for a wake-up, before it checks its condition again and sleeps.
    ARM_FENCE: SeqCst => [AcqRel], "RING_FENCE";
    /// A thread registers for a wake-up, or a closing thread sets the closed bit; the fences order the store.
    ARM: Relaxed => [], "ATTENTION";
    /// A thread that moved a position reads if threads are registered for a wake-up and if the ring is closed; the
    /// fences order the load.
    ATTENTION: Relaxed => [], "ARM";
    /// A thread stores the phase of a ring that is finished, closed, halted or failed; CLOSE_FENCE orders the store.
    CLOSE: Relaxed => [], "OBSERVE_CLOSE";
    /// A consumer or producer reads the phase. It reads all else about the end under the lock of the end's record.
    OBSERVE_CLOSE: Relaxed => [], "CLOSE";
    /// A thread that creates or clones a producer raises the count of producers.
    ADD_PRODUCER: Relaxed => [], "DROP_PRODUCER";
    /// A dropped producer lowers the count of producers. The last one finishes the ring after all events that the
    /// others published, which it acquires by CLOSE_FENCE.
    DROP_PRODUCER: Release => [Relaxed], "CLOSE_FENCE, ONE_PRODUCER, LOSSY_GONE";
    /// A producer reads the count of producers, to see if it is the only one.
    READ_PRODUCERS: by_fence(Acquire) => [], "DROP_PRODUCER";
    /// A fence of a producer that has read a count of 1: it must see the claims of the dropped producers.
    ONE_PRODUCER: Acquire => [Relaxed], "DROP_PRODUCER";
    /// A multi producer stores that it is the only one, or that it is cloned. A claim needs `&mut`, so every clone
    /// happens before the next claim.
    ALONE: Relaxed => [], "ALONE";
    /// A stage stores that it holds a batch; HOLD_FENCE orders the store before the check for an eviction.
    HOLD: Relaxed => [], "READ_HOLD";
    /// A stage stores that it holds no batch any more, after it moved its position.
    LET_GO: Release => [Relaxed], "READ_HOLD";
    /// An evicting thread checks if the stage holds a batch.
    READ_HOLD: Acquire => [Relaxed], "LET_GO";
    /// A thread stores that a stage is evicted; EVICT_FENCE orders the store before the check for a held batch.
    EVICT: Relaxed => [], "READ_EVICTED";
    /// A stage checks if it was evicted.
    READ_EVICTED: Relaxed => [], "EVICT";
    /// A fence of a stage, after it stored that it holds a batch, or no batch, and before it checks if it was evicted.
    HOLD_FENCE: SeqCst => [AcqRel], "EVICT_FENCE";
    /// A fence of an evicting thread, after it stored the eviction and before it checks if the stage holds a batch.
    EVICT_FENCE: SeqCst => [AcqRel], "HOLD_FENCE";
    /// A worker announces the first sequence that it is about to take or has not finished, or that it has none.
    ANNOUNCE: Release => [Relaxed], "READ_ANNOUNCED";
    /// A thread that computes the position of a stage of workers reads each worker's announcement.
    READ_ANNOUNCED: Acquire => [Relaxed], "ANNOUNCE";
    /// A worker takes sequences from the shared counter, after it announced the first of them. It has acquired their
    /// events already.
    TAKE: Release => [Relaxed], "READ_TAKEN";
    /// A thread that computes the position of a stage of workers reads the shared counter, before the announcements.
    READ_TAKEN: Acquire => [Relaxed], "TAKE";
    /// A writer or reader accesses the next sequence of a lossy ring, which several writers take from it and a single
    /// writer stores. It orders nothing.
    LOSSY_CLAIM: Relaxed => [], "LOSSY_CLAIM";
    /// The single writer of a lossy ring marks a slot as being written.
    LOSSY_BEGIN: Relaxed => [], "LOSSY_CHECK";
    /// One of several lossy writers reads the stamp of its slot; LOSSY_ENTER acquires the last writer's stores.
    LOSSY_LOOK: Relaxed => [], "LOSSY_STAMP";
    /// One of several lossy writers marks a slot as being written, so that the last writer's stores come before its
    /// own.
    LOSSY_ENTER: Acquire => [Relaxed], "LOSSY_STAMP";
    /// A lossy writer's failed compare-exchange on the stamp of a written slot reads the stamp.
    LOSSY_LEFT: Relaxed => [], "LOSSY_ENTER";
    /// A fence of a lossy writer, after it marked the slot and before it stores the words of the event.
    LOSSY_WRITE_FENCE: Release => [Relaxed], "LOSSY_READ_FENCE";
    /// A writer stores or a reader loads a word of a lossy event; the stamps and fences order the access.
    LOSSY_WORD: Relaxed => [], "LOSSY_WORD";
    /// A lossy writer stamps a slot after it stored the words of the event.
    LOSSY_STAMP: Release => [Relaxed], "LOSSY_OBSERVE";
    /// A lossy reader reads a stamp before the words of the event.
    LOSSY_OBSERVE: Acquire => [Relaxed], "LOSSY_STAMP";
    /// A fence of a lossy reader, after it read the words and before it reads the stamp again.
    LOSSY_READ_FENCE: Acquire => [Relaxed], "LOSSY_WRITE_FENCE";
    /// A lossy reader reads the stamp again after the words; LOSSY_READ_FENCE orders the load.
    LOSSY_CHECK: Relaxed => [], "LOSSY_BEGIN";
    /// A lossy reader that found no event reads that every writer was dropped, and so acquires all that they wrote.
    LOSSY_GONE: Acquire => [Relaxed], "DROP_PRODUCER";
    /// A thread sets the flag that ends a reader's present or next wait; the lock of the reader's waiter orders the
    /// store.
    SET_WOKEN: Relaxed => [], "TAKE_WOKEN";
    /// A waiting reader reads and clears the flag that ends its wait; the lock of its waiter orders the accesses.
    TAKE_WOKEN: Relaxed => [], "SET_WOKEN";
    /// The producer of a shared ring moves the published position, after it wrote the events.
    SHARED_PUBLISH: Release => [Relaxed], "SHARED_OBSERVE";
    /// A consumer of a shared ring reads the published position before it reads the events.
    SHARED_OBSERVE: Acquire => [Relaxed], "SHARED_PUBLISH";
    /// A participant of a shared ring reads the published position to join or to report: it reads or writes no slot
    /// because of the position.
    SHARED_LOOK_AT_PUBLISHED: Relaxed => [], "SHARED_PUBLISH";
    /// A consumer of a shared ring moves its gate, after it read the events.
    SHARED_CONSUME: Release => [Relaxed], "SHARED_GATE";
    /// A producer of a shared ring reads a consumer's gate, before it overwrites the slots that the gate has passed.
    SHARED_GATE: Acquire => [Relaxed], "SHARED_CONSUME, SHARED_PIN";
    /// A participant of a shared ring reads a consumer's gate to join or to report: it reads or writes no slot because
    /// of the gate. The locks order a gate that its owner's successor reads.
    SHARED_LOOK_AT_GATE: Relaxed => [], "SHARED_CONSUME, SHARED_START";
    /// A joining consumer of a shared ring pins its gate. A producer that takes the pin for the gate of the entry's last
    /// owner must see what that owner has read.
    SHARED_PIN: Release => [Relaxed], "SHARED_GATE";
    /// A joining consumer of a shared ring writes into its entry that it joins. A producer that finds this reads the
    /// gate next: it finds the pin, which it acquires, or the lower gate of the entry's last owner.
    SHARED_JOIN: Relaxed => [], "SHARED_READ_ROLE";
    /// A participant of a shared ring writes its final role into its entry: a consumer after SHARED_JOIN_FENCE, and the
    /// only producer, which is the only one that overwrites events.
    SHARED_ROLE: Relaxed => [], "SHARED_READ_ROLE";
    /// A participant of a shared ring frees its entry, or that of somebody dead, after the owner's last read of an
    /// event.
    SHARED_LEAVE: Release => [Relaxed], "SHARED_READ_ROLE";
    /// A producer of a shared ring reads the role in an entry, before it overwrites what the entry's last owner has
    /// read.
    SHARED_READ_ROLE: Acquire => [Relaxed], "SHARED_LEAVE, SHARED_JOIN, SHARED_ROLE";
    /// A participant of a shared ring reads the role in an entry to join, to look for the dead, or to report. The locks
    /// order what it does with the entry.
    SHARED_LOOK_AT_ROLE: Relaxed => [], "SHARED_LEAVE, SHARED_JOIN, SHARED_ROLE";
    /// A joining consumer of a shared ring raises the version, after it wrote its pinned gate and its role.
    SHARED_RAISE_VERSION: Release => [Relaxed], "SHARED_READ_VERSION";
    /// A producer of a shared ring reads the version before the roles and gates.
    SHARED_READ_VERSION: Acquire => [Relaxed], "SHARED_RAISE_VERSION";
    /// A producer of a shared ring reads the version again after the gates; SHARED_REFRESH_FENCE orders the two loads.
    SHARED_CHECK_VERSION: Relaxed => [], "SHARED_RAISE_VERSION";
    /// A fence of a producer of a shared ring, after it read the gates and before it reads the version again.
    SHARED_REFRESH_FENCE: SeqCst => [AcqRel], "SHARED_JOIN_FENCE";
    /// A fence of a joining consumer of a shared ring, after it raised the version and before it reads the other gates.
    SHARED_JOIN_FENCE: SeqCst => [AcqRel], "SHARED_REFRESH_FENCE";
    /// A joining consumer of a shared ring moves its gate from where it was pinned to its start. A producer that reads
    /// the start sees the version that was raised before SHARED_JOIN_FENCE, and has acquired it or starts over.
    SHARED_START: Relaxed => [], "SHARED_GATE";
    /// A fence of a participant of a shared ring, after it moved a position and before it reads the bell's attention
    /// word.
    SHARED_RING_FENCE: SeqCst => [AcqRel], "SHARED_ARM_FENCE, SHARED_CLOSE_FENCE";
    /// A fence of a participant of a shared ring, after it announced that it is about to sleep and before it looks
    /// again.
    SHARED_ARM_FENCE: SeqCst => [AcqRel], "SHARED_RING_FENCE";
    /// A participant of a shared ring sets or clears a bit of a bell's attention word; the fences order the store.
    SHARED_ARM: Relaxed => [], "SHARED_ATTENTION";
    /// A participant of a shared ring reads a bell's attention word; the fences order the load.
    SHARED_ATTENTION: Relaxed => [], "SHARED_ARM";
    /// A participant of a shared ring accesses the count of a bell's wake-ups, which the system compares under its own
    /// lock before it lets a thread sleep.
    SHARED_COUNT_RINGS: Relaxed => [], "SHARED_COUNT_RINGS";
    /// Whoever ends a shared ring stores the phase, which tells why; the open bit tells that it has ended.
    SHARED_CLOSE: Relaxed => [], "SHARED_READ_END";
    /// A fence of a participant of a shared ring, after it cleared the open bit or read that it is cleared, and before
    /// it reads the position that becomes the end.
    SHARED_CLOSE_FENCE: SeqCst => [AcqRel], "SHARED_RING_FENCE";
    /// A participant of a shared ring reads the position that becomes the end; SHARED_CLOSE_FENCE orders the load.
    SHARED_READ_CLAIMED: Relaxed => [], "SHARED_PUBLISH";
    /// A participant of a shared ring settles the end. It is a number only: whoever reads events up to there acquires
    /// them by their own position.
    SHARED_END: Relaxed => [], "SHARED_READ_END";
    /// A participant of a shared ring reads the phase or the end.
    SHARED_READ_END: Relaxed => [], "SHARED_CLOSE, SHARED_END";
    /// A producer of several of a shared ring stores the length that it is about to claim. The lock of the entry orders
    /// it for the heir.
    SHARED_ANNOUNCED_LEN: Relaxed => [], "SHARED_ANNOUNCED_LEN";
    /// A producer of several of a shared ring announces the first sequence that it is about to claim. Whoever finds this
    /// instead of the announcement of its claim before must see the stamps of that claim.
    SHARED_ANNOUNCE: Release => [Relaxed], "SHARED_READ_ANNOUNCED";
    /// A producer of several of a shared ring claims sequences, after it announced them.
    SHARED_CLAIM: Release => [Relaxed], "SHARED_FIND_CLAIMED, SHARED_STAMP_READ_FENCE";
    /// A participant of a shared ring reads the next sequence to be claimed, to guess or to count from there.
    SHARED_LOOK_AT_CLAIMED: Relaxed => [], "SHARED_CLAIM";
    /// A producer of several of a shared ring stamps the first slot of its claim, after it wrote the events and stamped
    /// the other slots; or its heir does.
    SHARED_STAMP: Release => [Relaxed], "SHARED_STAMP_READ_FENCE";
    /// A producer of several of a shared ring stamps a slot after the first one of its claim. Whoever finds it out has
    /// found the first slot out as well, or has read with SHARED_STAMP_READ_FENCE a claimed position (SHARED_CLAIM) of
    /// somebody who had.
    SHARED_STAMP_BEHIND: Relaxed => [], "SHARED_READ_STAMP";
    /// A participant of a shared ring reads stamps; SHARED_STAMP_READ_FENCE orders the loads.
    SHARED_READ_STAMP: by_fence(Acquire) => [], "SHARED_STAMP, SHARED_STAMP_BEHIND";
    /// A fence of a participant of a shared ring that found slots out by their stamps, before it reads their events or
    /// overwrites them.
    SHARED_STAMP_READ_FENCE: Acquire => [Relaxed], "SHARED_STAMP, SHARED_CLAIM";
    /// A producer of several of a shared ring clears its announcement, after it stamped its claim; or its heir does.
    SHARED_WITHDRAW: Release => [Relaxed], "SHARED_READ_ANNOUNCED";
    /// A participant of a shared ring that read stamps raises the published position to the first sequence that is not
    /// out.
    SHARED_RAISE_FLOOR: Release => [Relaxed], "SHARED_READ_FLOOR";
    /// A participant of a shared ring reads the published position: a walk begins there, and a producer may overwrite
    /// slots below.
    SHARED_READ_FLOOR: Acquire => [Relaxed], "SHARED_RAISE_FLOOR";
    /// An heir of a dead producer reads the claimed position, before the announcements: it must see what the owners of
    /// all claims below have announced.
    SHARED_FIND_CLAIMED: Acquire => [Relaxed], "SHARED_CLAIM";
    /// An heir of a dead producer reads the announcements, before it looks at the stamps again: if it finds one cleared
    /// or replaced, it must see the stamps.
    SHARED_READ_ANNOUNCED: Acquire => [Relaxed], "SHARED_ANNOUNCE, SHARED_WITHDRAW";
    /// A participant of a shared ring reads the announcement in an entry whose lock it has, or to report.
    SHARED_LOOK_AT_ANNOUNCED: Relaxed => [], "SHARED_ANNOUNCE, SHARED_WITHDRAW";
    /// A thread accesses a counter or flag that orders nothing.
    COUNT: Relaxed => [], "COUNT";
}

#[cfg(loom)]
pub(crate) mod mutant {
    use super::{Ordering, SITES, Site};
    use crate::fault::{FAULTS, Fault};
    use std::collections::HashSet;
    use std::panic::Location;
    use std::sync::{LazyLock, Mutex, OnceLock};

    enum Mutant {
        /// A weakened site, everywhere (`None`) or at one place (file and line), with its weaker ordering.
        Weakened(&'static str, Option<(String, u32)>, Ordering),
        Fault(Fault),
    }

    fn active() -> Option<&'static Mutant> {
        static ACTIVE: OnceLock<Option<Mutant>> = OnceLock::new();
        ACTIVE.get_or_init(|| std::env::var("SLIPRING_MUTANT").ok().map(|name| find(&name))).as_ref()
    }

    fn find(asked: &str) -> Mutant {
        if let Some(fault) = FAULTS.iter().find(|fault| format!("{fault:?}") == asked) {
            return Mutant::Fault(*fault);
        }
        for site in SITES {
            for order in site.weaker {
                let Some(rest) = asked.strip_prefix(site.name) else { continue };
                let Some(place) = rest.strip_suffix(&format!("=>{order:?}")) else { continue };
                if place.is_empty() {
                    return Mutant::Weakened(site.name, None, *order);
                }
                let parts = place.strip_prefix('@').and_then(|place| place.split_once(':'));
                if let Some((file, line)) = parts.and_then(|(file, line)| Some((file, line.parse().ok()?))) {
                    return Mutant::Weakened(site.name, Some((file.to_owned(), line)), *order);
                }
            }
        }
        panic!("SLIPRING_MUTANT={asked} names no mutant");
    }

    /// The ordering that the active mutant gives `site` at `place`; `None` if the mutant does not change the site
    /// there.
    pub(super) fn weakened(site: &Site, place: &'static Location<'static>) -> Option<Ordering> {
        tell(site, place);
        match active() {
            Some(Mutant::Weakened(name, at, order)) if *name == site.name => {
                let is_here = |(file, line): &(String, u32)| *line == place.line() && path_of(place) == file;
                at.as_ref().is_none_or(is_here).then_some(*order)
            }
            _ => None,
        }
    }

    /// The path of a place's file inside of ring's source folder.
    fn path_of(place: &Location<'static>) -> &'static str {
        place.file().rsplit_once("src/").map_or(place.file(), |(_, path)| path)
    }

    /// If `SLIPRING_PLACES` is set, prints each place of a site that can be weakened, once, when it is executed first.
    fn tell(site: &Site, place: &'static Location<'static>) {
        static TOLD: LazyLock<Option<Mutex<HashSet<(&str, usize)>>>> =
            LazyLock::new(|| std::env::var_os("SLIPRING_PLACES").map(|_| Mutex::default()));
        let Some(told) = TOLD.as_ref().filter(|_| !site.weaker.is_empty()) else { return };
        if told.lock().unwrap().insert((site.name, std::ptr::from_ref(place).addr())) {
            println!("place {}@{}:{}", site.name, path_of(place), place.line());
        }
    }

    pub(crate) fn fault() -> Option<Fault> {
        match active() {
            Some(Mutant::Fault(fault)) => Some(*fault),
            _ => None,
        }
    }
}
