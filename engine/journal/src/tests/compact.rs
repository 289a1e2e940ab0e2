//! Compaction: against a naive map, through crashes at every call, under readers, and beside damage.

use super::*;
use crate::format::{FrameKind, entries};
use crate::shared::Shared;
use crate::simulated::{Fault, SimulatedDisk};
use crate::storage::Storage;
use fastrand::Rng;
use proptest::prelude::*;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;

/// Records are a key, a colon and a value. A record without a value is a tombstone, one without a colon has no key.
struct Rules {
    below: u64,
    tombstones_before: u64,
    /// The number of the only partition that is compacted; `None` if all are.
    only: Option<u32>,
}

const ALL: Rules = Rules { below: u64::MAX, tombstones_before: u64::MAX, only: None };

impl CompactionRules for Rules {
    fn rule(&self, partition: PartitionId) -> Option<CompactionRule> {
        let &Self { below, tombstones_before, only } = self;
        only.is_none_or(|only| part(only) == partition).then_some(CompactionRule { below, tombstones_before })
    }

    fn key<'r>(&self, _: PartitionId, _: u64, bytes: &'r [u8]) -> Option<RecordKey<'r>> {
        let colon = bytes.iter().position(|byte| *byte == b':')?;
        Some(RecordKey { bytes: &bytes[..colon], is_tombstone: colon + 1 == bytes.len() })
    }
}

fn compact(writer: &Writer, rules: Rules) -> Compacted {
    let outcome: Receiver<_> = writer.compact(Arc::new(rules)).unwrap();
    outcome.recv().unwrap().unwrap()
}

type Records = Vec<(u64, Vec<u8>)>;

/// All that was written to a partition, and what retention, if any, has deleted.
#[derive(Clone, Debug, Default)]
struct Model {
    frames: Vec<Vec<(PartitionId, u64, Vec<u8>)>>,
    acknowledged: usize,
    next: BTreeMap<PartitionId, u64>,
}

const COUNT_KIND: u16 = 20;

impl Model {
    /// Appends a frame of some records to three partitions, with the count of frames as state.
    fn append(&mut self, writer: &mut Writer, dice: &mut Rng, keys: u64, time: u64) -> Result<(), WriteError> {
        let (mut frame, mut said) = (FrameBuilder::new(), Vec::new());
        for _ in 0..1 + dice.u64(..4) {
            let partition = part(dice.u64(..3) as u32);
            let next = self.next.entry(partition).or_default();
            let len = [0, 3, 40, 110][dice.usize(..4)];
            let bytes = match dice.u64(..12) {
                0 => vec![b'x'; len],
                _ => [format!("{}:", dice.u64(..keys)).into_bytes(), vec![b'v'; len]].concat(),
            };
            let own = (dice.u64(..3) == 0).then_some(time * 7);
            frame.record(partition, *next, own, &bytes);
            said.push((partition, *next, bytes));
            *next += 1 + u64::from(dice.u64(..9) == 0);
        }
        self.frames.push(said);
        frame.put(COUNT_KIND, b"frames", &(self.frames.len() as u64).to_le_bytes());
        if dice.u64(..4) == 0 {
            frame.put(COUNT_KIND, &[dice.u8(..5)], &vec![7; dice.usize(..40)]);
        }
        writer.append(&mut frame, time)?;
        Ok(())
    }

    /// Cuts the model to the frames that the journal has after a crash.
    fn recovered(&mut self, state: &State) {
        let count = state.get(COUNT_KIND, b"frames").map_or(0, |count| u64::from_le_bytes(count.try_into().unwrap()));
        assert!(count as usize >= self.acknowledged, "{} were acknowledged, {count} are there", self.acknowledged);
        self.frames.truncate(count as usize);
        self.acknowledged = count as usize;
    }

    fn records(&self, of: PartitionId) -> Records {
        let all = self.frames.iter().flatten().filter(|(partition, ..)| *partition == of);
        all.map(|(_, offset, bytes)| (*offset, bytes.clone())).collect()
    }

