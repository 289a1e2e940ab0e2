//! The registry of an engine's topics by name, and the engine's services for topics: clock, timer, journal, groups.

use super::attached::AttachedGroups;
use super::{AnyTopic, Shape, Topic};
use crate::base::by_name::ByName;
use crate::base::clock::Clock;
use crate::base::cores::Cores;
use crate::base::ids::TopicId;
use crate::base::kind::Producers;
use crate::base::timer::Timer;
use crate::base::trace::lifecycle;
use crate::log::catalog::{CatalogEntry, state_kind};
use crate::log::committer::Committer;
use crate::topic::error::TopicError;
use slipring_journal::Recovered;
use slipring_ring::OnError;
#[cfg(feature = "observe")]
use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::Duration;

/// The topics of an engine by name, and the engine's services.
pub(crate) struct Registry {
    topics: Mutex<Topics>,
    /// Notified when a topic was created or deleted, when its creation failed, and at the engine's shutdown.
    pub(crate) settled: Condvar,
    pub(crate) host: Arc<Host>,
    /// The observing socket, which shows the engine to other processes; it is closed when the engine's last handle is
    /// dropped. Unset if the engine has none.
    #[cfg(feature = "observe")]
    pub(crate) observer: OnceLock<Box<dyn Any + Send + Sync>>,
    pub(crate) recovered: Option<Arc<Recovered>>,
}

/// The engine's services for its topics: clock, timer, journal, groups.
pub(crate) struct Host {
    /// The registry of the engine's topics, through which one topic finds another.
    engine: Weak<Registry>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) timer: Arc<Timer>,
    pub(crate) cores: Arc<Cores>,
    /// The error policy of managed consumers, unless they or their topics have one.
    pub(crate) on_error: OnError,
    /// All groups of the engine. Unset until groups are used for the first time, for example when a member joins.
    pub(crate) groups: OnceLock<Box<dyn AttachedGroups>>,
    pub(crate) committer: Option<Arc<Committer>>,
    /// True once the timer applies the topics' retention to the journal, every [`RETAIN`].
    retains: AtomicBool,
    /// The highest lease number of all deleted queues, so that later queues give higher numbers.
    pub(crate) lease_numbers: AtomicU64,
}

/// The interval at which the topics' retention is applied to the journal.
const RETAIN: Duration = Duration::from_secs(60);

impl Host {
    /// Starts applying the topics' retention at the interval [`RETAIN`]. Does nothing if it was started before.
    pub(crate) fn start_retention(self: &Arc<Self>) {
        if !self.retains.swap(true, Ordering::Relaxed) {
            self.retain_later();
        }
    }

    /// Starts forgetting groups that have had no member for `limit`. The timer must be started.
    pub(crate) fn expire_groups(self: &Arc<Self>, limit: Duration) {
        self.expire_groups_later(limit, self.clock.now());
    }

    fn expire_groups_later(self: &Arc<Self>, limit: Duration, opened: Duration) {
        let host = Arc::downgrade(self);
        // The interval between two checks. A group's time begins at the first check that finds it without members, so a
        // group may be forgotten up to two intervals late.
        self.timer.after((limit / 8).max(Duration::from_secs(1)).min(limit), move || {
            let Some(host) = host.upgrade() else { return };
            if let Some(groups) = host.groups.get() {
                groups.expire(host.clock.now(), limit, opened, host.committer.as_deref());
            }
            host.expire_groups_later(limit, opened);
        });
    }

    fn retain_later(self: &Arc<Self>) {
        let host = Arc::downgrade(self);
        self.timer.after(RETAIN, move || {
            let Some(host) = host.upgrade() else { return };
            if let Some(committer) = &host.committer {
                drop(committer.retain_soon());
            }
            host.retain_later();
        });
    }

    /// The entry of the durable topic `name` in the journal's catalogue; `None` if the journal has no such topic or the
    /// engine has no journal.
    pub(crate) fn recorded(&self, name: &str) -> Option<CatalogEntry> {
        let committer = self.committer.as_ref()?;
        committer.recovered_state().get(state_kind::TOPICS, name.as_bytes()).and_then(CatalogEntry::decode)
    }

    /// The registry of the engine's topics.
    ///
    /// # Errors
    /// All handles of the engine were dropped.
    pub(crate) fn engine(&self) -> Result<Arc<Registry>, TopicError> {
        self.engine.upgrade().ok_or(TopicError::ShutDown)
    }

