//! A property test of the journal against a model: appends, syncs, crashes, closes and reads in any order.

use super::*;
use crate::simulated::SimulatedDisk;
use fastrand::Rng;
use proptest::prelude::*;
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    Work { seed: u64, steps: u64 },
    Sync,
    Mark,
    Crash { seed: u64 },
    Kill,
    Close,
    Read { partition: u32, offset: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u64.., 1..12_u64).prop_map(|(seed, steps)| Step::Work { seed, steps }),
        2 => Just(Step::Sync),
        1 => Just(Step::Mark),
        2 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        2 => (0..3_u32, 0..80_u64).prop_map(|(partition, offset)| Step::Read { partition, offset }),
    ]
}

fn read(writer: &Writer, story: &Story, number: u32, offset: u64) {
    let partition = part(number);
    let all = story.content(story.frames.len()).records.remove(&partition).unwrap_or_default();
    match writer.journal().reader(partition, Start::Offset(offset), Visible::Written) {
        Ok(mut reader) => {
            for (expected, bytes) in all.into_iter().filter(|(at, _)| *at >= offset) {
                let record = reader.next().unwrap().unwrap();
                assert_eq!((record.offset, record.bytes), (expected, &*bytes));
            }
            assert_eq!(reader.next().unwrap(), None);
        }
        Err(ReplayError::Unknown(_)) => assert!(all.is_empty()),
        Err(ReplayError::OutOfRange { latest, .. }) => {
            assert!(offset > latest && all.last().is_none_or(|(last, _)| *last < latest));
        }
        Err(other) => panic!("{other}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_is_its_model(steps in prop::collection::vec(step(), 1..25), packed in 0..3_usize) {
        let codec = [Codec::Plain, Codec::Lz4, Codec::Zstd][packed];
        let options = Options { codec, ..small() };
        let mut disk = SimulatedDisk::new();
        let mut story = Story::default();
        let mut writer = reopen(&disk, &options, &mut story).unwrap();
        for step in steps {
            match step {
                Step::Work { seed, steps } => story.work(&mut writer, &mut Rng::with_seed(seed), steps).unwrap(),
                Step::Sync => {
                    writer.sync().unwrap();
                    story.acknowledged = story.frames.len();
                }
                Step::Mark if writer.wants_mark() => writer.mark(1).unwrap(),
                Step::Mark => {}
                Step::Crash { seed } => {
                    disk = disk.crash(seed);
                    writer = reopen(&disk, &options, &mut story).unwrap();
                }
                Step::Kill => {
                    let frames = story.frames.len();
                    disk = disk.copy();
                    writer = reopen(&disk, &options, &mut story).unwrap();
                    prop_assert_eq!(story.frames.len(), frames, "the page cache outlives the process");
                }
                Step::Close => {
                    let frames = story.frames.len();
                    writer.close(3).unwrap();
                    // A closed journal loses nothing in a crash.
                    disk = disk.crash(1);
                    let (reopened, recovered) = open(Arc::new(disk.clone()), options.clone()).unwrap();
                    drop(reopened);
                    prop_assert!(recovered.torn.is_none());
                    for (_, extent) in recovered.state.extents() {
                        prop_assert_eq!(extent.end, extent.reserved, "reservations were given back");
                    }
                    for issued in story.issued.iter_mut() {
                        *issued.1 = 0;
                    }
                    writer = reopen(&disk, &options, &mut story).unwrap();
                    prop_assert_eq!(story.frames.len(), frames);
                }
                Step::Read { partition, offset } => read(&writer, &story, partition, offset),
            }
        }
    }
}
