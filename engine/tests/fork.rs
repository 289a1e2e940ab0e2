//! A program that forks while it has an engine: the child has its files and locks, and none of its threads.
#![cfg(unix)]

use fork::{Fork, fork};
use slipring::journal::storage::Disk;
use slipring::journal::{FrameBuilder, OpenError, Options, PartitionId, open};
use slipring::{Engine, EngineError, Level, Message, Record, topic::Overflow};
use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
            // A child that waits for a thread of its parent would keep the parent waiting too.
            std::thread::spawn(|| {
                std::thread::sleep(LONG);
                eprintln!("the child does not come to its end");
                std::process::exit(9);
            });
            let outcome = catch_unwind(AssertUnwindSafe(child));
            std::process::exit(i32::from(outcome.is_err()));
        }
        Fork::Parent(pid) => is_over(pid),
    }
}

/// Waits until the child has ended, well.
fn is_over(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(0), "the child has failed");
}

/// What an error in a child says of its parent.
fn parent() -> String {
    format!("a fork of process {},", std::os::unix::process::parent_id())
}

/// A child that does only this is refused, by an error that names its parent.
fn refused<T, E: std::fmt::Display>(what: &str, attempt: impl FnOnce() -> Result<T, E>) {
    forked(|| match attempt() {
        Ok(_) => panic!("{what}: it was accepted in a child"),
        Err(refused) => assert!(refused.to_string().contains(&parent()), "{what}: {refused}"),
    });
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
        let is_told = |said: String| assert!(said.contains(&parent()), "{said}");
        assert_eq!(first.wait(Level::Durable).unwrap(), Level::Durable, "that was known before");
        // There is room, and nobody who would write it.
        is_told(producer.publish(|tick| *tick = 7).unwrap_err().to_string());
        is_told(producer.try_publish(|tick| *tick = 7).unwrap_err().to_string());
        is_told(producer.publish_batch(2, |_, tick| *tick = 7).unwrap_err().to_string());
        let rejected = producer.offer(9).unwrap_err();
        assert_eq!(rejected.value, 9);
        is_told(rejected.to_string());
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

/// What a program may hold when it forks. Each use is of a child of its own, which has done nothing else before.
#[test]
#[ignore = "started by the test below"]
fn uses() {
    let soon = Duration::from_millis(20);
    let engine = Engine::open(dir()).unwrap();
    let numbers = |name: &str| engine.topic::<u64>(name).capacity(64).durable();
    let texts = |name: &str| engine.topic::<Message>(name).capacity(64).max_message(64).durable();
    let ticks = numbers("ticks").create().unwrap();
    let only = numbers("only").single_producer().create().unwrap();
    let jobs = texts("jobs").partitions(2).create().unwrap();
    let mut only = only.producer().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    let mut named = ticks.producer().idempotent("gateway").unwrap();
    let lingering = jobs.producer().linger(Duration::from_secs(3600), 9).create().unwrap();
    let mut sending = jobs.producer().create().unwrap();
    let mut fails = texts("fails").overflow(Overflow::Fail).create().unwrap().producer().create().unwrap();
    let mut drops = texts("drops").overflow(Overflow::DropNewest).create().unwrap().producer().create().unwrap();
    let mut reader = ticks.subscribe("reader").poll().unwrap();
    producer.publish_batch(4, |index, tick| *tick = index as u64).unwrap();
    (0..4).for_each(|_| _ = sending.send(Record::new("job")).unwrap());
    let mut replay = ticks.replay("tape").open().unwrap();
    assert_eq!(replay.read(LONG, |_, _| ()).unwrap(), Some(4));
    let mut member = ticks.group("sums").join().unwrap();
    drop(member.poll(LONG).unwrap().expect("it comes again"));
    let mut worker = jobs.queue("work").acknowledge(Level::Durable).join().unwrap();
    let mut lease = Some(worker.receive(LONG).unwrap().unwrap());
    let mut copy = ticks.transform("copy").open().unwrap();
    let mut transaction = Some(engine.transaction().unwrap());
    transaction.as_mut().unwrap().publish(&ticks, |tick| *tick = 7).unwrap();

    // There is room, and nobody who would write the event.
    refused("publish", || producer.publish(|_| ()));
    refused("publish by trying", || producer.try_publish(|_| ()));
    refused("publish to", || producer.publish_to(0, |_| ()));
    refused("publish until", || producer.publish_until(Instant::now() + soon, |_| ()));
    refused("publish a batch", || producer.publish_batch(2, |_, _| ()));
    refused("offer", || producer.offer(9).inspect_err(|rejected| assert_eq!(rejected.value, 9)));
    refused("publish by the only producer", || only.publish(|_| ()));
    refused("publish a batch by the only producer", || only.publish_batch(2, |_, _| ()));
    refused("publish under a name", || named.publish(0, |_| ()));
    refused("send", || sending.send(Record::new("a").partition(1)));
    refused("send where a full topic refuses", || fails.send(Record::new("a")));
    refused("send where a full topic drops", || drops.send(Record::new("a")));
    refused("gather", || lingering.send(Record::new("a")).map(drop).and_then(|()| lingering.flush()));
    refused("commit a transaction", || transaction.take().unwrap().commit());
    refused("publish in a transaction", || {
        let mut out = engine.transaction().unwrap();
        (0..3).try_for_each(|_| out.publish(&ticks, |_| ())).and_then(|()| out.commit().map(drop))
    });
    refused("a producer", || ticks.producer().idempotent("other"));
    refused("read", || reader.poll(soon).map(drop));
    refused("subscribe", || ticks.subscribe("late").poll());
    refused("subscribe with a thread", || ticks.subscribe("late").run(|_, _| Ok::<_, Infallible>(())));
    refused("replay", || replay.read(soon, |_, _| ()));
    // What the journal had at the fork can be read, and then the end is told.
    refused("open a replay", || {
        let mut late = ticks.replay("late").open()?;
        (0..9).try_for_each(|_| late.read(soon, |_, _| ()).map(drop))
    });
    refused("poll as a member", || member.poll(soon).map(drop));
    refused("join a group", || ticks.group("late").join());
    refused("ack", || lease.take().unwrap().ack());
    refused("receive", || worker.receive(soon).map(drop));
    refused("join a queue", || jobs.queue("late").join());
    refused("transform", || copy.step(soon, |_, _, _| Ok::<_, Infallible>(())));
    refused("open a transform", || {
        ticks.transform("late").open().and_then(|mut late| late.step(soon, |_, _, _| Ok::<_, Infallible>(())))
    });
    refused("create a topic", || numbers("late").create());
    refused("add partitions", || jobs.add_partitions(1));
    refused("delete a topic", || engine.delete_forced("only"));
    // A batch and a claim that are out while the process forks.
    let mut batch = Some(member.poll(LONG).unwrap().unwrap());
    refused("commit a batch", || batch.take().unwrap().commit_durable());
    drop(batch);
    let mut is_child = false;
    let published = producer.publish(|tick| {
        *tick = 4;
        is_child = match fork().unwrap() {
            Fork::Child => true,
            Fork::Parent(pid) => {
                is_over(pid);
                false
            }
        };
    });
    if is_child {
        let said = published.unwrap_err().to_string();
        std::process::exit(i32::from(!said.contains(&parent())));
    }
    assert_eq!(published.unwrap().offset, 4);

    // The parent has noticed nothing.
    lease.take().unwrap().ack().unwrap();
    lingering.flush().unwrap();
    transaction.take().unwrap().commit().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.extend((&mut reader.poll(LONG).unwrap().unwrap()).into_iter().map(|(tick, _)| *tick));
    }
    assert_eq!(seen, [0, 1, 2, 3, 4, 7]);
    assert!(matches!(engine.shutdown(LONG).journal, Some(Ok(()))));
}

#[test]
fn whatever_a_child_does_with_a_durable_topic_is_refused_at_once() {
    alone("uses");
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
