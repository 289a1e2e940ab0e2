//! A journal that is written anew in the present layout.

use slipring::journal::{ConvertError, Converted, convert, group_offsets, recorded_topics};
use slipring::subscriber::StartAt;
use slipring::topic::Upgrades;
use slipring::{Engine, Level, Message, Record};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    pub struct Old { pub id: u32, pub cents: u32 }
}

slipring::plain_event! {
    #[derive(Debug, Default, PartialEq)]
    pub struct New { pub id: u64, pub ticks: i64 }
}

fn steps() -> Upgrades {
    Upgrades::new().step(|old: &Old, new: &mut New| *new = New { id: old.id.into(), ticks: i64::from(old.cents) * 4 })
}

/// A journal with a topic in two layouts, with a gap between them, a group, a queue's lease, a producer with a name, and
/// messages.
fn journal() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("journal");
    let engine = Engine::open(&dir).unwrap();
    let ticks = engine.topic::<Old>("ticks").partitions(2).timestamps().durable().create().unwrap();
    let mut gateway = ticks.producer().acknowledge(Level::Durable).idempotent("gateway").unwrap();
    for id in 0..30 {
        gateway.publish_to(id, (id % 2) as u32, |to| *to = Old { id: id as u32, cents: 10 }).unwrap();
    }
    let gone = engine.topic::<Old>("gone").durable().create().unwrap();
    gone.producer().acknowledge(Level::Durable).create().unwrap().publish(|_| ()).unwrap();
    drop(gone);
    engine.delete_forced("gone").unwrap();
    let words = engine.topic::<Message>("words").durable().create().unwrap();
    let mut sender = words.producer().acknowledge(Level::Durable).create().unwrap();
    (0..5).for_each(|_| _ = sender.send(Record::new("job").key("k")).unwrap());
    let mut worker = words.queue("work").acknowledge(Level::Durable).join().unwrap();
    worker.receive(LONG).unwrap().unwrap().ack().unwrap();
    worker.receive(LONG).unwrap().unwrap().nack(LONG, "later").unwrap();
    drop((gateway, sender, worker, ticks, words));
    engine.shutdown(LONG);
    let engine = Engine::open(&dir).unwrap();
    let ticks = engine.topic::<New>("ticks").partitions(2).timestamps().durable().upgrades(steps()).create().unwrap();
    let mut member = ticks.group("sums").start(StartAt::Earliest).limit(7).join().unwrap();
    member.poll(LONG).unwrap().unwrap().commit_durable().unwrap();
    let mut producer = ticks.producer().acknowledge(Level::Durable).create().unwrap();
    (30..40).for_each(|id| _ = producer.publish_to((id % 2) as u32, |to| *to = New { id, ticks: 40 }).unwrap());
    drop((member, producer, ticks));
    engine.shutdown(LONG);
    (folder, dir)
}

#[derive(Debug, PartialEq)]
struct Contents {
    events: Vec<(u32, u64, New)>,
    texts: Vec<(u64, Vec<u8>)>,
    groups: Vec<u64>,
    jobs: u64,
}

/// What readers of a journal find: the events of `ticks` with their offsets and times, the words, the group's offsets, the
/// count of messages that the queue still has.
fn contents(dir: &Path, upgrades: Upgrades) -> Contents {
    let engine = Engine::open(dir).unwrap();
    let groups = group_offsets(&engine.recovered().unwrap().state).into_iter().map(|at| at.offset).collect();
    let ticks = engine.topic::<New>("ticks").partitions(2).timestamps().durable().upgrades(upgrades).create().unwrap();
    let words = engine.topic::<Message>("words").durable().create().unwrap();
    let mut gateway = ticks.producer().acknowledge(Level::Durable).idempotent("gateway").unwrap();
    assert_eq!(gateway.resume(), Some(29));
    let again = gateway.publish(29, |_| panic!("published twice")).unwrap();
    assert_eq!((again.partition, again.offset), (1, 14));
    let (mut events, mut texts) = (Vec::new(), Vec::new());
    let mut replay = ticks.replay("auditor").open().unwrap();
    while events.len() < 40 {
        replay.read(LONG, |event, at| events.push((at.partition, at.offset, *event))).unwrap();
    }
    events.sort_by_key(|(partition, offset, _)| (*partition, *offset));
    let mut replay = words.replay("auditor").open().unwrap();
    while texts.len() < 5 {
        replay.read(LONG, |word, at| texts.push((at.offset, word.value().to_vec()))).unwrap();
    }
    let mut worker = words.queue("work").join().unwrap();
    let mut count = 1;
    while let Some(lease) = worker.receive(Duration::ZERO).unwrap() {
        lease.ack().unwrap();
        count += 1;
    }
    drop((gateway, replay, worker, ticks, words));
    engine.shutdown(LONG);
    Contents { events, texts, groups, jobs: count }
}

