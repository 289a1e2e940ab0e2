//! The scenarios of `run` on rings and topics: the readers of each, and the stages that a reader has to wait for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use slipring::topic::Overflow;
use slipring::{Engine, Topic, Wait};
use slipring_ring::{Multi, Producer, Single, Stage};

use super::drive::{Load, Outcome, Publish, Role, drive};
use super::schedule::Schedule;
use crate::clock::Clock;
use crate::ours::{Kind, Reader, engine_refused, open_graph, open_topic, ring_refused};
use crate::payload::Payload;
use crate::scenario::Scenario;

/// The shape of a run.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The scenario.
    pub scenario: Scenario,
    /// Count of the publishing threads.
    pub producers: usize,
    /// Count of the consuming threads.
    pub consumers: usize,
    /// Slots of the ring.
    pub capacity: usize,
    /// How consumers wait, as `--wait` takes it.
    pub wait: String,
}

impl Shape {
    /// The most events of a batch: a quarter of the ring, so that producers have room while a batch is read, and at
    /// most 256.
    pub fn limit(&self) -> usize {
        (self.capacity / 4).clamp(1, 256)
    }
}

impl<const W: usize, K: Kind> Publish for Producer<Payload<W>, K> {
    #[inline(always)]
    fn publish(&mut self, intended: &[u64], first: u64, may_drop: bool) -> bool {
        let fill = |index: usize, event: &mut Payload<W>| event.fill_timed(intended[index], first + index as u64);
        if may_drop {
            self.try_publish_batch(intended.len(), fill).is_ok()
        } else if let [intended] = *intended {
            self.publish(|event| event.fill_timed(intended, first)).is_ok()
        } else {
            self.publish_batch(intended.len(), fill).is_ok()
        }
    }
}

/// A producer of a topic, which refuses what finds no room if messages may be dropped, also a batch. The drop of the last
/// producer closes the topic, which would stay open otherwise: its reader would never end.
struct TopicProducer<const W: usize, K: Kind> {
    producer: slipring::Producer<Payload<W>, K>,
    topic: Topic<Payload<W>, K>,
    left: Arc<AtomicUsize>,
}

impl<const W: usize, K: Kind> Publish for TopicProducer<W, K> {
    #[inline(always)]
    fn publish(&mut self, intended: &[u64], first: u64, _may_drop: bool) -> bool {
        let fill = |index: usize, event: &mut Payload<W>| event.fill_timed(intended[index], first + index as u64);
        match *intended {
            [intended] => self.producer.publish(|event| event.fill_timed(intended, first)).is_ok(),
            _ => self.producer.publish_batch(intended.len(), fill).is_ok(),
        }
    }
}

impl<const W: usize, K: Kind> Drop for TopicProducer<W, K> {
    fn drop(&mut self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.topic.close();
        }
    }
}

/// The wait strategy of the producers: that of the consumers if it occupies a core, otherwise spinning and yielding,
/// since a producer that sleeps would be late.
fn producers_wait(consumers: &Wait) -> Wait {
    if consumers.occupies_a_core() { consumers.clone() } else { Wait::spin_yield() }
}

/// Runs a shape once with events of `W` words.
///
/// # Errors
///
/// The refused ring, topic or pin, in words.
pub fn run<const W: usize>(
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    schedules: Vec<Schedule>,
) -> Result<Outcome, String> {
    let through_topic = matches!(shape.scenario, Scenario::Topic | Scenario::Group);
    match (through_topic, shape.producers == 1 && shape.scenario != Scenario::Mpsc) {
        (false, true) => on_ring::<W, Single>(shape, load, clock, schedules),
        (false, false) => on_ring::<W, Multi>(shape, load, clock, schedules),
        (true, true) => on_topic::<W, Single>(shape, load, clock, schedules),
        (true, false) => on_topic::<W, Multi>(shape, load, clock, schedules),
    }
}

