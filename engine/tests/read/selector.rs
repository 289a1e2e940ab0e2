//! One thread that reads many topics.

use slipring::{
    Engine, Message, Record, Subscriber, Topic, Wait,
    clock::ManualClock,
    group::{GroupError, Member},
    subscriber::{Selectable, Selector, StartAt},
};
use slipring_ring::Waiter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sleeps::asleep;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);

fn topics(engine: &Engine, len: usize) -> Vec<Topic<u64>> {
    (0..len).map(|index| engine.topic::<u64>(format!("topic-{index}")).create().unwrap()).collect()
}

/// Has nothing ever; time passes when it is armed, which is last if it stands first.
struct Passes(ManualClock, Duration);

impl Selectable for Passes {
    fn is_ready(&mut self) -> bool {
        false
    }
    fn arm(&mut self, _: &Arc<Waiter>, _: usize) -> bool {
        self.0.advance(self.1);
        true
    }
    fn identity(&self) -> usize {
        0
    }
}

/// One that was told to give half of its partitions to a newcomer, waits for news, has something to read: all at once.
#[test]
fn members_of_groups_are_watched_beside_others() {
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let numbers = engine.topic::<u64>("numbers").partitions(2).create().unwrap();
    let orders = engine.topic::<Message>("orders").create().unwrap();
    let deadline = Duration::from_secs(10);
    let mut member = numbers.group("sums").deadline(deadline).join().unwrap();
    let mut tape = orders.subscribe("tape").poll().unwrap();
    let mut selector = Selector::round_robin();
    let mut select = |member: &mut Member<u64>, tape: &mut Subscriber<Message>, limit| {
        selector.select(&mut [member, tape], limit).unwrap()
    };
    assert_eq!(select(&mut member, &mut tape, Duration::from_millis(1)), None, "both are armed");
    assert_eq!(member.assignment().len(), 2, "a member learns what it has while it is watched");
    orders.producer().create().unwrap().send(Record::new("buy")).unwrap();
    assert_eq!(select(&mut member, &mut tape, LONG), Some(1));
    drop(tape.poll(NOW).unwrap());

    // Waiting is progress: time that passes meanwhile fences nobody.
    let mut passes = Passes(clock.clone(), deadline * 3);
    let mut selector = Selector::round_robin();
    assert_eq!(selector.select(&mut [&mut passes, &mut member], Duration::from_millis(1)).unwrap(), None);
    let mut producer = numbers.producer().create().unwrap();
    producer.publish_to(1, |event| *event = 7).unwrap();
    assert_eq!(select(&mut member, &mut tape, LONG), Some(0));
    let batch = member.poll(NOW).unwrap().unwrap();
    assert!(batch.iter().map(|(event, _)| *event).eq([7]));
    batch.commit().unwrap();

    // News of the group wake it: a newcomer gets its partition though this one has nothing to read.
    let watching = asleep(move || {
        let mut selector = Selector::round_robin();
        let found = selector.select(&mut [&mut member], LONG).unwrap();
        (found, member)
    });
    let mut newcomer = numbers.group("sums").join().unwrap();
    while newcomer.assignment().is_empty() {
        drop(newcomer.poll(Duration::from_millis(10)).unwrap());
    }
    let kept = 1 - newcomer.assignment()[0].partition;
    producer.publish_to(kept, |event| *event = 8).unwrap();
    let (found, mut member) = watching.join();
    assert_eq!(found, Some(0));
    assert!(!member.poll(NOW).unwrap().unwrap().is_empty());
    // Whoever has come back from waiting is minded again.
    clock.advance(deadline * 3);
    assert!(matches!(member.poll(NOW), Err(GroupError::Fenced(_))));
}

fn tapes(topics: &[Topic<u64>]) -> Vec<Subscriber<u64>> {
    topics.iter().map(|topic| topic.subscribe("tape").limit(1).poll().unwrap()).collect()
}

fn select(selector: &mut Selector, tapes: &mut [Subscriber<u64>], limit: Duration) -> Option<usize> {
    let mut readers: Vec<&mut dyn Selectable> = tapes.iter_mut().map(|tape| tape as &mut dyn Selectable).collect();
    selector.select(&mut readers, limit).unwrap()
}

fn read(tape: &mut Subscriber<u64>) -> u64 {
    *(&mut tape.poll(NOW).unwrap().expect("open")).into_iter().next().expect("selected").0
}

fn publish(topic: &Topic<u64>, numbers: std::ops::Range<u64>) {
    let mut producer = topic.producer().create().unwrap();
    numbers.for_each(|number| _ = producer.publish(|event| *event = number).unwrap());
}

