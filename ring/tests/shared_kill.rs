//! Processes that are killed while they use a shared ring: producers, consumers, and processes that create, join and
//! leave. What was acknowledged is read, nothing is torn, and nobody waits for the dead.
//!
//! The processes are this test binary, started anew. A soak kills as many as asked for:
//! `SLIPRING_SHARED_KILLS=20000 cargo test --release -p slipring-ring --test shared_kill -- --nocapture`.
#![cfg(all(target_os = "linux", not(any(loom, shuttle, miri))))]

use slipring_ring::Start;
use slipring_ring::shared::{Ended, SharedError, SharedRing, Size};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

#[path = "common/killing.rs"]
mod killing;

use killing::{LONG, NAME, PROGRESS, Progress, WHAT, kill, kills, start};

slipring_ring::shared_event! {
    /// An event that shows if it is torn: the second word depends on the first, and so does each of the others.
    struct Numbered { number: u64, sum: u64, filled: [u64; 6] }
}

impl Numbered {
    fn of(number: u64) -> Self {
        let sum = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { number, sum, filled: [sum; 6] }
    }

    fn check(&self) -> u64 {
        let whole = Self::of(self.number);
        assert_eq!((self.sum, self.filled), (whole.sum, whole.filled), "event {} is torn", self.number);
        self.number
    }
}

/// Not a test: what the tests start and kill.
#[test]
#[ignore = "started by the tests below"]
fn child() {
    let name = std::env::var(NAME).expect("started by the tests below");
    let name = name.as_str();
    match std::env::var(WHAT).unwrap().as_str() {
        "publish" => {
            let progress = File::options().write(true).open(std::env::var(PROGRESS).unwrap()).unwrap();
            let ring = SharedRing::<Numbered>::open(name).unwrap();
            let mut out = ring.producer().unwrap();
            // The number of an event is its sequence, so a successor needs no memory of its predecessor.
            for round in 0u64.. {
                let len = 1 + (round as usize % 3).min(ring.capacity() - 1);
                let mut claim = out.claim(len).unwrap();
                for (sequence, event) in claim.iter_mut() {
                    // In two steps, so that a reader would find a half of it.
                    event.number = sequence.0;
                    *event = Numbered::of(sequence.0);
                }
                let done = claim.commit().unwrap();
                progress.write_all_at(&done.next().0.to_ne_bytes(), 0).unwrap();
            }
        }
        "read" => {
            let ring = SharedRing::<Numbered>::open(name).unwrap();
            let mut reader = ring.consumer(format!("r{}", std::process::id())).start(Start::Latest).join().unwrap();
            loop {
                let mut next = reader.position();
                let mut batch = match reader.poll_wait(7) {
                    Ok(batch) => batch,
                    Err(Ended::ProducerDied) => continue,
                    Err(other) => panic!("{other}"),
                };
                for (sequence, event) in &mut batch {
                    assert_eq!((sequence, event.check()), (next, sequence.0));
                    next = next.plus(1);
                }
            }
        }
        "hold" => {
            let progress = File::options().write(true).open(std::env::var(PROGRESS).unwrap()).unwrap();
            let ring = SharedRing::<Numbered>::open(name).unwrap();
            let mut reader = ring.consumer("recorder").hold().join().unwrap();
            loop {
                let mut batch = reader.poll_wait(3).unwrap();
                let mut at = 0;
                for (sequence, event) in &mut batch {
                    at = event.check() + 1;
                    assert_eq!(sequence.0 + 1, at);
                }
                drop(batch);
                progress.write_all_at(&at.to_ne_bytes(), 0).unwrap();
            }
        }
        "come and go" => loop {
            let ring = match SharedRing::<u64>::open_or_create(name, 4) {
                // The parent removes it from time to time.
                Ok(ring) => ring,
                Err(SharedError::Ended(Ended::Replaced)) => continue,
                Err(other) => panic!("{other}"),
            };
            let joined = ring.consumer("comer").join();
            if let (Ok(mut reader), Ok(mut out)) = (joined, ring.producer()) {
                let _ = out.try_publish(|event| *event = 7);
                let _ = reader.poll(1).map(|mut batch| (&mut batch).into_iter().count());
            }
        },
        other => panic!("{other}"),
    }
}

