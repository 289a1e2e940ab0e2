//! `slipring-bridge take-over`, and what `slipring-bridge run` does with a lease: it keeps the journal as a copy of the streams until it
//! holds the lease, takes the streams over, and runs a program.

use crate::Settings;
use crate::failure::{Done, FAILED, Failure, LOST, STOPPED};
use crate::holder::LeaseHolder;
use crate::left_out::left_out;
use crate::signals::Ending;
use slipring::text;
use slipring_bridge::config::Config;
use slipring_bridge::jetstream::{Cluster, Stream};
use slipring_bridge::{Bridge, Standby, StandbyError};
use std::io::Write as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How often the lease and the program are looked at.
const LOOK: Duration = Duration::from_millis(200);
/// How long a takeover waits for progress until it is tried again.
const TAKEOVER: Duration = Duration::from_secs(30);
/// How many messages may be left to be copied when a takeover begins.
const NEAR: u64 = 10_000;
/// How long the program may take to end by itself.
const PROGRAM: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// The longest time without progress after which the takeover is given up
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    limit: Duration,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let config = arguments.settings.read()?;
    if config.outward.is_empty() {
        return Err(Failure::new(FAILED, "the file has no [[outward]], so there is nothing to take over"));
    }
    if config.lease.is_some() {
        return Err(Failure::new(FAILED, "the file has a [lease]: `run` takes over once this machine holds it"));
    }
    let cluster = config.cluster.connect()?;
    let mut standby = standby(&config, &cluster)?;
    check_partitions(&config, &cluster, &standby, arguments.limit)?;
    let taken = standby.take_over(arguments.limit);
    let ends = standby.partitions();
    standby.close()?;
    taken.map_err(refused)?;
    if ends.iter().all(|(.., end)| *end == 0) {
        return Err(Failure::new(
            FAILED,
            "the streams have no records: are `prefix` and `topic` those of the other machine?",
        ));
    }
    let mut out = std::io::stdout().lock();
    for (topic, partition, end) in ends {
        writeln!(out, "topic {topic}, partition {partition}: taken over, the next offset is {end} or more")?;
    }
    Ok(())
}

/// Checks that no topic has more streams than the journal has partitions.
fn check_partitions(config: &Config, cluster: &Cluster, standby: &Standby<Stream>, limit: Duration) -> Done {
    for bridge in &config.outward {
        let topic = &bridge.topic.name;
        let has = standby.partitions().iter().filter(|(of, ..)| of == topic).count();
        let next = bridge.stream(&config.cluster, cluster, has as u32);
        if let Some(cause) = left_out(topic, has, &next, limit) {
            return Err(Failure::new(FAILED, format!("{cause}, and begin with an empty directory")));
        }
    }
    Ok(())
}

/// What the streams refuse stays so: it has the exit code of a bridge that has stopped for good.
fn refused(cause: StandbyError) -> Failure {
    let code = if matches!(cause, StandbyError::Stopped(_)) { STOPPED } else { FAILED };
    Failure::new(code, cause)
}

fn standby(config: &Config, cluster: &Cluster) -> Result<Standby<Stream>, Failure> {
    let (of, to, bridges) = (config.cluster.clone(), cluster.clone(), config.outward.clone());
    let remote = move |topic: &str, partition| {
        let bridge = bridges.iter().find(|bridge| bridge.topic.name == topic);
        bridge.expect("the standby has the topics of these bridges alone").stream(&of, &to, partition)
    };
    let topics = config.outward.iter().map(|bridge| bridge.standby());
    Ok(Bridge::standby(topics).open(&config.journal, remote)?)
}

/// Waits until this machine holds the lease, and takes the streams over. Returns false if it was told to end before.
pub(crate) fn wait(config: &Config, cluster: &Cluster, holder: &LeaseHolder, ending: &Ending) -> Result<bool, Failure> {
    let mut standby = standby(config, cluster)?;
    let (mut error, mut is_level, mut is_checked) = (None, false, false);
    loop {
        if ending.is_told() {
            standby.close()?;
            return Ok(false);
        }
        let has_moved = standby.copy(LOOK).map_err(refused)?;
        let now = standby.error().map(str::to_owned);
        if now != error {
            match &now {
                Some(cause) => eprintln!("standby: tries again: {}", text::line(cause)),
                None => eprintln!("standby: works again"),
            }
            error = now;
        }
        if !has_moved && error.is_none() && standby.lag() == 0 && !is_level {
            is_level = true;
            eprintln!("standby: all is copied");
        }
        // What is far behind is copied here, where an ending is noticed.
        if !holder.is_held() || (has_moved && standby.lag() > NEAR) {
            continue;
        }
        if !is_checked {
            check_partitions(config, cluster, &standby, TAKEOVER)?;
            is_checked = true;
        }
        match standby.take_over(TAKEOVER) {
            Ok(()) => break,
            // The lease may have gone to another machine meanwhile, or the program is told to end.
            Err(StandbyError::TimedOut { cause }) => {
                eprintln!("standby: the takeover is tried again: {}", text::line(&cause));
            }
            Err(cause) => return Err(refused(cause)),
        }
    }
    let ends = standby.ends();
    standby.close()?;
    eprintln!("the streams are this machine's, the partitions' next offsets are {ends:?}");
    Ok(true)
}

/// Runs the program while the lease is held.
pub(crate) fn run_program(program: &[String], holder: &LeaseHolder, ending: &Ending) -> Done {
    let Some((name, arguments)) = program.split_first() else { return Ok(()) };
    let started = Command::new(name).args(arguments).spawn();
    let mut child = started.map_err(|cause| Failure::new(FAILED, format!("program {name:?}: {cause}")))?;
    eprintln!("program {name:?}: started");
    loop {
        if let Some(status) = child.try_wait()? {
            eprintln!("program {name:?}: ended, {status}");
            let failed = || Failure::new(LOST, format!("program {name:?} has failed: {status}"));
            return if status.success() { Ok(()) } else { Err(failed()) };
        }
        if !holder.is_held() {
            // Another machine may run its own from now on.
            child.kill()?;
            child.wait()?;
            return Err(Failure::new(LOST, "the lease is lost, and the program was killed"));
        }
        if ending.is_told() {
            return end(&mut child);
        }
        std::thread::sleep(LOOK);
    }
}

/// Asks the program to end, and kills it if it does not.
fn end(child: &mut Child) -> Done {
    #[cfg(unix)]
    if let Some(pid) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended meanwhile.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
    let until = Instant::now() + PROGRAM;
    while child.try_wait()?.is_none() {
        if Instant::now() >= until {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
