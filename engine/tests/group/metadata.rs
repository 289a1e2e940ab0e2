//! Metadata of committed offsets, and offsets that are read and set by code that is no member.

use super::*;
use slipring::group::{GroupPartition, MAX_METADATA, MetadataTooLong};
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, group_offsets, inspect};
use slipring::producer::Multi;
use slipring::{Level, topic::Overflow};
use std::time::Instant;

fn first() -> TopicPartition {
    TopicPartition::new("numbers", 0)
}

fn text(metadata: Option<Arc<[u8]>>) -> Option<String> {
    metadata.map(|metadata| String::from_utf8(metadata.to_vec()).unwrap())
}

/// The committed offset and the metadata of the group in partition 0.
fn described(engine: &Engine) -> (Option<u64>, Option<String>) {
    let GroupPartition { committed, metadata, .. } = engine.group_offsets("sums").swap_remove(0);
    (committed, text(metadata))
}

fn some(offset: u64, text: &str) -> (Option<u64>, Option<String>) {
    (Some(offset), Some(text.to_owned()))
}

#[test]
fn metadata_is_kept_with_its_offset_and_goes_to_the_next_member() {
    let mut world = world(1, 16);
    let mut member = world.join();
    world.publish(0, 9);
    let mut batch = member.poll(NOW).unwrap().unwrap();
    batch.commit_to_with_metadata(3, b"three").unwrap();
    assert_eq!((batch.len(), described(&world.engine)), (6, some(3, "three")));
    assert!(world.engine.groups()[0].to_string().contains("committed 3 of 9, lag 6, metadata three"));
    // The same offset again, without metadata and with other metadata; then another offset.
    batch.commit_to(3).unwrap();
    assert_eq!(described(&world.engine), some(3, "three"));
    batch.commit_to_with_metadata(3, b"").unwrap();
    assert_eq!(described(&world.engine), (Some(3), None));
    batch.commit_to_with_metadata(4, b"four").unwrap();
    batch.commit_to(5).unwrap();
    assert_eq!(described(&world.engine), (Some(5), None));
    // What is refused changes nothing.
    let long = vec![7; MAX_METADATA + 1];
    let refused = batch.commit_to_with_metadata(6, &long);
    assert!(matches!(refused, Err(CommitError::Metadata(MetadataTooLong { len: 4097, .. }))), "{refused:?}");
    let refused = batch.commit_to_with_metadata(10, b"ten");
    assert!(matches!(refused, Err(CommitError::OutOfBatch { asked: 10, first: 5, end: 9 })), "{refused:?}");
    assert_eq!(described(&world.engine), (Some(5), None));
    batch.commit_with_metadata(&long[1..]).unwrap();
    assert_eq!(member.metadata(&first()).unwrap().unwrap().len(), MAX_METADATA);
    let shown = format!("{:?}", world.engine.group_offsets("sums"));
    assert!(shown.contains("more bytes") && shown.len() < 600, "{shown}");
    assert!(matches!(member.metadata(&TopicPartition::new("numbers", 1)), Err(GroupError::NotAssigned { .. })));

    // The successor of a member that left, and of one that was fenced.
    world.publish(0, 4);
    member.poll(NOW).unwrap().unwrap().commit_with_metadata(b"thirteen").unwrap();
    drop(member);
    assert_eq!(described(&world.engine), some(13, "thirteen"));
    let mut slow = world.join();
    slow.poll(NOW).unwrap();
    assert_eq!(text(slow.metadata(&first()).unwrap()), Some("thirteen".to_owned()));
    world.publish(0, 2);
    let mut late = slow.poll(NOW).unwrap().unwrap();
    late.commit_to_with_metadata(14, b"fourteen").unwrap();
    world.clock.advance(DEADLINE);
    let mut next = world.join();
    next.poll(NOW).unwrap();
    assert!(matches!(late.commit_with_metadata(b"too late"), Err(CommitError::Fenced(_))));
    assert_eq!(text(next.metadata(&first()).unwrap()), Some("fourteen".to_owned()));
    next.poll(NOW).unwrap().unwrap().commit().unwrap();
    assert_eq!(described(&world.engine), (Some(15), None));
}

