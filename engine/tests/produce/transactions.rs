//! Transactions: all or none, whatever fails, and exactly once through a crash after each call to the disk.

use slipring::journal::Options;
use slipring::journal::simulated::{Fault, SimulatedDisk};
use slipring::{
    Engine, EngineError, Level, Message, Record, Topic,
    producer::PublishError,
    subscriber::At,
    transaction::{Transaction, TransactionError},
    transform::{TransformEnd, TransformError},
};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::crash::at_each_call;

const LONG: Duration = Duration::from_secs(60);
const SEGMENT: u64 = 1 << 18;

fn try_engine(disk: &SimulatedDisk) -> Result<Engine, EngineError> {
    let options = Options { segment_size: SEGMENT, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build()
}

fn engine(disk: &SimulatedDisk) -> Engine {
    try_engine(disk).unwrap()
}

/// From, to, amount.
type Transfer = [i64; 3];
/// The transfer's number, and what changes.
type Change = [i64; 2];

const ACCOUNTS: i64 = 4;
const TRANSFERS: i64 = 24;

fn transfer(number: i64) -> Transfer {
    [number % ACCOUNTS, (number * 7 + 1) % ACCOUNTS, number + 1]
}

fn topics(engine: &Engine) -> Option<(Topic<Transfer>, Topic<Change>)> {
    let transfers = engine.topic::<Transfer>("transfers").capacity(64).durable().create().ok()?;
    let accounts =
        engine.topic::<Change>("accounts").partitions(ACCOUNTS as usize).capacity(64).durable().create().ok()?;
    Some((transfers, accounts))
}

fn book(
    accounts: &Topic<Change>,
    number: u64,
    [from, to, amount]: &Transfer,
    out: &mut Transaction,
) -> Result<(), TransactionError> {
    out.publish_to(accounts, *from as u32, |change| *change = [number as i64, -amount])?;
    out.publish_to(accounts, *to as u32, |change| *change = [number as i64, *amount])
}

/// Reads what is there, to the last.
fn read_all<E: Send + Sync + 'static>(topic: &Topic<E>, mut each: impl FnMut(&E, At)) -> Option<()> {
    let mut replay = topic.replay("auditor").open().ok()?;
    loop {
        // The change from journal to ring reads nothing.
        let live = replay.is_live();
        match replay.read(Duration::ZERO, &mut each).ok()? {
            None => return Some(()),
            Some(0) if live => return Some(()),
            Some(_) => {}
        }
    }
}

/// All changes that are there, by account.
fn ledger(accounts: &Topic<Change>) -> Vec<Vec<Change>> {
    let mut ledger = vec![Vec::new(); ACCOUNTS as usize];
    read_all(accounts, |change, at| ledger[at.partition as usize].push(*change)).unwrap();
    ledger
}

/// The total never changes, no transfer counts twice, and each is there with both sides. How many there are.
fn audit(ledger: &[Vec<Change>], about: &str) -> usize {
    let mut sides: BTreeMap<i64, Vec<(usize, i64)>> = BTreeMap::new();
    for (account, changes) in ledger.iter().enumerate() {
        assert!(changes.is_sorted_by_key(|[number, _]| *number), "{about}: {changes:?}");
        changes.iter().for_each(|[number, change]| sides.entry(*number).or_default().push((account, *change)));
    }
    assert_eq!(ledger.iter().flatten().map(|[_, change]| change).sum::<i64>(), 0, "{about}: the total");
    for (number, mut sides) in sides.clone() {
        let [from, to, amount] = transfer(number);
        let mut expected = [(from as usize, -amount), (to as usize, amount)];
        expected.sort_unstable();
        sides.sort_unstable();
        assert_eq!(sides, expected, "{about}: transfer {number}");
    }
    sides.len()
}

/// Publishes what is missing, books all, until something fails. The transfers whose booking was acknowledged.
fn run(disk: &SimulatedDisk) -> Option<usize> {
    let engine = try_engine(disk).ok()?;
    let mut booked = 0;
    let _ = (|| {
        let (transfers, accounts) = topics(&engine)?;
        // An idempotent producer's part, by hand: what is in the journal is not published again.
        let mut there = 0;
        read_all(&transfers, |_, _| there += 1)?;
        let mut bank = transfers.transform("bank").batch(3).open().ok()?;
        let mut producer = transfers.producer().create().ok()?;
        for number in there..TRANSFERS {
            // Its number is its place, whatever its offset.
            let receipt = producer.publish(|event| *event = transfer(number)).ok()?;
            if number % 8 == 7 {
                receipt.wait(slipring::Level::Durable).ok()?;
            }
        }
        drop(producer);
        transfers.close();
        loop {
            // A transfer is told by what it moves.
            let step = bank.step(LONG, |transfer, _, out| book(&accounts, (transfer[2] - 1) as u64, transfer, out));
            booked += step.ok()??;
        }
        #[allow(unreachable_code)]
        Some(())
    })();
    engine.shutdown(Duration::from_secs(5));
    Some(booked)
}

