//! Transactions whose frame the journal has been given when a shutdown's limit passes: nothing of them is lost in
//! silence, whenever the disk answers.

use crate::soon::{LONG, soon};
use slipring::journal::simulated::SimulatedDisk;
use slipring::metrics::Report;
use slipring::producer::PublishError;
use slipring::subscriber::At;
use slipring::topic::{Closed, Unreadable};
use slipring::transaction::TransactionError;
use slipring::transform::TransformError;
use slipring::{Engine, Level, Persist, Topic};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What comes to the thread that commits.
type Outcome = Result<(), TransactionError>;

/// Prepares a commit of the value 2 into the topic, before syncs are held; the returned function commits.
type Prepare = fn(&Engine, &Topic<u64>) -> Box<dyn FnOnce() -> Outcome + Send>;

fn plain(engine: &Engine, ticks: &Topic<u64>) -> Box<dyn FnOnce() -> Outcome + Send> {
    let mut transaction = engine.transaction().unwrap();
    transaction.publish(ticks, |tick| *tick = 2).unwrap();
    Box::new(move || transaction.commit().map(drop))
}

/// A topic with one event.
fn input(engine: &Engine) -> Topic<u64> {
    let input = engine.topic::<u64>("input").durable().create().unwrap();
    input.producer().acknowledge(Level::Durable).create().unwrap().publish(|event| *event = 2).unwrap();
    input
}

fn member(engine: &Engine, ticks: &Topic<u64>) -> Box<dyn FnOnce() -> Outcome + Send> {
    let mut member = input(engine).group("pass").join().unwrap();
    let mut out = engine.transaction().unwrap();
    out.publish(ticks, |tick| *tick = 2).unwrap();
    Box::new(move || {
        let batch = member.poll(LONG).unwrap().unwrap();
        assert_eq!(batch.len(), 1);
        let committed = batch.commit_with(out).map(drop);
        // Committed with the frame, also where the frame is late: it is not read again.
        assert!(member.poll(Duration::ZERO).is_ok_and(|batch| batch.is_none_or(|batch| batch.is_empty())));
        committed
    })
}

fn transform(engine: &Engine, ticks: &Topic<u64>) -> Box<dyn FnOnce() -> Outcome + Send> {
    let mut pass = input(engine).transform("pass").open().unwrap();
    let ticks = ticks.clone();
    Box::new(move || match pass.step(LONG, |event, _, out| out.publish(&ticks, |tick| *tick = *event)) {
        Ok(handled) => {
            assert_eq!(handled, Some(1));
            Ok(())
        }
        Err(TransformError::Transaction(refused)) => {
            // Its next input offset is in the journal too.
            let again = pass.step(Duration::ZERO, |_, _, _| Err(TransactionError::NoJournal));
            assert!(!matches!(again, Err(TransformError::Handler { .. })), "it is handled again");
            Err(refused)
        }
        Err(other) => panic!("{other}"),
    })
}

/// The offsets and values that a reader got.
type Seen = Arc<Mutex<Vec<(u64, u64)>>>;

fn noting(seen: &Seen) -> impl Fn(&u64, At) -> Result<(), String> + Clone + Send + 'static {
    let seen = Arc::clone(seen);
    move |tick, at| {
        seen.lock().unwrap().push((at.offset, *tick));
        Ok(())
    }
}

fn has(seen: &Seen, tick: u64) -> bool {
    seen.lock().unwrap().iter().any(|(_, seen)| *seen == tick)
}

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + LONG;
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

fn ticks(engine: &Engine) -> Topic<u64> {
    engine.topic::<u64>("ticks").capacity(8).durable().create().unwrap()
}

