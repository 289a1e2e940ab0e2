//! Measures a load: hiccups, then runs, then the verdict.

use std::time::Duration;

use hdrhistogram::Histogram;
use slipring_ring::pin::pin_current;

use super::document::{OneRun, RunDocument, Setup, VERSION, plot, timeline};
use super::drive::{Load, Outcome};
use super::live::Display;
use super::load::{Full, LoadArgs};
use super::recorder::{Live, Record};
use super::schedule::{Arrival, Schedule};
use super::topology::Shape;
use super::{hiccup, round_trip, topology};
use crate::clock::Clock;
use crate::environment::{Environment, command_line};
use crate::failure::Failure;
use crate::latency::Percentiles;
use crate::peers::WaitClass;
use crate::pin::PinPlan;
use crate::progress::Progress;
use crate::quantity::{Rate, nanos, per_second};
use crate::scenario::Scenario;

/// The sizes of a message that `run` measures, in bytes.
const PAYLOADS: [u64; 4] = [32, 64, 128, 256];

/// A run has missed its rate if publishing took longer than this many times the measured time.
const MISSED: f64 = 1.01;

/// A measured scenario.
pub struct Measured {
    /// The result.
    pub document: RunDocument,
    /// The records of the runs, for the histograms' own files.
    pub records: Vec<Record>,
    /// The time at which the first run began.
    pub began: std::time::SystemTime,
}

impl Measured {
    /// The latencies of all runs together.
    pub fn total(&self) -> Histogram<u64> {
        let mut total = crate::peers::latencies::new_histogram();
        for record in &self.records {
            let _ = total.add(record.total());
        }
        total
    }
}

/// Checks the options, and completes them by the scenario and, for the wait strategy, by the count of allowed `cores`.
///
/// # Errors
///
/// [`Failure::Usage`] that names the options to use instead.
pub fn shape(load: &LoadArgs, cores: usize) -> Result<Shape, Failure> {
    let scenario = match load.scenario {
        Scenario::MpscOne | Scenario::MpscTwo => Scenario::Mpsc,
        other => other,
    };
    let (producers, consumers) = match scenario {
        Scenario::Mpsc if load.scenario == Scenario::MpscOne => (1, 1),
        Scenario::Mpsc => (2, 1),
        Scenario::Fanout | Scenario::WorkSharing => (1, 2),
        Scenario::Pipeline | Scenario::Diamond => (1, 3),
        _ => (1, 1),
    };
    let fixed = |given: Option<usize>, usual: usize, free: bool, what: &str| match given {
        None => Ok(usual),
        Some(0) => Err(Failure::usage(format!("--{what} is at least 1"))),
        Some(number) if free || number == usual => Ok(number),
        Some(_) => Err(Failure::usage(format!("--{what} of {} is always {usual}", scenario.name()))),
    };
    let many = !matches!(scenario, Scenario::PingPong | Scenario::IdleWake);
    let shared = matches!(scenario, Scenario::Fanout | Scenario::WorkSharing);
    let producers = fixed(load.producers, producers, many, "producers")?;
    let consumers = fixed(load.consumers, consumers, shared, "consumers")?;
    if producers > crate::payload::MOST_PRODUCERS {
        return Err(Failure::usage("--producers is at most 8"));
    }
    if !PAYLOADS.contains(&load.payload) {
        return Err(Failure::usage(format!(
            "--payload {}: run knows {PAYLOADS:?} bytes; the intended time and the check need 32",
            load.payload
        )));
    }
    if load.batch == 0 || load.batch > load.capacity {
        return Err(Failure::usage(format!(
            "--batch {} does not fit into a capacity of {}",
            load.batch, load.capacity
        )));
    }
    if load.batch > 1 && scenario == Scenario::PingPong {
        return Err(Failure::usage("ping-pong has one message in flight: leave --batch at 1"));
    }
    if load.runs == 0 || load.duration.is_zero() {
        return Err(Failure::usage("--runs and --duration are more than 0"));
    }
    let wait = match &load.wait {
        Some(wait) => wait.clone(),
        None if scenario == Scenario::IdleWake => "spin-then-park".to_owned(),
        None => match WaitClass::fitting(producers + consumers, cores) {
            WaitClass::Spin => "spin".to_owned(),
            _ => "spin-yield".to_owned(),
        },
    };
    crate::wait_spec::parse(&wait).map_err(Failure::usage)?;
    Ok(Shape { scenario, producers, consumers, capacity: load.capacity, wait })
}

