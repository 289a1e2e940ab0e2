//! The builder of an engine: its settings, and how the engine is built from them.

use super::{Engine, EngineError};
use crate::base::clock::{Clock, SystemClock, UserClock};
use crate::base::cores::{CorePlan, Cores};
use crate::group::Groups;
use crate::log::committer::{Committer, Pace};
use crate::log::compaction::TopicCompaction;
use crate::topic::error::Contradiction;
use crate::topic::registry::Registry;
use slipring_journal::storage::{Disk, Storage};
use slipring_journal::{DiskError, OpenError, Options, Progress};
use slipring_ring::OnError;
#[cfg(feature = "observe")]
use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Starts the observing socket of an engine, which shows the engine to other processes. Dropping the returned value
/// closes the socket.
#[cfg(feature = "observe")]
pub(crate) type StartObserver =
    Box<dyn FnOnce(&Arc<Registry>) -> Result<Box<dyn Any + Send + Sync>, EngineError> + Send>;

/// The builder of an [`Engine`]: its clock, journal and core plan.
#[derive(Default)]
pub struct EngineBuilder {
    clock: Option<Arc<dyn Clock>>,
    cores: CorePlan,
    /// Starts the observing socket; `None` if the engine gets none.
    #[cfg(feature = "observe")]
    pub(crate) observer: Option<StartObserver>,
    storage: Option<Arc<dyn Storage>>,
    /// True if a journal was set twice, which [`build`](Self::build) refuses.
    two_journals: bool,
    options: Options,
    pace: Pace,
    recovering: Option<Box<dyn FnMut(Progress) + Send>>,
    /// How long a group without members is kept; `None`: until [`Engine::forget_group`] is called.
    forget_groups_after: Option<Duration>,
    on_error: OnError,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder").finish_non_exhaustive()
    }
}

