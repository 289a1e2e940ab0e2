//! The subcommands `reset`, `acknowledge` and `forget`. Each writes one frame to a journal that no other program has
//! open.

use super::position::Position;
use super::{Kind, Reader};
use crate::failure::{Done, FAILED, Failure};
use crate::inspected::{Directory, Inspected};
use crate::output::{now, plain, print_json, tell, time};
use clap::Args;
use serde_json::json;
use slipring::journal::{
    Extent, FrameBuilder, GroupOffset, Journal, PartitionId, RecordedTopic, State, acknowledge_gaps, group_offsets,
    recorded_topics,
};
use std::io::Write;
use std::time::UNIX_EPOCH;

#[derive(Args)]
pub(super) struct Reset {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    reader: Reader,
    #[command(flatten)]
    to: To,
    /// Only this topic (default: all topics that the group reads)
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition of the topic
    #[arg(long, requires = "topic")]
    partition: Option<u32>,
    /// Print what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Where a reset moves the committed offset: in one word, or in the words of Kafka's command.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct To {
    /// New committed offset: `earliest`, `latest`, an offset, or a time such as 2026-11-21T08:00:00Z
    #[arg(long, value_name = "WHERE", value_parser = target)]
    to: Option<Target>,
    /// The same as `--to earliest`
    #[arg(long)]
    to_earliest: bool,
    /// The same as `--to latest`
    #[arg(long)]
    to_latest: bool,
    /// The same as `--to OFFSET`
    #[arg(long, value_name = "OFFSET")]
    to_offset: Option<u64>,
    /// The same as `--to TIME`
    #[arg(long, value_name = "TIME", value_parser = time_target)]
    to_datetime: Option<Target>,
}

impl To {
    fn target(&self) -> Target {
        let offset = self.to_offset.map(Target::Offset);
        // Exactly one of them is given.
        let end = if self.to_latest { Target::Latest } else { Target::Earliest };
        self.to.or(offset).or(self.to_datetime).unwrap_or(end)
    }
}

