//! A core plan for the consumers of an engine: which thread runs on which core, and which spins.
//!
//! A consumer that spins without end ([`busy_spin`](slipring_ring::Wait::busy_spin),
//! [`spin`](slipring_ring::Wait::spin)) needs a core of its own. With more such consumers than cores, the scheduler
//! makes some of them wait for another's time slice, and all become slow. So more such consumers than cores are refused
//! before a thread is started, unless [`CorePlan::oversubscribe`] allows it. Consumers that wait with `spin_yield` are
//! not counted, because they yield their core.

use slipring_ring::Wait;
use slipring_ring::pin::{PinError, allowed_cores, cores_of_this_thread};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The cores and wait strategies of an engine's consumers, by consumer name. An entry applies to the consumers of that
/// name in all topics.
///
/// A consumer's own [`pin`](crate::subscriber::SubscriberBuilder::pin) and
/// [`wait`](crate::subscriber::SubscriberBuilder::wait) take precedence.
///
/// ```
/// use slipring::{Engine, Wait, cores::CorePlan};
/// # let core = slipring::cores::pin::allowed_cores()[0];
/// let plan = CorePlan::new().pin("book", core).wait("book", Wait::busy_spin()).wait("audit", Wait::spin_then_park());
/// let engine = Engine::builder().cores(plan).build()?;
/// let ticks = engine.topic::<u64>("ticks").create()?;
/// ticks.subscribe("book").run(|_, _| Ok::<_, std::fmt::Error>(()))?;
/// println!("{}", engine.cores());
/// assert_eq!(engine.cores().threads[0].core, Some(core));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct CorePlan {
    pins: BTreeMap<String, usize>,
    waits: BTreeMap<String, Wait>,
    oversubscribe: bool,
}

impl CorePlan {
    /// Creates an empty plan: it sets no core and no wait strategy, and refuses more spinning threads than cores.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pins the thread of `consumer` to `core`, the number of a core in the operating system.
    pub fn pin(mut self, consumer: impl Into<String>, core: usize) -> Self {
        self.pins.insert(consumer.into(), core);
        self
    }

    /// Sets the wait strategy of `consumer`.
    pub fn wait(mut self, consumer: impl Into<String>, wait: Wait) -> Self {
        self.waits.insert(consumer.into(), wait);
        self
    }

    /// Allows more spinning threads than there are cores, and a spinning thread on a core to which another thread is
    /// pinned. By default both are refused.
    pub fn oversubscribe(mut self) -> Self {
        self.oversubscribe = true;
        self
    }

    /// Refuses the plan if a pinned core is not in `allowed`, or, unless oversubscription is allowed, if two spinning
    /// consumers share a core or more consumers spin than there are allowed cores. An empty `allowed` means unknown:
    /// then only sharing is checked.
    fn check(&self, allowed: &[usize]) -> Result<(), CoresError> {
        for (consumer, &core) in &self.pins {
            if !allowed.is_empty() && !allowed.contains(&core) {
                let cause = PinError::Refused { asked: core, allowed: allowed.to_vec() };
                return Err(CoresError::Core { consumer: consumer.clone(), cause });
            }
        }
        let spinning = self.waits.iter().filter(|(_, wait)| wait.never_yields());
        let mut planned: Vec<ThreadEntry> = Vec::new();
        for (consumer, _) in spinning {
            let core = self.pins.get(consumer).copied();
            self.admit(&planned, allowed, consumer, core, true)?;
            let (topic, wait) = (String::new(), Wait::busy_spin());
            let (cores, thread) = (Vec::new(), String::new());
            planned.push(ThreadEntry { number: 0, topic, consumer: consumer.clone(), thread, core, cores, wait });
        }
        Ok(())
    }