#[test]
fn a_bank_keeps_its_total_through_a_crash_after_each_call_to_the_disk() {
    let crashes = at_each_call(
        |disk, _| run(disk).unwrap_or(0),
        |booked, nth, disk| {
            for seed in [nth, nth * 31] {
                let about = format!("call {nth}, seed {seed}");
                let disk = disk.crash(seed);
                {
                    let engine = try_engine(&disk).unwrap_or_else(|refused| panic!("{about}: {refused}"));
                    let (_, accounts) = topics(&engine).unwrap();
                    assert!(audit(&ledger(&accounts), &about) >= booked, "{about}: acknowledged, and gone");
                    assert!(engine.shutdown(LONG).is_complete());
                }
                run(&disk).unwrap();
                let engine = engine(&disk);
                let (_, accounts) = topics(&engine).unwrap();
                assert_eq!(audit(&ledger(&accounts), &about), TRANSFERS as usize, "{about}: all are booked once");
            }
        },
    );
    assert!(crashes > 20, "{crashes}");
}

#[test]
fn what_fails_or_panics_publishes_nothing_and_is_read_again() {
    let engine = engine(&SimulatedDisk::new());
    let (transfers, accounts) = topics(&engine).unwrap();
    let mut producer = transfers.producer().create().unwrap();
    let receipts = (0..6).map(|number| producer.publish(|event| *event = transfer(number)).unwrap());
    // A step reads what is written by then.
    receipts.last().unwrap().wait(Level::Written).unwrap();
    let mut bank = transfers.transform("bank").open().unwrap();
    let mut fails = |at: u64, panics: bool| {
        bank.step(LONG, |transfer, seen, out| {
            book(&accounts, seen.offset, transfer, out).map_err(|refused| refused.to_string())?;
            match seen.offset == at {
                true if panics => panic!("as asked"),
                true => Err("as asked".to_owned()),
                false => Ok(()),
            }
        })
    };
    let refused = fails(4, false).unwrap_err();
    assert!(matches!(&refused, TransformError::Handler { offset: 4, .. }), "{refused}");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| fails(2, true)));
    assert!(panicked.is_err());
    assert_eq!(audit(&ledger(&accounts), "nothing yet"), 0);
    assert!((0..ACCOUNTS as u32).all(|account| accounts.safe(account).unwrap().written == 0));
    let mut seen = 0;
    while seen < 6 {
        seen += fails(u64::MAX, false).unwrap().unwrap();
    }
    assert_eq!((seen, audit(&ledger(&accounts), "all")), (6, 6));
    assert_eq!(bank.committed(0), Some(6));

    let mut dropped = engine.transaction().unwrap();
    dropped.publish_to(&accounts, 0, |change| *change = [99, 99]).unwrap();
    drop(dropped);
    assert_eq!(audit(&ledger(&accounts), "an abort"), 6);
}

#[test]
fn an_older_holder_of_the_name_commits_nothing_more() {
    let disk = SimulatedDisk::new();
    let first = engine(&disk);
    let (transfers, accounts) = topics(&first).unwrap();
    let mut producer = transfers.producer().create().unwrap();
    (0..2).for_each(|number| _ = producer.publish(|event| *event = transfer(number)).unwrap());
    let mut old = transfers.transform("bank").batch(1).open().unwrap();
    assert_eq!(old.step(LONG, |transfer, at, out| book(&accounts, at.offset, transfer, out)).unwrap(), Some(1));
    // It is taken over in the middle of its batch: only the committer's last look can tell.
    let mut new = None;
    let refused = old.step(LONG, |transfer, at, out| {
        new = Some(transfers.transform("bank").open().unwrap());
        book(&accounts, at.offset, transfer, out)
    });
    let refused = refused.unwrap_err();
    assert!(matches!(refused, TransformError::Transaction(TransactionError::Fenced { .. })), "{refused}");
    assert_eq!(audit(&ledger(&accounts), "the first one's"), 1);
    let mut new = new.unwrap();
    assert_eq!(new.committed(0), Some(1));
    assert_eq!(new.step(LONG, |transfer, at, out| book(&accounts, at.offset, transfer, out)).unwrap(), Some(1));
    assert!(old.step(LONG, |_, _, _| Ok::<_, String>(())).is_err(), "for good");
    assert_eq!(audit(&ledger(&accounts), "both"), 2);
    drop((producer, old, new));
    assert!(first.shutdown(LONG).is_complete());
    let second = engine(&disk);
    let (transfers, accounts) = topics(&second).unwrap();
    let mut again = transfers.transform("bank").open().unwrap();
    assert_eq!(again.step(Duration::ZERO, |_, _, _| Err("there is nothing left")).unwrap(), Some(0));
    assert_eq!(audit(&ledger(&accounts), "after a restart"), 2);
}