/// Shuts down with `limit` while the disk syncs a transaction. The syncs go on when the shutdown has returned, or
/// shortly after the limit. Whatever came of it, nothing is lost in silence. Returns the outcome and the report.
fn shut_down(prepare: Prepare, limit: Duration, outlasts: bool) -> (Outcome, Report) {
    let disk = SimulatedDisk::new();
    let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
    let topic = ticks(&engine);
    let [by_subscriber, by_group] = [Seen::default(), Seen::default()];
    topic.subscribe("s").run(noting(&by_subscriber)).unwrap();
    topic.group("g").run(noting(&by_group)).unwrap();
    topic.producer().acknowledge(Level::Durable).create().unwrap().publish(|tick| *tick = 1).unwrap();
    let commit = prepare(&engine, &topic);
    until("both read", || has(&by_subscriber, 1) && has(&by_group, 1));
    disk.hold_syncs(true);
    let committing = std::thread::spawn(commit);
    until("written, and its sync waits", || {
        let journal = engine.journal().unwrap();
        disk.syncs_held() > 0 && journal.written() > journal.durable()
    });
    topic.producer().create().unwrap().publish(|tick| *tick = 3).unwrap();
    let ending = engine.clone();
    let ending = std::thread::spawn(move || ending.shutdown(limit));
    if outlasts {
        until("the shutdown ends without the disk", || ending.is_finished());
    } else {
        // A shutdown that cut the transaction would let readers go on behind it.
        let enough = Instant::now() + limit + Duration::from_millis(300);
        until("the limit has passed", || has(&by_subscriber, 3) || Instant::now() > enough);
    }
    disk.hold_syncs(false);
    let (outcome, report) = (committing.join().unwrap(), ending.join().unwrap());
    let told = report.topics.iter().find(|topic| topic.name == "ticks").unwrap();
    for (name, seen) in [("s", &by_subscriber), ("g", &by_group)] {
        assert!(has(seen, 2) || !has(seen, 3), "{name} has passed over it: {seen:?}\n{report}");
        let left: u64 = told.consumer(name).map(|consumer| consumer.left).sum();
        assert!(has(seen, 2) || outcome.is_err() || left > 0, "{name}: {seen:?}\n{report}");
        assert!(has(seen, 2) || !report.is_complete(), "{name}: {seen:?}\n{report}");
    }
    match &outcome {
        Ok(()) => {}
        Err(TransactionError::Late { topic, partition: 0, reason: Closed::Halted }) if topic == "ticks" => {
            let offsets: Vec<_> = told.unsettled.iter().map(|claim| (claim.offsets.start, claim.offsets.end)).collect();
            assert_eq!((offsets, told.cut.len()), (vec![(1, 2)], 0), "{report}");
        }
        Err(other) => panic!("{other}\n{report}"),
    }
    drop((engine, topic));
    let mut again = None;
    until("the journal was closed", || {
        again = Engine::builder().journal_in(disk.clone()).build().ok();
        again.is_some()
    });
    let engine = again.unwrap();
    let topic = ticks(&engine);
    let mut replay = topic.replay("all").open().unwrap();
    let mut there = Vec::new();
    while replay.read(Duration::ZERO, |tick, at| there.push((at.offset, *tick))).unwrap() != Some(0) {}
    assert!(there.contains(&(1, 2)), "{there:?}");
    let mut member = topic.group("g").join().unwrap();
    let until = Instant::now() + LONG;
    while there.iter().any(|event| !by_group.lock().unwrap().contains(event)) {
        let batch = member.poll(Duration::from_millis(10)).unwrap().unwrap();
        by_group.lock().unwrap().extend(batch.iter().map(|(tick, at)| (at.offset, *tick)));
        batch.commit().unwrap();
        assert!(Instant::now() < until, "the journal has {there:?}, the group got {by_group:?}\n{report}");
    }
    (outcome, report)
}

fn each_limit(prepare: Prepare) {
    for limit in [Duration::ZERO, Duration::from_millis(100)] {
        let (outcome, report) = soon("a shutdown beside a transaction", move || shut_down(prepare, limit, false));
        assert!(outcome.is_ok() || !report.is_complete(), "{report}");
    }
    let (outcome, report) = soon("a shutdown without the disk", move || shut_down(prepare, Duration::ZERO, true));
    assert!(outcome.is_err_and(|late| late.to_string().contains("is durable")) && !report.is_complete(), "{report}");
    assert!(report.to_string().contains("offsets 1 to 2 of partition 0 are of a transaction"), "{report}");
}

#[test]
fn a_transaction_that_is_synced_when_the_limit_passes_is_read_or_counted() {
    each_limit(plain);
}

#[test]
fn a_batch_in_a_transaction_that_is_synced_when_the_limit_passes_is_read_or_counted() {
    each_limit(member);
}

#[test]
fn the_output_of_a_transform_that_is_synced_when_the_limit_passes_is_read_or_counted() {
    each_limit(transform);
}

/// An event whose decoding waits, as a transaction does it between its claims and its frame.
#[derive(Clone, Default)]
struct Held(u64);

static IS_OPEN: AtomicBool = AtomicBool::new(true);
static IS_DECODED: AtomicBool = AtomicBool::new(false);

impl Persist for Held {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        IS_DECODED.store(true, SeqCst);
        until("the shutdown has returned", || IS_OPEN.load(SeqCst));
        self.0 = u64::from_le_bytes(bytes.try_into().map_err(|_| Unreadable("it has another size"))?);
        Ok(())
    }

    fn layout() -> String {
        "held".to_owned()
    }
}

/// A claim that the journal was not given is cut at the limit, and the journal gets nothing of its transaction, not in
/// topics that are still open either.
#[test]
fn a_transaction_that_comes_after_the_limit_is_not_in_the_journal() {
    let disk = SimulatedDisk::new();
    let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
    let first = ticks(&engine);
    let held = engine.topic::<Held>("held").durable().create().unwrap();
    IS_OPEN.store(false, SeqCst);
    let mut transaction = engine.transaction().unwrap();
    transaction.publish(&first, |tick| *tick = 2).unwrap();
    transaction.publish(&held, |event| event.0 = 2).unwrap();
    let committing = std::thread::spawn(move || transaction.commit());
    until("it has its claims", || IS_DECODED.load(SeqCst));
    let ending = engine.clone();
    let report = soon("the shutdown", move || ending.shutdown(Duration::ZERO));
    IS_OPEN.store(true, SeqCst);
    let refused = committing.join().unwrap().unwrap_err();
    let TransactionError::Publish(PublishError::Closed { topic, reason: Closed::Cut, .. }) = refused else {
        panic!("{refused}")
    };
    assert_eq!(topic, "ticks");
    assert!(report.topics.iter().all(|topic| topic.unsettled.is_empty() && topic.cut.len() == 1), "{report}");
    drop((engine, first, held));
    let engine = Engine::builder().journal_in(disk).build().unwrap();
    let mut replay = ticks(&engine).replay("all").open().unwrap();
    assert_eq!(replay.read(Duration::ZERO, |tick, _| panic!("it has {tick}")).unwrap(), Some(0));
}
