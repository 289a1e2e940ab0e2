use super::*;
use crate::base::ids::MAX_NAME;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[test]
fn a_stamp_is_of_one_lap() {
    let stamps = ProducerStamps::new(4);
    assert_eq!(stamps.get(0), None);
    let stamp = ProducerStamp { producer: 7, sequence: 9 };
    stamps.set(2, stamp);
    assert_eq!((stamps.get(2), stamps.get(6), stamps.get(1)), (Some(stamp), None, None));
}

proptest! {
    /// Events of several partitions are noted in any order within the window. After that the window has exactly the
    /// noted sequences, and its encoding is small.
    #[test]
    fn what_is_taken_up_in_any_order_is_known(
        picks in prop::collection::vec(0..4_usize, 1..600), first in 0..1000_u64, routes in prop::collection::vec(0..3_u32, 7)
    ) {
        let mut waiting: Vec<std::collections::VecDeque<(u64, u64)>> = vec![Default::default(); 3];
        let (mut window, mut there) = (SequenceWindow { next: Some(first), ..SequenceWindow::default() }, BTreeMap::new());
        let (mut published, mut offsets, mut missing) = (first, [100_u64; 3], first);
        for pick in picks {
            let in_window = published - window.next.unwrap() < WINDOW;
            if pick == 3 && in_window {
                let to = routes[published as usize % routes.len()];
                waiting[to as usize].push_back((published, offsets[to as usize]));
                offsets[to as usize] += 1 + published % 2;
                published += 1;
            } else if let Some((sequence, offset)) = waiting[pick % 3].pop_front() {
                window.note(sequence, (pick % 3) as u32, offset);
                there.insert(sequence, ((pick % 3) as u32, offset));
            }
            let next = window.next.unwrap();
            while there.contains_key(&missing) {
                missing += 1;
            }
            prop_assert_eq!(next, missing);
            let kept: BTreeMap<_, _> = there.range(next.saturating_sub(WINDOW)..).map(|(k, v)| (*k, *v)).collect();
            prop_assert_eq!(window.receipts(), kept.clone());
            let bytes = window.encode();
            prop_assert!(bytes.len() <= LARGEST_BASE && LARGEST_BASE + NOTES + 2 * (MAX_NAME + 24) <= LARGEST);
            let (decoded, notes) = SequenceWindow::decode(&bytes).unwrap();
            prop_assert_eq!((decoded.receipts(), decoded.next, notes), (kept, Some(next), 0));
        }
    }

    /// After each frame, the state that is built from notes equals the state of a writer that writes the whole window
    /// each time. This holds if the journal is read from its beginning, from the start of a later segment, and after a
    /// restart.
    #[test]
    fn notes_say_what_the_whole_window_would(
        // A window has 128 sequences: most frames have a few windows, and some have many.
        frames in prop::collection::vec(
            (prop::collection::vec((0..3_u32, prop_oneof![4 => 1..20_u64, 1 => 1..400_u64]), 1..80), 0..100_u64), 1..40,
        ),
        first in 0..1000_u64,
    ) {
        let mut state = State::default();
        let mut producer_states = ProducerStates::new(&state);
        let mut producer_state = producer_states.add(7, "gateway");
        let mut epoch = FrameBuilder::new();
        producer_state.put_epoch(&mut epoch, 1);
        state.take(&mut epoch);
        producer_state.begin(first);
        let (mut model, mut touched) = (SequenceWindow { next: Some(first), ..SequenceWindow::default() }, TouchedProducers::default());
        let (mut sequence, mut offsets, mut now) = (first, [0_u64; 3], Timestamp::from_nanos(1));
        let mut frame = FrameBuilder::new();
        for (runs, seconds) in frames {
            now = now.plus(Duration::from_secs(seconds));
            for (partition, len) in runs {
                for _ in 0..len {
                    let offset = offsets[partition as usize];
                    let stamp = ProducerStamp { producer: producer_state.number, sequence };
                    touched.note(&producer_states, stamp, partition, offset);
                    model.note(sequence, partition, offset);
                    sequence += 1;
                    offsets[partition as usize] += 1;
                }
            }
            frame.clear();
            touched.put(&mut frame, now);
            prop_assert!(frame.len() <= LARGEST_BASE);
            state.take(&mut frame);
            let mut of_segment = State::default();
            state.snapshot(500).iter_mut().for_each(|part| of_segment.take(part));
            let values = |state: &State| state.values(state_kind::PRODUCERS).map(|(key, value)| (key.to_vec(), value.to_vec())).collect::<Vec<_>>();
            prop_assert_eq!(values(&of_segment), values(&state));
            let [found] = &ProducerStates::recorded(&state, 7)[..] else { panic!("one name") };
            prop_assert_eq!((found.window.receipts(), found.window.next), (model.receipts(), model.next));
            prop_assert!(now.since(found.window.used) <= STALE);
            if seconds % 10 == 0 {
                producer_states = ProducerStates::new(&state);
                let recorded = ProducerStates::recorded(&state, 7).remove(0);
                producer_state = producer_states.restore(7, recorded);
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = (SequenceWindow::decode(&bytes), SequenceWindow::decode_old(&bytes));
    }
}

#[test]
fn a_value_of_the_first_version_is_read_and_replaced() {
    let mut state = State::default();
    let mut frame = FrameBuilder::new();
    frame.put(state_kind::PRODUCERS, &key(EPOCH_KEY, 7, "gateway"), &3_u64.to_le_bytes());
    let run = [&40_u64.to_le_bytes()[..], &5_u32.to_le_bytes(), &1_u32.to_le_bytes(), &90_u64.to_le_bytes()].concat();
    let old = [&9_u64.to_le_bytes()[..], &45_u64.to_le_bytes(), &run].concat();
    frame.put(state_kind::PRODUCERS, &key(OLD_WINDOW_KEY, 7, "gateway"), &old);
    state.take(&mut frame);
    let producer_states = ProducerStates::new(&state);
    let recorded = ProducerStates::recorded(&state, 7).remove(0);
    assert_eq!((recorded.epoch, recorded.window.next, recorded.window.last()), (3, Some(45), Some((1, 94))));
    let producer_state = producer_states.restore(7, recorded);
    let mut touched = TouchedProducers::default();
    touched.note(&producer_states, ProducerStamp { producer: producer_state.number, sequence: 45 }, 1, 95);
    frame.clear();
    producer_state.put_epoch(&mut frame, 4);
    touched.put(&mut frame, Timestamp::from_nanos(10));
    state.take(&mut frame);
    let found = ProducerStates::recorded(&state, 7).remove(0);
    assert_eq!((found.epoch, found.window.next, found.window.receipts().len()), (4, Some(46), 6));
    assert_eq!(state.values(state_kind::PRODUCERS).count(), 2, "the old value has gone");
}
