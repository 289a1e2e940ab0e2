//! A bank as a transform: exactly once through failures, a second holder and a crash after each call to the disk.

use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, Level, Topic,
    transaction::{Transaction, TransactionError},
    transform::TransformError,
};
use std::collections::BTreeMap;
use std::time::Duration;

use crate::accounts::{ACCOUNTS, Change, ledger, read_all};
use crate::crash::at_each_call;
use crate::{engine, try_engine};

const LONG: Duration = Duration::from_secs(60);

/// From, to, amount.
type Transfer = [i64; 3];

const TRANSFERS: i64 = 24;

fn transfer(number: i64) -> Transfer {
    [number % ACCOUNTS, (number * 7 + 1) % ACCOUNTS, number + 1]
}

fn topics(engine: &Engine) -> Option<(Topic<Transfer>, Topic<Change>)> {
    let transfers = engine.topic::<Transfer>("transfers").capacity(64).durable().create().ok()?;
    let accounts = crate::accounts::open(engine).ok()?;
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

/// It said that the offset at which it begins was committed.
#[test]
fn who_begins_at_the_latest_events_has_committed_nothing_before_its_first_batch() {
    let disk = SimulatedDisk::new();
    let engine = engine(&disk);
    let (transfers, accounts) = topics(&engine).unwrap();
    let mut producer = transfers.producer().create().unwrap();
    (0..3).for_each(|number| _ = producer.publish(|event| *event = transfer(number)).unwrap());
    let mut bank = transfers.transform("bank").latest().open().unwrap();
    assert_eq!(bank.committed(0), None);
    assert_eq!(engine.transforms()[0].partitions[0].committed, 3, "it begins there");
    producer.publish(|event| *event = transfer(3)).unwrap();
    let mut read = Vec::new();
    bank.step(LONG, |transfer, at, out| {
        read.push(at.offset);
        book(&accounts, at.offset, transfer, out)
    })
    .unwrap();
    assert_eq!((read, bank.committed(0)), (vec![3], Some(4)));
    drop(bank);
    let again = transfers.transform("bank").latest().open().unwrap();
    assert_eq!(again.committed(0), Some(4), "what is committed counts, not the latest event");
}
