//! Groups: joins, snapshots, positions, and names of groups that nobody uses any more.

use std::time::Duration;

use slipring::group::Member;
use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{self, Options};
use slipring::subscriber::StartAt;
use slipring::topic::TopicPartition;
use slipring::{Engine, Level, Topic};

use super::bound::Bound;
use super::cost::{LONG, in_memory, median, nanos_a_call, on_disk, partitioned, thread_nanos, topics};
use super::row::{Row, Unit};
use crate::failure::Failure;
use crate::system::resident;

pub const ROWS: &[Row] = &[
    Row {
        name: "group-memory",
        cost: "memory of a group without members",
        of: "names of groups",
        unit: Unit::Bytes,
        quick: &[256, 1024],
        full: &[256, 1024, 4096],
        target: Bound::Constant,
        today: None,
        before: "7 KB a name, for ever",
        measure: memory_of_names,
    },
    Row {
        name: "join",
        cost: "a join",
        of: "members and topics of one group",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[16, 64, 256, 1024],
        target: Bound::LinearLog,
        today: None,
        before: "0.2, 2.6, 18, 150 ms at 32, 128, 256, 512",
        measure: |n| join(n, false),
    },
    Row {
        name: "join-odd",
        cost: "a join beside a member with one topic more",
        of: "members and topics of one group",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[16, 64, 256, 1024],
        target: Bound::LinearLog,
        today: None,
        before: "148 ms at 512",
        measure: |n| join(n, true),
    },
    Row {
        name: "join-named",
        cost: "a join with a member's name",
        of: "named members",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[16, 64, 256, 1024],
        target: Bound::LinearLog,
        today: None,
        before: "",
        measure: named_join,
    },
    Row {
        name: "groups",
        cost: "Engine::groups",
        of: "groups of one topic",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[32, 128, 512, 2048],
        target: Bound::Linear,
        today: None,
        before: "573 ms at 2,048",
        measure: |n| snapshot(n, |engine, _| drop(engine.groups())),
    },
    Row {
        name: "topic-metrics",
        cost: "Topic::metrics",
        of: "groups of the topic",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[32, 128, 512, 2048],
        target: Bound::Linear,
        today: None,
        before: "29 ms at 2,048",
        measure: |n| snapshot(n, |_, topic| drop(topic.metrics())),
    },
    Row {
        name: "group-state",
        cost: "bytes that a name of a group adds to the beginning of each segment",
        of: "names of groups",
        unit: Unit::Bytes,
        quick: &[16, 64, 256],
        full: &[64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "513 B a name, for ever",
        measure: state_of_names,
    },
    Row {
        name: "come-and-go",
        cost: "a join and a leave of a new group",
        of: "names of groups without members",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[64, 256, 1024, 4096],
        target: Bound::Constant,
        today: None,
        before: "5 times as much after 6,400",
        measure: come_and_go,
    },
    Row {
        name: "position",
        cost: "Member::position",
        of: "partitions of the member",
        unit: Unit::Nanos,
        quick: &[16, 64, 256],
        full: &[16, 64, 256, 1024],
        target: Bound::Constant,
        today: None,
        before: "linear",
        measure: position,
    },
];

fn join(n: usize, odd: bool) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let topics = topics(&engine, n)?;
    let member = |topics: &[Topic<u64>]| engine.group("all").topics(topics).join().map_err(Failure::refused);
    let mut members = Vec::new();
    if odd {
        let more = engine.topic::<u64>("more").capacity(8).create().map_err(Failure::refused)?;
        let all: Vec<_> = topics.iter().cloned().chain([more]).collect();
        members.push(member(&all)?);
    }
    while members.len() < n {
        members.push(member(&topics)?);
    }
    median(5, || {
        members.pop();
        let (joined, nanos) = thread_nanos(|| member(&topics))?;
        members.push(joined);
        Ok(nanos)
    })
}

fn named_join(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let topic = partitioned(&engine, 4)?;
    let member =
        |index: usize| topic.group("all").member_name(format!("member-{index}")).join().map_err(Failure::refused);
    let mut members = (0..n).map(member).collect::<Result<Vec<Member<u64>>, _>>()?;
    let mut next = n;
    median(5, || {
        let (joined, nanos) = thread_nanos(|| member(next))?;
        members.push(joined);
        next += 1;
        Ok(nanos)
    })
}

fn snapshot(n: usize, take: impl Fn(&Engine, &Topic<u64>)) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let topic = partitioned(&engine, 1)?;
    let member = |index| topic.group(format!("group-{index}")).join().map_err(Failure::refused);
    let _members = (0..n).map(member).collect::<Result<Vec<_>, _>>()?;
    nanos_a_call(1, || {
        take(&engine, &topic);
        Ok(())
    })
}

fn join_and_leave(topic: &Topic<u64>, index: usize) -> Result<(), Failure> {
    topic.group(format!("group-{index}")).join().map_err(Failure::refused)?.leave();
    Ok(())
}

fn memory_of_names(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let topic = partitioned(&engine, 1)?;
    // The first groups also allocate what all groups share, so they are not measured.
    (n..n + 64).try_for_each(|index| join_and_leave(&topic, index))?;
    let before = resident()?;
    (0..n).try_for_each(|index| join_and_leave(&topic, index))?;
    let grown = resident()?.saturating_sub(before);
    // Freed memory would be used again for the next size, which would then seem to need none.
    std::mem::forget((engine, topic));
    Ok(grown as f64 / n as f64)
}

fn come_and_go(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let topic = partitioned(&engine, 1)?;
    let mut next = 0;
    let mut another = || {
        next += 1;
        join_and_leave(&topic, next)
    };
    (0..n).try_for_each(|_| another())?;
    median(9, || Ok(thread_nanos(&mut another)?.1))
}

fn state_of_names(n: usize) -> Result<f64, Failure> {
    const SEGMENT: u64 = 8 << 20;
    let state = |n: usize| {
        let disk = SimulatedDisk::new();
        let engine = on_disk(&disk, SEGMENT)?;
        let topic = engine.topic::<u64>("numbers").capacity(8).durable().create().map_err(Failure::refused)?;
        let mut producer = topic.producer().acknowledge(Level::Durable).create().map_err(Failure::refused)?;
        producer.publish(|_| ()).map_err(Failure::refused)?;
        for index in 0..n {
            let group = topic.group(format!("group-{index}")).start(StartAt::Offset(0));
            let mut member = group.join().map_err(Failure::refused)?;
            if let Some(batch) = member.poll(LONG).map_err(Failure::refused)? {
                batch.commit().map_err(Failure::refused)?;
            }
            member.leave();
        }
        drop(producer);
        engine.shutdown(LONG);
        state_bytes(&disk, SEGMENT)
    };
    Ok((state(n)? - state(0)?) / n as f64)
}

/// Bytes of the state that each segment of this journal begins with.
///
/// # Errors
///
/// [`Failure`]: the journal can't be opened.
pub fn state_bytes(disk: &SimulatedDisk, segment: u64) -> Result<f64, Failure> {
    let options = Options { segment_size: segment, ..Options::default() };
    let (_writer, recovered) = journal::open(std::sync::Arc::new(disk.clone()), options).map_err(Failure::refused)?;
    Ok(recovered.state.size() as f64)
}

fn position(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let topic = partitioned(&engine, n)?;
    let mut member = topic.group("all").join().map_err(Failure::refused)?;
    member.poll(Duration::ZERO).map_err(Failure::refused)?;
    let last = TopicPartition { topic: topic.name().into(), partition: n as u32 - 1 };
    nanos_a_call(200, || member.position(&last).map(drop).map_err(Failure::refused))
}
