//! Contenders that carry messages from process to process, and the loops that measure them: those of [`super::link`], with the
//! producers, or the server of round trips, in processes of their own. The first process reads and verifies everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use slipring_ring::pin;

use super::contender::by_words;
use super::link::{NoFigure, Receiver, Round, Sender, StartLine, Work, join, produce, round_trips, trip};
use super::second::{self, Order, Part, Second, Spec, Wire, nanos_of};
use super::shared::ring_name;
use super::waiting::{Native, Spin, WaitClass, Waiting, Yield};
use crate::payload::{Check, InOrder, PerProducer};
use crate::scenario::Scenario;

/// A contender that carries messages from process to process.
pub trait Medium<const N: usize>: 'static {
    /// Its name, for the second process.
    const NAME: &'static str;
    /// True if it can have more than one producer.
    const MANY_PRODUCERS: bool;
    /// True if it can publish a batch at once.
    const BATCHES: bool;
    /// What the second process's input and output are.
    const WIRE: WireKind;
    /// The sending half, in the process that sends.
    type Sender: Sender<N>;
    /// The receiving half, in the process that receives.
    type Receiver: Receiver<N>;
    /// What stands while both processes use it; its drop removes it.
    type Place;

    /// Makes what both processes open, in the first process.
    ///
    /// # Errors
    ///
    /// It was refused, in words.
    fn make(name: &str, work: &Work) -> Result<Self::Place, String>;

    /// Opens the sending half.
    ///
    /// # Errors
    ///
    /// It was refused, in words.
    fn sender(name: &str, work: &Work, wire: &Wire) -> Result<Self::Sender, String>;

    /// Opens the receiving half.
    ///
    /// # Errors
    ///
    /// It was refused, in words.
    fn receiver(name: &str, work: &Work, wire: &Wire) -> Result<Self::Receiver, String>;
}

/// What the input and output of a second process are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WireKind {
    /// Pipes on which only lines go: the messages have another way.
    Lines,
    /// Pipes on which the messages go.
    Pipes,
    /// A socket on which the messages go.
    Socket,
}

impl WireKind {
    fn has_messages(self) -> bool {
        self != Self::Lines
    }
}

/// The time that a consumer has for what is left once all producers have sent everything, which is at most what the ring holds. One
/// that is not done by then waits for a message that was lost.
const PATIENCE: Duration = Duration::from_secs(60);

/// The name of a round's rings: of this process, and used once.
pub fn next_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    ring_name(std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The names of the two ways of round trips.
fn ways(name: &str) -> [String; 2] {
    ["ask", "answer"].map(|way| format!("{name}-{way}"))
}

fn wrong(reason: impl Into<String>) -> NoFigure {
    NoFigure::Wrong(reason.into())
}

/// Measures one round between processes.
pub fn between<M>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure>
where
    M: Medium<1> + Medium<8> + Medium<32>,
{
    if scenario != Scenario::SharedSpsc && scenario != Scenario::SharedPingPong && !<M as Medium<1>>::MANY_PRODUCERS {
        return Err(NoFigure::NotApplicable("takes one producer only"));
    }
    if work.batch > 1 && !<M as Medium<1>>::BATCHES {
        return Err(NoFigure::NotApplicable("can't publish a batch at once"));
    }
    by_words!(work.words, by_wait::<M>(scenario, work))
}

/// As [`between`], with the contender's own blocking calls.
pub fn blocking<M>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure>
where
    M: Medium<1> + Medium<8> + Medium<32>,
{
    between::<M>(scenario, &Work { waiting: WaitClass::Native, ..work.clone() })
}

fn by_wait<M: Medium<N>, const N: usize>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    match work.waiting {
        WaitClass::Spin => by_shape::<M, Spin, N>(scenario, work),
        WaitClass::Yield => by_shape::<M, Yield, N>(scenario, work),
        WaitClass::Native => by_shape::<M, Native, N>(scenario, work),
    }
}

