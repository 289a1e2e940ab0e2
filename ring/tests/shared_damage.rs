//! Files of shared rings that were written over, before they are opened and while they are used: each call returns, with an error or
//! without, and none panics or reaches beyond the ring. `SLIPRING_HEADERS=1000000` tries so many files.
#![cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]

use fastrand::Rng;
use slipring_ring::shared::{
    Ended, PublishError, RawRing, SharedConsumer, SharedError, SharedProducer, SharedRing, Size,
};
use slipring_ring::{Sequence, Start};
use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Instant;

/// The words of the header that hold numbers and the begin of the layout's text.
const HEADER: Range<usize> = 0..18;
/// The word that holds the header's checksum.
const CHECKSUM: usize = 11;
/// The words of the control block: six positions and states, then the table of participants.
const CONTROL: Range<usize> = 512..512 + 17_152 / 8;
/// Those of the positions and of the first five participants.
const TAKEN: Range<usize> = 512..512 + (768 + 5 * 256) / 8;
const CAPACITY: usize = 16;
/// The most events that a poll asks for.
const MOST: usize = 5;

slipring_ring::shared_event! {
    struct Pair { number: u64, halves: [u32; 2] }
}

/// A ring's file. Dropped, it is removed.
struct Named(String);

impl Named {
    fn path(&self) -> String {
        format!("/dev/shm/slipring-{}/{}", fs::metadata("/proc/self").unwrap().uid(), self.0)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path());
    }
}

fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_ne_bytes(*word)).collect()
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Creates a ring, and returns the words of its file as they are with every kind of participant: two consumers, one of which is
/// held and has a note, and producers, one of which has a claim if there are several.
fn image(name: &Named, is_multi: bool) -> Vec<u64> {
    let size = Size::slots(CAPACITY).retain(2);
    let size = if is_multi { size.multi_producer() } else { size };
    let ring = SharedRing::<Pair>::create(&name.0, size).unwrap();
    let mut held = ring.consumer("held").hold().join().unwrap();
    let _tape = ring.consumer("tape").join().unwrap();
    let mut out = produce(&ring).unwrap();
    let mut other = is_multi.then(|| produce(&ring).unwrap());
    for number in 0..9 {
        out.publish(|pair| *pair = Pair { number, halves: [1, 2] }).unwrap();
    }
    drop(out.claim(2).unwrap());
    let mut claim = out.claim(2).unwrap();
    claim.iter_mut().for_each(|(_, pair)| pair.number = 9);
    claim.commit_noted(11).unwrap();
    let mut batch = held.poll(3).unwrap();
    assert_eq!((&mut batch).into_iter().count(), 3);
    batch.commit_noted(3);
    let _claim = other.as_mut().map(|other| other.claim(2).unwrap());
    words(&fs::read(name.path()).unwrap())
}

/// Writes a few words over, most of them with values that a position, a role or a length might have.
fn damage(file: &mut [u64], random: &mut Rng) {
    for _ in 0..random.usize(1..4) {
        let at = match random.u8(0..10) {
            0 => random.usize(HEADER),
            1..=3 => CONTROL.start + 16 * random.usize(0..6) + random.usize(0..2),
            4..=6 => random.usize(TAKEN),
            7 => random.usize(CONTROL),
            _ => random.usize(CONTROL.end..file.len()),
        };
        let near = random.u64(0..2 * CAPACITY as u64);
        file[at] = match random.u8(0..10) {
            0 => u64::MAX - near / 8,
            1 => (1 << 62) - near,
            2 => (1 << 62) + near,
            3 => (1 << 63) - near,
            4 => near,
            5 => near | random.u64(0..4) << 32,
            6 => file[at].wrapping_add(near),
            7 => file[at].wrapping_sub(near),
            8 => file[at] ^ 1 << random.u8(0..64),
            _ => random.u64(..),
        };
    }
    // Half of the time what a header says fits its checksum, FNV-1a of all but the checksum.
    if random.bool() {
        file[CHECKSUM] = 0;
        let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        file[CHECKSUM] = bytes(&file[..CONTROL.start]).iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    }
}

/// Passes on what is refused because of what stands in the file. A call that the system refused was given a number of it.
fn refusal<T>(of: Result<T, SharedError>) -> Option<T> {
    match of {
        Err(refused @ (SharedError::System { .. } | SharedError::Busy)) => panic!("{refused}"),
        other => other.ok(),
    }
}

fn produce(ring: &SharedRing<Pair>) -> Result<SharedProducer<Pair>, SharedError> {
    if ring.is_multi_producer() { ring.multi_producer() } else { ring.producer() }
}

