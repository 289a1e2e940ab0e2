//! What a stage lets through is never beyond what those before it have let through, whichever way it came in and
//! wherever it reads. Programs without `unsafe`: Miri runs them too.
#![cfg(not(any(loom, shuttle)))]
#![forbid(unsafe_code)]

mod common;

use common::{STARTS, at_once, soon};
use fastrand::Rng;
use slipring_ring::{
    Builder, Closed, Consumer, ConsumerMut, Kind, Multi, Producer, Ring, SeekError, Sequence, Single, Stage, Start,
};
use std::sync::mpsc;
use std::time::Duration;

/// Events that own something: of two that lend one of them at once, Miri finds the second.
type Owned = Box<u64>;

fn put<K: Kind>(producer: &mut Producer<Owned, K>, count: usize) {
    for _ in 0..count {
        producer.try_publish(|event| **event = u64::MAX / 2).unwrap();
    }
}

/// A ring with a stage `check` that changes events and has not begun; so many are published.
fn unchecked<K: Kind>(
    mut builder: Builder<Owned, K>,
    first: u64,
    count: usize,
) -> (Producer<Owned, K>, Ring<Owned, K>, ConsumerMut<Owned, K>) {
    builder.start_at(Sequence(first)).retain(3).poll_mut(Stage::new("check").wait(at_once()));
    let (mut producer, ring) = builder.build().unwrap();
    let check = ring.consumer_mut("check").unwrap();
    put(&mut producer, count);
    (producer, ring, check)
}

fn change<K: Kind>(check: &mut ConsumerMut<Owned, K>, count: usize) {
    for (sequence, event) in &mut check.poll(count).unwrap() {
        **event = sequence.0;
    }
}

/// What a reader is given, as offsets; each event must have been changed before.
fn given<K: Kind>(reader: &mut Consumer<Owned, K>, first: u64) -> Vec<u64> {
    let mut batch = reader.poll(9).unwrap();
    let given = (&mut batch).into_iter().map(|(sequence, event)| {
        assert_eq!(**event, sequence.0, "an event that `check` has not let through");
        sequence.0.wrapping_sub(first)
    });
    given.collect()
}

fn behind(name: &str, after: &str, start: Start) -> Stage {
    Stage::new(name).after([after]).start(start).wait(at_once())
}

/// Runs a case on both kinds of ring, and where positions wrap.
macro_rules! on_both {
    ($case:ident) => {
        for first in STARTS {
            $case::<Single>(Builder::single(8, Owned::default), first);
            $case::<Multi>(Builder::multi(8, Owned::default), first);
        }
    };
}

/// While `check` lends its events to be changed, nobody behind it is lent one of them.
fn nobody_reads_what_is_being_changed<K: Kind>(builder: Builder<Owned, K>, first: u64) {
    let (mut producer, ring, mut check) = unchecked(builder, first, 4);
    let mut a = ring.join(behind("a", "check", Start::Latest)).unwrap();
    let mut b = ring.join(behind("b", "a", Start::Earliest)).unwrap();
    assert_eq!((a.first().0, b.first().0), (first.wrapping_add(4), first));
    let mut batch = check.poll(4).unwrap();
    let lent: Vec<(Sequence, &mut Owned)> = (&mut batch).into_iter().collect();
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![], vec![]));
    lent.into_iter().for_each(|(sequence, event)| **event = sequence.0);
    batch.commit();
    assert_eq!(given(&mut b, first), [], "`a` has not looked");
    assert_eq!(given(&mut a, first), [], "it begins behind them");
    assert_eq!(given(&mut b, first), [0, 1, 2, 3]);
    put(&mut producer, 1);
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![], vec![]));
    change(&mut check, 1);
    assert_eq!(given(&mut b, first), []);
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![4], vec![4]));
}

#[test]
fn a_newcomer_that_starts_late_lets_nothing_through_early() {
    on_both!(nobody_reads_what_is_being_changed);
}

