//! Our rings, topics and groups as contenders: all are polled on threads of the harness, pinned as every contender's.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Instant;

use slipring::topic::Overflow;
use slipring::{Engine, Subscriber, Topic, Wait, group::Member};
use slipring_ring::{Builder, Consumer, Multi, Producer, Ring, Single};

use super::contender::{Measure, by_words, on_link};
use super::link::{Link, NoFigure, Receiver, Round, Sender, StartLine, Work, join, produce};
use super::waiting::{Native, Spin, WaitClass, Waiting, Yield};
use crate::ours::{Drain, Kind, Reader, RingReader, engine_refused, open_graph, open_ring, open_topic};
use crate::payload::{Check, InOrder, Payload};
use crate::scenario::Scenario;

/// A ring with one kind of producer.
pub struct Ours<K>(PhantomData<K>);

/// The multi-producer ring with one producer more, which never publishes: a producer that is alone claims slots by a
/// store, one that is not alone by a compare-and-swap.
pub struct WithIdleProducer;

/// A topic of one partition with one kind of producer.
pub struct Typed<K>(PhantomData<K>);

/// A group of one member, which reads a topic of one partition and commits each batch.
pub struct Grouped<K>(PhantomData<K>);

/// Our wait strategy for a class of waiting.
pub fn wait(class: WaitClass) -> Wait {
    match class {
        WaitClass::Spin => Wait::spin(),
        WaitClass::Yield => Wait::spin_yield(),
        WaitClass::Native => Wait::spin_then_park(),
    }
}

macro_rules! sends {
    ($producer:ty) => {
        impl<const N: usize, K: Kind> Sender<N> for $producer {
            #[inline(always)]
            fn send<W: Waiting>(&mut self, value: u64) {
                // An error says that the ring was closed; the check of the values then finds the gap.
                let _ = self.publish(|event| event.fill(value));
            }

            #[inline(always)]
            fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
                let _ = self.publish_batch(count, |index, event| event.fill(first + index as u64));
            }
        }
    };
}

sends!(Producer<Payload<N>, K>);
sends!(slipring::Producer<Payload<N>, K>);

impl<const N: usize, R: Send + 'static, O: Send + 'static> Receiver<N> for Reader<R, O>
where
    Self: Drain<Payload<N>>,
{
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        let mut left = total;
        while left > 0 {
            let Some(read) = self.drain::<BATCHED>(left as usize, &mut see) else { return };
            left -= read as u64;
        }
    }
}

impl<const N: usize, K: Kind> Link<N> for Ours<K> {
    const MANY_PRODUCERS: bool = K::MANY;
    const BATCHES: bool = true;
    const SLEEPS: bool = true;
    type Sender = Producer<Payload<N>, K>;
    type Receiver = RingReader<Payload<N>, K>;

    fn open(
        capacity: usize,
        producers: usize,
        waiting: WaitClass,
    ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
        let wait = wait(waiting);
        let opened = open_ring(K::ring(capacity, Payload::default), &wait);
        let (mut producer, reader) = opened.map_err(NoFigure::Wrong)?;
        producer.set_wait(wait);
        Ok((K::clones(producer, producers), reader))
    }
}

impl<const N: usize> Link<N> for WithIdleProducer {
    const MANY_PRODUCERS: bool = true;
    const BATCHES: bool = true;
    const SLEEPS: bool = true;
    type Sender = Producer<Payload<N>, Multi>;
    /// The owner holds the producer that never publishes.
    type Receiver = Reader<Consumer<Payload<N>, Multi>, (Ring<Payload<N>, Multi>, Option<Self::Sender>)>;

    fn open(
        capacity: usize,
        producers: usize,
        waiting: WaitClass,
    ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
        let (senders, Reader { reads, owner }) = <Ours<Multi> as Link<N>>::open(capacity, producers, waiting)?;
        let idle = senders.first().cloned();
        Ok((senders, Reader { reads, owner: (owner, idle) }))
    }
}

type Opened<const N: usize, K, R> = Result<(Vec<slipring::Producer<Payload<N>, K>>, Reader<R, Engine>), NoFigure>;

/// Opens a topic of one partition with a reader and its producers.
fn open<const N: usize, K: Kind, R>(
    capacity: usize,
    producers: usize,
    waiting: WaitClass,
    read: impl FnOnce(&Topic<Payload<N>, K>, Wait) -> Result<R, String>,
) -> Opened<N, K, R> {
    let opened = || {
        let (engine, topic) = open_topic::<Payload<N>, K>(capacity, Overflow::Block)?;
        let reads = read(&topic, wait(waiting))?;
        let producer = |_| topic.producer().wait(wait(waiting)).create().map_err(engine_refused);
        let producers = (0..producers).map(producer).collect::<Result<_, String>>()?;
        Ok((producers, Reader { reads, owner: engine }))
    };
    opened().map_err(NoFigure::Wrong)
}