#[test]
fn with_at_most_once_metadata_belongs_to_the_whole_batch() {
    let mut world = world(1, 16);
    let mut member = world.group().commit(Commit::AtMostOnce).join().unwrap();
    world.publish(0, 5);
    let mut batch = member.poll(NOW).unwrap().unwrap();
    batch.commit_to_with_metadata(2, b"two").unwrap();
    assert_eq!((batch.len(), described(&world.engine)), (3, some(5, "two")));
}

fn durable(disk: &SimulatedDisk, segment_size: u64) -> (Engine, Topic<u64>) {
    let options = Options { segment_size, ..Options::default() };
    let engine = Engine::builder().journal_in(disk.clone()).journal_options(options).build().unwrap();
    let topic = match engine.get::<u64, Multi>("numbers") {
        Ok(topic) => topic,
        Err(_) => engine
            .topic::<u64>("numbers")
            .partitions(2)
            .capacity(16)
            .overflow(Overflow::Fail)
            .durable()
            .create()
            .unwrap(),
    };
    (engine, topic)
}

#[test]
fn metadata_outlives_the_process_with_its_offset() {
    let disk = SimulatedDisk::new();
    let (engine, topic) = durable(&disk, 1 << 16);
    let mut member = topic.group("sums").join().unwrap();
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    (0..9).for_each(|_| _ = producer.publish_to(0, |_| ()).unwrap());
    let mut batch = member.poll(LONG).unwrap().unwrap();
    let end = batch.len() as u64;
    batch.commit_to_with_metadata(end, b"in the table").unwrap();
    batch.commit_durable().unwrap();
    let after = disk.crash(3);
    let survey = inspect(Arc::new(after.clone()), true).unwrap();
    let known = group_offsets(survey.state()).into_iter().find(|it| it.of.partition == 0).unwrap();
    assert_eq!((known.offset, text(known.metadata)), (end, Some("in the table".to_owned())));
    drop((member, producer, topic));
    engine.shutdown(LONG);

    // Before anybody has joined, by a member, and after a member that commits nothing, but passes over the offsets that the
    // crash has left without events.
    for is_first in [true, false] {
        let (engine, topic) = durable(&after, 1 << 16);
        let (committed, metadata) = described(&engine);
        assert_eq!((committed == Some(end), metadata), (is_first, Some("in the table".to_owned())));
        let mut member = topic.group("sums").join().unwrap();
        member.poll(NOW).unwrap();
        assert_eq!(text(member.metadata(&first()).unwrap()), Some("in the table".to_owned()));
        drop((member, topic));
        engine.shutdown(LONG);
    }
}

#[test]
fn an_offset_whose_metadata_has_no_room_is_written_without_it() {
    let disk = SimulatedDisk::new();
    // The state of a journal with the smallest segments has room for some 1,600 bytes.
    let (engine, topic) = durable(&disk, 4096);
    let mut member = topic.group("sums").join().unwrap();
    let mut producer = topic.producer().acknowledge(Level::Durable).create().unwrap();
    (0..3).for_each(|_| _ = producer.publish_to(0, |_| ()).unwrap());
    let mut batch = member.poll(LONG).unwrap().unwrap();
    let end = batch.len() as u64;
    batch.commit_to_with_metadata(end, &[b'm'; 3000]).unwrap();
    let refused = batch.commit_durable();
    assert!(matches!(refused, Err(CommitError::NotDurable { .. })), "{refused:?}");
    assert_eq!(described(&engine).0, Some(end));
    // With less it is written, and so is what comes later.
    producer.publish_to(0, |_| ()).unwrap();
    let mut batch = member.poll(LONG).unwrap().unwrap();
    batch.commit_to_with_metadata(end + 1, &[b'm'; 300]).unwrap();
    batch.commit_durable().unwrap();
    let recorded = |disk: &SimulatedDisk| {
        let survey = inspect(Arc::new(disk.crash(1)), true).unwrap();
        let known = group_offsets(survey.state()).into_iter().find(|it| it.of.partition == 0).unwrap();
        (known.offset, known.metadata.map_or(0, |metadata| metadata.len()))
    };
    assert_eq!(recorded(&disk), (end + 1, 300));
    producer.publish_to(0, |_| ()).unwrap();
    let mut batch = member.poll(LONG).unwrap().unwrap();
    batch.commit_to_with_metadata(end + 2, &[b'm'; 3000]).unwrap();
    assert!(batch.commit_durable().is_err());
    drop((member, producer, topic));
    engine.shutdown(LONG);
    assert_eq!(recorded(&disk), (end + 2, 0));
}

