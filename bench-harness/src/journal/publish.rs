//! The time of each publish to a durable topic, at a steady rate, compared with a topic in memory whose only reader gives the
//! disk the work that the journal gives it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use serde::Serialize;
use slipring::{Producer, producer::Single};
use slipring_ring::pin;

use super::topic::{CAPACITY, Tick, engine, in_memory, ticks};
use super::{MESSAGE, bare};
use crate::clock::Clock;
use crate::failure::Failure;
use crate::output::scratch;

/// Bytes of a segment: small, so that many begin.
const SEGMENT: u64 = 16 << 20;

/// A publish belongs to the beginning of a segment within this time before and after it.
const AROUND: Duration = Duration::from_millis(2);

/// Percentiles of the publishing times, in nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Times {
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub p9999: u64,
    pub messages: usize,
}

/// The times of both topics, and of the durable one around the beginnings of segments.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    pub memory: Times,
    pub durable: Times,
    pub rolls: usize,
    pub at_rolls: Times,
}

/// Why a round has no times.
#[derive(Debug)]
pub enum RoundError {
    /// A ring was full: the disk stopped for longer than the ring holds messages.
    Full,
    /// Anything else, which another round would not mend.
    Failed(Failure),
}

impl From<Failure> for RoundError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// Makes rounds with `round` until there are `count`, and repeats those in which a ring was full, which are another
/// measurement: at most three times `count`. Returns the rounds and the count of the repeated ones. `round` is told if
/// the durable topic is the first.
pub fn rounds<R>(count: u64, round: impl Fn(bool) -> Result<R, RoundError>) -> Result<(Vec<R>, u64), Failure> {
    let (mut rounds, mut full) = (Vec::new(), 0);
    while (rounds.len() as u64) < count {
        match round((rounds.len() as u64 + full) % 2 == 1) {
            Ok(round) => rounds.push(round),
            Err(RoundError::Full) if full < count * 3 => full += 1,
            Err(RoundError::Full) => {
                let why = format!("a ring was full in {} of {} rounds", full + 1, rounds.len() as u64 + full + 1);
                return Err(Failure::Invalid(format!("{why}: take a lower --rate")));
            }
            Err(RoundError::Failed(failure)) => return Err(failure),
        }
    }
    Ok((rounds, full))
}

impl Times {
    fn of(mut nanos: Vec<u64>) -> Self {
        nanos.sort_unstable();
        let at = |share: f64| nanos.get(((nanos.len() as f64 * share) as usize).min(nanos.len().saturating_sub(1)));
        let [p50, p99, p999, p9999] = [0.5, 0.99, 0.999, 0.9999].map(|share| at(share).copied().unwrap_or(0));
        Self { p50, p99, p999, p9999, messages: nanos.len() }
    }

    pub fn text(&self) -> String {
        format!("{:>8} {:>8} {:>8} {:>8}", self.p50, self.p99, self.p999, self.p9999)
    }
}

/// A schedule that was played: when the first publish was due, and how late each one was done, both in ticks of the
/// clock.
struct Run {
    begun: u64,
    late: Vec<u32>,
}

fn publish(producer: &mut Producer<Tick, Single>, clock: &Clock, step: f64, count: usize) -> Result<Run, RoundError> {
    let mut late = vec![0_u32; count];
    let begun = clock.now() + clock.span(Duration::from_millis(20));
    for (number, late) in late.iter_mut().enumerate() {
        let due = begun + (number as f64 * step) as u64;
        while clock.now() < due {
            std::hint::spin_loop();
        }
        // A publish that waits for room would be another measurement, so a full ring ends the round with an error.
        let number = number as u64;
        let published = producer.try_publish(|tick| *tick = [number; MESSAGE / 8]);
        published.map_err(|error| match error.is_full() {
            true => RoundError::Full,
            false => Failure::Invalid(error.to_string()).into(),
        })?;
        *late = u32::try_from(clock.now() - due).unwrap_or(u32::MAX);
    }
    Ok(Run { begun, late })
}