fn on_ring<const W: usize, K: Kind>(
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    schedules: Vec<Schedule>,
) -> Result<Outcome, String> {
    let wait = crate::wait_spec::parse(&shape.wait)?;
    let mut builder = K::ring(shape.capacity, Payload::<W>::default);
    if shape.scenario == Scenario::WorkSharing {
        builder.workers(Stage::new("pool").wait(wait.clone()), shape.consumers);
        let (mut producer, ring) = builder.build().map_err(ring_refused)?;
        producer.set_wait(producers_wait(&wait));
        let worker = |_| {
            let reads = ring.worker("pool").map_err(ring_refused)?;
            Ok((Reader { reads, owner: ring.clone() }, Role { last: true, shares: true }))
        };
        let workers = (0..shape.consumers).map(worker).collect::<Result<Vec<_>, String>>()?;
        return drive(load, clock, K::clones(producer, shape.producers), schedules, workers, shape.limit());
    }
    let stages = shape.scenario.stages(shape.consumers);
    let (mut producer, readers) = open_graph(builder, &stages, &wait)?;
    producer.set_wait(producers_wait(&wait));
    let is_last = |name: &str| stages.iter().all(|(_, after)| !after.contains(&name));
    let role = |(name, _): &(String, _)| Role { last: is_last(name), shares: false };
    let readers = readers.into_iter().zip(stages.iter().map(role)).collect();
    drive(load, clock, K::clones(producer, shape.producers), schedules, readers, shape.limit())
}

/// An engine with a topic, and the topic's producers.
type Topics<const W: usize, K> = (Engine, Topic<Payload<W>, K>, Vec<TopicProducer<W, K>>);

fn open_producers<const W: usize, K: Kind>(
    (capacity, producers): (usize, usize),
    may_drop: bool,
    wait: &Wait,
) -> Result<Topics<W, K>, String> {
    let overflow = if may_drop { Overflow::Fail } else { Overflow::Block };
    let (engine, topic) = open_topic::<Payload<W>, K>(capacity, overflow)?;
    let left = Arc::new(AtomicUsize::new(producers));
    let producer = |_| {
        let producer = topic.producer().wait(producers_wait(wait)).create().map_err(engine_refused)?;
        Ok(TopicProducer { producer, topic: topic.clone(), left: Arc::clone(&left) })
    };
    let producers = (0..producers).map(producer).collect::<Result<Vec<_>, String>>()?;
    Ok((engine, topic, producers))
}

fn on_topic<const W: usize, K: Kind>(
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    schedules: Vec<Schedule>,
) -> Result<Outcome, String> {
    let wait = crate::wait_spec::parse(&shape.wait)?;
    let (engine, topic, producers) = open_producers::<W, K>((shape.capacity, shape.producers), load.may_drop, &wait)?;
    let role = Role { last: true, shares: false };
    let limit = shape.limit();
    if shape.scenario == Scenario::Group {
        let reads = topic.group("readers").wait(wait).limit(limit).join().map_err(engine_refused)?;
        return drive(load, clock, producers, schedules, vec![(Reader { reads, owner: engine }, role)], limit);
    }
    let reads = topic.subscribe("reader").wait(wait).limit(limit).poll().map_err(engine_refused)?;
    drive(load, clock, producers, schedules, vec![(Reader { reads, owner: engine }, role)], limit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A batch waited for room, so that nothing was dropped and the latencies were those of a full ring.
    #[test]
    fn what_finds_a_full_topic_is_dropped_one_by_one_and_in_batches() {
        fn fill<K: Kind>(batch: usize) -> usize {
            let (_engine, topic, mut producers) = open_producers::<4, K>((8, 1), true, &Wait::spin_yield()).unwrap();
            let _reader = topic.subscribe("reader").poll().unwrap();
            let intended = vec![0; batch];
            (0..16 / batch).filter(|_| producers[0].publish(&intended, 0, true)).count()
        }
        for batch in [1, 4] {
            let (told, hears) = std::sync::mpsc::channel();
            std::thread::spawn(move || told.send([fill::<Single>(batch), fill::<Multi>(batch)]));
            let published = hears.recv_timeout(Duration::from_secs(60)).expect("nobody waits for room");
            assert_eq!(published, [8 / batch; 2], "batches of {batch}");
        }
    }
}
