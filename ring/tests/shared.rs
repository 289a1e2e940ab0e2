//! Shared rings, each participant with an open file and a mapping of its own, as in different processes. What death does
//! is in `shared_kill.rs`.
#![cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]

use slipring_ring::shared::{
    self, Ended, Event, EventLayout, Property, PublishError, RawRing, Role, SharedError, SharedRing, Size,
};
use slipring_ring::{Sequence, Start, Wait};
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

slipring_ring::shared_event! {
    #[derive(Debug, PartialEq)]
    struct Quote { px: i64, qty: u32, venue: [u8; 4] }
}

/// A name that no other test has, and that is removed at the end.
struct Named(String);

impl Named {
    fn new(what: &str) -> Self {
        Self(format!("test-{}-{what}", std::process::id()))
    }

    fn path(&self) -> PathBuf {
        folder().join(&self.0)
    }

    fn ring<E: Event>(&self, size: impl Into<Size>) -> SharedRing<E> {
        SharedRing::create(&self.0, size).unwrap()
    }
}

impl std::ops::Deref for Named {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

fn folder() -> PathBuf {
    PathBuf::from(format!("/dev/shm/slipring-{}", rustix_uid()))
}

fn rustix_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid()
}

fn read<E: Event + PartialEq>(batch: &mut shared::SharedBatch<'_, E>) -> Vec<E> {
    batch.into_iter().map(|(_, event)| *event).collect()
}

#[test]
fn what_one_publishes_others_read_in_order() {
    let name = Named::new("order");
    let ring = name.ring::<Quote>(8);
    let mut out = ring.producer().unwrap();
    let other = SharedRing::<Quote>::open(&name).unwrap();
    let mut tape = other.consumer("tape").join().unwrap();
    for round in 0..100u32 {
        let mut claim = out.claim(3).unwrap();
        for (sequence, quote) in claim.iter_mut() {
            *quote = Quote { px: sequence.0 as i64, qty: round, venue: *b"XETR" };
        }
        let published = claim.commit().unwrap();
        assert_eq!((published.first, published.len), (Sequence(u64::from(round) * 3), 3));
        let mut batch = tape.poll_wait(2).unwrap();
        assert_eq!(batch.len(), 2);
        let px: Vec<i64> = (&mut batch)
            .into_iter()
            .map(|(sequence, quote)| {
                assert_eq!((sequence.0 as i64, quote.qty, quote.venue), (quote.px, round, *b"XETR"));
                quote.px
            })
            .collect();
        assert_eq!(px, [i64::from(round) * 3, i64::from(round) * 3 + 1]);
        drop(batch);
        assert_eq!(read(&mut tape.poll(9).unwrap()).len(), 1);
        assert!(tape.poll(9).unwrap().is_empty());
    }
}

#[test]
fn a_batch_that_is_not_iterated_is_read_again_and_a_full_ring_names_the_slowest() {
    let name = Named::new("full");
    let ring = name.ring::<u64>(2);
    let mut out = ring.producer().unwrap();
    let mut slow = ring.consumer("slow").join().unwrap();
    out.publish(|value| *value = 7).unwrap();
    out.publish(|value| *value = 8).unwrap();
    assert_eq!(out.try_publish(|_| ()), Err(PublishError::Full { slowest: "slow".to_owned() }));
    let soon = Instant::now() + Duration::from_millis(30);
    assert_eq!(out.publish_until(soon, |_| ()), Err(PublishError::TimedOut { slowest: "slow".to_owned() }));
    drop(slow.poll(2).unwrap());
    assert_eq!(slow.position(), Sequence(0));
    let mut batch = slow.poll(2).unwrap();
    assert_eq!((&mut batch).into_iter().next(), Some((Sequence(0), &7)));
    drop(batch);
    assert_eq!(slow.position(), Sequence(1));
    assert_eq!(out.try_publish(|value| *value = 9), Ok(Sequence(2)));
    assert!(out.try_publish(|_| ()).is_err());
    drop(slow);
    assert_eq!(out.try_publish(|value| *value = 10), Ok(Sequence(3)));
    assert_eq!(out.claim(3).map(|_| ()), Err(PublishError::TooLong { asked: 3, largest: 2 }));
    assert!(out.claim(0).is_err());
    let _ = out.claim(2).unwrap();
    assert_eq!(out.publish(|value| *value = 11), Ok(Sequence(4)), "a dropped claim leaves nothing");
}

