//! Shared rings with several producers: what they do together, and what their deaths leave. A claim is read whole or
//! skipped whole, what was acknowledged is read, a living producer's claim is never skipped, and nobody waits for the
//! dead.
//!
//! The processes are this test binary, started anew. A soak kills as many as asked for:
//! `SLIPRING_SHARED_KILLS=20000 cargo test --release -p slipring-ring --test shared_producers`.
#![cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]

use slipring_ring::shared::{
    Ended, Property, PublishError, RawRing, Role, SharedConsumer, SharedError, SharedProducer, SharedRing, Size,
};
use slipring_ring::{Sequence, Start, Wait};
use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::time::{Duration, Instant};

#[path = "common/killing.rs"]
mod killing;

use killing::{LONG, NAME, PROGRESS, Progress, WHAT, kill, kills, start};

slipring_ring::shared_event! {
    /// An event of a claim, which shows if it is torn, and if its claim is.
    #[derive(Debug, PartialEq)]
    struct Part {
        sequence: u64,
        /// The producer's number, and its count of events before this one.
        producer: u64,
        count: u64,
        /// Its place in its claim, and the length of the claim.
        place: u64,
        len: u64,
        filled: [u64; 3],
    }
}

impl Part {
    fn of(sequence: u64, producer: u64, count: u64, place: u64, len: u64) -> Self {
        let seed = sequence ^ producer << 40 ^ count << 20 ^ place << 10 ^ len;
        let filled = [1, 2, 3].map(|at: u64| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(at));
        Self { sequence, producer, count, place, len, filled }
    }
}

/// A ring's name, which is removed at the end.
struct Named(String);

impl Named {
    fn new(what: &str) -> Self {
        Self(format!("several-{}-{what}", std::process::id()))
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
        let _ = SharedRing::<Part>::remove_forced(&self.0);
        let _ = SharedRing::<u64>::remove_forced(&self.0);
    }
}

fn several(capacity: usize) -> Size {
    Size::slots(capacity).multi_producer()
}

/// Publishes one claim of `len` events. `between` is called before each event is filled.
fn publish(
    out: &mut SharedProducer<Part>,
    producer: u64,
    count: u64,
    len: usize,
    between: impl Fn(u64),
) -> Result<(), PublishError> {
    let mut claim = out.claim(len)?;
    for (place, (sequence, event)) in claim.iter_mut().enumerate() {
        let place = place as u64;
        // In two steps, so that a reader would find a half of it.
        (event.sequence, event.count) = (sequence.0, count);
        between(place);
        *event = Part::of(sequence.0, producer, count + place, place, len as u64);
    }
    claim.commit()?;
    Ok(())
}

/// Reads everything, and checks that each claim comes whole and each producer's events in order.
struct Tape {
    consumer: SharedConsumer<Part>,
    last: Option<Part>,
    /// The count of events that was read of each producer.
    counts: HashMap<u64, u64>,
    skipped: u64,
}

impl Tape {
    fn new(ring: &SharedRing<Part>) -> Self {
        let consumer = ring.consumer("tape").join().unwrap();
        Self { consumer, last: None, counts: HashMap::new(), skipped: 0 }
    }

    /// Reads up to `limit` events, and waits for `patience` at most. Returns the count.
    fn read(&mut self, limit: usize, patience: Duration) -> Result<usize, Ended> {
        let mut batch = self.consumer.poll_until(limit, Instant::now() + patience)?;
        let mut read = 0;
        for (sequence, part) in &mut batch {
            let Part { producer, count, place, len, .. } = *part;
            assert_eq!(*part, Part::of(sequence.0, producer, count, place, len), "torn");
            let next = self.last.map_or(0, |last| last.sequence + 1);
            assert!(sequence.0 >= next, "read twice");
            if let Some(last) = self.last.filter(|last| last.place + 1 < last.len) {
                let follows = (last.producer, last.place + 1, next);
                assert_eq!((producer, place, sequence.0), follows, "the claim of {last:?} is cut");
            } else {
                assert_eq!(place, 0, "a claim begins in its middle: {part:?} after {:?}", self.last);
            }
            let counted = self.counts.entry(producer).or_default();
            assert_eq!(count, *counted, "of producer {producer}");
            *counted += 1;
            self.skipped += sequence.0 - next;
            self.last = Some(*part);
            read += 1;
        }
        Ok(read)
    }
}

