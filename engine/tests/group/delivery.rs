//! At most once, at least once, exactly once: what each means when something fails between any two steps.

use crate::LONG;
use crate::crash::at_each_call;
use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, EngineError, Level, Topic,
    group::{Delivery, GroupError, MemberEnd},
    producer::{Producers, Single},
    subscriber::OnError,
    transaction::{Transaction, TransactionError},
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

const INPUTS: u64 = 12;

fn try_engine(disk: &SimulatedDisk) -> Result<Engine, EngineError> {
    let options = Options { segment_size: 1 << 16, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build()
}

fn topics(engine: &Engine) -> Option<(Topic<u64>, Topic<u64>)> {
    let input = engine.topic::<u64>("input").capacity(32).durable().create().ok()?;
    let output = engine.topic::<u64>("output").partitions(2).capacity(32).durable().create().ok()?;
    Some((input, output))
}

fn all<K: Producers>(topic: &Topic<u64, K>) -> Option<Vec<u64>> {
    let mut seen = Vec::new();
    let mut replay = topic.replay("auditor").open().ok()?;
    loop {
        let live = replay.is_live();
        match replay.read(Duration::ZERO, |event, _| seen.push(*event)).ok()? {
            Some(0) if live => return Some(seen),
            None => return Some(seen),
            Some(_) => {}
        }
    }
}

fn counts<T: Copy + Ord>(seen: &[T]) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    seen.iter().for_each(|number| *counts.entry(*number).or_insert(0) += 1);
    counts
}

/// An event's number and its offset: one that a power cut took comes again at another one.
type Handled = (u64, u64);

/// Publishes what is missing, durably, and passes it on; until all is done or the disk fails. What was handled, in order.
fn run(disk: &SimulatedDisk, delivery: Delivery) -> Vec<Handled> {
    run_failing(disk, delivery, |_| false)
}

/// The topic of dead letters, with a single producer.
fn letters(engine: &Engine) -> Option<Topic<u64, Single>> {
    engine.topic::<u64>("dead").single_producer().capacity(32).durable().create().ok()
}

/// The same, with a handler that fails on some, which are moved aside.
fn run_failing(disk: &SimulatedDisk, delivery: Delivery, fails: fn(u64) -> bool) -> Vec<Handled> {
    let Ok(engine) = try_engine(disk) else { return Vec::new() };
    let handled = Arc::new(Mutex::new(Vec::new()));
    let _ = (|| {
        let (input, output) = topics(&engine)?;
        let there = all(&input)?;
        let note = Arc::clone(&handled);
        let group = input.group("pass").limit(3).delivery(delivery).dead_letter(&letters(&engine)?);
        let run = group.run_into(move |number, at, out: &mut Transaction| {
            note.lock().unwrap().push((*number, at.offset));
            let published = out.publish_to(&output, (number % 2) as u32, |event| *event = *number);
            published.map_err(|refused| refused.to_string())?;
            if fails(*number) { Err("on purpose".to_owned()) } else { Ok(()) }
        });
        let run = run.ok()?;
        let mut producer = input.producer().create().ok()?;
        for number in (0..INPUTS).filter(|number| !there.contains(number)) {
            producer.publish(|event| *event = number).ok()?.wait(Level::Durable).ok()?;
        }
        drop(producer);
        input.close();
        run.wait_for(LONG).expect("it ends");
        Some(())
    })();
    engine.shutdown(Duration::from_secs(5));
    handled.lock().unwrap().clone()
}

/// What the outputs are after a crash at each call to the disk and a second run, and what was handled in both.
fn crash_everywhere(delivery: Delivery, check: impl Fn(&str, BTreeMap<u64, usize>, BTreeMap<Handled, usize>)) {
    let crashes = at_each_call(
        |disk, _| run(disk, delivery),
        |before, nth, disk| {
            let about = format!("{delivery:?}, call {nth}");
            let disk = disk.crash(nth * 7);
            let mut handled = before;
            handled.extend(run(&disk, delivery));
            let engine = try_engine(&disk).unwrap_or_else(|refused| panic!("{about}: {refused}"));
            let (input, output) = topics(&engine).unwrap();
            assert_eq!(all(&input).unwrap().len() as u64, INPUTS, "{about}");
            check(&about, counts(&all(&output).unwrap()), counts(&handled));
        },
    );
    assert!(crashes > 15, "{crashes}");
}