    /// Adds a topic that was created to the groups whose members' patterns find it. Calls user code.
    fn announce(&self, topic: &Arc<dyn AnyTopic>) {
        if let Some(groups) = self.groups.get() {
            groups.announce(&Arc::clone(topic).into_any());
        }
    }

    /// Lets the members of groups that wait for topics which are created later end, because the engine creates no more.
    pub(crate) fn end_patterns(&self) {
        if let Some(groups) = self.groups.get() {
            groups.end_patterns();
        }
    }

    /// Removes the state that groups have of a deleted topic.
    pub(crate) fn forget(&self, topic: TopicId) {
        if let Some(groups) = self.groups.get() {
            groups.forget(topic);
        }
    }
}

impl Drop for Host {
    /// Makes the committer write all published events and close the journal. The last handle of the engine and of its
    /// topics was dropped, so no event can be published any more.
    fn drop(&mut self) {
        if let Some(committer) = &self.committer {
            committer.leave();
        }
    }
}

#[derive(Default)]
pub(crate) struct Topics {
    /// The open topics, listed in the order of their creation.
    pub(crate) open: ByName<Arc<dyn AnyTopic>>,
    /// The names of topics that are being created or deleted.
    busy: Vec<BusyName>,
    pub(crate) shut_down: bool,
}

/// The name of a topic that is being created or deleted by the thread `by`. It reserves the name without a lock,
/// because creating a topic runs user code.
struct BusyName {
    name: String,
    shape: String,
    by: ThreadId,
}

/// A reserved name of a topic. Dropping this frees the name, and wakes the threads that wait for it.
pub(crate) struct ReservedName<'s> {
    shared: &'s Registry,
    name: &'s str,
}

impl Drop for ReservedName<'_> {
    fn drop(&mut self) {
        self.shared.topics().busy.retain(|busy| busy.name != self.name);
        self.shared.settled.notify_all();
    }
}