/// Measures a load, in closed loop if `closed`, otherwise in open loop.
///
/// # Errors
///
/// [`Failure`]: usage, or a run that could not be made.
pub fn measure(
    arguments: &LoadArgs,
    closed: bool,
    live: bool,
    environment: &Environment,
    progress: &Progress,
) -> Result<Measured, Failure> {
    let clock = Clock::new();
    let shape = shape(arguments, environment.allowed.len())?;
    let (runs, duration, warmup) = if arguments.quick {
        (1, Duration::from_millis(500).min(arguments.duration), Duration::from_millis(50))
    } else {
        (arguments.runs, arguments.duration, arguments.warmup)
    };
    // Waking takes tens of microseconds: at a thousand messages a second the consumer has time to sleep, so idle-wake
    // has no higher rate.
    let rate = match (shape.scenario, arguments.rate) {
        (Scenario::IdleWake, Rate::PerSecond(rate)) => Rate::PerSecond(rate.min(1e3)),
        (_, rate) => rate,
    };
    let pins = PinPlan::given_or_spread(arguments.pin.as_ref(), &environment.allowed, shape.producers);
    let cores = pins.cores(shape.producers, shape.consumers);
    for core in &cores {
        check_pin(*core)?;
    }
    let load = Load {
        duration,
        warmup,
        batch: arguments.batch,
        closed,
        may_drop: arguments.full == Full::Drop,
        stall: arguments.stall,
        pins: pins.clone(),
        live: live.then(Live::new),
    };
    progress.begin(runs as u64 + 1);
    progress.step("hiccups");
    let still = hiccup::measure(&cores, duration.min(Duration::from_secs(2)), &clock);
    let began = std::time::SystemTime::now();
    let display = load.live.clone().map(|live| Display::start(live, &cores));
    let mut outcomes = Vec::new();
    for run in 0..runs {
        progress.step(&format!("{} run {}", shape.scenario.name(), run + 1));
        let schedules = Schedule::for_producers(&arguments.arrival, rate, shape.producers, &clock)
            .map_err(|error| Failure::usage(error.to_string()))?;
        let outcome = by_payload(arguments.payload, &shape, &load, &clock, schedules);
        outcomes.push(outcome.map_err(Failure::Invalid)?);
    }
    drop(display);
    progress.end();
    let setup = Setup {
        pace: if closed { "closed" } else { "open" }.to_owned(),
        arrival: arguments.arrival.to_string(),
        payload: arguments.payload,
        capacity: shape.capacity,
        producers: shape.producers,
        consumers: shape.consumers,
        batch: arguments.batch,
        wait: shape.wait.clone(),
        full: format!("{:?}", arguments.full).to_lowercase(),
        pin: pins.describe(shape.producers, shape.consumers),
        seconds: duration.as_secs_f64(),
        stall: arguments.stall.map_or_else(String::new, |stall| {
            let text = |span: Duration| nanos(span.as_nanos() as u64);
            format!("{} every {}", text(stall.time), text(stall.every))
        }),
    };
    let mut document = RunDocument {
        version: VERSION,
        scenario: shape.scenario.name().to_owned(),
        environment: environment.clone(),
        command: command_line(),
        setup,
        harness_ns: hiccup::own_cost(&clock),
        hiccup: Percentiles::of(&still.total()),
        hiccup_plot: plot(&still.total()),
        ..RunDocument::default()
    };
    let hiccup_seconds = duration.min(Duration::from_secs(2)).as_secs_f64();
    document.hiccup_timeline = timeline(&still.slices, hiccup_seconds);
    judge(&mut document, rate, closed, &outcomes, &still);
    let records: Vec<Record> = outcomes.into_iter().map(|outcome| outcome.record).collect();
    let measured = Measured { document, records, began };
    let total = measured.total();
    let mut document = measured.document;
    document.latency = Percentiles::of(&total);
    document.plot = plot(&total);
    document.timeline = timeline(&measured.records[0].slices, duration.as_secs_f64());
    Ok(Measured { document, ..measured })
}

/// One run of one producer and one consumer in open loop, to compare wait strategies: the latencies, and true if the rate was
/// reached.
///
/// # Errors
///
/// [`Failure`]: usage, or a run that could not be made.
pub fn open_loop(
    wait: &str,
    (arrival, rate): (&Arrival, f64),
    capacity: usize,
    duration: Duration,
    pins: &PinPlan,
) -> Result<(Percentiles, bool), Failure> {
    let clock = Clock::new();
    let shape = Shape { scenario: Scenario::Spsc, producers: 1, consumers: 1, capacity, wait: wait.to_owned() };
    let load = Load {
        duration,
        warmup: duration / 8,
        batch: 1,
        closed: false,
        may_drop: false,
        stall: None,
        pins: pins.clone(),
        live: None,
    };
    let schedules = Schedule::for_producers(arrival, Rate::PerSecond(rate), 1, &clock)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let outcome = by_payload(32, &shape, &load, &clock, schedules).map_err(Failure::Invalid)?;
    if let Some(fault) = outcome.faults.first().cloned().or_else(|| outcome.record.clipped("latency")) {
        return Err(Failure::Invalid(fault));
    }
    Ok((Percentiles::of(&outcome.record.total()), outcome.seconds <= duration.as_secs_f64() * MISSED))
}

