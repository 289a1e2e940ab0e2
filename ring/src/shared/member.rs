//! The table of participants: who has which entry, and what becomes of the entries of the dead.
//!
//! Holding the lock of byte `i` of the file is being participant `i`. It is locked first, then the entry is written; so
//! an entry that is not free and whose byte nobody has locked belonged to somebody who died, or who is *held*.

use super::claims::LARGEST_SEQUENCE;
use super::error::{Ended, SharedError};
use super::heir;
use super::layout::Event;
use super::lock::{Locks, REGISTER};
use super::region::{Control, Entry, LONGEST_NAME, NONE, PARTICIPANTS, Region, role};
use crate::fault::{Fault, fault};
use crate::ordering::{
    COUNT, SHARED_JOIN, SHARED_JOIN_FENCE, SHARED_LEAVE, SHARED_LOOK_AT_GATE, SHARED_LOOK_AT_ROLE, SHARED_PIN,
    SHARED_RAISE_VERSION, SHARED_ROLE, SHARED_START,
};
use crate::sequence::Sequence;
use crate::stage::Start;
use crate::sync::thread;

/// An entry of the table whose lock this process has.
pub(crate) struct Member<E: Event> {
    pub(crate) region: Region<E>,
    pub(crate) locks: Locks,
    pub(crate) index: usize,
    /// True if a model has its process die.
    #[cfg(any(loom, shuttle))]
    pub(crate) is_dead: bool,
}

impl<E: Event> Member<E> {
    fn new(region: Region<E>, locks: Locks, index: usize) -> Self {
        Self {
            region,
            locks,
            index,
            #[cfg(any(loom, shuttle))]
            is_dead: false,
        }
    }

    pub(crate) fn entry(&self) -> &Entry {
        &self.region.control().table[self.index]
    }

    /// Frees the entry and unlocks its byte. In a forked child, whose memory is not the ring's, nothing of this has an
    /// effect on the ring.
    pub(crate) fn leave(&self) {
        #[cfg(any(loom, shuttle))]
        if self.is_dead {
            return;
        }
        vacate(self.entry());
        self.locks.unlock(self.index);
        self.region.control().room.0.ring(0);
    }
}

/// Marks an entry as free. The caller has its lock, and so passes on what its owner has read.
pub(crate) fn vacate(entry: &Entry) {
    entry.role.store(role::FREE, SHARED_LEAVE.get());
}

/// The lock of the register, for as long as a participant joins or the ring is removed.
pub(crate) struct Register<'l>(&'l Locks);

impl<'l> Register<'l> {
    /// Locks the register. Tries for a second: whoever has it needs some microseconds, or is stopped.
    pub(crate) fn lock(locks: &'l Locks) -> Result<Self, SharedError> {
        for _ in 0..1_000 {
            if locks.try_lock(REGISTER).map_err(system("locking the register of the ring"))? {
                return Ok(Self(locks));
            }
            pause();
        }
        Err(SharedError::Busy)
    }
}

impl Drop for Register<'_> {
    fn drop(&mut self) {
        self.0.unlock(REGISTER);
    }
}

/// Waits a millisecond.
fn pause() {
    #[cfg(not(any(loom, shuttle)))]
    thread::sleep(std::time::Duration::from_millis(1));
    #[cfg(any(loom, shuttle, not(target_os = "linux")))]
    thread::yield_now();
}

pub(crate) fn system(doing: &str) -> impl FnOnce(std::io::Error) -> SharedError {
    let doing = doing.to_owned();
    move |cause| SharedError::System { doing, cause }
}

/// True if a process has the entry. An error of the system counts as alive, since nothing is taken from the living.
pub(crate) fn is_alive(locks: &Locks, index: usize) -> bool {
    locks.is_locked(index).unwrap_or(true)
}

/// Checks a name of a ring or participant.
pub(crate) fn check_name(name: &str, longest: usize) -> Result<(), SharedError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let fits = !name.is_empty() && name.len() <= longest && !name.starts_with('.') && name.chars().all(is_allowed);
    if fits { Ok(()) } else { Err(SharedError::Name { name: name.to_owned(), longest }) }
}

