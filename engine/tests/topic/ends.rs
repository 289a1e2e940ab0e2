//! Ends under load: what was accepted is in the journal or named in the report, every reader ends, and none spins.
//! `SLIPRING_ENDS` says how many rounds: 100 unless told, 2,000 as a soak.

use crate::sleeps::sleeps;
use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, Subscriber, Topic,
    journal::Visible,
    metrics::Report,
    replay::ReplayError,
    subscriber::{At, ReadError},
};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);

fn open(disk: &SimulatedDisk) -> Engine {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap()
}

#[derive(Clone, Copy, Debug)]
enum End {
    CloseFirst,
    Shutdown,
    AtOnce,
    Deleted,
}

/// Publishes until it is refused; the offsets that were accepted.
fn publish(engine: &Engine, ticks: &Topic<u64>, transactions: bool) -> BTreeSet<u64> {
    let mut accepted = BTreeSet::new();
    if transactions {
        while let Ok(mut out) = engine.transaction() {
            if out.publish(ticks, |tick| *tick = 1).and_then(|()| out.publish(ticks, |tick| *tick = 2)).is_err() {
                break;
            }
            match out.commit() {
                Ok(committed) => {
                    accepted.extend(committed.iter().flat_map(|run| run.first..run.first + run.len as u64));
                }
                Err(refused) if refused.is_full() => {}
                Err(_) => break,
            }
        }
    } else if let Ok(mut producer) = ticks.producer().create() {
        while let Ok(receipt) = producer.publish(|tick| *tick = 7) {
            accepted.insert(receipt.offset);
        }
    }
    accepted
}

/// A thread that reads to the end: the offsets that it has read, in order, and how it ended.
struct Reading {
    what: &'static str,
    thread: JoinHandle<(Vec<u64>, String)>,
}

impl Reading {
    /// `read` gives the offsets of one call to a callback: none where the topic has ended, with an error where it was refused.
    fn start<R, X: Display>(
        what: &'static str,
        mut reader: R,
        read: impl FnMut(&mut R, &mut Vec<u64>) -> Result<bool, X> + Send + 'static,
    ) -> Self
    where
        R: Send + 'static,
    {
        let mut read = read;
        let thread = std::thread::spawn(move || {
            let mut offsets = Vec::new();
            let ended = loop {
                let (before, begun) = (offsets.len(), Instant::now());
                match read(&mut reader, &mut offsets) {
                    // A member may come back at once, to be told what it is given.
                    Ok(true) if offsets.len() == before && begun.elapsed() >= LONG => break NOTHING.to_owned(),
                    Ok(true) => {}
                    Ok(false) => break ALL.to_owned(),
                    Err(refused) => break refused.to_string(),
                }
            };
            (offsets, ended)
        });
        Self { what, thread }
    }
}

const ALL: &str = "all was read";
const NOTHING: &str = "nothing came for long";

/// Everybody who can read a durable topic: a replay, a member, and subscribers of what is published and of what is durable.
fn readers(ticks: &Topic<u64>) -> [Reading; 4] {
    let replay = ticks.replay("tape").open().unwrap();
    let member = ticks.group("sums").join().unwrap();
    let published = ticks.subscribe("published").poll().unwrap();
    let durable = ticks.subscribe("durable").visible(Visible::Durable).poll().unwrap();
    let poll = |reader: &mut Subscriber<u64>, offsets: &mut Vec<u64>| {
        let Some(mut batch) = reader.poll(LONG)? else { return Ok::<_, ReadError>(false) };
        offsets.extend((&mut batch).into_iter().map(|(_, at)| at.offset));
        Ok(true)
    };
    [
        Reading::start("replay", replay, |replay, offsets| {
            let read = replay.read(LONG, |_, at: At| offsets.push(at.offset))?;
            Ok::<_, ReplayError>(read.is_some())
        }),
        Reading::start("member", member, |member, offsets| {
            let Some(batch) = member.poll(LONG).map_err(|refused| refused.to_string())? else { return Ok(false) };
            let read: Vec<_> = batch.iter().map(|(_, at)| at.offset).collect();
            batch.commit().map_err(|refused| refused.to_string())?;
            offsets.extend(read);
            Ok::<_, String>(true)
        }),
        Reading::start("subscriber", published, poll),
        Reading::start("subscriber of durable events", durable, poll),
    ]
}

/// All that is recorded of a topic, in order.
fn recorded(topic: &Topic<u64>) -> Vec<(u64, u64)> {
    let (mut all, mut replay) = (Vec::new(), topic.replay("again").open().unwrap());
    topic.close();
    while replay.read(LONG, |event, at| all.push((at.offset, *event))).unwrap().is_some() {}
    all
}

