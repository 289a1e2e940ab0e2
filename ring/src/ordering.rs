//! Every memory ordering of ring: a named site each, with its partner.
//!
//! No other file of ring has a literal `Ordering::…`. A site has one strength in production, a constant. Under
//! `--cfg loom` the next weaker one can be chosen at run time by name, at one place of the source
//! (`SLIPRING_MUTANT=PUBLISH@single_producer.rs:87=>Relaxed`) or at all (`PUBLISH=>Relaxed`), and so can each of the
//! [faults](crate::fault); loom-tests does so for every place and fault and requires that a model fails. A place is where
//! a site is named. Helpers that only pass a site on, and those that do nothing but one step with it, such as to ring a bell,
//! are `track_caller` in a model: the place is then where they are called.
//! `docs/MEMORY_ORDERING.md` gives the reasons.

pub(crate) use crate::sync::Ordering;
use Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};

/// One place where an ordering matters.
// Production only needs the strength; the rest is for the models and the documentation's check.
#[cfg_attr(not(loom), allow(dead_code))]
pub struct Site {
    /// As written in this file, in the documentation and in the name of a mutant.
    pub name: &'static str,
    /// In production.
    pub order: Ordering,
    /// The next weaker orderings; none where it is relaxed already.
    pub weaker: &'static [Ordering],
    /// The site at the other end.
    pub partner: &'static str,
}

impl Site {
    /// The ordering to use: a constant, but for the mutant that a model runs with.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn get(&self) -> Ordering {
        #[cfg(loom)]
        if let Some(order) = mutant::weakened(self, std::panic::Location::caller()) {
            return order;
        }
        self.order
    }

    /// A fence of this site's strength. Weakened to relaxed it is no fence at all.
    #[inline(always)]
    #[cfg_attr(loom, track_caller)]
    pub(crate) fn fence(&self) {
        let order = self.get();
        if order != Relaxed {
            crate::sync::fence(order);
        }
    }
}