fn read(tape: &mut SharedConsumer<Pair>) -> Result<(), Ended> {
    for is_waiting in [false, true, false] {
        let mut batch = if is_waiting { tape.poll_until(MOST, Instant::now()) } else { tape.poll(MOST) }?;
        assert!(batch.len() <= MOST, "{} events", batch.len());
        let sum = (&mut batch)
            .into_iter()
            .map(|(_, pair)| pair.number ^ u64::from(pair.halves[0]))
            .fold(0, u64::wrapping_add);
        if black_box(sum) % 3 == 0 {
            batch.commit_noted(sum);
        }
    }
    black_box(tape.note());
    Ok(())
}

fn publish(out: &mut SharedProducer<Pair>) -> Result<(), PublishError> {
    black_box(out.note());
    for number in 0..3 {
        out.try_publish(|pair| pair.number = number)?;
    }
    let mut claim = out.claim_until(4, Instant::now())?;
    claim.iter_mut().for_each(|(_, pair)| pair.halves = [3, 4]);
    claim.commit_noted(5)?;
    drop(out.try_claim(3)?);
    Ok(())
}

/// Uses a ring as every kind of participant does, and writes it over a second time in between. False if it was not opened.
fn is_used(name: &Named, again: impl FnOnce()) -> bool {
    let look =
        |ring: &SharedRing<Pair>| black_box((ring.participants(), ring.published(), ring.claimed(), ring.ended()));
    let Some(ring) = refusal(SharedRing::<Pair>::open(&name.0)) else { return false };
    look(&ring);
    let mut held = refusal(ring.consumer("held").hold().join());
    let mut late = refusal(ring.consumer("late").start(Start::Latest).join());
    let mut at = refusal(ring.consumer("at").start(Start::At(Sequence(7))).join());
    let mut out = refusal(produce(&ring));
    let mut use_all = || {
        for tape in [&mut held, &mut late, &mut at].into_iter().flatten() {
            let _ = read(tape);
        }
        let _ = out.as_mut().map(publish);
        for tape in [&mut held, &mut late, &mut at].into_iter().flatten() {
            let _ = read(tape);
        }
    };
    use_all();
    again();
    use_all();
    look(&ring);
    drop((late, at, out));
    ring.close();
    for _ in 0..2 * CAPACITY {
        if held.as_mut().is_none_or(|held| read(held).is_err()) {
            break;
        }
    }
    drop(held);
    refusal(ring.release("held"));
    true
}

/// The same through the ring without a type, whose events have the size that the file says.
fn is_read_as_bytes(name: &Named) -> bool {
    let Some(ring) = refusal(RawRing::open(&name.0)) else { return false };
    let Some(mut tape) = refusal(ring.consumer("bytes").join()) else { return true };
    for _ in 0..3 {
        let Ok(mut batch) = tape.poll(MOST) else { break };
        let (before, after) = batch.events();
        assert_eq!(before.len() + after.len(), batch.len() * ring.layout().size());
        black_box(before.iter().chain(after).fold(0, |sum: u64, byte| sum + u64::from(*byte)));
        batch.consume(MOST);
    }
    if let Some(mut out) = refusal(ring.producer())
        && let Ok(mut claim) = out.try_claim(3)
    {
        let (before, after) = claim.events_mut();
        before.fill(1);
        after.fill(2);
        let _ = claim.commit();
    }
    true
}

#[test]
fn a_file_that_was_written_over_is_refused_or_used_without_harm() {
    let tries: u64 = std::env::var("SLIPRING_HEADERS").map_or(2_000, |it| it.parse().unwrap());
    for is_multi in [false, true] {
        let name = Named(format!("test-{}-written-over-{is_multi}", std::process::id()));
        let image = image(&name, is_multi);
        let file = OpenOptions::new().write(true).open(name.path()).unwrap();
        let write = |words: &[u64]| file.write_all_at(&bytes(words), 0).unwrap();
        write(&image);
        assert!(is_used(&name, || ()), "what was not written over is used");
        let mut random = Rng::with_seed(5);
        let (mut used, mut read) = (0, 0);
        for turn in 0..tries / 2 {
            let mut damaged = image.clone();
            damage(&mut damaged, &mut random);
            write(&damaged);
            if turn % 4 == 0 {
                read += u64::from(is_read_as_bytes(&name));
                continue;
            }
            let again = || {
                damage(&mut damaged, &mut random);
                write(&damaged);
            };
            used += u64::from(is_used(&name, again));
        }
        assert!(used > tries / 8 && used < tries * 3 / 8, "{used} were used");
        assert!(read > tries / 32, "{read} were read");
    }
}