#[derive(Args)]
pub(super) struct Forget {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    reader: Reader,
    /// Only this topic (default: all topics that the group reads)
    #[arg(long)]
    topic: Option<String>,
    /// Print what would be forgotten, and change nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args)]
pub(super) struct Acknowledge {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    reader: Reader,
    /// Print how many gaps would be acknowledged, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The position to which a reset moves the committed offset.
#[derive(Clone, Copy, Debug)]
enum Target {
    Earliest,
    Latest,
    Offset(u64),
    /// The first record of this time (in nanoseconds since the Unix epoch) or later.
    Time(u64),
}

fn target(text: &str) -> Result<Target, String> {
    match text {
        "earliest" => return Ok(Target::Earliest),
        "latest" => return Ok(Target::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(Target::Offset(offset));
    }
    time_target(text).map_err(|_| "`earliest`, `latest`, an offset, or a time such as 2026-11-21T08:00:00Z".to_owned())
}

fn time_target(text: &str) -> Result<Target, String> {
    let at = humantime::parse_rfc3339_weak(text).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let nanos = at.and_then(|at| u64::try_from(at.as_nanos()).ok());
    nanos.map(Target::Time).ok_or_else(|| "a time such as 2026-11-21T08:00:00Z".to_owned())
}

/// A partition that a command changes, with the reader's committed offset; `None` if the reader has committed nothing
/// there.
struct Chosen {
    topic: String,
    partition: PartitionId,
    committed: Option<GroupOffset>,
}

/// The partitions that a command changes: with `topic` all partitions of that topic, or only `partition` of it; without
/// `topic` all partitions in which the reader has committed an offset.
fn chosen(
    state: &State,
    journal: &Journal,
    reader: &Reader,
    topic: Option<&str>,
    partition: Option<u32>,
) -> Result<(Kind, Vec<Chosen>), Failure> {
    let all = Position::all(state, journal);
    // If a topic is given, the reader may have committed nothing yet. Then it is a group, unless the command line names
    // the kind.
    let kind = match reader.kind(&all) {
        Err(_) if topic.is_some() && all.iter().all(|position| position.committed.group != reader.name) => {
            reader.kind.unwrap_or(Kind::Group)
        }
        known => known?,
    };
    let its: Vec<_> = all.iter().filter(|position| position.is_of(kind, &reader.name)).collect();
    let Some(name) = topic else {
        let chosen = its.into_iter().map(|Position { topic, committed, .. }| Chosen {
            topic: topic.clone(),
            partition: committed.of,
            committed: Some(committed.clone()),
        });
        return Ok((kind, chosen.collect()));
    };
    let topics = recorded_topics(state);
    let Some(RecordedTopic { number, partitions, .. }) = topics.iter().find(|topic| topic.name == name) else {
        let known: Vec<_> = topics.into_iter().map(|topic| topic.name).collect();
        let cause = format!("the journal has no topic {name:?}: it has {}", known.join(", "));
        return Err(Failure::new(FAILED, cause));
    };
    if let Some(partition) = partition.filter(|partition| partition >= partitions) {
        let cause = format!("topic {name:?} has no partition {partition}: it has {partitions}, from 0");
        return Err(Failure::new(FAILED, cause));
    }
    let meant = (0..*partitions).filter(|index| partition.is_none_or(|partition| partition == *index));
    let chosen = meant.map(|partition| {
        let partition = PartitionId { topic: *number, partition };
        let committed = its.iter().find(|position| position.committed.of == partition);
        Chosen { topic: name.to_owned(), partition, committed: committed.map(|position| position.committed.clone()) }
    });
    Ok((kind, chosen.collect()))
}

/// A move of a committed offset by a reset; `from` is `None` if the reader has committed nothing in the partition.
struct Move {
    topic: String,
    from: Option<u64>,
    to: GroupOffset,
}

fn moves(arguments: &Reset, state: &State, journal: &Journal) -> Result<Vec<Move>, Failure> {
    let name = arguments.reader.name.as_str();
    let epoch = group_offsets(state).iter().filter(|it| it.group == name).map(|it| it.epoch).max();
    let (kind, chosen) = chosen(state, journal, &arguments.reader, arguments.topic.as_deref(), arguments.partition)?;
    let one = |Chosen { topic, partition: of, committed }| {
        let Extent { start, end, .. } = journal.extent(of).unwrap_or_default();
        let offset = match arguments.to.target() {
            Target::Earliest => start,
            Target::Latest => end,
            Target::Offset(asked) if !(start..=end).contains(&asked) => {
                let cause = format!(
                    "partition {} of topic {topic:?} keeps {start} up to, not including, {end}: {asked} is not there, and \
                     nothing was moved",
                    of.partition
                );
                return Err(Failure::new(FAILED, cause));
            }
            Target::Offset(asked) => asked,
            Target::Time(at) => journal.first_since(of, at)?.unwrap_or(end),
        };
        let to = match kind {
            // The epoch is higher than any member's, so that commits of earlier members are refused.
            Kind::Group => GroupOffset::new(name, of, offset, epoch.unwrap_or(0) + 1),
            Kind::Transform => GroupOffset::of_transform(name, of, offset),
        };
        Ok(Move { topic, from: committed.map(|committed| committed.offset), to })
    };
    chosen.into_iter().map(one).collect()
}

/// Opens the journal, writes the frame that `fill` builds, and closes the journal. An empty frame is not written.
fn write_frame<T>(
    inspected: Inspected,
    fill: impl FnOnce(&State, &Journal, &mut FrameBuilder) -> Result<T, Failure>,
) -> Result<T, Failure> {
    inspected.change(|writer| {
        let mut frame = FrameBuilder::new();
        let filled = fill(writer.state(), &writer.journal(), &mut frame)?;
        if !frame.is_empty() {
            writer.append(&mut frame, now().as_nanos())?;
            writer.sync()?;
        }
        Ok(filled)
    })
}

pub(super) fn reset(arguments: &Reset) -> Done {
    let inspected = arguments.directory.inspect()?;
    let moves = if arguments.dry_run {
        moves(arguments, inspected.state(), &inspected.journal())?
    } else {
        write_frame(inspected, |state, journal, frame| {
            let moves = moves(arguments, state, journal)?;
            moves.iter().for_each(|it| it.to.put(frame));
            Ok(moves)
        })?
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let listed = moves.iter().map(|Move { topic, from, to }| {
            json!({ "topic": topic, "partition": to.of.partition, "from": from, "to": to.offset })
        });
        let document = json!({
            "version": 1, "group": arguments.reader.name, "dry_run": arguments.dry_run,
            "partitions": listed.collect::<Vec<_>>(),
        });
        return print_json(&mut out, &document);
    }
    for Move { topic, from, to } in &moves {
        let from = from.map_or_else(|| "nowhere".to_owned(), |from| from.to_string());
        writeln!(out, "{}/{}: {from} -> {}", plain(topic), to.of.partition, to.offset)?;
    }
    if arguments.dry_run {
        writeln!(out, "nothing was changed")?;
    } else {
        writeln!(out, "durable at {}", time(now().as_nanos()))?;
    }
    Ok(())
}

/// Does what `fill` puts into a frame, or with `dry_run` only counts it.
fn change<T>(
    directory: &Directory,
    dry_run: bool,
    fill: impl FnOnce(&State, &Journal, &mut FrameBuilder) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let inspected = directory.inspect()?;
    if !dry_run {
        return write_frame(inspected, fill);
    }
    let counted = fill(inspected.state(), &inspected.journal(), &mut FrameBuilder::new())?;
    inspected.end()?;
    Ok(counted)
}

pub(super) fn forget(arguments: &Forget) -> Done {
    let reader = &arguments.reader;
    let gone = change(&arguments.directory, arguments.dry_run, |state, journal, frame| {
        let (kind, chosen) = chosen(state, journal, reader, arguments.topic.as_deref(), None)?;
        let gone: Vec<_> = chosen.into_iter().filter_map(|chosen| chosen.committed).collect();
        gone.iter().for_each(|it| it.delete(frame));
        if arguments.topic.is_none() {
            acknowledge_gaps(state, kind.reader(), &reader.name, frame);
        }
        Ok(gone.len())
    })?;
    tell(
        &mut std::io::stdout().lock(),
        &format!("forgotten: {} in {gone} partitions", plain(&reader.name)),
        arguments.dry_run,
    )
}

pub(super) fn acknowledge(arguments: &Acknowledge) -> Done {
    let reader = &arguments.reader;
    let count = change(&arguments.directory, arguments.dry_run, |state, journal, frame| {
        let kind = reader.kind(&Position::all(state, journal))?;
        Ok(acknowledge_gaps(state, kind.reader(), &reader.name, frame))
    })?;
    tell(
        &mut std::io::stdout().lock(),
        &format!("acknowledged: {count} gaps of {}", plain(&reader.name)),
        arguments.dry_run,
    )
}
