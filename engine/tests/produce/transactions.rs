//! Transactions: all or none, whatever fails.

use slipring::journal::Options;
use slipring::journal::simulated::{Fault, SimulatedDisk};
use slipring::{
    Engine, Message, Record, producer::PublishError, transaction::TransactionError, transform::TransformError,
};
use std::time::{Duration, Instant};

use crate::accounts::{self, ledger};

const LONG: Duration = Duration::from_secs(60);
const SEGMENT: u64 = 1 << 18;

fn engine(disk: &SimulatedDisk) -> Engine {
    let options = Options { segment_size: SEGMENT, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap()
}

#[test]
fn without_room_in_one_partition_nothing_is_published_in_any_and_nobody_is_held_up() {
    let engine = engine(&SimulatedDisk::new());
    let accounts = accounts::open(&engine).unwrap();
    let mut slow = accounts.subscribe("slow").poll().unwrap();
    let mut producer = accounts.producer().create().unwrap();
    for _ in 0..64 {
        producer.publish_to(3, |change| *change = [0, 0]).unwrap();
    }
    let mut refused = engine.transaction().unwrap();
    refused.patience(Duration::ZERO);
    (0..4).for_each(|account| refused.publish_to(&accounts, account, |change| *change = [9, 9]).unwrap());
    let refused = refused.commit().unwrap_err();
    let by_slow = matches!(&refused, TransactionError::Publish(PublishError::Full { partition: 3, by: Some(by), .. }) if by == "slow");
    assert!(by_slow && refused.is_full(), "{refused}");
    // The others are free at once.
    for account in 0..3 {
        let receipt = producer.publish_to(account, |change| *change = [0, 0]).unwrap();
        receipt.wait(slipring::Level::Durable).unwrap();
    }
    let mut patient = engine.transaction().unwrap();
    (0..4).for_each(|account| patient.publish_to(&accounts, account, |change| *change = [9, 9]).unwrap());
    std::thread::scope(|scope| {
        let commits = scope.spawn(|| patient.commit().unwrap());
        let mut seen = 0;
        while seen < 4 {
            let Some(mut batch) = slow.poll(LONG).unwrap() else { continue };
            batch.into_iter().for_each(|(change, _)| seen += usize::from(change[0] == 9));
        }
        assert_eq!(commits.join().unwrap().len(), 4);
    });
}

#[test]
fn what_is_too_large_is_refused_with_both_sizes() {
    let engine = engine(&SimulatedDisk::new());
    let texts = engine.topic::<Message>("texts").max_message(4096).capacity(16).durable().create().unwrap();
    let mut large = engine.transaction().unwrap();
    let text = [7_u8; 4000];
    let refused = (0..100).find_map(|_| large.send(&texts, Record::new(&text).partition(0)).err()).unwrap();
    let TransactionError::TooLarge { size, limit } = refused else { panic!("{refused}") };
    assert!(limit < SEGMENT as usize / 3 && size > limit && refused.to_string().contains(&limit.to_string()));
    // More than the ring ever holds: what fits into the frame does not fit there.
    assert!(large.len() > 14);
    let mut many = engine.transaction().unwrap();
    (0..17).for_each(|_| many.send(&texts, Record::new("x")).unwrap());
    let refused = many.commit().unwrap_err();
    let is_clear =
        matches!(refused, TransactionError::Publish(PublishError::BatchTooLarge { asked: 17, largest: 16, .. }));
    assert!(is_clear, "{refused}");
    let mut right = engine.transaction().unwrap();
    (0..14).for_each(|_| right.send(&texts, Record::new(&text).key("k")).unwrap());
    assert_eq!(right.commit().unwrap()[0].len, 14);
    let plain = engine.topic::<u64>("plain").create().unwrap();
    let refused = engine.transaction().unwrap().publish(&plain, |_| ()).unwrap_err();
    assert!(matches!(refused, TransactionError::NotDurable { .. }), "{refused}");
    // Before anything is read.
    let refused = engine.transform(
        "texts",
        "plain",
        "copy",
        |_: &Message, _, out: &mut slipring::transform::Outputs<'_, u64>| out.publish(|_| ()),
    );
    let refused = refused.map(drop).unwrap_err();
    assert!(refused.to_string().contains("\"plain\" is not in this engine's journal"), "{refused}");
    let refused = texts.transform("").open().map(drop).unwrap_err();
    assert!(matches!(refused, TransformError::Refused { .. }), "{refused}");
    let bare = Engine::builder().build().unwrap();
    assert!(matches!(bare.transaction().unwrap_err(), TransactionError::NoJournal));
}

/// As many as are taken, in one partition or in many, with times or without: the frame holds them, with the commit of a group
/// that has a long name.
#[test]
fn what_is_taken_up_to_the_limit_fits_into_the_frame() {
    for partitions in [1_usize, 7, 300] {
        let engine = engine(&SimulatedDisk::new());
        let input = engine.topic::<u64>("input").capacity(16).durable().create().unwrap();
        let fixed = engine.topic::<u64>("fixed").partitions(partitions).capacity(8192).durable().create().unwrap();
        let timed = engine.topic::<Message>("timed").partitions(partitions).max_message(40).timestamps().capacity(2048);
        let timed = timed.durable().create().unwrap();
        let mut member = input.group("g".repeat(200)).join().unwrap();
        let mut producer = input.producer().create().unwrap();
        for every in [1, 2, u32::MAX] {
            producer.publish(|_| ()).unwrap();
            let batch = member.poll(LONG).unwrap().unwrap();
            let (mut full, mut taken) = (engine.transaction().unwrap(), 0_u32);
            let refused = loop {
                let to = taken % partitions as u32;
                let took = match taken % every {
                    0 => full.publish_to(&fixed, to, |event| *event = u64::MAX),
                    _ => full.send(&timed, Record::new("").partition(to)),
                };
                match took {
                    Ok(()) => taken += 1,
                    Err(refused) => break refused,
                }
            };
            assert!(matches!(refused, TransactionError::TooLarge { .. }), "{refused}");
            let receipts = batch.commit_with(full).unwrap();
            assert_eq!(receipts.iter().map(|receipt| receipt.len).sum::<usize>(), taken as usize);
        }
    }
}

/// Others publish around the transactions, and transactions cross: offsets stay in order, nothing is lost or doubled.
#[test]
fn transactions_and_producers_share_partitions() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let accounts = accounts::open(&engine).unwrap();
    const EACH: i64 = 150;
    std::thread::scope(|scope| {
        for writer in 0..2 {
            let (engine, accounts) = (&engine, &accounts);
            scope.spawn(move || {
                for round in 0..EACH {
                    let mut out = engine.transaction().unwrap();
                    for account in 0..3 {
                        // The two take their partitions in opposite orders.
                        let account = if writer == 0 { account } else { 2 - account };
                        out.publish_to(accounts, account, |change| *change = [writer, round]).unwrap();
                    }
                    out.commit().unwrap();
                }
            });
            scope.spawn(move || {
                let mut producer = accounts.producer().create().unwrap();
                for round in 0..EACH * 4 {
                    producer.publish_to((round % 3) as u32, |change| *change = [writer + 2, round]).unwrap();
                }
            });
        }
    });
    // Seen from memory, and once more after a restart.
    for disk in [disk.copy(), disk.crash(5)] {
        let engine = self::engine(&disk);
        let accounts = accounts::open(&engine).unwrap();
        let ledger = ledger(&accounts);
        for changes in &ledger[..3] {
            for writer in 0..2 {
                let rounds: Vec<i64> =
                    changes.iter().filter(|[of, _]| *of == writer).map(|[_, round]| *round).collect();
                assert_eq!(rounds, (0..EACH).collect::<Vec<_>>(), "each once, in order");
            }
        }
    }
    assert!(engine.shutdown(LONG).is_complete());
}