/// Producers are killed one after another, and readers at random; a recorder of this process reads everything.
fn producers_die(capacity: usize, rounds: usize, seed: u64) {
    let name = format!("kill-{}-{capacity}-{seed}", std::process::id());
    let progress = Progress::new(&name);
    let ring = SharedRing::<Numbered>::create(&name, capacity).unwrap();
    let mut tape = ring.consumer("tape").join().unwrap();
    let mut random = fastrand::Rng::with_seed(seed);
    let mut next = 0;
    for _ in 0..rounds {
        let reader = random.bool().then(|| start("read", &name, None));
        let producer = start("publish", &name, Some(&progress.1));
        let mut victim = Some((producer, Instant::now()));
        let before = next;
        let begun = Instant::now();
        loop {
            match tape.poll_until(5, Instant::now() + Duration::from_millis(100)) {
                Ok(mut batch) => {
                    for (sequence, event) in &mut batch {
                        assert_eq!((sequence.0, event.check()), (next, next));
                        next += 1;
                    }
                }
                // All that the dead have published was read before this.
                Err(Ended::ProducerDied) if victim.is_none() => break,
                Err(Ended::ProducerDied) if next == before => {}
                Err(other) => panic!("{other}"),
            }
            assert!(begun.elapsed() < LONG, "stalled at {next} of {}", progress.read());
            // Killed when it has published something, at a random time after that.
            if next > before
                && let Some((producer, _)) = victim.take()
            {
                kill(producer, &mut random);
            }
        }
        let acknowledged = progress.read();
        assert!(acknowledged <= next, "{acknowledged} were acknowledged, {next} read");
        if let Some(reader) = reader {
            kill(reader, &mut random);
        }
    }
    // A dead reader holds nobody for longer than two ticks; a busy machine may take longer to run us.
    let mut out = ring.producer().unwrap();
    for _ in 0..2 * capacity {
        out.publish_until(Instant::now() + LONG, |event| *event = Numbered::of(next)).unwrap();
        let mut batch = tape.poll_wait(1).unwrap();
        (&mut batch).into_iter().for_each(|(_, event)| assert_eq!(event.check(), next));
        next += 1;
    }
    drop((out, tape));
    SharedRing::<Numbered>::remove(&name).unwrap();
}

#[test]
fn producers_and_readers_that_are_killed_lose_nothing_and_hold_nobody() {
    let rounds = kills(48) / 4;
    for (capacity, seed) in [(1, 1), (2, 2), (8, 3), (64, 4)] {
        producers_die(capacity, rounds, seed);
    }
}

#[test]
fn a_held_consumer_that_is_killed_goes_on_exactly() {
    let name = format!("hold-{}", std::process::id());
    let progress = Progress::new(&name);
    let ring = SharedRing::<Numbered>::create(&name, 8).unwrap();
    drop(ring.consumer("recorder").hold().join().unwrap());
    let mut out = ring.producer().unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    let mut published = 0;
    let mut after = 0;
    for _ in 0..kills(24) {
        let recorder = start("hold", &name, Some(&progress.1));
        let goal = published + random.u64(10..40);
        while published < goal {
            out.publish_until(Instant::now() + LONG, |event| *event = Numbered::of(published)).unwrap();
            published += 1;
        }
        kill(recorder, &mut random);
        let held = ring.participants().into_iter().find(|it| it.name == "recorder").unwrap();
        let position = held.position.unwrap().0;
        assert!(!held.is_alive && held.is_held && position >= after && position >= progress.read());
        after = position;
        // The position is exact: the ring takes as many events as are free in front of it, and no more.
        while published < position + 8 {
            out.try_publish(|event| *event = Numbered::of(published)).unwrap();
            published += 1;
        }
        assert!(out.try_publish(|_| ()).is_err());
    }
    let mut recorder = ring.consumer("recorder").hold().join().unwrap();
    let mut batch = recorder.poll(100).unwrap();
    let read: Vec<u64> = (&mut batch).into_iter().map(|(_, event)| event.check()).collect();
    assert_eq!(read, (after..published).collect::<Vec<_>>());
    drop(batch);
    drop((out, recorder));
    SharedRing::<Numbered>::remove(&name).unwrap();
}

