//! A group's batch in a transaction: what comes of it is published, and it is committed, both or neither.

use crate::crash::at_each_call;
use crate::{LONG, NOW};
use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, EngineError, Topic, clock::ManualClock, group::Commit, subscriber::StartAt, transaction::TransactionError,
};
use std::collections::BTreeMap;
use std::time::Duration;

const INPUTS: u64 = 24;

fn try_engine(disk: &SimulatedDisk) -> Result<Engine, EngineError> {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build()
}

/// Numbers, and what comes of them: where it came from, and the number.
fn topics(engine: &Engine) -> Option<(Topic<u64>, Topic<[u64; 2]>)> {
    let input = engine.topic::<u64>("input").partitions(2).capacity(32).durable().create().ok()?;
    let output = engine.topic::<[u64; 2]>("output").partitions(3).capacity(32).durable().create().ok()?;
    Some((input, output))
}

fn all<E: Send + Sync + Copy + 'static>(topic: &Topic<E>) -> Option<Vec<E>> {
    let mut seen = Vec::new();
    let mut replay = topic.replay("auditor").open().ok()?;
    loop {
        let live = replay.is_live();
        match replay.read(NOW, |event, _| seen.push(*event)).ok()? {
            Some(0) if live => return Some(seen),
            None => return Some(seen),
            Some(_) => {}
        }
    }
}

/// Publishes what is missing, and has two members pass all of it on, until something fails. How many inputs were passed
/// on for certain.
fn run(disk: &SimulatedDisk) -> Option<u64> {
    let engine = try_engine(disk).ok()?;
    let mut passed = 0;
    let _ = (|| {
        let (input, output) = topics(&engine)?;
        let there = all(&input)?;
        let join = || input.group("pass").limit(3).join().ok();
        let mut members = [join()?, join()?];
        let mut producer = input.producer().create().ok()?;
        for number in (0..INPUTS).filter(|number| !there.contains(number)) {
            producer.publish_to((number % 2) as u32, |event| *event = number).ok()?;
        }
        drop(producer);
        input.close();
        let mut over = 0;
        while over < 2 {
            over = 0;
            for member in &mut members {
                let Some(batch) = member.poll(Duration::from_millis(1)).ok()? else {
                    over += 1;
                    continue;
                };
                let mut out = engine.transaction().ok()?;
                for (number, at) in &batch {
                    out.publish_to(&output, (number % 3) as u32, |event| *event = [at.partition.into(), *number])
                        .ok()?;
                }
                let count = batch.len() as u64;
                batch.commit_with(out).ok()?;
                passed += count;
            }
        }
        Some(())
    })();
    engine.shutdown(Duration::from_secs(5));
    Some(passed)
}

fn audit(output: &[[u64; 2]], about: &str) -> u64 {
    let mut counts = BTreeMap::new();
    output.iter().for_each(|[_, number]| *counts.entry(*number).or_insert(0) += 1);
    assert!(counts.values().all(|count| *count == 1), "{about}: {counts:?}");
    counts.len() as u64
}

