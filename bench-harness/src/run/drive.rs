//! The loops of producers and consumers in a run, for every topology.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_utils::CachePadded;

use super::load::Stall;
use super::recorder::{Live, Record, Recorder};
use super::schedule::Schedule;
use crate::clock::Clock;
use crate::ours::Drain;
use crate::payload::{MOST_PRODUCERS, Payload, Seen, first_of, producer_of};
use crate::peers::link::StartLine;
use crate::pin::PinPlan;

/// The publishing end of a ring or a topic, as a producer's loop uses it.
pub trait Publish: Send + 'static {
    /// Publishes messages with numbers from `first` on, one for each intended time. Returns false if they were not
    /// published: the ring is closed, or with `may_drop` it is full.
    fn publish(&mut self, intended: &[u64], first: u64, may_drop: bool) -> bool;
}

/// A consumer's part in the graph.
#[derive(Clone, Copy, Debug)]
pub struct Role {
    /// True if no stage reads after this consumer. Only its latencies are in the result.
    pub last: bool,
    /// True if it shares the stream with other consumers.
    pub shares: bool,
}

/// The settings of the loops.
#[derive(Clone)]
pub struct Load {
    /// Measured time.
    pub duration: Duration,
    /// Time before the measured time, in which nothing is recorded.
    pub warmup: Duration,
    /// Messages of a batch.
    pub batch: usize,
    /// True in closed loop: the next batch is sent when the last one has arrived.
    pub closed: bool,
    /// True if messages are dropped when the ring is full.
    pub may_drop: bool,
    /// The deliberate stall of the first consumer whose latencies count; `None` for none.
    pub stall: Option<Stall>,
    /// The cores of the threads.
    pub pins: PinPlan,
    /// The figures for the live display; `None` if there is none.
    pub live: Option<Arc<Live>>,
}

/// The figures of a run.
pub struct Outcome {
    /// The latencies.
    pub record: Record,
    /// Count of the messages that were published in the measured time.
    pub sent: u64,
    /// Count of the messages that were dropped because the ring was full.
    pub dropped: u64,
    /// The time from the end of the warm-up to the last publish, in seconds; at least the measured time. It is longer
    /// if the producers were late.
    pub seconds: f64,
    /// The faults of the messages that arrived, in words; empty if there are none.
    pub faults: Vec<String>,
}

/// The intended times of a producer's messages, in ticks.
struct Pace {
    schedule: Schedule,
    /// Count of the messages that have intended times.
    offered: u64,
    start: u64,
    closed: bool,
    /// In closed loop the scheduled time of the last message before, after the start, and the time at which its batch
    /// was sent: the schedule's gaps count from there, even if that was late.
    previous: u64,
    sent_at: u64,
}

impl Pace {
    fn new(schedule: Schedule, start: u64, closed: bool) -> Self {
        Self { schedule, offered: 0, start, closed, previous: 0, sent_at: start }
    }

    /// Sets the times of the next batch.
    fn plan(&mut self, intended: &mut [u64], now: impl Fn() -> u64) {
        let before = self.previous;
        for slot in intended {
            let planned = self.schedule.intended(self.offered);
            self.offered += 1;
            *slot = match planned {
                Some(at) if self.closed => {
                    self.previous = at;
                    self.sent_at + (at - before)
                }
                Some(at) => self.start + at,
                None => now(),
            };
        }
    }
}

struct Published {
    all: u64,
    sum: u64,
    measured: u64,
    dropped: u64,
    ended: u64,
}

/// The messages that have arrived, for closed loop.
struct Arrived {
    /// For each consumer whose latencies count, how many messages of each producer it has read. Only that consumer
    /// writes them.
    counts: Vec<CachePadded<[AtomicU64; MOST_PRODUCERS]>>,
    /// True if the consumers share the stream, so that a message arrives at one of them.
    shared: bool,
}

impl Arrived {
    fn new(consumers: usize, shared: bool) -> Arc<Self> {
        Arc::new(Self { counts: (0..consumers).map(|_| CachePadded::default()).collect(), shared })
    }