fn round(number: usize, end: End, transactions: bool) {
    let what = format!("round {number}, {end:?}, transactions {transactions}");
    let disk = SimulatedDisk::new();
    let engine = open(&disk);
    let topics = |engine: &Engine| {
        ["ticks", "copies"].map(|name| engine.topic::<u64>(name).capacity(64).durable().create().unwrap())
    };
    let [ticks, copies] = topics(&engine);
    let copying = ticks.transform("copying").open().unwrap();
    let copying = copying.run(copies.clone(), |_, at, out| out.publish(|copy| *copy = at.offset)).unwrap();
    let readings = readers(&ticks);
    let mut last = ticks.replay("first").open().unwrap();
    let mut writers = Vec::new();
    for transactions in [false].into_iter().chain(transactions.then_some(true)) {
        let (engine, ticks) = (engine.clone(), ticks.clone());
        writers.push(std::thread::spawn(move || publish(&engine, &ticks, transactions)));
    }
    assert!(last.read(LONG, |_, _| ()).unwrap() > Some(0), "{what}: something is read");
    drop(last);
    let report: Report = match end {
        End::CloseFirst => {
            ticks.close();
            engine.shutdown(Duration::from_secs(5))
        }
        End::Shutdown => engine.shutdown(Duration::from_secs(5)),
        End::AtOnce => engine.shutdown(Duration::ZERO),
        End::Deleted => {
            engine.delete_forced("ticks").unwrap();
            engine.shutdown(Duration::from_secs(5))
        }
    };
    let accepted: BTreeSet<u64> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
    let readings = readings.map(|Reading { what: reader, thread }| {
        let (offsets, ended) = thread.join().unwrap();
        assert_ne!(ended, NOTHING, "{what}: the {reader} after {:?}\n{report}", offsets.last());
        (reader, offsets, ended)
    });
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || tell.send(copying.wait()));
    let copying = told.recv_timeout(LONG).unwrap_or_else(|_| panic!("{what}: the transform has no end\n{report}"));
    drop((ticks, copies));
    if matches!(end, End::Deleted) {
        return;
    }
    drop(engine);
    let engine = open(&disk);
    let [ticks, copies] = topics(&engine);
    let again: Vec<u64> = recorded(&ticks).into_iter().map(|(offset, _)| offset).collect();
    let there: BTreeSet<u64> = again.iter().copied().collect();
    let lost: Vec<u64> = accepted.difference(&there).copied().collect();
    let journal =
        report.topics.iter().filter(|topic| topic.name == "ticks").flat_map(|topic| topic.consumer("journal"));
    let named: Vec<_> =
        journal.filter(|journal| journal.left > 0).map(|journal| (journal.consumed, journal.left)).collect();
    let is_named = |offset: &u64| named.iter().any(|(consumed, _)| offset >= consumed);
    let left: u64 = named.iter().map(|(_, left)| left).sum();
    assert!(lost.iter().all(is_named) && lost.len() as u64 <= left, "{what}: lost {lost:?}\n{report}");
    assert!(left == 0 || report.journal.as_ref().is_some_and(Result::is_err), "{what}\n{report}");
    // Each event once, in order, to whoever reads and to what the transform has made of them.
    let copied: Vec<u64> = recorded(&copies).into_iter().map(|(_, copy)| copy).collect();
    assert!(again.starts_with(&copied), "{what}: {copying:?} {copied:?} of {again:?}\n{report}");
    for (reader, offsets, ended) in &readings {
        assert!(
            again.starts_with(offsets) || left > 0 && offsets.starts_with(&again),
            "{what}: the {reader} {offsets:?} of {again:?}\n{report}"
        );
        if *reader == "replay" && !matches!(end, End::AtOnce) {
            assert_eq!((ended.as_str(), offsets), (ALL, &again), "{what}\n{report}");
        }
        // A replay has no name, so no report counts what it has not read.
        let is_unnamed = *reader == "replay" && matches!(end, End::AtOnce);
        // Whoever is halted when it has read all is told so, and the report has nothing to say of it.
        let is_read = *offsets == again && (ended == ALL || matches!(end, End::AtOnce));
        assert!(
            is_unnamed || !report.is_complete() || is_read,
            "{what}: the {reader} {ended} {offsets:?} of {again:?}\n{report}"
        );
    }
    assert!(!report.is_complete() || copied == again, "{what}: {copying:?} {copied:?} of {again:?}\n{report}");
    if matches!(end, End::CloseFirst | End::Shutdown) {
        assert!(lost.is_empty(), "{what}: lost {lost:?}\n{report}");
    }
}

/// In a fifth of such rounds a replay once gave nothing for ever, at full speed; and up to a hundred events whose publish had
/// returned Ok were neither in the journal nor in the report.
#[test]
fn whatever_ends_under_load_is_in_the_journal_or_in_the_report_and_every_reader_ends() {
    let rounds = std::env::var("SLIPRING_ENDS").map_or(100, |rounds| rounds.parse().unwrap());
    for number in 0..rounds {
        let end = [End::CloseFirst, End::Shutdown, End::AtOnce, End::Deleted][number % 4];
        round(number, end, number / 4 % 2 == 1);
    }
}

/// The time that the calling thread has had on a core.
#[cfg(target_os = "linux")]
fn worked() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap())
}