macro_rules! sites {
    ($($(#[doc = $doc:literal])* $name:ident: $order:ident => [$($weaker:ident),*], $partner:literal;)*) => {
        $($(#[doc = $doc])* pub(crate) const $name: Site =
            Site { name: stringify!($name), order: $order, weaker: &[$($weaker),*], partner: $partner };)*
        /// All of them, for the documentation's check and for the mutants.
        #[cfg_attr(not(loom), allow(dead_code))]
        pub const SITES: &[&Site] = &[$(&$name),*];
    };
}

sites! {
    /// The single producer moves its published position after it wrote the events.
    PUBLISH: Release => [Relaxed], "OBSERVE_PUBLISHED";
    /// A consumer reads the single producer's published position before it reads the events.
    OBSERVE_PUBLISHED: Acquire => [Relaxed], "PUBLISH";
    /// A multi producer stamps the first slot of its claim, after it wrote the events and stamped the other slots.
    STAMP: Release => [Relaxed], "STAMP_READ_FENCE, READ_STAMP_IN_TURN";
    /// Between writing the events of a claim of several slots and stamping the slots behind its first one.
    STAMP_FENCE: Release => [Relaxed], "STAMP_READ_FENCE, READ_STAMP_IN_TURN";
    /// A multi producer stamps a slot behind the first one of its claim; STAMP_FENCE orders it.
    STAMP_BEHIND: Relaxed => [], "READ_STAMP";
    /// A consumer, or a thread that looks for what is published, walks over stamps; STAMP_READ_FENCE orders them.
    READ_STAMP: Relaxed => [], "STAMP, STAMP_BEHIND";
    /// Between a walk over stamps that found a published slot and the use of its event or of its place.
    STAMP_READ_FENCE: Acquire => [Relaxed], "STAMP, STAMP_FENCE";
    /// The cut reads the stamps in turn: having seen that of a claim's first slot, it must see those of the others.
    READ_STAMP_IN_TURN: Acquire => [Relaxed], "STAMP";
    /// A stage behind others reads a stamp for its skip bit: what it follows has acquired the stamp already.
    READ_SKIP: Relaxed => [], "STAMP";
    /// A multi producer takes sequences. What makes the slots free came with its limit, and what it writes goes
    /// with the stamp: the exchange only has to be atomic.
    CLAIM: Relaxed => [], "CLAIM";
    /// The only producer takes sequences; see CLAIM.
    CLAIM_ALONE: Relaxed => [], "ONE_PRODUCER";
    /// Anyone reads the claimed position.
    READ_CLAIMED: Relaxed => [], "CLAIM, SHOW_CLAIM";
    /// A single producer shows what it claims, or takes it back; CLAIM_FENCE orders it.
    SHOW_CLAIM: Relaxed => [], "READ_CLAIMED";
    /// Between showing a claim and looking whether the ring is closed.
    CLAIM_FENCE: SeqCst => [AcqRel], "CLOSE_FENCE";
    /// Between closing the ring and reading what is claimed and published.
    CLOSE_FENCE: SeqCst => [AcqRel], "CLAIM_FENCE, RING_FENCE, HOLD_FENCE, SHARE_FENCE";
    /// Between a worker's look at what is published and its look whether the ring is open.
    SHARE_FENCE: SeqCst => [AcqRel], "CLOSE_FENCE";
    /// A stage moves its consumed position after it read the events.
    CONSUME: Release => [Relaxed], "GATE, FOLLOW";
    /// Somebody looks where a stage stands to choose a bell, to count, or to tell: no slot is touched because of it.
    LOOK_AT_STAGE: Relaxed => [], "CONSUME";
    /// A producer reads a gate before it overwrites what lies below.
    GATE: Acquire => [Relaxed], "CONSUME";
    /// A stage reads the position of one that it stands behind before it reads the events.
    FOLLOW: Acquire => [Relaxed], "CONSUME";
    /// A thread that walked over the stamps raises the floor to where the walk ended.
    RAISE_FLOOR: Release => [Relaxed], "READ_FLOOR";
    /// A thread reads the floor: a walk over the stamps begins there, and a producer overwrites what lies below.
    READ_FLOOR: Acquire => [Relaxed], "RAISE_FLOOR";
    /// A thread that computed where the workers of a stage stand raises the stage's position to that.
    RAISE_WORKERS: Release => [Relaxed], "READ_WORKERS";
    /// A producer or a stage behind reads the position of a stage of workers, after it raised that position itself.
    READ_WORKERS: Acquire => [Relaxed], "RAISE_WORKERS, START";
    /// A thread that raises a position looks where the position stands. It vouches only for what it acquired elsewhere.
    RAISE_FROM: Relaxed => [], "RAISE_FLOOR, RAISE_WORKERS";
    /// A joining or leaving stage shows the new gating set.
    SWAP_GATES: Release => [Relaxed], "LOAD_GATES";
    /// A producer takes the present gating set.
    LOAD_GATES: Acquire => [Relaxed], "SWAP_GATES";
    /// The number of the present gating set. Whoever sees it before the set itself starts over.
    SET_VERSION: Relaxed => [], "READ_VERSION";
    /// A producer reads it before it reads the gates, to see whether a newer set is worth loading.
    READ_VERSION: Relaxed => [], "SET_VERSION";
    /// A producer reads it again after the gates; REFRESH_FENCE orders the two. A thread that shows a new set reads it under
    /// the members' lock.
    CHECK_VERSION: Relaxed => [], "SET_VERSION";
    /// Between reading the gates and reading the version again.
    REFRESH_FENCE: SeqCst => [AcqRel], "JOIN_FENCE";
    /// Between storing the new version and reading the other gates.
    JOIN_FENCE: SeqCst => [AcqRel], "REFRESH_FENCE";
    /// A newcomer is let go from where it was pinned.
    START: Release => [Relaxed], "GATE";
    /// The workers of a stage that joins take from here on. Workers join only while a ring is being built, by one thread.
    START_TAKING: Relaxed => [], "READ_TAKEN";
    /// Between moving a position and looking for sleepers.
    RING_FENCE: SeqCst => [AcqRel], "ARM_FENCE";
    /// Between announcing sleep and looking again.
    ARM_FENCE: SeqCst => [AcqRel], "RING_FENCE";
    /// A sleeper announces itself; the fences order it.
    ARM: Relaxed => [], "ATTENTION";
    /// Whoever moved a position looks for sleepers, or for a closed ring; the fences order it.
    ATTENTION: Relaxed => [], "ARM";
    /// The ring is closed, failed or finished; CLOSE_FENCE orders it.
    CLOSE: Relaxed => [], "OBSERVE_CLOSE";
    /// A consumer or producer sees that. What it must know beside comes with the lock of the end's record.
    OBSERVE_CLOSE: Relaxed => [], "CLOSE";
    /// One producer more.
    ADD_PRODUCER: Relaxed => [], "DROP_PRODUCER";
    /// One producer less. The last one finishes the ring after all that the others published: it acquires that by CLOSE_FENCE.
    DROP_PRODUCER: Release => [Relaxed], "CLOSE_FENCE, ONE_PRODUCER, LOSSY_GONE";
    /// A producer looks whether it is the only one.
    READ_PRODUCERS: Relaxed => [], "DROP_PRODUCER";
    /// Once a producer has seen that it is the only one: it must know what those that went have claimed.
    ONE_PRODUCER: Acquire => [Relaxed], "DROP_PRODUCER";
    /// A producer notes that it is the only one, or that it is cloned. It claims by `&mut`, so every clone of it happens
    /// before its next claim.
    ALONE: Relaxed => [], "ALONE";
    /// A stage says that it holds a batch; HOLD_FENCE orders it before the look for an eviction.
    HOLD: Relaxed => [], "READ_HOLD";
    /// A stage says that it holds none any more, after it moved its position.
    LET_GO: Release => [Relaxed], "READ_HOLD";
    /// Whoever evicts looks whether a batch is held.
    READ_HOLD: Acquire => [Relaxed], "LET_GO";
    /// Eviction is asked for; EVICT_FENCE orders it before the look for a batch.
    EVICT: Relaxed => [], "READ_EVICTED";
    /// A stage looks whether it is evicted.
    READ_EVICTED: Relaxed => [], "EVICT";
    /// Between holding a batch, or letting go of it, and looking for an eviction.
    HOLD_FENCE: SeqCst => [AcqRel], "EVICT_FENCE";
    /// Between asking for eviction and looking for a batch.
    EVICT_FENCE: SeqCst => [AcqRel], "HOLD_FENCE";
    /// A worker announces what it is about to take, or that it holds nothing any more.
    ANNOUNCE: Release => [Relaxed], "READ_ANNOUNCED";
    /// Whoever computes where the workers of a stage stand reads what each announced.
    READ_ANNOUNCED: Acquire => [Relaxed], "ANNOUNCE";
    /// A worker takes events from the shared counter, after it announced them. What it takes it has acquired already.
    TAKE: Release => [Relaxed], "READ_TAKEN";
    /// Whoever computes where the workers stand reads the counter, before what they announced.
    READ_TAKEN: Acquire => [Relaxed], "TAKE";
    /// The next sequence of a lossy ring: taken by several writers, shown by one. It orders nothing.
    LOSSY_CLAIM: Relaxed => [], "LOSSY_CLAIM";
    /// The single writer of a lossy ring marks a slot as being written.
    LOSSY_BEGIN: Relaxed => [], "LOSSY_CHECK";
    /// One of several writers looks at the stamp of the slot that it wants; LOSSY_ENTER acquires what counts.
    LOSSY_LOOK: Relaxed => [], "LOSSY_STAMP";
    /// One of several writers takes a slot: what the last one stored there lies before what this one will store.
    LOSSY_ENTER: Acquire => [Relaxed], "LOSSY_STAMP";
    /// A writer that could not leave its slot as it entered looks why.
    LOSSY_LEFT: Relaxed => [], "LOSSY_ENTER";
    /// Between the mark and the words.
    LOSSY_WRITE_FENCE: Release => [Relaxed], "LOSSY_READ_FENCE";
    /// A word of a lossy event, written or read; the stamps and fences order it.
    LOSSY_WORD: Relaxed => [], "LOSSY_WORD";
    /// A writer of a lossy ring stamps a slot after its words.
    LOSSY_STAMP: Release => [Relaxed], "LOSSY_OBSERVE";
    /// A reader of a lossy ring reads a stamp before the words.
    LOSSY_OBSERVE: Acquire => [Relaxed], "LOSSY_STAMP";
    /// Between the words and the second look at the stamp.
    LOSSY_READ_FENCE: Acquire => [Relaxed], "LOSSY_WRITE_FENCE";
    /// A reader of a lossy ring looks at the stamp again, behind the words; LOSSY_READ_FENCE orders it.
    LOSSY_CHECK: Relaxed => [], "LOSSY_BEGIN";
    /// A reader that found nothing sees that every writer has gone, and with it all that they wrote.
    LOSSY_GONE: Acquire => [Relaxed], "DROP_PRODUCER";
    /// Counters that order nothing.
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
        /// A site, everywhere or at one place: file and line.
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

    /// The order that the mutant has in the place of `site`'s at `place`.
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

    /// Prints each place where a model comes by with a site that could be weaker, once, if `SLIPRING_PLACES` is set.
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