    #[inline(always)]
    fn note(&self, consumer: usize, number: u64) {
        let count = &self.counts[consumer][producer_of(number)];
        count.store(count.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// True if `count` messages of the producer have arrived wherever they should.
    fn has(&self, producer: usize, count: u64) -> bool {
        let mut read = self.counts.iter().map(|each| each[producer].load(Ordering::Acquire));
        if self.shared { read.sum::<u64>() >= count } else { read.all(|read| read >= count) }
    }
}

/// Runs producers and consumers for the time of `load`. A ring's batches have at most `limit` events.
///
/// # Errors
///
/// The refused pin or the panic, in words.
pub fn drive<P: Publish, S: Drain<Payload<W>>, const W: usize>(
    load: &Load,
    clock: &Clock,
    publishers: Vec<P>,
    schedules: Vec<Schedule>,
    sources: Vec<(S, Role)>,
    limit: usize,
) -> Result<Outcome, String> {
    let producers = publishers.len();
    let line = StartLine::new(producers + sources.len());
    // Late enough for all threads to have reached their loops.
    let start = clock.now() + clock.span(Duration::from_millis(5 + 3 * sources.len() as u64));
    let from = start + clock.span(load.warmup);
    let last = sources.iter().filter(|(_, role)| role.last).count();
    let arrived = Arrived::new(last, sources.iter().any(|(_, role)| role.shares));
    let mut next_last = 0;
    let consumers: Vec<_> = sources
        .into_iter()
        .enumerate()
        .map(|(index, (source, role))| {
            let (line, core) = (Arc::clone(&line), load.pins.consumer(index));
            let recorder =
                Recorder::new(clock, from, load.duration, load.live.clone().filter(|_| role.last && next_last == 0));
            let stall = load.stall.filter(|_| role.last && next_last == 0);
            let counter = (load.closed && role.last).then(|| (Arc::clone(&arrived), next_last));
            next_last += usize::from(role.last);
            let clock = clock.clone();
            std::thread::spawn(move || {
                line.take_place(core).then(|| consume((source, limit), role, &clock, recorder, from, stall, counter))
            })
        })
        .collect();
    let producing: Vec<_> = publishers
        .into_iter()
        .zip(schedules)
        .enumerate()
        .map(|(index, (publisher, schedule))| {
            let (line, load, clock) = (Arc::clone(&line), load.clone(), clock.clone());
            let arrived = Arc::clone(&arrived);
            std::thread::spawn(move || {
                line.take_place(load.pins.producer(index))
                    .then(|| produce(publisher, schedule, &load, &clock, start, index, &arrived))
            })
        })
        .collect();
    let panicked = |_| "a thread of the run panicked".to_owned();
    let mut published = Vec::new();
    for thread in producing {
        published.extend(thread.join().map_err(panicked)?);
    }
    let mut seen = Vec::new();
    for thread in consumers {
        seen.extend(thread.join().map_err(panicked)?);
    }
    if published.len() < producers {
        return Err(line.reason());
    }
    Ok(sum_up(load, clock, from, &published, seen))
}

fn sum_up<S>(
    load: &Load,
    clock: &Clock,
    from: u64,
    published: &[Published],
    seen: Vec<(Seen, Record, Role, S)>,
) -> Outcome {
    let all: u64 = published.iter().map(|it| it.all).sum();
    let sum = published.iter().fold(0u64, |sum, it| sum.wrapping_add(it.sum));
    let mut faults = Vec::new();
    let mut record = Record::new(super::recorder::intervals(load.duration));
    let (mut shared, mut shared_sum, mut sharing) = (0, 0u64, false);
    for (index, (stream, stage, role, _)) in seen.iter().enumerate() {
        if let Some(fault) = stream.fault(role.shares || load.may_drop) {
            faults.push(format!("consumer {index}: {fault}"));
        }
        if role.shares {
            sharing = true;
            shared += stream.count;
            shared_sum = shared_sum.wrapping_add(stream.sum);
        } else if (stream.count, stream.sum) != (all, sum) {
            faults.push(format!("consumer {index}: {} messages arrived of {all}", stream.count));
        }
        if role.last {
            record.merge(stage);
        }
    }
    if sharing && (shared, shared_sum) != (all, sum) {
        faults.push(format!("the workers together saw {shared} messages of {all}"));
    }
    let ended = published.iter().map(|it| it.ended).max().unwrap_or(from);
    let spent = clock.nanos(ended.saturating_sub(from)) as f64 / 1e9;
    Outcome {
        record,
        sent: published.iter().map(|it| it.measured).sum(),
        dropped: published.iter().map(|it| it.dropped).sum(),
        seconds: spent.max(load.duration.as_secs_f64()),
        faults,
    }
}

fn consume<S: Drain<Payload<W>>, const W: usize>(
    (mut source, limit): (S, usize),
    role: Role,
    clock: &Clock,
    mut recorder: Recorder,
    from: u64,
    stall: Option<Stall>,
    arrived: Option<(Arc<Arrived>, usize)>,
) -> (Seen, Record, Role, S) {
    let mut seen = Seen::default();
    let (stall_ticks, stall_every) =
        stall.map_or((0, u64::MAX / 2), |stall| (clock.span(stall.time), clock.span(stall.every).max(1)));
    let mut next_stall = from.saturating_add(stall_every / 2);
    let mut open = true;
    while open {
        let drained = source.drain::<false>(limit, |event| {
            seen.see(event);
            if !role.last {
                return;
            }
            let mut now = clock.now();
            if now >= next_stall {
                let until = now + stall_ticks;
                while now < until {
                    now = clock.now();
                }
                next_stall += stall_every;
            }
            recorder.record(event.intended(), now);
            if let Some((arrived, place)) = &arrived {
                arrived.note(*place, event.value());
            }
        });
        open = drained.is_some();
    }
    (seen, recorder.finish(), role, source)
}

fn produce<P: Publish>(
    mut publisher: P,
    schedule: Schedule,
    load: &Load,
    clock: &Clock,
    start: u64,
    producer: usize,
    arrived: &Arrived,
) -> Published {
    let from = start + clock.span(load.warmup);
    let end = from + clock.span(load.duration);
    let mut number = first_of(producer);
    let mut pace = Pace::new(schedule, start, load.closed);
    let mut intended = vec![0u64; load.batch];
    let mut done = Published { all: 0, sum: 0, measured: 0, dropped: 0, ended: from };
    while clock.now() < start {
        std::hint::spin_loop();
    }
    loop {
        pace.plan(&mut intended, || clock.now());
        let due = intended[load.batch - 1];
        if due >= end {
            break;
        }
        let mut now = clock.now();
        while now < due {
            now = clock.now();
        }
        if load.closed {
            // The latency counts from now, so that the delay of a late message is in no figure: that is what closed loop hides.
            intended.fill(now);
            pace.sent_at = now;
        }
        let published = publisher.publish(&intended, number, load.may_drop);
        let measured = intended.iter().filter(|at| **at >= from).count() as u64;
        if !published {
            done.dropped += measured;
            continue;
        }
        for _ in 0..load.batch {
            done.sum = done.sum.wrapping_add(number);
            number += 1;
        }
        done.all += load.batch as u64;
        done.measured += measured;
        if load.closed {
            while !arrived.has(producer, done.all) {
                std::thread::yield_now();
            }
        }
        done.ended = clock.now();
        if done.ended >= end + (end - from) {
            // Twice the measured time has passed: the rate was missed, so the rest is not sent.
            break;
        }
    }
    drop(publisher);
    done
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::Rate;
    use crate::run::schedule::Arrival;

    /// A producer in closed loop once waited until each worker had all messages: for ever, as workers share them. And what
    /// other producers had sent counted as its own.
    #[test]
    fn closed_loop_waits_for_a_producers_own_messages_at_one_worker_or_at_each_stage() {
        for shared in [true, false] {
            let arrived = Arrived::new(2, shared);
            arrived.note(0, first_of(1));
            arrived.note(1, first_of(1));
            assert!(!arrived.has(0, 1), "of another producer");
            arrived.note(0, first_of(0));
            assert_eq!((arrived.has(0, 1), arrived.has(0, 2)), (shared, false));
            arrived.note(1, first_of(0) + 1);
            assert_eq!((arrived.has(0, 1), arrived.has(0, 2)), (true, shared));
        }
    }

    /// A batch was due when its last message alone was, so that batches of four had four times the rate.
    #[test]
    fn closed_loop_keeps_its_rate_in_batches_of_any_size() {
        let clock = Clock::new();
        let second = clock.ticks(1e9);
        for batch in [1, 4, 16] {
            let rate = Rate::PerSecond(1e6);
            let schedule = Schedule::for_producers(&Arrival::Fixed, rate, 1, &clock).unwrap().remove(0);
            let mut pace = Pace::new(schedule, 1_000, true);
            let mut intended = vec![0; batch];
            for _ in 0..100_000 / batch {
                pace.plan(&mut intended, || unreachable!());
                // Each batch is sent when it is due.
                pace.sent_at = intended[batch - 1];
            }
            let spent = (pace.sent_at - 1_000) as f64 / second;
            assert!((spent - 0.1).abs() < 1e-4, "batches of {batch}: {spent} s for a tenth of a million");
        }
    }
}
