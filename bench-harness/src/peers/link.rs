//! The interface of contenders that carry messages from producers to one consumer, and the loops that measure them. All loops
//! are monomorphic, so that no message costs a dynamic call.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use slipring_ring::pin::pin_current;

use super::latencies::Latencies;
use super::open_loop::open_loop;
use super::waiting::{Native, Spin, WaitClass, Waiting, Yield};
use crate::clock::Clock;
use crate::payload::{Check, InOrder, Payload, PerProducer, first_of};
use crate::pin::PinPlan;

/// The work of a round, equal for all contenders.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Work {
    /// Slots of the ring or channel.
    pub capacity: usize,
    /// Count of the publishing threads.
    pub producers: usize,
    /// Count of the consuming threads.
    pub consumers: usize,
    /// Messages of each producer.
    pub each: u64,
    /// Messages of a batch; 1 is one by one.
    pub batch: usize,
    /// Words of a message.
    pub words: usize,
    /// The class of waiting.
    pub waiting: WaitClass,
    /// The cores of the threads.
    pub pins: PinPlan,
    /// Silence before each event of idle-wake, and the time from one message to the next of an open loop.
    pub silence: Duration,
}

/// The figure of a round.
#[derive(Clone, Debug)]
pub enum Round {
    /// Messages a second of all producers together.
    Rate(f64),
    /// Latencies in nanoseconds.
    Latency {
        /// That of each message or trip that was timed alone.
        single: Box<Histogram<u64>>,
        /// The median over groups of 100 trips of the mean trip, without the cost of a clock; `None` with too few groups, and
        /// where there are no trips.
        mean: Option<f64>,
    },
}

/// Why a round has no figure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoFigure {
    /// The contender cannot do this work: N/A in the table.
    NotApplicable(&'static str),
    /// Messages arrived wrong, or a thread could not be pinned.
    Wrong(String),
}

/// The sending half. It need not be [`Send`]: one between processes is opened by the thread that is measured.
pub trait Sender<const N: usize>: 'static {
    /// Sends one message, waiting for room.
    fn send<W: Waiting>(&mut self, value: u64);

    /// Sends `count` messages with numbers from `first` on as one batch, waiting for room.
    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize);
}

/// The receiving half, as [`Sender`] is the sending one.
pub trait Receiver<const N: usize>: 'static {
    /// Receives `total` messages, waiting for them, and gives each to `see`; fewer only if the senders are gone.
    /// `BATCHED` is true if they are published in batches: then they may be read in chunks, too.
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, see: impl FnMut(&Payload<N>));
}

/// A contender that carries messages from producers to one consumer.
pub trait Link<const N: usize>: 'static {
    /// True if it can have more than one producer.
    const MANY_PRODUCERS: bool;
    /// True if it can publish a batch at once.
    const BATCHES: bool;
    /// True if it has a blocking receive that sleeps.
    const SLEEPS: bool;
    /// The sending half.
    type Sender: Sender<N> + Send;
    /// The receiving half.
    type Receiver: Receiver<N> + Send;

    /// A new link with this many senders.
    fn open(
        capacity: usize,
        producers: usize,
        waiting: WaitClass,
    ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure>;
}

/// A barrier at which threads wait for one another before the clock starts. If one of them could not be pinned, none starts.
#[derive(Debug)]
pub struct StartLine {
    missing: AtomicUsize,
    failed: AtomicBool,
    reason: Mutex<Option<String>>,
}

impl StartLine {
    /// A barrier for this many threads.
    pub fn new(threads: usize) -> Arc<Self> {
        Arc::new(Self { missing: AtomicUsize::new(threads), failed: AtomicBool::new(false), reason: Mutex::new(None) })
    }

    /// Pins the calling thread and waits for all others. Returns false if one of them could not be pinned.
    pub fn take_place(&self, core: Option<usize>) -> bool {
        if let Some(Err(error)) = core.map(pin_current) {
            self.fail(error.to_string());
        }
        self.missing.fetch_sub(1, Ordering::AcqRel);
        while self.missing.load(Ordering::Acquire) != 0 {
            std::thread::yield_now();
        }
        !self.failed.load(Ordering::Acquire)
    }

    /// Takes the place of a thread that cannot start, for this reason: no other one does either.
    pub fn withdraw(&self, reason: String) {
        self.fail(reason);
        self.missing.fetch_sub(1, Ordering::AcqRel);
    }

    fn fail(&self, reason: String) {
        *self.reason.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(reason);
        self.failed.store(true, Ordering::Release);
    }

    /// Why no thread has started, in words. A second call no longer knows the reason.
    pub fn reason(&self) -> String {
        let reason = self.reason.lock().unwrap_or_else(|poison| poison.into_inner()).take();
        reason.unwrap_or_else(|| "a thread did not start".to_owned())
    }
}