#[test]
fn whoever_is_killed_while_it_creates_joins_or_leaves_leaves_nothing_behind() {
    let name = format!("come-{}", std::process::id());
    let mut random = fastrand::Rng::with_seed(6);
    for round in 0..kills(48) {
        let (one, other) = (start("come and go", &name, None), start("come and go", &name, None));
        // Some of these are killed before they have begun; most in the middle.
        std::thread::sleep(Duration::from_micros(random.u64(0..20_000)));
        if round % 3 == 0 {
            let _ = SharedRing::<u64>::remove_forced(&name);
        }
        for mut child in [one, other] {
            if random.bool() {
                std::thread::sleep(Duration::from_micros(random.u64(0..3_000)));
            }
            child.kill().unwrap();
            use std::os::unix::process::ExitStatusExt;
            assert_eq!(child.wait().unwrap().signal(), Some(9), "it ended by itself");
        }
        let ring = SharedRing::<u64>::open_or_create(&name, Size::slots(4)).unwrap();
        let mut reader = ring.consumer("comer").join().unwrap();
        let mut out = ring.producer().unwrap();
        for value in 0..8 {
            out.try_publish(|event| *event = value).unwrap();
            while !reader.poll(9).map(|mut batch| (&mut batch).into_iter().any(|(_, event)| *event == value)).unwrap() {
            }
        }
    }
    SharedRing::<u64>::remove(&name).unwrap();
    assert!(matches!(SharedRing::<u64>::open(&name), Err(SharedError::NotFound { .. })));
    let folder = std::fs::read_dir("/dev/shm").unwrap().map(|it| it.unwrap().path());
    for folder in folder.filter(|it| it.file_name().unwrap().to_string_lossy().starts_with("slipring-")) {
        for left in std::fs::read_dir(folder).unwrap() {
            let left = left.unwrap().file_name().to_string_lossy().into_owned();
            assert!(!left.contains(&name), "{left} is left over");
        }
    }
}

/// A forked child can do nothing with its parent's handles, and does not keep their locks.
#[test]
fn a_forked_child_is_refused_and_keeps_no_lock() {
    let name = format!("fork-{}", std::process::id());
    let ring = SharedRing::<u64>::create(&name, 4).unwrap();
    let mut tape = ring.consumer("tape").hold().join().unwrap();
    let mut out = ring.producer().unwrap();
    out.publish(|event| *event = 1).unwrap();
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: the child calls the ring and `write` only, and ends without running anything else.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let polled = tape.poll(1).map(|_| ());
        let published = out.publish(|event| *event = 2).map(|_| ());
        let refused = polled == Err(Ended::Forked) && published.is_err();
        drop((tape, out));
        let said = [u8::from(refused)];
        // SAFETY: the buffer has one byte, and the descriptor is that of the pipe.
        unsafe { libc::write(ends[1], said.as_ptr().cast(), 1) };
        loop {
            // Until the parent kills it.
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let mut said = [9u8];
    // SAFETY: the buffer has room for a byte, and the descriptor is that of the pipe.
    assert_eq!(unsafe { libc::read(ends[0], said.as_mut_ptr().cast(), 1) }, 1);
    assert_eq!(said[0], 1, "the child could use its copy");
    assert_eq!(out.publish(|event| *event = 2).unwrap().0, 1, "the parent goes on");
    drop((out, tape));
    // A process that another test is about to start has copies of all descriptors, until it becomes another program.
    let begun = Instant::now();
    while ring.participants().iter().any(|it| it.is_alive) {
        assert!(begun.elapsed() < LONG, "the child keeps a lock: {:?}", ring.participants());
    }
    // SAFETY: the process is this one's child, which was not waited for yet.
    unsafe { libc::kill(child, libc::SIGKILL) };
    // SAFETY: as above; no status is asked for.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    SharedRing::<u64>::remove(&name).unwrap();
}
