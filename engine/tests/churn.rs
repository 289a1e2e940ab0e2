//! Whatever can come and go leaves nothing behind: no memory, thread, descriptor or mapping. `SLIPRING_CHURN` says how often
//! it does so: 3,000 times unless told.
#![cfg(target_os = "linux")]

#[path = "../../ring/tests/common/footprint.rs"]
mod footprint;

use footprint::stays_flat;
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::storage::Disk;
use slipring::journal::{Options, Retention, open};
use slipring::{
    Engine, Level, Message, Record, Topic,
    clock::ManualClock,
    producer::{MAX_PRODUCER_NAMES, PRODUCER_NAME_EXPIRY, ProducerError},
    share::{RingLinkEnd, SharedRing},
    subscriber::{Selector, StartAt},
    topic::Deduplication,
};
use std::convert::Infallible;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(120);

/// One test at a time: each measures the process.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn durable() -> Engine {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().journal_in(SimulatedDisk::new()).journal_options(options).build().unwrap()
}

/// After 2,000 subscribers that were cancelled the report once had 257 lines, and was incomplete for good.
#[test]
fn subscribers_that_are_cancelled_or_dropped_leave_nothing() {
    let _alone = alone();
    let engine = Engine::builder().build().unwrap();
    let ticks = engine.topic::<u64>("ticks").create().unwrap();
    let mut producer = ticks.producer().create().unwrap();
    stays_flat("managed subscribers", |round| {
        let tape = ticks.subscribe(format!("tape-{round}")).run(|_, _| Ok::<_, Infallible>(())).unwrap();
        producer.publish(|_| ()).unwrap();
        tape.cancel().unwrap();
    });
    stays_flat("subscribers with a thread for each partition", |round| {
        let tape = ticks.subscribe(format!("each-{round}")).run_each(|_| |_: &u64, _| Ok::<_, Infallible>(()));
        producer.publish(|_| ()).unwrap();
        tape.unwrap().cancel().unwrap();
    });
    stays_flat("polled subscribers", |round| {
        let mut tape = ticks.subscribe(format!("polled-{round}")).poll().unwrap();
        producer.publish(|_| ()).unwrap();
        tape.poll(Duration::ZERO).unwrap();
    });
    let mut first = ticks.subscribe("first").poll().unwrap();
    stays_flat("selectors", |round| {
        let mut second = ticks.subscribe(format!("second-{round}")).poll().unwrap();
        let mut selector = Selector::round_robin();
        selector.select(&mut [&mut first, &mut second], Duration::ZERO).unwrap();
    });
    drop(first);
    let report = engine.shutdown(LONG);
    assert!(report.is_complete() && report.topics[0].consumers.is_empty(), "{report}");
}

#[test]
fn links_with_shared_rings_leave_nothing() {
    let _alone = alone();
    let engine = Engine::builder().build().unwrap();
    let topic = |name: &str| engine.topic::<u64>(name).capacity(64).create().unwrap();
    let (ticks, copies) = (topic("ticks"), topic("copies"));
    let mut producer = ticks.producer().create().unwrap();
    let name = format!("churn-{}", std::process::id());
    stays_flat("links with shared rings", |_| {
        let out = ticks.share(&*name).start(StartAt::Latest).hold(["copies"]).open().unwrap();
        let back = copies.feed_from(&*name).open().unwrap();
        producer.publish(|_| ()).unwrap();
        let until = Instant::now() + LONG;
        while back.events() == 0 {
            assert!(Instant::now() < until, "the event does not come");
            std::thread::yield_now();
        }
        out.stop();
        assert_eq!(out.wait(), RingLinkEnd::Stopped);
        SharedRing::<u64>::open(&name).unwrap().close();
        assert_eq!(back.wait(), RingLinkEnd::Finished);
        SharedRing::<u64>::remove(&name).unwrap();
    });
    assert!(!slipring_ring::shared::names().unwrap().contains(&name));
    assert_eq!(engine.describe("ticks").unwrap().ring_links.len(), 1);
}

