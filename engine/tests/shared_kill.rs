//! A producer, an engine and a consumer, each a process that is killed again and again. The engine has a durable topic that
//! is fed from the producer's ring, and shares it to the consumer's ring. The consumer gets each number once and in order.
//!
//! The test kills 30 times, a soak as often as asked for:
//! `SLIPRING_LINK_KILLS=2000 cargo test -p slipring --test shared_kill`.
#![cfg(target_os = "linux")]

use slipring::share::{SharedRing, Size};
use slipring::{Engine, EngineError, journal};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);
const WHAT: &str = "SLIPRING_LINK_WHAT";
const RINGS: &str = "SLIPRING_LINK_RINGS";
const DIR: &str = "SLIPRING_LINK_DIR";
const ROLES: [&str; 3] = ["produce", "hand on", "consume"];

fn names(prefix: &str) -> (String, String) {
    (format!("{prefix}-in"), format!("{prefix}-out"))
}

/// An engine whose topic is fed from the first ring and shared to the second.
fn hand_on(dir: &Path, prefix: &str) -> (Engine, slipring::share::RingLink, slipring::share::RingLink) {
    let (from, to) = names(prefix);
    let opened = Instant::now();
    // The last process may still be going away, with its locks.
    let engine = loop {
        let options = journal::Options { segment_size: 1 << 18, ..journal::Options::default() };
        match Engine::builder().journal(dir).journal_options(options).build() {
            Ok(engine) => break engine,
            Err(EngineError::Open(journal::OpenError::Locked { .. })) => std::thread::sleep(Duration::from_millis(2)),
            Err(other) => panic!("{other}"),
        }
        assert!(opened.elapsed() < LONG);
    };
    let numbers = engine.topic::<u64>("numbers").capacity(64).durable().create().unwrap();
    let fed = loop {
        match numbers.feed_from(&*from).batch(7).open() {
            Ok(link) => break link,
            Err(refused) => assert!(opened.elapsed() < LONG, "{refused}"),
        }
    };
    let shared = loop {
        match numbers.share(&*to).hold(["consumer"]).open() {
            Ok(link) => break link,
            Err(refused) => assert!(opened.elapsed() < LONG, "{refused}"),
        }
    };
    (engine, fed, shared)
}

/// Asserts that each number follows the last one, which the consumer keeps as its note.
fn consume(prefix: &str, until: u64) {
    let ring = SharedRing::<u64>::open(&names(prefix).1).unwrap();
    let joined = Instant::now();
    let mut consumer = loop {
        match ring.consumer("consumer").hold().join() {
            Ok(consumer) => break consumer,
            Err(refused) => assert!(joined.elapsed() < LONG, "{refused}"),
        }
    };
    let mut next = consumer.note().unwrap_or(0);
    while next < until {
        // The engine may be dead for a while.
        let Ok(mut batch) = consumer.poll_wait(5) else { continue };
        for (_, number) in &mut batch {
            assert_eq!(*number, next);
            next += 1;
        }
        batch.commit_noted(next);
    }
}

/// Not a test: what the test starts and kills.
#[test]
#[ignore = "started by the test below"]
fn child() {
    let prefix = std::env::var(RINGS).expect("started by the test below");
    // Whoever is left alone ends: the parent holds the other end.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    match &*std::env::var(WHAT).unwrap() {
        "produce" => {
            let ring = SharedRing::<u64>::open(&names(&prefix).0).unwrap();
            let started = Instant::now();
            let mut out = loop {
                match ring.producer() {
                    Ok(out) => break out,
                    Err(refused) => assert!(started.elapsed() < LONG, "{refused}"),
                }
            };
            let mut next = out.note().unwrap_or(0);
            loop {
                let len = 1 + next as usize % 3;
                let mut claim = out.claim(len).unwrap();
                for (_, number) in claim.iter_mut() {
                    *number = next;
                    next += 1;
                }
                claim.commit_noted(next).unwrap();
            }
        }
        "hand on" => {
            let dir = std::env::var_os(DIR).unwrap();
            let (_engine, fed, shared) = hand_on(Path::new(&dir), &prefix);
            println!("{:?} {:?}", fed.wait(), shared.wait());
            panic!("a link has ended");
        }
        "consume" => consume(&prefix, u64::MAX),
        other => panic!("{other}"),
    }
}

struct Role {
    child: Child,
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start(role: &str, dir: &Path, prefix: &str) -> Role {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture"])
        .env(WHAT, role)
        .env(DIR, dir)
        .env(RINGS, prefix)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Role { child }
}

#[test]
fn each_number_comes_once_through_an_engine_whichever_process_is_killed() {
    let kills = std::env::var("SLIPRING_LINK_KILLS").map_or(30, |kills| kills.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let prefix = format!("kill-{}", std::process::id());
    let (from, to) = names(&prefix);
    // Removed at the end, also of a test that fails.
    let _rings = [Removed(from.clone()), Removed(to.clone())];
    // Whoever reads is held for from the beginning, whichever process is the first.
    let into = SharedRing::<u64>::create(&from, 32).unwrap();
    drop(into.consumer("numbers").hold().join().unwrap());
    let out = SharedRing::<u64>::create(&to, Size::slots(16)).unwrap();
    drop(out.consumer("consumer").hold().join().unwrap());
    let mut roles: Vec<Role> = ROLES.iter().map(|role| start(role, dir.path(), &prefix)).collect();
    let mut random = fastrand::Rng::with_seed(11);
    let consumed = || {
        let participants = out.participants();
        participants.iter().find_map(|it| it.position).map_or(0, |position| position.0)
    };
    for kill in 0..kills {
        // Until something more came through all three, and then at any instruction.
        let (before, started) = (consumed(), Instant::now());
        while consumed() < before + 1 + random.u64(0..40) {
            for (role, running) in ROLES.iter().zip(&mut roles) {
                assert_eq!(running.child.try_wait().unwrap(), None, "kill {kill}: {role} ended by itself");
            }
            assert!(started.elapsed() < LONG, "kill {kill}: nothing came through");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_micros(random.u64(0..3000)));
        let which = [0, 1, 1, 2][random.usize(0..4)];
        roles[which].child.kill().unwrap();
        roles[which].child.wait().unwrap();
        roles[which] = start(ROLES[which], dir.path(), &prefix);
    }
    drop(roles);
    let ring = SharedRing::<u64>::open(&from).unwrap();
    let last = ring.producer().unwrap().note().unwrap();
    let (engine, fed, shared) = hand_on(dir.path(), &prefix);
    consume(&prefix, last);
    assert!(engine.shutdown(LONG).is_complete());
    println!("{kills} kills, {last} numbers; {fed:?}, {shared:?}");
}

struct Removed(String);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = SharedRing::<u64>::remove_forced(&self.0);
    }
}
