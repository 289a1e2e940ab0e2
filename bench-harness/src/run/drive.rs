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
use crate::payload::{Payload, Seen, first_of};
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

struct Published {
    all: u64,
    sum: u64,
    measured: u64,
    dropped: u64,
    ended: u64,
}

/// Count of the messages that each consumer whose latencies count has read, for closed loop.
type Arrived = Arc<Vec<CachePadded<AtomicU64>>>;

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
    let arrived: Arrived = Arc::new((0..last).map(|_| CachePadded::default()).collect());
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
    arrived: Option<(Arrived, usize)>,
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
                arrived[*place].store(seen.count, Ordering::Release);
            }
        });
        open = drained.is_some();
    }
    (seen, recorder.finish(), role, source)
}

fn produce<P: Publish>(
    mut publisher: P,
    mut schedule: Schedule,
    load: &Load,
    clock: &Clock,
    start: u64,
    producer: usize,
    arrived: &[CachePadded<AtomicU64>],
) -> Published {
    let from = start + clock.span(load.warmup);
    let end = from + clock.span(load.duration);
    let (mut number, mut offered) = (first_of(producer), 0u64);
    let mut intended = vec![0u64; load.batch];
    let mut done = Published { all: 0, sum: 0, measured: 0, dropped: 0, ended: from };
    let (mut previous, mut sent_at) = (0, start);
    while clock.now() < start {
        std::hint::spin_loop();
    }
    loop {
        for slot in &mut intended {
            let planned = schedule.intended(offered);
            offered += 1;
            *slot = match planned {
                // In closed loop the schedule's gap counts from the time at which the last batch was sent, even if that
                // was late.
                Some(at) if load.closed => {
                    let gap = at - previous;
                    previous = at;
                    sent_at + gap
                }
                Some(at) => start + at,
                None => clock.now(),
            };
        }
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
            sent_at = now;
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
            while arrived.iter().any(|place| place.load(Ordering::Acquire) < done.all) {
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