#[test]
fn topics_and_their_groups_and_queues_leave_nothing() {
    let _alone = alone();
    let engine = Engine::builder().build().unwrap();
    stays_flat("topics", |round| {
        let name = format!("topic-{round}");
        let topic = engine.topic::<Message>(&name).capacity(4).max_message(64).create().unwrap();
        let mut member = topic.group(format!("group-{round}")).join().unwrap();
        let constant = topic.group("constant").join().unwrap();
        topic.producer().create().unwrap().send(Record::new("a")).unwrap();
        member.poll(Duration::ZERO).unwrap();
        drop((member, constant));
        engine.delete(&name).unwrap();
    });
    assert!(engine.groups().is_empty(), "{:?}", engine.groups());
    let jobs = engine.topic::<Message>("jobs").create().unwrap();
    stays_flat("members", |round| {
        let name = format!("member-{round}");
        let mut member = jobs.group("billing").member_name(name).join().unwrap();
        jobs.producer().create().unwrap().send(Record::new("a")).unwrap();
        if let Some(batch) = member.poll(LONG).unwrap() {
            batch.commit().unwrap();
        }
        member.leave();
    });
    stays_flat("managed members", |_| {
        let run = jobs.group("billing").run(|_, _| Ok::<_, Infallible>(())).unwrap();
        run.stop();
        run.wait_for(LONG).expect("it ends");
    });
    stays_flat("queues", |round| {
        let name = format!("queue-{}", round % 2);
        let mut worker = jobs.queue(&name).join().unwrap();
        let _ = worker.receive(Duration::ZERO).unwrap();
        drop(worker);
        jobs.delete_queue(&name).unwrap();
    });
    stays_flat("lingering producers", |_| {
        let lingering = jobs.producer().linger(Duration::from_secs(1), 9).create().unwrap();
        lingering.send(Record::new("a")).unwrap();
        lingering.flush().unwrap();
    });
}

/// Names and ids are strangers' words: each kind of them is forgotten, or it is bounded, or it is listed.
#[test]
fn names_and_ids_are_forgotten_bounded_or_listed() {
    let _alone = alone();
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).build().unwrap();
    let jobs = engine.topic::<Message>("jobs").capacity(4).max_message(64).create().unwrap();
    stays_flat("names of idempotent producers", |round| {
        let mut gateway = jobs.producer().idempotent(format!("gateway-{round}")).unwrap();
        gateway.send(7, Record::new("a")).unwrap();
        drop(gateway);
        clock.advance(PRODUCER_NAME_EXPIRY);
    });
    // Those that are too young to be forgotten have a bound.
    let names = (0..=MAX_PRODUCER_NAMES).map(|number| jobs.producer().idempotent(format!("young-{number}")).map(drop));
    let refused = names.filter_map(Result::err).next().expect("no more names than that");
    assert!(matches!(refused, ProducerError::TooManyNames { limit: MAX_PRODUCER_NAMES, .. }), "{refused}");
    // Its letters bear the name of their queue, so it has room for longer ones.
    engine.topic::<Message>("dead").retain(4).max_message(1024).create().unwrap();
    stays_flat("names of queues", |round| {
        let name = format!("queue-{round}");
        drop(jobs.queue(&name).dead_letter("dead").join().unwrap());
        jobs.delete_queue(&name).unwrap();
    });
    assert!(jobs.metrics().queues.is_empty());
    drop(jobs.queue("left").dead_letter("dead").join().unwrap());
    assert_eq!(jobs.metrics().queues.len(), 1, "one that nobody deletes is listed");
    jobs.delete_queue("left").unwrap();
    let once = engine.topic::<Message>("once").capacity(4).max_message(64).deduplicate(Deduplication::last(100));
    let once = once.create().unwrap();
    let mut producer = once.producer().create().unwrap();
    stays_flat("ids within a number", |round| {
        producer.send(Record::new("a").id(format!("id-{round}").as_bytes())).unwrap();
    });
    let lately = engine.topic::<Message>("lately").capacity(4).max_message(64);
    let lately = lately.deduplicate(Deduplication::within(Duration::from_secs(60))).create().unwrap();
    let mut producer = lately.producer().create().unwrap();
    stays_flat("ids within a time", |round| {
        producer.send(Record::new("a").id(format!("id-{round}").as_bytes())).unwrap();
        clock.advance(Duration::from_secs(1));
    });
    // Where a group stands is kept for it until its topic goes, so each name is listed, and goes with the topic.
    const GROUPS: usize = 500;
    for number in 0..GROUPS {
        drop(lately.group(format!("group-{number}")).join().unwrap());
    }
    assert_eq!(engine.groups().len(), GROUPS);
    engine.delete_forced("lately").unwrap();
    assert!(engine.groups().is_empty());
}