/// Every start, behind a stage that has let two of four through.
fn every_start_lets_through_in_order<K: Kind>(builder: Builder<Owned, K>, first: u64) {
    let (_producer, ring, mut check) = unchecked(builder, first, 4);
    change(&mut check, 2);
    let at = |offset: u64| Start::At(Sequence(first.wrapping_add(offset)));
    // Three are retained.
    let starts = [(Start::Earliest, 1), (Start::Latest, 4), (at(1), 1), (at(2), 2), (at(3), 3), (at(4), 4)];
    for (start, expected) in starts {
        let mut a = ring.join(behind("a", "check", start)).unwrap();
        let mut b = ring.join(behind("b", "a", Start::Earliest)).unwrap();
        assert_eq!((a.first().0, b.first().0), (first.wrapping_add(expected), first.wrapping_add(1)), "{start:?}");
        let let_through = expected.min(2);
        assert_eq!(given(&mut b, first), (1..let_through).collect::<Vec<_>>(), "{start:?}");
        assert_eq!(given(&mut a, first), (expected..2).collect::<Vec<_>>(), "{start:?}");
        assert_eq!(given(&mut b, first), (let_through..2).collect::<Vec<_>>(), "{start:?}");
        drop(b);
        drop(a);
    }
}

#[test]
fn every_start_of_a_newcomer_lets_through_in_order() {
    on_both!(every_start_lets_through_in_order);
}

/// The same without a stage that changes anything: order alone.
fn order_without_changes<K: Kind>(mut builder: Builder<Owned, K>, first: u64) {
    builder.start_at(Sequence(first)).poll("a");
    let (mut producer, ring) = builder.build().unwrap();
    let mut a = ring.consumer("a").unwrap();
    for at in 0..3u64 {
        producer.try_publish(|event| **event = first.wrapping_add(at)).unwrap();
    }
    let mut b = ring.join(behind("b", "a", Start::At(Sequence(first.wrapping_add(3))))).unwrap();
    let mut c = ring.join(behind("c", "b", Start::Earliest)).unwrap();
    assert_eq!(given(&mut c, first), []);
    assert_eq!(given(&mut b, first), []);
    assert_eq!(given(&mut c, first), []);
    assert_eq!(given(&mut a, first), [0, 1, 2]);
    assert_eq!(given(&mut b, first), []);
    assert_eq!(given(&mut c, first), [0, 1, 2]);
}

#[test]
fn a_chain_of_newcomers_keeps_the_order() {
    on_both!(order_without_changes);
}

/// A seek forward passes over what the stage before has not let through; those behind get that when it has.
fn seeks_let_through_in_order<K: Kind>(mut builder: Builder<Owned, K>, first: u64) {
    builder.start_at(Sequence(first)).retain(3).poll_mut("check");
    builder.poll(behind("a", "check", Start::Earliest)).poll(behind("b", "a", Start::Earliest));
    let (mut producer, ring) = builder.build().unwrap();
    let mut check = ring.consumer_mut("check").unwrap();
    let [mut a, mut b] = ["a", "b"].map(|name| ring.consumer(name).unwrap());
    put(&mut producer, 4);
    let at = |offset: u64| Sequence(first.wrapping_add(offset));
    assert!(matches!(a.seek(at(5)), Err(SeekError::OutOfRange { latest, .. }) if latest == at(4)));
    a.seek(at(3)).unwrap();
    a.seek(at(3)).unwrap();
    let mut batch = check.poll(2).unwrap();
    let lent: Vec<_> = (&mut batch).into_iter().collect();
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![], vec![]));
    lent.into_iter().for_each(|(sequence, event)| **event = sequence.0);
    batch.commit();
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![], vec![0, 1]));
    drop(b);
    // Back to what `check` has let through, and to what it has not.
    a.seek(at(1)).unwrap();
    assert_eq!(given(&mut a, first), [1]);
    a.seek(at(4)).unwrap();
    a.seek(at(3)).unwrap();
    let mut b = ring.join(behind("b", "a", Start::At(at(1)))).unwrap();
    assert_eq!(given(&mut b, first), [1]);
    assert_eq!(given(&mut a, first), []);
    assert_eq!(given(&mut b, first), []);
    change(&mut check, 9);
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![3], vec![2, 3]));
}

#[test]
fn seeks_back_and_forth_let_through_in_order() {
    on_both!(seeks_let_through_in_order);
}

fn successor<K: Kind>(builder: Builder<Owned, K>, first: u64) {
    let (_producer, ring, mut check) = unchecked(builder, first, 4);
    let a = ring.join(behind("a", "check", Start::Latest)).unwrap();
    let at = |offset: u64| Sequence(first.wrapping_add(offset));
    let mut next = ring.take_over("a", behind("next", "check", Start::At(at(2)))).unwrap();
    drop(a);
    let mut b = ring.join(behind("b", "next", Start::Earliest)).unwrap();
    let mut batch = check.poll(9).unwrap();
    let lent: Vec<_> = (&mut batch).into_iter().collect();
    assert_eq!((given(&mut next, first), given(&mut b, first)), (vec![], vec![]));
    lent.into_iter().for_each(|(sequence, event)| **event = sequence.0);
    batch.commit();
    assert_eq!((given(&mut next, first), given(&mut b, first)), (vec![2, 3], vec![0, 1, 2, 3]));
}