    /// Fails unless what is there of a partition from an offset on is what was written, but for superseded records and
    /// tombstones. A key that is there at all has its last record, and one without a value has no older one.
    fn check(&self, of: PartitionId, from: u64, there: &Records, keeps_tombstones: bool) {
        let key = |bytes: &[u8]| ALL.key(of, 0, bytes).map(|key| (key.bytes.to_vec(), key.is_tombstone));
        let mut last = BTreeMap::new();
        let all: Records = self.records(of);
        all.iter().for_each(|(offset, bytes)| {
            key(bytes).map(|(key, _)| last.insert(key, *offset));
        });
        let mut left = there.iter().peekable();
        for (offset, bytes) in all.iter().filter(|(offset, _)| *offset >= from) {
            if left.next_if(|found| *found == &(*offset, bytes.clone())).is_some() {
                continue;
            }
            let (key, is_tombstone) = key(bytes).expect("records without a key stay");
            let is_last = last[&key] == *offset;
            assert!(!is_last || (is_tombstone && !keeps_tombstones), "{of:?}: the last record of {key:?} is gone");
            let is_elder = |(at, bytes): &&(u64, Vec<u8>)| {
                *at < *offset && self::ALL.key(of, 0, bytes).is_some_and(|it| it.bytes == key)
            };
            let elder = there.iter().find(is_elder);
            assert!(!is_last || elder.is_none(), "{of:?}: {key:?} has come back: {elder:?}");
        }
        assert_eq!(left.next(), None, "{of:?}: what was never written, or out of order");
    }

    fn check_all(&self, journal: &Journal, keeps_tombstones: bool) {
        for number in 0..3 {
            self.check(part(number), 0, &read(journal, part(number), 0), keeps_tombstones);
        }
    }
}

fn read(journal: &Journal, of: PartitionId, from: u64) -> Records {
    let mut records = Vec::new();
    let reader = journal.reader(of, Start::Earliest, Visible::Written);
    if matches!(reader, Err(ReplayError::Unknown(_))) {
        return records;
    }
    let mut reader = reader.unwrap();
    while let Some(record) = reader.next().unwrap() {
        if record.offset >= from {
            records.push((record.offset, record.bytes.to_vec()));
        }
    }
    records
}

/// The number of each segment with the state that its frames lead to, and with their end.
fn segment_states(disk: &SimulatedDisk) -> BTreeMap<u64, (State, u64)> {
    let survey = inspect(Arc::new(disk.clone()), true).unwrap();
    assert!(survey.stale_indexes().is_empty() && survey.stray_bytes().is_empty());
    let mut frames = survey.frames(Arc::new(disk.clone()));
    let (mut states, mut state, mut now) = (BTreeMap::new(), State::default(), 0);
    while let Some(frame) = frames.next().unwrap() {
        if frame.segment != now || matches!(frame.header.kind, FrameKind::Snapshot { first: true, .. }) {
            (now, state) = (frame.segment, State::default());
        }
        for entry in entries(&frame.plain) {
            state.apply(&entry.unwrap()).unwrap();
        }
        states.insert(now, (state.clone(), frame.at + frame.header.span()));
    }
    states
}