/// Sets the runs, the rate and the verdict of a document. `still` has the hiccups.
fn judge(document: &mut RunDocument, rate: Rate, closed: bool, outcomes: &[Outcome], still: &Record) {
    let asked = document.setup.seconds;
    let mut reasons: Vec<String> = still.clipped("hiccup").into_iter().collect();
    for outcome in outcomes {
        let missed = outcome.seconds > asked * MISSED && !closed && rate != Rate::Max;
        let achieved = outcome.sent as f64 / outcome.seconds;
        if missed {
            reasons.push(format!(
                "the rate was missed: {} were sent, the sending took {:.0} ms instead of {:.0}",
                per_second(achieved),
                outcome.seconds * 1e3,
                asked * 1e3
            ));
        }
        if outcome.sent == 0 && outcome.dropped == 0 {
            reasons.push("no message was sent in measured time".to_owned());
        }
        reasons.extend(outcome.faults.iter().cloned());
        let clipped = outcome.record.clipped("latency");
        reasons.extend(clipped.clone());
        document.runs.push(OneRun {
            latency: Percentiles::of(&outcome.record.total()),
            rate_achieved: achieved,
            valid: !missed && outcome.faults.is_empty() && clipped.is_none(),
        });
    }
    let total: f64 = outcomes.iter().map(|outcome| outcome.sent as f64).sum();
    let seconds: f64 = outcomes.iter().map(|outcome| outcome.seconds).sum();
    document.rate_achieved = total / seconds;
    let scheduled = matches!(document.setup.arrival.as_str(), "fixed" | "poisson");
    document.rate_asked = match rate {
        Rate::PerSecond(rate) if scheduled => Some(rate),
        _ => None,
    };
    document.drops = outcomes.iter().map(|outcome| outcome.dropped).sum();
    reasons.dedup();
    document.valid = reasons.is_empty();
    document.reason = if !document.valid {
        reasons.join("; ")
    } else if closed {
        "values verified; closed loop hides what messages would have waited for".to_owned()
    } else if rate == Rate::Max {
        "values verified; no rate was asked for, so latencies are those of a full ring".to_owned()
    } else {
        "rate reached, values verified".to_owned()
    };
}

/// Pins another thread to `core`, so that a refused pin is a usage error and not a failed run.
fn check_pin(core: usize) -> Result<(), Failure> {
    match std::thread::spawn(move || pin_current(core)).join() {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::usage(error.to_string())),
        Err(_) => Err(Failure::Invalid("pinning failed".to_owned())),
    }
}

fn by_payload(
    payload: u64,
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    schedules: Vec<Schedule>,
) -> Result<Outcome, String> {
    match payload {
        32 => by_scenario::<4>(shape, load, clock, schedules),
        64 => by_scenario::<8>(shape, load, clock, schedules),
        128 => by_scenario::<16>(shape, load, clock, schedules),
        _ => by_scenario::<32>(shape, load, clock, schedules),
    }
}

fn by_scenario<const W: usize>(
    shape: &Shape,
    load: &Load,
    clock: &Clock,
    mut schedules: Vec<Schedule>,
) -> Result<Outcome, String> {
    match shape.scenario {
        Scenario::PingPong => round_trip::run::<W>(shape, load, clock, schedules.remove(0)),
        _ => topology::run::<W>(shape, load, clock, schedules),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hiccups are the floor that latencies are compared with: one that was cut down to a minute would be a wrong floor.
    #[test]
    fn a_hiccup_beyond_the_histogram_makes_a_run_invalid() {
        let outcome = || Outcome { record: Record::new(4), sent: 10, dropped: 0, seconds: 1.0, faults: Vec::new() };
        for (hiccup, valid) in [(60_000_000_000, true), (90_000_000_000, false)] {
            let mut document =
                RunDocument { setup: Setup { seconds: 1.0, ..Setup::default() }, ..RunDocument::default() };
            let mut still = Record::new(4);
            still.slices[1] = hiccup;
            judge(&mut document, Rate::Max, false, &[outcome()], &still);
            assert_eq!(
                (document.valid, document.reason.contains("a hiccup of 90")),
                (valid, !valid),
                "{}",
                document.reason
            );
        }
    }
}