#[test]
fn readers_are_served_in_turns() {
    let engine = Engine::builder().build().unwrap();
    let topics = topics(&engine, 3);
    let mut tapes = tapes(&topics);
    topics.iter().for_each(|topic| publish(topic, 0..4));
    let mut selector = Selector::round_robin();
    let mut order = Vec::new();
    while let Some(found) = select(&mut selector, &mut tapes, NOW) {
        read(&mut tapes[found]);
        order.push(found);
    }
    assert_eq!(order.len(), 12);
    for round in order.chunks(3) {
        let mut round = round.to_vec();
        round.sort_unstable();
        assert_eq!(round, [0, 1, 2], "{order:?}");
    }
}

#[test]
fn by_priority_the_first_that_has_something_is_served_also_when_it_comes_later() {
    let engine = Engine::builder().build().unwrap();
    let topics = topics(&engine, 3);
    let mut tapes = tapes(&topics);
    let mut selector = Selector::by_priority();
    assert_eq!(select(&mut selector, &mut tapes, Duration::from_millis(1)), None, "all are armed now");
    publish(&topics[2], 0..3);
    publish(&topics[1], 0..1);
    let mut order = Vec::new();
    for step in 0.. {
        let Some(found) = select(&mut selector, &mut tapes, NOW) else { break };
        read(&mut tapes[found]);
        order.push(found);
        if step == 1 {
            publish(&topics[0], 0..2);
        }
    }
    assert_eq!(order, [1, 2, 0, 0, 2, 2]);
}

#[test]
fn a_busy_reader_does_not_keep_a_sleeping_one_from_its_turn() {
    let engine = Engine::builder().build().unwrap();
    let topics = topics(&engine, 2);
    let mut tapes = tapes(&topics);
    let mut selector = Selector::round_robin();
    assert_eq!(select(&mut selector, &mut tapes, Duration::from_millis(1)), None);
    publish(&topics[0], 0..500);
    let mut before = 0;
    loop {
        let found = select(&mut selector, &mut tapes, NOW).unwrap();
        read(&mut tapes[found]);
        before += 1;
        match found {
            0 if before == 10 => publish(&topics[1], 0..1),
            0 => assert!(before < 100, "the other one starves"),
            _ => break,
        }
    }
}

#[test]
fn a_sleeping_selector_is_woken_by_any_of_its_readers() {
    let engine = Engine::builder().build().unwrap();
    let numbers = engine.topic::<u64>("numbers").partitions(2).create().unwrap();
    let orders = engine.topic::<Message>("orders").create().unwrap();
    let (mut a, mut b) = (numbers.subscribe("a").poll().unwrap(), orders.subscribe("b").poll().unwrap());
    let (to, seen) = std::sync::mpsc::channel();
    let reader = asleep(move || {
        let mut selector = Selector::round_robin();
        loop {
            let found = selector.select(&mut [&mut a, &mut b], LONG).unwrap().expect("not so long");
            let over = if found == 0 {
                a.poll(NOW)
                    .unwrap()
                    .map(|mut batch| (&mut batch).into_iter().for_each(|it| to.send(it.0.to_string()).unwrap()))
            } else {
                let text = |message: &Message| String::from_utf8_lossy(message.value()).into_owned();
                b.poll(NOW)
                    .unwrap()
                    .map(|mut batch| (&mut batch).into_iter().for_each(|it| to.send(text(it.0)).unwrap()))
            };
            if over.is_none() {
                return found;
            }
        }
    });
    let (mut to_a, mut to_b) = (numbers.producer().create().unwrap(), orders.producer().create().unwrap());
    for round in 0..100u64 {
        to_a.publish_to(round as u32 % 2, |event| *event = round).unwrap();
        assert_eq!(seen.recv_timeout(LONG).unwrap(), round.to_string());
        to_b.send(Record::new("order")).unwrap();
        assert_eq!(seen.recv_timeout(LONG).unwrap(), "order");
    }
    numbers.add_partitions(1).unwrap();
    to_a.publish_to(2, |event| *event = 1000).unwrap();
    assert_eq!(seen.recv_timeout(LONG).unwrap(), "1000");
    orders.close();
    assert_eq!(reader.join(), 1, "the end is told as something to read");
}

#[test]
fn readers_may_change_places() {
    let engine = Engine::builder().build().unwrap();
    let topics = topics(&engine, 3);
    let mut tapes = tapes(&topics);
    let mut selector = Selector::round_robin();
    assert_eq!(select(&mut selector, &mut tapes, Duration::from_millis(1)), None);
    tapes.swap(0, 2);
    publish(&topics[0], 0..1);
    assert_eq!(select(&mut selector, &mut tapes, LONG), Some(2));
    tapes.swap(0, 2);
    assert_eq!(select(&mut selector, &mut tapes, LONG), Some(0));
    read(&mut tapes[0]);
    tapes.pop();
    publish(&topics[1], 0..1);
    assert_eq!(select(&mut selector, &mut tapes, LONG), Some(1));
    assert_eq!(select(&mut selector, &mut [], NOW), None);
}