#[test]
fn every_wait_strategy_passes_events_both_ways() {
    for strategy in Wait::NAMES {
        let name = Named::new(strategy);
        let wait: Wait = strategy.parse().unwrap();
        let ring = name.ring::<u64>(4);
        let mut tape = ring.consumer("tape").wait(wait.clone()).join().unwrap();
        let other = SharedRing::<u64>::open(&name).unwrap();
        let writing = std::thread::spawn(move || {
            let mut out = other.producer().unwrap().wait(wait);
            (0..500).for_each(|value| _ = out.publish(|event| *event = value).unwrap());
            out.close();
        });
        let mut next = 0;
        let ended = loop {
            match tape.poll_wait(3) {
                Ok(mut batch) => (&mut batch).into_iter().for_each(|(sequence, value)| {
                    assert_eq!((sequence.0, *value), (next, next));
                    next += 1;
                }),
                Err(ended) => break ended,
            }
        };
        assert_eq!((next, ended), (500, Ended::Closed), "{strategy}");
        writing.join().unwrap();
    }
}

#[test]
fn a_newcomer_starts_where_it_asks_or_is_told_what_is_kept() {
    let name = Named::new("start");
    let ring = name.ring::<u64>(Size::slots(8).retain(3));
    let mut out = ring.producer().unwrap();
    (0..20).for_each(|value| _ = out.publish(|event| *event = value).unwrap());
    assert_eq!(ring.consumer("a").join().unwrap().position(), Sequence(17));
    assert_eq!(ring.consumer("a").start(Start::Latest).join().unwrap().position(), Sequence(20));
    let mut at = ring.consumer("a").start(Start::At(Sequence(18))).join().unwrap();
    assert_eq!(read(&mut at.poll(9).unwrap()), [18, 19]);
    let refused = ring.consumer("b").start(Start::At(Sequence(16))).join().map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("\"b\" cannot start at 16: the ring keeps 17 up to, not including, 20"), "{refused}");
    assert!(ring.consumer("b").start(Start::At(Sequence(21))).join().is_err());
    assert_eq!(ring.participants().len(), 2, "who was refused has no entry");
    assert_eq!(out.claim(6).map(|_| ()), Err(PublishError::TooLong { asked: 6, largest: 5 }));
}

#[test]
fn a_held_consumer_goes_on_where_it_was_until_it_is_released() {
    let name = Named::new("hold");
    let ring = name.ring::<u64>(4);
    let mut out = ring.producer().unwrap();
    let mut held = ring.consumer("recorder").hold().join().unwrap();
    (0..4).for_each(|value| _ = out.publish(|event| *event = value).unwrap());
    let mut batch = held.poll(9).unwrap();
    assert_eq!((&mut batch).into_iter().nth(1), Some((Sequence(1), &1)));
    drop(batch);
    drop(held);
    let shown = ring.participants();
    let recorder = shown.iter().find(|it| it.name == "recorder").unwrap();
    assert_eq!((recorder.role, recorder.is_alive, recorder.is_held), (Role::Consumer, false, true));
    assert_eq!((recorder.position, recorder.lag, recorder.generation), (Some(Sequence(2)), 2, 1));
    (4..6).for_each(|value| _ = out.try_publish(|event| *event = value).unwrap());
    assert!(out.try_publish(|_| ()).is_err(), "it holds the ring");
    let mut again = ring.consumer("recorder").hold().start(Start::Latest).join().unwrap();
    assert_eq!(read(&mut again.poll(9).unwrap()), [2, 3, 4, 5]);
    assert!(matches!(ring.consumer("recorder").join().map(|_| ()), Err(SharedError::NameTaken { .. })));
    assert!(matches!(ring.release("recorder"), Err(SharedError::NotHeld { .. })), "it lives");
    drop(again);
    (6..10).for_each(|value| _ = out.publish(|event| *event = value).unwrap());
    ring.release("recorder").unwrap();
    assert!(matches!(ring.release("recorder"), Err(SharedError::NotHeld { .. })));
    out.try_publish(|event| *event = 10).unwrap();
    assert_eq!(ring.consumer("recorder").join().unwrap().position(), Sequence(11));
    ring.consumer("once").hold().join().unwrap().leave();
    assert_eq!(ring.participants().len(), 1, "who leaves for good is not held");
}

