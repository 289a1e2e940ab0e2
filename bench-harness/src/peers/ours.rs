//! Our rings as contenders: polled stages on threads of the harness, pinned like everyone's.

use std::sync::Arc;
use std::time::Instant;

use slipring_ring::{BuildError, Builder, Consumer, Kind, Multi, Producer, Ring, Single, Stage, StageError, Wait};

use super::contender::{Measure, by_words, on_link};
use super::link::{Link, NoFigure, Receiver, Round, Sender, StartLine, Work, join, produce};
use super::payload::{Check, InOrder, Payload};
use super::waiting::{Native, Spin, WaitClass, Waiting, Yield};
use crate::scenario::Scenario;

/// The ring with one kind of producer.
pub struct Ours<K>(std::marker::PhantomData<K>);

/// A consumer, and the ring that it reads from.
pub struct Reader<const N: usize, K: Kind> {
    consumer: Consumer<Payload<N>, K>,
    _ring: Ring<Payload<N>, K>,
    /// A producer that never publishes.
    idle: Option<Producer<Payload<N>, K>>,
}

/// Our wait of a class.
pub fn wait(class: WaitClass) -> Wait {
    match class {
        WaitClass::Spin => Wait::spin(),
        WaitClass::Yield => Wait::spin_yield(),
        WaitClass::Native => Wait::spin_then_park(),
    }
}

impl<const N: usize, K: Kind> Sender<N> for Producer<Payload<N>, K> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        // Refused only once the ring is closed; the check of the values would then find the gap.
        let _ = self.publish(|event| event.fill(value));
    }

    #[inline(always)]
    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        let _ = self.publish_batch(count, |index, event| event.fill(first + index as u64));
    }
}

/// Reads batches until `total` events have been seen or the ring is closed.
macro_rules! receive {
    ($self:ident, $total:ident, $see:ident, $batch:ident => $read:expr) => {{
        let mut left = $total;
        while left > 0 {
            let Ok(mut $batch) = $self.consumer.poll_wait(left as usize) else { return };
            left -= $batch.len() as u64;
            $read
        }
    }};
}

impl<const N: usize> Receiver<N> for Reader<N, Single> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        receive!(self, total, see, batch => {
            if BATCHED {
                let (head, tail) = batch.take_slices();
                head.iter().for_each(&mut see);
                tail.iter().for_each(&mut see);
            } else {
                for (_, event) in &mut batch {
                    see(event);
                }
            }
        });
    }
}

impl<const N: usize> Receiver<N> for Reader<N, Multi> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        receive!(self, total, see, batch => {
            for (_, event) in &mut batch {
                see(event);
            }
        });
    }
}

/// A failure to set the ring up: never expected, never hidden.
fn refused(error: impl std::fmt::Display) -> NoFigure {
    NoFigure::Wrong(format!("the ring was refused: {error}"))
}

macro_rules! link {
    ($kind:ident, $make:ident, $many:expr, $producers:expr) => {
        impl<const N: usize> Link<N> for Ours<$kind> {
            const MANY_PRODUCERS: bool = $many;
            const BATCHES: bool = true;
            const SLEEPS: bool = true;
            type Sender = Producer<Payload<N>, $kind>;
            type Receiver = Reader<N, $kind>;

            fn open(
                capacity: usize,
                producers: usize,
                waiting: WaitClass,
            ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
                let mut builder = Builder::$make(capacity, Payload::default);
                builder.poll(Stage::new("reader").wait(wait(waiting)));
                let (mut producer, ring) = builder.build().map_err(refused)?;
                producer.set_wait(wait(waiting));
                let consumer = ring.consumer("reader").map_err(refused)?;
                let senders: Vec<_> = $producers(producer, producers);
                Ok((senders, Reader { consumer, _ring: ring, idle: None }))
            }
        }
    };
}

link!(Single, single, false, |producer, _| vec![producer]);
link!(Multi, multi, true, |producer: Producer<Payload<N>, Multi>, producers| {
    let mut all: Vec<_> = (1..producers).map(|_| producer.clone()).collect();
    all.push(producer);
    all
});

/// The multi-producer ring with one more producer than publish: it claims by compare-and-swap, where the only producer
/// there is stores.
pub struct WithIdleProducer;

