//! After damage and a repair: who reads what was lost is told, in place and once, and nobody else is.

use slipring::journal::simulated::{Fault, SimulatedDisk};
use slipring::{
    Engine, Level, Topic,
    group::{GroupError, MemberEnd},
    journal::ReaderKind,
    replay::{Gap, OnGap, ReplayError},
    subscriber::{At, Selector},
    transaction::{Transaction, TransactionError},
    transform::{TransformEnd, TransformError},
};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::lost::{self, EACH, LONG, damaged, engine, ticks};

/// What was read of each partition, in order: numbers, and gaps.
#[derive(Debug, Default, PartialEq, Eq)]
struct Read(BTreeMap<u32, Vec<Item>>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Tick(u64),
    Gap(u64, u64),
}

impl Read {
    fn tick(&mut self, tick: u64, at: At) {
        assert_eq!(tick, at.offset);
        self.0.entry(at.partition).or_default().push(Item::Tick(tick));
    }

    fn gap(&mut self, gap: &Gap) {
        assert_eq!(gap.topic, "ticks");
        self.0.entry(gap.partition).or_default().push(Item::Gap(gap.offsets.start, gap.offsets.end));
    }

    fn ticks(&self) -> usize {
        self.0.values().flatten().filter(|item| matches!(item, Item::Tick(_))).count()
    }
}

/// All there is to be read: each number that is left, and the gaps in their places if they are `told`.
fn all(lost: &[(u32, u64, u64)], told: bool) -> Read {
    let mut read = Read::default();
    for partition in 0..4 {
        let items = read.0.entry(partition).or_default();
        let mut next = 0;
        while next < EACH {
            match lost.iter().find(|(of, first, end)| *of == partition && (*first..*end).contains(&next)) {
                Some((_, first, end)) => {
                    items.extend(told.then_some(Item::Gap(*first, *end)));
                    next = *end;
                }
                None => {
                    items.push(Item::Tick(next));
                    next += 1;
                }
            }
        }
    }
    read
}

const LOST: &[(u32, u64)] = &[(1, 0), (1, 7), (1, 8), (3, 19)];
const GAPS: &[(u32, u64, u64)] = &[(1, 0, 1), (1, 7, 9), (3, 19, 20)];
const LEFT: usize = 4 * EACH as usize - LOST.len();

