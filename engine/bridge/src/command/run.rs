//! `slipring-bridge run`.

use crate::Settings;
use crate::failure::{Done, FAILED, Failure, LOST, STOPPED};
use crate::holder::LeaseHolder;
use crate::left_out::left_out;
use crate::recorded::RecordedJournal;
use crate::signals::Ending;
use crate::takeover;
use slipring::journal::RecordedTopic;
use slipring::{Engine, text};
use slipring_bridge::config::Config;
use slipring_bridge::{Bridge, Import, Stopped};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// End once all that is there now is copied
    #[arg(long)]
    drain: bool,
}

/// How often the bridges are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long the servers are waited for before an import starts without their answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the engine's end may take.
const END: Duration = Duration::from_secs(30);

/// How a bridge was when it was looked at last.
#[derive(Clone, Default, PartialEq, Eq)]
struct Seen {
    stopped: Option<Stopped>,
    error: Option<String>,
    /// True if nothing is left to be copied.
    is_level: bool,
}

impl Seen {
    /// `level` says of each partition whether nothing is left. Of a stream that does not answer, or is not there, nothing is known.
    fn new(stopped: Option<Stopped>, error: Option<String>, mut level: impl ExactSizeIterator<Item = bool>) -> Self {
        let is_level = error.is_none() && level.len() > 0 && level.all(|is_level| is_level);
        Self { stopped, error, is_level }
    }
}

enum Running {
    Outward(Bridge),
    Inward(Import),
}

impl Running {
    fn look(&self) -> Seen {
        match self {
            Self::Outward(bridge) => {
                let status = bridge.status();
                let level = status.partitions.iter().map(|partition| partition.replicated >= partition.durable);
                Seen::new(status.stopped, status.error, level)
            }
            Self::Inward(import) => {
                let status = import.status();
                let level = status.partitions.iter().map(|partition| partition.lag == 0);
                Seen::new(status.stopped, status.error, level)
            }
        }
    }

    fn end(self) {
        match self {
            Self::Outward(bridge) => drop(bridge.end()),
            Self::Inward(import) => drop(import.end()),
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let config = arguments.settings.read()?;
    if config.outward.is_empty() && config.inward.is_empty() {
        return Err(Failure::new(FAILED, "the file has no bridge: add [[outward]] or [[inward]]"));
    }
    let ending = Ending::listen()?;
    let cluster = config.cluster.connect()?;
    let holder = match &config.lease {
        Some(lease) => Some(LeaseHolder::start(lease.lease(&config.cluster, &cluster))?),
        None => None,
    };
    if let (Some(holder), Some(lease)) = (&holder, &config.lease) {
        if !takeover::wait(&config, &cluster, holder, &ending)? {
            return Ok(());
        }
        if let Some(program) = &lease.program {
            return takeover::run_program(program, holder, &ending);
        }
    }
    let (engine, recorded) = open(&config)?;
    let size = |name: &str| recorded.get(name).map(|topic| (topic.partitions as usize, topic.max_message as usize));
    let mut running = Vec::new();
    for bridge in &config.outward {
        let topic = bridge.topic.open(&engine, size(&bridge.topic.name))?;
        let (of, to, settings) = (config.cluster.clone(), cluster.clone(), bridge.clone());
        let remote = move |partition| settings.stream(&of, &to, partition);
        let started = bridge.settings().start(&engine, &topic, remote)?;
        let label = format!("outward {}, topic {}", bridge.name, bridge.topic.name);
        running.push((label, Running::Outward(started), Seen::default()));
    }
    for import in &config.inward {
        let (name, has) = (&import.topic.name, size(&import.topic.name));
        let partitions = import.topic.partitions.or(has.map(|has| has.0)).unwrap_or(1);
        let next = import.stream(&config.cluster, &cluster, partitions as u32);
        match left_out(name, partitions, &next, PATIENCE) {
            // The topic is not made yet.
            Some(cause) if has.is_none() => return Err(Failure::new(FAILED, cause)),
            Some(cause) => eprintln!("inward {}: {cause}", import.name),
            None => {}
        }
        let topic = import.topic.open(&engine, size(&import.topic.name))?;
        let started =
            import.settings().start(&topic, |partition| import.stream(&config.cluster, &cluster, partition))?;
        let label = format!("inward {}, topic {}", import.name, import.topic.name);
        running.push((label, Running::Inward(started), Seen::default()));
    }
    running.iter().for_each(|(label, ..)| eprintln!("{label}: started"));
    let mut is_lost = false;
    while !ending.is_told() && !is_lost {
        is_lost = holder.as_ref().is_some_and(|holder| !holder.is_held());
        for (label, bridge, seen) in &mut running {
            let now = bridge.look();
            tell(label, seen, &now);
            *seen = now;
        }
        let is_over = |seen: &Seen| seen.stopped.is_some() || (arguments.drain && seen.is_level);
        if running.iter().all(|(.., seen)| is_over(seen)) {
            break;
        }
        std::thread::sleep(LOOK);
    }
    let stopped: Vec<String> =
        running.iter().filter_map(|(label, _, seen)| Some(format!("{label}: {}", seen.stopped.as_ref()?))).collect();
    for (label, bridge, _) in running {
        bridge.end();
        eprintln!("{label}: ended");
    }
    if !engine.shutdown(END).is_complete() {
        eprintln!("the engine did not end in order: the journal is recovered when it is opened next");
    }
    if is_lost {
        return Err(Failure::new(LOST, "the lease is lost"));
    }
    match stopped.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(STOPPED, stopped.join("; "))),
    }
}

/// Says what has changed.
fn tell(label: &str, before: &Seen, now: &Seen) {
    match (&now.stopped, &now.error) {
        (Some(stopped), _) if now.stopped != before.stopped => {
            eprintln!("{label}: stopped for good: {}", text::line(stopped));
        }
        (None, Some(error)) if now.error != before.error => eprintln!("{label}: tries again: {}", text::line(error)),
        (None, None) if before.error.is_some() => eprintln!("{label}: works again"),
        _ => {}
    }
    if now.is_level && !before.is_level {
        eprintln!("{label}: all is copied");
    }
}

/// Opens the journal's engine. Returns it with the topics that the journal had.
fn open(config: &Config) -> Result<(Engine, BTreeMap<String, RecordedTopic>), Failure> {
    let recorded = RecordedJournal::find(&config.journal)?;
    let topics = recorded.map(|recorded| recorded.topics).unwrap_or_default();
    let mut builder = Engine::builder().journal(&config.journal);
    if let Some(path) = &config.observe {
        builder = builder.observe(path);
    }
    Ok((builder.build()?, topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect()))
}