impl<const N: usize> Link<N> for WithIdleProducer {
    const MANY_PRODUCERS: bool = true;
    const BATCHES: bool = true;
    const SLEEPS: bool = true;
    type Sender = Producer<Payload<N>, Multi>;
    type Receiver = Reader<N, Multi>;

    fn open(
        capacity: usize,
        producers: usize,
        waiting: WaitClass,
    ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
        let (senders, mut reader) = <Ours<Multi> as Link<N>>::open(capacity, producers, waiting)?;
        reader.idle = senders.first().cloned();
        Ok((senders, reader))
    }
}

/// The stages of a graph scenario: each with the ones it stands behind.
fn stages(scenario: Scenario) -> &'static [(&'static str, &'static [&'static str])] {
    match scenario {
        Scenario::Fanout => &[("a", &[]), ("b", &[])],
        Scenario::Pipeline => &[("a", &[]), ("b", &["a"]), ("c", &["b"])],
        Scenario::Diamond => &[("a", &[]), ("b", &[]), ("c", &["a", "b"])],
        _ => &[],
    }
}

type Readers<const N: usize> = (Producer<Payload<N>, Single>, Vec<Reader<N, Single>>);

fn open_graph<const N: usize>(scenario: Scenario, work: &Work) -> Result<Readers<N>, NoFigure> {
    let mut builder = Builder::single(work.capacity, Payload::default);
    for (name, after) in stages(scenario) {
        builder.poll(Stage::new(*name).after(after.iter().copied()).wait(wait(work.waiting)));
    }
    let (mut producer, ring) = builder.build().map_err(|error: BuildError| refused(error))?;
    producer.set_wait(wait(work.waiting));
    let readers = stages(scenario)
        .iter()
        .map(|(name, _)| Ok(Reader { consumer: ring.consumer(name)?, _ring: ring.clone(), idle: None }))
        .collect::<Result<Vec<_>, StageError>>()
        .map_err(refused)?;
    Ok((producer, readers))
}

fn graph<W: Waiting, const N: usize>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    let (mut producer, readers) = open_graph::<N>(scenario, work)?;
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
    // All are joined before any is dropped: a stage that leaves takes those behind it along.
    let ended: Vec<_> = consumers.into_iter().map(join).collect::<Result<_, _>>()?;
    let Some((first, _producer)) = begun else { return Err(line.reason()) };
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
    if stages(scenario).is_empty() {
        on_link::<Ours<Single>>(scenario, work)
    } else {
        by_words!(work.words, staged(scenario, work))
    }
}

/// What a topic is held against: the ring that it is made of.
pub fn below(scenario: Scenario) -> Vec<(&'static str, Measure)> {
    match scenario {
        Scenario::Topic => vec![("ring", on_link::<Ours<Single>>)],
        Scenario::Group => vec![
            ("ring", on_link::<Ours<Single>>),
            ("ring-multi+idle", on_link::<WithIdleProducer>),
            ("topic", on_link::<super::topics::Typed<Single>>),
        ],
        // A topic keeps a producer to make others from, so its ring never has one alone.
        Scenario::TopicMulti => vec![("ring-multi+idle", on_link::<WithIdleProducer>)],
        _ => Vec::new(),
    }
}

/// The names and the rounds of our contenders for `scenario`; the one to judge rivals by comes first.
pub fn contenders(scenario: Scenario) -> Vec<(&'static str, Measure)> {
    match scenario {
        Scenario::MpscOne => {
            vec![("slipring-multi", on_link::<Ours<Multi>>), ("slipring-multi+idle", on_link::<WithIdleProducer>)]
        }
        Scenario::MpscTwo => vec![("slipring-multi", on_link::<Ours<Multi>>)],
        Scenario::Message => super::topics::contenders(scenario),
        Scenario::Topic => vec![("topic", on_link::<super::topics::Typed<Single>>)],
        Scenario::Group => vec![
            ("group", on_link::<super::groups::Grouped<Single>>),
            ("group-multi", on_link::<super::groups::Grouped<Multi>>),
        ],
        Scenario::TopicMulti => vec![("topic-multi", on_link::<super::topics::Typed<Multi>>)],
        Scenario::PingPong => vec![("slipring-multi", on_link::<Ours<Multi>>), ("slipring", single)],
        _ => vec![("slipring", single)],
    }
}
