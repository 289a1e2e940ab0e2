//! `transform`: consume, transform, produce, exactly once against at least once, in turn on the same disk.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use slipring::journal::Visible;
use slipring::{Engine, Level, Message, Receipt, Record, Topic, producer::Multi, transform::TransformEnd};

use crate::cli::{Format, TransformArgs};
use crate::environment::{Environment, command_line};
use crate::failure::Failure;
use crate::output::Output;
use crate::statistics;

const MESSAGE: usize = 128;
const LONG: Duration = Duration::from_secs(120);

#[derive(Debug, Serialize)]
struct TransformDocument {
    version: u32,
    command: String,
    environment: Environment,
    messages: u64,
    batch: usize,
    /// Thousand messages a second, a figure a round: each batch's outputs are written before the next is read.
    at_least_once: Vec<f64>,
    /// The same, but each batch waits until its outputs are durable.
    at_least_once_durable: Vec<f64>,
    exactly_once: Vec<f64>,
    /// The median of the rounds' ratios of exactly once to at least once.
    ratio: f64,
}

fn median(values: &[f64]) -> f64 {
    statistics::median(values).unwrap_or(0.0)
}

fn refused(error: &dyn std::fmt::Display) -> Failure {
    Failure::usage(format!("the engine refused: {error}"))
}

/// Runs `transform`.
///
/// # Errors
///
/// [`Failure`]: the engine or the disk refused, or a message was lost or came twice.
pub fn command(arguments: &TransformArgs) -> Result<(), Failure> {
    let folder = arguments.dir.join(format!("slipring-bench-{}", std::process::id()));
    let measured = measure(arguments, &folder);
    // What was measured matters more than what is left.
    let _ = std::fs::remove_dir_all(&folder);
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

/// How the outputs of a batch are made safe.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Promise {
    AtLeastOnce(Level),
    ExactlyOnce,
}

fn measure(arguments: &TransformArgs, folder: &Path) -> Result<TransformDocument, Failure> {
    let promises = [Promise::AtLeastOnce(Level::Written), Promise::ExactlyOnce, Promise::AtLeastOnce(Level::Durable)];
    let mut rates = promises.map(|_| Vec::new());
    for round in 0..arguments.rounds as usize {
        // Which goes first changes from round to round.
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

/// Thousand messages a second from a full input to a durable output, which is checked afterwards.
fn once(arguments: &TransformArgs, folder: &Path, promise: Promise) -> Result<f64, Failure> {
    let _ = std::fs::remove_dir_all(folder);
    std::fs::create_dir_all(folder).map_err(|error| Failure::file(folder, error))?;
    let engine = Engine::open(folder.join("journal")).map_err(|error| refused(&error))?;
    let topic = |name: &str| {
        let topic = engine.topic::<Message>(name).max_message(MESSAGE).capacity(arguments.capacity).durable();
        topic.create().map_err(|error| refused(&error))
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
    let mut producer = input.producer().create().map_err(|error| refused(&error))?;
    let mut value = [7; MESSAGE];
    let mut last: Option<Receipt> = None;
    for number in 0..messages {
        value[..8].copy_from_slice(&number.to_le_bytes());
        last = Some(producer.send(Record::new(&value)).map_err(|error| refused(&error))?);
    }
    drop(producer);
    if let Some(last) = last {
        last.wait(Level::Durable).map_err(|error| refused(&error))?;
    }
    input.close();
    Ok(())
}

/// What is done to each message.
fn change(value: &[u8]) -> [u8; MESSAGE] {
    let mut changed = [0; MESSAGE];
    changed.copy_from_slice(value);
    changed[8..16].copy_from_slice(&value[..8]);
    changed
}

fn at_least_once(input: &Topic<Message>, output: &Topic<Message>, batch: usize, level: Level) -> Result<(), Failure> {
    let mut replay = input.replay("copy").visible(Visible::Written).open().map_err(|error| refused(&error))?;
    let mut producer = output.producer().create().map_err(|error| refused(&error))?;
    let (mut failed, mut last, mut count) = (None, None, 0);
    let settle = |last: &Option<Receipt>, level| match last {
        Some(last) => last.wait(level).map(drop).map_err(|error| refused(&error)),
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
                    failed = Some(refused(&error));
                }
            }
            Err(error) => failed = Some(refused(&error)),
        });
        if let Some(failed) = failed.take() {
            return Err(failed);
        }
        if read.map_err(|error| refused(&error))?.is_none() {
            break;
        }
    }
    settle(&last, Level::Durable)
}

fn exactly_once(input: &Topic<Message>, output: &Topic<Message>, arguments: &TransformArgs) -> Result<(), Failure> {
    let transform = input.transform("copy").batch(arguments.batch).open().map_err(|error| refused(&error))?;
    let run =
        transform.run(output.clone(), |message: &Message, _, out| out.send(Record::new(&change(message.value()))));
    match run.map_err(|error| refused(&error))?.wait() {
        TransformEnd::Finished => Ok(()),
        other => Err(refused(&format!("the transform ended as {other:?}"))),
    }
}

/// Every message once, in order.
fn check(output: &Topic<Message, Multi>, messages: u64) -> Result<(), Failure> {
    let mut replay = output.replay("check").open().map_err(|error| refused(&error))?;
    let (mut next, mut wrong) = (0, None);
    while next < messages && wrong.is_none() {
        let read = replay.read(LONG, |message, _| {
            let value = message.value();
            if value[..8] != next.to_le_bytes() || value[8..16] != next.to_le_bytes() {
                wrong.get_or_insert(next);
            }
            next += 1;
        });
        if matches!(read.map_err(|error| refused(&error))?, None | Some(0)) {
            break;
        }
    }
    match wrong {
        None if next == messages => Ok(()),
        _ => Err(refused(&format!("of {messages} messages {next} came, the first wrong one is {wrong:?}"))),
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