/// It once looked again without a pause for as long as a claim was out in a closed topic.
#[cfg(target_os = "linux")]
#[test]
fn a_replay_of_an_idle_or_an_ending_topic_sleeps() {
    let engine = open(&SimulatedDisk::new());
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    producer.publish(|_| ()).unwrap();
    let mut replay = ticks.replay("tape").open().unwrap();
    assert_eq!(replay.read(LONG, |_, _| ()).unwrap(), Some(1));
    let mut nap = |what: &str| {
        let before = (worked(), sleeps());
        let read = replay.read(Duration::from_secs(2), |_, _| ()).unwrap();
        let (spent, looks) = (worked() - before.0, sleeps() - before.1);
        assert!(spent < Duration::from_millis(400), "{what}: {spent:?} of two seconds");
        // Between two sleeps there is a look.
        assert!(looks <= 200, "{what}: {looks} looks in two seconds");
        read
    };
    assert_eq!(nap("idle"), Some(0));
    let (go, waits) = mpsc::channel::<()>();
    let (tell, begun) = mpsc::channel();
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let writer = std::thread::spawn(move || {
        let published = producer.publish(|_| {
            tell.send(()).unwrap();
            let _ = waits.recv();
        });
        is_over.store(true, SeqCst);
        published.is_ok()
    });
    begun.recv().unwrap();
    ticks.close();
    // A claim that is out may still be committed, and is waited for.
    assert_eq!(nap("ending"), Some(0));
    assert!(!over.load(SeqCst));
    go.send(()).unwrap();
    let published = writer.join().unwrap();
    let mut read = 0;
    while replay.read(LONG, |_, _| read += 1).unwrap().is_some() {}
    assert!(published && read == 1, "{published}, {read}");
    engine.shutdown(LONG);
}

/// Says when a shutdown without a limit has come back, on whatever thread it was called.
type Told = std::sync::mpsc::Sender<()>;

fn numbers(engine: &Engine, name: &str) -> Topic<u64> {
    engine.topic(name).capacity(8).durable().create().unwrap()
}

fn publish_three(topic: &Topic<u64>) {
    topic.producer().create().unwrap().publish_batch(3, |index, event| *event = index as u64).unwrap();
}

/// A handler's body: shuts down without a limit, and tells.
fn shuts_down(engine: &Arc<Engine>, told: &Told) -> impl FnMut() -> Result<(), Infallible> + Send + 'static {
    let (engine, told) = (Arc::clone(engine), told.clone());
    move || {
        engine.shutdown(Duration::MAX);
        let _ = told.send(());
        Ok(())
    }
}

fn in_a_subscriber(engine: &Arc<Engine>, told: &Told) {
    let (topic, mut shut) = (numbers(engine, "t"), shuts_down(engine, told));
    topic.subscribe("s").run(move |_, _| shut()).unwrap();
    publish_three(&topic);
}

fn in_a_member(engine: &Arc<Engine>, told: &Told) {
    let (topic, mut shut) = (numbers(engine, "t"), shuts_down(engine, told));
    topic.group("g").run(move |_, _| shut()).unwrap();
    publish_three(&topic);
}

fn in_a_transform(engine: &Arc<Engine>, told: &Told) {
    let (topic, output, mut shut) = (numbers(engine, "t"), numbers(engine, "out"), shuts_down(engine, told));
    publish_three(&topic);
    topic.transform("f").open().unwrap().run(output, move |_, _, _| shut()).unwrap();
}

fn with_a_batch(engine: &Arc<Engine>, told: &Told) {
    let (topic, mut shut) = (numbers(engine, "t"), shuts_down(engine, told));
    let mut reader = topic.subscribe("s").limit(1).poll().unwrap();
    publish_three(&topic);
    std::thread::spawn(move || {
        let batch = reader.poll(LONG).unwrap().unwrap();
        shut().unwrap();
        drop(batch);
    });
}

/// Each is in its handler when both shut down.
fn in_two_handlers(engine: &Arc<Engine>, told: &Told) {
    let both = Arc::new(Barrier::new(2));
    for name in ["a", "b"] {
        let (topic, mut shut, both) = (numbers(engine, name), shuts_down(engine, told), Arc::clone(&both));
        let mut first = true;
        let handle = move |_: &u64, _| {
            if std::mem::take(&mut first) {
                both.wait();
                return shut();
            }
            Ok(())
        };
        topic.subscribe("s").run(handle).unwrap();
        publish_three(&topic);
    }
}

/// It waited for the batch that its own caller had in hand: until the limit had passed, and without a limit for ever.
#[test]
fn a_shutdown_in_a_handler_or_with_a_batch_in_hand_waits_for_nobody_who_waits_for_it() {
    type Case = fn(&Arc<Engine>, &Told);
    let cases: [(&str, Case, usize); 5] = [
        ("subscriber", in_a_subscriber, 1),
        ("member", in_a_member, 1),
        ("transform", in_a_transform, 1),
        ("batch", with_a_batch, 1),
        ("two handlers", in_two_handlers, 2),
    ];
    for (name, case, ends) in cases {
        let engine = Arc::new(Engine::builder().journal_in(SimulatedDisk::new()).build().unwrap());
        let (told, hears) = std::sync::mpsc::channel();
        case(&engine, &told);
        for _ in 0..ends {
            hears.recv_timeout(LONG).unwrap_or_else(|_| panic!("{name}: a shutdown does not come back"));
        }
    }
}
