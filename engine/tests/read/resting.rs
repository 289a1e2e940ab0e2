//! Readers that rest in a selector: they are not checked until something comes for them.

use slipring::{
    Engine, Subscriber, Topic,
    clock::ManualClock,
    group::{GroupError, Member},
    subscriber::{Selectable, Selector},
};
use slipring_ring::Waiter;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::sleeps::asleep;

const NOW: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(120);
/// More than a selector checks in each call. The first of them rest, and the last 16 do not.
const MANY: usize = 60;

/// Whom to wake, and with which token.
type Watcher = Option<(Arc<Waiter>, usize)>;

/// Counts how often it is checked, and has nothing until it is woken.
#[derive(Clone, Default)]
struct Counted {
    checks: Rc<Cell<usize>>,
    is_ready: Rc<Cell<bool>>,
    watcher: Rc<Cell<Watcher>>,
}

impl Selectable for Counted {
    fn is_ready(&mut self) -> bool {
        self.checks.set(self.checks.get() + 1);
        self.is_ready.get()
    }
    fn arm(&mut self, waiter: &Arc<Waiter>, token: usize) -> bool {
        self.watcher.set(Some((Arc::clone(waiter), token)));
        !self.is_ready.get()
    }
    fn may_rest(&self) -> bool {
        true
    }
    fn identity(&self) -> usize {
        usize::MAX
    }
}

/// Topics with a subscriber each, and a selector in which most of them rest beside a busy one, which is last.
struct Resting {
    engine: Engine,
    clock: ManualClock,
    topics: Vec<Topic<u64>>,
    tapes: Vec<Subscriber<u64>>,
    busy: (Topic<u64>, Subscriber<u64>),
    selector: Selector,
}

impl Resting {
    fn new(selector: Selector) -> Self {
        let clock = ManualClock::new();
        let engine = Engine::builder().clock(clock.clone()).build().unwrap();
        let topic = |index| engine.topic::<u64>(format!("topic-{index}")).capacity(4).retain(2).create().unwrap();
        let topics: Vec<_> = (0..MANY).map(topic).collect();
        let tapes = topics.iter().map(|topic| topic.subscribe("tape").poll().unwrap()).collect();
        let busy = engine.topic::<u64>("busy").create().unwrap();
        let tape = busy.subscribe("tape").poll().unwrap();
        let mut resting = Self { engine, clock, topics, tapes, busy: (busy, tape), selector };
        resting.rest(&mut []);
        resting
    }

    fn publish(&self, topic: usize) {
        self.topics[topic].producer().create().unwrap().publish(|_| ()).unwrap();
    }

    /// Publishes into the busy topic, and selects once. Returns the index of another reader; `None` for the busy one.
    fn step(&mut self, more: &mut [&mut Member<u64>]) -> Option<usize> {
        self.busy.0.producer().create().unwrap().publish(|_| ()).unwrap();
        let tapes = self.tapes.iter_mut().map(|tape| tape as &mut dyn Selectable);
        let more = more.iter_mut().map(|member| &mut **member as &mut dyn Selectable);
        let mut readers: Vec<_> = more.chain(tapes).collect();
        readers.push(&mut self.busy.1);
        let found = self.selector.select(&mut readers, NOW).unwrap().unwrap();
        let others = readers.len() - 1;
        self.busy.1.poll(NOW).unwrap().unwrap().into_iter().for_each(drop);
        Some(found).filter(|found| *found < others)
    }

    /// Selects so often that the first readers rest.
    fn rest(&mut self, more: &mut [&mut Member<u64>]) {
        (0..100).for_each(|_| _ = self.step(more));
    }

    /// Selects until another reader than the busy one is found, which must be soon.
    fn other(&mut self, more: &mut [&mut Member<u64>]) -> usize {
        let found = (0..100).find_map(|_| self.step(more));
        found.expect("it sleeps although something has come")
    }
}

fn both() -> [Resting; 2] {
    [Resting::new(Selector::round_robin()), Resting::new(Selector::by_priority())]
}