/// Refuses a position at which a participant cannot begin: none is as large, and sums with a larger one would overflow.
pub(crate) fn check_position(what: &'static str, found: u64) -> Result<(), Ended> {
    if found <= LARGEST_SEQUENCE { Ok(()) } else { Err(Ended::Damaged { what, found }) }
}

/// How a consumer joins.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    pub(crate) name: String,
    pub(crate) hold: bool,
    pub(crate) start: Start,
}

/// Takes an entry as a consumer. Returns it with the sequence at which reading begins.
pub(crate) fn join<E: Event>(region: Region<E>, locks: Locks, how: &Joining) -> Result<(Member<E>, u64), SharedError> {
    check_name(&how.name, LONGEST_NAME)?;
    let register = Register::lock(&locks)?;
    let control = region.control();
    bury(&region, &locks, None);
    if let Some(index) = rejoin(control, &locks, &how.name)? {
        let entry = &control.table[index];
        let gate = entry.moving.0.gate.load(SHARED_LOOK_AT_GATE.get());
        check_position("the position of a held consumer", gate).inspect_err(|_| locks.unlock(index))?;
        begin(entry, &how.name, how.hold);
        drop(register);
        return Ok((Member::new(region, locks, index), gate));
    }
    let index = free_entry(control, &locks)?;
    let entry = &control.table[index];
    begin(entry, &how.name, how.hold);
    entry.moving.0.notes.clear();
    let pin = if fault(Fault::SharedNewcomerIsNotPinned) { u64::MAX } else { earliest(&region, index) };
    entry.moving.0.gate.store(pin, SHARED_PIN.get());
    entry.role.store(role::JOINING, SHARED_JOIN.get());
    control.version.0.fetch_add(1, SHARED_RAISE_VERSION.get());
    SHARED_JOIN_FENCE.fence();
    // A producer that has not seen the newcomer passed its fence before, so these gates are at least as high as those
    // that it has read. A producer that has seen it is held by the pin.
    let earliest = earliest(&region, index);
    let latest = heir::published(&region);
    let start = match how.start {
        Start::Earliest => Some(earliest),
        Start::Latest => Some(latest),
        Start::At(asked) => Some(asked.0).filter(|asked| (earliest..=latest).contains(asked)),
    };
    let Some(start) = start.map(|start| start.max(earliest)) else {
        vacate(entry);
        locks.unlock(index);
        let Start::At(asked) = how.start else { unreachable!("only a given start can be out of range") };
        let (earliest, latest) = (Sequence(earliest), Sequence(latest));
        return Err(SharedError::OutOfRange { name: how.name.clone(), asked, earliest, latest });
    };
    check_position("the lowest position", start).inspect_err(|_| {
        vacate(entry);
        locks.unlock(index);
    })?;
    entry.moving.0.gate.store(start, SHARED_START.get());
    entry.role.store(role::CONSUMER, SHARED_ROLE.get());
    drop(register);
    Ok((Member::new(region, locks, index), start))
}

/// Takes an entry as a producer.
pub(crate) fn produce<E: Event>(region: Region<E>, locks: Locks, name: &str) -> Result<Member<E>, SharedError> {
    check_name(name, LONGEST_NAME)?;
    let register = Register::lock(&locks)?;
    let control = region.control();
    bury(&region, &locks, None);
    if !region.is_multi {
        let living = control.table.iter().find(|entry| entry.role.load(SHARED_LOOK_AT_ROLE.get()) == role::PRODUCER);
        if let Some(living) = living {
            return Err(SharedError::ProducerTaken { pid: living.pid.load(COUNT.get()) });
        }
    }
    let index = free_entry(control, &locks)?;
    let entry = &control.table[index];
    begin(entry, name, false);
    entry.role.store(role::PRODUCER, SHARED_ROLE.get());
    control.state.0.died.store(0, COUNT.get());
    drop(register);
    Ok(Member::new(region, locks, index))
}

/// Writes who has an entry. The caller has its lock.
fn begin(entry: &Entry, name: &str, hold: bool) {
    entry.generation.fetch_add(1, COUNT.get());
    entry.pid.store(u64::from(std::process::id()), COUNT.get());
    entry.set_name(name);
    entry.hold.store(u32::from(hold), COUNT.get());
}