#[test]
fn exactly_once_has_each_output_once_whatever_crashes() {
    crash_everywhere(Delivery::ExactlyOnce, |about, outputs, handled| {
        assert!((0..INPUTS).all(|number| outputs.get(&number) == Some(&1)), "{about}: {outputs:?}");
        assert!((0..INPUTS).all(|number| handled.keys().any(|it| it.0 == number)), "{about}: {handled:?}");
    });
}

#[test]
fn at_least_once_has_each_output_and_may_have_one_twice() {
    crash_everywhere(Delivery::AtLeastOnce, |about, outputs, _| {
        assert!((0..INPUTS).all(|number| (1..=2).contains(outputs.get(&number).unwrap_or(&0))), "{about}: {outputs:?}");
    });
}

#[test]
fn at_most_once_handles_nothing_twice_and_may_lose_some() {
    crash_everywhere(Delivery::AtMostOnce, |about, outputs, handled| {
        // One that was handled before it was durable may be gone, and what is published in its place is another one.
        assert!(handled.values().all(|count| *count == 1), "{about}: {handled:?}");
        assert!(outputs.values().all(|count| *count == 1), "{about}: {outputs:?}");
    });
}

/// What fails is passed on or is a dead letter, with exactly once one of the two and once.
#[test]
fn dead_letters_are_there_as_often_as_outputs_whatever_crashes() {
    let fails = |number| number % 3 == 1;
    for delivery in [Delivery::ExactlyOnce, Delivery::AtLeastOnce] {
        let crashes = at_each_call(
            |disk, _| run_failing(disk, delivery, fails),
            |_, nth, disk| {
                let about = format!("{delivery:?}, call {nth}");
                let disk = disk.crash(nth * 7);
                run_failing(&disk, delivery, fails);
                let engine = try_engine(&disk).unwrap_or_else(|refused| panic!("{about}: {refused}"));
                let (_, output) = topics(&engine).unwrap();
                let (outputs, dead) =
                    (counts(&all(&output).unwrap()), counts(&all(&letters(&engine).unwrap()).unwrap()));
                for number in 0..INPUTS {
                    let (there, nowhere) = if fails(number) { (&dead, &outputs) } else { (&outputs, &dead) };
                    assert_eq!(nowhere.get(&number), None, "{about}: {number}");
                    let count = there.get(&number).copied().unwrap_or(0);
                    let most = if delivery == Delivery::ExactlyOnce { 1 } else { 2 };
                    assert!((1..=most).contains(&count), "{about}: {number} is there {count} times");
                }
            },
        );
        assert!(crashes > 15, "{crashes}");
    }
}

/// An input that is handled and committed without outputs is not in the journal twice; one that fails leaves nothing.
#[test]
fn what_fails_leaves_nothing_and_what_stands_before_it_is_passed_on() {
    for (policy, times) in [(OnError::Stop, 1), (OnError::Retry(2), 3), (OnError::RetryThenSkip(1), 2)] {
        let engine = try_engine(&SimulatedDisk::new()).unwrap();
        let (input, output) = topics(&engine).unwrap();
        let mut producer = input.producer().create().unwrap();
        (0..8).for_each(|number| _ = producer.publish(|event| *event = number).unwrap());
        drop(producer);
        let (told, hears) = mpsc::channel();
        let into = output.clone();
        let group = input.group("pass").delivery(Delivery::ExactlyOnce).on_error(policy);
        let run = group.run_into(move |number, _, out: &mut Transaction| {
            told.send(*number).unwrap();
            out.publish_to(&into, 0, |event| *event = *number).map_err(|refused| refused.to_string())?;
            match number {
                5 if policy == OnError::Stop => panic!("on purpose"),
                5 => Err("on purpose".to_owned()),
                _ => Ok(()),
            }
        });
        let run = run.unwrap();
        input.close();
        let ended = run.wait_for(LONG).unwrap();
        let handled: Vec<u64> = hears.try_iter().collect();
        assert_eq!(handled.iter().filter(|number| **number == 5).count(), times, "{policy:?}: {handled:?}");
        assert_eq!(
            handled.iter().filter(|number| **number < 5).count(),
            5,
            "{policy:?}: nothing else is handled again"
        );
        let expected: Vec<u64> = match ended {
            MemberEnd::Finished => vec![0, 1, 2, 3, 4, 6, 7],
            MemberEnd::Failed { offset: 5, cause, .. } => {
                assert!(cause.contains("on purpose"), "{cause}");
                vec![0, 1, 2, 3, 4]
            }
            other => panic!("{other}"),
        };
        assert_eq!(all(&output).unwrap(), expected, "{policy:?}");
        let committed = engine.groups()[0].partition("input", 0).unwrap().committed;
        assert_eq!(committed, Some(if expected.len() == 5 { 5 } else { 8 }));
    }
}