/// Publishes the messages of one producer. Returns the time before its first message.
#[inline(never)]
pub fn produce<S: Sender<N>, W: Waiting, const N: usize>(sender: &mut S, producer: usize, work: &Work) -> Instant {
    let first = first_of(producer);
    let begun = Instant::now();
    if work.batch == 1 {
        for number in first..first + work.each {
            sender.send::<W>(number);
        }
    } else {
        let mut number = first;
        while number < first + work.each {
            sender.send_batch::<W>(number, work.batch);
            number += work.batch as u64;
        }
    }
    begun
}

/// Measures one round of producers and one consumer.
fn stream<L: Link<N>, C: Check, W: Waiting, const N: usize, const BATCHED: bool>(
    work: &Work,
) -> Result<Round, NoFigure> {
    let (senders, mut receiver) = L::open(work.capacity, work.producers, work.waiting)?;
    let line = StartLine::new(work.producers + 1);
    let total = work.each * work.producers as u64;
    let producers: Vec<_> = senders
        .into_iter()
        .enumerate()
        .map(|(index, mut sender)| {
            let (line, work) = (Arc::clone(&line), work.clone());
            std::thread::spawn(move || {
                line.take_place(work.pins.producer(index))
                    .then(|| (produce::<_, W, N>(&mut sender, index, &work), sender))
            })
        })
        .collect();
    let consumer = {
        let (line, core) = (Arc::clone(&line), work.pins.consumer(0));
        std::thread::spawn(move || {
            line.take_place(core).then(|| {
                let mut check = C::default();
                receiver.receive::<W, BATCHED>(total, |message| check.see(message));
                (Instant::now(), check, receiver)
            })
        })
    };
    let begun: Vec<_> = producers.into_iter().map(join).collect::<Result<_, _>>()?;
    let Some((ended, check, _receiver)) = join(consumer)? else { return Err(NoFigure::Wrong(line.reason())) };
    let first = begun.iter().flatten().map(|(begun, _)| *begun).min();
    let Some(first) = first else { return Err(NoFigure::Wrong(line.reason())) };
    check.verdict::<N>(work.producers, work.each).map_err(NoFigure::Wrong)?;
    Ok(Round::Rate(total as f64 / ended.saturating_duration_since(first).as_secs_f64()))
}

/// Waits for a thread and returns its result; a panic in it is an error of the round, not of the harness.
pub fn join<T>(thread: std::thread::JoinHandle<T>) -> Result<T, NoFigure> {
    thread.join().map_err(|_| NoFigure::Wrong("a thread of the contender panicked".to_owned()))
}

/// Measures round trips through two links.
fn ping_pong<L: Link<N>, W: Waiting, const N: usize>(work: &Work) -> Result<Round, NoFigure> {
    let (mut requests, mut request_end) = L::open(work.capacity, 1, work.waiting)?;
    let (mut answers, mut answer_end) = L::open(work.capacity, 1, work.waiting)?;
    let (mut ask, mut answer) = (requests.remove(0), answers.remove(0));
    let each = work.each;
    round_trips(
        work,
        move |line, core| {
            line.take_place(core).then(|| {
                for _ in 0..each {
                    let mut value = 0;
                    request_end.receive::<W, false>(1, |message| value = message.value());
                    answer.send::<W>(value);
                }
            });
            // Kept until the client has ended: a link that is closed earlier could end the client's last receive
            // without an answer.
            (request_end, answer)
        },
        move || Ok(move |number| trip::<_, _, W, N>(&mut ask, &mut answer_end, number)),
    )
}

/// Sends a request and waits for its answer. Returns the answer's number, or the largest one if there is no answer.
#[inline(always)]
pub fn trip<S: Sender<N>, R: Receiver<N>, W: Waiting, const N: usize>(
    ask: &mut S,
    answers: &mut R,
    number: u64,
) -> u64 {
    ask.send::<W>(number);
    let mut value = u64::MAX;
    answers.receive::<W, false>(1, |message| value = message.value());
    value
}

/// The trips of a group. A counter's steps of 10 nanoseconds and its reading decide nothing in their mean.
const GROUP: u64 = 100;