/// Publishes into partition 0, where the journal may hold slots for a while.
fn publish_soon(producer: &mut Producer<u64, Multi>) {
    let until = Instant::now() + LONG;
    while let Err(refused) = producer.publish_to(0, |_| ()) {
        assert!(refused.is_full() && Instant::now() < until, "{refused:?}");
        std::thread::yield_now();
    }
}

#[test]
fn offsets_are_set_without_a_member_where_nobody_reads() {
    let disk = SimulatedDisk::new();
    let (engine, topic) = durable(&disk, 1 << 16);
    let memory = Engine::builder().build().unwrap();
    let other =
        memory.topic::<u64>("numbers").partitions(2).capacity(16).retain(15).overflow(Overflow::Fail).create().unwrap();
    for (engine, topic, is_in_memory) in [(&engine, &topic, false), (&memory, &other, true)] {
        let mut producer = topic.producer().create().unwrap();
        for partition in [0, 1] {
            (0..9).for_each(|_| _ = producer.publish_to(partition, |_| ()).unwrap());
        }
        let set = |to: StartAt, metadata: &[u8]| topic.group("sums").set_offset(&first(), to, metadata);
        assert!(engine.group_offsets("sums").is_empty());
        assert!(matches!(set(StartAt::Committed, b""), Err(GroupError::NothingCommitted { .. })));
        assert_eq!(set(StartAt::Offset(4), b"four").unwrap(), 4);
        assert_eq!(described(engine), some(4, "four"));
        assert_eq!(set(StartAt::Committed, b"the same").unwrap(), 4);
        assert_eq!(described(engine), some(4, "the same"));
        for (refused, what) in [
            (set(StartAt::Offset(10), b""), "an offset that is not published yet"),
            (set(StartAt::Offset(5), &[0; MAX_METADATA + 1]), "too much metadata"),
            (topic.group("sums").set_offset(&TopicPartition::new("numbers", 2), StartAt::Latest, b""), "no partition"),
            (topic.group("sums").set_offset(&TopicPartition::new("words", 0), StartAt::Latest, b""), "no topic"),
        ] {
            assert!(refused.is_err(), "{what}");
            assert_eq!(described(engine), some(4, "the same"), "{what}");
        }
        // A member goes on there, and is the only one who commits while it has the partition.
        let mut member = topic.group("sums").hold(true).join().unwrap();
        let mut at = BTreeMap::new();
        while at.len() < 2 {
            let batch = member.poll(LONG).unwrap().unwrap();
            let (_, event) = batch.iter().next().unwrap();
            at.insert(event.partition, event.offset);
            batch.commit().unwrap();
        }
        assert_eq!(at, BTreeMap::from([(0, 4), (1, 0)]));
        let refused = set(StartAt::Offset(6), b"");
        assert!(matches!(refused, Err(GroupError::Owned { partition: 0, member: Some(_), .. })), "{refused:?}");
        member.leave();
        // The group holds producers, so they wait for the offset that is set now, if the ring has it. From the journal the
        // group reads without them.
        assert_eq!(set(StartAt::Latest, b"nine").unwrap(), 9);
        let held = |engine: &Engine| engine.group_offsets("sums").swap_remove(0).gates;
        assert!(held(engine));
        assert_eq!(set(StartAt::Earliest, b"").unwrap(), 0);
        assert_eq!((described(engine), held(engine)), ((Some(0), None), is_in_memory));
        (0..7).for_each(|_| publish_soon(&mut producer));
        if is_in_memory {
            assert!(producer.publish_to(0, |_| ()).is_err_and(|refused| refused.is_full()));
        }
        assert_eq!(set(StartAt::Offset(12), b"twelve").unwrap(), 12);
        publish_soon(&mut producer);
        drop(producer);
    }
    drop(topic);
    engine.shutdown(LONG);
    let (engine, topic) = durable(&disk.crash(2), 1 << 16);
    assert_eq!(described(&engine), some(12, "twelve"));
    let mut member = topic.group("sums").start(StartAt::Committed).join().unwrap();
    let mut found = None;
    while found.is_none() {
        let batch = member.poll(LONG).unwrap().unwrap();
        found = batch.iter().find(|(_, at)| at.partition == 0).map(|(_, at)| at.offset);
        batch.commit().unwrap();
    }
    assert_eq!(found, Some(12));
}
