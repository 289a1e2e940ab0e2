//! Journals that earlier versions of the format wrote, with all kinds of state that an engine keeps: each is opened, has
//! everything that was in it, and goes on. The files in `tests/data/engine-journal-<version>` are never made again.

use slipring::journal::simulated::SimulatedDisk;
use slipring::journal::{Options, recorded_topics};
use slipring::{
    Engine, Level, Message, Persist, Record, Topic,
    clock::{ManualClock, Timestamp},
    group::GroupError,
    journal::ReaderKind,
    replay::{Gap, OnGap},
    topic::Unreadable,
};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::damage::{MARK, lose};

const LONG: Duration = Duration::from_secs(60);
/// The version that is written now.
const FORMAT: u32 = 2;
const NOW: Duration = Duration::ZERO;
const MS: fn(u64) -> Duration = Duration::from_millis;

/// Format 1 named the types by their paths, `upgrade::old::Tick` and `upgrade::old::Note`: they have moved since.
mod moved {
    use super::*;

    /// Plain data.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable)]
    #[repr(C)]
    pub struct Trade {
        pub price: u64,
        pub size: u64,
    }

    /// Bytes of its own.
    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub struct Remark(pub String);

    impl Persist for Remark {
        fn write(&self, out: &mut Vec<u8>) {
            out.extend_from_slice(self.0.as_bytes());
        }

        fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
            self.0 = String::from_utf8(bytes.to_vec()).map_err(|_| Unreadable("a note is text"))?;
            Ok(())
        }

        fn layout() -> String {
            "note 1".to_owned()
        }
    }
}

use moved::{Remark as Note, Trade as Tick};

fn clock() -> ManualClock {
    ManualClock::at(Timestamp::from_millis(1_700_000_000_000))
}

fn engine(disk: &SimulatedDisk, clock: &ManualClock) -> Engine {
    let options = Options { segment_size: 1 << 18, ..Options::default() };
    Engine::builder().clock(clock.clone()).journal_in(disk.clone()).journal_options(options).build().unwrap()
}

struct Topics {
    ticks: Topic<Tick>,
    doubles: Topic<Tick>,
    notes: Topic<Note>,
    jobs: Topic<Message>,
}

fn topics(engine: &Engine) -> Topics {
    let plain = |name| engine.topic::<Tick>(name).capacity(64).durable();
    Topics {
        ticks: plain("ticks").partitions(2).create().unwrap(),
        doubles: plain("doubles").create().unwrap(),
        notes: engine.topic::<Note>("notes").capacity(64).durable().create().unwrap(),
        jobs: engine.topic::<Message>("jobs").partitions(2).capacity(32).max_message(64).durable().create().unwrap(),
    }
}

fn tick(number: u64) -> Tick {
    Tick { price: 100 + number, size: number * 7 }
}

/// All that there is, by partition.
fn read<E: Send + Sync + 'static, T>(topic: &Topic<E>, mut each: impl FnMut(&E) -> T) -> Vec<Vec<(u64, T)>> {
    let mut replay = topic.replay("auditor").open().unwrap();
    let mut events: Vec<Vec<(u64, T)>> = (0..topic.partitions()).map(|_| Vec::new()).collect();
    loop {
        let live = replay.is_live();
        let read = replay.read(NOW, |event, at| events[at.partition as usize].push((at.offset, each(event)))).unwrap();
        if read.is_none() || (live && read == Some(0)) {
            return events;
        }
    }
}

/// Since format 2: a topic of which some events are lost to damage.
fn holes(engine: &Engine) -> Topic<u64> {
    engine.topic::<u64>("holes").capacity(64).durable().create().unwrap()
}