    /// Refuses a thread of `consumer` beside the threads `there`, unless oversubscription is allowed. The reasons: it
    /// is pinned to `core`, to which another thread is pinned, and one of the two spins; or it spins, as `spins_too`
    /// says, and as many threads as there are cores spin already. An empty `allowed` means that the cores are unknown:
    /// then only the first reason counts.
    fn admit(
        &self,
        there: &[ThreadEntry],
        allowed: &[usize],
        consumer: &str,
        core: Option<usize>,
        spins_too: bool,
    ) -> Result<(), CoresError> {
        if self.oversubscribe {
            return Ok(());
        }
        let consumer = || consumer.to_owned();
        let spinning = || there.iter().filter(|entry| entry.wait.never_yields());
        let on_the_same = |entry: &&ThreadEntry| core.is_some() && entry.core == core;
        let mut in_the_way = there.iter().filter(|entry| spins_too || entry.wait.never_yields()).filter(on_the_same);
        if let (Some(core), Some(other)) = (core, in_the_way.next()) {
            return Err(CoresError::CoreTaken { consumer: consumer(), core, other: other.consumer.clone() });
        }
        let cores = allowed.len();
        if spins_too && cores > 0 && spinning().count() >= cores {
            let others = spinning().map(|entry| entry.consumer.clone()).collect();
            return Err(CoresError::TooMany { consumer: consumer(), cores, others });
        }
        Ok(())
    }
}

/// Why a thread cannot have the core that it needs, or its wait strategy cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoresError {
    /// More threads would spin than there are cores.
    #[error(
        "consumer {consumer:?} would spin, and {others:?} spin already on {cores} cores: let one of them park or yield, or say `CorePlan::oversubscribe`"
    )]
    TooMany {
        /// The consumer's name.
        consumer: String,
        /// Count of the cores that this process may use.
        cores: usize,
        /// The consumers that spin already.
        others: Vec<String>,
    },
    /// Two threads would be pinned to one core, and at least one of them spins.
    #[error(
        "consumer {consumer:?} was to be pinned to core {core}, which it would share with {other:?} while one of them spins: take another core, let it park, or say `CorePlan::oversubscribe`"
    )]
    CoreTaken {
        /// The consumer's name.
        consumer: String,
        /// The number of the core in the operating system.
        core: usize,
        /// The consumer that is pinned to that core already.
        other: String,
    },
    /// The consumer's thread cannot be pinned to its core, for example because this process may not use that core.
    #[error("consumer {consumer:?}: {cause}")]
    Core {
        /// The consumer's name.
        consumer: String,
        /// Why the core was refused, with the cores that are allowed.
        cause: PinError,
    },
    /// The wait strategy of a consumer cannot be changed, because the consumer has no running thread.
    #[error("consumer {consumer:?} has no thread whose way of waiting could be changed")]
    NoThread {
        /// The consumer's name.
        consumer: String,
    },
}

/// The threads of an engine's consumers at one moment: see [`Engine::cores`](crate::Engine::cores).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CoresReport {
    /// The numbers of the cores that this process may use.
    pub cores: Vec<usize>,
    /// The threads, in the order of their start.
    pub threads: Vec<ThreadReport>,
}

/// One thread of a consumer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ThreadReport {
    /// The topic's name; empty for a member of a group, which may read several topics.
    pub topic: String,
    /// The consumer's name.
    pub consumer: String,
    /// The thread's name as `top -H` shows it, 15 bytes at most.
    pub name: String,
    /// The number of the only core that the thread may run on, by its own pin or by the pin of the thread that started
    /// it. `None` if the thread may run on several cores, or if the process has only one core.
    pub core: Option<usize>,
    /// The numbers of the cores that the thread may run on, as read by the thread itself; empty if the operating system
    /// does not report them.
    pub cores: Vec<usize>,
    /// The wait strategy.
    pub wait: Wait,
    /// True if the thread keeps its core busy while it waits for events.
    pub spins: bool,
}

impl fmt::Display for CoresReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} threads on {} cores", self.threads.len(), self.cores.len())?;
        for ThreadReport { topic, consumer, name, core, wait, .. } in &self.threads {
            let core = core.map_or("any core".to_owned(), |core| format!("core {core}"));
            write!(f, "\n  {name}: {consumer} of {topic} on {core}, {wait}")?;
        }
        Ok(())
    }
}

struct ThreadEntry {
    number: u64,
    topic: String,
    consumer: String,
    thread: String,
    /// The number of the only core that the thread may run on; `None` if it may run on several, or if the process has
    /// only one.
    core: Option<usize>,
    /// The numbers of the cores that the thread may run on; empty if unknown.
    cores: Vec<usize>,
    wait: Wait,
}

