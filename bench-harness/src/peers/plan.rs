//! The plan of a measurement: the rounds of all contenders in turn (A B C, B C A, C A B), so that disturbances of the machine
//! meet all of them.

use std::time::Duration;

use super::contender::{Contender, contenders};
use super::link::{NoFigure, Round, Work};
use super::regime::{self, Line};
use super::results::{NotApplicable, PeersDocument, Row, VERSION};
use super::waiting::WaitClass;
use crate::environment::{Environment, command_line};
use crate::latency;
use crate::pin::PinPlan;
use crate::progress::Progress;
use crate::scenario::Scenario;

/// The settings of a measurement.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The scenarios, in order.
    pub scenarios: Vec<Scenario>,
    /// The groups of rivals, as [`contenders`] takes them.
    pub with: Vec<String>,
    /// Capacities.
    pub capacities: Vec<usize>,
    /// Words of a message.
    pub words: Vec<usize>,
    /// Messages of a batch; 1 is one by one.
    pub batches: Vec<usize>,
    /// Rounds of each contender.
    pub rounds: usize,
    /// The time that a round should take.
    pub duration: Duration,
    /// The class of waiting; `None` to choose it by the counts of threads and cores.
    pub waiting: Option<WaitClass>,
    /// The cores of the threads; `None` to spread them.
    pub pins: Option<PinPlan>,
    /// Silence before each event of idle-wake.
    pub silence: Duration,
}

/// The counts of producers and consumers of a scenario.
pub fn threads(scenario: Scenario) -> (usize, usize) {
    match scenario {
        Scenario::MpscTwo | Scenario::SharedMpscTwo => (2, 1),
        Scenario::SharedMpscThree => (3, 1),
        Scenario::Fanout => (1, 2),
        Scenario::Pipeline | Scenario::Diamond => (1, 3),
        _ => (1, 1),
    }
}

/// True if the scenario's figure is a latency, not a rate.
pub fn is_latency(scenario: Scenario) -> bool {
    matches!(scenario, Scenario::PingPong | Scenario::SharedPingPong | Scenario::IdleWake)
        || interval(scenario).is_some()
}

/// The time from one message to the next of an open loop; `None` for other scenarios.
fn interval(scenario: Scenario) -> Option<Duration> {
    match scenario {
        Scenario::OpenSlow => Some(Duration::from_micros(10)),
        Scenario::OpenFast => Some(Duration::from_micros(1)),
        _ => None,
    }
}

/// The rounds of a contender in a cell: its messages for each producer, its figures, and why it has none, if so.
struct Lane {
    contender: Contender,
    each: u64,
    samples: Vec<Round>,
    out: Option<NoFigure>,
}

impl Plan {
    /// Measures all cells: each is a scenario with one batch size, message size and capacity.
    pub fn run(&self, environment: Environment, progress: &Progress) -> PeersDocument {
        let mut document =
            PeersDocument { version: VERSION, command: command_line(), environment, ..PeersDocument::default() };
        let cells = self.cells(&document.environment.allowed);
        progress.begin(
            cells.iter().map(|(scenario, _)| contenders(*scenario, &self.with).len() as u64 * self.rounds as u64).sum(),
        );
        for (scenario, work) in cells {
            let setup = format!(
                "{}: {}, {}, {}, pinned {}",
                scenario.name(),
                counted(work.producers, "producer"),
                counted(work.consumers, "consumer"),
                work.waiting.describe(),
                work.pins.describe(work.producers, work.consumers)
            );
            if !document.setup.contains(&setup) {
                document.setup.push(setup);
            }
            self.cell(scenario, &work, &mut document, progress);
        }
        progress.end();
        document.compare();
        document
    }

