//! The handle of a bridge, and how the bridge is.

use crate::stopped::Stopped;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How far a bridge has come in one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionStatus {
    /// The partition's number.
    pub partition: u32,
    /// The offset after the last record that the stream has confirmed.
    pub replicated: u64,
    /// The offset after the last record that is durable here.
    pub durable: u64,
}

/// How a bridge is: see [`Bridge::status`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Why the bridge has stopped; `None` while it runs.
    pub stopped: Option<Stopped>,
    /// The last error that the bridge tries to get over; `None` if it works.
    pub error: Option<String>,
    /// Each partition.
    pub partitions: Vec<PartitionStatus>,
    /// How many records were skipped.
    pub skipped: u64,
    /// How many records were passed over since the start, as an import has brought them.
    pub passed: u64,
    /// The bytes of the records that are durable here and not replicated; `None` while they are not all read yet.
    pub lag_bytes: Option<u64>,
    /// How long records have been durable here and not replicated; `None` if all are replicated.
    pub lag_time: Option<Duration>,
}

/// What the handle and the thread share.
#[derive(Default)]
pub(crate) struct Shared {
    ends: AtomicBool,
    status: Mutex<Status>,
}

impl Shared {
    /// True once the handle was ended or dropped.
    pub(crate) fn ends(&self) -> bool {
        self.ends.load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A bridge that copies a topic of messages to other machines, until it is ended or dropped.
///
/// It has a thread of its own. What is not copied when it ends is copied by the next bridge of the same name. Dropping it ends
/// it too, but does not wait: the attachment to the topic may last a few seconds longer.
pub struct Bridge {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Bridge {
    pub(crate) fn new(shared: Arc<Shared>, thread: JoinHandle<()>) -> Self {
        Self { shared, thread: Some(thread) }
    }

    /// How the bridge is.
    pub fn status(&self) -> Status {
        self.shared.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the bridge: waits up to a second for confirmations of what is in flight, records the position in the journal,
    /// and ends the attachment to the topic. Returns how the bridge was. A server that does not answer delays this by a few
    /// seconds.
    pub fn end(mut self) -> Status {
        self.shared.ends.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has ended the attachment already.
            let _ = thread.join();
        }
        self.status()
    }

    /// Why the bridge has stopped; `None` while it runs.
    pub fn stopped(&self) -> Option<Stopped> {
        self.status().stopped
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Release);
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Bridge({:?})", self.status())
    }
}
