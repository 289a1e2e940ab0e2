//! A process that says what was acknowledged, and is killed in the middle: everything that it said is there again.
//!
//! The test runs 50 rounds. A soak runs as many as asked for:
//! `SLIPRING_KILL_ROUNDS=5000 cargo test --release -p slipring --test kill`.

use slipring::journal::Options;
use slipring::{Engine, Level};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const DIR: &str = "SLIPRING_KILL_DIR";
const ROUND: &str = "SLIPRING_KILL_ROUND";

fn open(dir: &std::path::Path) -> Engine {
    // The last process may still be going away.
    for _ in 0..2000 {
        let options = Options { segment_size: 1 << 18, ..Options::default() };
        match Engine::builder().journal(dir).journal_options(options).build() {
            Ok(engine) => return engine,
            Err(slipring::TopicError::Open(slipring::journal::OpenError::Locked { .. })) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the journal stays locked");
}

/// Not a test: what the parent kills.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let dir = std::env::var_os(DIR).expect("started by the test below");
    let round: u64 = std::env::var(ROUND).unwrap().parse().unwrap();
    let engine = open(dir.as_ref());
    let ticks = engine.topic::<u64>("ticks").capacity(256).durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let mut out = std::io::stdout().lock();
    // With one thread for tests their runner has begun a line with the name of this one.
    writeln!(out).unwrap();
    for number in 0.. {
        let value = round * 1_000_000 + number;
        let receipt = producer.publish(|tick| *tick = value).unwrap();
        writeln!(out, "published {} {value}", receipt.offset).unwrap();
        if number % 7 == 0 {
            receipt.wait(Level::Durable).unwrap();
            writeln!(out, "durable {} {value}", receipt.offset).unwrap();
        }
        out.flush().unwrap();
    }
}

#[test]
fn what_was_acknowledged_before_a_kill_is_there_after_it() {
    let rounds = std::env::var("SLIPRING_KILL_ROUNDS").map_or(50, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    // Offset to value: what anybody was told was published, and the highest that was told to be durable.
    let mut said: BTreeMap<u64, u64> = BTreeMap::new();
    let mut durable: Vec<u64> = Vec::new();
    let mut before: Vec<(u64, u64)> = Vec::new();
    for round in 1..=rounds {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Somewhere in the middle, a little further each time.
        let enough = 20 + (round * 7919) % 400;
        let mut seen = 0;
        for line in lines {
            let line = line.unwrap();
            let mut words = line.split(' ');
            let (Some(what), Some(offset), Some(value)) = (words.next(), words.next(), words.next()) else { continue };
            let (Ok(offset), Ok(value)) = (offset.parse(), value.parse()) else { continue };
            if what == "published" {
                let other = said.insert(offset, value);
                assert_eq!(other, None, "round {round}: offset {offset} was issued before");
            } else if what == "durable" {
                durable.push(offset);
            }
            seen += 1;
            if seen == enough {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(seen >= enough, "round {round}: the child ended by itself");

        let engine = open(dir.path());
        let ticks = engine.topic::<u64>("ticks").capacity(256).durable().create().unwrap();
        let mut replay = ticks.replay("check").open().unwrap();
        let mut found = Vec::new();
        while replay.read(Duration::ZERO, |value, at| found.push((at.offset, *value))).unwrap() != Some(0) {}
        assert!(found.starts_with(&before), "round {round}: what was there once stays");
        assert!(found.is_sorted_by(|one, next| one.0 < next.0), "round {round}: in order, and none twice");
        let there: BTreeMap<u64, u64> = found.iter().copied().collect();
        for offset in &durable {
            assert_eq!(there.get(offset), said.get(offset), "round {round}: offset {offset} was acknowledged");
        }
        for (offset, value) in &there {
            assert!(said.get(offset).is_none_or(|said| said == value), "round {round}: a wrong value at {offset}");
        }
        // What was published and not told yet must not be told of another event later.
        said.extend(there);
        before = found;
        drop(replay);
        assert!(engine.shutdown(LONG).is_complete());
    }
    println!("{rounds} rounds, {} acknowledged, {} recovered", durable.len(), before.len());
}