fn run(from: &Path, to: &Path) -> Result<Converted, ConvertError> {
    convert(from, to, &[("ticks", steps())], &mut |_| {})
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_converted_journal_has_the_same_records_offsets_and_state_in_one_layout() {
    let (folder, dir) = journal();
    let (to, before) = (folder.path().join("converted"), folder.path().join("before"));
    copy(&dir, &before);
    let done = run(&dir, &to).unwrap();
    assert_eq!((done.records, done.upgraded), (45, 30));
    // The source is as it was.
    for file in fs::read_dir(&before).unwrap() {
        let name = file.unwrap().file_name();
        if name != "lock" {
            assert!(fs::read(dir.join(&name)).unwrap() == fs::read(before.join(&name)).unwrap(), "{name:?}");
        }
    }
    let engine = Engine::open(&to).unwrap();
    let topics = recorded_topics(&engine.recovered().unwrap().state);
    engine.shutdown(LONG);
    assert!(topics.iter().all(|topic| topic.older.is_empty()) && topics.len() == 3, "{topics:?}");
    let (old, new) = (contents(&dir, steps()), contents(&to, Upgrades::new()));
    assert_eq!(old, new);
    assert_eq!(new.events[3], (0, 3, New { id: 6, ticks: 40 }));
    assert!(
        new.jobs == 4 && new.groups.iter().sum::<u64>() > 0,
        "one acknowledged, one waits; some were committed: {new:?}"
    );
}

#[test]
fn what_cannot_be_converted_is_named_and_leaves_nothing() {
    let (folder, dir) = journal();
    let to = folder.path().join("converted");
    let refused = convert(&dir, &to, &[], &mut |_| {}).unwrap_err();
    assert!(matches!(&refused, ConvertError::NoUpgrade { topic, .. } if topic == "ticks"), "{refused}");
    let broken = Upgrades::new().step(|_: &[u8; 3], new: &mut Old| new.id = 1).step(|_: &Old, _: &mut New| ());
    assert!(convert(&dir, &to, &[("ticks", broken)], &mut |_| {}).is_ok(), "a step that leads nowhere is not used");
    fs::remove_dir_all(&to).unwrap();
    let refused = run(&folder.path().join("nowhere"), &to).unwrap_err();
    assert!(refused.to_string().contains("nowhere"), "{refused}");
    fs::create_dir(folder.path().join("empty")).unwrap();
    let refused = run(&folder.path().join("empty"), &to).unwrap_err();
    assert!(matches!(&refused, ConvertError::NoJournal { .. }), "{refused}");
    fs::create_dir(&to).unwrap();
    let refused = run(&dir, &to).unwrap_err();
    assert!(matches!(&refused, ConvertError::Exists { .. }), "{refused}");
    fs::remove_dir(&to).unwrap();
    // What an earlier call has left is no hindrance; what is somebody else's is.
    let unfinished = folder.path().join("converted.converting");
    copy(&dir, &unfinished);
    fs::write(unfinished.join("notes.txt"), "mine").unwrap();
    let refused = run(&dir, &to).unwrap_err();
    assert!(matches!(&refused, ConvertError::NotOurs { name, .. } if name == "notes.txt"), "{refused}");
    assert_eq!(fs::read(unfinished.join("notes.txt")).unwrap(), b"mine");
    fs::remove_file(unfinished.join("notes.txt")).unwrap();
    let engine = Engine::open(&dir).unwrap();
    let refused = run(&dir, &to).unwrap_err();
    assert!(matches!(&refused, ConvertError::Source(_)) && refused.to_string().contains("is open in"), "{refused}");
    engine.shutdown(LONG);
    drop(engine);
    assert!(run(&dir, &to).is_ok() && !unfinished.exists());
    // An event that its layout does not explain.
    let engine = Engine::open(&dir).unwrap();
    let texts = engine.topic::<Message>("words").durable().schema(2).upgrade_schema(1, |_, value| value.push(1));
    drop(texts.create().unwrap());
    engine.shutdown(LONG);
    drop(engine);
    let other = folder.path().join("other");
    let words = Upgrades::new().schema(1, |old, value| value.extend_from_slice(old.value()));
    let done = convert(&dir, &other, &[("words", words), ("ticks", steps())], &mut |_| {}).unwrap();
    assert_eq!((done.records, done.upgraded), (45, 35));
}
