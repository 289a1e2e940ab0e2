//! Stages that read further on than they let through: newcomers that start late behind slow ones, and seeks forward.

use crate::support::*;
use slipring_ring::{Builder, ConsumerMut, Ring, Sequence, Single, SingleProducer, Stage, Start};

/// A ring whose stage `check` changes events; one is published.
fn unchecked(behind: &[(&str, &str)]) -> (SingleProducer<u64>, Ring<u64, Single>, ConsumerMut<u64, Single>) {
    let mut builder = Builder::single(1, || 0u64);
    builder.poll_mut(Stage::new("check").wait(park()));
    for (name, after) in behind {
        builder.poll(Stage::new(*name).after([*after]).wait(park()));
    }
    let (mut producer, ring) = builder.build().unwrap();
    producer.try_publish(|event| *event = 1).unwrap();
    let check = ring.consumer_mut("check").unwrap();
    (producer, ring, check)
}

fn change(check: &mut ConsumerMut<u64, Single>) {
    for (sequence, event) in &mut check.poll(1).unwrap() {
        *event = value_of(sequence);
    }
}

/// A newcomer begins behind an event that a stage still changes, and another newcomer stands behind it.
/// Allowed: the second one gets the event once it is changed. Forbidden: before, a read beside the change.
#[test]
fn a_newcomer_that_passes_over_lets_nothing_through_early() {
    model_of_gates(Within(2), "what a newcomer passes over goes through after the stage before", || {
        let (_producer, ring, mut check) = unchecked(&[]);
        let changing = thread::spawn(move || {
            change(&mut check);
            check
        });
        let mut a = ring.join(Stage::new("a").after(["check"]).start(Start::Latest)).unwrap();
        let mut b = ring.join(Stage::new("b").after(["a"]).start(Start::Earliest)).unwrap();
        let expected = 1 - b.first().0;
        let mut read = get(&mut b, 1);
        assert_eq!(get(&mut a, 1), 0);
        read += get(&mut b, 1);
        let _check = changing.join().unwrap();
        assert_eq!(get(&mut a, 1), 0);
        assert_eq!(read + get(&mut b, 1), expected, "it is lost");
    });
}

/// A stage seeks forward over an event that the one before still changes.
/// Allowed and forbidden as before.
#[test]
fn what_a_seek_forward_passes_over_goes_through_in_order() {
    model(Within(3), "what a seek forward passes over goes through after the stage before", || {
        let (_producer, ring, mut check) = unchecked(&[("a", "check"), ("b", "a")]);
        let [mut a, mut b] = ["a", "b"].map(|name| ring.consumer(name).unwrap());
        let changing = thread::spawn(move || {
            change(&mut check);
            check
        });
        a.seek(Sequence(1)).unwrap();
        let mut read = get(&mut b, 1);
        assert_eq!(get(&mut a, 1), 0);
        read += get(&mut b, 1);
        let _check = changing.join().unwrap();
        assert_eq!(get(&mut a, 1), 0);
        assert_eq!(read + get(&mut b, 1), 1, "it is lost");
    });
}

/// The ring ends while a stage has something to let through that it does not read.
/// Allowed: it is told the end when that is through, and the stage behind it gets the event. Forbidden: that the end comes
/// first.
#[test]
fn the_end_comes_after_what_was_passed_over() {
    model_of_gates(Within(2), "nobody is told the end before what it passes over is through", || {
        let (producer, ring, mut check) = unchecked(&[("a", "check"), ("b", "a")]);
        let [mut a, mut b] = ["a", "b"].map(|name| ring.consumer(name).unwrap());
        a.seek(Sequence(1)).unwrap();
        drop(producer);
        let changing = thread::spawn(move || {
            change(&mut check);
            check
        });
        let told = a.poll(1).is_err();
        if told {
            drop(a);
            assert_eq!(get(&mut b, 1), 1, "the stage before had gone and let nothing through");
        }
        let _check = changing.join().unwrap();
    });
}

/// A stage sleeps behind one that reads nothing and only lets through; that one sleeps too.
/// Allowed: both are woken. Forbidden: that either sleeps on.
#[test]
fn whoever_sleeps_behind_one_that_passes_over_is_woken() {
    model_of_sleep(Within(1), "letting through wakes whoever stands behind", || {
        let (producer, ring, mut check) = unchecked(&[("a", "check"), ("b", "a")]);
        let [mut a, mut b] = ["a", "b"].map(|name| ring.consumer(name).unwrap());
        a.seek(Sequence(1)).unwrap();
        drop(producer);
        let letting = thread::spawn(move || {
            assert!(get_wait(&mut a, 1).is_none());
            a
        });
        let reading = thread::spawn(move || (get_wait(&mut b, 1), b));
        change(&mut check);
        let (read, _b) = reading.join().unwrap();
        assert_eq!(read, Some(1));
        let _a = letting.join().unwrap();
    });
}

/// A stage behind one that changes events seeks back while that one changes the next event.
/// Allowed: it is given what was changed, again or for the first time. Forbidden: before, a read beside the change.
#[test]
fn a_seek_back_behind_a_stage_is_given_nothing_early() {
    model_of_gates(Within(2), "who seeks back behind a stage is given only what that stage let through", || {
        let mut builder = Builder::single(2, || 0u64);
        builder.retain(1).poll_mut("check").poll(Stage::new("behind").after(["check"]));
        let (mut producer, ring) = builder.build().unwrap();
        let (mut check, mut behind) = (ring.consumer_mut("check").unwrap(), ring.consumer("behind").unwrap());
        (0..2).for_each(|_| _ = producer.try_publish(|event| *event = 1).unwrap());
        change(&mut check);
        assert_eq!(get(&mut behind, 1), 1);
        let changing = thread::spawn(move || {
            change(&mut check);
            check
        });
        let seeking = thread::spawn(move || {
            let back = behind.seek(Sequence(0));
            let read = get(&mut behind, 2);
            assert!(read >= u64::from(back.is_ok()));
            behind
        });
        let _ = producer.try_publish(|event| *event = 1);
        let _stages = (changing.join().unwrap(), seeking.join().unwrap());
    });
}
