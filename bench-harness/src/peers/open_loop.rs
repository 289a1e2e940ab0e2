//! Latency at a rate: each message has an intended time, from which its latency counts, so that a message which waits behind
//! one that is late is late as well.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::latencies::Latencies;
use super::link::{Link, NoFigure, Receiver, Round, Sender, StartLine, Work, join};
use super::waiting::Waiting;
use crate::clock::Clock;
use crate::payload::{Check, InOrder};

/// How long before the first intended time both threads are ready.
const LEAD: Duration = Duration::from_micros(200);

/// The intended times, in ticks of the clock: `begun` and then one each `gap`.
struct Schedule {
    begun: u64,
    gap: f64,
}

impl Schedule {
    fn new(begun: u64, work: &Work, clock: &Clock) -> Self {
        Self { begun, gap: clock.ticks(work.silence.as_nanos() as f64) }
    }

    #[inline(always)]
    fn intended(&self, number: u64) -> u64 {
        self.begun + (number as f64 * self.gap) as u64
    }
}

/// Measures messages that are sent each [`Work::silence`], whether or not the last one has arrived.
pub fn open_loop<L: Link<N>, W: Waiting, const N: usize>(work: &Work) -> Result<Round, NoFigure> {
    let (mut senders, mut receiver) = L::open(work.capacity, 1, work.waiting)?;
    let mut sender = senders.remove(0);
    let (line, clock) = (StartLine::new(2), Clock::new());
    // The intended time of the first message; 0 until it is known.
    let first = Arc::new(AtomicU64::new(0));
    let producer = {
        let (line, work, clock, first) = (Arc::clone(&line), work.clone(), clock.clone(), Arc::clone(&first));
        std::thread::spawn(move || {
            line.take_place(work.pins.producer(0)).then(|| {
                let begun = clock.now() + clock.span(LEAD);
                first.store(begun, Ordering::Release);
                let schedule = Schedule::new(begun, &work, &clock);
                for number in 0..work.each {
                    while clock.now() < schedule.intended(number) {}
                    sender.send::<W>(number);
                }
                sender
            })
        })
    };
    let consumer = {
        let (line, work, clock) = (Arc::clone(&line), work.clone(), clock.clone());
        std::thread::spawn(move || {
            line.take_place(work.pins.consumer(0)).then(|| {
                let begun = loop {
                    match first.load(Ordering::Acquire) {
                        0 => std::hint::spin_loop(),
                        begun => break begun,
                    }
                };
                let schedule = Schedule::new(begun, &work, &clock);
                let (mut latencies, mut check) = (Latencies::new(), InOrder::default());
                receiver.receive::<W, false>(work.each, |message| {
                    let late = clock.now().saturating_sub(schedule.intended(message.value()));
                    latencies.record(clock.nanos(late));
                    check.see(message);
                });
                (latencies, check, receiver)
            })
        })
    };
    join(producer)?;
    let Some((latencies, check, _receiver)) = join(consumer)? else { return Err(NoFigure::Wrong(line.reason())) };
    check.verdict::<N>(1, work.each).map_err(NoFigure::Wrong)?;
    latencies.figure()
}

/// Measures how late the consumer's core is at the same times, with nothing to receive: what the machine alone does.
pub fn hiccups(work: &Work) -> Result<Round, NoFigure> {
    let (line, work, clock) = (StartLine::new(1), work.clone(), Clock::new());
    let thread = {
        let line = Arc::clone(&line);
        std::thread::spawn(move || {
            line.take_place(work.pins.consumer(0)).then(|| {
                let mut latencies = Latencies::new();
                let schedule = Schedule::new(clock.now() + clock.span(LEAD), &work, &clock);
                for number in 0..work.each {
                    let mut now = clock.now();
                    while now < schedule.intended(number) {
                        now = clock.now();
                    }
                    latencies.record(clock.nanos(now - schedule.intended(number)));
                }
                latencies
            })
        })
    };
    match join(thread)? {
        Some(latencies) => latencies.figure(),
        None => Err(NoFigure::Wrong(line.reason())),
    }
}