/// Two openings: the first is shut down, then something is damaged and repaired; the second is killed while it holds leases.
fn write() -> SimulatedDisk {
    let (disk, clock) = (SimulatedDisk::new(), clock());
    let first = engine(&disk, &clock);
    let Topics { ticks, doubles, notes, jobs } = topics(&first);
    let mut by_name = ticks.producer().acknowledge(Level::Durable).idempotent("gateway").unwrap();
    for number in 0..20 {
        by_name.publish_to(number, (number % 2) as u32, |event| *event = tick(number)).unwrap();
    }
    let mut plain = notes.producer().acknowledge(Level::Durable).create().unwrap();
    ["first", "second", "third"].iter().for_each(|text| _ = plain.publish(|note| note.0 = (*text).to_owned()).unwrap());
    let mut sums = ticks.group("sums").limit(3).join().unwrap();
    let mut left = 9;
    while left > 0 {
        let batch = sums.poll(LONG).unwrap().unwrap();
        left -= batch.len();
        batch.commit_durable().unwrap();
    }
    drop(sums);
    let mut doubling = ticks.transform("doubling").batch(4).open().unwrap();
    for _ in 0..3 {
        let double = |event: &Tick| Tick { price: event.price, size: event.size * 2 };
        doubling.step(LONG, |event, _, out| out.publish_to(&doubles, 0, |into| *into = double(event))).unwrap();
    }
    drop(doubling);
    let mut both = first.transaction().unwrap();
    both.publish_to(&ticks, 0, |event| *event = tick(1000)).unwrap();
    both.publish_to(&doubles, 0, |event| *event = tick(1001)).unwrap();
    both.commit().unwrap();
    let mut sender = jobs.producer().create().unwrap();
    for number in 0..12_u64 {
        let value = format!("job {number}");
        let record = Record::new(&value).key(b"key").header("kind", "odd").partition((number % 2) as u32);
        sender.send(record).unwrap().wait(Level::Durable).unwrap();
    }
    // A topic that is no more, with all that it had.
    let gone = first.topic::<Tick>("gone").partitions(3).capacity(64).durable().create().unwrap();
    let mut gone_by_name = gone.producer().acknowledge(Level::Durable).idempotent("other-gateway").unwrap();
    (0..6).for_each(|number| _ = gone_by_name.publish_to(number, 0, |event| *event = tick(number)).unwrap());
    let mut copying = gone.transform("copying").open().unwrap();
    copying.step(LONG, |event, _, out| out.publish_to(&doubles, 0, |into| *into = *event)).unwrap();
    drop((copying, gone_by_name, gone));
    first.delete_forced("gone").unwrap();
    let holes = self::holes(&first);
    let mut to_holes = holes.producer().acknowledge(Level::Durable).create().unwrap();
    for number in 0..8 {
        to_holes.publish(|event| *event = if number == 3 { number | MARK } else { number }).unwrap();
    }
    drop((ticks, doubles, notes, jobs, by_name, plain, sender, holes, to_holes));
    assert!(matches!(first.shutdown(LONG).journal, Some(Ok(()))));
    drop(first);
    lose(&disk);

    let second = engine(&disk, &clock);
    let mut reader = self::holes(&second).group("readers").join().unwrap();
    let told = loop {
        match reader.poll(LONG) {
            Ok(batch) => batch.unwrap().commit_durable().unwrap(),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(&told, GroupError::Gap { gap, .. } if *gap == Gap::new("holes", 0, 3..4)), "{told}");
    drop(reader);
    let all = topics(&second);
    let queue = || all.jobs.queue("q").visibility(MS(60_000)).max_attempts(2).acknowledge(Level::Durable);
    let mut worker = queue().join().unwrap();
    let mut leases: Vec<_> = (0..6).map(|_| worker.receive(LONG).unwrap().unwrap()).collect();
    leases.remove(0).ack().unwrap();
    leases.remove(0).nack(MS(5000), "later").unwrap();
    leases.remove(0).nack(NOW, "once").unwrap();
    let again = worker.receive(LONG).unwrap().unwrap();
    assert_eq!(again.attempt(), 2);
    again.nack(NOW, "for good").unwrap();
    let queue = worker.queue();
    while queue.dead_letters().count() != 1 {
        assert!(worker.receive(NOW).unwrap().is_none_or(|lease| {
            let _ = lease.leave();
            true
        }));
    }
    leases.into_iter().for_each(|lease| _ = lease.leave());
    let mut more = all.notes.producer().acknowledge(Level::Durable).create().unwrap();
    more.publish(|note| note.0 = "fourth".to_owned()).unwrap();
    let killed = disk.copy();
    drop((worker, queue, all, more));
    second.shutdown(LONG);
    killed
}

/// What version 2 has besides: a gap, and who was told of it.
fn check_gap(engine: &Engine) {
    let gaps = engine.gaps();
    assert_eq!(gaps.len(), 1, "{gaps:?}");
    assert_eq!(
        (gaps[0].kind, &*gaps[0].reader, &gaps[0].gap),
        (ReaderKind::Group, "readers", &Gap::new("holes", 0, 3..4))
    );
    let holes = holes(engine);
    // That group is behind the gap, another one is told.
    let mut reader = holes.group("readers").join().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let batch = reader.poll(LONG).unwrap().unwrap();
        seen.extend(batch.iter().map(|(event, _)| *event));
        batch.commit().unwrap();
    }
    assert_eq!(seen, [4, 5, 6, 7]);
    let mut other = holes.group("others").on_gap(OnGap::PassOver).join().unwrap();
    let mut seen = Vec::new();
    while seen.len() < 7 {
        let batch = other.poll(LONG).unwrap().unwrap();
        seen.extend(batch.iter().map(|(event, _)| *event));
        batch.commit().unwrap();
    }
    assert_eq!(seen, [0, 1, 2, 4, 5, 6, 7]);
}