macro_rules! topic_link {
    ($link:ident, $reader:ident, |$topic:ident, $wait:ident| $open:expr) => {
        impl<const N: usize, K: Kind> Link<N> for $link<K> {
            const MANY_PRODUCERS: bool = K::MANY;
            const BATCHES: bool = true;
            const SLEEPS: bool = true;
            type Sender = slipring::Producer<Payload<N>, K>;
            type Receiver = Reader<$reader<Payload<N>, K>, Engine>;

            fn open(capacity: usize, producers: usize, waiting: WaitClass) -> Opened<N, K, $reader<Payload<N>, K>> {
                open(capacity, producers, waiting, |$topic, $wait| $open.map_err(engine_refused))
            }
        }
    };
}

topic_link!(Typed, Subscriber, |topic, wait| topic.subscribe("reader").wait(wait).poll());
topic_link!(Grouped, Member, |topic, wait| topic.group("readers").wait(wait).join());

fn graph<W: Waiting, const N: usize>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    let (wait, stages) = (wait(work.waiting), scenario.stages(work.consumers));
    let opened = open_graph(Builder::single(work.capacity, Payload::<N>::default), &stages, &wait);
    let (mut producer, readers) = opened.map_err(NoFigure::Wrong)?;
    producer.set_wait(wait);
    let line = StartLine::new(1 + readers.len());
    let consumers: Vec<_> = readers
        .into_iter()
        .enumerate()
        .map(|(index, mut reader)| {
            let (line, core, each) = (Arc::clone(&line), work.pins.consumer(index), work.each);
            std::thread::spawn(move || {
                line.take_place(core).then(|| {
                    let mut check = InOrder::default();
                    reader.receive::<W, false>(each, |message| check.see(message));
                    (Instant::now(), check, reader)
                })
            })
        })
        .collect();
    let publisher = {
        let (line, work) = (Arc::clone(&line), work.clone());
        std::thread::spawn(move || {
            line.take_place(work.pins.producer(0)).then(|| (produce::<_, W, N>(&mut producer, 0, &work), producer))
        })
    };
    let begun = join(publisher)?;
    // All threads are joined before a reader is dropped: a stage whose reader is dropped ends the stages that read
    // after it.
    let ended: Vec<_> = consumers.into_iter().map(join).collect::<Result<_, _>>()?;
    let Some((first, _producer)) = begun else { return Err(NoFigure::Wrong(line.reason())) };
    let mut last = first;
    for (ended, check, _) in ended.iter().flatten() {
        check.verdict::<N>(1, work.each).map_err(NoFigure::Wrong)?;
        last = last.max(*ended);
    }
    Ok(Round::Rate(work.each as f64 / (last - first).as_secs_f64()))
}

fn staged<const N: usize>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    match work.waiting {
        WaitClass::Spin => graph::<Spin, N>(scenario, work),
        WaitClass::Yield => graph::<Yield, N>(scenario, work),
        WaitClass::Native => graph::<Native, N>(scenario, work),
    }
}

fn single(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    match scenario {
        Scenario::Fanout | Scenario::Pipeline | Scenario::Diamond => by_words!(work.words, staged(scenario, work)),
        _ => on_link::<Ours<Single>>(scenario, work),
    }
}

/// The contenders that a topic or a group is compared with: the ring under it, and for a group also the topic. None for
/// other scenarios.
pub fn below(scenario: Scenario) -> Vec<(&'static str, Measure)> {
    match scenario {
        Scenario::Topic => vec![("ring", on_link::<Ours<Single>>)],
        Scenario::Group => vec![
            ("ring", on_link::<Ours<Single>>),
            ("ring-multi+idle", on_link::<WithIdleProducer>),
            ("topic", on_link::<Typed<Single>>),
        ],
        // A topic keeps a producer to clone from, so the producer of its ring is never alone.
        Scenario::TopicMulti => vec![("ring-multi+idle", on_link::<WithIdleProducer>)],
        _ => Vec::new(),
    }
}

/// Our contenders for `scenario`: name and round of each. The tables show the ratios of the first one.
pub fn contenders(scenario: Scenario) -> Vec<(&'static str, Measure)> {
    match scenario {
        Scenario::MpscOne => {
            vec![("slipring-multi", on_link::<Ours<Multi>>), ("slipring-multi+idle", on_link::<WithIdleProducer>)]
        }
        Scenario::MpscTwo => vec![("slipring-multi", on_link::<Ours<Multi>>)],
        Scenario::Message => super::messages::contenders(),
        Scenario::Topic => vec![("topic", on_link::<Typed<Single>>)],
        Scenario::Group => vec![("group", on_link::<Grouped<Single>>), ("group-multi", on_link::<Grouped<Multi>>)],
        Scenario::TopicMulti => vec![("topic-multi", on_link::<Typed<Multi>>)],
        Scenario::PingPong | Scenario::OpenSlow | Scenario::OpenFast => {
            vec![("slipring-multi", on_link::<Ours<Multi>>), ("slipring", single)]
        }
        _ => vec![("slipring", single)],
    }
}