/// One round of both topics, the durable one first if `first`. The producer has a core of its own, all other threads
/// share the other core.
pub fn round(dir: &Path, rate: u64, length: Duration, first: bool) -> Result<Round, RoundError> {
    let cores = pin::allowed_cores();
    let [producers, others, ..] = cores[..] else {
        return Err(Failure::usage("publish needs two cores: one for the producer alone").into());
    };
    let measured = std::thread::scope(|scope| {
        let measure = scope.spawn(|| {
            // Threads that this one starts inherit its core. The producers' threads then pin themselves to the other
            // one.
            pin::pin_current(others).map_err(|error| Failure::usage(error.to_string()))?;
            let count = ((rate as f64 * length.as_secs_f64()) as usize).max(1);
            let (mut memory, mut durable) = (None, None);
            for turn in [first, !first] {
                if turn {
                    durable = Some(on_disk(dir, rate, count, producers)?);
                } else {
                    memory = Some(on_ring(dir, rate, count, producers)?);
                }
            }
            Ok::<_, RoundError>((memory, durable))
        });
        joined(measure)
    });
    let (Some(memory), Some((durable, rolls, at_rolls))) = measured? else {
        return Err(Failure::Invalid("one of both is missing".to_owned()).into());
    };
    Ok(Round { memory, durable, rolls, at_rolls })
}

fn on_core(
    core: usize,
    mut producer: Producer<Tick, Single>,
    rate: u64,
    count: usize,
) -> impl FnOnce() -> Result<(Clock, Run), RoundError> {
    move || {
        pin::pin_current(core).map_err(|error| Failure::usage(error.to_string()))?;
        let clock = Clock::new();
        let step = clock.ticks(1e9 / rate as f64);
        publish(&mut producer, &clock, step, count).map(|run| (clock, run))
    }
}

fn joined<T, X: From<Failure>>(handle: std::thread::ScopedJoinHandle<'_, Result<T, X>>) -> Result<T, X> {
    handle.join().unwrap_or_else(|_| Err(Failure::Invalid("a thread of the measurement panicked".to_owned()).into()))
}

fn on_disk(dir: &Path, rate: u64, count: usize, core: usize) -> Result<(Times, usize, Times), RoundError> {
    let folder = scratch(dir)?;
    let engine = engine(folder.path(), true, SEGMENT)?;
    let topic = ticks(&engine)?;
    let journal = engine.journal().ok_or_else(|| Failure::refused("there is no journal"))?;
    let producer = topic.producer().create().map_err(Failure::refused)?;
    let is_over = AtomicBool::new(false);
    let (run, rolls) = std::thread::scope(|scope| {
        let publishing = scope.spawn(on_core(core, producer, rate, count));
        let watching = scope.spawn(|| {
            let clock = Clock::new();
            let (mut rolls, mut segment) = (Vec::new(), journal.written() / SEGMENT);
            while !is_over.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_micros(500));
                let now = journal.written() / SEGMENT;
                if now != segment {
                    segment = now;
                    rolls.push(clock.now());
                }
            }
            Ok::<_, RoundError>(rolls)
        });
        let run = joined(publishing);
        is_over.store(true, Ordering::Relaxed);
        Ok::<_, RoundError>((run?, joined(watching)?))
    })?;
    engine.shutdown(Duration::from_secs(60));
    drop(folder);
    let (clock, Run { begun, late }) = run;
    let step = clock.ticks(1e9 / rate as f64);
    let around = clock.span(AROUND);
    let mut at_rolls = Vec::new();
    for roll in &rolls {
        let number = |ticks: u64| ((ticks.saturating_sub(begun) as f64 / step) as usize).min(late.len());
        at_rolls.extend(&late[number(roll - around)..number(roll + around)]);
    }
    let nanos = |late: Vec<u32>| Times::of(late.into_iter().map(|ticks| clock.nanos(u64::from(ticks))).collect());
    Ok((nanos(late), rolls.len(), nanos(at_rolls)))
}