/// An engine's core plan, and an entry for each running consumer thread.
pub(crate) struct Cores {
    plan: CorePlan,
    /// The numbers of the cores that this process may use; empty if unknown.
    allowed: Vec<usize>,
    /// The number of the latest entry, and the entries in the order of their numbers.
    entries: Mutex<(u64, Vec<ThreadEntry>)>,
    this: Weak<Self>,
}

impl Cores {
    pub(crate) fn new(plan: CorePlan) -> Result<Arc<Self>, CoresError> {
        let allowed = allowed_cores();
        plan.check(&allowed)?;
        Ok(Arc::new_cyclic(|this| Self { plan, allowed, entries: Mutex::default(), this: Weak::clone(this) }))
    }

    fn entries(&self) -> MutexGuard<'_, (u64, Vec<ThreadEntry>)> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The only core in `cores`. `None` if `cores` does not have exactly one core, or if the process may use at most
    /// one core: a thread does not count as pinned if all threads share that core.
    fn only(&self, cores: &[usize]) -> Option<usize> {
        if let ([only], true) = (cores, self.allowed.len() > 1) { Some(*only) } else { None }
    }

    /// The core and the wait strategy that the plan sets for a consumer. Each is `None` if the plan does not set it.
    pub(crate) fn planned(&self, consumer: &str) -> (Option<usize>, Option<Wait>) {
        (self.plan.pins.get(consumer).copied(), self.plan.waits.get(consumer).cloned())
    }

    /// Adds the entry of a thread that is about to start, unless the plan refuses the thread: see [`CorePlan::admit`].
    /// Dropping the returned ticket removes the entry. `core` is the thread's pin; `None` if the thread is not pinned.
    pub(crate) fn enter(
        &self,
        topic: &str,
        consumer: &str,
        thread: &str,
        core: Option<usize>,
        wait: &Wait,
    ) -> Result<CoreTicket, CoresError> {
        // A thread that is not pinned inherits the allowed cores of the calling thread, which starts it.
        let cores = core.map_or_else(cores_of_this_thread, |core| vec![core]);
        self.admit_thread(topic, consumer, thread, (core, cores), wait)
    }

    /// As [`enter`](Self::enter), for a thread that is pinned to `core` or, if `core` is `None`, may run on `cores`.
    fn admit_thread(
        &self,
        topic: &str,
        consumer: &str,
        thread: &str,
        (core, cores): (Option<usize>, Vec<usize>),
        wait: &Wait,
    ) -> Result<CoreTicket, CoresError> {
        let (topic, thread) = (topic.to_owned(), visible(thread));
        let core = core.or_else(|| self.only(&cores));
        let mut entries = self.entries();
        self.plan.admit(&entries.1, &self.allowed, consumer, core, wait.never_yields())?;
        entries.0 += 1;
        let (number, wait) = (entries.0, wait.clone());
        entries.1.push(ThreadEntry { number, topic, consumer: consumer.to_owned(), thread, core, cores, wait });
        Ok(CoreTicket { cores: Weak::clone(&self.this), number })
    }

    /// Changes the wait strategy in the entries of all threads of a consumer. If the plan refuses one of these threads,
    /// changes none.
    pub(crate) fn change(&self, topic: &str, consumer: &str, wait: &Wait) -> Result<(), CoresError> {
        let mut entries = self.entries();
        let is_its = |entry: &ThreadEntry| entry.topic == topic && entry.consumer == consumer;
        let (its, mut others): (Vec<_>, Vec<_>) = std::mem::take(&mut entries.1).into_iter().partition(is_its);
        if its.is_empty() {
            entries.1 = others;
            return Err(CoresError::NoThread { consumer: consumer.to_owned() });
        }
        let before: BTreeMap<u64, Wait> = its.iter().map(|entry| (entry.number, entry.wait.clone())).collect();
        let mut admitted = Ok(());
        for mut entry in its {
            admitted = admitted
                .and_then(|()| self.plan.admit(&others, &self.allowed, consumer, entry.core, wait.never_yields()));
            entry.wait = wait.clone();
            others.push(entry);
        }
        if admitted.is_err() {
            let changed = others.iter_mut().filter_map(|entry| Some((before.get(&entry.number)?, entry)));
            changed.for_each(|(before, entry)| entry.wait = before.clone());
        }
        others.sort_by_key(|entry| entry.number);
        entries.1 = others;
        admitted
    }