impl EngineBuilder {
    /// Sets the clock of everything that depends on time; a [`SystemClock`] by default. Tests set a
    /// [`ManualClock`](crate::clock::ManualClock) and move time themselves. The time limit of a waiting poll or publish
    /// is always measured with the operating system's clock.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(UserClock(Arc::new(clock))));
        self
    }

    /// Sets the cores and wait strategies of all consumer threads. Default: an empty plan, with which each consumer's
    /// own settings apply. Any plan refuses more spinning threads than cores, unless it
    /// [allows](CorePlan::oversubscribe) them.
    pub fn cores(mut self, plan: CorePlan) -> Self {
        self.cores = plan;
        self
    }

    /// Puts a journal into the directory `path`, which is created if it does not exist. Topics can then be
    /// [durable](crate::TopicBuilder::durable).
    pub fn journal(self, path: impl Into<PathBuf>) -> Self {
        self.journal_in(Disk::new(path))
    }

    /// Puts a journal into any storage, such as a [`SimulatedDisk`](crate::journal::simulated::SimulatedDisk) in tests.
    pub fn journal_in(mut self, storage: impl Storage) -> Self {
        self.two_journals = self.storage.replace(Arc::new(storage)).is_some();
        self
    }

    /// Sets the options of the journal, such as the size of its segments and the compression of its records.
    pub fn journal_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Sets how the journal gathers events into frames, and when it syncs them.
    pub fn journal_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Forgets each group that has had no member for `limit`, as [`Engine::forget_group`] does: its committed offsets
    /// are deleted, also from the journal, and a member that joins under its name begins a new group. Default: no group
    /// is forgotten. A group that [holds](crate::group::GroupBuilder::hold) producers back stays.
    ///
    /// The engine checks its groups at an interval of an eighth of `limit`, or of one second if that is more, but at
    /// most of `limit`. The time without members begins, by the engine's clock, at the first check that finds none, so
    /// a group may be forgotten up to two intervals late. For a group that only the journal has, the time begins when
    /// the engine is opened. So a program that is always restarted before `limit` has passed forgets no group.
    ///
    /// A group without members takes some kilobytes of memory and, for each partition of a durable topic, 32 bytes and
    /// the group's name at the beginning of each of the journal's segments. So set a limit if the program makes up new
    /// names of groups again and again.
    ///
    /// ```
    /// # use slipring::{Engine, clock::ManualClock};
    /// # use std::time::Duration;
    /// let clock = ManualClock::new();
    /// let engine = Engine::builder().clock(clock.clone()).forget_groups_after(Duration::from_secs(3600)).build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// drop(ticks.group("one-off-4711").join()?);
    /// assert_eq!(engine.groups().len(), 1);
    /// for _ in 0..10 { clock.advance(Duration::from_secs(450)); }
    /// assert!(engine.groups().is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn forget_groups_after(mut self, limit: Duration) -> Self {
        self.forget_groups_after = Some(limit);
        self
    }

    /// Sets what happens when a handler of a managed subscriber or group member fails, in all topics, unless the
    /// [topic](crate::TopicBuilder::on_error) or the consumer has a policy of its own. Default: [`OnError::Stop`]: the topic
    /// is closed with the subscriber's name and the cause; a member leaves its group.
    ///
    /// ```
    /// use slipring::{Engine, subscriber::OnError};
    /// # use std::time::Duration;
    /// let engine = Engine::builder().on_error(OnError::Skip).build()?;
    /// let ticks = engine.topic::<u64>("ticks").create()?;
    /// ticks.subscribe("even").run(|tick, _| if tick % 2 == 0 { Ok(()) } else { Err("odd") })?;
    /// ticks.producer().create()?.publish(|tick| *tick = 3)?;
    /// let report = engine.shutdown(Duration::from_secs(5));
    /// assert_eq!(report.topics[0].consumers[0].skipped, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_error(mut self, policy: OnError) -> Self {
        self.on_error = policy;
        self
    }

    /// Sets a function that [`build`](Self::build) calls with its progress while it reads the journal, about once for
    /// each MiB, on the thread that calls `build`. Reading may take a while after a crash. If nothing has to be read,
    /// the function is not called.
    pub fn recovering(mut self, hear: impl FnMut(Progress) + Send + 'static) -> Self {
        self.recovering = Some(Box::new(hear));
        self
    }

    /// Builds the engine. It has no topics yet, and no threads except the journal's.
    ///
    /// # Errors
    /// The journal cannot be opened, because another program has it open, it is damaged, or the disk fails; the [core
    /// plan](Self::cores) asks for a core that is not allowed, or for too many spinning threads; the observing socket
    /// cannot be created; or two settings contradict one another.
    pub fn build(self) -> Result<Engine, EngineError> {
        if self.two_journals {
            return Err(Contradiction::new("the engine", "one journal", "another journal").into());
        }
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let cores = Cores::new(self.cores).map_err(EngineError::Cores)?;
        let mut recovered = None;
        let committer = match self.storage {
            Some(storage) => {
                let mut report = self.recovering.unwrap_or_else(|| Box::new(|_| ()));
                let (writer, found) = slipring_journal::open_with(Arc::clone(&storage), self.options, &mut report)?;
                let state = found.state.clone();
                recovered = Some(Arc::new(found));
                let started = Committer::start(writer, state, Arc::clone(&clock), self.pace);
                let failed = |cause| DiskError::new("start a thread for", storage.name(), &cause);
                Some(started.map_err(|cause| OpenError::Disk(failed(cause)))?)
            }
            None => None,
        };
        let shared = Registry::new(clock, cores, self.on_error, committer, recovered);
        let recorded =
            shared.host.committer.as_ref().map(|committer| TopicCompaction::all(&committer.recovered_state()));
        if recorded.is_some_and(|topics| !topics.is_empty()) {
            shared.host.timer.start().map_err(EngineError::Timer)?;
            shared.host.start_retention();
        }
        if let Some(limit) = self.forget_groups_after {
            shared.host.timer.start().map_err(EngineError::Timer)?;
            // Makes the list of groups, without which the timer forgets none. Groups that only the journal has must
            // be forgotten even if no member ever joins a group.
            let _ = Groups::of(&shared.host);
            shared.host.expire_groups(limit);
        }
        #[cfg(feature = "observe")]
        if let Some(start) = self.observer {
            let _ = shared.observer.set(start(&shared)?);
        }
        Ok(Engine { shared })
    }
}