/// Measures the round trips between a client and a server on another core, half of them in groups, half one by one. `serve` answers
/// all requests; `open` makes, in the client's thread, the trip that sends the request of a number and returns the number in the
/// answer.
pub fn round_trips<T: Send + 'static, F: FnMut(u64) -> u64>(
    work: &Work,
    serve: impl FnOnce(&StartLine, Option<usize>) -> T + Send + 'static,
    open: impl FnOnce() -> Result<F, String> + Send + 'static,
) -> Result<Round, NoFigure> {
    let line = StartLine::new(2);
    let server = {
        let (line, core) = (Arc::clone(&line), work.pins.consumer(0));
        std::thread::spawn(move || serve(&line, core))
    };
    let client = {
        let (line, core, each) = (Arc::clone(&line), work.pins.producer(0), work.each);
        let clock = Clock::new();
        std::thread::spawn(move || {
            let mut latencies = Latencies::new();
            let mut trip = open().map_err(|reason| line.withdraw(reason)).ok()?;
            line.take_place(core).then(|| {
                let mut astray = 0;
                let grouped = each / 2 / GROUP;
                for group in 0..grouped {
                    let begun = clock.now();
                    for number in group * GROUP..(group + 1) * GROUP {
                        astray |= trip(number) ^ number;
                    }
                    let took = clock.nanos(clock.now().saturating_sub(begun));
                    latencies.means.push(took as f64 / GROUP as f64);
                }
                for number in grouped * GROUP..each {
                    let begun = clock.now();
                    astray |= trip(number) ^ number;
                    let ended = clock.now();
                    latencies.record(clock.nanos(ended.saturating_sub(begun)));
                }
                (latencies, astray)
            })
        })
    };
    let done = join(client)?;
    join(server)?;
    match done {
        None => Err(NoFigure::Wrong(line.reason())),
        Some((_, astray)) if astray != 0 => Err(NoFigure::Wrong("an answer did not belong to its request".to_owned())),
        Some((latencies, _)) => latencies.figure(),
    }
}

/// Measures how long it takes to wake a sleeping consumer.
fn idle_wake<L: Link<N>, const N: usize>(work: &Work) -> Result<Round, NoFigure> {
    if !L::SLEEPS {
        return Err(NoFigure::NotApplicable("has no receive that sleeps"));
    }
    let (mut senders, mut receiver) = L::open(work.capacity, 1, WaitClass::Native)?;
    let mut sender = senders.remove(0);
    let line = StartLine::new(2);
    let clock = Clock::new();
    // For each message, by its number, the time at which its publish begins, in ticks. The message carries only the
    // number.
    let moments: Arc<Vec<AtomicU64>> = Arc::new((0..work.each).map(|_| AtomicU64::new(0)).collect());
    let producer = {
        let (line, work, clock) = (Arc::clone(&line), work.clone(), clock.clone());
        let moments = Arc::clone(&moments);
        std::thread::spawn(move || {
            line.take_place(work.pins.producer(0)).then(|| {
                for number in 0..work.each {
                    std::thread::sleep(work.silence);
                    moments[number as usize].store(clock.now(), Ordering::Relaxed);
                    sender.send::<Native>(number);
                }
                sender
            })
        })
    };
    let consumer = {
        let (line, core, each) = (Arc::clone(&line), work.pins.consumer(0), work.each);
        std::thread::spawn(move || {
            line.take_place(core).then(|| {
                let (mut latencies, mut check) = (Latencies::new(), InOrder::default());
                for number in 0..each {
                    receiver.receive::<Native, false>(1, |message| check.see(message));
                    let begun = moments[number as usize].load(Ordering::Relaxed);
                    latencies.record(clock.nanos(clock.now().saturating_sub(begun)));
                }
                (latencies, check)
            })
        })
    };
    join(producer)?;
    let Some((latencies, check)) = join(consumer)? else { return Err(NoFigure::Wrong(line.reason())) };
    check.verdict::<N>(1, work.each).map_err(NoFigure::Wrong)?;
    latencies.figure()
}

/// The traffic pattern of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A stream from producers to one consumer.
    Stream,
    /// Round trips.
    PingPong,
    /// Waking a sleeping consumer.
    IdleWake,
    /// Messages by a schedule.
    OpenLoop,
}

/// Measures one round on a link with messages of `N` words.
pub fn measure<L: Link<N>, const N: usize>(shape: Shape, work: &Work) -> Result<Round, NoFigure> {
    if work.producers > 1 && !L::MANY_PRODUCERS {
        return Err(NoFigure::NotApplicable("takes one producer only"));
    }
    if work.batch > 1 && !L::BATCHES {
        return Err(NoFigure::NotApplicable("can't publish a batch at once"));
    }
    // The branches are on the link's constants, so that loops that a link cannot run are not compiled for it.
    let native = L::SLEEPS && work.waiting == WaitClass::Native;
    match shape {
        Shape::IdleWake => idle_wake::<L, N>(work),
        Shape::OpenLoop if work.waiting == WaitClass::Spin => open_loop::<L, Spin, N>(work),
        Shape::OpenLoop => open_loop::<L, Yield, N>(work),
        Shape::PingPong if work.waiting == WaitClass::Spin => ping_pong::<L, Spin, N>(work),
        Shape::PingPong => ping_pong::<L, Yield, N>(work),
        Shape::Stream if work.waiting == WaitClass::Spin => by_batch::<L, Spin, N>(work),
        Shape::Stream if native => {
            if L::SLEEPS {
                by_batch::<L, Native, N>(work)
            } else {
                by_batch::<L, Yield, N>(work)
            }
        }
        Shape::Stream => by_batch::<L, Yield, N>(work),
    }
}