fn by_shape<M: Medium<N>, W: Waiting, const N: usize>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    match (scenario, work.producers) {
        (Scenario::SharedPingPong, _) => trips::<M, W, N>(work),
        (_, 1) => stream::<M, InOrder, W, N>(work),
        _ => stream::<M, PerProducer, W, N>(work),
    }
}

fn start<M: Medium<N>, const N: usize>(name: &str, part: Part, work: &Work) -> Result<Second, NoFigure> {
    let spec = Spec { medium: M::NAME.to_owned(), name: name.to_owned(), part, work: work.clone() };
    Second::start(&Order::Round(spec), M::WIRE == WireKind::Socket).map_err(NoFigure::Wrong)
}

/// Measures producers in a process each, and a consumer in this one.
fn stream<M: Medium<N>, C: Check, W: Waiting, const N: usize>(work: &Work) -> Result<Round, NoFigure> {
    let name = next_name();
    let _place = M::make(&name, work).map_err(NoFigure::Wrong)?;
    let start = |index| start::<M, N>(&name, Part::Produce(index), work);
    let mut seconds = (0..work.producers).map(start).collect::<Result<Vec<_>, _>>()?;
    seconds.iter().try_for_each(Second::ready).map_err(NoFigure::Wrong)?;
    let wire = seconds.first().ok_or("no producer".to_owned()).and_then(Second::wire).map_err(NoFigure::Wrong)?;
    let (wire, gone) = (wire.share().map_err(NoFigure::Wrong)?, Arc::clone(&wire.gone));
    let (line, core, batched) = (StartLine::new(2), work.pins.consumer(0), work.batch > 1);
    let total = work.each * work.producers as u64;
    // Closed by the end of the consumer's thread.
    let (reading, read) = channel::<()>();
    let consumer = {
        let (line, work) = (Arc::clone(&line), work.clone());
        std::thread::spawn(move || {
            let _reading = reading;
            let receiver = M::receiver(&name, &work, &wire);
            drop(wire);
            let mut receiver = receiver.map_err(|reason| line.withdraw(reason)).ok()?;
            line.take_place(core).then(|| {
                let mut check = C::default();
                if batched {
                    receiver.receive::<W, true>(total, |message| check.see(message));
                } else {
                    receiver.receive::<W, false>(total, |message| check.see(message));
                }
                (Instant::now(), check)
            })
        })
    };
    let begun = || {
        if !line.take_place(None) {
            return Err(line.reason());
        }
        seconds.iter().try_for_each(|second| second.wire()?.tell("go"))?;
        Ok(())
    };
    let begun = begun().and_then(|()| if M::WIRE.has_messages() { Ok(None) } else { first_of(&mut seconds).map(Some) });
    let is_lost = matches!(begun, Ok(Some(_))) && read.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout);
    if begun.is_err() || is_lost {
        // Otherwise the consumer waits for the rest of the messages while one of several producers lives.
        gone.store(true, Ordering::Release);
        seconds.iter_mut().for_each(Second::kill);
    }
    let received = join(consumer)?;
    let begun = match begun.map_err(NoFigure::Wrong)? {
        Some(begun) => begun,
        // The messages had to be read before the line behind them.
        None => first_of(&mut seconds).map_err(NoFigure::Wrong)?,
    };
    let Some((ended, check)) = received else { return Err(wrong(line.reason())) };
    check.verdict::<N>(work.producers, work.each).map_err(NoFigure::Wrong)?;
    Ok(Round::Rate(total as f64 / nanos_of(ended).saturating_sub(begun).max(1) as f64 * 1e9))
}

/// The time of the first message of all producers, once all of them are done.
fn first_of(seconds: &mut [Second]) -> Result<u64, String> {
    let begun = seconds.iter().map(|second| second.wire()?.done()).collect::<Result<Vec<_>, _>>()?;
    begun.into_iter().min().ok_or_else(|| "there is no producer".to_owned())
}

