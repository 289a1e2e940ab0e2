//! Our rings in shared memory as contenders: between processes, and between threads of one process.

use slipring_ring::shared::{Event, SharedConsumer, SharedProducer, SharedRing, Size, names};
use slipring_ring::{Multi, Single};

use super::between::{self, Medium, WireKind, between};
use super::contender::{Contender, Family, Measure, line, on_link};
#[cfg(feature = "iceoryx2")]
use super::iceoryx;
use super::link::{Link, NoFigure, Receiver, Sender, Work};
use super::ours::{self, Ours};
use super::second::{Order, Wire};
use super::waiting::{WaitClass, Waiting};
use super::wires::{Pipe, Socket};
use crate::failure::Failure;
use crate::payload::Payload;
use crate::scenario::Scenario;

/// Begins the name of each ring.
const PREFIX: &str = "bench-harness";

/// Begins the names of the rings that process `id` makes for its round `number`.
pub fn ring_name(id: u32, number: u64) -> String {
    format!("{PREFIX}-{id}-{number}")
}

/// The process that made a ring of this name; `None` if it is no ring of a harness.
fn maker_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.strip_prefix('-')?.split('-').next()?.parse().ok()
}

/// Removes the rings of process `of`, or those of all processes that have gone.
pub fn sweep(of: Option<u32>) {
    let has_gone = |id: u32| !std::path::Path::new(&format!("/proc/{id}")).exists();
    let is_left = |name: &str| maker_of(name).is_some_and(|maker| of.map_or_else(|| has_gone(maker), |of| of == maker));
    for name in names().unwrap_or_default() {
        if is_left(&name) {
            // Of any events: only the file is removed.
            let _ = slipring_ring::shared::RawRing::remove_forced(&name);
        }
    }
    #[cfg(feature = "iceoryx2")]
    iceoryx::remove(is_left);
}

/// Removes the files of a round beside its rings.
pub fn remove_files(round: &str) {
    #[cfg(feature = "iceoryx2")]
    iceoryx::remove(|name| iceoryx::is_of(name, round));
    #[cfg(not(feature = "iceoryx2"))]
    let _ = round;
}

/// The event of a message with `N` words.
pub trait Words<const N: usize>: Event {
    /// Its words.
    fn words(&self) -> &[u64; N];

    /// Writes the number into each word.
    fn fill(&mut self, value: u64);
}

/// A message that a shared ring can carry.
pub trait InRing<const N: usize> {
    /// Its event.
    type Event: Words<N>;
}

macro_rules! event {
    ($name:ident, $words:literal) => {
        slipring_ring::shared_event! {
            pub struct $name { words: [u64; $words] }
        }

        impl Words<$words> for $name {
            #[inline(always)]
            fn words(&self) -> &[u64; $words] {
                &self.words
            }

            #[inline(always)]
            fn fill(&mut self, value: u64) {
                self.words = [value; $words];
            }
        }

        impl InRing<$words> for Payload<$words> {
            type Event = $name;
        }
    };
}

event!(OneWord, 1);
event!(EightWords, 8);
event!(ThirtyTwoWords, 32);

/// A ring in shared memory, for one producer or for several.
pub struct Shared<const MANY: bool>;

/// A ring's file. Dropped, it is removed.
pub struct Place<E: Event>(SharedRing<E>);

impl<E: Event> Drop for Place<E> {
    fn drop(&mut self) {
        let _ = SharedRing::<E>::remove_forced(self.0.name());
    }
}

fn make<E: Event>(name: &str, many: bool, capacity: usize) -> Result<Place<E>, String> {
    let size = Size::slots(capacity);
    let size = if many { size.multi_producer() } else { size };
    SharedRing::create(name, size).map(Place).map_err(|error| error.to_string())
}

fn producer<E: Event>(ring: &SharedRing<E>, waiting: WaitClass) -> Result<SharedProducer<E>, String> {
    let joined = if ring.is_multi_producer() { ring.multi_producer() } else { ring.producer() };
    Ok(joined.map_err(|error| error.to_string())?.wait(ours::wait(waiting)))
}

/// A consumer, and the ring's file if it is removed with it.
pub struct SharedReader<E: Event> {
    consumer: SharedConsumer<E>,
    /// True once the producers have died. Each poll would wait for a successor, in each of many round trips.
    has_ended: bool,
    _place: Option<Place<E>>,
}

fn consumer<E: Event>(ring: &SharedRing<E>, waiting: WaitClass) -> Result<SharedConsumer<E>, String> {
    ring.consumer("reader").wait(ours::wait(waiting)).join().map_err(|error| error.to_string())
}

impl<E: Words<N>, const N: usize> Sender<N> for SharedProducer<E> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        // An error says that the ring has ended; the check of the values then finds the gap.
        let _ = self.publish(|event| event.fill(value));
    }

    #[inline(always)]
    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        if let Ok(mut claim) = self.claim(count) {
            for ((_, event), value) in claim.iter_mut().zip(first..) {
                event.fill(value);
            }
            let _ = claim.commit();
        }
    }
}

impl<E: Words<N>, const N: usize> Receiver<N> for SharedReader<E> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        let mut left = total;
        while left > 0 && !self.has_ended {
            let Ok(mut batch) = self.consumer.poll_wait(left as usize) else {
                self.has_ended = true;
                return;
            };
            left -= batch.len() as u64;
            for (_, event) in &mut batch {
                see(&Payload::from_words(*event.words()));
            }
        }
    }
}

