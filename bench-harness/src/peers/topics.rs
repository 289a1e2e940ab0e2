//! Topics as contenders: events in place through one partition, and messages with keys through four.

use std::sync::Arc;
use std::time::{Duration, Instant};

use slipring::{
    Engine, Message, Producer, Record, Subscriber, Topic, TopicBuilder, Wait,
    producer::{Multi, Producers, Single},
};

use super::contender::Measure;
use super::link::{Link, NoFigure, Receiver, Round, Sender, StartLine, Work, join};
use super::ours::wait;
use super::payload::Payload;
use super::waiting::{WaitClass, Waiting};
use crate::scenario::Scenario;

/// A topic of one partition with one kind of producer.
pub struct Typed<K>(std::marker::PhantomData<K>);

/// Whoever reads a topic, and the engine that owns it.
pub struct Reader<R> {
    pub reads: R,
    _engine: Engine,
}

pub fn refused(error: impl std::fmt::Display) -> NoFigure {
    NoFigure::Wrong(format!("the engine refused: {error}"))
}

impl<const N: usize, K: Producers> Sender<N> for Producer<Payload<N>, K> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        // Refused only once the topic is closed; the check of the values would then find the gap.
        let _ = self.publish(|event| event.fill(value));
    }

    #[inline(always)]
    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        let _ = self.publish_batch(count, |index, event| event.fill(first + index as u64));
    }
}

/// Reads batches until `total` events have been seen or the topic is closed.
macro_rules! receive {
    ($self:ident, $total:ident, $batch:ident => $read:expr) => {{
        let mut left = $total;
        while left > 0 {
            // The longest limit waits without a deadline, and so without reading a clock.
            let Ok(Some(mut $batch)) = $self.reads.poll(Duration::MAX) else { return };
            left -= $batch.len() as u64;
            $read
        }
    }};
}

impl<const N: usize> Receiver<N> for Reader<Subscriber<Payload<N>, Single>> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        receive!(self, total, batch => {
            if BATCHED {
                let (head, tail) = batch.take_slices();
                head.iter().for_each(&mut see);
                tail.iter().for_each(&mut see);
            } else {
                for (event, _) in &mut batch {
                    see(event);
                }
            }
        });
    }
}

impl<const N: usize> Receiver<N> for Reader<Subscriber<Payload<N>, Multi>> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        receive!(self, total, batch => {
            for (event, _) in &mut batch {
                see(event);
            }
        });
    }
}

/// The kind of a topic's producers.
pub trait Chosen: Producers {
    const MANY: bool;

    fn of<E: Send + Sync + 'static>(topic: TopicBuilder<E>) -> TopicBuilder<E, Self>;
}

impl Chosen for Single {
    const MANY: bool = false;

    fn of<E: Send + Sync + 'static>(topic: TopicBuilder<E>) -> TopicBuilder<E, Self> {
        topic.single_producer()
    }
}

impl Chosen for Multi {
    const MANY: bool = true;

    fn of<E: Send + Sync + 'static>(topic: TopicBuilder<E>) -> TopicBuilder<E, Self> {
        topic
    }
}

pub type Opened<const N: usize, K, R> = Result<(Vec<Producer<Payload<N>, K>>, Reader<R>), NoFigure>;

/// Opens a topic of one partition, whoever reads it, and its producers.
pub fn open<const N: usize, K: Chosen, R>(
    capacity: usize,
    producers: usize,
    waiting: WaitClass,
    read: impl FnOnce(&Topic<Payload<N>, K>, Wait) -> Result<R, NoFigure>,
) -> Opened<N, K, R> {
    let engine = Engine::builder().build().map_err(refused)?;
    let topic = K::of(engine.topic("bench").capacity(capacity)).create().map_err(refused)?;
    let reads = read(&topic, wait(waiting))?;
    let producers = (0..producers).map(|_| topic.producer().wait(wait(waiting)).create().map_err(refused));
    let producers = producers.collect::<Result<_, _>>()?;
    Ok((producers, Reader { reads, _engine: engine }))
}

impl<const N: usize, K: Chosen> Link<N> for Typed<K>
where
    Reader<Subscriber<Payload<N>, K>>: Receiver<N>,
{
    const MANY_PRODUCERS: bool = K::MANY;
    const BATCHES: bool = true;
    const SLEEPS: bool = true;
    type Sender = Producer<Payload<N>, K>;
    type Receiver = Reader<Subscriber<Payload<N>, K>>;

    fn open(capacity: usize, producers: usize, waiting: WaitClass) -> Opened<N, K, Subscriber<Payload<N>, K>> {
        open(capacity, producers, waiting, |topic, wait| topic.subscribe("reader").wait(wait).poll().map_err(refused))
    }
}

/// Bytes of a message's value.
pub const VALUE: usize = 128;
const PARTITIONS: usize = 4;
const KEYS: usize = 1024;

/// Keys as users have them, made before the clock starts.
fn keys() -> Vec<String> {
    (0..KEYS).map(|key| format!("account-{key}")).collect()
}

/// A value whose every word is the number.
#[inline(always)]
fn fill(value: &mut [u8; VALUE], number: u64) {
    for word in value.chunks_exact_mut(8) {
        word.copy_from_slice(&number.to_le_bytes());
    }
}

/// What arrived: how many messages, the sum of all their words, and whether each bore its key.
#[derive(Default)]
struct Seen {
    count: u64,
    sum: u64,
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

/// One producer and one consumer, on threads and cores of their own.
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
    let (Some((begun, _sender)), Some((ended, seen, _receiver))) = (begun, ended) else { return Err(line.reason()) };
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
    let engine = Engine::builder().build().map_err(refused)?;
    // As many slots in all as the channel has.
    let topic = builder(&engine).partitions(PARTITIONS).capacity((work.capacity / PARTITIONS).max(1)).max_message(192);
    let topic = topic.create().map_err(refused)?;
    let subscriber = topic.subscribe("reader").wait(wait(work.waiting)).poll().map_err(refused)?;
    let producer = topic.producer().wait(wait(work.waiting)).create().map_err(refused)?;
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

/// A vector a message, with key and value, through one channel.
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
                    // As many as a batch has at most, so that both sides call as seldom.
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

/// The names and the rounds of the engine's contenders for `scenario`; the one to judge by comes first.
pub fn contenders(scenario: Scenario) -> Vec<(&'static str, Measure)> {
    match scenario {
        Scenario::Message => vec![("topic-single", messages_of_one), ("topic-multi", messages_of_many)],
        _ => Vec::new(),
    }
}
