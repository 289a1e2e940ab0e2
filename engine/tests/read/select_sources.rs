//! What a selector waits for beside readers: room to publish, deadlines and intervals; and sources that are removed.

use slipring::{
    Engine, Producer, Subscriber, Topic,
    clock::ManualClock,
    group::GroupError,
    producer::PublishError,
    subscriber::{Deadline, Interval, Selector, TimerError},
};
use std::time::Duration;

use crate::sleeps::asleep;

const NOW: Duration = Duration::ZERO;
const SOON: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(120);

fn read(tape: &mut Subscriber<u64>) -> Vec<u64> {
    (&mut tape.poll(NOW).unwrap().expect("open")).into_iter().map(|(event, _)| *event).collect()
}

/// A topic of two partitions with two slots each, both of them full, and its only reader.
fn full(engine: &Engine) -> (Topic<u64>, Subscriber<u64>, Producer<u64>) {
    let fills = engine.topic::<u64>("fills").partitions(2).capacity(2).create().unwrap();
    let slow = fills.subscribe("slow").poll().unwrap();
    let mut producer = fills.producer().create().unwrap();
    for event in 0..4 {
        producer.publish_to(event as u32 % 2, |fill| *fill = event).unwrap();
    }
    (fills, slow, producer)
}

#[test]
fn room_wakes_a_selector_that_sleeps_beside_readers() {
    let engine = Engine::builder().build().unwrap();
    let orders = engine.topic::<u64>("orders").create().unwrap();
    let mut tape = orders.subscribe("tape").poll().unwrap();
    let (_fills, mut slow, mut producer) = full(&engine);
    let mut selector = Selector::round_robin();
    assert_eq!(selector.select(&mut [&mut tape, &mut producer], SOON).unwrap(), None);
    let waiting = asleep(move || {
        let found = selector.select(&mut [&mut tape, &mut producer], LONG).unwrap();
        (found, selector, tape, producer)
    });
    // Room in one of the partitions is not enough; the last of the reads brings the selector back.
    let mut seen = 0;
    while seen < 4 {
        seen += read(&mut slow).len();
    }
    let (found, mut selector, mut tape, mut producer) = waiting.join();
    assert_eq!(found, Some(1));
    for event in 0..4 {
        producer.publish_to(event as u32 % 2, |fill| *fill = event).unwrap();
    }
    assert_eq!(selector.select(&mut [&mut tape, &mut producer], SOON).unwrap(), None, "full again");
    orders.producer().create().unwrap().publish(|order| *order = 7).unwrap();
    assert_eq!(selector.select(&mut [&mut tape, &mut producer], LONG).unwrap(), Some(0));
    assert_eq!(read(&mut tape), [7]);
}

#[test]
fn the_room_of_a_topics_only_producer_stays_until_it_publishes() {
    let engine = Engine::builder().build().unwrap();
    let fills = engine.topic::<u64>("fills").capacity(4).single_producer().create().unwrap();
    let mut slow = fills.subscribe("slow").poll().unwrap();
    let mut producer = fills.producer().create().unwrap();
    let mut selector = Selector::round_robin();
    producer.publish_batch(2, |_, fill| *fill = 1).unwrap();
    producer.select_room(3, None);
    assert_eq!(selector.select(&mut [&mut producer], SOON).unwrap(), None);
    producer.select_room(2, None);
    assert_eq!(selector.select(&mut [&mut producer], NOW).unwrap(), Some(0), "another request begins anew");
    producer.select_room(4, Some(0));
    let waiting = asleep(move || (selector.select(&mut [&mut producer], LONG).unwrap(), producer));
    (&mut slow.poll(NOW).unwrap().unwrap()).into_iter().for_each(drop);
    let (found, mut producer) = waiting.join();
    assert_eq!(found, Some(0));
    producer.publish_batch(4, |_, fill| *fill = 2).unwrap();
}

#[test]
fn a_request_for_one_partition_does_not_wait_for_the_others() {
    let engine = Engine::builder().build().unwrap();
    let (fills, mut slow, producer) = full(&engine);
    let mut selector = Selector::round_robin();
    let [mut first, mut second] = [0, 1].map(|partition| {
        let mut producer = producer.clone();
        producer.select_room(2, Some(partition));
        producer
    });
    assert_eq!(selector.select(&mut [&mut first, &mut second], SOON).unwrap(), None);
    slow.pause(1).unwrap();
    while read(&mut slow).is_empty() {}
    for _ in 0..2 {
        assert_eq!(selector.select(&mut [&mut first, &mut second], LONG).unwrap(), Some(0));
    }
    // A new partition has room, and does not give any to the second one.
    fills.add_partitions(1).unwrap();
    second.select_room(1, None);
    assert_eq!(selector.select(&mut [&mut second], SOON).unwrap(), None);
    second.select_room(1, Some(2));
    assert_eq!(selector.select(&mut [&mut second], NOW).unwrap(), Some(0));
}

