//! `slipring-bridge reset`.

use crate::Settings;
use crate::failure::{Done, FAILED, Failure};
use slipring::clock::{Clock as _, SystemClock};
use slipring::journal::storage::Disk;
use slipring::journal::{FrameBuilder, Options, inspect, open, recorded_topics};
use slipring::replication::bridge_positions;
use std::io::Write as _;
use std::sync::Arc;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    settings: Settings,
    /// The name of a bridge outward of the file
    #[arg(long)]
    bridge: String,
    /// Also delete the bridge's streams, with all their messages
    #[arg(long)]
    delete_streams: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    let config = arguments.settings.read()?;
    let bridge = config.outward.iter().find(|bridge| bridge.name == arguments.bridge);
    let Some(bridge) = bridge else {
        let cause = format!("the file has no bridge outward with the name {:?}", arguments.bridge);
        return Err(Failure::new(FAILED, cause));
    };
    let disk = || Arc::new(Disk::new(&config.journal));
    if inspect(disk(), false)?.id().is_none() {
        return Err(Failure::new(FAILED, format!("there is no journal in {:?}", config.journal)));
    }
    // Opening it locks the journal, so that no bridge runs meanwhile.
    let (mut writer, _) = open(disk(), Options::default())?;
    let topics = recorded_topics(writer.state());
    let Some(topic) = topics.iter().find(|topic| topic.name == bridge.topic.name) else {
        return Err(Failure::new(FAILED, format!("the journal has no topic {:?}", bridge.topic.name)));
    };
    let mut out = std::io::stdout().lock();
    if arguments.delete_streams {
        let cluster = config.cluster.connect()?;
        for partition in 0..topic.partitions {
            let mut stream = bridge.stream(&config.cluster, &cluster, partition);
            let was_there = stream.delete_stream()?;
            let name = slipring_bridge::Remote::name(&stream);
            writeln!(out, "{name}: {}", if was_there { "deleted" } else { "there was none" })?;
        }
    }
    let (mut frame, time) = (FrameBuilder::new(), SystemClock::default().wall().as_nanos());
    let positions = bridge_positions(writer.state());
    let of_bridge = positions.iter().filter(|it| it.of.topic == topic.number && it.bridge == bridge.name);
    let count = of_bridge.map(|position| position.delete(&mut frame)).count();
    if count > 0 {
        writer.append(&mut frame, time)?;
        writer.sync()?;
    }
    writer.close(time)?;
    writeln!(out, "bridge {}: {count} positions of topic {} are forgotten", bridge.name, topic.name)?;
    Ok(())
}
