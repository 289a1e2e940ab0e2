//! An engine's settings, and how it is built.

use super::{Engine, EngineError};
use crate::base::clock::{Blamed, Clock, SystemClock};
use crate::base::cores::{CorePlan, Cores};
use crate::log::committer::{Committer, Pace};
use crate::topic::error::Contradiction;
use crate::topic::registry::Registry;
use slipring_journal::storage::{Disk, Storage};
use slipring_journal::{DiskError, OpenError, Options, Progress};
#[cfg(feature = "observe")]
use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Starts what shows an engine to other processes. What it returns ends that when it is dropped.
#[cfg(feature = "observe")]
pub(crate) type StartObserver =
    Box<dyn FnOnce(&Arc<Registry>) -> Result<Box<dyn Any + Send + Sync>, EngineError> + Send>;

/// Settings of an [`Engine`].
#[derive(Default)]
pub struct EngineBuilder {
    clock: Option<Arc<dyn Clock>>,
    cores: CorePlan,
    /// Starts what shows the engine to other processes.
    #[cfg(feature = "observe")]
    pub(crate) observer: Option<StartObserver>,
    storage: Option<Arc<dyn Storage>>,
    /// A journal was named twice.
    two_journals: bool,
    options: Options,
    pace: Pace,
    recovering: Option<Box<dyn FnMut(Progress) + Send>>,
}

impl fmt::Debug for EngineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineBuilder").finish_non_exhaustive()
    }
}

impl EngineBuilder {
    /// The clock for all that depends on a time: a [`SystemClock`] unless told. A [`ManualClock`](crate::clock::ManualClock)
    /// puts time into a test's hands. How long a poll or a publish waits is measured by the system's clock all the
    /// same.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.clock = Some(Arc::new(Blamed(Arc::new(clock))));
        self
    }

    /// Who runs on which core, for all consumers with threads of their own. Without a plan they say it themselves, and more
    /// spinning threads than cores are refused all the same.
    pub fn cores(mut self, plan: CorePlan) -> Self {
        self.cores = plan;
        self
    }

    /// A journal in the directory `path`, which is made if it is not there: topics can be
    /// [durable](crate::TopicBuilder::durable) then.
    pub fn journal(self, path: impl Into<PathBuf>) -> Self {
        self.journal_in(Disk::new(path))
    }

    /// A journal in any storage: a [`SimulatedDisk`](crate::journal::simulated::SimulatedDisk) for tests.
    pub fn journal_in(mut self, storage: impl Storage) -> Self {
        self.two_journals = self.storage.replace(Arc::new(storage)).is_some();
        self
    }

    /// Size of the journal's segments, and how its payload is packed.
    pub fn journal_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How the journal groups events and syncs.
    pub fn journal_pace(mut self, pace: Pace) -> Self {
        self.pace = pace;
        self
    }

    /// Calls `hear` now and then while [`build`](Self::build) reads the journal, on the same thread: after a crash there may
    /// be much to be read again. Not at all where nothing was.
    pub fn recovering(mut self, hear: impl FnMut(Progress) + Send + 'static) -> Self {
        self.recovering = Some(Box::new(hear));
        self
    }

    /// Builds the engine. It has no topics yet, and no threads but the journal's, if it has one.
    ///
    /// # Errors
    /// The journal was not opened: somebody has it, it is damaged, or the disk refuses. Or the plan of cores cannot be
    /// kept, or the socket to observe it at could not be made.
    pub fn build(self) -> Result<Engine, EngineError> {
        if self.two_journals {
            return Err(Contradiction::new("the engine", "one journal", "another journal").into());
        }
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::default()));
        let cores = Cores::new(self.cores).map_err(EngineError::Cores)?;
        let mut recovered = None;
        let committer = match self.storage {
            Some(storage) => {
                let mut hear = self.recovering.unwrap_or_else(|| Box::new(|_| ()));
                let (writer, found) = slipring_journal::open_with(Arc::clone(&storage), self.options, &mut hear)?;
                let state = found.state.clone();
                recovered = Some(Arc::new(found));
                let started = Committer::start(writer, state, Arc::clone(&clock), self.pace);
                let failed = |cause| DiskError::new("start a thread for", storage.name(), &cause);
                Some(started.map_err(|cause| OpenError::Disk(failed(cause)))?)
            }
            None => None,
        };
        let shared = Registry::new(clock, cores, committer, recovered);
        #[cfg(feature = "observe")]
        if let Some(start) = self.observer {
            let _ = shared.observer.set(start(&shared)?);
        }
        Ok(Engine { shared })
    }
}
