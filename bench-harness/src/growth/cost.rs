//! Helpers of the scenarios: the processor time of a piece of work, engines and topics.

use std::time::Duration;

use slipring::journal::Options;
use slipring::journal::simulated::SimulatedDisk;
use slipring::{Engine, Topic};

use crate::failure::Failure;
use crate::statistics;
use crate::system::thread_time;

/// A time limit that no wait of these scenarios reaches.
pub const LONG: Duration = Duration::from_secs(60);

/// The factor on a limit in processor time: a build without optimisation is that much slower.
pub const UNOPTIMISED: f64 = if cfg!(debug_assertions) { 20.0 } else { 1.0 };

/// What `work` returns, and the nanoseconds of processor time that it takes the calling thread.
///
/// # Errors
///
/// [`Failure`]: that of `work`, or the system does not report the thread's time.
pub fn thread_nanos<T>(work: impl FnOnce() -> Result<T, Failure>) -> Result<(T, f64), Failure> {
    let before = thread_time()?;
    let done = work()?;
    Ok((done, (thread_time()? - before).as_nanos() as f64))
}

/// The median of `times` figures.
///
/// # Errors
///
/// The first [`Failure`] of `figure`.
pub fn median(times: usize, mut figure: impl FnMut() -> Result<f64, Failure>) -> Result<f64, Failure> {
    let figures = (0..times).map(|_| figure()).collect::<Result<Vec<f64>, _>>()?;
    Ok(statistics::median(&figures).unwrap_or(0.0))
}

/// The processor time of a call in nanoseconds: the mean over `calls` calls, as the median of 5 such series.
///
/// # Errors
///
/// The first [`Failure`] of `call`.
pub fn nanos_a_call(calls: usize, mut call: impl FnMut() -> Result<(), Failure>) -> Result<f64, Failure> {
    median(5, || Ok(thread_nanos(|| (0..calls).try_for_each(|_| call()))?.1 / calls as f64))
}

/// An engine without a journal.
///
/// # Errors
///
/// [`Failure`]: it is refused.
pub fn in_memory() -> Result<Engine, Failure> {
    Engine::builder().build().map_err(Failure::refused)
}

/// An engine whose journal is in this simulated disk, in segments of `segment` bytes.
///
/// # Errors
///
/// [`Failure`]: it is refused.
pub fn on_disk(disk: &SimulatedDisk, segment: u64) -> Result<Engine, Failure> {
    let options = Options { segment_size: segment, ..Options::default() };
    Engine::builder().journal_in(disk.clone()).journal_options(options).build().map_err(Failure::refused)
}

/// `n` topics in memory, of one partition of 8 slots each.
///
/// # Errors
///
/// [`Failure`]: one is refused.
pub fn topics(engine: &Engine, n: usize) -> Result<Vec<Topic<u64>>, Failure> {
    let topic = |index| engine.topic::<u64>(format!("topic-{index}")).capacity(8).create();
    (0..n).map(topic).collect::<Result<_, _>>().map_err(Failure::refused)
}

/// A topic in memory of `n` partitions of 8 slots.
///
/// # Errors
///
/// [`Failure`]: it is refused.
pub fn partitioned(engine: &Engine, n: usize) -> Result<Topic<u64>, Failure> {
    engine.topic::<u64>("numbers").partitions(n).capacity(8).create().map_err(Failure::refused)
}
