//! Messages with keys as contenders: through a topic of four partitions, and as vectors through a channel.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slipring::{Engine, Message, Record, TopicBuilder, producer::Producers};

use super::contender::Measure;
use super::link::{NoFigure, Round, StartLine, Work, join};
use super::ours::wait;
#[cfg(feature = "rivals")]
use super::waiting::{WaitClass, Waiting};
use crate::ours::engine_refused;
use crate::scenario::Scenario;

/// Bytes of a message's value.
pub const VALUE: usize = 128;
const PARTITIONS: usize = 4;
const KEYS: usize = 1024;

/// The keys, which are made before the clock starts.
fn keys() -> Vec<String> {
    (0..KEYS).map(|key| format!("account-{key}")).collect()
}

/// Fills a value with the number in every word.
#[inline(always)]
fn fill(value: &mut [u8; VALUE], number: u64) {
    for word in value.chunks_exact_mut(8) {
        word.copy_from_slice(&number.to_le_bytes());
    }
}

/// The check of the messages that arrived.
#[derive(Default)]
struct Seen {
    count: u64,
    /// The sum of all words.
    sum: u64,
    /// True if a message had the key of another one, or a value that is not whole words.
    astray: bool,
}

impl Seen {
    #[inline(always)]
    fn see(&mut self, key: &[u8], value: &[u8], keys: &[String]) {
        self.count += 1;
        let (words, rest) = value.as_chunks::<8>();
        let first = words.first().map_or(0, |word| u64::from_le_bytes(*word));
        self.sum = words.iter().fold(self.sum, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
        self.astray |= !rest.is_empty() || key != keys[first as usize % KEYS].as_bytes();
    }

    fn verdict(&self, each: u64) -> Result<(), NoFigure> {
        let sum = (u128::from(each) * u128::from(each.saturating_sub(1)) / 2 * (VALUE as u128 / 8)) as u64;
        match (self.count, self.sum, self.astray) {
            (count, total, false) if count == each && total == sum => Ok(()),
            (count, ..) => Err(NoFigure::Wrong(format!("{count} messages of {each} arrived, or some were damaged"))),
        }
    }
}

/// Measures one round of one producer and one consumer, each on its own core.
fn round<S: Send + 'static, R: Send + 'static>(
    work: &Work,
    mut sender: S,
    mut receiver: R,
    send: impl Fn(&mut S, &str, &[u8; VALUE]) + Send + 'static,
    receive: impl Fn(&mut R, u64, &mut dyn FnMut(&mut dyn FnMut(&mut Seen))) + Send + 'static,
) -> Result<Round, NoFigure> {
    let line = StartLine::new(2);
    let each = work.each;
    let producer = {
        let (line, core) = (Arc::clone(&line), work.pins.producer(0));
        std::thread::spawn(move || {
            let (keys, mut value) = (keys(), [0; VALUE]);
            line.take_place(core).then(|| {
                let begun = Instant::now();
                for number in 0..each {
                    fill(&mut value, number);
                    send(&mut sender, &keys[number as usize % KEYS], &value);
                }
                (begun, sender)
            })
        })
    };
    let consumer = {
        let (line, core) = (Arc::clone(&line), work.pins.consumer(0));
        std::thread::spawn(move || {
            line.take_place(core).then(|| {
                let mut seen = Seen::default();
                receive(&mut receiver, each, &mut |batch| batch(&mut seen));
                (Instant::now(), seen, receiver)
            })
        })
    };
    let begun = join(producer)?;
    let ended = join(consumer)?;
    let (Some((begun, _sender)), Some((ended, seen, _receiver))) = (begun, ended) else {
        return Err(NoFigure::Wrong(line.reason()));
    };
    seen.verdict(each)?;
    Ok(Round::Rate(each as f64 / ended.saturating_duration_since(begun).as_secs_f64()))
}

fn through_topic<K: Producers>(
    work: &Work,
    builder: impl FnOnce(&Engine) -> TopicBuilder<Message, K>,
) -> Result<Round, NoFigure> {
    if work.batch != 1 {
        return Err(NoFigure::NotApplicable("messages are sent one by one"));
    }
    let refused = |cause: &dyn std::fmt::Display| NoFigure::Wrong(engine_refused(cause));
    let engine = Engine::builder().build().map_err(|error| refused(&error))?;
    // All partitions together have as many slots as the channel.
    let topic = builder(&engine).partitions(PARTITIONS).capacity((work.capacity / PARTITIONS).max(1)).max_message(192);
    let topic = topic.create().map_err(|error| refused(&error))?;
    let subscriber = topic.subscribe("reader").wait(wait(work.waiting)).poll().map_err(|error| refused(&error))?;
    let producer = topic.producer().wait(wait(work.waiting)).create().map_err(|error| refused(&error))?;
    let keys = keys();
    round(
        work,
        producer,
        (subscriber, engine),
        |producer, key, value| {
            let _ = producer.send(Record::new(value).key(key));
        },
        move |(subscriber, _), each, see| {
            let mut left = each;
            while left > 0 {
                let Ok(Some(mut batch)) = subscriber.poll(Duration::MAX) else { return };
                left -= batch.len() as u64;
                see(&mut |seen| {
                    for (message, _) in &mut batch {
                        seen.see(message.key().unwrap_or_default(), message.value(), &keys);
                    }
                });
            }
        },
    )
}

fn messages_of_one(_: Scenario, work: &Work) -> Result<Round, NoFigure> {
    through_topic(work, |engine| engine.topic("bench").single_producer())
}

fn messages_of_many(_: Scenario, work: &Work) -> Result<Round, NoFigure> {
    through_topic(work, |engine| engine.topic("bench"))
}

/// One round of a channel that carries a vector with value and key for each message.
#[cfg(feature = "rivals")]
pub fn vectors(_: Scenario, work: &Work) -> Result<Round, NoFigure> {
    use super::waiting::{Spin, Yield};
    if work.batch != 1 {
        return Err(NoFigure::NotApplicable("can't publish a batch at once"));
    }
    match work.waiting {
        WaitClass::Spin => vectors_by::<Spin>(work),
        WaitClass::Yield | WaitClass::Native => vectors_by::<Yield>(work),
    }
}

#[cfg(feature = "rivals")]
fn vectors_by<W: Waiting>(work: &Work) -> Result<Round, NoFigure> {
    use crossbeam_channel::{TryRecvError, TrySendError};
    let (sender, receiver) = crossbeam_channel::bounded::<Vec<u8>>(work.capacity);
    let keys = keys();
    round(
        work,
        sender,
        receiver,
        |sender, key, value| {
            let mut message = Vec::with_capacity(VALUE + key.len());
            message.extend_from_slice(value);
            message.extend_from_slice(key.as_bytes());
            let mut waiting = W::begin();
            while let Err(TrySendError::Full(back)) = sender.try_send(message) {
                message = back;
                waiting.idle();
            }
        },
        move |receiver, each, see| {
            let mut left = each;
            while left > 0 {
                see(&mut |seen| {
                    // As many as a batch of the topic has at most, so that both contenders make equally few calls.
                    for _ in 0..left.min(256) {
                        let mut waiting = W::begin();
                        let message = loop {
                            match receiver.try_recv() {
                                Ok(message) => break message,
                                Err(TryRecvError::Empty) => waiting.idle(),
                                Err(TryRecvError::Disconnected) => return,
                            }
                        };
                        let (value, key) = message.split_at(VALUE);
                        seen.see(key, value, &keys);
                    }
                });
                left -= left.min(256);
            }
        },
    )
}

/// Our contenders: name and round of each. The tables show the ratios of the first one.
pub fn contenders() -> Vec<(&'static str, Measure)> {
    vec![("topic-single", messages_of_one), ("topic-multi", messages_of_many)]
}