#[test]
fn a_failed_disk_leaves_a_transaction_unknown_and_unread() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let accounts = accounts::open(&engine).unwrap();
    let mut tape = accounts.subscribe("tape").poll().unwrap();
    // For good: a single error may meet the segment that is made ahead of need, which is made again.
    disk.fail_after(1, Fault::PowerCut);
    let commit = || {
        let mut out = engine.transaction()?;
        (0..4).try_for_each(|account| out.publish_to(&accounts, account, |change| *change = [9, 9]))?;
        out.commit()
    };
    let refused = commit().unwrap_err();
    // A mark may have met the fault before it: then nothing was written, or not even taken.
    assert!(
        matches!(
            refused,
            TransactionError::Unknown { .. }
                | TransactionError::Refused { .. }
                | TransactionError::Publish(_)
                | TransactionError::Producer(_)
        ),
        "{refused}"
    );
    assert!(tape.poll(LONG).is_err(), "nobody sees any of it");
}

#[test]
fn a_transaction_waits_for_what_was_claimed_before_it() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let accounts = accounts::open(&engine).unwrap();
    for panics in [false, true] {
        let (begun, begins) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let offsets = std::thread::scope(|scope| {
            let accounts = &accounts;
            let earlier = scope.spawn(move || {
                let mut producer = accounts.producer().create().unwrap();
                // Two at once, so that the slots are claimed before they are filled.
                let filled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    producer.publish_batch(2, |_, change| {
                        let _ = begun.send(());
                        let _ = released.recv();
                        assert!(!panics, "as asked");
                        *change = [1, 1];
                    })
                }));
                filled.is_ok()
            });
            begins.recv().unwrap();
            let later = scope.spawn(|| {
                let mut out = engine.transaction().unwrap();
                (0..4).for_each(|account| out.publish_to(accounts, account, |change| *change = [2, 2]).unwrap());
                out.commit().unwrap()
            });
            // The claims of the later one are taken in the order of partitions.
            let claimed = || accounts.metrics().partitions[3].oldest_unpublished.is_some();
            while !claimed() && !later.is_finished() {
                std::thread::yield_now();
            }
            drop(release);
            assert_eq!(earlier.join().unwrap(), !panics);
            later.join().unwrap().into_iter().map(|receipt| receipt.first).collect::<Vec<_>>()
        });
        assert_eq!(offsets.len(), 4);
    }
    let after = disk.copy();
    let second = self::engine(&after);
    let accounts = accounts::open(&second).unwrap();
    let kinds: Vec<Vec<i64>> =
        ledger(&accounts).into_iter().map(|changes| changes.into_iter().map(|[kind, _]| kind).collect()).collect();
    assert_eq!(kinds.iter().flatten().filter(|kind| **kind == 2).count(), 8, "{kinds:?}");
    assert_eq!(kinds.iter().flatten().filter(|kind| **kind == 1).count(), 2, "{kinds:?}");
    assert!(kinds.iter().any(|kinds| kinds.starts_with(&[1, 1, 2])), "{kinds:?}");
}