#[test]
fn without_room_in_one_partition_nothing_is_published_in_any_and_nobody_is_held_up() {
    let engine = engine(&SimulatedDisk::new());
    let (_, accounts) = topics(&engine).unwrap();
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
    let (_, accounts) = topics(&engine).unwrap();
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
        let (_, accounts) = topics(&engine).unwrap();
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
    let (_, accounts) = topics(&engine).unwrap();
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
fn a_managed_transform_reads_all_and_ends_with_its_input() {
    let disk = SimulatedDisk::new();
    for round in 0..2_u64 {
        let engine = engine(&disk);
        let orders = engine.topic::<u64>("orders").partitions(2).durable().create().unwrap();
        let doubled = engine.topic::<u64>("doubled").durable().create().unwrap();
        let run = engine.transform("orders", "doubled", "double", |order: &u64, _, out| {
            out.publish(|next: &mut u64| *next = order * 2)
        });
        let run = run.unwrap();
        let mut producer = orders.producer().create().unwrap();
        for order in 0..50 {
            producer.publish_to((order % 2) as u32, |event| *event = round * 50 + order).unwrap();
        }
        drop(producer);
        orders.close();
        assert!(matches!(run.wait(), TransformEnd::Finished), "{run:?}");
        let mut seen = Vec::new();
        read_all(&doubled, |event, _| seen.push(*event)).unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (0..(round + 1) * 50).map(|order| order * 2).collect::<Vec<_>>());
        assert!(engine.shutdown(LONG).is_complete());
    }
}

/// The handler fails on a batch that was read ahead, while the commit before it finds no room.
#[test]
fn what_a_handler_fails_on_ahead_of_a_commit_is_read_again_and_counts_once() {
    const ORDERS: u64 = 40;
    const ROOM: u64 = 64;
    // The second batch, with one on its way; the third, which is to be committed together with the second.
    for culprit in [5, 9] {
        let engine = engine(&SimulatedDisk::new());
        let orders = engine.topic::<u64>("orders").capacity(64).durable().create().unwrap();
        let out = engine.topic::<u64>("out").capacity(ROOM as usize).durable().create().unwrap();
        let mut tape = out.subscribe("tape").poll().unwrap();
        let mut filler = out.producer().create().unwrap();
        filler.publish_batch(ROOM as usize, |_, event| *event = u64::MAX).unwrap();
        let mut producer = orders.producer().create().unwrap();
        for order in 0..ORDERS {
            producer.publish(|event| *event = order).unwrap().wait(Level::Written).unwrap();
        }
        drop((producer, filler));
        orders.close();
        let (tell, told) = std::sync::mpsc::channel();
        let mut failed = false;
        let copy = orders.transform("copy").batch(4).open().unwrap();
        let run = copy.run(out, move |order, _, outputs| {
            // What it has published of this batch is to be forgotten.
            outputs.publish(|event| *event = *order).map_err(|refused| refused.to_string())?;
            if *order == culprit && !failed {
                failed = true;
                let _ = tell.send(());
                return Err("not yet".to_owned());
            }
            Ok(())
        });
        let run = run.unwrap();
        told.recv_timeout(LONG).expect("it reads ahead");
        // There is room only now.
        let mut seen = Vec::new();
        let until = Instant::now() + LONG;
        loop {
            let is_over = run.ended().is_some();
            let mut batch = tape.poll(Duration::from_millis(5)).unwrap().unwrap();
            let came = batch.len();
            seen.extend((&mut batch).into_iter().map(|(order, _)| *order).filter(|order| *order != u64::MAX));
            if came == 0 && (is_over || Instant::now() > until) {
                break;
            }
        }
        assert!(matches!(run.ended(), Some(TransformEnd::Finished)), "{run:?}");
        assert!(seen.iter().copied().eq(0..ORDERS), "{seen:?}");
    }
}

#[test]
fn a_transaction_waits_for_what_was_claimed_before_it() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let (_, accounts) = topics(&engine).unwrap();
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
    let (_, accounts) = topics(&second).unwrap();
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
