//! `idle`: memory and processor time of topics that nobody publishes to.

use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use slipring::{Engine, Wait};

use crate::cli::{Format, OutputArgs};
use crate::environment::{Environment, command_line};
use crate::failure::Failure;
use crate::output::Output;
use crate::quantity;
use crate::system::{others_time, resident};

/// Options of `idle`.
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// Count of the topics
    #[arg(long, default_value_t = 1000)]
    pub topics: usize,
    /// Partitions of each topic
    #[arg(long, default_value_t = 4)]
    pub partitions: usize,
    /// Slots of each partition
    #[arg(long, default_value_t = 1024)]
    pub capacity: usize,
    /// Time without a publish
    #[arg(long, value_parser = quantity::duration, default_value = "5s")]
    pub duration: Duration,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The result.
#[derive(Debug, Serialize)]
struct IdleDocument {
    version: u32,
    command: String,
    topics: usize,
    partitions: usize,
    capacity: usize,
    /// Bytes of the slots of one topic, as the topic reports them.
    described: u64,
    /// Resident bytes before the topics were created, with them, and with a sleeping subscriber of each.
    before: u64,
    with_topics: u64,
    with_subscribers: u64,
    /// The measured time, in seconds.
    seconds: f64,
    /// Processor time of all threads but the measuring one, in milliseconds for each second.
    cpu_ms_per_second: f64,
    environment: Environment,
}

/// Waits until the other threads, which are the subscribers', use next to no processor time; two seconds at most.
fn fall_asleep() -> Result<(), Failure> {
    let (step, quiet) = (Duration::from_millis(50), 100_000);
    let mut before = others_time()?;
    for _ in 0..40 {
        std::thread::sleep(step);
        let now = others_time()?;
        if now.saturating_sub(before) < quiet {
            break;
        }
        before = now;
    }
    Ok(())
}

/// Runs `idle`.
///
/// # Errors
///
/// [`Failure`]: the engine refused a call, or the system does not report the figures.
pub fn command(arguments: &IdleArgs) -> Result<(), Failure> {
    let environment = Environment::capture();
    let before = resident()?;
    let engine = Engine::builder().build().map_err(Failure::refused)?;
    let mut topics = Vec::new();
    for index in 0..arguments.topics {
        let topic = engine.topic::<u64>(format!("topic-{index}"));
        let topic = topic.partitions(arguments.partitions).capacity(arguments.capacity).create();
        topics.push(topic.map_err(Failure::refused)?);
    }
    let with_topics = resident()?;
    for topic in &topics {
        let subscriber = topic.subscribe("reader").wait(Wait::spin_then_park());
        let subscriber = subscriber.run(|_, _| Ok::<_, std::convert::Infallible>(()));
        subscriber.map_err(Failure::refused)?;
    }
    fall_asleep()?;
    let with_subscribers = resident()?;
    let (began, cpu) = (Instant::now(), others_time()?);
    std::thread::sleep(arguments.duration);
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), others_time()? - cpu);
    let document = IdleDocument {
        version: 1,
        command: command_line(),
        topics: arguments.topics,
        partitions: arguments.partitions,
        capacity: arguments.capacity,
        described: topics.first().map_or(0, |topic| topic.describe().memory),
        before,
        with_topics,
        with_subscribers,
        seconds,
        cpu_ms_per_second: cpu as f64 / 1e6 / seconds,
        environment,
    };
    let mut output = Output::new(&arguments.output, "idle");
    if output.wants(Format::Text) {
        println!("{}", document.text());
    }
    if output.wants(Format::Json) {
        output.json("idle.json", &document)?;
    }
    output.announce();
    engine.shutdown(Duration::from_secs(30));
    Ok(())
}

impl IdleDocument {
    fn text(&self) -> String {
        let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        let each = self.with_topics.saturating_sub(self.before) as f64 / self.topics.max(1) as f64 / 1024.0;
        format!(
            "{} topics of {} partitions of {} slots of u64, each with a parked subscriber\n\
             memory: {:.0} MiB for the topics ({each:.1} KiB a topic, {} bytes of it slots), {:.0} MiB with subscribers\n\
             idle for {:.1} s: {:.3} ms of processor time a second",
            self.topics,
            self.partitions,
            self.capacity,
            mib(self.with_topics.saturating_sub(self.before)),
            self.described,
            mib(self.with_subscribers.saturating_sub(self.before)),
            self.seconds,
            self.cpu_ms_per_second,
        )
    }
}
