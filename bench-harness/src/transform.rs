//! `transform`: reads one durable topic and writes another, exactly once and at least once, in turn on one disk.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use slipring::journal::Visible;
use slipring::{Engine, Level, Message, Receipt, Record, Topic, producer::Multi, transform::TransformEnd};

use crate::cli::{Format, OutputArgs};
use crate::environment::{Environment, command_line};
use crate::failure::Failure;
use crate::output::{Output, scratch};
use crate::{quantity, statistics};

/// Options of `transform`.
#[derive(Debug, Args)]
pub struct TransformArgs {
    /// Where the journal is made: the disk that is measured
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,
    /// Messages of each round
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    pub messages: u64,
    /// Messages of a batch
    #[arg(long, default_value_t = 256)]
    pub batch: usize,
    /// Slots of each topic
    #[arg(long, value_parser = quantity::capacity, default_value = "8192")]
    pub capacity: usize,
    /// Rounds of each measurement
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    pub rounds: u64,
    /// Where results go.
    #[command(flatten)]
    pub output: OutputArgs,
}

const MESSAGE: usize = 128;
const LONG: Duration = Duration::from_secs(120);

#[derive(Debug, Serialize)]
struct TransformDocument {
    version: u32,
    command: String,
    environment: Environment,
    messages: u64,
    batch: usize,
    /// Thousand messages a second, by rounds, where each batch's outputs are written before the next batch is read.
    at_least_once: Vec<f64>,
    /// Thousand messages a second, by rounds, where each batch's outputs are durable before the next batch is read.
    at_least_once_durable: Vec<f64>,
    exactly_once: Vec<f64>,
    /// The median over the rounds of the rate of exactly once, divided by that of at least once (written).
    ratio: f64,
}

fn median(values: &[f64]) -> f64 {
    statistics::median(values).unwrap_or(0.0)
}

/// Runs `transform`.
///
/// # Errors
///
/// [`Failure`]: the engine or the disk refused a call, or a message was lost or came twice.
pub fn command(arguments: &TransformArgs) -> Result<(), Failure> {
    let folder = scratch(&arguments.dir)?;
    let measured = measure(arguments, folder.path());
    drop(folder);
    let document = measured?;
    let mut output = Output::new(&arguments.output, "transform");
    if output.wants(Format::Text) {
        println!("{}", document.text());
    }
    if output.wants(Format::Json) {
        output.json("transform.json", &document)?;
    }
    output.announce();
    Ok(())
}

/// The guarantee for the outputs of a batch.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    AtLeastOnce(Level),
    ExactlyOnce,
}

fn measure(arguments: &TransformArgs, folder: &Path) -> Result<TransformDocument, Failure> {
    let promises = [Promise::AtLeastOnce(Level::Written), Promise::ExactlyOnce, Promise::AtLeastOnce(Level::Durable)];
    let mut rates = promises.map(|_| Vec::new());
    for round in 0..arguments.rounds as usize {
        // Each round begins with another guarantee.
        for turn in 0..promises.len() {
            let which = (round + turn) % promises.len();
            rates[which].push(once(arguments, folder, promises[which])?);
        }
    }
    let [at_least_once, exactly_once, at_least_once_durable] = rates;
    let ratios: Vec<f64> = exactly_once.iter().zip(&at_least_once).map(|(ours, other)| ours / other).collect();
    Ok(TransformDocument {
        version: 1,
        command: command_line(),
        environment: Environment::capture(),
        messages: arguments.messages,
        batch: arguments.batch,
        ratio: median(&ratios),
        at_least_once,
        at_least_once_durable,
        exactly_once,
    })
}

/// One round: thousand messages a second from a full input until the output is durable. The output is checked afterwards.
fn once(arguments: &TransformArgs, folder: &Path, promise: Promise) -> Result<f64, Failure> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, error))?;
    let engine = Engine::open(folder.join("journal")).map_err(Failure::refused)?;
    let topic = |name: &str| {
        let topic = engine.topic::<Message>(name).max_message(MESSAGE).capacity(arguments.capacity).durable();
        topic.create().map_err(Failure::refused)
    };
    let (input, output) = (topic("in")?, topic("out")?);
    fill(&input, arguments.messages)?;
    let begun = Instant::now();
    match promise {
        Promise::AtLeastOnce(level) => at_least_once(&input, &output, arguments.batch, level)?,
        Promise::ExactlyOnce => exactly_once(&input, &output, arguments)?,
    }
    let rate = arguments.messages as f64 / 1e3 / begun.elapsed().as_secs_f64();
    check(&output, arguments.messages)?;
    engine.shutdown(LONG);
    Ok(rate)
}