#[test]
fn one_producer_at_a_time_and_the_next_goes_on() {
    let name = Named::new("successor");
    let ring = name.ring::<u64>(4);
    let mut tape = ring.consumer("tape").join().unwrap();
    let mut out = ring.producer().unwrap();
    out.publish(|event| *event = 1).unwrap();
    let refused = ring.producer().map(|_| ()).unwrap_err();
    assert!(matches!(refused, SharedError::ProducerTaken { pid } if pid == u64::from(std::process::id())));
    drop(out);
    assert_eq!(ring.producer().unwrap().publish(|event| *event = 2), Ok(Sequence(1)));
    assert_eq!(read(&mut tape.poll(9).unwrap()), [1, 2]);
    let soon = Instant::now() + Duration::from_millis(40);
    assert!(tape.poll_until(1, soon).unwrap().is_empty(), "a producer that left has not died");
}

#[test]
fn after_the_close_all_is_read_and_nothing_is_taken() {
    let name = Named::new("close");
    let ring = name.ring::<u64>(2);
    let mut tape = ring.consumer("tape").join().unwrap();
    let mut out = ring.producer().unwrap();
    out.publish(|event| *event = 1).unwrap();
    ring.close();
    assert_eq!(out.publish(|event| *event = 2), Err(PublishError::Ended(Ended::Closed)));
    assert!(matches!(ring.producer().map(|_| ()), Err(SharedError::Ended(Ended::Closed))));
    let mut batch = tape.poll_wait(1).unwrap();
    assert_eq!((&mut batch).into_iter().next(), Some((Sequence(0), &1)));
    drop(batch);
    assert_eq!(tape.poll_wait(9).map(|_| ()), Err(Ended::Closed));
    assert_eq!(tape.poll(9).map(|_| ()), Err(Ended::Closed));
}

#[test]
fn sleepers_hear_of_the_close_and_of_a_removal() {
    for by_removal in [false, true] {
        let name = Named::new(if by_removal { "removal" } else { "closing" });
        let ring = name.ring::<u64>(1);
        let mut tape = ring.consumer("tape").join().unwrap();
        let other = SharedRing::<u64>::open(&name).unwrap();
        let mut blocked = other.consumer("blocked").join().unwrap();
        let mut out = ring.producer().unwrap();
        out.publish(|event| *event = 1).unwrap();
        read(&mut tape.poll(1).unwrap());
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| out.publish(|event| *event = 2));
            let reading = scope.spawn(|| tape.poll_wait(1).map(|_| ()));
            if by_removal {
                let refused = SharedRing::<u64>::remove(&name);
                assert!(matches!(refused, Err(SharedError::InUse { participants, .. }) if participants.len() == 3));
                SharedRing::<u64>::remove_forced(&name).unwrap();
            } else {
                other.close();
            }
            let ended = if by_removal { Ended::Replaced } else { Ended::Closed };
            assert_eq!(writing.join().unwrap(), Err(PublishError::Ended(ended.clone())));
            assert_eq!(reading.join().unwrap(), Err(ended.clone()));
            assert_eq!(read(&mut blocked.poll(1).unwrap()), [1]);
            assert_eq!(blocked.poll(1).map(|_| ()), Err(ended));
        });
        let again = SharedRing::<u64>::open(&name).map(|_| ());
        assert!(if by_removal { matches!(again, Err(SharedError::NotFound { .. })) } else { again.is_ok() });
    }
}