/// Measures the topic in memory. Its reader copies, takes the checksum, writes, and has another thread sync, one sync
/// at a time: the work of a journal.
fn on_ring(dir: &Path, rate: u64, count: usize, core: usize) -> Result<Times, RoundError> {
    let path = dir.join("memory");
    let bytes = (count * MESSAGE) as u64 + (1 << 20);
    let file = bare::file(&path, bytes)?;
    let (engine, topic) = in_memory()?;
    let mut reader = topic.subscribe("disk").limit(CAPACITY / 8).poll().map_err(Failure::refused)?;
    let producer = topic.producer().create().map_err(Failure::refused)?;
    let is_over = AtomicBool::new(false);
    let run = std::thread::scope(|scope| {
        let publishing = scope.spawn(on_core(core, producer, rate, count));
        let (is_over, reader) = (&is_over, &mut reader);
        let reading = scope.spawn(|| {
            let synced = AtomicU64::new(0);
            std::thread::scope(|scope| -> Result<(), Failure> {
                let (syncs, orders) = sync_channel::<u64>(1);
                let (synced, file, path) = (&synced, &file, &path);
                scope.spawn(move || {
                    for order in orders {
                        let _ = file.sync_data();
                        synced.store(order, Ordering::Release);
                    }
                });
                let (mut at, mut asked, mut out) = (0_u64, 0, Vec::new());
                let mut left = count;
                while left > 0 {
                    let ended = is_over.load(Ordering::Acquire);
                    let batch = reader.poll(Duration::from_millis(100)).map_err(Failure::refused)?;
                    let Some(mut batch) = batch.filter(|batch| !(ended && batch.is_empty())) else { break };
                    if batch.is_empty() {
                        continue;
                    }
                    out.clear();
                    for (tick, _) in &mut batch {
                        tick.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
                        left -= 1;
                    }
                    out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
                    write(file, path, &out, at)?;
                    drop(batch);
                    at += out.len() as u64;
                    if synced.load(Ordering::Acquire) == asked {
                        asked = at;
                        let _ = syncs.send(at);
                    }
                }
                Ok(())
            })
        });
        let run = joined(publishing);
        is_over.store(true, Ordering::Release);
        let read = joined(reading);
        // A reader that failed has let the ring become full, so its error is the cause.
        read.map_err(RoundError::from).and(run)
    })?;
    drop((engine, file));
    let _ = std::fs::remove_file(&path);
    let (clock, run) = run;
    Ok(Times::of(run.late.into_iter().map(|ticks| clock.nanos(u64::from(ticks))).collect()))
}

fn write(file: &File, path: &Path, bytes: &[u8], at: u64) -> Result<(), Failure> {
    file.write_all_at(bytes, at).map_err(|error| Failure::file(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A failed disk or a panic was counted as a full ring, and the round was repeated.
    #[test]
    fn only_a_round_in_which_a_ring_was_full_is_repeated() {
        let asked = AtomicU64::new(0);
        let at = |limit| {
            asked.store(0, Ordering::Relaxed);
            rounds(2, |_| match asked.fetch_add(1, Ordering::Relaxed) {
                number if number < limit => Err(RoundError::Full),
                _ => Ok(()),
            })
        };
        let made = |limit| at(limit).unwrap().1;
        assert_eq!((made(0), made(6)), (0, 6));
        let failure = at(7).unwrap_err();
        assert!(matches!(&failure, Failure::Invalid(why) if why.contains("full in 7 of 7")), "{failure}");
        asked.store(0, Ordering::Relaxed);
        let failed = rounds::<()>(2, |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            Err(Failure::Invalid("a producer panicked".to_owned()).into())
        });
        assert!(matches!(failed, Err(Failure::Invalid(_))) && asked.load(Ordering::Relaxed) == 1);
    }

    #[test]
    fn a_publish_tells_a_full_ring_from_one_that_has_ended() {
        let (_engine, topic) = in_memory().unwrap();
        let _reader = topic.subscribe("reader").poll().unwrap();
        let (mut producer, clock) = (topic.producer().create().unwrap(), Clock::new());
        assert!(matches!(publish(&mut producer, &clock, 0.0, CAPACITY + 1), Err(RoundError::Full)));
        topic.close();
        let ended = publish(&mut producer, &clock, 0.0, 1);
        assert!(matches!(ended, Err(RoundError::Failed(Failure::Invalid(_)))));
    }
}