#[test]
fn a_call_checks_the_ready_readers_and_a_few_others() {
    for selector in [Selector::round_robin(), Selector::by_priority()] {
        let mut selector = selector;
        let engine = Engine::builder().build().unwrap();
        let topic = engine.topic::<u64>("numbers").create().unwrap();
        let (mut tape, mut producer) = (topic.subscribe("tape").poll().unwrap(), topic.producer().create().unwrap());
        let mut idle = vec![Counted::default(); 200];
        idle.iter_mut().for_each(|it| (it.is_ready, it.watcher) = Default::default());
        let checks = Rc::clone(&idle[0].checks);
        let mut step = |idle: &mut [Counted]| {
            producer.publish(|_| ()).unwrap();
            let mut readers: Vec<_> = idle.iter_mut().map(|it| it as &mut dyn Selectable).collect();
            readers.push(&mut tape);
            let found = selector.select(&mut readers, NOW).unwrap();
            tape.poll(NOW).unwrap().unwrap().into_iter().for_each(drop);
            found.unwrap()
        };
        (0..100).for_each(|_| assert_eq!(step(&mut idle), 200));
        checks.set(0);
        (0..100).for_each(|_| assert_eq!(step(&mut idle), 200));
        // 200 in each call before.
        assert!(checks.get() <= 100 * 17, "{} checks in 100 calls", checks.get());
        let [first, .., last] = [0, 100, 199].map(|index: usize| idle[index].clone());
        for (woken, place) in [(last, 199), (first, 0)] {
            woken.is_ready.set(true);
            let watcher = woken.watcher.take();
            if let Some((waiter, token)) = watcher {
                waiter.wake(token);
            }
            assert!((0..100).any(|_| step(&mut idle) == place), "{place} is not selected");
            woken.is_ready.set(false);
        }
    }
}

#[test]
fn what_comes_for_a_resting_reader_is_selected() {
    for mut it in both() {
        it.publish(5);
        assert_eq!(it.other(&mut []), 5);
        assert_eq!(it.tapes[5].poll(NOW).unwrap().unwrap().into_iter().count(), 1);
        it.topics[30].close();
        assert_eq!(it.other(&mut []), 30);
        assert!(it.tapes[30].poll(NOW).unwrap().is_none());
    }
    for mut it in both() {
        it.engine.delete_forced("topic-17").unwrap();
        assert_eq!(it.other(&mut []), 17);
        assert!(it.tapes[17].poll(NOW).is_err());
    }
    for mut it in both() {
        it.publish(20);
        assert_eq!(it.other(&mut []), 20);
        assert_eq!(it.tapes[20].poll(NOW).unwrap().unwrap().into_iter().count(), 1);
        it.rest(&mut []);
        it.tapes[20].seek(0, 0).unwrap();
        assert_eq!(it.other(&mut []), 20, "it went back");
        assert_eq!(it.tapes[20].poll(NOW).unwrap().unwrap().into_iter().count(), 1);
        it.tapes[21].pause(0).unwrap();
        it.rest(&mut []);
        it.publish(21);
        it.rest(&mut []);
        it.tapes[21].resume(0).unwrap();
        assert_eq!(it.other(&mut []), 21, "it was resumed");
        assert_eq!(it.tapes[21].poll(NOW).unwrap().unwrap().into_iter().count(), 1);
        it.rest(&mut []);
        it.topics[22].add_partitions(1).unwrap();
        it.topics[22].producer().create().unwrap().publish_to(1, |_| ()).unwrap();
        assert_eq!(it.other(&mut []), 22, "it has another partition");
    }
}

#[test]
fn a_reader_in_the_place_of_one_that_was_dropped_is_another_one() {
    for mut it in both() {
        for round in 0..20 {
            drop(it.tapes.remove(9));
            it.tapes.insert(9, it.topics[9].subscribe(format!("tape-{round}")).poll().unwrap());
            it.publish(9);
            assert_eq!(it.other(&mut []), 9, "round {round}");
            it.tapes[9].poll(NOW).unwrap().unwrap().into_iter().for_each(drop);
            it.rest(&mut []);
        }
        it.tapes.pop();
        it.publish(9);
        assert_eq!(it.other(&mut []), 9, "one was left out");
    }
}