impl Registry {
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        cores: Arc<Cores>,
        on_error: OnError,
        committer: Option<Arc<Committer>>,
        recovered: Option<Arc<Recovered>>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|engine| {
            let engine = Weak::clone(engine);
            let timer = Arc::new(Timer::new(Arc::clone(&clock)));
            let (groups, retains) = (OnceLock::new(), AtomicBool::new(false));
            let lease_numbers = AtomicU64::new(0);
            let host =
                Arc::new(Host { engine, timer, clock, cores, on_error, groups, committer, retains, lease_numbers });
            Self {
                topics: Mutex::default(),
                settled: Condvar::new(),
                host,
                recovered,
                #[cfg(feature = "observe")]
                observer: OnceLock::new(),
            }
        })
    }

    pub(crate) fn topics(&self) -> MutexGuard<'_, Topics> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The open topics in the order of their creation.
    pub(crate) fn open(&self) -> Vec<Arc<dyn AnyTopic>> {
        self.topics().open.values().cloned().collect()
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<dyn AnyTopic>, TopicError> {
        let topics = self.topics();
        match topics.open.get(name) {
            Some(found) => Ok(Arc::clone(found)),
            None => {
                let known = topics.open.values().map(|topic| topic.name().to_owned()).collect();
                Err(TopicError::Unknown { name: name.to_owned(), known })
            }
        }
    }

    /// The topic `name`, with its partitions. An error if there is no such topic, its events are not of type `E`, its
    /// producers not of kind `K`, or its partitions cannot be made.
    pub(crate) fn get<E: Send + Sync + 'static, K: Producers>(&self, name: &str) -> Result<Topic<E, K>, TopicError> {
        let topic = self.get_deferred(name)?;
        topic.inner.make_deferred()?;
        Ok(topic)
    }

    /// As [`get`](Self::get), but does not make the partitions of a topic that has none yet: see
    /// [`deferred`](super::deferred).
    pub(crate) fn get_deferred<E: Send + Sync + 'static, K: Producers>(
        &self,
        name: &str,
    ) -> Result<Topic<E, K>, TopicError> {
        let found = self.find(name)?;
        Topic::of(Arc::clone(&found)).ok_or_else(|| {
            let asked =
                Shape { event: std::any::type_name::<E>(), single_producer: K::SINGLE, ..found.shape().clone() };
            let (there, asked) = (found.shape().to_string(), asked.to_string());
            TopicError::OtherShape { name: name.to_owned(), there, asked }
        })
    }

    /// Removes a topic. Its name stays reserved until the returned value is dropped, which the caller does once the
    /// topic is deleted from the journal. `None` if another thread has removed it, and deletes it from the journal: a
    /// topic that has the name by now is another one.
    pub(crate) fn remove<'s>(&'s self, gone: &'s Arc<dyn AnyTopic>) -> Option<ReservedName<'s>> {
        let mut topics = self.topics();
        topics.open.remove_if(gone.name(), |topic| Arc::ptr_eq(topic, gone))?;
        topics.busy.push(BusyName::new(gone.name(), gone.shape()));
        drop(topics);
        lifecycle!(info, "topic deleted", topic = gone.name());
        Some(ReservedName { shared: self, name: gone.name() })
    }

    /// Reserves a name for a new topic. Waits while another thread creates or deletes a topic of this name.
    ///
    /// # Errors
    /// A topic has the name, the calling thread itself is creating a topic of this name, the engine was shut down, or
    /// this would have to wait on one of the journal's own threads.
    fn reserve<'s>(&'s self, name: &'s str, asked: &Shape) -> Result<ReservedName<'s>, TopicError> {
        let own = std::thread::current().id();
        let exists = |there: String| TopicError::Exists { name: name.to_owned(), there, asked: asked.to_string() };
        let mut topics = self.topics();
        loop {
            if topics.shut_down {
                return Err(TopicError::ShutDown);
            }
            if let Some(there) = topics.open.get(name) {
                return Err(exists(there.shape().to_string()));
            }
            match topics.busy.iter().find(|busy| busy.name == name) {
                None => break,
                // The factory of events of the topic that this thread is creating has made this call, which would wait
                // for itself.
                Some(busy) if busy.by == own => return Err(exists(busy.shape.clone())),
                Some(_) if self.host.committer.as_ref().is_some_and(|committer| committer.may_wait().is_err()) => {
                    let cause = crate::base::level::OWN_THREAD.to_owned();
                    return Err(TopicError::Journal { name: name.to_owned(), cause });
                }
                Some(_) => topics = self.settled.wait(topics).unwrap_or_else(PoisonError::into_inner),
            }
        }
        topics.busy.push(BusyName::new(name, asked));
        Ok(ReservedName { shared: self, name })
    }

    pub(crate) fn add(
        &self,
        name: &str,
        asked: &Shape,
        make: impl FnOnce() -> Result<Arc<dyn AnyTopic>, TopicError>,
    ) -> Result<(), TopicError> {
        let _reserved = self.reserve(name, asked)?;
        let topic = make()?;
        // Announced before the engine lists the topic, so that groups read it before a producer can exist, and once more
        // for the members that have joined since.
        self.host.announce(&topic);
        let mut topics = self.topics();
        if topics.shut_down {
            drop(topics);
            topic.halt();
            self.host.forget(topic.id());
            return Err(TopicError::ShutDown);
        }
        topics.open.get_or_add(name.to_owned(), || Arc::clone(&topic));
        drop(topics);
        self.host.announce(&topic);
        Ok(())
    }
}

impl Drop for Registry {
    /// No handle of the engine is left that could create a topic.
    fn drop(&mut self) {
        self.host.end_patterns();
    }
}

impl BusyName {
    fn new(name: &str, shape: &Shape) -> Self {
        Self { name: name.to_owned(), shape: shape.to_string(), by: std::thread::current().id() }
    }
}

#[cfg(test)]
mod tests {
    use crate::Engine;
    use crate::log::catalog::recorded_topics;
    use slipring_journal::simulated::SimulatedDisk;

    /// Of two threads that delete a topic, the second one deleted the journal's entry of a topic that had got the name
    /// meanwhile.
    #[test]
    fn a_topic_is_removed_once() {
        let disk = SimulatedDisk::new();
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let create = || engine.topic::<u64>("ticks").durable().create().unwrap();
        create();
        let found = engine.shared.find("ticks").unwrap();
        engine.delete("ticks").unwrap();
        create();
        assert!(engine.shared.remove(&found).is_none());
        assert_eq!(engine.topics(), ["ticks"]);
        assert!(engine.topic::<u64>("ticks").durable().create().is_err(), "the name is not free");
        let recovered = Engine::builder().journal_in(disk.copy()).build().unwrap().recovered().unwrap();
        assert_eq!(recorded_topics(&recovered.state).len(), 1);
    }
}
