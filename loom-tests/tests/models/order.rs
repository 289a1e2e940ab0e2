//! Stages whose next sequence is ahead of their published position: newcomers that start late after slow stages, and
//! seeks forward.

use crate::support::*;
use slipring_ring::{Builder, ConsumerMut, Ring, Sequence, Single, SingleProducer, Stage, Start};

/// Builds a ring whose stage `check` changes events, with one event published.
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

/// A newcomer begins after an event that a stage is still changing, and another newcomer is ordered after it.
/// Allowed: the second newcomer gets the event once it is changed. Forbidden: it gets the event before, or reads during
/// the change.
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

/// A stage seeks forward past an event that the stage before is still changing, and another stage is ordered after it.
/// Allowed: the later stage gets the event once it is changed. Forbidden: it gets the event before, or reads during the
/// change.
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

/// The ring ends while a stage has not yet let through an event that it skips.
/// Allowed: the stage gets the end after it has let the event through, and the later stage gets the event.
/// Forbidden: the end comes first.
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

/// A stage sleeps after a stage that skips the event and only lets it through, and that stage sleeps too.
/// Allowed: both are woken. Forbidden: either sleeps on.
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

/// A stage seeks back while the stage before it changes the next event.
/// Allowed: it gets changed events, again or for the first time. Forbidden: it gets an unchanged event, or reads during
/// the change.
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