/// A member that rests hears of a newcomer, gives its partition up, and is told when it was fenced.
#[test]
fn a_selector_sees_the_rebalance_and_the_fence_of_a_resting_member() {
    for mut it in both() {
        let deadline = Duration::from_secs(10);
        let numbers = it.engine.topic::<u64>("numbers").partitions(2).create().unwrap();
        let mut member = numbers.group("sums").deadline(deadline).join().unwrap();
        it.rest(&mut [&mut member]);
        assert_eq!(member.assignment().len(), 2);
        let mut newcomer = numbers.group("sums").join().unwrap();
        let mut steps = 0;
        while newcomer.assignment().is_empty() {
            assert_eq!(it.step(&mut [&mut member]), None);
            drop(newcomer.poll(NOW).unwrap());
            steps += 1;
            assert!(steps < 100, "the newcomer gets nothing");
        }
        it.rest(&mut [&mut member]);
        newcomer.leave();
        it.rest(&mut [&mut member]);
        assert_eq!(member.assignment().len(), 2, "it has everything again");
        // Calls of the selector are progress.
        for _ in 0..10 {
            it.clock.advance(deadline / 2);
            it.rest(&mut [&mut member]);
        }
        let newcomer = numbers.group("sums").join().unwrap();
        it.rest(&mut [&mut member]);
        assert!(member.poll(NOW).is_ok(), "nobody was fenced");
        newcomer.leave();
        it.rest(&mut [&mut member]);
        // Without a call it is fenced, as soon as somebody looks.
        it.clock.advance(deadline * 3);
        let _newcomer = numbers.group("sums").join().unwrap();
        assert_eq!(it.other(&mut [&mut member]), 0);
        assert!(matches!(member.poll(NOW), Err(GroupError::Fenced(_))));
    }
}

/// A member that had slept in a selector was fenced while the selector slept again, or served others.
#[test]
fn a_member_that_was_armed_before_is_not_late_while_its_selector_sleeps_or_serves_others() {
    let (clock, deadline) = (ManualClock::new(), Duration::from_secs(10));
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let topic = |name| engine.topic::<u64>(name).create().unwrap();
    let (busy, quiet) = (topic("busy"), topic("quiet"));
    let mut tape = busy.subscribe("tape").poll().unwrap();
    let mut member = quiet.group("sums").deadline(deadline).join().unwrap();
    let mut selector = Selector::round_robin();
    let mut producer = busy.producer().create().unwrap();
    // Whoever is late is fenced when somebody joins.
    let is_fenced = |member: &mut Member<u64>| {
        quiet.group("sums").join().unwrap().leave();
        member.poll(NOW).is_err()
    };
    assert_eq!(selector.select(&mut [&mut tape, &mut member], Duration::from_millis(1)).unwrap(), None);
    for _ in 0..5 {
        producer.publish(|_| ()).unwrap();
        clock.advance(deadline / 2);
        assert_eq!(selector.select(&mut [&mut tape, &mut member], LONG).unwrap(), Some(0));
        tape.poll(NOW).unwrap().unwrap().into_iter().for_each(drop);
    }
    assert!(!is_fenced(&mut member), "it was armed while others were served");
    assert_eq!(selector.select(&mut [&mut tape, &mut member], Duration::from_millis(1)).unwrap(), None);
    producer.publish(|_| ()).unwrap();
    assert_eq!(selector.select(&mut [&mut tape, &mut member], LONG).unwrap(), Some(0));
    tape.poll(NOW).unwrap().unwrap().into_iter().for_each(drop);
    let watching = asleep(move || {
        let found = selector.select(&mut [&mut tape, &mut member], LONG).unwrap();
        (found, member)
    });
    clock.advance(deadline * 3);
    // If it were late, this would fence it, and the selector would come back with it.
    quiet.group("sums").join().unwrap().leave();
    producer.publish(|_| ()).unwrap();
    let (found, mut member) = watching.join();
    assert_eq!(found, Some(0), "it was armed before the sleep");
    assert!(!is_fenced(&mut member));
}