/// Only the first was told: the second repair lost the first event behind the offsets that the first repair had skipped.
#[test]
fn two_gaps_with_no_event_between_them_are_both_told() {
    let disk = damaged(&[(1, EACH - 1)]);
    let engine = engine(&disk);
    let mut producer = ticks(&engine).producer().acknowledge(Level::Durable).create().unwrap();
    let [lost, left] = [lost::MARK, 0].map(|number| producer.publish_to(1, |tick| *tick = number).unwrap().offset);
    drop(producer);
    engine.shutdown(LONG);
    drop(engine);
    lost::lose(&disk);
    let engine = lost::engine(&disk);
    let ticks = ticks(&engine);
    let expected = [(EACH - 1, EACH), (lost, left)];

    let (mut replay, mut told, mut last) = (ticks.replay("tape").open().unwrap(), Vec::new(), 0);
    let until = Instant::now() + LONG;
    while last < left && Instant::now() < until {
        match replay.read(Duration::from_millis(10), |_, at| last = last.max(at.offset)) {
            Ok(_) => {}
            Err(ReplayError::Gap(gap)) => told.push((gap.offsets.start, gap.offsets.end)),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((&told[..], last), (&expected[..], left));

    let (mut member, mut told, mut last) = (ticks.group("sums").join().unwrap(), Vec::new(), 0);
    let until = Instant::now() + LONG;
    while last < left && Instant::now() < until {
        match member.poll(Duration::from_millis(10)) {
            Ok(batch) => {
                let batch = batch.unwrap();
                batch.iter().for_each(|(_, at)| last = last.max(at.offset));
                batch.commit().unwrap();
            }
            Err(GroupError::Gap { gap, .. }) => told.push((gap.offsets.start, gap.offsets.end)),
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((&told[..], last), (&expected[..], left));
}

#[test]
fn a_replay_is_told_at_each_opening_and_may_choose_what_to_do() {
    let disk = damaged(LOST);
    let engine = engine(&disk);
    let ticks = ticks(&engine);
    for _ in 0..2 {
        let (mut replay, mut read) = (ticks.replay("tape").open().unwrap(), Read::default());
        let until = Instant::now() + LONG;
        while read != all(GAPS, true) && Instant::now() < until {
            match replay.read(Duration::from_millis(10), |tick, at| read.tick(*tick, at)) {
                Ok(_) => {}
                Err(ReplayError::Gap(gap)) => read.gap(&gap),
                Err(other) => panic!("{other}"),
            }
        }
        assert_eq!(read, all(GAPS, true));
    }
    for calls in [false, true] {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&told);
        let policy = match calls {
            true => OnGap::call(move |gap| hears.lock().unwrap().push(gap.clone())),
            false => OnGap::PassOver,
        };
        let name = if calls { "calls" } else { "passes" };
        let (mut replay, mut read) = (ticks.replay(name).on_gap(policy).open().unwrap(), Read::default());
        let until = Instant::now() + LONG;
        while (read.ticks() < LEFT || !replay.is_live()) && Instant::now() < until {
            replay.read(Duration::from_millis(10), |tick, at| read.tick(*tick, at)).unwrap();
        }
        assert_eq!(read, all(GAPS, false));
        let metrics = engine.metrics();
        let consumer = metrics.topic("ticks").unwrap().consumer(name).unwrap();
        assert_eq!((consumer.gaps, consumer.lost), (3, 4));
        assert_eq!(told.lock().unwrap().len(), if calls { 3 } else { 0 });
    }
    assert_eq!(engine.gaps(), [], "a replay has no name that the journal knows");
    engine.shutdown(LONG);
}

/// A plain program: it ends at its first error, and is started again.
fn run_plainly(engine: &Engine, read: &mut Read) -> Result<(), GroupError> {
    let mut member = ticks(engine).group("billing").join()?;
    let until = Instant::now() + LONG;
    while read.ticks() < LEFT && Instant::now() < until {
        let Some(batch) = member.poll(Duration::from_millis(10))? else { break };
        let partition = batch.partition().map_or(0, |partition| partition.partition);
        batch.iter().for_each(|(tick, at)| read.tick(*tick, At::clone(&at)));
        assert!(partition < 4);
        batch.commit().unwrap();
    }
    // What is lost at the end of a partition.
    while member.poll(Duration::ZERO)?.is_some_and(|batch| !batch.is_empty()) {}
    Ok(())
}

#[test]
fn a_plain_program_goes_on_behind_a_gap_when_it_is_started_again() {
    let disk = damaged(LOST);
    let (mut read, mut starts) = (Read::default(), 0);
    loop {
        starts += 1;
        assert!(starts < 10, "told again and again: {read:?}");
        let engine = engine(&disk);
        let ended = run_plainly(&engine, &mut read);
        let listed = engine.gaps();
        let report = engine.shutdown(LONG);
        assert_eq!(report.gaps, listed);
        match ended {
            Ok(()) if read == all(GAPS, true) => break,
            Ok(()) => {}
            Err(GroupError::Gap { group, gap }) => {
                assert_eq!(group, "billing");
                assert!(listed.iter().any(|told| told.gap == gap && told.kind == ReaderKind::Group), "{listed:?}");
                read.gap(&gap);
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert!(starts >= 4);
    // Listed until somebody says that it is known.
    let engine = engine(&disk);
    assert_eq!(engine.gaps().len(), 3);
    assert_eq!(engine.metrics().gaps.len(), 3);
    let text = engine.metrics().to_prometheus();
    let line = "slipring_unacknowledged_lost_offsets{topic=\"ticks\",partition=\"1\",kind=\"group\",reader=\"billing\",first=\"7\"} 2";
    assert!(text.contains(line), "{text}");
    assert_eq!(engine.acknowledge_gaps(ReaderKind::Transform, "billing").unwrap(), 0);
    assert_eq!(engine.acknowledge_gaps(ReaderKind::Group, "billing").unwrap(), 3);
    assert_eq!((engine.gaps(), engine.metrics().gaps), (Vec::new(), Vec::new()));
    engine.shutdown(LONG);
    let engine = lost::engine(&disk);
    assert_eq!(engine.gaps(), []);
    // Another group has not been told.
    let mut other = Read::default();
    let mut member = ticks(&engine).group("audit").join().unwrap();
    let until = Instant::now() + LONG;
    while other != all(GAPS, true) && Instant::now() < until {
        match member.poll(Duration::from_millis(10)) {
            Ok(Some(batch)) => {
                batch.iter().for_each(|(tick, at)| other.tick(*tick, at));
                batch.commit().unwrap();
            }
            Ok(None) => panic!("it is open"),
            Err(GroupError::Gap { gap, .. }) => other.gap(&gap),
            Err(refused) => panic!("{refused}"),
        }
    }
    assert_eq!(other, all(GAPS, true));
    drop(member);
    engine.shutdown(LONG);
}

#[test]
fn what_only_asks_whether_there_is_something_keeps_the_gap_for_who_polls() {
    let disk = damaged(&[(1, 0)]);
    let engine = engine(&disk);
    let mut member = ticks(&engine).group("billing").join().unwrap();
    let (mut selector, mut read, mut told) = (Selector::round_robin(), 0, 0);
    let until = Instant::now() + LONG;
    while (read < 4 * EACH as usize - 1 || told == 0) && Instant::now() < until {
        if selector.select(&mut [&mut member], Duration::from_millis(10)).unwrap().is_none() {
            continue;
        }
        match member.poll(Duration::ZERO) {
            Ok(Some(batch)) => {
                read += batch.len();
                batch.commit().unwrap();
            }
            Ok(None) => panic!("it is open"),
            Err(GroupError::Gap { .. }) => told += 1,
            Err(refused) => panic!("{refused}"),
        }
    }
    assert_eq!((read, told), (4 * EACH as usize - 1, 1));
    drop(member);
    engine.shutdown(LONG);
}

#[test]
fn a_managed_member_ends_with_the_gap_or_passes_over_it_and_the_next_goes_on() {
    let disk = damaged(&[(2, 5)]);
    let engine = engine(&disk);
    let ticks = ticks(&engine);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let run = |policy: OnGap| {
        let sees = Arc::clone(&seen);
        let handler = move |tick: &u64, at: At| {
            sees.lock().unwrap().push((at.partition, *tick));
            Ok::<_, std::convert::Infallible>(())
        };
        ticks.group("sums").on_gap(policy).run(handler).unwrap()
    };
    let end = run(OnGap::Fail).wait();
    assert!(matches!(&end, MemberEnd::Refused(GroupError::Gap { gap, .. }) if gap.offsets == (5..6)), "{end}");
    let again = run(OnGap::Fail);
    let until = Instant::now() + LONG;
    while seen.lock().unwrap().len() < 4 * EACH as usize - 1 && Instant::now() < until {
        std::thread::yield_now();
    }
    again.stop();
    assert_eq!(again.wait(), MemberEnd::Stopped);
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    seen.sort_unstable();
    let all: Vec<_> = (0..4).flat_map(|partition| (0..EACH).map(move |tick| (partition, tick))).collect();
    assert_eq!(seen, all.into_iter().filter(|it| *it != (2, 5)).collect::<Vec<_>>());
    engine.shutdown(LONG);
}

fn copied(engine: &Engine) -> Option<(Topic<u64>, Topic<[u64; 2]>)> {
    let copies = engine.topic::<[u64; 2]>("copies").durable().create().ok()?;
    Some((ticks(engine), copies))
}

fn all_copies(engine: &Engine, copies: &Topic<[u64; 2]>) -> Vec<(u64, u64)> {
    let mut found = Vec::new();
    let mut replay = copies.replay("check").open().unwrap();
    while replay.read(Duration::ZERO, |copy, _| found.push((copy[0], copy[1]))).unwrap().is_some_and(|read| read > 0) {}
    drop(engine.clone());
    found.sort_unstable();
    found
}

#[test]
fn a_transform_is_told_once_and_passes_on_all_that_is_left_once() {
    for managed in [false, true] {
        let disk = damaged(LOST);
        let (mut told, mut starts) = (Vec::new(), 0);
        let left: Vec<_> = all(GAPS, false).0.into_iter().collect();
        let left: Vec<(u64, u64)> = left
            .into_iter()
            .flat_map(|(partition, items)| {
                items.into_iter().filter_map(move |item| match item {
                    Item::Tick(tick) => Some((u64::from(partition), tick)),
                    Item::Gap(..) => None,
                })
            })
            .collect();
        loop {
            starts += 1;
            assert!(starts < 10, "{told:?}");
            let engine = engine(&disk);
            let (ticks, copies) = copied(&engine).unwrap();
            let mut gap = |refused: &TransformError| match refused {
                TransformError::Input(ReplayError::Gap(gap)) => told.push((gap.partition, gap.offsets.clone())),
                other => panic!("{other}"),
            };
            let transform = ticks.transform("copy").batch(3).open().unwrap();
            let is_done = || all_copies(&engine, &copies).len() >= LEFT && engine.gaps().len() == GAPS.len();
            let until = Instant::now() + LONG;
            if managed {
                let copy = |tick: &u64, at: At, out: &mut slipring::transform::Outputs<'_, [u64; 2]>| {
                    out.publish(|copy| *copy = [u64::from(at.partition), *tick])
                };
                let run = transform.run(copies.clone(), copy).unwrap();
                while run.ended().is_none() && !is_done() && Instant::now() < until {
                    std::thread::yield_now();
                }
                run.stop();
                if let TransformEnd::Failed(refused) = run.wait() {
                    gap(&refused);
                }
            } else {
                let mut transform = transform;
                let copy = |tick: &u64, at: At, out: &mut Transaction| {
                    out.publish(&copies, |copy| *copy = [u64::from(at.partition), *tick])
                };
                while !is_done() && Instant::now() < until {
                    if let Err(refused) = transform.step(Duration::ZERO, copy) {
                        gap(&refused);
                        break;
                    }
                }
            }
            let done = is_done();
            let found = all_copies(&engine, &copies);
            assert!(engine.gaps().iter().all(|told| told.kind == ReaderKind::Transform && told.reader == "copy"));
            engine.shutdown(LONG);
            if done {
                assert_eq!(found, left, "managed: {managed}");
                break;
            }
        }
        told.sort_by_key(|(partition, offsets)| (*partition, offsets.start));
        assert_eq!(told, [(1, 0..1), (1, 7..9), (3, 19..20)], "managed: {managed}");
    }
}

#[test]
fn what_was_told_is_known_after_a_crash_at_each_call_to_the_disk() {
    let damaged = damaged(&[(1, 3)]);
    let (mut told_cuts, mut untold_cuts) = (0, 0);
    for nth in 1.. {
        let disk = damaged.copy();
        let mut cut = false;
        let told = (|| {
            let engine = engine(&disk);
            let mut member = ticks(&engine).group("billing").join().ok()?;
            disk.fail_after(nth, Fault::PowerCut);
            let until = Instant::now() + LONG;
            while Instant::now() < until {
                match member.poll(Duration::from_millis(1)) {
                    Ok(Some(batch)) if batch.is_empty() => {}
                    Ok(Some(batch)) => drop(batch.commit()),
                    Ok(None) => return Some(false),
                    Err(GroupError::Gap { .. }) => return Some(true),
                    Err(_) => {
                        cut = true;
                        return Some(false);
                    }
                }
            }
            None
        })();
        let told = told.expect("no end");
        let after = disk.crash(nth);
        let engine = engine(&after);
        let listed = engine.gaps();
        assert!(!told || listed.len() == 1, "{nth}: told, and not written down");
        let mut member = ticks(&engine).group("billing").join().unwrap();
        let (mut again, mut read) = (0, Vec::new());
        let until = Instant::now() + LONG;
        while read.last() != Some(&(EACH - 1)) && Instant::now() < until {
            match member.poll(Duration::from_millis(1)) {
                Ok(Some(batch)) => {
                    let of_one = batch.iter().filter(|(_, at)| at.partition == 1);
                    read.extend(of_one.map(|(tick, _)| *tick));
                    batch.commit().unwrap();
                }
                Err(GroupError::Gap { .. }) => again += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(again, usize::from(listed.is_empty()), "{nth}: listed, or told again");
        drop(member);
        engine.shutdown(LONG);
        *if listed.is_empty() { &mut untold_cuts } else { &mut told_cuts } += 1;
        if told && !cut {
            break;
        }
        assert!(nth < 200);
    }
    assert!(told_cuts > 0 && untold_cuts > 0, "{told_cuts} {untold_cuts}");
}

/// Ten jobs, of which one was lost to damage.
/// The disk fails while the report of a gap is written: it is unknown whether the journal has the report, and the error
/// said that nothing was written.
#[test]
fn a_report_of_a_gap_that_meets_a_failing_disk_is_unknown_or_not_written() {
    let damaged = damaged(&[(1, 0)]);
    for of_group in [false, true] {
        let (mut unknown, mut listed_and_unknown) = (0, 0);
        for nth in 1..60 {
            let disk = damaged.copy();
            let engine = engine(&disk);
            let ticks = ticks(&engine);
            let outcome = if of_group {
                let mut member = ticks.group("copy").join().unwrap();
                disk.fail_after(nth, Fault::PowerCut);
                let until = Instant::now() + LONG;
                loop {
                    assert!(Instant::now() < until, "no end");
                    match member.poll(Duration::from_millis(1)) {
                        Ok(batch) => _ = batch.map(|batch| batch.commit()),
                        Err(GroupError::Gap { .. }) => break Some(true),
                        Err(GroupError::CommitUnknown { .. }) => break None,
                        Err(_) => break Some(false),
                    }
                }
            } else {
                let mut copy = ticks.transform("copy").open().unwrap();
                disk.fail_after(nth, Fault::PowerCut);
                let until = Instant::now() + LONG;
                loop {
                    assert!(Instant::now() < until, "no end");
                    match copy.step(Duration::from_millis(1), |_, _, _| Ok::<_, Infallible>(())) {
                        Ok(_) => {}
                        Err(TransformError::Input(ReplayError::Gap(_))) => break Some(true),
                        Err(TransformError::Transaction(TransactionError::Unknown { .. })) => break None,
                        Err(_) => break Some(false),
                    }
                }
            };
            let after = disk.crash(nth);
            let listed = !lost::engine(&after).gaps().is_empty();
            match outcome {
                Some(reported) => assert_eq!(reported, listed, "group: {of_group}, {nth}"),
                None => {
                    unknown += 1;
                    listed_and_unknown += usize::from(listed);
                }
            }
            if outcome == Some(true) {
                break;
            }
        }
        assert!(unknown > 0, "group: {of_group}: {listed_and_unknown}");
    }
}

fn damaged_jobs() -> SimulatedDisk {
    use slipring::{Level, Message, Record};
    let disk = SimulatedDisk::new();
    {
        let engine = engine(&disk);
        let jobs = engine.topic::<Message>("jobs").max_message(64).durable().create().unwrap();
        let mut producer = jobs.producer().acknowledge(Level::Durable).create().unwrap();
        (0..10).for_each(|number| _ = producer.send(Record::new(format!("job {number} of ten").as_bytes())).unwrap());
        drop(producer);
        engine.shutdown(LONG);
    }
    use slipring::journal::storage::Storage;
    for name in disk.list().unwrap().into_iter().filter(|name| name.ends_with(".segment")) {
        disk.edit(&name, |bytes| {
            if let Some(at) = bytes.windows(12).position(|it| it == b"job 4 of ten") {
                bytes[at] ^= 1;
            }
        });
    }
    slipring::journal::repair::repair(Arc::new(disk.clone()), 7, &mut |_| {}).unwrap();
    disk
}

/// It was told in one frame, and stood behind the gap in a later one: a crash between the two told it twice.
#[test]
fn a_queue_stands_behind_a_gap_if_it_was_told_of_it_after_a_crash_at_each_call_to_the_disk() {
    use slipring::{Level, Message};
    let damaged = damaged_jobs();
    let (mut told_cuts, mut untold_cuts) = (0, 0);
    for nth in 1.. {
        let disk = damaged.copy();
        let open = |disk: &SimulatedDisk| {
            let engine = engine(disk);
            let jobs = engine.topic::<Message>("jobs").max_message(64).durable().create().unwrap();
            let worker = jobs.queue("work").acknowledge(Level::Written).join();
            (engine, worker)
        };
        let is_done = {
            let (_engine, worker) = open(&disk);
            let mut worker = worker.unwrap();
            disk.fail_after(nth, Fault::PowerCut);
            (0..9).all(|_| worker.receive(LONG).is_ok_and(|lease| lease.is_some_and(|lease| lease.ack().is_ok())))
        };
        let (engine, worker) = open(&disk.crash(nth));
        let listed = engine.gaps().len();
        let mut worker = worker.unwrap();
        let mut last = None;
        let until = Instant::now() + LONG;
        while worker.queue().metrics().unread > 0 && Instant::now() < until {
            if let Some(lease) = worker.receive(Duration::from_millis(10)).unwrap() {
                last = Some(lease.offset());
                lease.ack().unwrap();
            }
        }
        // It passes over the gap once more if and only if the journal does not know that it was told.
        let lost = worker.queue().metrics().lost;
        assert_eq!(lost, u64::from(listed == 0), "{nth}: listed {listed}, read up to {last:?}");
        drop(worker);
        engine.shutdown(LONG);
        *if listed == 0 { &mut untold_cuts } else { &mut told_cuts } += 1;
        if is_done && listed == 1 {
            break;
        }
        assert!(nth < 300);
    }
    assert!(told_cuts > 0 && untold_cuts > 0, "{told_cuts} {untold_cuts}");
}

#[test]
fn a_queue_counts_what_is_lost_lists_it_and_goes_on() {
    use slipring::Message;
    let disk = damaged_jobs();
    let engine = engine(&disk);
    let jobs = engine.topic::<Message>("jobs").max_message(64).durable().create().unwrap();
    let mut worker = jobs.queue("work").join().unwrap();
    let mut done = Vec::new();
    while done.len() < 9 {
        let lease = worker.receive(LONG).unwrap().expect("nine are left");
        done.push(lease.offset());
        lease.ack().unwrap();
    }
    assert_eq!(done, [0, 1, 2, 3, 5, 6, 7, 8, 9]);
    assert_eq!(worker.queue().metrics().lost, 1);
    let told = engine.gaps();
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].kind, &*told[0].reader, &told[0].gap), (ReaderKind::Queue, "work", &Gap::new("jobs", 0, 4..5)));
    drop(worker);
    engine.shutdown(LONG);
}
