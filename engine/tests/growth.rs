//! How cost grows with the number of topics, partitions, groups and members: counts of allocations, bytes and syncs at one size
//! and at four times that size. What is linear grows fourfold; quadratic would be sixteenfold.
//!
//! One test, so that nobody else's allocations are counted.

use slipring::journal::{Options, simulated::SimulatedDisk};
use slipring::{Engine, Message, group::Member};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(120);

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Allocations and allocated bytes of `work`.
fn allocated<T>(work: impl FnOnce() -> T) -> (usize, usize) {
    let region = Region::new(ALLOCATOR);
    let done = work();
    let counts = region.change();
    drop(done);
    (counts.allocations + counts.reallocations, counts.bytes_allocated)
}

/// `more` may be six times `less`: linear, with what tables take when they double.
fn is_linear(what: &str, less: (usize, usize), more: (usize, usize)) {
    println!("{what}: {less:?} -> {more:?} (allocations, bytes) at four times the size");
    assert!(more.0 <= 6 * less.0 && more.1 <= 6 * less.1, "{what}: {less:?} -> {more:?}");
}

/// As many allocations, but for a few where tables double.
fn allocates_as_often(what: &str, less: (usize, usize), more: (usize, usize)) {
    println!("{what}: {less:?} -> {more:?} (allocations, bytes) at four times the size");
    assert!(more.0 <= less.0 + 40, "{what}: {less:?} -> {more:?}");
}

/// As many allocations and bytes, within a few.
fn is_constant(what: &str, less: (usize, usize), more: (usize, usize)) {
    println!("{what}: {less:?} -> {more:?} (allocations, bytes) at four times the size");
    assert!(more.0 <= less.0 + 16 && more.1 <= less.1 + 4096, "{what}: {less:?} -> {more:?}");
}

#[test]
fn nothing_costs_more_than_its_data_structure_must() {
    let [less, more] = [64, 256].map(groups_of_one_topic);
    is_linear("Engine::groups", less.0, more.0);
    is_linear("Topic::metrics", less.1, more.1);
    let [less, more] = [64, 256].map(a_named_join);
    // It looks at all members, and copies no name.
    allocates_as_often("a join under a name", less, more);
    is_linear("the bytes of that", less, more);
    let [less, more] = [64, 256].map(epochs_of_a_first_join);
    println!("epochs of a first join: {less} -> {more} at four times the partitions");
    assert_eq!(less, more, "partitions are shared out once for a topic, and once for the member");
    let [less, more] = [64, 256].map(a_producer);
    is_constant("a producer", less, more);
    let [less, more] = [64, 256].map(lookups);
    is_constant("Engine::get", less, more);
    for (kind, disk) in [("in memory", None), ("durable", Some(SimulatedDisk::new()))] {
        let bytes = a_queue(disk);
        println!("bytes of a queue without dead letters, {kind}: {bytes}");
        assert!(bytes < 16 << 10, "{bytes} bytes, {kind}");
    }
    let [less, more] = [64, 256].map(syncs_of_topics_that_are_opened_again);
    println!("syncs of topics that are opened again: {less} -> {more} at four times the number");
    // The journal's own, when it opens, and one that the first producer waits for; more where the machine stands still meanwhile.
    assert!(less < 64 / 4 && more < 256 / 16, "{less} syncs -> {more} syncs");
}

/// Opens so many durable topics again, and publishes into each.
fn syncs_of_topics_that_are_opened_again(topics: usize) -> u64 {
    let disk = SimulatedDisk::new();
    let open = || {
        let options = Options { segment_size: 1 << 18, ..Options::default() };
        let engine = Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap();
        let one =
            |number: usize| engine.topic::<u64>(format!("topic-{number}")).capacity(4).durable().create().unwrap();
        let opened: Vec<_> = (0..topics).map(one).collect();
        (engine, opened)
    };
    let (engine, opened) = open();
    drop(opened);
    engine.shutdown(LONG);
    let before = disk.syncs();
    let (_engine, opened) = open();
    let mut producers: Vec<_> = opened.iter().map(|topic| topic.producer().create().unwrap()).collect();
    let syncs = disk.syncs() - before;
    producers.iter_mut().for_each(|producer| assert_eq!(producer.publish(|_| ()).unwrap().partition, 0));
    syncs
}

/// The bytes that one more queue of a topic takes, and its topic for dead letters, which has had none.
fn a_queue(disk: Option<SimulatedDisk>) -> usize {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    let engine = match &disk {
        Some(disk) => Engine::builder().journal_in(disk.clone()).journal_options(options),
        None => Engine::builder(),
    };
    let engine = engine.build().unwrap();
    let jobs = engine.topic::<Message>("jobs").max_message(32).capacity(64);
    let jobs = if disk.is_some() { jobs.durable().create() } else { jobs.create() }.unwrap();
    let open = |number: usize| jobs.queue(format!("queue-{number}")).open().unwrap();
    // What grows by doubling has done so.
    let first: Vec<_> = (0..17).map(open).collect();
    let region = Region::new(ALLOCATOR);
    let more: Vec<_> = (17..25).map(open).collect();
    // The journal's thread writes the last queue's entry, and frees the frame.
    let bytes = region.change();
    let bytes = bytes.bytes_allocated.saturating_sub(bytes.bytes_deallocated) / more.len();
    drop((first, more));
    bytes
}

/// A snapshot of so many groups, and the metrics of their topic.
fn groups_of_one_topic(groups: usize) -> ((usize, usize), (usize, usize)) {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("ticks").create().unwrap();
    let members: Vec<_> = (0..groups).map(|group| topic.group(format!("group-{group}")).join().unwrap()).collect();
    assert_eq!(engine.groups().len(), members.len());
    (allocated(|| engine.groups()), allocated(|| topic.metrics()))
}

/// One more member under a name, beside so many.
fn a_named_join(members: usize) -> (usize, usize) {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("ticks").create().unwrap();
    let join = |number: usize| topic.group("sums").member_name(format!("member-{number}")).join().unwrap();
    let there: Vec<Member<u64>> = (0..members).map(join).collect();
    // What grows by doubling has done so.
    let last: Vec<_> = (0..2).map(|number| join(members + number)).collect();
    let cost = allocated(|| join(members + 2));
    drop((there, last));
    cost
}

/// How often partitions were shared out when the first member of a group has joined a topic with so many.
fn epochs_of_a_first_join(partitions: usize) -> u64 {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("ticks").partitions(partitions).capacity(1).create().unwrap();
    let _member = topic.group("sums").join().unwrap();
    engine.groups()[0].epoch
}

/// A producer of a topic with so many partitions, and one event.
fn a_producer(partitions: usize) -> (usize, usize) {
    let engine = Engine::builder().build().unwrap();
    let topic = engine.topic::<u64>("ticks").partitions(partitions).capacity(1).create().unwrap();
    let _reader = topic.subscribe("tape").poll().unwrap();
    allocated(|| {
        let mut producer = topic.producer().create().unwrap();
        producer.publish_to(3, |_| ()).unwrap();
        producer
    })
}

/// A lookup among so many topics.
fn lookups(topics: usize) -> (usize, usize) {
    let engine = Engine::builder().build().unwrap();
    (0..topics).for_each(|number| _ = engine.topic::<u64>(format!("topic-{number}")).capacity(1).create().unwrap());
    let last = format!("topic-{}", topics - 1);
    allocated(|| engine.get::<u64, slipring::producer::Multi>(&last).unwrap())
}