#[test]
fn a_successor_lets_through_in_order() {
    on_both!(successor);
}

/// Workers behind `check`, and newcomers behind the workers.
fn workers<K: Kind>(mut builder: Builder<Owned, K>, first: u64) {
    builder.start_at(Sequence(first)).poll_mut("check").workers(behind("pool", "check", Start::Latest), 2);
    let (mut producer, ring) = builder.build().unwrap();
    let mut check = ring.consumer_mut("check").unwrap();
    let (mut one, mut two) = (ring.worker("pool").unwrap(), ring.worker("pool").unwrap());
    put(&mut producer, 4);
    let mut a = ring.join(behind("a", "pool", Start::Latest)).unwrap();
    let mut b = ring.join(behind("b", "a", Start::Earliest)).unwrap();
    let mut batch = check.poll(9).unwrap();
    let lent: Vec<_> = (&mut batch).into_iter().collect();
    assert!(one.take(9).unwrap().is_empty() && two.take(9).unwrap().is_empty());
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![], vec![]));
    lent.into_iter().for_each(|(sequence, event)| **event = sequence.0);
    batch.commit();
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![], vec![]));
    let taken = one.take(2).unwrap();
    two.take(2).unwrap().for_each(|sequence, event| assert_eq!(**event, sequence.0));
    taken.for_each(|sequence, event| {
        assert_eq!(**event, sequence.0);
        assert_eq!((given(&mut a, first), given(&mut b, first).len() as u64), (vec![], sequence.0.wrapping_sub(first)));
    });
}

#[test]
fn workers_and_newcomers_behind_them_keep_the_order() {
    on_both!(workers);
}

/// A newcomer on a thread of its own, and one behind it that sleeps: it lets through, and wakes, though it reads nothing.
fn managed<K: Kind>(builder: Builder<Owned, K>, first: u64) {
    let (mut producer, ring, mut check) = unchecked(builder, first, 4);
    let (tell, told) = mpsc::channel();
    let started = ring.run(behind("a", "check", Start::Latest), move || {
        move |event: &Owned, sequence: Sequence, _: bool| {
            assert_eq!(**event, sequence.0);
            tell.send(sequence).map_err(|_| "nobody listens")
        }
    });
    assert_eq!(started.unwrap().0, first.wrapping_add(4));
    let mut b = ring.join(behind("b", "a", Start::Earliest)).unwrap();
    let reading = std::thread::spawn(move || {
        let mut seen = Vec::new();
        while seen.len() < 5 {
            for (sequence, event) in &mut b.poll_wait(9).unwrap() {
                assert_eq!(**event, sequence.0);
                seen.push(sequence.0.wrapping_sub(first));
            }
        }
        seen
    });
    for _ in 0..4 {
        change(&mut check, 1);
    }
    put(&mut producer, 1);
    change(&mut check, 1);
    assert_eq!(soon("whoever sleeps behind a newcomer", move || reading.join().unwrap()), [0, 1, 2, 3, 4]);
    assert_eq!(told.recv().unwrap().0, first.wrapping_add(4));
    drop(check);
    ring.halt();
}

#[test]
fn a_managed_newcomer_lets_through_and_wakes() {
    on_both!(managed);
}

/// A newcomer that has nothing to read is not told the end before it has let everything through.
fn ends<K: Kind>(builder: Builder<Owned, K>, first: u64) {
    let (producer, ring, mut check) = unchecked(builder, first, 4);
    let mut a = ring.join(behind("a", "check", Start::Latest)).unwrap();
    let mut b = ring.join(behind("b", "a", Start::Earliest)).unwrap();
    drop(producer);
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![], vec![]), "`check` has not begun");
    change(&mut check, 2);
    assert_eq!((given(&mut a, first), given(&mut b, first)), (vec![], vec![0, 1]));
    change(&mut check, 2);
    assert_eq!(check.poll(1).err(), Some(Closed::Finished));
    drop(check);
    assert_eq!(a.poll(1).err(), Some(Closed::Finished));
    drop(a);
    assert_eq!(given(&mut b, first), [2, 3]);
    assert_eq!(b.poll(1).err(), Some(Closed::Finished));
    drop(b);
    assert!(ring.shutdown(Duration::from_secs(60)).is_complete());
}