#[test]
fn what_is_too_much_for_one_transaction_is_passed_on_in_several() {
    let options = Options { segment_size: 1 << 14, ..Options::default() };
    let engine = Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap();
    let input = engine.topic::<u64>("input").capacity(64).durable().create().unwrap();
    let output = engine.topic::<[u64; 16]>("output").capacity(256).durable().create().unwrap();
    let mut producer = input.producer().create().unwrap();
    (0..40).for_each(|number| _ = producer.publish(|event| *event = number).unwrap());
    drop(producer);
    let into = output.clone();
    let group = input.group("pass").delivery(Delivery::ExactlyOnce);
    let run = group.run_into(move |number, _, out: &mut Transaction| out.publish(&into, |event| event[0] = *number));
    let run = run.unwrap();
    input.close();
    assert_eq!(run.wait_for(LONG), Some(MemberEnd::Finished));
    let mut seen = Vec::new();
    let mut replay = output.replay("auditor").open().unwrap();
    while seen.len() < 40 {
        replay.read(LONG, |event, _| seen.push(event[0])).unwrap();
    }
    assert!(seen.into_iter().eq(0..40));
}

#[test]
fn what_cannot_be_promised_is_refused() {
    let engine = try_engine(&SimulatedDisk::new()).unwrap();
    let (input, _) = topics(&engine).unwrap();
    let group = input.group("pass").delivery(Delivery::ExactlyOnce);
    let refused = group.run(|_, _| Ok::<_, Infallible>(())).unwrap_err();
    assert!(
        matches!(&refused, GroupError::NotExactlyOnce { .. }) && refused.to_string().contains("run_into"),
        "{refused}"
    );
    let plain = engine.topic::<u64>("plain").create().unwrap();
    let group = plain.group("pass").delivery(Delivery::ExactlyOnce);
    let refused = group.run_into(|_, _, _| Ok::<_, TransactionError>(())).unwrap_err();
    assert!(refused.to_string().contains("durable()"), "{refused}");
    let group = input.group("pass").delivery(Delivery::ExactlyOnce).dead_letter(&plain);
    let refused = group.run_into(|_, _, _| Ok::<_, TransactionError>(())).unwrap_err();
    assert!(refused.to_string().contains("dead letters") && refused.to_string().contains("plain"), "{refused}");
    let bare = Engine::builder().build().unwrap();
    let plain = bare.topic::<u64>("plain").create().unwrap();
    let refused = plain.group("pass").run_into(|_, _, _| Ok::<_, TransactionError>(())).unwrap_err();
    assert!(refused.to_string().contains("journal"), "{refused}");
}

/// What came of a batch was more than a partition of the output ever holds: the member ended, although nothing was wrong
/// with any event.
#[test]
fn what_is_too_much_for_the_outputs_ring_is_passed_on_in_several() {
    for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce, Delivery::ExactlyOnce] {
        let engine = try_engine(&SimulatedDisk::new()).unwrap();
        let input = engine.topic::<u64>("input").capacity(64).durable().create().unwrap();
        let output = engine.topic::<u64>("output").partitions(2).capacity(16).durable().create().unwrap();
        let mut producer = input.producer().create().unwrap();
        (0..50).for_each(|number| _ = producer.publish(|event| *event = number).unwrap());
        drop(producer);
        let into = output.clone();
        let group = input.group("pass").delivery(delivery);
        let run = group.run_into(move |number, _, out: &mut Transaction| {
            // Of one event three, and the last is seventeen by itself.
            let count = if *number == 49 { 17 } else { 3 };
            (0..count).try_for_each(|_| out.publish_to(&into, 0, |event| *event = *number))
        });
        let run = run.unwrap();
        input.close();
        let MemberEnd::Failed { offset: 49, cause, .. } = run.wait_for(LONG).unwrap() else { panic!("{run:?}") };
        assert!(cause.contains("16"), "{cause}");
        let seen = all(&output).unwrap();
        assert!(seen.iter().copied().eq((0..49).flat_map(|number| [number; 3])), "{delivery:?}: {seen:?}");
        let committed = engine.groups()[0].partition("input", 0).unwrap().committed;
        assert_eq!(committed, Some(if delivery == Delivery::AtMostOnce { 50 } else { 49 }));
    }
}
