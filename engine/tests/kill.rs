//! A process that says what was acknowledged, and is killed in the middle: everything that it said is there again.
//!
//! The tests run 50 and 12 rounds. A soak runs as many as asked for:
//! `SLIPRING_KILL_ROUNDS=5000 cargo test --release -p slipring --test kill`.

use slipring::journal::Options;
use slipring::{Engine, Level, Topic};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const DIR: &str = "SLIPRING_KILL_DIR";
const ROUND: &str = "SLIPRING_KILL_ROUND";
const NOW: Duration = Duration::ZERO;

fn open(dir: &std::path::Path) -> Engine {
    // The last process may still be going away.
    for _ in 0..2000 {
        let options = Options { segment_size: 1 << 18, ..Options::default() };
        match Engine::builder().journal(dir).journal_options(options).build() {
            Ok(engine) => return engine,
            Err(slipring::EngineError::Open(slipring::journal::OpenError::Locked { .. })) => {
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

fn chain(engine: &Engine) -> [Topic<u64>; 2] {
    ["orders", "jobs"].map(|name| engine.topic::<u64>(name).partitions(2).capacity(64).durable().create().unwrap())
}

/// Not a test: publishes under a name, passes on with a group's transactions, and works off in a queue. Says what it is about
/// to do and what was done. In the last round it publishes nothing, and ends when nothing is left.
#[test]
#[ignore = "started by the test below"]
fn courier() {
    let dir = std::env::var_os(DIR).expect("started by the test below");
    let is_last = std::env::var(ROUND).unwrap() == "last";
    let engine = open(dir.as_ref());
    let [orders, jobs] = chain(&engine);
    let mut gateway = orders.producer().idempotent("gateway").unwrap();
    let mut members = [0, 1].map(|_| orders.group("pass").limit(5).join().unwrap());
    let queue = jobs.queue("work").visibility(Duration::from_secs(2)).max_attempts(2).acknowledge(Level::Written);
    let mut worker = queue.join().unwrap();
    let mut out = std::io::stdout().lock();
    let mut say = |what: &str, number: u64, attempt: u32| {
        writeln!(out, "{what} {number} {attempt}").unwrap();
        out.flush().unwrap();
    };
    let until = Instant::now() + LONG * 2;
    loop {
        assert!(!is_last || Instant::now() < until, "it finds no end");
        if !is_last {
            let next = gateway.next_sequence().unwrap_or(0);
            gateway.publish_to(next, (next % 2) as u32, |order| *order = next).unwrap();
        }
        for member in &mut members {
            let batch = member.poll(NOW).unwrap().unwrap();
            let mut transaction = engine.transaction().unwrap();
            for (number, at) in &batch {
                transaction.publish_to(&jobs, at.partition, |job| *job = *number).unwrap();
            }
            batch.commit_with(transaction).unwrap();
        }
        while let Some(lease) = worker.receive(NOW).unwrap() {
            let (number, attempt) = (*lease.message(), lease.attempt());
            say("given", number, attempt);
            if number % 10 == 0 {
                // It may be late.
                let _ = lease.nack(NOW, "never");
            } else {
                say("acking", number, attempt);
                if lease.ack().is_ok() {
                    say("acked", number, attempt);
                }
            }
        }
        let queue = worker.queue();
        let left = queue.metrics();
        let lag: u64 = engine.groups().iter().map(slipring::group::GroupDescription::lag).sum();
        if is_last && lag + left.unread + left.leased + left.waiting + left.dying == 0 {
            for letter in queue.dead_letters().map(Result::unwrap) {
                say("dead", u64::from_le_bytes(letter.message.value().try_into().unwrap()), letter.attempts);
            }
            say("over", 0, 0);
            return;
        }
    }
}

/// Everything that is there, each number once and in order.
fn once(topic: &Topic<u64>, about: &str) -> BTreeSet<u64> {
    let (mut there, mut last) = (BTreeSet::new(), BTreeMap::new());
    let mut replay = topic.replay("check").open().unwrap();
    loop {
        let live = replay.is_live();
        let read = replay.read(NOW, |number, at| {
            let before = last.insert(at.partition, *number);
            assert!(before.is_none_or(|before| before < *number), "{about}: {number} comes after {before:?}");
            assert!(there.insert(*number), "{about}: {number} is there twice");
        });
        if read.unwrap() == Some(0) && live {
            return there;
        }
    }
}

#[test]
fn what_a_group_passes_on_and_a_queue_works_off_counts_once_through_kills() {
    let rounds = std::env::var("SLIPRING_KILL_ROUNDS").map_or(12, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    // What children have said.
    let (mut attempts, mut acking, mut acked) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let (mut dead, mut is_over) = (BTreeSet::new(), false);
    for round in 1..=rounds + 1 {
        let is_last = round > rounds;
        let about = if is_last { "last".to_owned() } else { format!("round {round}") };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "courier", "--ignored", "--nocapture"])
            .env(DIR, dir.path())
            .env(ROUND, &about)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let enough = 20 + (round * 7919) % 300;
        let mut seen = 0;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let mut words = line.split(' ');
            let (Some(what), Some(number), Some(attempt)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let (Ok(number), Ok(attempt)) = (number.parse::<u64>(), attempt.parse::<u32>()) else { continue };
            match what {
                "given" => {
                    assert!(!acked.contains(&number), "{about}: {number} was acked, and is given out again");
                    let before = attempts.insert(number, attempt).unwrap_or(0);
                    assert!(before < attempt && attempt <= 2, "{about}: attempt {attempt} of {number} after {before}");
                }
                "acking" => _ = acking.insert(number),
                "acked" => _ = acked.insert(number),
                "dead" => assert!(dead.insert(number), "{number} is a dead letter twice"),
                "over" => is_over = true,
                _ => continue,
            }
            seen += 1;
            if seen == enough && !is_last {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(if is_last { is_over } else { seen >= enough }, "{about}: the child ended by itself");

        let engine = open(dir.path());
        let [orders, jobs] = chain(&engine);
        let (ordered, passed) = (once(&orders, &about), once(&jobs, &about));
        assert!(ordered.iter().copied().eq(0..ordered.len() as u64), "{about}: a sequence is missing");
        assert!(passed.is_subset(&ordered), "{about}: what was passed on has come from nowhere");
        assert!(!is_last || passed == ordered, "not all was passed on");
        assert!(attempts.keys().all(|number| passed.contains(number)), "{about}: what was given out is gone");
        drop((orders, jobs));
        assert!(engine.shutdown(LONG).is_complete());
    }
    assert!(dead.is_disjoint(&acked), "acked and dead");
    // Of what a child was killed at, it may be that it was done.
    let gone: Vec<_> = attempts.keys().filter(|number| !dead.contains(number) && !acking.contains(number)).collect();
    assert!(gone.is_empty(), "neither done nor dead: {gone:?}");
    println!("{rounds} rounds, {} orders, {} acked, {} dead", attempts.len(), acked.len(), dead.len());
}