/// What must be there, whichever version wrote it.
fn check(disk: &SimulatedDisk, version: u32) {
    let clock = clock();
    let engine = engine(disk, &clock);
    let all = topics(&engine);
    let names: Vec<_> =
        recorded_topics(&engine.recovered().unwrap().state).into_iter().map(|topic| topic.name).collect();
    let since_2 = if version == 1 { None } else { Some("holes") };
    let expected: Vec<_> =
        ["doubles"].into_iter().chain(since_2).chain(["jobs", "jobs.q.dead", "notes", "ticks"]).collect();
    assert_eq!(names, expected);
    if version >= 2 {
        check_gap(&engine);
    }

    let mut expected: Vec<Vec<_>> = (0..2).map(|side| (0..10).map(|at| tick(at * 2 + side)).collect()).collect();
    expected[0].push(tick(1000));
    let found = read(&all.ticks, |event| *event);
    let events: Vec<Vec<_>> = found.iter().map(|events| events.iter().map(|(_, event)| *event).collect()).collect();
    assert_eq!(events, expected);
    let doubled = read(&all.doubles, |event| *event);
    // Twelve of the transform, one of the transaction, and those of the topic that is gone.
    assert!(doubled[0].len() >= 14 && doubled[0].iter().any(|(_, event)| *event == tick(1001)), "{doubled:?}");
    let notes: Vec<_> = read(&all.notes, |note| note.0.clone()).remove(0).into_iter().map(|(_, text)| text).collect();
    assert_eq!(notes, ["first", "second", "third", "fourth"]);
    let jobs = read(&all.jobs, |job| {
        let headers: Vec<_> = job.headers().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
        (job.key().map(<[u8]>::to_vec), String::from_utf8(job.value().to_vec()).unwrap(), headers)
    });
    let header = vec![("kind".to_owned(), b"odd".to_vec())];
    for (side, jobs) in jobs.iter().enumerate() {
        let expected = (0..6).map(|at| (Some(b"key".to_vec()), format!("job {}", at * 2 + side), header.clone()));
        assert_eq!(jobs.iter().map(|(_, job)| job.clone()).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    }

    let stands: BTreeMap<_, _> = engine.groups().into_iter().map(|group| (group.name.clone(), group)).collect();
    let sums = &stands["sums"];
    let committed: u64 = sums.partitions.iter().filter_map(|partition| partition.committed).sum();
    assert_eq!(committed, 9, "{sums}");
    let transforms = engine.transforms();
    let doubling = transforms.iter().find(|transform| transform.name == "doubling").unwrap();
    let committed: u64 = doubling.partitions.iter().map(|partition| partition.committed).sum();
    assert!((9..=12).contains(&committed), "{doubling}");
    assert!(!transforms.iter().any(|transform| transform.name == "copying"), "{transforms:?}");

    // The name knows what it has published; the queue who has what.
    let mut gateway = all.ticks.producer().acknowledge(Level::Durable).idempotent("gateway").unwrap();
    assert_eq!((gateway.epoch(), gateway.resume()), (2, Some(19)));
    let again = gateway.publish(19, |_| panic!("published twice")).unwrap();
    assert_eq!((again.partition, again.offset), (1, 9));
    gateway.publish_to(20, 0, |event| *event = tick(20)).unwrap();
    let mut worker = all.jobs.queue("q").visibility(MS(60_000)).max_attempts(2).join().unwrap();
    let queue = worker.queue();
    let counts = queue.metrics();
    assert_eq!((counts.leased, counts.waiting), (3, 1), "{counts:?}");
    let letters = queue.dead_letters().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!((letters.len(), letters[0].attempts), (1, 2), "{letters:?}");
    let mut fresh = 0;
    while let Some(lease) = worker.receive(NOW).unwrap() {
        assert_eq!(lease.attempt(), 1);
        lease.ack().unwrap();
        fresh += 1;
    }
    assert_eq!(fresh, 6, "those that nobody had yet");
    clock.advance(MS(60_001));
    let mut late = 0;
    while let Some(lease) = worker.receive(NOW).unwrap() {
        assert_eq!(lease.attempt(), 2);
        lease.ack().unwrap();
        late += 1;
    }
    assert_eq!(late, 4, "three leases ran out, one delay is over");
    drop((worker, queue, gateway, all));
    let report = engine.shutdown(LONG);
    assert!(matches!(report.journal, Some(Ok(()))), "{report}");
}

fn folder(version: u32) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/engine-journal-{version}"))
}

/// `cargo test -p slipring --test durability upgrade -- --ignored` made the files of each version, once.
#[test]
#[ignore = "writes the golden files: for a new version of the format only"]
fn write_golden_files() {
    let folder = folder(FORMAT);
    assert!(!folder.exists(), "{} is never made again", folder.display());
    write().save(&folder).unwrap();
}

#[test]
fn what_is_written_now_is_read_back() {
    check(&write(), FORMAT);
}

#[test]
fn version_1_is_opened_with_all_that_it_has() {
    check(&SimulatedDisk::load(&folder(1)).unwrap(), 1);
}

#[test]
fn version_2_is_opened_with_all_that_it_has() {
    check(&SimulatedDisk::load(&folder(2)).unwrap(), 2);
}