#[test]
fn each_input_is_passed_on_once_through_a_crash_at_each_call_to_the_disk() {
    let crashes = at_each_call(
        |disk, _| run(disk).unwrap_or(0),
        |passed, nth, disk| {
            for seed in [nth, nth * 31] {
                let about = format!("call {nth}, seed {seed}");
                let disk = disk.crash(seed);
                {
                    let engine = try_engine(&disk).unwrap_or_else(|refused| panic!("{about}: {refused}"));
                    let (input, output) = topics(&engine).unwrap();
                    let (input, output) = (all(&input).unwrap(), all(&output).unwrap());
                    assert!(audit(&output, &about) >= passed, "{about}: {passed} were acknowledged");
                    assert!(
                        output.iter().all(|[_, number]| input.contains(number)),
                        "{about}: an output without its input"
                    );
                    engine.shutdown(LONG);
                }
                run(&disk).unwrap();
                let engine = try_engine(&disk).unwrap();
                assert_eq!(audit(&all(&topics(&engine).unwrap().1).unwrap(), &about), INPUTS, "{about}: all, once");
            }
        },
    );
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn nothing_of_a_fenced_member_lands_and_its_successor_has_the_batch() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let engine = Engine::builder().journal_in(disk).clock(clock.clone()).build().unwrap();
    let (input, output) = topics(&engine).unwrap();
    let mut producer = input.producer().create().unwrap();
    (0..4).for_each(|number| _ = producer.publish_to(0, |event| *event = number).unwrap());
    let join = || input.group("pass").deadline(Duration::from_secs(10)).join().unwrap();
    let mut late = join();
    let batch = late.poll(LONG).unwrap().unwrap();
    let mut out = engine.transaction().unwrap();
    batch.iter().for_each(|(number, _)| out.publish(&output, |event| *event = [0, *number]).unwrap());
    clock.advance(Duration::from_secs(10));
    let mut next = join();
    let theirs = next.poll(LONG).unwrap().unwrap();
    assert_eq!((batch.len(), theirs.len()), (4, 4));
    let refused = batch.commit_with(out).unwrap_err();
    assert!(matches!(refused, TransactionError::Member(_)), "{refused}");
    assert!(all(&output).unwrap().is_empty());
    let mut out = engine.transaction().unwrap();
    theirs.iter().for_each(|(number, _)| out.publish(&output, |event| *event = [1, *number]).unwrap());
    assert!(!theirs.commit_with(out).unwrap().is_empty());
    assert_eq!(audit(&all(&output).unwrap(), "the successor's"), 4);
    assert!(next.poll(NOW).unwrap().unwrap().is_empty());
}

#[test]
fn a_batch_without_outputs_is_committed_and_what_does_not_fit_is_refused_whole() {
    let disk = SimulatedDisk::new();
    let engine = try_engine(&disk).unwrap();
    let (input, output) = topics(&engine).unwrap();
    let mut producer = input.producer().create().unwrap();
    (0..4).for_each(|number| _ = producer.publish_to(0, |event| *event = number).unwrap());
    let mut member = input.group("pass").limit(2).join().unwrap();
    let batch = member.poll(LONG).unwrap().unwrap();
    assert!(batch.commit_with(engine.transaction().unwrap()).unwrap().is_empty());
    // No room: nobody reads this, and it holds.
    let _slow = output.subscribe("slow").poll().unwrap();
    let mut fills = output.producer().create().unwrap();
    (0..32).for_each(|_| _ = fills.publish_to(1, |_| ()).unwrap());
    let batch = member.poll(LONG).unwrap().unwrap();
    let mut out = engine.transaction().unwrap();
    out.patience(Duration::ZERO);
    out.publish_to(&output, 0, |_| ()).unwrap();
    out.publish_to(&output, 1, |_| ()).unwrap();
    let refused = batch.commit_with(out).unwrap_err();
    assert!(refused.is_full(), "{refused}");
    assert_eq!(member.poll(LONG).unwrap().unwrap().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [2, 3]);
    // After a power cut it stands behind the first batch.
    let after = try_engine(&disk.crash(3)).unwrap();
    let (input, _) = topics(&after).unwrap();
    let _member = input.group("pass").start(StartAt::Committed).join().unwrap();
    assert_eq!(after.groups()[0].partition("input", 0).unwrap().committed, Some(2));

    let plain = engine.topic::<u64>("plain").create().unwrap();
    let mut member = plain.group("pass").commit(Commit::Auto).join().unwrap();
    plain.producer().create().unwrap().publish(|_| ()).unwrap();
    let refused = member.poll(LONG).unwrap().unwrap().commit_with(engine.transaction().unwrap()).unwrap_err();
    assert!(matches!(&refused, TransactionError::NotDurable { topic } if topic == "plain"), "{refused}");
}