/// Not a test: what the tests start and kill.
#[test]
#[ignore = "started by the tests below"]
fn child() {
    let name = std::env::var(NAME).expect("started by the tests below");
    let ring = SharedRing::<Part>::open(&name).unwrap();
    let what = std::env::var(WHAT).unwrap();
    let (what, number) = what.rsplit_once(' ').unwrap();
    let number = number.parse::<u64>().unwrap();
    if what == "read" {
        let mut reader = ring.consumer(format!("r{number}")).start(Start::Latest).join().unwrap();
        loop {
            match reader.poll_wait(7) {
                Ok(mut batch) => (&mut batch).into_iter().for_each(drop),
                Err(Ended::ProducerDied) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
    let progress = File::options().write(true).open(std::env::var(PROGRESS).unwrap()).unwrap();
    let mut random = fastrand::Rng::with_seed(number);
    let wait =
        if random.bool() { Wait::spin_yield() } else { Wait::spin_then_park().spin_for(Duration::ZERO).yields(0) };
    let mut out = ring.multi_producer_named(&format!("p{number}")).unwrap().wait(wait);
    let fatal = if what == "publish" { u64::MAX } else { random.u64(1..30) };
    let signal = if what == "stop in a claim" { libc::SIGSTOP } else { libc::SIGKILL };
    let mut count = 0;
    for round in 1.. {
        let len = random.usize(1..=ring.capacity().min(5));
        let at = random.u64(0..len as u64);
        publish(&mut out, number, count, len, |place| {
            if round == fatal && place == at {
                // SAFETY: the thread signals itself, and so is stopped or ended before the call returns.
                unsafe { libc::raise(signal) };
            }
        })
        .unwrap();
        count += len as u64;
        progress.write_all_at(&count.to_ne_bytes(), 0).unwrap();
        if round == fatal {
            loop {
                // Until the parent kills it.
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

struct Running {
    number: u64,
    child: Child,
    progress: Progress,
}

impl Running {
    fn start(what: &str, number: u64, name: &str) -> Self {
        let progress = Progress::new(&format!("{name}-{number}"));
        let child = start(&format!("{what} {number}"), name, Some(&progress.1));
        Self { number, child, progress }
    }

    /// Waits until the process is stopped.
    fn wait_until_stopped(&self) {
        let mut status = 0;
        // SAFETY: the process is this one's child, and the status has room for the result.
        let of = unsafe { libc::waitpid(self.child.id() as i32, &raw mut status, libc::WUNTRACED) };
        assert!(of == self.child.id() as i32 && libc::WIFSTOPPED(status), "{of}: {status}");
    }

    fn go_on(&self) {
        // SAFETY: the process is this one's child, which was not waited for to its end.
        unsafe { libc::kill(self.child.id() as i32, libc::SIGCONT) };
    }
}

impl Drop for Running {
    /// So that no process stays, stopped or not, if a test fails.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Producers are killed at random, by themselves in the middle of a claim or by others anywhere, while others go on, and
/// readers at random; a tape of this process reads everything.
fn producers_die(capacity: usize, rounds: usize, seed: u64) {
    let name = Named::new(&format!("{capacity}-{seed}"));
    let ring = SharedRing::<Part>::create(&name, several(capacity)).unwrap();
    let mut tape = Tape::new(&ring);
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next_number = 0;
    let mut begin = |random: &mut fastrand::Rng| {
        next_number += 1;
        let what = if random.u8(0..3) == 0 { "die in a claim" } else { "publish" };
        Running::start(what, next_number, &name)
    };
    let mut alive: Vec<Running> = (0..3).map(|_| begin(&mut random)).collect();
    let mut acknowledged = HashMap::new();
    for _ in 0..rounds {
        let reader = random.bool().then(|| start("read 0", &name, None));
        // All go on until each living one has published something since.
        let begun = Instant::now();
        let mut victim = alive.swap_remove(random.usize(..alive.len()));
        while !tape.counts.contains_key(&victim.number) {
            match tape.read(random.usize(1..9), Duration::from_millis(50)) {
                // All that have joined may have killed themselves before the next one joins.
                Ok(_) | Err(Ended::ProducerDied) => {}
                Err(other) => panic!("{other}"),
            }
            assert!(begun.elapsed() < LONG, "stalled: {:?}", ring.participants());
            if victim.child.try_wait().unwrap().is_some() {
                break;
            }
        }
        std::thread::sleep(Duration::from_micros(random.u64(0..3_000)));
        victim.child.kill().unwrap();
        assert_eq!(victim.child.wait().unwrap().signal(), Some(9), "it ended by itself");
        acknowledged.insert(victim.number, victim.progress.read());
        if let Some(reader) = reader {
            kill(reader, &mut random);
        }
        alive.push(begin(&mut random));
    }
    for mut rest in alive {
        rest.child.kill().unwrap();
        rest.child.wait().unwrap();
        acknowledged.insert(rest.number, rest.progress.read());
    }
    let begun = Instant::now();
    while tape.read(100, Duration::from_millis(100)) != Err(Ended::ProducerDied) {
        assert!(begun.elapsed() < LONG, "stalled: {:?}", ring.participants());
    }
    assert!(tape.last.is_none_or(|last| last.place + 1 == last.len), "the last claim is cut: {:?}", tape.last);
    for (number, acknowledged) in acknowledged {
        let read = tape.counts.get(&number).copied().unwrap_or_default();
        assert!(acknowledged <= read, "producer {number}: {acknowledged} were acknowledged, {read} read");
    }
    // Nobody is held up by what the dead have left.
    let (mut one, mut other) = (ring.multi_producer().unwrap(), ring.multi_producer().unwrap());
    for round in 0..2 * capacity as u64 {
        for (number, out) in [(u64::MAX >> 30, &mut one), (u64::MAX >> 31, &mut other)] {
            publish(out, number, round, 1, |_| ()).unwrap();
            assert_eq!(tape.read(1, LONG), Ok(1));
        }
    }
    drop((one, other));
    let left: Vec<_> = ring.participants().into_iter().filter(|it| it.role == Role::Producer).collect();
    assert_eq!(left, [], "entries of the dead are left over");
    println!(
        "{capacity} slots: {rounds} killed, {} events read, {} skipped",
        tape.last.unwrap().sequence,
        tape.skipped
    );
}

#[test]
fn several_producers_that_are_killed_lose_nothing_and_hold_nobody() {
    let rounds = kills(60) / 4;
    for (capacity, seed) in [(1, 1), (2, 2), (8, 3), (64, 4)] {
        producers_die(capacity, rounds, seed);
    }
}

#[test]
fn a_stopped_producer_is_waited_for_and_shown_and_skipped_once_it_is_killed() {
    let name = Named::new("stopped");
    // Room for all that a producer publishes before it stops.
    let ring = SharedRing::<Part>::create(&name, several(256)).unwrap();
    let mut tape = Tape::new(&ring);
    let mut out = ring.multi_producer_named("other").unwrap();
    let mut count = 0;
    for (number, is_killed) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut stopped = Running::start("stop in a claim", number, &name);
        stopped.wait_until_stopped();
        let stuck = ring.published();
        for _ in 0..3 {
            publish(&mut out, 0, count, 2, |_| ()).unwrap();
            count += 2;
        }
        // Everything before its claim is read; then nothing, however often the others look for the dead.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(60) {
            tape.read(100, Duration::from_millis(20)).unwrap();
        }
        assert_eq!((ring.published(), tape.consumer.position()), (stuck, stuck), "a living claim was skipped");
        let shown = ring.participants().into_iter().find(|it| it.name == format!("p{number}")).unwrap();
        assert!(shown.is_alive && shown.role == Role::Producer);
        let claim = shown.claim.unwrap();
        assert_eq!(claim.first, stuck);
        assert_eq!(claim.next().0 + 6, ring.claimed().0);
        let before = tape.skipped;
        let acknowledged = stopped.progress.read();
        if is_killed {
            stopped.child.kill().unwrap();
        } else {
            stopped.go_on();
        }
        let begun = Instant::now();
        while tape.counts.get(&0) != Some(&count) {
            tape.read(100, Duration::from_millis(20)).unwrap();
            assert!(begun.elapsed() < LONG, "stalled: {:?}", ring.participants());
        }
        if is_killed {
            println!("a dead claim was skipped after {:?}", begun.elapsed());
            assert_eq!(stopped.child.wait().unwrap().signal(), Some(9));
            assert_eq!(tape.counts.get(&number).copied().unwrap_or_default(), acknowledged);
            assert_eq!(tape.skipped - before, claim.len as u64);
        } else {
            assert_eq!(tape.counts[&number], acknowledged + claim.len as u64, "it was not delivered");
            assert_eq!(tape.skipped, before);
            stopped.child.kill().unwrap();
            stopped.child.wait().unwrap();
        }
    }
}

#[test]
fn a_consumer_that_never_waits_and_a_producer_that_only_tries_are_heirs_too() {
    let name = Named::new("tries");
    let ring = SharedRing::<Part>::create(&name, several(2)).unwrap();
    let dead = |number| {
        let mut dead = Running::start("stop in a claim", number, &name);
        dead.wait_until_stopped();
        dead.child.kill().unwrap();
        dead.child.wait().unwrap();
    };
    // Nobody reads: what holds up the producer is the claim of the dead one.
    dead(1);
    let mut out = ring.multi_producer().unwrap();
    let mut last = Sequence(0);
    for _ in 0..5 {
        last = out.try_publish(|event| event.place = 7).unwrap();
    }
    let mut reader = ring.consumer("reader").start(Start::Latest).join().unwrap();
    assert_eq!(reader.position(), last.plus(1));
    // Somebody reads by polls alone. (The next one to die needs the room that the reader gives.)
    let mut dead = Running::start("stop in a claim", 2, &name);
    let mut status = 0;
    // SAFETY: as in `wait_until_stopped`.
    while unsafe { libc::waitpid(dead.child.id() as i32, &raw mut status, libc::WUNTRACED | libc::WNOHANG) } == 0 {
        (&mut reader.poll(9).unwrap()).into_iter().for_each(drop);
    }
    dead.child.kill().unwrap();
    dead.child.wait().unwrap();
    drop(out);
    let skipped = ring.claimed();
    let begun = Instant::now();
    while reader.position() != skipped {
        (&mut reader.poll(9).unwrap()).into_iter().for_each(drop);
        assert!(begun.elapsed() < LONG, "stalled: {:?}", ring.participants());
    }
}

fn read(consumer: &mut SharedConsumer<u64>, limit: usize) -> Vec<(u64, u64)> {
    let mut batch = consumer.poll(limit).unwrap();
    (&mut batch).into_iter().map(|(sequence, value)| (sequence.0, *value)).collect()
}

#[test]
fn claims_of_several_are_published_in_their_order_and_dropped_ones_are_skipped() {
    let name = Named::new("order");
    let ring = SharedRing::<u64>::create(&name, several(8)).unwrap();
    let mut tape = ring.consumer("tape").join().unwrap();
    let (mut one, mut other) = (ring.multi_producer().unwrap(), ring.multi_producer().unwrap());
    for _ in 0..20 {
        let at = tape.position().0;
        let mut first = one.claim(3).unwrap();
        let mut second = other.claim(2).unwrap();
        first.iter_mut().for_each(|(sequence, value)| *value = sequence.0 + 100);
        second.iter_mut().for_each(|(sequence, value)| *value = sequence.0 + 100);
        assert_eq!(second.commit().unwrap().first, Sequence(at + 3));
        assert_eq!(read(&mut tape, 9), [], "the first claim is not out");
        assert_eq!((ring.published(), ring.claimed()), (Sequence(at), Sequence(at + 5)));
        assert_eq!(first.commit().unwrap().first, Sequence(at));
        assert_eq!(read(&mut tape, 9), (at..at + 5).map(|it| (it, it + 100)).collect::<Vec<_>>());
        // A dropped claim, one that is unwound, and one that is leaked until its producer claims again.
        drop(other.claim(1).unwrap());
        let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            one.publish(|_| std::panic::resume_unwind(Box::new("as tested")))
        }));
        assert!(unwound.is_err());
        assert_eq!(read(&mut tape, 9), []);
        assert_eq!(tape.position(), Sequence(at + 7), "skipped slots are passed");
        std::mem::forget(one.claim(1).unwrap());
        other.publish(|value| *value = 1).unwrap();
        assert_eq!(read(&mut tape, 9), [], "behind a leaked claim nothing is out");
        one.publish(|value| *value = 2).unwrap();
        assert_eq!(read(&mut tape, 9), [(at + 8, 1), (at + 9, 2)]);
        // As above, until its producer is dropped.
        std::mem::forget(one.claim(2).unwrap());
        drop(one);
        one = ring.multi_producer().unwrap();
        assert_eq!((read(&mut tape, 9), tape.position()), (vec![], Sequence(at + 12)));
        // A batch ends before a skipped slot, and the next one begins behind it.
        one.publish(|value| *value = 3).unwrap();
        drop(other.claim(2).unwrap());
        other.publish(|value| *value = 4).unwrap();
        assert_eq!(read(&mut tape, 9), [(at + 12, 3)]);
        assert_eq!(read(&mut tape, 9), [(at + 15, 4)]);
    }
    assert_eq!(one.claim(9).map(|_| ()), Err(PublishError::TooLong { asked: 9, largest: 8 }));
}

#[test]
fn without_room_the_error_names_who_holds_the_ring_up() {
    let name = Named::new("room");
    let ring = SharedRing::<u64>::create(&name, several(2)).unwrap();
    let mut slow = ring.multi_producer_named("slow").unwrap();
    let mut other = ring.multi_producer_named("other").unwrap();
    // Nobody reads: a producer has a lap of room, but does not lap another one that still writes.
    (0..5).for_each(|_| assert!(other.publish(|_| ()).is_ok()));
    let claim = slow.claim(1).unwrap();
    other.publish(|_| ()).unwrap();
    let soon = Instant::now() + Duration::from_millis(30);
    assert_eq!(other.try_publish(|_| ()), Err(PublishError::Full { slowest: "slow".to_owned() }));
    assert_eq!(other.publish_until(soon, |_| ()), Err(PublishError::TimedOut { slowest: "slow".to_owned() }));
    claim.commit().unwrap();
    other.publish(|_| ()).unwrap();
    let reader = ring.consumer("reader").start(Start::Latest).join().unwrap();
    (0..2).for_each(|_| assert!(slow.publish(|_| ()).is_ok()));
    assert_eq!(other.try_publish(|_| ()), Err(PublishError::Full { slowest: "reader".to_owned() }));
    drop(reader);
    other.try_publish(|_| ()).unwrap();
}

#[test]
fn sleepers_are_woken_by_each_of_several() {
    let name = Named::new("sleep");
    let ring = SharedRing::<u64>::create(&name, several(2)).unwrap();
    let asleep = || Wait::spin_then_park().spin_for(Duration::ZERO).yields(0);
    let mut tape = ring.consumer("tape").wait(asleep()).join().unwrap();
    let producers: Vec<_> = (0..3).map(|_| ring.multi_producer().unwrap().wait(asleep())).collect();
    std::thread::scope(|scope| {
        for (number, mut out) in producers.into_iter().enumerate() {
            scope.spawn(move || {
                for count in 0..500 {
                    match count % 5 {
                        0 => drop(out.claim(2).unwrap()),
                        _ => drop(out.publish(|value| *value = (number as u64) << 32 | count).unwrap()),
                    }
                }
            });
        }
        let (mut counts, mut read) = ([0u64; 3], 0);
        while read < 3 * 400 {
            let mut batch = tape.poll_until(3, Instant::now() + LONG).unwrap();
            assert!(!batch.is_empty(), "stalled: {:?}", ring.participants());
            for (_, value) in &mut batch {
                let (number, count) = ((*value >> 32) as usize, *value & 0xffff_ffff);
                assert!(count > counts[number], "of producer {number}");
                counts[number] = count;
                read += 1;
            }
        }
        // The slots of the claims that were dropped last are given back, too.
        while ring.claimed() != tape.position() {
            let _ = tape.poll(1).unwrap();
        }
    });
}

#[test]
fn what_several_publish_is_retained_and_ends_with_the_ring() {
    let name = Named::new("end");
    let ring = SharedRing::<u64>::create(&name, several(8).retain(3)).unwrap();
    let (mut one, mut other) = (ring.multi_producer().unwrap(), ring.multi_producer().unwrap());
    for value in 0..20 {
        one.publish(|event| *event = value).unwrap();
    }
    assert_eq!(one.claim(6).map(|_| ()), Err(PublishError::TooLong { asked: 6, largest: 5 }));
    let mut late = ring.consumer("late").join().unwrap();
    assert_eq!(read(&mut late, 9), [(17, 17), (18, 18), (19, 19)]);
    // A claim from before the close is read to its commit; one from after it is an error.
    let mut before = one.claim(2).unwrap();
    before.iter_mut().for_each(|(sequence, event)| *event = sequence.0);
    ring.close();
    assert_eq!(other.publish(|_| ()).map(|_| ()), Err(PublishError::Ended(Ended::Closed)));
    assert_eq!(other.publish(|_| ()).map(|_| ()), Err(PublishError::Ended(Ended::Closed)));
    assert!(late.poll(9).unwrap().is_empty(), "a claim below the end is waited for");
    before.commit().unwrap();
    assert_eq!(read(&mut late, 9), [(20, 20), (21, 21)]);
    assert_eq!(late.poll(9).map(|_| ()), Err(Ended::Closed));
    assert_eq!(late.position(), Sequence(22), "no position passes the end");
}

#[test]
fn the_kind_of_a_ring_is_checked() {
    let name = Named::new("kind");
    let ring = SharedRing::<u64>::create(&name, several(4)).unwrap();
    let differs = |result: Result<(), SharedError>| match result {
        Err(SharedError::Mismatch { property, expected, found, .. }) => {
            assert_eq!(property, Property::Kind);
            format!("{found}, not {expected}")
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(differs(ring.producer().map(drop)), "several producers, not one producer");
    let opened = SharedRing::<u64>::open_or_create(&name, 4).map(drop);
    assert_eq!(differs(opened), "several producers, not one producer");
    assert!(ring.is_multi_producer() && SharedRing::<u64>::open_or_create(&name, several(4)).is_ok());
    let (one, other) = (ring.multi_producer().unwrap(), RawRing::open(&name).unwrap().producer_named("raw").unwrap());
    let names: Vec<_> = ring.participants().into_iter().map(|it| it.name).collect();
    assert_eq!(names, ["producer", "raw"]);
    drop((one, other));
    SharedRing::<u64>::remove(&name).unwrap();
    let ring = SharedRing::<u64>::create(&name, 4).unwrap();
    assert_eq!(differs(ring.multi_producer().map(drop)), "one producer, not several producers");
}

/// A claim that is made shorter, as at the end of the slots, leaves skipped slots behind its events.
#[test]
fn a_claim_of_bytes_can_be_made_shorter() {
    for is_multi in [false, true] {
        let name = Named::new(&format!("shorter-{is_multi}"));
        let size = if is_multi { several(8) } else { Size::slots(8) };
        let ring = SharedRing::<u64>::create(&name, size).unwrap();
        let mut tape = ring.consumer("tape").join().unwrap();
        let mut out = RawRing::open(&name).unwrap().producer().unwrap();
        let mut claim = out.claim(5).unwrap();
        claim.events_mut().0[..16].copy_from_slice(&[[1; 8], [2; 8]].concat());
        claim.truncate(2);
        claim.truncate(4);
        assert_eq!(claim.len(), 2);
        assert_eq!(claim.commit().unwrap().len, 2);
        let mut claim = out.claim(1).unwrap();
        claim.events_mut().0.fill(3);
        claim.commit().unwrap();
        let all: Vec<_> = (0..2).flat_map(|_| read(&mut tape, 9)).collect();
        let last = if is_multi { 5 } else { 2 };
        assert_eq!(all, [(0, [1; 8]), (1, [2; 8]), (last, [3; 8])].map(|(at, it)| (at, u64::from_ne_bytes(it))));
    }
}
