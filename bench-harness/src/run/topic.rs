//! The work of spsc through the engine: a topic and a subscriber, or the only member of a group.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use slipring::{Engine, Producer, Subscriber, Topic, TopicBuilder, Wait, group::Member, producer::Producers};

use super::drive::{Load, Outcome, Publish, Role, Source, drive};
use super::event::Event;
use super::schedule::Schedule;
use super::topology::Shape;
use crate::clock::Clock;
use crate::scenario::Scenario;

/// A producer of the topic. The last one to go closes the topic: a topic without producers stays
/// open by itself.
struct Publisher<const W: usize, K: Producers> {
    producer: Producer<Event<W>, K>,
    topic: Topic<Event<W>, K>,
    left: Arc<AtomicUsize>,
}

impl<const W: usize, K: Producers> Publish<W> for Publisher<W, K> {
    #[inline(always)]
    fn publish(&mut self, intended: &[u64], first: u64, may_drop: bool) -> bool {
        match *intended {
            [intended] if may_drop => self.producer.try_publish(|event| event.fill(intended, first)).is_ok(),
            [intended] => self.producer.publish(|event| event.fill(intended, first)).is_ok(),
            _ => self
                .producer
                .publish_batch(intended.len(), |index, event| {
                    event.fill(intended[index], first + index as u64);
                })
                .is_ok(),
        }
    }
}

impl<const W: usize, K: Producers> Drop for Publisher<W, K> {
    fn drop(&mut self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.topic.close();
        }
    }
}

/// A subscriber, and the engine that owns its topic.
struct Reader<const W: usize, K: Producers> {
    subscriber: Subscriber<Event<W>, K>,
    _engine: Engine,
}

impl<const W: usize, K: Producers> Source<W> for Reader<W, K> {
    #[inline(always)]
    fn drain(&mut self, mut see: impl FnMut(&Event<W>)) -> bool {
        // The longest limit waits without a deadline, and so without reading a clock.
        let Ok(Some(mut batch)) = self.subscriber.poll(Duration::MAX) else { return false };
        for (event, _) in &mut batch {
            see(event);
        }
        true
    }
}

/// The only member of a group, and the engine that owns its topic.
struct GroupReader<const W: usize, K: Producers> {
    member: Member<Event<W>, K>,
    _engine: Engine,
}

impl<const W: usize, K: Producers> Source<W> for GroupReader<W, K> {
    #[inline(always)]
    fn drain(&mut self, mut see: impl FnMut(&Event<W>)) -> bool {
        let Ok(Some(batch)) = self.member.poll(Duration::MAX) else { return false };
        for (event, _) in &batch {
            see(event);
        }
        batch.commit().is_ok()
    }
}

fn refused(error: impl std::fmt::Display) -> String {
    format!("the engine refused: {error}")
}

/// Runs the scenario once with events of `W` words.
///
/// # Errors
///
/// What was refused: the topic, or a pin.
pub fn run<const W: usize>(
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    schedules: Vec<Schedule>,
) -> Result<Outcome, String> {
    let engine = Engine::builder().build().map_err(refused)?;
    let topic = engine.topic::<Event<W>>("bench").capacity(shape.capacity);
    if shape.producers == 1 {
        with(engine, topic.single_producer(), shape, load, clock, schedules)
    } else {
        with(engine, topic, shape, load, clock, schedules)
    }
}

fn with<const W: usize, K: Producers>(
    engine: Engine,
    topic: TopicBuilder<Event<W>, K>,
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    schedules: Vec<Schedule>,
) -> Result<Outcome, String> {
    let wait = crate::wait_spec::parse(&shape.wait)?;
    let topic = topic.create().map_err(refused)?;
    let limit = (shape.capacity / 4).clamp(1, 256);
    let left = Arc::new(AtomicUsize::new(shape.producers));
    let publishers = (0..shape.producers)
        .map(|_| {
            let mut producer = topic.producer().create().map_err(refused)?;
            producer.set_wait(if wait.occupies_a_core() { wait.clone() } else { Wait::spin_yield() });
            Ok(Publisher { producer, topic: topic.clone(), left: Arc::clone(&left) })
        })
        .collect::<Result<Vec<_>, String>>()?;
    let role = Role { last: true, shares: false };
    if shape.scenario == Scenario::Group {
        let member = topic.group("readers").wait(wait).limit(limit).join().map_err(refused)?;
        return drive(load, clock, publishers, schedules, vec![(GroupReader { member, _engine: engine }, role)]);
    }
    let subscriber = topic.subscribe("reader").wait(wait).limit(limit).poll().map_err(refused)?;
    drive(load, clock, publishers, schedules, vec![(Reader { subscriber, _engine: engine }, role)])
}