#[test]
fn a_file_that_loses_its_name_is_told_within_ticks() {
    let name = Named::new("unlinked");
    let ring = name.ring::<u64>(1);
    let mut tape = ring.consumer("tape").join().unwrap();
    fs::remove_file(name.path()).unwrap();
    assert_eq!(tape.poll_until(1, Instant::now() + LONG).map(|_| ()), Err(Ended::Replaced));
    assert!(matches!(ring.producer().map(|_| ()), Err(SharedError::Ended(Ended::Replaced))));
    let other = name.ring::<u64>(1);
    assert!(matches!(ring.producer().map(|_| ()), Err(SharedError::Ended(Ended::Replaced))), "it is another ring");
    other.producer().unwrap();
}

fn property<E: Event>(name: &str) -> Property {
    match SharedRing::<E>::open(name).unwrap_err() {
        SharedError::Mismatch { property, expected, found, .. } => {
            assert_ne!(expected, found, "{property}");
            property
        }
        other => panic!("{other}"),
    }
}

#[test]
fn what_is_not_this_ring_is_refused_with_both_sides() {
    let name = Named::new("foreign");
    let ring = name.ring::<Quote>(8);
    assert_eq!(property::<u64>(&name), Property::Layout);
    let shown = SharedRing::<u64>::open(&name).unwrap_err().to_string();
    let both = ["px:i64@0 qty:u32@8 venue:u8[4]@12 size=16 align=8", "value:u64@0 size=8 align=8"];
    assert!(both.iter().all(|it| shown.contains(it)), "{shown}");
    let refused = SharedRing::<Quote>::open_or_create(&name, 16).unwrap_err().to_string();
    assert!(refused.contains("the capacity is 8, and not 16"), "{refused}");
    assert!(matches!(SharedRing::<Quote>::create(&name, 8), Err(SharedError::Exists { .. })));
    drop(ring);

    let file = fs::OpenOptions::new().read(true).write(true).open(name.path()).unwrap();
    let size = file.metadata().unwrap().len();
    file.set_permissions(fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(property::<Quote>(&name), Property::Mode);
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    file.set_len(size + 1).unwrap();
    assert_eq!(property::<Quote>(&name), Property::Size);
    file.set_len(100).unwrap();
    assert_eq!(property::<Quote>(&name), Property::Size);
    file.set_len(size).unwrap();
    assert_eq!(property::<Quote>(&name), Property::Checksum);
    file.write_all_at(&9u32.to_ne_bytes(), 8).unwrap();
    assert_eq!(property::<Quote>(&name), Property::Version);
    file.write_all_at(b"no ring!", 0).unwrap();
    assert_eq!(property::<Quote>(&name), Property::Magic);

    let other = Named::new("link");
    symlink(name.path(), other.path()).unwrap();
    assert_eq!(property::<Quote>(&other), Property::FileType);
    fs::remove_file(other.path()).unwrap();
    fs::create_dir(other.path()).unwrap();
    assert_eq!(property::<Quote>(&other), Property::FileType);
    fs::remove_dir(other.path()).unwrap();
}

#[test]
fn sizes_and_names_are_checked() {
    let name = Named::new("sizes");
    for capacity in [0, 3, usize::MAX, 1 << 60] {
        assert!(matches!(SharedRing::<u64>::create(&name, capacity), Err(SharedError::Capacity { .. })), "{capacity}");
    }
    assert!(matches!(SharedRing::<u64>::create(&name, 1 << 36), Err(SharedError::Memory { .. })));
    assert!(matches!(SharedRing::<u64>::create(&name, Size::slots(4).retain(4)), Err(SharedError::Retain { .. })));
    for bad in ["", ".hidden", "a/b", "..", "a b", "ü", &"x".repeat(101)] {
        assert!(matches!(SharedRing::<u64>::open(bad), Err(SharedError::Name { .. })), "{bad:?}");
    }
    assert!(matches!(SharedRing::<u64>::open(&name), Err(SharedError::NotFound { .. })));
    let ring = name.ring::<u64>(1);
    assert!(matches!(ring.consumer("a/b").join().map(|_| ()), Err(SharedError::Name { .. })));
    assert!(shared::names().unwrap().contains(&name.0));
    let left: Vec<_> = fs::read_dir(folder()).unwrap().map(|it| it.unwrap().file_name()).collect();
    let own = format!(".test-{}-sizes", std::process::id());
    assert!(!left.iter().any(|it| it.to_string_lossy().starts_with(&own)), "{left:?}");
}

#[test]
fn the_table_of_participants_has_an_end() {
    let name = Named::new("table");
    let ring = name.ring::<u64>(1);
    let joined: Vec<_> = (0..64).map(|number| ring.consumer(format!("c{number}")).join().unwrap()).collect();
    assert!(matches!(ring.producer().map(|_| ()), Err(SharedError::Full { most: 64 })));
    drop(joined);
    ring.producer().unwrap();
}

#[test]
fn damage_in_the_positions_is_an_error() {
    let name = Named::new("damage");
    let ring = name.ring::<u64>(4);
    let mut tape = ring.consumer("tape").join().unwrap();
    let mut out = ring.producer().unwrap();
    out.publish(|event| *event = 1).unwrap();
    let file = fs::OpenOptions::new().write(true).open(name.path()).unwrap();
    // The gate of every participant, far ahead: producers still keep to one lap.
    (0..64).for_each(|index| file.write_all_at(&u64::MAX.to_ne_bytes(), 4096 + 768 + index * 256 + 128).unwrap());
    for value in 0..10 {
        out.publish(|event| *event = value).unwrap();
    }
    for published in [u64::MAX, 1 << 40, 5] {
        file.write_all_at(&published.to_ne_bytes(), 4096 + 128).unwrap();
        let polled = tape.poll(9).map(|_| ());
        assert!(matches!(polled, Err(Ended::Damaged { found, .. }) if found == published), "{polled:?}");
    }
}

#[test]
fn events_of_bytes_are_those_of_the_type() {
    let name = Named::new("raw");
    let layout: EventLayout = "px:i64 qty:u32 venue:u8[4]".parse().unwrap();
    let raw = RawRing::create(&name, Size::slots(4).retain(1), &layout).unwrap();
    let typed = SharedRing::<Quote>::open(&name).unwrap();
    assert_eq!(RawRing::open(&name).unwrap().layout(), &EventLayout::of::<Quote>());
    assert_eq!((raw.capacity(), raw.retained(), raw.published()), (4, 1, Sequence(0)));
    let mut out = raw.producer().unwrap();
    let mut tape = typed.consumer("typed").join().unwrap();
    let mut bytes = raw.consumer("bytes").join().unwrap();
    let mut next = 0u8;
    for _ in 0..20 {
        let mut claim = out.claim(3).unwrap();
        assert_eq!((claim.first(), claim.len()), (Sequence(next.into()), 3));
        let (before, after) = claim.events_mut();
        assert_eq!((before.len() + after.len(), before.len()), (48, 16 * (4 - usize::from(next % 4)).min(3)));
        for event in before.chunks_exact_mut(16).chain(after.chunks_exact_mut(16)) {
            event[..8].copy_from_slice(&i64::from(next).to_ne_bytes());
            event[8..12].copy_from_slice(&7u32.to_ne_bytes());
            event[12..].copy_from_slice(b"XETR");
            next += 1;
        }
        claim.commit().unwrap();
        let px: Vec<i64> = read(&mut tape.poll_wait(9).unwrap()).iter().map(|quote| quote.px).collect();
        assert_eq!(px, [next - 3, next - 2, next - 1].map(i64::from));
        // Two now, one later.
        let mut batch = bytes.poll_wait(2).unwrap();
        let (before, after) = batch.events();
        let first: Vec<u8> = [before, after].concat().chunks(16).map(|event| event[0]).collect();
        assert_eq!((batch.first(), first), (Sequence(u64::from(next) - 3), vec![next - 3, next - 2]));
        batch.consume(1);
        drop(batch);
        let mut batch = bytes.poll(9).unwrap();
        assert_eq!(batch.len(), 2);
        // SAFETY: the event lies between the poll and the end of the batch.
        assert_eq!(unsafe { raw.event_ptr(batch.first()).read() }, next - 2);
        batch.consume(9);
        assert!(batch.is_empty());
    }
    // The layout, the capacity and what is retained must be those of the ring.
    let other: EventLayout = "px:i64 qty:u32 venue:i8[4]".parse().unwrap();
    for (size, layout, differs) in [
        (Size::slots(4).retain(1), &other, Property::Layout),
        (Size::slots(8).retain(1), &layout, Property::Capacity),
        (Size::slots(4), &layout, Property::Retain),
    ] {
        let refused = RawRing::open_or_create(&name, size, layout).unwrap_err();
        let SharedError::Mismatch { property, path, .. } = refused else { panic!("{refused}") };
        assert_eq!((property, path), (differs, name.path()));
    }
    assert!(RawRing::open_or_create(&name, Size::slots(4).retain(1), &layout).is_ok());
    assert_eq!(raw.ended(), None);
    out.close();
    assert_eq!(raw.ended(), Some(Ended::Closed));
    drop((tape, bytes));
    RawRing::remove(&name).unwrap();
    assert_eq!(raw.ended(), Some(Ended::Replaced));
}

#[test]
fn a_note_is_found_by_whoever_goes_on_at_its_position() {
    let name = Named::new("notes");
    let ring = name.ring::<u64>(8);
    let mut out = ring.producer().unwrap();
    assert_eq!(out.note(), None);
    for (note, len) in [(3_u64, 1), (u64::MAX, 4), (0, 3)] {
        let claim = out.claim(len).unwrap();
        claim.commit_noted(note).unwrap();
        assert_eq!(out.note(), Some(note));
        drop(out);
        out = ring.producer().unwrap();
        assert_eq!(out.note(), Some(note), "the successor's");
    }
    // A claim that is dropped leaves the last one's note; an event without a note has none.
    drop(out.claim(1).unwrap());
    assert_eq!(out.note(), Some(0));
    out.publish(|_| ()).unwrap();
    assert_eq!(out.note(), None);

    let mut held = ring.consumer("held").hold().join().unwrap();
    assert_eq!(held.note(), None);
    held.set_note(5);
    held.set_note(6);
    out.publish(|value| *value = 1).unwrap();
    out.publish(|value| *value = 2).unwrap();
    let mut batch = held.poll(8).unwrap();
    assert_eq!((&mut batch).into_iter().count(), 2);
    batch.rewind();
    assert_eq!(batch.len(), 2);
    drop(batch);
    drop(held);
    let mut held = ring.consumer("held").hold().join().unwrap();
    assert_eq!((held.note(), held.position()), (Some(5), Sequence(9)));
    let mut batch = held.poll(8).unwrap();
    assert!((&mut batch).into_iter().next().is_some());
    batch.commit_noted(50);
    let batch = held.poll(8).unwrap();
    batch.commit_noted(60);
    assert_eq!((held.note(), held.position()), (Some(50), Sequence(10)), "nothing was iterated");
    drop(held);
    let held = ring.consumer("held").hold().join().unwrap();
    assert_eq!(held.note(), Some(50));
    held.leave();
    let fresh = ring.consumer("fresh").start(Start::Latest).join().unwrap();
    assert_eq!(fresh.note(), None, "the entry had another owner");
}

#[test]
fn a_note_passes_over_what_was_skipped_and_one_of_several_producers_leaves_none() {
    let name = Named::new("notes-several");
    let ring = name.ring::<u64>(Size::slots(8).multi_producer());
    let mut out = ring.multi_producer().unwrap();
    let mut held = ring.consumer("held").hold().join().unwrap();
    held.set_note(7);
    out.claim(1).unwrap().commit_noted(1).unwrap();
    assert_eq!(out.note(), None);
    let mut batch = held.poll(8).unwrap();
    (&mut batch).into_iter().for_each(drop);
    batch.commit_noted(8);
    drop(out.claim(3).unwrap());
    assert!(held.poll(8).unwrap().is_empty());
    assert_eq!((held.note(), held.position()), (Some(8), Sequence(4)));
}