/// The entry of the held consumer with this name, locked; `None` if there is none. A living one is an error.
fn rejoin(control: &Control, locks: &Locks, name: &str) -> Result<Option<usize>, SharedError> {
    let consumes = |entry: &&(usize, &Entry)| entry.1.role.load(SHARED_LOOK_AT_ROLE.get()) == role::CONSUMER;
    let mut named = control.table.iter().enumerate().filter(|it| consumes(&it) && it.1.name() == name);
    if let Some((index, _)) = named.next() {
        // A producer without room may have this lock for some microseconds, to see whether the consumer is dead.
        for _ in 0..20 {
            if locks.try_lock(index).map_err(system("locking an entry of the ring"))? {
                return Ok(Some(index));
            }
            pause();
        }
        return Err(SharedError::NameTaken { name: name.to_owned() });
    }
    Ok(None)
}

fn free_entry(control: &Control, locks: &Locks) -> Result<usize, SharedError> {
    for (index, entry) in control.table.iter().enumerate() {
        if entry.role.load(SHARED_LOOK_AT_ROLE.get()) == role::FREE
            && locks.try_lock(index).map_err(system("locking an entry of the ring"))?
        {
            // Whoever died before it cleared its claim's announcement has no entry with the role FREE. Another announcement there
            // was written by somebody else, and heirs would take it for that of the new owner.
            let from = &entry.moving.0.from;
            if from.load(COUNT.get()) != NONE {
                #[cfg(any(loom, shuttle))]
                panic!("an entry was freed with its announcement");
                #[cfg(not(any(loom, shuttle)))]
                from.store(NONE, COUNT.get());
            }
            return Ok(index);
        }
    }
    Err(SharedError::Full { most: PARTICIPANTS })
}

/// The earliest sequence that a newcomer with the entry `own` can read: the lowest gate of those who have joined, or the
/// first retained sequence if that is lower.
fn earliest<E: Event>(region: &Region<E>, own: usize) -> u64 {
    let control = region.control();
    // Those who join at the same time are pinned lower than what is kept, and do not count.
    let joined = control
        .table
        .iter()
        .enumerate()
        .filter(|(index, entry)| *index != own && entry.role.load(SHARED_LOOK_AT_ROLE.get()) == role::CONSUMER);
    // The floor is read before the gates: a producer may write up to the lowest gate and capacity, and no gate passes
    // what is published.
    let floor = heir::published(region).saturating_sub(region.retain);
    joined.map(|(_, entry)| entry.moving.0.gate.load(SHARED_LOOK_AT_GATE.get())).fold(floor, u64::min)
}

/// True if a model's fault has living consumers taken for dead ones; always false in production.
fn is_mistaken(entry: &Entry) -> bool {
    fault(Fault::SharedLivingTakenForDead) && entry.role.load(SHARED_LOOK_AT_ROLE.get()) == role::CONSUMER
}

/// Frees the entries of the dead: of consumers that are not held, of those that died while they joined, and of
/// producers, whose claims are settled first. `own` is the caller's entry. Returns true if an entry was freed.
pub(crate) fn bury<E: Event>(region: &Region<E>, locks: &Locks, own: Option<usize>) -> bool {
    heir::mend(region, locks, own);
    let mut freed = false;
    for (index, entry) in region.control().table.iter().enumerate() {
        let is_left = || match entry.role.load(SHARED_LOOK_AT_ROLE.get()) {
            role::FREE => false,
            role::CONSUMER => entry.hold.load(COUNT.get()) == 0,
            _ => true,
        };
        // The question comes before the lock, so that nobody who lives, or comes back, finds its byte locked.
        if Some(index) == own || !is_left() || is_alive(locks, index) && !is_mistaken(entry) {
            continue;
        }
        if !locks.try_lock(index).unwrap_or(false) && !is_mistaken(entry) {
            continue;
        }
        if is_left() {
            freed |= heir::free(region, index);
        }
        locks.unlock(index);
    }
    freed
}