/// Measures round trips from this process to another and back.
fn trips<M: Medium<N>, W: Waiting, const N: usize>(work: &Work) -> Result<Round, NoFigure> {
    let name = next_name();
    let [ask, answer] = ways(&name);
    let _places = [M::make(&ask, work).map_err(NoFigure::Wrong)?, M::make(&answer, work).map_err(NoFigure::Wrong)?];
    let second = start::<M, N>(&name, Part::Serve, work)?;
    second.ready().map_err(NoFigure::Wrong)?;
    let share = || second.wire().and_then(Wire::share).map_err(NoFigure::Wrong);
    let (wire, wire_of_client, work_of_client) = (share()?, share()?, work.clone());
    round_trips(
        work,
        move |line, _| {
            // The server is pinned in its own process. This thread only learns of its death.
            if line.take_place(None) && !M::WIRE.has_messages() {
                let _ = wire.done();
            }
        },
        move || {
            let (work, wire) = (&work_of_client, &wire_of_client);
            let (mut sender, mut receiver) = (M::sender(&ask, work, wire)?, M::receiver(&answer, work, wire)?);
            wire.tell("go")?;
            Ok(move |number| trip::<_, _, W, N>(&mut sender, &mut receiver, number))
        },
    )
}

/// What a second process does with a medium.
///
/// # Errors
///
/// The first process has gone, or the medium was refused, in words.
pub fn second<M>(spec: &Spec, wire: &Wire) -> Result<(), String>
where
    M: Medium<1> + Medium<8> + Medium<32>,
{
    by_words!(spec.work.words, second_by_wait::<M>(spec, wire))
}

fn second_by_wait<M: Medium<N>, const N: usize>(spec: &Spec, wire: &Wire) -> Result<(), String> {
    match spec.work.waiting {
        WaitClass::Spin => second_of::<M, Spin, N>(spec, wire),
        WaitClass::Yield => second_of::<M, Yield, N>(spec, wire),
        WaitClass::Native => second_of::<M, Native, N>(spec, wire),
    }
}

fn second_of<M: Medium<N>, W: Waiting, const N: usize>(spec: &Spec, wire: &Wire) -> Result<(), String> {
    let Spec { name, part, work, .. } = spec;
    let core = match part {
        Part::Produce(index) => work.pins.producer(*index),
        _ => work.pins.consumer(0),
    };
    if let Some(core) = core {
        // The first process may have been given cores outside of its mask.
        pin::use_every_core();
        pin::pin_current(core).map_err(|error| error.to_string())?;
    }
    let done = Arc::new(AtomicBool::new(false));
    let start = || {
        wire.tell("ready")?;
        let go = wire.hear()?;
        let watch = (!M::WIRE.has_messages()).then(|| second::watch(wire, &done, name)).transpose()?;
        if go == "go" { Ok(watch) } else { Err(format!("`{go}` is no start")) }
    };
    let end = |line: &str, watch: Option<std::thread::JoinHandle<()>>| {
        done.store(true, Ordering::Release);
        let told = wire.tell(line);
        match watch {
            Some(watch) => watch.join().map_err(|_| "the watch panicked".to_owned())?,
            None => wire.hear_the_end(),
        }
        told
    };
    if let Part::Produce(index) = part {
        let mut sender = M::sender(name, work, wire)?;
        let watch = start()?;
        let begun = produce::<_, W, N>(&mut sender, *index, work);
        // The sender is kept until the first process has read everything.
        return end(&format!("done {}", nanos_of(begun)), watch);
    }
    let [ask, answer] = ways(name);
    let mut receiver = M::receiver(&ask, work, wire)?;
    let mut sender = M::sender(&answer, work, wire)?;
    let watch = start()?;
    for _ in 0..work.each {
        let mut value = 0;
        receiver.receive::<W, false>(1, |message| value = message.value());
        sender.send::<W>(value);
    }
    end("done 0", watch)
}
