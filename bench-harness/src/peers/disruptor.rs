//! disruptor-rs as a contender: managed handlers on its own pinned threads for streams and graphs, event pollers for round
//! trips.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use disruptor::{
    EventPoller, Polling, ProcessorSettings as _, Producer, Sequence, SingleProducerBarrier, build_multi_producer,
    build_single_producer, wait_strategies::WaitStrategy,
};

use super::link::{Link, NoFigure, Receiver, Round, Sender, StartLine, Work, join, produce};
use super::waiting::{Spin, WaitClass, Waiting, Yield};
use crate::payload::{Check, InOrder, Payload, PerProducer};
use crate::scenario::Scenario;

/// The wait strategy of a managed handler.
#[derive(Clone, Copy)]
struct Idle(WaitClass);

impl WaitStrategy for Idle {
    #[inline(always)]
    fn wait_for(&self, _sequence: Sequence) {
        match self.0 {
            WaitClass::Spin => std::hint::spin_loop(),
            WaitClass::Yield | WaitClass::Native => std::thread::yield_now(),
        }
    }
}

/// A producer of disruptor-rs, single or multi.
struct Writer<P>(P);

impl<const N: usize, P: Producer<Payload<N>> + Send + 'static> Sender<N> for Writer<P> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        if W::CLASS == WaitClass::Spin {
            self.0.publish(|event| event.fill(value));
            return;
        }
        let mut waiting = W::begin();
        while self.0.try_publish(|event| event.fill(value)).is_err() {
            waiting.idle();
        }
    }

    #[inline(always)]
    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        if W::CLASS == WaitClass::Spin {
            self.0.batch_publish(count, |events| {
                for (event, value) in events.zip(first..) {
                    event.fill(value);
                }
            });
            return;
        }
        let mut waiting = W::begin();
        while self
            .0
            .try_batch_publish(count, |events| {
                for (event, value) in events.zip(first..) {
                    event.fill(value);
                }
            })
            .is_err()
        {
            waiting.idle();
        }
    }
}

/// The place where a handler leaves its check and the time when it has read all events; `None` until then.
type Outcome<C> = Arc<Mutex<Option<(Instant, C)>>>;

/// A handler that checks `total` events and then notes the time.
fn handler<C: Check, const N: usize>(
    total: u64,
) -> (impl FnMut(&Payload<N>, Sequence, bool) + Send + 'static, Outcome<C>) {
    let outcome: Outcome<C> = Arc::default();
    let note = Arc::clone(&outcome);
    let (mut check, mut left) = (C::default(), total);
    let handle = move |event: &Payload<N>, _: Sequence, _: bool| {
        check.see(event);
        left -= 1;
        if left == 0 {
            let seen = (Instant::now(), std::mem::take(&mut check));
            *note.lock().unwrap_or_else(|poison| poison.into_inner()) = Some(seen);
        }
    };
    (handle, outcome)
}

/// Measures one round: runs the producers. The handlers, one for each outcome, already wait on threads of disruptor-rs,
/// and each has to read all events.
fn drive<P, C: Check, W: Waiting, const N: usize>(
    producers: Vec<P>,
    outcomes: Vec<Outcome<C>>,
    work: &Work,
) -> Result<Round, NoFigure>
where
    P: Producer<Payload<N>> + Send + 'static,
{
    let line = StartLine::new(producers.len());
    let threads: Vec<_> = producers
        .into_iter()
        .enumerate()
        .map(|(index, producer)| {
            let (line, work) = (Arc::clone(&line), work.clone());
            std::thread::spawn(move || {
                let mut writer = Writer(producer);
                line.take_place(work.pins.producer(index)).then(|| produce::<_, W, N>(&mut writer, index, &work))
                // The drop of the last producer waits until the handlers have read all events.
            })
        })
        .collect();
    let begun: Vec<_> = threads.into_iter().map(join).collect::<Result<_, _>>()?;
    let Some(first) = begun.into_iter().flatten().min() else { return Err(NoFigure::Wrong(line.reason())) };
    let mut last = first;
    for outcome in outcomes {
        let seen = outcome.lock().unwrap_or_else(|poison| poison.into_inner()).take();
        let Some((ended, check)) = seen else {
            return Err(NoFigure::Wrong("a handler did not see every message".to_owned()));
        };
        check.verdict::<N>(work.producers, work.each).map_err(NoFigure::Wrong)?;
        last = last.max(ended);
    }
    let total = work.each * work.producers as u64;
    Ok(Round::Rate(total as f64 / (last - first).as_secs_f64()))
}

/// Pins the next handler, unless pinning is off.
macro_rules! pinned {
    ($builder:expr, $core:expr) => {
        match $core {
            Some(core) => $builder.pin_at_core(core),
            None => $builder,
        }
    };
}