    pub(crate) fn report(&self) -> CoresReport {
        let entries = self.entries();
        let threads = entries.1.iter().map(|entry| ThreadReport {
            topic: entry.topic.clone(),
            consumer: entry.consumer.clone(),
            name: entry.thread.clone(),
            core: entry.core,
            cores: entry.cores.clone(),
            wait: entry.wait.clone(),
            spins: entry.wait.never_yields(),
        });
        CoresReport { cores: self.allowed.clone(), threads: threads.collect() }
    }
}

/// A running thread's entry in [`Cores`]. Dropping it removes the entry.
pub(crate) struct CoreTicket {
    cores: Weak<Cores>,
    number: u64,
}

impl CoreTicket {
    /// Replaces the cores in the entry by those that the calling thread may run on. Called on the consumer's own
    /// thread.
    pub(crate) fn read_back(self) -> Self {
        let really = cores_of_this_thread();
        if let (Some(cores), false) = (self.cores.upgrade(), really.is_empty()) {
            let mut entries = cores.entries();
            if let Some(own) = entries.1.iter_mut().find(|entry| entry.number == self.number) {
                own.core = own.core.or_else(|| cores.only(&really));
                own.cores = really;
            }
        }
        self
    }
}

impl Drop for CoreTicket {
    fn drop(&mut self) {
        if let Some(cores) = self.cores.upgrade() {
            // Dropped after the lock is released, because a wait strategy may be user code.
            let gone: Vec<_> = cores.entries().1.extract_if(.., |entry| entry.number == self.number).collect();
            drop(gone);
        }
    }
}

/// Greatest length of a thread's name that the system keeps, in bytes.
const LONGEST: usize = 15;

/// A thread's name as the operating system shows it, [`LONGEST`] bytes at most. A longer name is shortened in its
/// middle, so that `billing-consumer-1` and `billing-consumer-2` differ.
pub(crate) fn visible(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let head = (0..=7).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
    let tail = (name.len() - 7..=name.len()).find(|&at| name.is_char_boundary(at)).unwrap_or(name.len());
    format!("{}~{}", &name[..head], &name[tail..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_keep_both_ends_in_15_bytes() {
        assert_eq!(visible("book"), "book");
        assert_eq!(visible("exactly-15-byte"), "exactly-15-byte");
        assert_eq!(visible("billing-consumer-1"), "billing~sumer-1");
        assert_ne!(visible("billing-consumer-1"), visible("billing-consumer-2"));
        for name in ["ääääääääääää", "x".repeat(249).as_str(), "€€€€€€"] {
            assert!(visible(name).len() <= LONGEST, "{}", visible(name));
        }
    }

    #[test]
    fn a_change_that_is_refused_changes_nothing() {
        let plan = CorePlan::new();
        // The cores are fixed here, because the machine that runs the test may have only one.
        let allowed = vec![0, 1];
        let cores = Arc::new_cyclic(|this| Cores { plan, allowed, entries: Mutex::default(), this: Weak::clone(this) });
        let spin = Wait::busy_spin();
        let enter = |name: &str, wait: &Wait| cores.admit_thread("t", name, name, (None, vec![0, 1]), wait);
        let _a = enter("a", &spin).unwrap();
        let b = enter("b", &spin).unwrap();
        let _c = enter("c", &Wait::spin_yield()).unwrap();
        let refused = cores.change("t", "c", &spin).unwrap_err();
        assert!(matches!(&refused, CoresError::TooMany { cores: 2, others, .. } if others == &["a", "b"]), "{refused}");
        assert_eq!(cores.report().threads[2].wait, Wait::spin_yield());
        drop(b);
        cores.change("t", "c", &spin).unwrap();
        assert!(matches!(enter("d", &Wait::spin()), Err(CoresError::TooMany { .. })));
        assert!(matches!(cores.change("t", "x", &spin), Err(CoresError::NoThread { .. })));
    }
}