#[test]
fn a_newcomer_is_not_told_the_end_before_it_has_let_everything_through() {
    on_both!(ends);
}

/// One that leaves before it has let everything through fails the ring by its name, as any stage does.
#[test]
fn a_newcomer_that_leaves_early_is_named() {
    let (_producer, ring, mut check) = unchecked(Builder::single(8, Owned::default), 0, 4);
    let a = ring.join(behind("a", "check", Start::Latest)).unwrap();
    let mut b = ring.join(behind("b", "a", Start::Earliest)).unwrap();
    ring.close();
    change(&mut check, 4);
    drop(a);
    assert!(matches!(b.poll(1).err(), Some(Closed::Failed { stage, .. }) if stage == "a"));
}

/// Who takes part in a random history, and what may be said of it from outside.
struct Member<K: Kind> {
    name: String,
    after: Vec<String>,
    consumer: Consumer<Owned, K>,
}

/// Stages that come in every way, read, seek and go in any order. Nobody is given an event before each of those that it
/// stands behind reads from beyond it, and `check` has changed it.
fn random_history<K: Kind>(builder: Builder<Owned, K>, first: u64, seed: u64) {
    let (mut producer, ring, mut check) = unchecked(builder, first, 2);
    let mut dice = Rng::with_seed(seed);
    let mut members: Vec<Member<K>> = Vec::new();
    let mut named = 0;
    for _ in 0..200 {
        match dice.u64(..9) {
            0..=1 => _ = producer.try_publish(|event| **event = u64::MAX / 2),
            2 => change(&mut check, 1 + dice.usize(..3)),
            3 if members.len() < 6 => {
                named += 1;
                let name = format!("{named}");
                let mut after: Vec<String> = Vec::new();
                after.extend(members.iter().filter(|_| dice.u64(..3) == 0).map(|member| member.name.clone()));
                if after.is_empty() || dice.u64(..3) == 0 {
                    after.push("check".to_owned());
                }
                let start = match dice.u64(..3) {
                    0 => Start::Earliest,
                    1 => Start::Latest,
                    _ => Start::At(Sequence(ring.positions().published.0.wrapping_sub(dice.u64(..5)))),
                };
                let stage = Stage::new(&name).after(after.clone()).start(start);
                let replaced = members.last().map(|member| member.name.clone()).filter(|_| dice.u64(..3) == 0);
                let joined = match &replaced {
                    Some(old) => ring.take_over(old, stage),
                    None => ring.join(stage),
                };
                if let Ok(consumer) = joined {
                    members.retain(|member| replaced.as_ref() != Some(&member.name) || after.contains(&member.name));
                    members.push(Member { name, after, consumer });
                }
            }
            4 if !members.is_empty() => {
                let at = dice.usize(..members.len());
                let name = members[at].name.clone();
                if !members.iter().any(|member| member.after.contains(&name)) {
                    members.remove(at);
                }
            }
            5 if !members.is_empty() => {
                let at = dice.usize(..members.len());
                let to = members[at].consumer.consumed().0.wrapping_add(dice.u64(..7)).wrapping_sub(3);
                let _ = members[at].consumer.seek(Sequence(to));
            }
            _ if !members.is_empty() => {
                let at = dice.usize(..members.len());
                let before: Vec<Sequence> =
                    members[at].after.iter().map(|name| reads_from(&members, &check, name)).collect();
                let limit = 1 + dice.usize(..4);
                for (sequence, event) in &mut members[at].consumer.poll(limit).unwrap() {
                    assert_eq!(**event, sequence.0, "not changed yet, seed {seed}");
                    assert!(before.iter().all(|before| sequence.since(*before) < 0), "too early, seed {seed}");
                }
            }
            _ => {}
        }
    }
}

fn reads_from<K: Kind>(members: &[Member<K>], check: &ConsumerMut<Owned, K>, name: &str) -> Sequence {
    members.iter().find(|member| member.name == name).map_or(check.consumed(), |member| member.consumer.consumed())
}

#[test]
fn random_histories_keep_the_order() {
    let rounds: u64 = if cfg!(miri) { 3 } else { 300 };
    for seed in 1..=rounds {
        let first = STARTS[seed as usize % STARTS.len()];
        random_history::<Single>(Builder::single(8, Owned::default), first, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        random_history::<Multi>(Builder::multi(8, Owned::default), first, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
}