/// The ring of an only producer knows nothing of its claims: its readers must not be told that it is over.
#[test]
fn a_topic_that_is_closed_during_a_transaction_gives_its_readers_all_of_it() {
    let disk = SimulatedDisk::new();
    let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
    let ticks = engine.topic::<u64>("ticks").partitions(2).single_producer().durable().create().unwrap();
    let mut tape = ticks.subscribe("tape").poll().unwrap();
    let mut transaction = engine.transaction().unwrap();
    transaction.publish_to(&ticks, 0, |tick| *tick = 1).unwrap();
    transaction.publish_to(&ticks, 1, |tick| *tick = 2).unwrap();
    disk.hold_syncs(true);
    std::thread::scope(|scope| {
        let committing = scope.spawn(move || transaction.commit().map(|receipts| receipts.len()));
        let until = Instant::now() + LONG;
        // Handed over, written, and the sync of it waits.
        while !(disk.syncs_held() > 0 && engine.journal().unwrap().written() > engine.journal().unwrap().durable()) {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        ticks.close();
        let early = tape.poll(Duration::ZERO).unwrap();
        assert!(early.is_some_and(|batch| batch.is_empty()), "there is more to come");
        disk.hold_syncs(false);
        assert_eq!(committing.join().unwrap().unwrap(), 2);
    });
    let mut seen = Vec::new();
    while let Some(mut batch) = tape.poll(LONG).unwrap() {
        seen.extend((&mut batch).into_iter().map(|(tick, _)| *tick));
    }
    seen.sort_unstable();
    assert_eq!(seen, [1, 2]);
    assert!(ticks.closed().is_some() && engine.shutdown(LONG).is_complete());
}
