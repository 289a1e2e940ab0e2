//! Ends under load: what was accepted is in the journal or named in the report, every reader ends, and none spins.
//! `SLIPRING_ENDS` says how many rounds: 100 unless told, 2,000 as a soak.

use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{Engine, Topic, metrics::Report, subscriber::At};
use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Barrier, mpsc};
use std::time::Duration;

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

fn round(number: usize, end: End, transactions: bool) {
    let what = format!("round {number}, {end:?}, transactions {transactions}");
    let disk = SimulatedDisk::new();
    let engine = open(&disk);
    let ticks = engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
    let mut writers = Vec::new();
    for transactions in [false].into_iter().chain(transactions.then_some(true)) {
        let (engine, ticks) = (engine.clone(), ticks.clone());
        writers.push(std::thread::spawn(move || publish(&engine, &ticks, transactions)));
    }
    let mut replay = ticks.replay("tape").open().unwrap();
    let (tell, told) = mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut last = None;
        let ended = loop {
            match replay.read(LONG, |_, at: At| last = Some(at.offset)) {
                Ok(Some(0)) => break format!("nothing came for {LONG:?} after {last:?}, {replay:?}"),
                Ok(Some(_)) => {
                    let _ = tell.send(());
                }
                Ok(None) => break "all was read".to_owned(),
                Err(refused) => break refused.to_string(),
            }
        };
        (last, ended)
    });
    told.recv_timeout(LONG).expect("something is read");
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
    let (last, ended) = reader.join().unwrap();
    assert!(!ended.contains("nothing came"), "{what}: {ended}\n{report}");
    if matches!(end, End::Deleted) {
        return;
    }
    drop((ticks, engine));
    let engine = open(&disk);
    let ticks = engine.topic::<u64>("ticks").capacity(64).durable().create().unwrap();
    let mut again = BTreeSet::new();
    let mut replay = ticks.replay("again").open().unwrap();
    ticks.close();
    while replay.read(LONG, |_, at| _ = again.insert(at.offset)).unwrap().is_some() {}
    let lost: Vec<u64> = accepted.difference(&again).copied().collect();
    let named: u64 = report.topics[0].consumer("journal").map(|journal| journal.left).sum();
    assert!(lost.len() as u64 <= named, "{what}: lost {lost:?}\n{report}");
    assert!(named == 0 || report.journal.as_ref().is_some_and(Result::is_err), "{what}\n{report}");
    if matches!(end, End::CloseFirst | End::Shutdown) {
        assert!(lost.is_empty(), "{what}: lost {lost:?}\n{report}");
        assert_eq!((ended.as_str(), last), ("all was read", again.last().copied()), "{what}\n{report}");
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
        let before = worked();
        let read = replay.read(Duration::from_secs(2), |_, _| ()).unwrap();
        let spent = worked() - before;
        assert!(spent < Duration::from_millis(400), "{what}: {spent:?} of two seconds");
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