    /// The cells, in the order in which they are measured. Their count of messages is still 0.
    fn cells(&self, cores: &[usize]) -> Vec<(Scenario, Work)> {
        let mut cells = Vec::new();
        for scenario in &self.scenarios {
            let (producers, consumers) = threads(*scenario);
            let fitting = WaitClass::fitting(producers + consumers, cores.len());
            let waiting = match scenario {
                Scenario::IdleWake => WaitClass::Native,
                _ => self.waiting.unwrap_or(fitting),
            };
            let pins = PinPlan::given_or_spread(self.pins.as_ref(), cores, producers);
            // Only one message is in flight, so batches and capacities make no difference.
            let single = is_latency(*scenario);
            let batches = if single { &[1][..] } else { &self.batches };
            let capacities = if single { &self.capacities[..1] } else { &self.capacities };
            let message = [super::messages::VALUE / 8];
            let words = if *scenario == Scenario::Message { &message[..] } else { &self.words };
            for batch in batches {
                for words in words {
                    for capacity in capacities {
                        let work = Work {
                            capacity: *capacity,
                            producers,
                            consumers,
                            each: 0,
                            batch: *batch,
                            words: *words,
                            waiting,
                            pins: pins.clone(),
                            silence: interval(*scenario).unwrap_or(self.silence),
                        };
                        cells.push((*scenario, work));
                    }
                }
            }
        }
        cells
    }

    fn cell(&self, scenario: Scenario, work: &Work, document: &mut PeersDocument, progress: &Progress) {
        let mut lanes: Vec<Lane> = contenders(scenario, &self.with)
            .into_iter()
            .map(|contender| Lane { contender, each: 0, samples: Vec::new(), out: None })
            .collect();
        for lane in &mut lanes {
            progress.say(&format!("{} {} calibrates", scenario.name(), lane.contender.name));
            self.calibrate(scenario, work, lane);
        }
        let cores = &document.environment.allowed;
        let pins = (cores.len() > 1).then(|| PinPlan::given_or_spread(self.pins.as_ref(), cores, 1));
        let bare_line = || pins.as_ref().and_then(regime::bare_line);
        let mut nanos: Vec<f64> = bare_line().into_iter().collect();
        for round in 0..self.rounds {
            let count = lanes.len();
            for turn in 0..count {
                let lane = &mut lanes[(turn + round) % count];
                progress.step(&format!(
                    "{} {} capacity {} batch {} round {}",
                    scenario.name(),
                    lane.contender.name,
                    work.capacity,
                    work.batch,
                    round + 1
                ));
                if lane.out.is_some() {
                    continue;
                }
                let work = Work { each: lane.each, ..work.clone() };
                match (lane.contender.run)(scenario, &work) {
                    Ok(figure) => {
                        // An open loop's count follows from its rate.
                        let next = self.next_each(&work, &figure).filter(|_| interval(scenario).is_none());
                        lane.each = next.unwrap_or(lane.each);
                        lane.samples.push(figure);
                    }
                    Err(reason) => lane.out = Some(reason),
                }
            }
            nanos.extend(bare_line());
        }
        let scenario_name = scenario.name().to_owned();
        let (batch, capacity, payload) = (work.batch, work.capacity, work.words * 8);
        if !nanos.is_empty() {
            document.lines.push(Line { scenario: scenario_name, batch, capacity, payload, nanos });
        }
        for lane in lanes {
            report(scenario, work, lane, document);
        }
    }

