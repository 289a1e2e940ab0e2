//! A program that forks while it has an engine: the child has its files and locks, and none of its threads.
#![cfg(unix)]

use fork::{Fork, fork};
use slipring::journal::storage::Disk;
use slipring::journal::{FrameBuilder, OpenError, Options, PartitionId, open};
use slipring::{Engine, EngineError, Level};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);
const DIR: &str = "SLIPRING_FORK_DIR";

/// Runs a test that is no test by itself in a process of its own: a fork of this one would have the locks of other tests.
fn alone(name: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--ignored", "--nocapture", "--test-threads", "1"]).env(DIR, folder.path());
    let ended = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ended.status.success(), "{}\n{}", text(&ended.stdout), text(&ended.stderr));
}

/// What the child does; the parent goes on when it has ended, and ended well.
fn forked(child: impl FnOnce()) {
    match fork().unwrap() {
        Fork::Child => {
            let outcome = catch_unwind(AssertUnwindSafe(child));
            std::process::exit(i32::from(outcome.is_err()));
        }
        Fork::Parent(pid) => {
            let pid = rustix::process::Pid::from_raw(pid).unwrap();
            let (_, status) =
                rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(0), "the child has failed");
        }
    }
}

fn dir() -> PathBuf {
    PathBuf::from(std::env::var_os(DIR).expect("started by another test")).join("journal")
}

fn is_locked(dir: &Path) -> bool {
    matches!(open(Arc::new(Disk::new(dir)), Options::default()), Err(OpenError::Locked { .. }))
}

#[test]
#[ignore = "started by the test below"]
fn engine() {
    let dir = dir();
    let engine = Engine::open(&dir).unwrap();
    let ticks = engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let first = producer.publish(|tick| *tick = 1).unwrap();
    first.wait(Level::Durable).unwrap();
    let mut all = Some((engine, ticks, producer));
    forked(|| {
        let (engine, ticks, mut producer) = all.take().unwrap();
        let parent = format!("a fork of process {}", std::os::unix::process::parent_id());
        let is_told = |said: String| assert!(said.contains(&parent), "{said}");
        assert_eq!(first.wait(Level::Durable).unwrap(), Level::Durable, "that was known before");
        let mut last = Ok(first);
        // As many as there is room for; nobody makes room.
        for value in 0..100 {
            last = producer.publish(|tick| *tick = value);
            if let Ok(receipt) = &last {
                is_told(receipt.wait(Level::Durable).unwrap_err().to_string());
                is_told(receipt.wait_until(Level::Written, None).unwrap_err().to_string());
            }
        }
        is_told(last.unwrap_err().to_string());
        is_told(engine.topic::<u64>("others").durable().create().unwrap_err().to_string());
        is_told(engine.shutdown(Duration::from_millis(100)).journal.unwrap().unwrap_err());
        drop((engine, ticks, producer));
        assert!(is_locked(&dir), "the child has given up the parent's lock");
    });
    assert!(is_locked(&dir), "the child has given up the parent's lock");
    let (engine, ticks, mut producer) = all.unwrap();
    producer.publish(|tick| *tick = 2).unwrap().wait(Level::Durable).unwrap();
    drop(producer);
    assert!(engine.shutdown(LONG).is_complete());
    drop((engine, ticks));
    let engine = Engine::open(&dir).unwrap();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut tape = ticks.replay("tape").open().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        tape.read(LONG, |tick, _| seen.push(*tick)).unwrap();
    }
    assert_eq!(seen, [1, 2]);
    // A child of its own may have another journal.
    forked(|| {
        let own = Engine::open(dir.with_file_name("own")).unwrap();
        let ticks = own.topic::<u64>("ticks").durable().create().unwrap();
        ticks.producer().create().unwrap().publish(|tick| *tick = 3).unwrap().wait(Level::Durable).unwrap();
        let refused = Engine::open(&dir).map(drop).unwrap_err();
        assert!(matches!(refused, EngineError::Open(OpenError::Locked { .. })), "{refused}");
    });
}

#[test]
fn a_child_is_told_whose_journal_it_is_and_leaves_it_alone() {
    alone("engine");
}

#[test]
#[ignore = "started by the test below"]
fn writer() {
    let dir = dir();
    let (mut writer, _) =
        open(Arc::new(Disk::new(&dir)), Options { segment_size: 1 << 16, ..Options::default() }).unwrap();
    let frame = |offset: u64| {
        let mut frame = FrameBuilder::new();
        frame.record(PartitionId { topic: 1, partition: 0 }, offset, None, b"record");
        frame
    };
    writer.append(&mut frame(0), 1).unwrap();
    let mut writer = Some(writer);
    forked(|| {
        let mut writer = writer.take().unwrap();
        let refused = writer.append(&mut frame(1), 1).unwrap_err().to_string();
        assert!(refused.contains("a fork of process"), "{refused}");
        assert!(writer.sync().is_err() && writer.close(1).is_err());
        assert!(is_locked(&dir));
    });
    assert!(is_locked(&dir), "the child has given up the parent's lock");
    let mut writer = writer.unwrap();
    writer.append(&mut frame(1), 1).unwrap();
    writer.close(2).unwrap();
    let (_writer, recovered) = open(Arc::new(Disk::new(&dir)), Options::default()).unwrap();
    assert_eq!(recovered.state.extent(PartitionId { topic: 1, partition: 0 }).unwrap().end, 2);
}

#[test]
fn a_child_that_drops_its_copy_gives_up_nothing() {
    alone("writer");
}
