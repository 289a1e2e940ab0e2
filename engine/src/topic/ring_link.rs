//! The links of a topic with shared rings of other processes, as the topic's description shows them.

use crate::text;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Which way events go between a topic and a shared ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingDirection {
    /// From the topic into the ring: [`Topic::share`](crate::Topic::share).
    Shared,
    /// From the ring into the topic: [`Topic::feed_from`](crate::Topic::feed_from).
    Fed,
}

/// A link of a topic with a shared ring at one moment: see [`Topic::describe`](crate::Topic::describe).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingLinkDescription {
    /// The name of the shared ring.
    pub ring: String,
    /// Which way events go.
    pub direction: RingDirection,
    /// The link's name: as a consumer of the topic if it shares the topic, as a consumer of the ring if it feeds the topic.
    pub name: String,
    /// Count of events that were handed on since the link was opened.
    pub events: u64,
    /// Count of events that were not handed on, because there was no room and the link's settings or the topic's say so.
    pub lost: u64,
    /// Why the link has ended; `None` while it runs.
    pub ended: Option<String>,
}

impl fmt::Display for RingLinkDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ring, direction, name, events, lost, ended } = self;
        let way = match direction {
            RingDirection::Shared => "shared to",
            RingDirection::Fed => "fed from",
        };
        write!(f, "{way} the ring {ring} as {name}: {events} events, {lost} lost")?;
        match ended {
            Some(why) => write!(f, ", ended: {}", text::line(why)),
            None => Ok(()),
        }
    }
}

/// What a link's thread counts, for its topic and its handles.
pub(crate) struct RingLinkState {
    ring: String,
    name: String,
    direction: RingDirection,
    pub(crate) events: AtomicU64,
    pub(crate) lost: AtomicU64,
    ended: Mutex<Option<String>>,
}

impl RingLinkState {
    pub(crate) fn new(ring: &str, name: &str, direction: RingDirection) -> Arc<Self> {
        let (events, lost) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self {
            ring: ring.to_owned(),
            name: name.to_owned(),
            direction,
            events,
            lost,
            ended: Mutex::default(),
        })
    }

    fn ended(&self) -> MutexGuard<'_, Option<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn end(&self, why: String) {
        *self.ended() = Some(why);
    }

    pub(crate) fn describe(&self) -> RingLinkDescription {
        RingLinkDescription {
            ring: self.ring.clone(),
            direction: self.direction,
            name: self.name.clone(),
            events: self.events.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
            ended: self.ended().clone(),
        }
    }
}

/// The links of a topic, running or ended. One that has ended is shown until another is opened.
#[derive(Default)]
pub(crate) struct RingLinks(Mutex<Vec<Arc<RingLinkState>>>);

impl RingLinks {
    pub(crate) fn add(&self, link: &Arc<RingLinkState>) {
        let mut links = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|known| known.ended().is_none());
        links.push(Arc::clone(link));
    }

    pub(crate) fn describe(&self) -> Vec<RingLinkDescription> {
        let links = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        links.iter().map(|link| link.describe()).collect()
    }
}
