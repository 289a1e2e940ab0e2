//! Every memory ordering of the crate, as a named site with its partner.
//!
//! No other file of the crate has a literal `Ordering::…`. A site has one strength in production, a constant. Under
//! `--cfg loom` the environment variable `SLIPRING_MUTANT` can weaken a site at run time, everywhere
//! (`PUBLISH=>Relaxed`) or at one place in the source (`PUBLISH@single_producer.rs:87=>Relaxed`), or switch on one of
//! the [faults](crate::fault). loom-tests does so for every place and fault, and requires that a model fails. A place
//! is a line that names a site. Helpers that are passed a site, and helpers that do one step with it, such as ringing a
//! bell, are `track_caller` in a model: then the place is the line that calls them. `docs/MEMORY_ORDERING.md` gives the
//! reasons.

pub(crate) use crate::sync::Ordering;
use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// A named memory ordering.
// Production uses the strength only; the other fields are for the models and for the check of the documentation.
#[cfg_attr(not(loom), allow(dead_code))]
pub struct Site {
    /// The name, as in this file, in the documentation and in mutants.
    pub name: &'static str,
    /// The strength in production.
    pub order: Ordering,
    /// The next weaker orderings; empty if the site is relaxed.
    pub weaker: &'static [Ordering],
    /// The names of the sites that this one synchronises with.
    pub partner: &'static str,
}

impl Site {
    /// The ordering to use: a constant, except for the site that a model's mutant weakens.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn get(&self) -> Ordering {
        #[cfg(loom)]
        if let Some(order) = mutant::weakened(self, std::panic::Location::caller()) {
            return order;
        }
        self.order
    }

    /// Issues a fence of this site's strength. A site weakened to relaxed issues none.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn fence(&self) {
        let order = self.get();
        if order != Relaxed {
            crate::sync::fence(order);
        }
    }
}