#[test]
fn a_publish_that_would_be_refused_at_once_is_not_waited_for() {
    let engine = Engine::builder().build().unwrap();
    let (fills, _slow, mut producer) = full(&engine);
    let mut selector = Selector::round_robin();
    for (len, partition) in [(0, None), (3, None), (1, Some(2)), (1, Some(u32::MAX))] {
        producer.select_room(len, partition);
        assert_eq!(selector.select(&mut [&mut producer], NOW).unwrap(), Some(0), "{len} in {partition:?}");
    }
    producer.select_room(1, None);
    let waiting = asleep(move || (selector.select(&mut [&mut producer], LONG).unwrap(), producer));
    fills.close();
    let (found, mut producer) = waiting.join();
    assert_eq!(found, Some(0), "the end is told");
    assert!(matches!(producer.try_publish(|_| ()), Err(PublishError::Closed { .. })));
}

/// A producer with room and a reader with events are ready at each call. Each has its turn, and so has what comes late.
#[test]
fn readers_room_deadlines_and_intervals_have_their_turns() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let orders = engine.topic::<u64>("orders").create().unwrap();
    let mut tape = orders.subscribe("tape").limit(1).poll().unwrap();
    let mut producer = orders.producer().create().unwrap();
    let mut interval = engine.interval(Duration::from_secs(1)).unwrap();
    let mut deadline = engine.deadline().unwrap();
    deadline.set(Duration::from_secs(3));
    for event in 0..100 {
        producer.publish(|order| *order = event).unwrap();
    }
    let mut selector = Selector::round_robin();
    let mut turns = |rounds: usize, tape: &mut Subscriber<u64>, interval: &mut Interval, deadline: &mut Deadline| {
        let mut counts = [0; 4];
        for _ in 0..rounds {
            let found = selector.select(&mut [&mut *tape, &mut producer, &mut *interval, &mut *deadline], LONG);
            let found = found.unwrap().expect("a reader with events is ready");
            counts[found] += 1;
            if found == 0 {
                read(tape);
            }
        }
        counts
    };
    assert_eq!(turns(8, &mut tape, &mut interval, &mut deadline), [4, 4, 0, 0]);
    clock.advance(Duration::from_secs(2));
    assert_eq!(turns(9, &mut tape, &mut interval, &mut deadline), [3, 3, 3, 0]);
    clock.advance(Duration::from_secs(1));
    assert_eq!(turns(8, &mut tape, &mut interval, &mut deadline), [2, 2, 2, 2]);
    assert_eq!(interval.take(), 3);
    deadline.clear();
    assert_eq!(turns(8, &mut tape, &mut interval, &mut deadline), [4, 4, 0, 0]);
}

#[test]
fn a_deadline_and_an_interval_wake_a_sleeping_selector() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let orders = engine.topic::<u64>("orders").create().unwrap();
    let mut tape = orders.subscribe("tape").poll().unwrap();
    let mut deadline = engine.deadline().unwrap();
    let mut interval = engine.interval(Duration::from_secs(10)).unwrap();
    let mut selector = Selector::round_robin();
    let second = Duration::from_secs(1);
    // It does not return for what has been taken back or set to a later moment.
    deadline.set(second);
    assert_eq!(selector.select(&mut [&mut tape, &mut deadline, &mut interval], SOON).unwrap(), None);
    deadline.clear();
    clock.advance(second);
    assert_eq!(selector.select(&mut [&mut tape, &mut deadline, &mut interval], SOON).unwrap(), None);
    deadline.set(3 * second);
    let waiting = asleep(move || {
        let found = selector.select(&mut [&mut tape, &mut deadline, &mut interval], LONG).unwrap();
        (found, selector, tape, deadline, interval)
    });
    clock.advance(3 * second);
    let (found, mut selector, mut tape, mut deadline, mut interval) = waiting.join();
    assert_eq!(found, Some(1));
    assert!(deadline.has_passed());
    deadline.clear();
    assert_eq!(interval.take(), 0);
    let waiting = asleep(move || {
        let found = selector.select(&mut [&mut tape, &mut deadline, &mut interval], LONG).unwrap();
        (found, selector, tape, deadline, interval)
    });
    clock.advance(30 * second);
    let (found, mut selector, mut tape, mut deadline, mut interval) = waiting.join();
    assert_eq!((found, interval.take(), interval.take()), (Some(2), 3, 0), "34 seconds have passed");
    // The periods follow one another from the creation on, however late they are taken; and also after the engine.
    drop(engine);
    clock.advance(6 * second);
    assert_eq!(selector.select(&mut [&mut tape, &mut deadline, &mut interval], LONG).unwrap(), Some(2));
    assert_eq!(interval.take(), 1);
    deadline.set(NOW);
    assert_eq!(selector.select(&mut [&mut tape, &mut deadline, &mut interval], LONG).unwrap(), Some(1));
    deadline.set(Duration::MAX);
    assert_eq!(selector.select(&mut [&mut tape, &mut deadline, &mut interval], SOON).unwrap(), None);
}

