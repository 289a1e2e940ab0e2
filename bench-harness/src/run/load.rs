//! The options of `run` and `sweep` that say what is measured.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::schedule::Arrival;
use crate::pin::PinPlan;
use crate::quantity::{self, Rate};
use crate::scenario::{Scenario, scenario_of};

/// The scenario of this name, if `run` and `sweep` measure it.
///
/// # Errors
///
/// The command that measures it, and the names that there are.
pub fn run_scenario(name: &str) -> Result<Scenario, String> {
    let is_mpsc = |scenario| matches!(scenario, Scenario::MpscOne | Scenario::MpscTwo);
    scenario_of(name, |scenario| is_mpsc(scenario) || super::RUN.contains(&scenario), "run", "peers")
}

/// What a producer does when the ring is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Full {
    /// Wait for room
    Block,
    /// Drop the message and count it
    Drop,
}

/// What is measured, for `run` and `sweep`.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// One of spsc, mpsc, mpsc-1, mpsc-2, fanout, pipeline, diamond, work-sharing, ping-pong, idle-wake, topic, group
    #[arg(value_parser = run_scenario)]
    pub scenario: Scenario,
    /// Messages a second, all producers together: 100k/s, 1M/s, max
    #[arg(long, default_value = "1M/s")]
    pub rate: Rate,
    /// Pattern of arrivals: fixed, poisson, burst:N@T, trace:FILE
    #[arg(long, default_value = "fixed")]
    pub arrival: Arrival,
    /// Measured time of a run
    #[arg(long, value_parser = quantity::duration, default_value = "2s")]
    pub duration: Duration,
    /// Time before it that is not recorded
    #[arg(long, value_parser = quantity::duration, default_value = "200ms")]
    pub warmup: Duration,
    /// Runs; figures are of all runs together, the spread between runs is shown
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// Bytes a message: 32, 64, 128, 256
    #[arg(long, value_parser = quantity::count, default_value = "32")]
    pub payload: u64,
    /// Publishing threads (more than one takes the multi-producer ring) [default: by scenario]
    #[arg(long)]
    pub producers: Option<usize>,
    /// Consuming threads of fanout and work-sharing [default: 2]
    #[arg(long)]
    pub consumers: Option<usize>,
    /// Slots
    #[arg(long, value_parser = quantity::capacity, default_value = "8192")]
    pub capacity: usize,
    /// Messages published at once
    #[arg(long, default_value_t = 1)]
    pub batch: usize,
    /// How consumers wait: busy-spin, spin, spin-yield, backoff, spin-then-park, nap, with settings by commas such as
    /// spin-then-park,pause=0,spin=80us,yields=20
    /// [default: spin while each thread has a core, else spin-yield]
    #[arg(long)]
    pub wait: Option<String>,
    /// What producers do when the ring is full
    #[arg(long, value_enum, default_value_t = Full::Block)]
    pub full: Full,
    /// Cores of producers and consumers, such as p=0,c=1, or none
    #[arg(long)]
    pub pin: Option<PinPlan>,
    /// Shorter: one run of half a second
    #[arg(long)]
    pub quick: bool,
    /// Hold a consumer up on purpose, such as 5ms@100ms: to see what a stall looks like
    #[arg(long, value_name = "TIME@EVERY")]
    pub stall: Option<Stall>,
}

/// A deliberate stall of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The time that it lasts.
    pub time: Duration,
    /// The time from one stall to the next.
    pub every: Duration,
}

impl std::str::FromStr for Stall {
    type Err = quantity::BadQuantity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (time, every) = text.split_once('@').unwrap_or((text, "100ms"));
        Ok(Self { time: quantity::duration(time)?, every: quantity::duration(every)? })
    }
}