fn fill(input: &Topic<Message>, messages: u64) -> Result<(), Failure> {
    let mut producer = input.producer().create().map_err(Failure::refused)?;
    let mut value = [7; MESSAGE];
    let mut last: Option<Receipt> = None;
    for number in 0..messages {
        value[..8].copy_from_slice(&number.to_le_bytes());
        last = Some(producer.send(Record::new(&value)).map_err(Failure::refused)?);
    }
    drop(producer);
    if let Some(last) = last {
        last.wait(Level::Durable).map_err(Failure::refused)?;
    }
    input.close();
    Ok(())
}

/// The transformation of a message's value.
fn change(value: &[u8]) -> [u8; MESSAGE] {
    let mut changed = [0; MESSAGE];
    changed.copy_from_slice(value);
    changed[8..16].copy_from_slice(&value[..8]);
    changed
}

fn at_least_once(input: &Topic<Message>, output: &Topic<Message>, batch: usize, level: Level) -> Result<(), Failure> {
    let mut replay = input.replay("copy").visible(Visible::Written).open().map_err(Failure::refused)?;
    let mut producer = output.producer().create().map_err(Failure::refused)?;
    let (mut failed, mut last, mut count) = (None, None, 0);
    let settle = |last: &Option<Receipt>, level| match last {
        Some(last) => last.wait(level).map(drop).map_err(Failure::refused),
        None => Ok(()),
    };
    loop {
        let read = replay.read(LONG, |message, _| match producer.send(Record::new(&change(message.value()))) {
            Ok(receipt) => {
                count += 1;
                last = Some(receipt);
                if count % batch == 0
                    && let Err(error) = receipt.wait(level)
                {
                    failed = Some(Failure::refused(error));
                }
            }
            Err(error) => failed = Some(Failure::refused(error)),
        });
        if let Some(failed) = failed.take() {
            return Err(failed);
        }
        if read.map_err(Failure::refused)?.is_none() {
            break;
        }
    }
    settle(&last, Level::Durable)
}

fn exactly_once(input: &Topic<Message>, output: &Topic<Message>, arguments: &TransformArgs) -> Result<(), Failure> {
    let transform = input.transform("copy").batch(arguments.batch).open().map_err(Failure::refused)?;
    let run =
        transform.run(output.clone(), |message: &Message, _, out| out.send(Record::new(&change(message.value()))));
    match run.map_err(Failure::refused)?.wait() {
        TransformEnd::Finished => Ok(()),
        other => Err(Failure::refused(format!("the transform ended as {other:?}"))),
    }
}

/// Checks that the output has every message once and in order.
fn check(output: &Topic<Message, Multi>, messages: u64) -> Result<(), Failure> {
    let mut replay = output.replay("check").open().map_err(Failure::refused)?;
    let (mut next, mut wrong) = (0, None);
    while next < messages && wrong.is_none() {
        let read = replay.read(LONG, |message, _| {
            let value = message.value();
            if value[..8] != next.to_le_bytes() || value[8..16] != next.to_le_bytes() {
                wrong.get_or_insert(next);
            }
            next += 1;
        });
        if matches!(read.map_err(Failure::refused)?, None | Some(0)) {
            break;
        }
    }
    match wrong {
        None if next == messages => Ok(()),
        _ => Err(Failure::refused(format!("of {messages} messages {next} came, the first wrong one is {wrong:?}"))),
    }
}

impl TransformDocument {
    fn text(&self) -> String {
        let show = |values: &[f64]| {
            let (low, high) = values.iter().fold((f64::MAX, 0.0_f64), |(low, high), v| (low.min(*v), high.max(*v)));
            format!("{:>7.0} [{low:.0}..{high:.0}]", median(values))
        };
        format!(
            "{} messages of {MESSAGE} bytes in batches of {}; thousand a second, median [lowest..highest round]\n\n\
             exactly once                           {}\n\
             at least once, each batch written      {}\n\
             at least once, each batch durable      {}\n\n\
             exactly once against at least once, written: {:.2} x",
            self.messages,
            self.batch,
            show(&self.exactly_once),
            show(&self.at_least_once),
            show(&self.at_least_once_durable),
            self.ratio
        )
    }
}
