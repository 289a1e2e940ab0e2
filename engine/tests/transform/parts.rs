//! Transforms: what is too much for one transaction goes in several, and what one has left is told.

use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, Topic,
    group::{Delivery, MemberEnd},
    subscriber::At,
    topic::MAX_NAME,
    transaction::TransactionError,
    transform::{Outputs, TransformEnd, TransformRun, TransformState},
};
use std::time::Duration;

use crate::accounts::read_all;
use crate::crash::at_each_call;
use crate::{engine, try_engine};

const LONG: Duration = Duration::from_secs(60);

fn topic(engine: &Engine, name: &str, capacity: usize) -> Topic<u64> {
    engine.topic::<u64>(name).capacity(capacity).durable().create().unwrap()
}

fn publish(topic: &Topic<u64>, numbers: std::ops::Range<u64>) {
    let mut producer = topic.producer().create().unwrap();
    numbers.for_each(|number| _ = producer.publish(|event| *event = number).unwrap());
}

/// 1,024 bytes.
type Page = [[u64; 32]; 4];

/// All events of a topic; `None` if it cannot be read.
fn all(topic: &Topic<u64>) -> Option<Vec<u64>> {
    let mut seen = Vec::new();
    read_all(topic, |event, _| seen.push(*event))?;
    Some(seen)
}