/// Relaxed: a fence orders these accesses. ThreadSanitizer does not understand fences and would report races, so in its run
/// (`--cfg slipring_tsan`) the accesses themselves have the fence's `order`. The models check the fences.
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
    /// The single producer moves its published position, after it wrote the events.
    PUBLISH: Release => [Relaxed], "OBSERVE_PUBLISHED";
    /// A consumer reads the single producer's published position before it reads the events.
    OBSERVE_PUBLISHED: Acquire => [Relaxed], "PUBLISH";
    /// A multi producer stamps the first slot of its claim, after it wrote the events and stamped the other slots.
    STAMP: Release => [Relaxed], "STAMP_READ_FENCE, READ_STAMP_IN_TURN";
    /// A multi producer, between writing the events of a claim of several slots and stamping all slots but the first.
    STAMP_FENCE: Release => [Relaxed], "STAMP_READ_FENCE, READ_STAMP_IN_TURN";
    /// A multi producer stamps a slot after the first one of its claim; STAMP_FENCE orders it.
    STAMP_BEHIND: by_fence(Release) => [], "READ_STAMP";
    /// A consumer, or a thread that computes the published position, walks over stamps; STAMP_READ_FENCE orders them.
    READ_STAMP: by_fence(Acquire) => [], "STAMP, STAMP_BEHIND";
    /// After a walk over stamps that found a published slot, before its event is read or its place is overwritten.
    STAMP_READ_FENCE: Acquire => [Relaxed], "STAMP, STAMP_FENCE";
    /// The cut reads the stamps in turn: if it saw the stamp of a claim's first slot, it must see the stamps of the
    /// other slots.
    READ_STAMP_IN_TURN: Acquire => [Relaxed], "STAMP";
    /// A stage after others reads a stamp for its skip bit. It has acquired the event already with the position of the
    /// stage before (FOLLOW).
    READ_SKIP: Relaxed => [], "STAMP";
    /// A multi producer claims sequences. The producer's limit has made sure that the slots are free, and STAMP
    /// publishes what it writes, so the exchange only has to be atomic.
    CLAIM: Relaxed => [], "CLAIM";
    /// The only producer claims sequences; see CLAIM.
    CLAIM_ALONE: Relaxed => [], "ONE_PRODUCER";
    /// Any thread reads the claimed position.
    READ_CLAIMED: Relaxed => [], "CLAIM, SHOW_CLAIM";
    /// A single producer shows a claim, or takes it back; CLAIM_FENCE orders it.
    SHOW_CLAIM: Relaxed => [], "READ_CLAIMED";
    /// A producer, between showing a claim and checking the closed bit.
    CLAIM_FENCE: SeqCst => [AcqRel], "CLOSE_FENCE";
    /// The thread that closes the ring, between closing it and reading the claimed and published positions.
    CLOSE_FENCE: SeqCst => [AcqRel], "CLAIM_FENCE, RING_FENCE, HOLD_FENCE, SHARE_FENCE";
    /// A worker, between its look at the published events and its check that the ring is open.
    SHARE_FENCE: SeqCst => [AcqRel], "CLOSE_FENCE";
    /// A stage moves its consumed position, after it read the events.
    CONSUME: Release => [Relaxed], "GATE, FOLLOW";
    /// A thread reads a stage's position to choose a bell, to count, or to report: it uses no slot because of it.
    LOOK_AT_STAGE: Relaxed => [], "CONSUME";
    /// A producer reads a gate, before it overwrites the slots below.
    GATE: Acquire => [Relaxed], "CONSUME";
    /// A stage reads the position of an earlier stage, before it reads the events below.
    FOLLOW: Acquire => [Relaxed], "CONSUME";
    /// A thread that walked over the stamps raises the floor to where the walk ended.
    RAISE_FLOOR: Release => [Relaxed], "READ_FLOOR";
    /// A thread reads the floor, where a walk over the stamps begins, and below which a producer may overwrite slots.
    READ_FLOOR: Acquire => [Relaxed], "RAISE_FLOOR";
    /// A thread that computed the position of a stage of workers raises the stage's position to it.
    RAISE_WORKERS: Release => [Relaxed], "READ_WORKERS";
    /// A producer or a later stage reads the position of a stage of workers, after it raised that position itself.
    READ_WORKERS: Acquire => [Relaxed], "RAISE_WORKERS, START";
    /// A thread reads a position before it raises it. It passes on only what it acquired elsewhere.
    RAISE_FROM: Relaxed => [], "RAISE_FLOOR, RAISE_WORKERS";
    /// A joining or leaving stage installs the new gating set.
    SWAP_GATES: Release => [Relaxed], "LOAD_GATES";
    /// A thread loads the present gating set.
    LOAD_GATES: Acquire => [Relaxed], "SWAP_GATES";
    /// The version of the gating set rises after the set was installed. A thread that sees the version before the set
    /// starts over.
    SET_VERSION: Relaxed => [], "READ_VERSION";
    /// A producer reads the version before the gates, to check for a newer set.
    READ_VERSION: Relaxed => [], "SET_VERSION";
    /// A producer reads the version again after the gates; REFRESH_FENCE orders the two. A thread that installs a new
    /// set reads it under the members' lock.
    CHECK_VERSION: Relaxed => [], "SET_VERSION";
    /// A producer, between reading the gates and reading the version again.
    REFRESH_FENCE: SeqCst => [AcqRel], "JOIN_FENCE";
    /// A joining stage, between storing the new version and reading the other gates.
    JOIN_FENCE: SeqCst => [AcqRel], "REFRESH_FENCE";
    /// A newcomer's position moves from where it was pinned to its start.
    START: Release => [Relaxed], "GATE";
    /// The first sequence that the workers of a joining stage take. Workers join only while a ring is being built, by
    /// one thread.
    START_TAKING: Relaxed => [], "READ_TAKEN";
    /// A thread, between moving a position and checking for sleepers.
    RING_FENCE: SeqCst => [AcqRel], "ARM_FENCE";
    /// A sleeper, between arming a bell and looking again.
    ARM_FENCE: SeqCst => [AcqRel], "RING_FENCE";
    /// A sleeper arms a bell, or a closing thread sets the closed bit; the fences order it.
    ARM: Relaxed => [], "ATTENTION";
    /// A thread that moved a position checks for sleepers and for the closed bit; the fences order it.
    ATTENTION: Relaxed => [], "ARM";
    /// A thread stores the phase of a closed, failed or finished ring; CLOSE_FENCE orders it.
    CLOSE: Relaxed => [], "OBSERVE_CLOSE";
    /// A consumer or producer reads the phase. All else that it needs it reads under the lock of the end's record.
    OBSERVE_CLOSE: Relaxed => [], "CLOSE";
    /// The count of producers rises.
    ADD_PRODUCER: Relaxed => [], "DROP_PRODUCER";
    /// The count of producers falls. The last producer finishes the ring after everything that the others published,
    /// which it acquires by CLOSE_FENCE.
    DROP_PRODUCER: Release => [Relaxed], "CLOSE_FENCE, ONE_PRODUCER, LOSSY_GONE";
    /// A producer reads the count of producers.
    READ_PRODUCERS: by_fence(Acquire) => [], "DROP_PRODUCER";
    /// A producer that has read a count of 1 must see the claims of the dropped producers.
    ONE_PRODUCER: Acquire => [Relaxed], "DROP_PRODUCER";
    /// A producer notes that it is the only one, or that it is cloned. It claims by `&mut`, so every clone of it
    /// happens before its next claim.
    ALONE: Relaxed => [], "ALONE";
    /// A stage marks that it holds a batch; HOLD_FENCE orders it before the check for an eviction.
    HOLD: Relaxed => [], "READ_HOLD";
    /// A stage marks that it holds no batch any more, after it moved its position.
    LET_GO: Release => [Relaxed], "READ_HOLD";
    /// The evicting thread checks for a held batch.
    READ_HOLD: Acquire => [Relaxed], "LET_GO";
    /// A thread requests an eviction; EVICT_FENCE orders it before the check for a held batch.
    EVICT: Relaxed => [], "READ_EVICTED";
    /// A stage checks for its eviction.
    READ_EVICTED: Relaxed => [], "EVICT";
    /// A stage, between marking that it holds a batch, or no batch, and checking for its eviction.
    HOLD_FENCE: SeqCst => [AcqRel], "EVICT_FENCE";
    /// The evicting thread, between requesting the eviction and checking for a held batch.
    EVICT_FENCE: SeqCst => [AcqRel], "HOLD_FENCE";
    /// A worker announces the sequences that it is about to take, or that it holds none any more.
    ANNOUNCE: Release => [Relaxed], "READ_ANNOUNCED";
    /// A thread that computes the position of a stage of workers reads each worker's announcement.
    READ_ANNOUNCED: Acquire => [Relaxed], "ANNOUNCE";
    /// A worker takes sequences from the shared counter, after it announced them. It has acquired their events already.
    TAKE: Release => [Relaxed], "READ_TAKEN";
    /// A thread that computes the position of a stage of workers reads the counter, before the announcements.
    READ_TAKEN: Acquire => [Relaxed], "TAKE";
    /// The next sequence of a lossy ring, which several writers take or a single writer shows. It orders nothing.
    LOSSY_CLAIM: Relaxed => [], "LOSSY_CLAIM";
    /// The single writer of a lossy ring marks a slot as being written.
    LOSSY_BEGIN: Relaxed => [], "LOSSY_CHECK";
    /// One of several writers reads the stamp of the slot that it wants; LOSSY_ENTER acquires what matters.
    LOSSY_LOOK: Relaxed => [], "LOSSY_STAMP";
    /// One of several writers takes a slot, so that the last writer's stores come before its own.
    LOSSY_ENTER: Acquire => [Relaxed], "LOSSY_STAMP";
    /// A writer whose exchange failed when it left its slot reads the new stamp.
    LOSSY_LEFT: Relaxed => [], "LOSSY_ENTER";
    /// A writer, between marking the slot and storing the words.
    LOSSY_WRITE_FENCE: Release => [Relaxed], "LOSSY_READ_FENCE";
    /// A word of a lossy event, written or read; the stamps and fences order it.
    LOSSY_WORD: Relaxed => [], "LOSSY_WORD";
    /// A writer of a lossy ring stamps a slot after its words.
    LOSSY_STAMP: Release => [Relaxed], "LOSSY_OBSERVE";
    /// A reader of a lossy ring reads a stamp before the words.
    LOSSY_OBSERVE: Acquire => [Relaxed], "LOSSY_STAMP";
    /// A reader, between reading the words and reading the stamp again.
    LOSSY_READ_FENCE: Acquire => [Relaxed], "LOSSY_WRITE_FENCE";
    /// A reader of a lossy ring reads the stamp again after the words; LOSSY_READ_FENCE orders it.
    LOSSY_CHECK: Relaxed => [], "LOSSY_BEGIN";
    /// A reader that found no event sees that every writer was dropped, and with it all that they wrote.
    LOSSY_GONE: Acquire => [Relaxed], "DROP_PRODUCER";
    /// A counter that orders nothing.
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
        /// A weakened site, everywhere or at one place (file and line), with its ordering.
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

    /// The ordering that the active mutant gives `site` at `place`; `None` if it leaves the site alone.
    pub(super) fn weakened(site: &Site, place: &'static Location<'static>) -> Option<Ordering> {
        tell(site, place);
        match active() {
            Some(Mutant::Weakened(name, at, order)) if *name == site.name => {
                let is_here = |(file, line): &(String, u32)| *line == place.line() && place.file().ends_with(&**file);
                at.as_ref().is_none_or(is_here).then_some(*order)
            }
            _ => None,
        }
    }

    /// If `SLIPRING_PLACES` is set, prints each executed place of a site that can be weakened, once.
    fn tell(site: &Site, place: &'static Location<'static>) {
        static TOLD: LazyLock<Option<Mutex<HashSet<(&str, usize)>>>> =
            LazyLock::new(|| std::env::var_os("SLIPRING_PLACES").map(|_| Mutex::default()));
        let Some(told) = TOLD.as_ref().filter(|_| !site.weaker.is_empty()) else { return };
        if told.lock().unwrap().insert((site.name, std::ptr::from_ref(place).addr())) {
            let file = place.file().rsplit('/').next().unwrap_or_default();
            println!("place {}@{file}:{}", site.name, place.line());
        }
    }

    pub(crate) fn fault() -> Option<Fault> {
        match active() {
            Some(Mutant::Fault(fault)) => Some(*fault),
            _ => None,
        }
    }
}