/// It slept, as its partitions were armed where they had stood.
#[test]
fn one_that_goes_back_or_is_resumed_between_two_calls_is_found_by_the_next() {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("numbers").partitions(2).create().unwrap();
    // Keeps the events.
    let _slow = topic.subscribe("slow").poll().unwrap();
    let mut tape = topic.subscribe("tape").poll().unwrap();
    let mut member = topic.group("sums").join().unwrap();
    let mut producer = topic.producer().create().unwrap();
    let mut selector = Selector::round_robin();
    let mut select = |reader: &mut dyn Selectable, limit| selector.select(&mut [reader], limit).unwrap();
    let (soon, late) = (Duration::from_millis(100), Duration::from_secs(20));

    producer.publish_to(0, |number| *number = 7).unwrap();
    assert_eq!(select(&mut tape, late), Some(0));
    assert_eq!(read(&mut tape), 7);
    assert_eq!(select(&mut tape, soon), None);
    tape.seek(0, 0).unwrap();
    assert_eq!(select(&mut tape, late), Some(0), "it went back");
    assert_eq!(read(&mut tape), 7);
    tape.pause(1).unwrap();
    assert_eq!(select(&mut tape, soon), None);
    producer.publish_to(1, |number| *number = 8).unwrap();
    assert_eq!(select(&mut tape, soon), None);
    tape.resume(1).unwrap();
    assert_eq!(select(&mut tape, late), Some(0), "it was resumed");
    assert_eq!(read(&mut tape), 8);

    for _ in 0..2 {
        assert_eq!(select(&mut member, late), Some(0));
        member.poll(NOW).unwrap().unwrap().commit().unwrap();
    }
    let [first, second] = &member.assignment()[..] else { panic!("both partitions") };
    assert_eq!(select(&mut member, soon), None);
    member.seek(first, StartAt::Offset(0)).unwrap();
    assert_eq!(select(&mut member, late), Some(0), "it went back");
    member.poll(NOW).unwrap().unwrap().commit().unwrap();
    member.pause(second).unwrap();
    assert_eq!(select(&mut member, soon), None);
    producer.publish_to(1, |number| *number = 9).unwrap();
    assert_eq!(select(&mut member, soon), None);
    member.resume(second).unwrap();
    assert_eq!(select(&mut member, late), Some(0), "it was resumed");
}

/// The second selector took a reader's signals from the first, which then slept through a seek back, a resume and an added
/// partition, for as long as it was allowed to.
#[test]
fn two_selectors_that_wait_for_one_reader_in_turns_are_both_woken() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").retain(4).create().unwrap();
    let mut tape = ticks.subscribe("tape").poll().unwrap();
    publish(&ticks, 0..1);
    read(&mut tape);
    // They sleep at once, so that the tape wakes them: whoever still spins looks by itself.
    let mut selectors = [Selector::round_robin(), Selector::by_priority()]
        .map(|selector| selector.wait(Wait::spin_then_park().spin_for(Duration::ZERO).yields(0)));
    let mut both = |tape: &mut Subscriber<u64>, change: &mut dyn FnMut(&mut Subscriber<u64>)| {
        for selector in &mut selectors {
            assert_eq!(selector.select(&mut [tape], Duration::from_millis(1)).unwrap(), None);
        }
        change(tape);
        for selector in &mut selectors {
            assert_eq!(selector.select(&mut [tape], LONG).unwrap(), Some(0));
        }
        read(tape);
    };
    both(&mut tape, &mut |tape| tape.seek(0, 0).unwrap());
    tape.pause(0).unwrap();
    both(&mut tape, &mut |tape| {
        publish(&ticks, 1..2);
        tape.resume(0).unwrap();
    });
    both(&mut tape, &mut |_| {
        ticks.add_partitions(1).unwrap();
        ticks.producer().create().unwrap().publish_to(1, |tick| *tick = 2).unwrap();
    });
}

/// A newcomer got no partition while the first selector slept.
#[test]
fn a_member_for_which_two_selectors_wait_in_turns_gives_a_newcomer_its_part() {
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").partitions(2).create().unwrap();
    let mut member = ticks.group("sums").join().unwrap();
    let mut selectors = [Selector::round_robin(), Selector::round_robin()]
        .map(|selector| selector.wait(Wait::spin_then_park().spin_for(Duration::ZERO).yields(0)));
    for selector in &mut selectors {
        assert_eq!(selector.select(&mut [&mut member], Duration::from_millis(1)).unwrap(), None);
    }
    let [mut first, second] = selectors;
    let watching = asleep(move || (first.select(&mut [&mut member], LONG).unwrap(), first, member));
    let mut newcomer = ticks.group("sums").join().unwrap();
    let begun = Instant::now();
    while newcomer.assignment().is_empty() && begun.elapsed() < LONG / 2 {
        drop(newcomer.poll(Duration::from_millis(10)).unwrap());
    }
    assert_eq!(newcomer.assignment().len(), 1);
    ticks.producer().create().unwrap().publish_to(1 - newcomer.assignment()[0].partition, |_| ()).unwrap();
    let (found, _first, _member) = watching.join();
    assert_eq!(found, Some(0));
    drop(second);
}