/// So many numbers for each that is read.
fn fan_out(by: u64) -> impl FnMut(&u64, At, &mut Outputs<'_, u64>) -> Result<(), TransactionError> + Send + 'static {
    move |number, _, out| (0..by).try_for_each(|nth| out.publish(|event| *event = number * by + nth))
}

fn failed(run: &TransformRun) -> String {
    match run.wait() {
        TransformEnd::Failed(cause) => cause.to_string(),
        end => panic!("{end:?}"),
    }
}

/// It ended for good, and again at each start: a batch of 256 inputs was one transaction, whatever came of it.
#[test]
fn a_backlog_of_which_more_comes_than_a_ring_holds_is_passed_on_in_parts() {
    // All defaults, and a small output.
    for (capacity, by) in [(1024, 5), (128, 1), (4, 3)] {
        let engine = engine(&SimulatedDisk::new());
        let (input, output, stepped) =
            (topic(&engine, "in", 1024), topic(&engine, "out", capacity), topic(&engine, "stepped", capacity));
        publish(&input, 0..1000);
        let run = engine.transform("in", "out", "split", fan_out(by)).unwrap();
        let mut steps = input.transform("steps").open().unwrap();
        let mut read = 0;
        while read < 1000 {
            let step = steps.step(LONG, |number, _, out| {
                (0..by).try_for_each(|nth| out.publish(&stepped, |event| *event = number * by + nth))
            });
            read += step.unwrap().unwrap();
            assert_eq!(steps.committed(0), Some(read as u64), "all that was read, and no more");
        }
        input.close();
        assert!(matches!(run.wait(), TransformEnd::Finished), "{run:?}");
        for output in [&output, &stepped] {
            let seen = all(output).unwrap();
            assert!(seen.iter().copied().eq(0..1000 * by), "{} of {}", seen.len(), 1000 * by);
        }
        drop(steps);
        let report = engine.shutdown(LONG);
        assert!(report.is_complete(), "{report}");
    }
}

/// Numbers are passed on until something fails.
fn pass_on(disk: &SimulatedDisk, total: u64) -> Option<Vec<u64>> {
    let engine = try_engine(disk).ok()?;
    let there = (|| {
        let topic = |name, capacity| engine.topic::<u64>(name).capacity(capacity).durable().create().ok();
        let (input, output) = (topic("in", 64)?, topic("out", 4)?);
        let known = all(&input)?.len() as u64;
        let mut producer = input.producer().create().ok()?;
        for number in known..total {
            producer.publish(|event| *event = number).ok()?;
        }
        drop(producer);
        let run = engine.transform("in", "out", "split", fan_out(3)).ok()?;
        input.close();
        matches!(run.wait(), TransformEnd::Finished).then(|| all(&output)).flatten()
    })();
    engine.shutdown(Duration::from_secs(5));
    there
}

#[test]
fn each_part_is_there_with_how_far_was_read_through_a_crash_after_each_call_to_the_disk() {
    const TOTAL: u64 = 9;
    let crashes = at_each_call(
        |disk, _| drop(pass_on(disk, TOTAL)),
        |(), nth, disk| {
            let disk = disk.crash(nth);
            let seen = pass_on(&disk, TOTAL).unwrap_or_else(|| panic!("call {nth}"));
            assert!(seen.iter().copied().eq(0..TOTAL * 3), "call {nth}: {seen:?}");
        },
    );
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn an_event_of_which_too_much_comes_ends_it_by_its_offset_and_both_sizes() {
    let engine = engine(&SimulatedDisk::new());
    let (input, output) = (topic(&engine, "in", 64), topic(&engine, "out", 8));
    let pages = engine.topic::<Page>("pages").durable().create().unwrap();
    publish(&input, 0..6);
    // More than the ring holds, and more than a frame does: a quarter of a segment.
    let run = engine.transform("in", "out", "ring", |number: &u64, _, out| {
        (0..if *number == 3 { 9 } else { 2 }).try_for_each(|_| out.publish(|event: &mut u64| *event = *number))
    });
    let told = failed(&run.unwrap());
    assert!(told.contains("at 3 of partition 0") && told.contains('9') && told.contains('8'), "{told}");
    assert_eq!(all(&output).unwrap(), [0, 0, 1, 1, 2, 2], "what came before is passed on");
    let run = engine.transform("in", "pages", "frame", |number: &u64, _, out| {
        (0..if *number == 3 { 100 } else { 2 }).try_for_each(|_| out.publish(|page: &mut Page| page[0][0] = 1))
    });
    let told = failed(&run.unwrap());
    assert!(told.contains("at 3 of partition 0") && told.contains(" bytes is larger than the 6"), "{told}");
    assert_eq!(pages.safe(0).unwrap().durable, 6);

    let mut steps = input.transform("steps").open().unwrap();
    let mut step = || {
        steps.step(LONG, |number, _, out| {
            (0..if *number == 3 { 9 } else { 2 }).try_for_each(|_| out.publish(&output, |event| *event = *number))
        })
    };
    assert_eq!(step().unwrap(), Some(3));
    let told = step().unwrap_err().to_string();
    assert!(told.contains("at 3 of partition 0") && told.contains('9') && told.contains('8'), "{told}");
    assert_eq!(steps.committed(0), Some(3));

    let out = output.clone();
    let run = input.group("group").delivery(Delivery::ExactlyOnce).run_into(move |number, _, transaction| {
        (0..if *number == 3 { 9 } else { 2 }).try_for_each(|_| transaction.publish(&out, |event| *event = *number))
    });
    let MemberEnd::Failed { offset: 3, cause, .. } = run.unwrap().wait() else { panic!("it ends at that event") };
    assert!(cause.contains('9') && cause.contains('8'), "{cause}");
}

/// A refusal that the handler passes over was lost with what it refused, if others were in the same transaction.
#[test]
fn what_has_no_room_beside_others_is_handled_again_also_if_the_handler_says_nothing() {
    let engine = engine(&SimulatedDisk::new());
    let input = topic(&engine, "in", 64);
    let pages = engine.topic::<Page>("pages").durable().create().unwrap();
    publish(&input, 0..6);
    let run = engine.transform("in", "pages", "silent", |_: &u64, _, out| {
        (0..40).for_each(|_| _ = out.publish(|page: &mut Page| page[0][0] = 1));
        Ok::<_, TransactionError>(())
    });
    let run = run.unwrap();
    input.close();
    assert!(matches!(run.wait(), TransformEnd::Finished), "{run:?}");
    assert_eq!(pages.safe(0).unwrap().durable, 240);
}

/// It was seen in its handle alone.
#[test]
fn a_transform_that_failed_or_did_not_come_to_the_end_makes_no_complete_report() {
    let engine = self::engine(&SimulatedDisk::new());
    let (input, _output) = (topic(&engine, "in", 64), topic(&engine, "out", 64));
    publish(&input, 0..10);
    let run = engine.transform(
        "in",
        "out",
        "copy",
        |number: &u64, _, _: &mut Outputs<'_, u64>| {
            if *number == 4 { Err("no fours") } else { Ok(()) }
        },
    );
    failed(&run.unwrap());
    let all = engine.transforms();
    assert_eq!((all.len(), all[0].lag()), (1, 10), "{all:?}");
    assert!(matches!(&all[0].state, TransformState::Failed(cause) if cause.contains("no fours")), "{all:?}");
    let metrics = engine.metrics();
    assert!(metrics.to_string().contains("transform copy of in: failed (transform \"copy\" failed at 4"), "{metrics}");
    let text = metrics.to_prometheus();
    assert!(text.contains("slipring_transform_failed{topic=\"in\",transform=\"copy\"} 1\n"), "{text}");
    assert!(text.contains("slipring_transform_lag{topic=\"in\",transform=\"copy\"} 10\n"), "{text}");
    assert_eq!(engine.failures().len(), 1, "{:?}", engine.failures());
    let report = engine.shutdown(LONG);
    assert!(!report.is_complete(), "{report}");
    let failures: Vec<_> = report.failures().collect();
    assert!(matches!(failures[..], [("in", "transform:copy", cause)] if cause.contains("no fours")), "{failures:?}");
    let told: Vec<_> = report.topics.iter().flat_map(|topic| topic.consumer("transform:copy")).collect();
    assert_eq!((told.len(), told[0].consumed, told[0].left), (1, 0, 10), "{report}");

    // One that had more to read than there was time for.
    let engine = self::engine(&SimulatedDisk::new());
    let (input, _output) = (topic(&engine, "in", 64), topic(&engine, "out", 64));
    publish(&input, 0..100);
    let (go, may_go) = std::sync::mpsc::channel::<()>();
    let run = engine.transform("in", "out", "slow", move |number: &u64, _, _: &mut Outputs<'_, u64>| {
        let _ = may_go.recv();
        if *number > 0 { Err("too late") } else { Ok(()) }
    });
    let report = engine.shutdown(Duration::ZERO);
    drop(go);
    assert!(!report.is_complete(), "{report}");
    let told: Vec<_> = report.topics.iter().flat_map(|topic| topic.consumer("transform:slow")).collect();
    assert!(matches!(told[..], [told] if told.left == 100 && told.running), "{report}");
    let _ = run.unwrap().wait();

    // One that has read all, one that was stopped, and one that was dropped are no reason.
    let engine = self::engine(&SimulatedDisk::new());
    let (input, _output) = (topic(&engine, "in", 64), topic(&engine, "out", 64));
    publish(&input, 0..10);
    let run = engine.transform("in", "out", "copy", fan_out(1)).unwrap();
    let stopped = engine.transform("in", "out", "stopped", fan_out(1)).unwrap();
    stopped.stop();
    stopped.wait();
    drop(input.transform("left").open().unwrap());
    let report = engine.shutdown(LONG);
    assert!(matches!(run.wait(), TransformEnd::Finished), "{run:?}");
    assert!(report.is_complete(), "{report}");
}

#[test]
fn a_name_as_long_as_names_may_be_is_a_transforms() {
    let engine = engine(&SimulatedDisk::new());
    let input = topic(&engine, "in", 64);
    publish(&input, 0..3);
    let name = "x".repeat(MAX_NAME);
    let mut transform = input.transform(name.as_str()).open().unwrap();
    let mut read = 0;
    while read < 3 {
        read += transform.step(LONG, |_, _, _| Ok::<_, String>(())).unwrap().unwrap();
    }
    assert_eq!(engine.transforms()[0].name, name);
    assert!(input.transform(format!("{name}x")).open().is_err());
}