fn by_batch<L: Link<N>, W: Waiting, const N: usize>(work: &Work) -> Result<Round, NoFigure> {
    if work.producers == 1 {
        if L::BATCHES && work.batch > 1 {
            return stream::<L, InOrder, W, N, true>(work);
        }
        return stream::<L, InOrder, W, N, false>(work);
    }
    if L::MANY_PRODUCERS {
        if L::BATCHES && work.batch > 1 {
            return stream::<L, PerProducer, W, N, true>(work);
        }
        return stream::<L, PerProducer, W, N, false>(work);
    }
    Err(NoFigure::NotApplicable("takes one producer only"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// What is wrong with message 3 of a contender.
    const NOTHING: u8 = 0;
    const LOST: u8 = 1;
    const TWICE: u8 = 2;
    const DAMAGED: u8 = 3;

    struct Faulty<const HOW: u8>;
    struct Reader<const HOW: u8>(mpsc::Receiver<u64>);

    impl Sender<4> for mpsc::Sender<u64> {
        fn send<W: Waiting>(&mut self, value: u64) {
            let _ = mpsc::Sender::send(self, value);
        }

        fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
            (first..first + count as u64).for_each(|value| Sender::<4>::send::<W>(self, value));
        }
    }

    impl<const HOW: u8> Receiver<4> for Reader<HOW> {
        fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<4>)) {
            for _ in 0..total {
                let Ok(value) = self.0.recv() else { return };
                match (HOW, value) {
                    (LOST, 3) => {}
                    (TWICE, 3) => see(&Payload::new(2)),
                    (DAMAGED, 3) => see(&Payload::from_words([3, 9, 3, 3])),
                    _ => see(&Payload::new(value)),
                }
            }
        }
    }

    impl<const HOW: u8> Link<4> for Faulty<HOW> {
        const MANY_PRODUCERS: bool = true;
        const BATCHES: bool = true;
        const SLEEPS: bool = true;
        type Sender = mpsc::Sender<u64>;
        type Receiver = Reader<HOW>;

        fn open(_: usize, producers: usize, _: WaitClass) -> Result<(Vec<mpsc::Sender<u64>>, Reader<HOW>), NoFigure> {
            let (sender, receiver) = mpsc::channel();
            Ok((vec![sender; producers], Reader(receiver)))
        }
    }

    /// Measures ten messages of each producer; true if that has given a figure.
    fn has_figure<const HOW: u8>(shape: Shape, producers: usize, batch: usize) -> bool {
        let (waiting, pins) = (WaitClass::Native, "none".parse().unwrap());
        let (silence, consumers) = (Duration::ZERO, 1);
        let work = Work { capacity: 16, producers, consumers, each: 10, batch, words: 4, waiting, pins, silence };
        match measure::<Faulty<HOW>, 4>(shape, &work) {
            Ok(_) => true,
            Err(NoFigure::Wrong(_)) => false,
            Err(other) => panic!("{other:?}"),
        }
    }

    /// A contender that carries wrong messages would be the fastest of all.
    #[test]
    fn wrong_messages_give_no_figure() {
        for (producers, batch) in [(1, 1), (1, 5), (2, 1), (2, 5)] {
            assert!(has_figure::<NOTHING>(Shape::Stream, producers, batch));
            assert!(!has_figure::<LOST>(Shape::Stream, producers, batch));
            assert!(!has_figure::<TWICE>(Shape::Stream, producers, batch));
            assert!(!has_figure::<DAMAGED>(Shape::Stream, producers, batch));
        }
        assert!(has_figure::<NOTHING>(Shape::IdleWake, 1, 1));
        assert!(!has_figure::<LOST>(Shape::IdleWake, 1, 1));
        assert!(!has_figure::<TWICE>(Shape::IdleWake, 1, 1));
        assert!(!has_figure::<DAMAGED>(Shape::IdleWake, 1, 1));
        // The answer to a request is its number alone.
        assert!(has_figure::<NOTHING>(Shape::PingPong, 1, 1));
        assert!(!has_figure::<LOST>(Shape::PingPong, 1, 1));
        assert!(!has_figure::<TWICE>(Shape::PingPong, 1, 1));
    }
}
