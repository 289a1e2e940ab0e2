//! The thread of a conflating subscriber, which reads every event and keeps the newest of each key.

use super::ConflateError;
use super::mailbox::Mailbox;
use super::newest::NewestEvents;
use crate::base::kind::Producers;
use crate::base::threads::caught;
use crate::event::keep::Keep;
use crate::read::{PAUSE, Subscriber, reader_thread};
use crate::topic::consumers::SetWait;
use crate::topic::error::SubscribeError;
use foldhash::fast::RandomState;
use slipring_ring::{Ending, Wait};
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

/// The greatest count of events that are gathered before a reader that sleeps can get them, and before a producer that needs
/// their slots can have them.
pub(super) const PART: usize = 1024;

/// The most parts that are gathered, while more is there and no reader sleeps, before the reader can get them: each key is moved
/// into its box once then, however often it has changed. Fewer where the box may have more keys than it may hold.
const PARTS_LEFT: usize = 16;

/// The mailbox between the thread and the reader. It ends with `Ok` if the topic was closed and read to its end.
pub(super) type EventMailbox<Q, E> = Mailbox<NewestEvents<Q, E>, Result<(), ConflateError>>;

/// The settings of the thread.
pub(super) struct GathererSettings {
    pub(super) core: Option<usize>,
    pub(super) wait: Wait,
    /// The greatest count of keys that the mailbox may hold.
    pub(super) keys: usize,
    /// The hasher of every box of the mailbox: their contents are merged.
    pub(super) hasher: RandomState,
}

/// Starts the thread that reads `subscriber` and leaves the events in `mailbox`.
pub(super) fn start<E, K, Q>(
    mut subscriber: Subscriber<E, K>,
    settings: GathererSettings,
    mut key: impl FnMut(&E) -> Q + Send + 'static,
    mailbox: Arc<EventMailbox<Q, E>>,
) -> Result<(), SubscribeError>
where
    E: Keep + Send + Sync + 'static,
    K: Producers,
    Q: Hash + Eq + Send + Sync + 'static,
{
    let GathererSettings { core, wait, keys, hasher } = settings;
    let (topic, stats) = (Arc::clone(&subscriber.topic), Arc::clone(&subscriber.membership.stats));
    let membership = Arc::downgrade(&subscriber.membership) as Weak<dyn SetWait>;
    let run = move || {
        let gathered =
            caught(|| gather(&mut subscriber, &mut key, &mailbox, (keys, &hasher))).unwrap_or_else(|panic| {
                let (topic, consumer) = (subscriber.topic.name.clone(), subscriber.name().to_owned());
                Err(ConflateError::Panicked { topic, consumer, cause: panic.said() })
            });
        let ending = match &gathered {
            Ok(()) => Ending::Drained,
            Err(ConflateError::Read(refused)) => Ending::Stopped(refused.reason.to_string()),
            Err(refused) => Ending::Failed(refused.to_string()),
        };
        let parts = subscriber.parts.iter();
        let consumed = parts.map(|part| (part.partition.index, part.consumer.consumed().0)).collect();
        drop(subscriber);
        let is_cancelled = mailbox.is_abandoned();
        // The reader that gets the end finds the name free. Dropping the user's function may panic, so it comes last.
        let tell = Box::new(move || {
            mailbox.end(gathered);
            drop(key);
        });
        reader_thread::End { ending, consumed, is_cancelled, tell }
    };
    reader_thread::start(&topic, stats, Some(membership), (core, wait), run)
}

fn gather<E, K, Q>(
    subscriber: &mut Subscriber<E, K>,
    key: &mut impl FnMut(&E) -> Q,
    mailbox: &EventMailbox<Q, E>,
    (keys, hasher): (usize, &RandomState),
) -> Result<(), ConflateError>
where
    E: Keep + Send + Sync + 'static,
    K: Producers,
    Q: Hash + Eq,
{
    let mut part = Box::new(NewestEvents::new(hasher.clone()));
    let mut next: Vec<u64> = subscriber.parts.iter().map(|part| part.consumer.consumed().0).collect();
    // The parts since the box was left, and the most keys that it can hold: it had so many then, and the reader may have taken it.
    let (mut parts, mut held) = (0, 0);
    loop {
        let (mut read, mut over) = (None, None);
        match subscriber.poll(if parts > 0 { PAUSE } else { Duration::MAX }) {
            Ok(Some(mut batch)) => {
                if mailbox.is_abandoned() {
                    return Ok(());
                }
                let partition = batch.partition() as usize;
                for (event, at) in &mut batch {
                    part.put(key(event), event, at);
                    read = Some((partition, at.offset));
                }
            }
            Ok(None) => over = Some(Ok(())),
            Err(refused) => over = Some(Err(refused.into())),
        }
        if let Some((partition, last)) = read {
            if next.len() <= partition {
                // A partition that was added is read from its first offset, which is 0 unless the topic was opened again.
                next.extend(subscriber.parts[next.len()..].iter().map(|part| part.consumer.consumed().0));
            }
            next[partition] = last + 1;
            parts += 1;
            let is_within = held + part.entries().len() <= keys;
            if is_within && parts < PARTS_LEFT && !mailbox.is_awaited() {
                continue;
            }
        }
        if parts > 0 {
            parts = 0;
            part.next.clone_from(&next);
            held = part.entries().len();
            let merge = |left: &mut NewestEvents<Q, E>, newer: &mut NewestEvents<Q, E>| {
                left.absorb(newer);
                held = left.entries().len();
            };
            mailbox.leave(&mut part, merge, || NewestEvents::new(hasher.clone()));
            if held > keys {
                let (topic, consumer) = (subscriber.topic.name.clone(), subscriber.name().to_owned());
                return Err(ConflateError::TooManyKeys { topic, consumer, limit: keys });
            }
        }
        if let Some(over) = over {
            return over;
        }
    }
}