fn many<C: Check, W: Waiting, const N: usize>(work: &Work) -> Result<Round, NoFigure> {
    let (handle, outcome) = handler::<C, N>(work.each * work.producers as u64);
    let builder = build_multi_producer(work.capacity, Payload::default, Idle(W::CLASS));
    let producer = pinned!(builder, work.pins.consumer(0)).handle_events_with(handle).build();
    let mut producers: Vec<_> = (1..work.producers).map(|_| producer.clone()).collect();
    producers.push(producer);
    drive::<_, _, W, N>(producers, vec![outcome], work)
}

fn graph<W: Waiting, const N: usize>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    let total = work.each;
    let idle = Idle(W::CLASS);
    let core = |index| work.pins.consumer(index);
    match scenario {
        Scenario::MpscOne => return many::<InOrder, W, N>(work),
        Scenario::MpscTwo => return many::<PerProducer, W, N>(work),
        _ => {}
    }
    let (first, first_outcome) = handler::<InOrder, N>(total);
    let (second, second_outcome) = handler::<InOrder, N>(total);
    let (third, third_outcome) = handler::<InOrder, N>(total);
    let builder = build_single_producer(work.capacity, Payload::default, idle);
    let builder = pinned!(builder, core(0)).handle_events_with(first);
    match scenario {
        Scenario::Spsc => drive::<_, _, W, N>(vec![builder.build()], vec![first_outcome], work),
        Scenario::Fanout => {
            let producer = pinned!(builder, core(1)).handle_events_with(second).build();
            drive::<_, _, W, N>(vec![producer], vec![first_outcome, second_outcome], work)
        }
        Scenario::Pipeline => {
            let builder = builder.and_then();
            let builder = pinned!(builder, core(1)).handle_events_with(second).and_then();
            let producer = pinned!(builder, core(2)).handle_events_with(third).build();
            let outcomes = vec![first_outcome, second_outcome, third_outcome];
            drive::<_, _, W, N>(vec![producer], outcomes, work)
        }
        Scenario::Diamond => {
            let builder = pinned!(builder, core(1)).handle_events_with(second).and_then();
            let producer = pinned!(builder, core(2)).handle_events_with(third).build();
            let outcomes = vec![first_outcome, second_outcome, third_outcome];
            drive::<_, _, W, N>(vec![producer], outcomes, work)
        }
        _ => Err(NoFigure::NotApplicable("has no such scenario")),
    }
}

/// One round with managed handlers.
pub fn managed<const N: usize>(scenario: Scenario, work: &Work) -> Result<Round, NoFigure> {
    match work.waiting {
        WaitClass::Spin => graph::<Spin, N>(scenario, work),
        WaitClass::Yield | WaitClass::Native => graph::<Yield, N>(scenario, work),
    }
}

/// The link between a single producer and an event poller.
pub struct Polled;

/// An event poller.
pub struct Poller<const N: usize>(EventPoller<Payload<N>, SingleProducerBarrier>);

impl<const N: usize> Receiver<N> for Poller<N> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        let mut left = total;
        let mut waiting = W::begin();
        while left > 0 {
            match self.0.take(left) {
                Ok(mut events) => {
                    for event in &mut events {
                        see(event);
                        left -= 1;
                    }
                    waiting = W::begin();
                }
                Err(Polling::NoEvents) => waiting.idle(),
                Err(Polling::Shutdown) => return,
            }
        }
    }
}

type SingleWriter<const N: usize> = disruptor::SingleProducer<Payload<N>, disruptor::SingleConsumerBarrier>;

impl<const N: usize> Sender<N> for SingleWriter<N> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        let mut waiting = W::begin();
        while self.try_publish(|event| event.fill(value)).is_err() {
            waiting.idle();
        }
    }

    #[inline(always)]
    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        let mut waiting = W::begin();
        while self
            .try_batch_publish(count, |events| {
                for (event, value) in events.zip(first..) {
                    event.fill(value);
                }
            })
            .is_err()
        {
            waiting.idle();
        }
    }
}

impl<const N: usize> Link<N> for Polled {
    const MANY_PRODUCERS: bool = false;
    const BATCHES: bool = true;
    const SLEEPS: bool = false;
    type Sender = SingleWriter<N>;
    type Receiver = Poller<N>;

    fn open(
        capacity: usize,
        _producers: usize,
        waiting: WaitClass,
    ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
        let builder = build_single_producer(capacity, Payload::default, Idle(waiting));
        let (poller, builder) = builder.new_event_poller();
        Ok((vec![builder.build()], Poller(poller)))
    }
}