#[test]
fn durable_topics_replays_and_producers_leave_nothing() {
    let _alone = alone();
    let engine = durable();
    let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
    ticks.producer().create().unwrap().publish(|_| ()).unwrap();
    stays_flat("replays", |_| {
        let mut replay = ticks.replay("tape").open().unwrap();
        replay.read(LONG, |_, _| ()).unwrap();
    });
    stays_flat("transactions", |_| drop(engine.transaction().unwrap()));
    stays_flat("transforms", |_| drop(ticks.transform("copy").open().unwrap()));
}

/// What is left of things that come and go: of the journal's state its bytes, and what the engine lists.
#[derive(Debug, PartialEq)]
struct Left {
    state: usize,
    topics: Vec<String>,
    groups: usize,
    transforms: usize,
    queues: usize,
}

/// Something that comes and goes in a durable engine, beside two topics that stay. It may advance the clock.
type Comes = fn(&Engine, &ManualClock, &Topic<u64>, &Topic<Message>, usize);

fn once<F: Future>(future: F) {
    let mut future = std::pin::pin!(future);
    let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
}

fn durable_topics(engine: &Engine, _: &ManualClock, ticks: &Topic<u64>, _: &Topic<Message>, round: usize) {
    let name = format!("topic-{round}");
    let topic = engine.topic::<Message>(&name).partitions(2).capacity(4).max_message(64).durable().create().unwrap();
    let mut sender = topic.producer().idempotent("gateway").unwrap();
    sender.send(0, Record::new("a")).unwrap();
    let mut member = topic.group("billing").join().unwrap();
    member.poll(LONG).unwrap().unwrap().commit().unwrap();
    let mut worker = topic.queue("work").join().unwrap();
    let lease = worker.receive(LONG).unwrap().unwrap();
    let mut copy = topic.transform("copy").open().unwrap();
    copy.step(LONG, |_, _, out| out.publish(ticks, |_| ())).unwrap();
    drop((sender, member, lease, worker, copy, topic));
    engine.delete_forced(&name).unwrap();
    // The dead letters are a topic of their own, and stay.
    engine.delete(&format!("{name}.work.dead")).unwrap();
}

fn durable_names(_: &Engine, clock: &ManualClock, ticks: &Topic<u64>, jobs: &Topic<Message>, round: usize) {
    drop(ticks.producer().idempotent(format!("gateway-{round:06}")).unwrap());
    drop(jobs.producer().idempotent(format!("gateway-{round:06}")).unwrap());
    clock.advance(PRODUCER_NAME_EXPIRY);
}

fn managed_transforms(engine: &Engine, _: &ManualClock, ticks: &Topic<u64>, _: &Topic<Message>, round: usize) {
    // Each takes as long as a transform sleeps that has nothing to read.
    if !round.is_multiple_of(20) {
        return;
    }
    let name = format!("copies-{}", round % 3);
    let copies = engine.topic::<u64>(&name).capacity(4).durable().create().unwrap();
    let copy = ticks.transform("copy").latest().open().unwrap();
    let run = copy.run(copies.clone(), |_, _, out| out.publish(|_| ())).unwrap();
    run.stop();
    run.wait();
    drop(copies);
    engine.delete_forced(&name).unwrap();
}

fn leases(_: &Engine, _: &ManualClock, _: &Topic<u64>, jobs: &Topic<Message>, round: usize) {
    let mut worker = jobs.queue("work").max_attempts(2).join().unwrap();
    jobs.producer().create().unwrap().send(Record::new("a")).unwrap();
    // Given back, left and taken up again, renewed, and done with; each third one is a dead letter.
    let take = |worker: &mut slipring::queue::Worker| worker.receive(LONG).unwrap().unwrap();
    drop(take(&mut worker));
    let ticket = take(&mut worker).leave();
    let mut lease = worker.queue().resume(&ticket).unwrap();
    lease.renew(LONG).unwrap();
    if round.is_multiple_of(3) {
        lease.nack(Duration::ZERO, "it is of no use").unwrap()
    } else {
        lease.ack().unwrap()
    }
    worker.queue().purge_dead_letters();
}

