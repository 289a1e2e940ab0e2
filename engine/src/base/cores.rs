//! A plan of cores for all consumers of an engine: who runs where, and who keeps a core to itself.
//!
//! A consumer that spins without end ([`busy_spin`](slipring_ring::Wait::busy_spin), [`spin`](slipring_ring::Wait::spin))
//! takes a core. With more of them than cores, each waits for the others' turns and all are slow: so that is refused
//! before a thread is started, unless told otherwise. (`spin_yield` gives its core away on demand, and is made for that.)

use slipring_ring::Wait;
use slipring_ring::pin::{PinError, allowed_cores, cores_of_this_thread};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Cores and ways of waiting for consumers by their names, whichever topics they read.
///
/// A consumer's own [`pin`](crate::subscriber::SubscriberBuilder::pin) and [`wait`](crate::subscriber::SubscriberBuilder::wait) come first.
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
    /// A plan for nobody: consumers say all themselves, and more spinning threads than cores are refused.
    pub fn new() -> Self {
        Self::default()
    }

    /// Pins the thread of this consumer to this core, by the system's number.
    pub fn pin(mut self, consumer: impl Into<String>, core: usize) -> Self {
        self.pins.insert(consumer.into(), core);
        self
    }

    /// How this consumer waits.
    pub fn wait(mut self, consumer: impl Into<String>, wait: Wait) -> Self {
        self.waits.insert(consumer.into(), wait);
        self
    }

    /// Lets more threads spin than there are cores, and several on one core.
    pub fn oversubscribe(mut self) -> Self {
        self.oversubscribe = true;
        self
    }

    /// Whether the plan can be kept at all.
    fn check(&self, allowed: &[usize]) -> Result<(), CoresError> {
        for (consumer, &core) in &self.pins {
            if !allowed.is_empty() && !allowed.contains(&core) {
                let cause = PinError::Refused { asked: core, allowed: allowed.to_vec() };
                return Err(CoresError::Core { consumer: consumer.clone(), cause });
            }
        }
        let spinning = self.waits.iter().filter(|(_, wait)| spins(wait));
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
        let spinning = || there.iter().filter(|entry| spins(&entry.wait));
        let on_the_same = |entry: &&ThreadEntry| core.is_some() && entry.core == core;
        let mut in_the_way = there.iter().filter(|entry| spins_too || spins(&entry.wait)).filter(on_the_same);
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

/// Whether a strategy never lets its core go.
fn spins(wait: &Wait) -> bool {
    matches!(&*wait.to_string(), "busy-spin" | "spin")
}

/// A thread would not have the core that it needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CoresError {
    /// One more thread would spin than there are cores.
    #[error(
        "consumer {consumer:?} would spin, and {others:?} spin already on {cores} cores: let one of them park or yield, or say `CorePlan::oversubscribe`"
    )]
    TooMany {
        /// The consumer.
        consumer: String,
        /// The cores of this process.
        cores: usize,
        /// Who spins already.
        others: Vec<String>,
    },
    /// A thread that spins would share its core with another one that is pinned there.
    #[error(
        "consumer {consumer:?} was to be pinned to core {core}, which it would share with {other:?} while one of them spins: take another core, let it park, or say `CorePlan::oversubscribe`"
    )]
    CoreTaken {
        /// The consumer.
        consumer: String,
        /// The core.
        core: usize,
        /// Who is there.
        other: String,
    },
    /// There is no such core for this process.
    #[error("consumer {consumer:?}: {cause}")]
    Core {
        /// The consumer.
        consumer: String,
        /// The core that was asked for, and the cores that are allowed.
        cause: PinError,
    },
    /// No thread of this consumer runs.
    #[error("consumer {consumer:?} has no thread whose way of waiting could be changed")]
    NoThread {
        /// The consumer.
        consumer: String,
    },
}

/// The threads of an engine's consumers at a moment: [`Engine::cores`](crate::Engine::cores).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CoresReport {
    /// The cores that this process may use.
    pub cores: Vec<usize>,
    /// In the order of their start.
    pub threads: Vec<ThreadReport>,
}

/// A consumer's thread.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ThreadReport {
    /// The topic; empty for a member of a group, which may read several.
    pub topic: String,
    /// The consumer.
    pub consumer: String,
    /// The thread's name, as `top -H` shows it: 15 bytes at most.
    pub name: String,
    /// The only core that it may run on: its own pin, or that of the thread which started it. None if it has as many as the
    /// process.
    pub core: Option<usize>,
    /// The cores that it may run on, read back on the thread itself; empty where the system does not say.
    pub cores: Vec<usize>,
    /// How it waits.
    pub wait: Wait,
    /// Whether it keeps a core busy for as long as it waits.
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
    /// The only core that it may run on.
    core: Option<usize>,
    /// All of these; empty where the system does not say.
    cores: Vec<usize>,
    wait: Wait,
}

/// Who has which core now.
pub(crate) struct Cores {
    plan: CorePlan,
    allowed: Vec<usize>,
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

    /// The only core of a thread that has fewer than the process. Where the process has one alone, no thread is pinned there.
    fn only(&self, cores: &[usize]) -> Option<usize> {
        if let ([only], true) = (cores, self.allowed.len() > 1) { Some(*only) } else { None }
    }

    /// The core and the way of waiting that the plan has for a consumer.
    pub(crate) fn planned(&self, consumer: &str) -> (Option<usize>, Option<Wait>) {
        (self.plan.pins.get(consumer).copied(), self.plan.waits.get(consumer).cloned())
    }

    /// A thread is about to start. Its place is free again when the ticket goes.
    pub(crate) fn enter(
        &self,
        topic: &str,
        consumer: &str,
        thread: &str,
        core: Option<usize>,
        wait: &Wait,
    ) -> Result<CoreTicket, CoresError> {
        // Without a pin of its own the thread inherits that of the thread which starts it: this one.
        let cores = core.map_or_else(cores_of_this_thread, |core| vec![core]);
        self.admit_thread(topic, consumer, thread, (core, cores), wait)
    }

    /// Admits a thread that is pinned to `core`, or may run on `cores` if it is not pinned.
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
        self.plan.admit(&entries.1, &self.allowed, consumer, core, spins(wait))?;
        entries.0 += 1;
        let (number, wait) = (entries.0, wait.clone());
        entries.1.push(ThreadEntry { number, topic, consumer: consumer.to_owned(), thread, core, cores, wait });
        Ok(CoreTicket { cores: Weak::clone(&self.this), number })
    }

    /// A consumer's threads are about to wait in another way.
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
            admitted =
                admitted.and_then(|()| self.plan.admit(&others, &self.allowed, consumer, entry.core, spins(wait)));
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
            spins: spins(&entry.wait),
        });
        CoresReport { cores: self.allowed.clone(), threads: threads.collect() }
    }
}

/// A thread's place among the cores.
pub(crate) struct CoreTicket {
    cores: Weak<Cores>,
    number: u64,
}

impl CoreTicket {
    /// On the thread itself: notes where it may really run.
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
            // Dropped outside of the lock: a waiting strategy may be the user's.
            let gone: Vec<_> = cores.entries().1.extract_if(.., |entry| entry.number == self.number).collect();
            drop(gone);
        }
    }
}

/// The longest name of a thread that the system keeps.
const LONGEST: usize = 15;

/// A thread's name as the system shows it: the beginning and the end of a long one, so that `billing-consumer-1` and
/// `billing-consumer-2` stay two.
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
        // Two cores, and as many on a machine that allows only one.
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