impl<const N: usize, const MANY: bool> Medium<N> for Shared<MANY>
where
    Payload<N>: InRing<N>,
{
    const NAME: &'static str = if MANY { "shared-multi" } else { "shared" };
    const MANY_PRODUCERS: bool = MANY;
    const BATCHES: bool = true;
    const WIRE: WireKind = WireKind::Lines;
    type Sender = SharedProducer<<Payload<N> as InRing<N>>::Event>;
    type Receiver = SharedReader<<Payload<N> as InRing<N>>::Event>;
    type Place = Place<<Payload<N> as InRing<N>>::Event>;

    fn make(name: &str, work: &Work) -> Result<Self::Place, String> {
        make(name, MANY, work.capacity)
    }

    fn sender(name: &str, work: &Work, _wire: &Wire) -> Result<Self::Sender, String> {
        producer(&SharedRing::open(name).map_err(|error| error.to_string())?, work.waiting)
    }

    fn receiver(name: &str, work: &Work, _wire: &Wire) -> Result<Self::Receiver, String> {
        let ring = SharedRing::open(name).map_err(|error| error.to_string())?;
        Ok(SharedReader { consumer: consumer(&ring, work.waiting)?, has_ended: false, _place: None })
    }
}

impl<const N: usize, const MANY: bool> Link<N> for Shared<MANY>
where
    Payload<N>: InRing<N>,
{
    const MANY_PRODUCERS: bool = MANY;
    const BATCHES: bool = true;
    const SLEEPS: bool = true;
    type Sender = SharedProducer<<Payload<N> as InRing<N>>::Event>;
    type Receiver = SharedReader<<Payload<N> as InRing<N>>::Event>;

    fn open(
        capacity: usize,
        producers: usize,
        waiting: WaitClass,
    ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
        let opened = || {
            let place = make(&between::next_name(), MANY, capacity)?;
            let consumer = consumer(&place.0, waiting)?;
            let producers = (0..producers).map(|_| producer(&place.0, waiting)).collect::<Result<_, String>>()?;
            Ok((producers, SharedReader { consumer, has_ended: false, _place: Some(place) }))
        };
        opened().map_err(NoFigure::Wrong)
    }
}

/// The contenders of a scenario between processes, ours first, the floor last.
pub fn contenders(scenario: Scenario, groups: &[String]) -> Vec<Contender> {
    let mut all = Vec::new();
    let several = !matches!(scenario, Scenario::SharedSpsc);
    let one = matches!(scenario, Scenario::SharedSpsc | Scenario::SharedPingPong);
    let mut add = |name: &str, group, family, run| all.push(Contender::new(name, group, family, run));
    let (ours, below) = (Family::Ours, Family::Rival);
    if several {
        add("shared-multi", "ours", ours, between::<Shared<true>>);
    }
    if one {
        add("shared", "ours", ours, between::<Shared<false>>);
    }
    if several {
        add("threads-shared-multi", "ring", below, on_link::<Shared<true>>);
        add("threads-ring-multi", "ring", below, on_link::<Ours<Multi>>);
    }
    if one {
        add("threads-shared", "ring", below, on_link::<Shared<false>>);
        add("threads-ring", "ring", below, on_link::<Ours<Single>>);
    }
    let picked = |group: &str| groups.iter().any(|name| name == "all" || name == group);
    #[cfg(feature = "iceoryx2")]
    if picked("iceoryx2") {
        add("iceoryx2", "iceoryx2", below, between::<iceoryx::Iceoryx>);
    }
    for (group, run, blocking) in [
        ("pipe", between::<Pipe> as Measure, between::blocking::<Pipe> as Measure),
        ("socket", between::<Socket>, between::blocking::<Socket>),
    ] {
        if picked(group) {
            add(group, group, below, run);
        }
        if groups.iter().any(|name| name == "native") {
            add(&format!("{group}+block"), "native", below, blocking);
        }
    }
    if scenario == Scenario::SharedPingPong {
        add("bare-line", "floor", Family::Floor, line);
    }
    all
}

/// Runs the hidden command that a second process is started with.
///
/// # Errors
///
/// [`Failure::Usage`]: it was called by hand. [`Failure::Invalid`]: the first process has gone.
pub fn command(order: &str) -> Result<(), Failure> {
    let by_hand = |error: serde_json::Error| Failure::usage(format!("this command is for the harness itself: {error}"));
    let order: Order = serde_json::from_str(order).map_err(by_hand)?;
    let wire = Wire::of_second().map_err(Failure::Invalid)?;
    let spec = match order {
        Order::Round(spec) => spec,
        Order::Sweep(of) => {
            // A process that has gone needs no answer.
            let _ = wire.tell("ready");
            wire.hear_the_end();
            sweep(Some(of));
            return Ok(());
        }
    };
    let done = match spec.medium.as_str() {
        "shared" => between::second::<Shared<false>>(&spec, &wire),
        "shared-multi" => between::second::<Shared<true>>(&spec, &wire),
        "pipe" => between::second::<Pipe>(&spec, &wire),
        "socket" => between::second::<Socket>(&spec, &wire),
        #[cfg(feature = "iceoryx2")]
        "iceoryx2" => between::second::<iceoryx::Iceoryx>(&spec, &wire),
        other => Err(format!("this build has no `{other}`")),
    };
    // The first process says why, if it lives; it waits for a line.
    let told = done.or_else(|reason| wire.tell(&reason.replace('\n', " ")));
    if told.is_err() {
        remove_files(&spec.name);
    }
    told.map_err(Failure::Invalid)
}
