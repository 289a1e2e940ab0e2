//! The scenarios as rings: which stages there are and what stands behind what.

use slipring_ring::{Builder, Consumer, Kind, Multi, Producer, Ring, Single, Stage, Wait, Worker};

use super::drive::{Load, Outcome, Publish, Role, Source, drive};
use super::event::Event;
use super::schedule::Schedule;
use crate::clock::Clock;
use crate::scenario::Scenario;

/// The shape of a run.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The scenario.
    pub scenario: Scenario,
    /// Publishing threads.
    pub producers: usize,
    /// Consuming threads.
    pub consumers: usize,
    /// Slots.
    pub capacity: usize,
    /// How consumers wait, by its name.
    pub wait: String,
}

impl<const W: usize, K: Kind> Publish<W> for Producer<Event<W>, K> {
    #[inline(always)]
    fn publish(&mut self, intended: &[u64], first: u64, may_drop: bool) -> bool {
        let fill = |index: usize, event: &mut Event<W>| {
            event.fill(intended[index], first + index as u64);
        };
        if may_drop {
            self.try_publish_batch(intended.len(), fill).is_ok()
        } else if let [intended] = *intended {
            self.publish(|event| event.fill(intended, first)).is_ok()
        } else {
            self.publish_batch(intended.len(), fill).is_ok()
        }
    }
}

/// A stage of a graph, or a worker, with the ring that it reads from.
struct Reader<C, const W: usize, K: Kind> {
    consumer: C,
    limit: usize,
    _ring: Ring<Event<W>, K>,
}

impl<const W: usize, K: Kind> Source<W> for Reader<Consumer<Event<W>, K>, W, K> {
    #[inline(always)]
    fn drain(&mut self, mut see: impl FnMut(&Event<W>)) -> bool {
        let Ok(mut batch) = self.consumer.poll_wait(self.limit) else { return false };
        for (_, event) in &mut batch {
            see(event);
        }
        true
    }
}

impl<const W: usize, K: Kind> Source<W> for Reader<Worker<Event<W>, K>, W, K> {
    #[inline(always)]
    fn drain(&mut self, mut see: impl FnMut(&Event<W>)) -> bool {
        // One at a time: a worker that takes many keeps them from the others.
        let Ok(taken) = self.consumer.take_wait(1) else { return false };
        taken.for_each(|_, event| see(event));
        true
    }
}

/// A failure to set up, in words.
fn refused(error: impl std::fmt::Display) -> String {
    format!("the ring was refused: {error}")
}

/// Stages with the ones before them.
fn stages(shape: &Shape) -> Vec<(String, Vec<&'static str>, bool)> {
    let stage = |name: &str, after: &[&'static str], last| (name.to_owned(), after.to_vec(), last);
    match shape.scenario {
        Scenario::Fanout => (0..shape.consumers).map(|index| (format!("c{index}"), Vec::new(), true)).collect(),
        Scenario::Pipeline => {
            vec![stage("a", &[], false), stage("b", &["a"], false), stage("c", &["b"], true)]
        }
        Scenario::Diamond => {
            vec![stage("a", &[], false), stage("b", &[], false), stage("c", &["a", "b"], true)]
        }
        _ => vec![stage("a", &[], true)],
    }
}

/// Runs a shape once with events of `W` words.
///
/// # Errors
///
/// What was refused: the ring, or a pin.
pub fn run<const W: usize>(
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    schedules: Vec<Schedule>,
) -> Result<Outcome, String> {
    if shape.producers == 1 && shape.scenario != Scenario::Mpsc {
        let builder = Builder::single(shape.capacity, Event::<W>::default);
        with(builder, |producer: Producer<_, Single>| vec![producer], shape, load, clock, schedules)
    } else {
        let builder = Builder::multi(shape.capacity, Event::<W>::default);
        let clones = |producer: Producer<_, Multi>| {
            let mut all: Vec<_> = (1..shape.producers).map(|_| producer.clone()).collect();
            all.push(producer);
            all
        };
        with(builder, clones, shape, load, clock, schedules)
    }
}

fn with<const W: usize, K: Kind>(
    mut builder: Builder<Event<W>, K>,
    producers: impl FnOnce(Producer<Event<W>, K>) -> Vec<Producer<Event<W>, K>>,
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    schedules: Vec<Schedule>,
) -> Result<Outcome, String> {
    let wait = crate::wait_spec::parse(&shape.wait)?;
    let sharing = shape.scenario == Scenario::WorkSharing;
    if sharing {
        builder.workers(Stage::new("pool").wait(wait.clone()), shape.consumers);
    } else {
        for (name, after, _) in stages(shape) {
            builder.poll(Stage::new(name).after(after).wait(wait.clone()));
        }
    }
    let (mut producer, ring) = builder.build().map_err(refused)?;
    // A producer that waits for room is a producer that is late: it spins, whatever consumers do,
    // unless there are more threads than cores.
    producer.set_wait(if wait.occupies_a_core() { wait } else { Wait::spin_yield() });
    let publishers = producers(producer);
    let limit = (shape.capacity / 4).clamp(1, 256);
    if sharing {
        let role = Role { last: true, shares: true };
        let workers = (0..shape.consumers)
            .map(|_| {
                let consumer = ring.worker("pool").map_err(refused)?;
                Ok((Reader { consumer, limit, _ring: ring.clone() }, role))
            })
            .collect::<Result<Vec<_>, String>>()?;
        return drive(load, clock, publishers, schedules, workers);
    }
    let readers = stages(shape)
        .into_iter()
        .map(|(name, _, last)| {
            let consumer = ring.consumer(&name).map_err(refused)?;
            let role = Role { last, shares: false };
            Ok((Reader { consumer, limit, _ring: ring.clone() }, role))
        })
        .collect::<Result<Vec<_>, String>>()?;
    drive(load, clock, publishers, schedules, readers)
}