#[derive(Clone, Debug)]
enum Step {
    Append { seed: u64, frames: u64 },
    Compact { below: u64, old: bool, only: Option<u32> },
    EndSegment { at_rest: bool },
    Crash { seed: u64 },
    Close,
    Read { seed: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let only = prop_oneof![3 => Just(None), 1 => (0..3_u32).prop_map(Some)];
    prop_oneof![
        5 => (1_u64.., 1..30_u64).prop_map(|(seed, frames)| Step::Append { seed, frames }),
        4 => (prop_oneof![Just(u64::MAX), 0..200_u64], any::<bool>(), only)
            .prop_map(|(below, old, only)| Step::Compact { below, old, only }),
        2 => any::<bool>().prop_map(|at_rest| Step::EndSegment { at_rest }),
        1 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        1 => Just(Step::Close),
        2 => any::<u64>().prop_map(|seed| Step::Read { seed }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    /// Readers that stand anywhere go on without an error through all that is done, and see what a map says they may.
    #[test]
    fn a_compacted_journal_has_the_last_record_of_each_key(
        steps in prop::collection::vec(step(), 1..24), keys in 1..40_u64, packed in 0..3_usize,
    ) {
        let codec = [Codec::Plain, Codec::Lz4, Codec::Zstd][packed];
        let options = Options { codec, ..small() };
        let mut disk = SimulatedDisk::new();
        let (mut writer, _) = open(Arc::new(disk.clone()), options.clone()).unwrap();
        let mut model = Model::default();
        let mut readers: Vec<(PartitionId, Reader, Records)> = Vec::new();
        let mut time = 1;
        for step in steps {
            match step {
                Step::Append { seed, frames } => {
                    let mut dice = Rng::with_seed(seed);
                    for _ in 0..frames {
                        time += 1;
                        model.append(&mut writer, &mut dice, keys, time).unwrap();
                        if dice.u64(..3) == 0 {
                            writer.sync().unwrap();
                            model.acknowledged = model.frames.len();
                        }
                    }
                }
                Step::Compact { below, old, only } => {
                    let states = segment_states(&disk);
                    let tombstones_before = if old { u64::MAX } else { 0 };
                    let done = compact(&writer, Rules { below, tombstones_before, only });
                    prop_assert_eq!(done.left, 0);
                    let after = segment_states(&disk);
                    for (number, (state, end)) in states {
                        prop_assert_eq!(&after[&number].0, &state, "segment {} leads to the same state", number);
                        prop_assert!(after[&number].1 <= end);
                    }
                }
                Step::EndSegment { at_rest: true } => _ = writer.end_segment_at_rest(&ALL, time).unwrap(),
                Step::EndSegment { at_rest: false } => _ = writer.end_segment_to_compact(&ALL, time).unwrap(),
                Step::Crash { seed } => {
                    disk = disk.crash(seed);
                    readers.clear();
                    let (reopened, recovered) = open(Arc::new(disk.clone()), options.clone()).unwrap();
                    writer = reopened;
                    model.recovered(&recovered.state);
                }
                Step::Close => {
                    readers.clear();
                    writer.close(time).unwrap();
                    model.acknowledged = model.frames.len();
                    let (reopened, recovered) = open(Arc::new(disk.clone()), options.clone()).unwrap();
                    writer = reopened;
                    model.recovered(&recovered.state);
                }
                Step::Read { seed } => {
                    let mut dice = Rng::with_seed(seed);
                    let partition = part(dice.u64(..3) as u32);
                    if let Ok(reader) = writer.journal().reader(partition, Start::Earliest, Visible::Written) {
                        readers.push((partition, reader, Vec::new()));
                    }
                }
            }
            for (_, reader, seen) in &mut readers {
                for _ in 0..7 {
                    let Some(record) = reader.next().unwrap() else { break };
                    seen.push((record.offset, record.bytes.to_vec()));
                }
            }
            model.check_all(&writer.journal(), false);
        }
        for (partition, mut reader, mut seen) in readers {
            while let Some(record) = reader.next().unwrap() {
                seen.push((record.offset, record.bytes.to_vec()));
            }
            // A reader that has read an older record before a tombstone went keeps what it has read.
            let all = model.records(partition);
            prop_assert!(seen.is_sorted_by_key(|(offset, _)| *offset));
            prop_assert!(seen.iter().all(|record| all.contains(record)));
            let there = read(&writer.journal(), partition, 0);
            prop_assert!(there.iter().all(|record| seen.contains(record)), "what stays was read by every reader");
        }
    }
}

/// A journal of many segments with few keys, durable.
fn filled(options: &Options, frames: u64) -> (SimulatedDisk, Writer, Model) {
    let disk = SimulatedDisk::new();
    let (mut writer, _) = open(Arc::new(disk.clone()), options.clone()).unwrap();
    let (mut model, mut dice) = (Model::default(), Rng::with_seed(11));
    for time in 1..=frames {
        model.append(&mut writer, &mut dice, 12, time).unwrap();
        writer.sync().unwrap();
    }
    model.acknowledged = model.frames.len();
    (disk, writer, model)
}

#[test]
fn a_crash_at_any_call_of_a_compaction_leaves_the_old_segment_or_the_new_one() {
    let (done, states) = crash_at_each_call(60);
    assert!(done.rewritten >= 5 && done.tombstones > 0 && states > 200, "{done:?}, {states}");
}

#[test]
fn a_crash_while_the_present_segment_is_ended_and_compacted_loses_nothing() {
    let (done, states) = crash_at_each_call(8);
    assert!((done.segments, done.rewritten) == (1, 1) && done.removed > 0 && states > 50, "{done:?}, {states}");
}

/// Ends the present segment if that is worth it, and compacts. What a whole compaction does, and how many crashes there were.
fn crash_at_each_call(frames: u64) -> (Compacted, usize) {
    let options = small();
    let mut states = 0;
    let (disk, mut writer, _) = filled(&options, frames);
    let before = disk.calls();
    writer.end_segment_to_compact(&ALL, frames + 1).unwrap();
    writer.sync().unwrap();
    let done = compact(&writer, ALL);
    let calls = disk.calls() - before;
    drop(writer);
    for cut in 1..=calls {
        let (disk, mut writer, model) = filled(&options, frames);
        disk.fail_after(cut, Fault::PowerCut);
        // Each of them may fail once the power is cut.
        let _ = (writer.end_segment_to_compact(&ALL, frames + 1), writer.sync());
        let _ = writer.compact(Arc::new(ALL)).map(|outcome| outcome.recv());
        drop(writer);
        for subset in 0..6 {
            let left = disk.crash(subset * 977 + cut);
            let survey = inspect(Arc::new(left.clone()), true).unwrap();
            assert!(survey.torn().is_none(), "call {cut}, subset {subset}: {:?}", survey.torn());
            let (mut writer, recovered) = open(Arc::new(left.clone()), options.clone()).unwrap();
            let mut model = model.clone();
            model.recovered(&recovered.state);
            model.check_all(&writer.journal(), false);
            let unfinished = left.list().unwrap().into_iter().find(|name| name.ends_with(".new"));
            assert_eq!(unfinished, None, "the opening removes the file of an interrupted compaction");
            if subset < 2 {
                let mut dice = Rng::with_seed(subset + 3);
                (0..20).for_each(|time| model.append(&mut writer, &mut dice, 12, 100 + time).unwrap());
                writer.sync().unwrap();
                compact(&writer, ALL);
                model.check_all(&writer.journal(), false);
            }
            states += 1;
        }
    }
    (done, states)
}

#[test]
fn what_is_being_written_can_be_compacted_once_it_is_at_rest() {
    let (_, mut writer, model) = filled(&small(), 12);
    let last = |writer: &Writer| writer.shared().segments().last().unwrap().header.number;
    let before = last(&writer);
    assert!(!writer.end_segment_at_rest(&ALL, 61).unwrap(), "it may have been written just now");
    let nothing = Rules { only: Some(9), ..ALL };
    assert!(!writer.end_segment_at_rest(&nothing, 62).unwrap(), "no partition is compacted");
    assert!(!writer.end_segment_at_rest(&ALL, 63).unwrap());
    assert_eq!(last(&writer), before);
    assert!(writer.end_segment_at_rest(&ALL, 64).unwrap());
    assert_eq!(last(&writer), before + 1);
    assert!(
        !writer.end_segment_at_rest(&ALL, 65).unwrap() && !writer.end_segment_at_rest(&ALL, 66).unwrap(),
        "it is empty"
    );
    writer.sync().unwrap();
    compact(&writer, ALL);
    model.check_all(&writer.journal(), false);
    let left: usize = (0..3).map(|number| read(&writer.journal(), part(number), 0)).map(|left| left.len()).sum();
    let without_key = |of| model.records(part(of)).iter().filter(|(_, bytes)| !bytes.contains(&b':')).count();
    assert!(
        left <= 3 * 12 + (0..3).map(without_key).sum::<usize>(),
        "{left} records: one of each key is left, and what has none"
    );
}

/// The rules are the user's code, which may wait for another thread that uses the journal.
#[test]
fn no_lock_is_held_while_rules_are_asked() {
    struct Waits(Arc<Shared>);
    impl CompactionRules for Waits {
        fn rule(&self, partition: PartitionId) -> Option<CompactionRule> {
            let (shared, (done, is_done)) = (Arc::clone(&self.0), std::sync::mpsc::channel());
            std::thread::spawn(move || {
                shared.segments_mut().iter().for_each(|segment| drop(segment.index()));
                done.send(())
            });
            is_done.recv_timeout(std::time::Duration::from_secs(60)).expect("nobody holds a lock");
            ALL.rule(partition)
        }

        fn key<'r>(&self, partition: PartitionId, offset: u64, bytes: &'r [u8]) -> Option<RecordKey<'r>> {
            ALL.key(partition, offset, bytes)
        }
    }
    let (_, mut writer, _) = filled(&small(), 12);
    let rules = Waits(Arc::clone(writer.shared()));
    assert!(!writer.end_segment_at_rest(&rules, 61).unwrap());
    assert!(writer.end_segment_at_rest(&rules, 62).unwrap());
}

#[test]
fn an_error_of_the_disk_ends_a_compaction_and_not_the_journal() {
    let options = small();
    for (call, fault) in (1..60).flat_map(|call| [(call, Fault::Io), (call, Fault::Full), (call, Fault::Short)]) {
        let (disk, mut writer, mut model) = filled(&options, 40);
        disk.fail_after(call, fault);
        let _ = writer.compact(Arc::new(ALL)).unwrap().recv().unwrap();
        model.check_all(&writer.journal(), false);
        let mut dice = Rng::with_seed(call);
        (0..10).for_each(|time| model.append(&mut writer, &mut dice, 12, 100 + time).unwrap());
        writer.sync().unwrap();
        compact(&writer, ALL);
        model.check_all(&writer.journal(), false);
        drop(writer);
        let (writer, recovered) = open(Arc::new(disk.crash(call)), options.clone()).unwrap();
        model.recovered(&recovered.state);
        model.check_all(&writer.journal(), false);
    }
}

#[test]
fn after_a_compaction_an_opening_believes_every_index() {
    let (disk, mut writer, _) = filled(&small(), 60);
    let size = |disk: &SimulatedDisk| -> usize {
        let names = disk.list().unwrap();
        names.iter().filter(|name| name.ends_with(".segment")).map(|name| disk.contents(name).unwrap().len()).sum()
    };
    let before = size(&disk);
    let copied = SimulatedDisk::new();
    copy(Arc::new(disk.clone()), Arc::new(copied.clone()), &mut |_| {}).unwrap();
    let done = compact(&writer, ALL);
    let again = copy(Arc::new(disk.clone()), Arc::new(copied.clone()), &mut |_| {}).unwrap();
    assert!(again.copied >= done.rewritten, "{again:?}");
    assert_eq!(segment_states(&copied), segment_states(&disk));
    let (_, recovered) = open(Arc::new(copied), small()).unwrap();
    assert_eq!(recovered.believed, recovered.segments - 1, "{recovered:?}");
    assert!(before - size(&disk) >= done.freed as usize, "{done:?}");
    assert_eq!(compact(&writer, ALL).rewritten, 0, "what is compact stays as it is");
    assert_eq!(writer.journal().compactions().removed, done.removed);
    writer.mark(99).unwrap();
    writer.sync().unwrap();
    drop(writer);
    let (writer, recovered) = open(Arc::new(disk.clone()), small()).unwrap();
    assert_eq!(recovered.believed, recovered.segments - 1, "{recovered:?}");
    drop(writer);
}

#[test]
fn a_tombstone_stays_while_it_is_young_or_an_older_record_of_its_key_stays() {
    let (disk, options) = (SimulatedDisk::new(), small());
    let (mut writer, _) = open(Arc::new(disk.clone()), options.clone()).unwrap();
    let p = part(0);
    let mut frame = FrameBuilder::new();
    let mut offset = 0;
    let mut append = |writer: &mut Writer, bytes: &[u8], time: u64| {
        frame.record(p, offset, None, bytes);
        offset += 1;
        writer.append(&mut frame, time).unwrap();
        writer.sync().unwrap();
    };
    // The record of "a" stands in a segment of records without keys, which is not worth a compaction.
    append(&mut writer, b"a:1", 1);
    (0..7).for_each(|_| append(&mut writer, &[b'x'; 500], 1));
    // That of "b" stands beside others that go.
    append(&mut writer, b"b:1", 2);
    (0..40).for_each(|_| append(&mut writer, &[&b"c:"[..], &[b'v'; 200]].concat(), 2));
    append(&mut writer, b"a:", 3);
    append(&mut writer, b"b:", 3);
    (0..40).for_each(|_| append(&mut writer, &[&b"c:"[..], &[b'v'; 200]].concat(), 4));
    let keys = |writer: &Writer| -> Vec<String> {
        let there = read(&writer.journal(), p, 0);
        let short = there.into_iter().filter(|(_, bytes)| bytes.len() < 10);
        short.map(|(_, bytes)| String::from_utf8(bytes).unwrap()).collect()
    };
    compact(&writer, Rules { tombstones_before: 3, ..ALL });
    assert_eq!(keys(&writer), ["a:1", "a:", "b:"], "both are too young");
    compact(&writer, Rules { tombstones_before: 4, ..ALL });
    assert_eq!(keys(&writer)[..2], ["a:1", "a:"], "the record that it hides stays");
    drop(writer);
    let (writer, _) = open(Arc::new(disk.crash(1)), options).unwrap();
    compact(&writer, ALL);
    assert_eq!(keys(&writer)[..2], ["a:1", "a:"]);
}

/// A damaged segment is left as it is, and no tombstone goes that may hide a record in it.
#[test]
fn damage_keeps_its_segment_and_all_tombstones() {
    let (disk, writer, model) = filled(&small(), 60);
    let name = "00000000000000000002.segment";
    disk.edit(name, |bytes| bytes[1500] ^= 1);
    let before = disk.contents(name).unwrap();
    let done = compact(&writer, ALL);
    assert!(done.left == 1 && done.rewritten > 3 && done.tombstones <= 1, "{done:?}");
    assert_eq!(disk.contents(name).unwrap(), before);
    disk.edit(name, |bytes| bytes[1500] ^= 1);
    model.check_all(&writer.journal(), false);
}

/// With the thread of a journal in a program: appends, readers and compactions at once.
#[test]
fn readers_and_the_writer_go_on_while_the_thread_compacts() {
    let disk = SimulatedDisk::new();
    let options = Options { segment_size: 16 << 10, ..Options::default() };
    let (mut writer, _) = open(Arc::new(disk.clone()), options.clone()).unwrap();
    let (mut model, mut dice) = (Model::default(), Rng::with_seed(5));
    model.append(&mut writer, &mut dice, 20, 1).unwrap();
    let journal = writer.journal();
    let over = std::sync::atomic::AtomicBool::new(false);
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Acquire) {
                    (0..3).for_each(|number| all.lock().unwrap().push((number, read(&journal, part(number), 0))));
                }
            });
        }
        for round in 0..30 {
            for time in 0..40 {
                model.append(&mut writer, &mut dice, 20, round * 40 + time).unwrap();
            }
            writer.sync().unwrap();
            compact(&writer, ALL);
        }
        over.store(true, std::sync::atomic::Ordering::Release);
    });
    model.check_all(&journal, false);
    for (number, seen) in all.into_inner().unwrap() {
        let written: BTreeMap<u64, Vec<u8>> = model.records(part(number)).into_iter().collect();
        assert!(seen.is_sorted_by_key(|(offset, _)| *offset));
        assert!(seen.iter().all(|(offset, bytes)| written.get(offset) == Some(bytes)));
    }
    drop((journal, writer));
    let (writer, _) = open(Arc::new(disk.crash(9)), options).unwrap();
    model.check_all(&writer.journal(), false);
}

/// A tool that looks at the directory of a running program goes on in the new file where its survey had the old one.
#[test]
fn a_tool_reads_on_where_a_compaction_replaced_the_file() {
    let (disk, writer, model) = filled(&small(), 60);
    let survey = inspect(Arc::new(disk.clone()), false).unwrap();
    let mut frames = survey.frames(Arc::new(disk.clone()));
    let mut seen: BTreeMap<PartitionId, Records> = BTreeMap::new();
    let mut rounds = 0;
    while let Some(frame) = frames.next().unwrap() {
        for entry in entries(&frame.plain) {
            if let crate::format::Entry::Run(run) = entry.unwrap() {
                let records = run.records().map(|record| (record.offset, record.bytes.to_vec()));
                seen.entry(run.partition).or_default().extend(records);
            }
        }
        rounds += 1;
        if rounds == 4 {
            assert!(compact(&writer, ALL).rewritten > 3);
        }
    }
    for (partition, seen) in seen {
        let all = model.records(partition);
        assert!(seen.is_sorted_by_key(|(offset, _)| *offset) && seen.iter().all(|record| all.contains(record)));
        let there = read(&writer.journal(), partition, 0);
        assert!(there.iter().all(|record| seen.contains(record)), "what stays is seen");
    }
}
