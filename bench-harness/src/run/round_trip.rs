//! The scenario ping-pong: a request through one ring and its answer through another, by a schedule.

use std::sync::Arc;

use slipring_ring::{Builder, Single};

use super::drive::{Load, Outcome};
use super::recorder::Recorder;
use super::schedule::Schedule;
use super::topology::Shape;
use crate::clock::Clock;
use crate::ours::{Drain, Pair, open_ring};
use crate::payload::{Payload, Seen};
use crate::peers::link::StartLine;

fn open<const W: usize>(shape: &Shape) -> Result<Pair<Payload<W>, Single>, String> {
    let wait = crate::wait_spec::parse(&shape.wait)?;
    let (mut producer, reader) = open_ring(Builder::single(shape.capacity, Payload::<W>::default), &wait)?;
    producer.set_wait(wait);
    Ok((producer, reader))
}

/// Reads one event; `None` once the producer is gone.
fn one<const W: usize>(reader: &mut impl Drain<Payload<W>>) -> Option<Payload<W>> {
    let mut read = None;
    reader.drain::<false>(1, |event| read = Some(*event))?;
    read
}

/// Runs round trips for the time of `load`.
///
/// # Errors
///
/// The refused ring or pin, in words.
pub fn run<const W: usize>(
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    mut schedule: Schedule,
) -> Result<Outcome, String> {
    let (mut ask, mut requests) = open::<W>(shape)?;
    let (mut answer, mut answers) = open::<W>(shape)?;
    let line = StartLine::new(2);
    let server = {
        let (line, core) = (Arc::clone(&line), load.pins.consumer(0));
        std::thread::spawn(move || {
            line.take_place(core).then(|| {
                let mut seen = Seen::default();
                while let Some(request) = one(&mut requests) {
                    seen.see(&request);
                    let _ = answer.publish(|event| *event = request);
                }
                seen
            })
        })
    };
    let client = {
        let (line, load, clock) = (Arc::clone(&line), load.clone(), clock.clone());
        std::thread::spawn(move || {
            line.take_place(load.pins.producer(0)).then(|| {
                let start = clock.now();
                let from = start + clock.span(load.warmup);
                let end = from + clock.span(load.duration);
                let mut recorder = Recorder::new(&clock, from, load.duration, load.live.clone());
                let mut seen = Seen::default();
                let (mut number, mut measured, mut ended) = (0, 0, from);
                let (mut previous, mut sent_at) = (0, start);
                loop {
                    let mut intended = match schedule.intended(number) {
                        Some(at) if load.closed => {
                            let gap = at - previous;
                            previous = at;
                            sent_at + gap
                        }
                        Some(at) => start + at,
                        None => clock.now(),
                    };
                    if intended >= end {
                        break;
                    }
                    let mut now = clock.now();
                    while now < intended {
                        now = clock.now();
                    }
                    if load.closed {
                        (intended, sent_at) = (now, now);
                    }
                    let _ = ask.publish(|event| event.fill_timed(intended, number));
                    let Some(answer) = one(&mut answers) else { break };
                    ended = clock.now();
                    seen.see(&answer);
                    recorder.record(answer.intended(), ended);
                    measured += u64::from(intended >= from);
                    number += 1;
                    if ended >= end + (end - from) {
                        break;
                    }
                }
                // The server ends when the producer is dropped.
                drop(ask);
                (seen, recorder.finish(), number, measured, ended.saturating_sub(from), answers)
            })
        })
    };
    let panicked = |_| "a thread of the run panicked".to_owned();
    let client = client.join().map_err(panicked)?;
    let server = server.join().map_err(panicked)?;
    let (Some((seen, record, number, sent, spent, _)), Some(served)) = (client, server) else {
        return Err(line.reason());
    };
    let mut faults: Vec<String> = [seen.fault(false), served.fault(false)].into_iter().flatten().collect();
    if seen.count != number {
        faults.push(format!("{} answers arrived for {number} requests", seen.count));
    }
    let seconds = (clock.nanos(spent) as f64 / 1e9).max(load.duration.as_secs_f64());
    Ok(Outcome { record, sent, dropped: 0, seconds, faults })
}