    /// Sets the lane's count of messages so that a round takes about the wanted time, by at most three trials.
    fn calibrate(&self, scenario: Scenario, work: &Work, lane: &mut Lane) {
        if let Some(interval) = interval(scenario) {
            // A p99 needs 10,000 samples.
            lane.each = ((self.duration.as_secs_f64() / interval.as_secs_f64()) as u64).max(10_000);
            return;
        }
        if scenario == Scenario::IdleWake {
            // A median needs 200 samples; see `latency::enough`.
            let wanted = self.duration.as_secs_f64() / self.silence.as_secs_f64();
            lane.each = (wanted as u64).max(220);
            if let Err(reason) = (lane.contender.run)(scenario, &Work { each: 3, ..work.clone() }) {
                lane.out = Some(reason);
            }
            return;
        }
        // On a busy machine a round trip may take some milliseconds.
        let first = if matches!(scenario, Scenario::PingPong | Scenario::SharedPingPong) { 512 } else { 4_096 };
        lane.each = round_up(first, work.batch);
        for _ in 0..3 {
            let trial = Work { each: lane.each, ..work.clone() };
            match (lane.contender.run)(scenario, &trial) {
                Err(reason) => {
                    lane.out = Some(reason);
                    return;
                }
                Ok(figure) => {
                    let next = self.next_each(&trial, &figure).unwrap_or(lane.each);
                    // The rate of a short trial is inexact, because the first messages have a large part in it. So the
                    // count grows at most 64-fold for each trial.
                    let capped = next.min(lane.each * 64);
                    lane.each = round_up(capped, work.batch);
                    if capped == next {
                        return;
                    }
                }
            }
        }
    }

    fn next_each(&self, work: &Work, figure: &Round) -> Option<u64> {
        let rate = match figure {
            Round::Rate(rate) => rate / work.producers as f64,
            Round::Latency { single, .. } if work.waiting != WaitClass::Native => 1e9 / single.mean().max(1.0),
            Round::Latency { .. } => return None,
        };
        // The median of fewer than 200 round trips is n/a, see `latency::enough`, and half of them are timed in groups.
        let fewest = if matches!(figure, Round::Latency { .. }) { 512 } else { 64 };
        Some(round_up(((rate * self.duration.as_secs_f64()) as u64).max(fewest), work.batch))
    }
}

/// A count with its noun: `1 producer`, `2 producers`.
pub fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn round_up(count: u64, batch: usize) -> u64 {
    count.div_ceil(batch as u64) * batch as u64
}

fn report(scenario: Scenario, work: &Work, lane: Lane, document: &mut PeersDocument) {
    let mode = if work.batch == 1 { "one-by-one" } else { "batch" };
    let name = lane.contender.name.clone();
    match &lane.out {
        Some(NoFigure::NotApplicable(reason)) => {
            let entry = NotApplicable {
                scenario: scenario.name().to_owned(),
                contender: name,
                mode: mode.to_owned(),
                reason: (*reason).to_owned(),
            };
            if !document.not_applicable.contains(&entry) {
                document.not_applicable.push(entry);
            }
            return;
        }
        Some(NoFigure::Wrong(reason)) => document.faults.push(format!(
            "{} {name} {mode} capacity {} payload {}: {reason}",
            scenario.name(),
            work.capacity,
            work.words * 8
        )),
        None => {}
    }
    let row = |unit: &str| Row {
        scenario: scenario.name().to_owned(),
        contender: name.clone(),
        ours: lane.contender.family.is_ours(),
        mode: mode.to_owned(),
        batch: work.batch,
        capacity: work.capacity,
        payload: work.words * 8,
        producers: work.producers,
        consumers: work.consumers,
        unit: unit.to_owned(),
        median: 0.0,
        min: 0.0,
        max: 0.0,
        rounds: 0,
        valid: lane.out.is_none(),
    };
    let rates: Vec<f64> = lane
        .samples
        .iter()
        .filter_map(|sample| match sample {
            Round::Rate(rate) => Some(rate / 1e6),
            Round::Latency { .. } => None,
        })
        .collect();
    document.push(row("M/s"), rates);
    for (quantile, unit) in [(0.5, "ns p50"), (0.99, "ns p99"), (0.999, "ns p99.9")] {
        let values: Option<Vec<f64>> = lane
            .samples
            .iter()
            .map(|sample| match sample {
                Round::Latency { mean: Some(mean), .. } if quantile == 0.5 => Some(*mean),
                Round::Latency { single, .. } if latency::enough(single.len(), quantile) => {
                    Some(single.value_at_quantile(quantile) as f64)
                }
                _ => None,
            })
            .collect();
        document.push(row(unit), values.unwrap_or_default());
    }
}