#[test]
fn the_systems_clock_wakes_a_selector_and_a_period_of_zero_is_refused() {
    let engine = Engine::builder().build().unwrap();
    let (mut deadline, mut interval) = (engine.deadline().unwrap(), engine.interval(SOON).unwrap());
    let mut selector = Selector::round_robin();
    deadline.set(Duration::from_millis(20));
    let mut ticks = 0;
    while selector.select(&mut [&mut interval, &mut deadline], LONG).unwrap().expect("a tick") == 0 {
        ticks += interval.take();
    }
    assert!(ticks > 0, "it has had its turn");
    let refused = engine.interval(NOW).unwrap_err();
    assert!(matches!(refused, TimerError::NoPeriod));
    assert_eq!(refused.to_string(), "an interval's period is zero: take a longer one");
}

#[test]
fn a_removed_reader_is_passed_over_and_wakes_nobody_until_it_is_restored() {
    let engine = Engine::builder().build().unwrap();
    let topics = ["a", "b", "c"].map(|name| engine.topic::<u64>(name).create().unwrap());
    let [mut a, mut b, mut c] = topics.each_ref().map(|topic| topic.subscribe("tape").poll().unwrap());
    let publish = |topic: usize| _ = topics[topic].producer().create().unwrap().publish(|event| *event = 1).unwrap();
    let mut selector = Selector::round_robin();
    selector.remove(&a);
    publish(0);
    assert_eq!(selector.select(&mut [&mut a, &mut b, &mut c], SOON).unwrap(), None, "removed before the first call");
    selector.remove(&a);
    selector.remove(&b);
    publish(1);
    let (wakeup, wakes) = (selector.wakeup(), std::sync::mpsc::channel());
    let waiting = asleep(move || {
        // The second one is removed after the selector has registered with it: its events wake no wait.
        let found = selector.select(&mut [&mut a, &mut b, &mut c], LONG).unwrap();
        wakes.0.send(found).unwrap();
        let next = selector.select(&mut [&mut a, &mut b, &mut c], LONG).unwrap();
        (next, selector, a, b, c)
    });
    publish(0);
    publish(1);
    wakeup.wake();
    assert_eq!(wakes.1.recv_timeout(LONG).unwrap(), None, "woken from outside");
    publish(2);
    let (found, mut selector, mut a, mut b, mut c) = waiting.join();
    assert_eq!(found, Some(2), "it keeps its index");
    selector.restore(&b);
    selector.restore(&c);
    assert_eq!(read(&mut c), [1]);
    assert_eq!(selector.select(&mut [&mut a, &mut b, &mut c], NOW).unwrap(), Some(1));
    assert_eq!(read(&mut b), [1, 1]);
    assert_eq!(selector.select(&mut [&mut a, &mut b, &mut c], NOW).unwrap(), None);
    // It is the reader that was removed, not its place, as long as each call is given it.
    assert_eq!(selector.select(&mut [&mut b, &mut a], NOW).unwrap(), None);
    assert_eq!(selector.select(&mut [&mut b], NOW).unwrap(), None);
    assert_eq!(selector.select(&mut [&mut b, &mut a], NOW).unwrap(), Some(1), "it had been left out");
}

/// A call of the selector is progress of each member in it, but not of one that is removed.
#[test]
fn a_removed_member_makes_no_progress() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let second = Duration::from_secs(1);
    let join = |group: &str| ticks.group(group).deadline(10 * second).join().unwrap();
    let (mut kept, mut removed) = (join("kept"), join("removed"));
    let mut selector = Selector::round_robin();
    for member in [&mut kept, &mut removed] {
        drop(member.poll(NOW).unwrap());
    }
    assert_eq!(selector.select(&mut [&mut kept, &mut removed], SOON).unwrap(), None);
    selector.remove(&removed);
    for _ in 0..3 {
        clock.advance(5 * second);
        assert_eq!(selector.select(&mut [&mut kept, &mut removed], SOON).unwrap(), None);
    }
    assert!(kept.poll(NOW).is_ok());
    assert!(matches!(removed.poll(NOW), Err(GroupError::Fenced(_))));
}