fn receipts_and_futures(_: &Engine, _: &ManualClock, ticks: &Topic<u64>, jobs: &Topic<Message>, _: usize) {
    let mut producer = ticks.producer().create().unwrap();
    let mut tape = ticks.subscribe("tape").poll().unwrap();
    let mut member = ticks.group("sums").join().unwrap();
    let mut worker = jobs.queue("work").join().unwrap();
    once(tape.next_batch());
    once(member.next_batch());
    once(worker.receive_async());
    once(producer.publish(|_| ()).unwrap().reach(Level::Durable));
    once(producer.publish_async(|_| ()));
    let _ = producer.publish(|_| ()).unwrap().wait_until(Level::Durable, Some(Instant::now()));
    once(jobs.producer().create().unwrap().send_async(&Record::new("a")));
    worker.receive(LONG).unwrap().unwrap().ack().unwrap();
    // The group's offset is what the journal has of it.
    member.poll(LONG).unwrap().unwrap().commit().unwrap();
}

/// Each of these comes and goes in an engine, and again in the next one: the journal's state is as large then, and as much is
/// listed.
#[test]
fn what_comes_and_goes_in_a_journal_leaves_nothing_there_and_in_the_process() {
    let _alone = alone();
    let kinds: [(&str, Comes); 5] = [
        ("leases", leases),
        ("receipts and futures", receipts_and_futures),
        ("managed transforms", managed_transforms),
        ("durable topics", durable_topics),
        ("durable names", durable_names),
    ];
    for (what, comes) in kinds {
        // In memory, where there is such a folder: the journal syncs some thousand times.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let clock = ManualClock::new();
        let options = Options { segment_size: 1 << 18, ..Options::default() };
        let opening = |rounds: Option<usize>| {
            let engine = Engine::builder().clock(clock.clone()).journal(dir.path()).journal_options(options.clone());
            let engine = engine.build().unwrap();
            let keep = Retention { bytes: Some(4096), ..Retention::default() };
            let ticks = engine.topic::<u64>("ticks").capacity(64).durable().keep(keep).create().unwrap();
            let jobs =
                engine.topic::<Message>("jobs").capacity(64).max_message(64).durable().keep(keep).create().unwrap();
            let one = |round| comes(&engine, &clock, &ticks, &jobs, round);
            match rounds {
                None => stays_flat(what, one),
                Some(rounds) => (0..rounds).for_each(one),
            }
            let queues = [ticks.metrics(), jobs.metrics()].iter().map(|of| of.queues.len()).sum();
            let (mut topics, groups, transforms) = (engine.topics(), engine.groups().len(), engine.transforms().len());
            topics.sort_unstable();
            drop((ticks, jobs));
            engine.retain().unwrap();
            assert!(matches!(engine.shutdown(LONG).journal, Some(Ok(()))), "{what}");
            drop(engine);
            let (writer, recovered) = open(Arc::new(Disk::new(dir.path())), options.clone()).unwrap();
            assert!(recovered.segments <= 8, "{what}: {} segments", recovered.segments);
            Left { state: writer.state().size(), topics, groups, transforms, queues }
        };
        let few = opening(Some(6));
        let many = opening(None);
        // A number that has grown takes some bytes more.
        let (least, most) = (few.state, few.state + 64);
        assert!((least..=most).contains(&many.state), "{what}: {few:?} {many:?}");
        assert_eq!(Left { state: few.state, ..many }, few, "{what}");
    }
}

#[test]
fn connections_to_the_socket_leave_nothing() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine.sock");
    let engine = Engine::builder().observe(&path).build().unwrap();
    engine.topic::<u64>("ticks").create().unwrap();
    stays_flat("connections", |round| {
        let mut connection = UnixStream::connect(&path).unwrap();
        connection.set_read_timeout(Some(LONG)).unwrap();
        connection.write_all(if round % 2 == 0 { b"json\n" } else { b"prometheus\n" }).unwrap();
        // One in three leaves without its answer.
        if round % 3 > 0 {
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            assert!(answer.contains("ticks"), "{answer}");
        }
    });
}

#[test]
fn engines_leave_nothing() {
    let _alone = alone();
    stays_flat("engines", |round| {
        if round % 10 != 0 {
            return;
        }
        let engine = durable();
        let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
        ticks.subscribe("tape").run(|_, _| Ok::<_, Infallible>(())).unwrap();
        drop(ticks.group("billing").join().unwrap());
        ticks.producer().create().unwrap().publish(|_| ()).unwrap();
        assert!(engine.shutdown(LONG).is_complete());
    });
}
