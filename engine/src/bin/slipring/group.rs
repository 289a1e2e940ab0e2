//! `slipring group`: where consumer groups stand in a journal, and moving them.

use super::journal::{Directory, Done, Failure, time};
use clap::{Args, Subcommand};
use serde_json::json;
use slipring::journal::{
    Extent, FrameBuilder, GroupOffset, Options, PartitionId, RecordedTopic, Start, State, Visible, catalogue,
    group_offsets, open,
};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Looks at the consumer groups of a journal: where they stand, and what they have still to read.
///
/// `ls` and `describe` read beside a program that has the journal open: what that has not written yet they do not see.
/// `reset` and `forget` need the journal for themselves.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  slipring group ls data/journal
  slipring group describe data/journal billing --json
  slipring group reset data/journal billing --to earliest
  slipring group reset data/journal billing --to 2026-11-21T08:00:00Z --topic orders --dry-run
  slipring group reset data/journal billing --to 4711 --topic orders --partition 3

Exit codes:
  0  done
  1  it could not be done: no such group, topic or offset, no journal there, a program has it open, the disk fails
  2  the command line was not understood
  3  the journal is damaged
  5  a newer program wrote it";

#[derive(Subcommand)]
enum Command {
    /// List the groups: topics, partitions, lag
    Ls(Ls),
    /// Show where a group stands in each partition
    Describe(Describe),
    /// Have a group go on elsewhere
    #[command(after_help = EXAMPLES)]
    Reset(Reset),
    /// Forget a group: it begins anew when it is joined the next time
    Forget(Forget),
}

#[derive(Args)]
struct Ls {
    #[command(flatten)]
    directory: Directory,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Describe {
    #[command(flatten)]
    directory: Directory,
    /// The group
    group: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Reset {
    #[command(flatten)]
    directory: Directory,
    /// The group
    group: String,
    /// Where: `earliest`, `latest`, an offset, or a time such as 2026-11-21T08:00:00Z
    #[arg(long, value_name = "WHERE", value_parser = to)]
    to: To,
    /// Only this topic; all that the group reads unless told
    #[arg(long)]
    topic: Option<String>,
    /// Only this partition of the topic
    #[arg(long, requires = "topic")]
    partition: Option<u32>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Forget {
    #[command(flatten)]
    directory: Directory,
    /// The group
    group: String,
    /// Only this topic; all that the group reads unless told
    #[arg(long)]
    topic: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum To {
    Earliest,
    Latest,
    Offset(u64),
    Time(u64),
}

fn to(text: &str) -> Result<To, String> {
    match text {
        "earliest" => return Ok(To::Earliest),
        "latest" => return Ok(To::Latest),
        _ => {}
    }
    if let Ok(offset) = text.parse() {
        return Ok(To::Offset(offset));
    }
    let at = humantime::parse_rfc3339_weak(text).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let nanos = at.and_then(|at| u64::try_from(at.as_nanos()).ok());
    nanos
        .map(To::Time)
        .ok_or_else(|| "`earliest`, `latest`, an offset, or a time such as 2026-11-21T08:00:00Z".to_owned())
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    super::journal::ended(match &arguments.command {
        Command::Ls(arguments) => ls(arguments),
        Command::Describe(arguments) => describe(arguments),
        Command::Reset(arguments) => reset(arguments),
        Command::Forget(arguments) => forget(arguments),
    })
}

/// A group's place, with what the partition has.
struct Place {
    topic: String,
    stands: GroupOffset,
    extent: Extent,
}

impl Place {
    fn lag(&self) -> u64 {
        self.extent.end.saturating_sub(self.stands.offset)
    }

    /// How many offsets of what it would read next are not kept any more.
    fn lost(&self) -> u64 {
        self.extent.start.saturating_sub(self.stands.offset)
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "topic": self.topic, "partition": self.stands.of.partition, "committed": self.stands.offset,
            "earliest": self.extent.start, "latest": self.extent.end, "lag": self.lag(), "lost": self.lost(),
            "epoch": self.stands.epoch,
        })
    }
}

fn places(state: &State) -> Vec<Place> {
    let topics: BTreeMap<u32, String> = catalogue(state).into_iter().map(|topic| (topic.number, topic.name)).collect();
    let place = |stands: GroupOffset| {
        let topic = topics.get(&stands.of.topic)?.clone();
        Some(Place { topic, extent: state.extent(stands.of).unwrap_or_default(), stands })
    };
    group_offsets(state).into_iter().filter_map(place).collect()
}

fn unknown(group: &str, all: &[Place]) -> Failure {
    let mut known: Vec<_> = all.iter().map(|place| place.stands.group.as_str()).collect();
    known.dedup();
    let known = if known.is_empty() { "no group".to_owned() } else { known.join(", ") };
    Failure::new(1, format!("the journal has no group {group:?}: it has {known}"))
}

fn ls(arguments: &Ls) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let mut groups: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    for place in places(looked.survey.state()) {
        groups.entry(place.stands.group.clone()).or_default().push(place);
    }
    let mut out = std::io::stdout().lock();
    let topics = |places: &[Place]| {
        let mut topics: Vec<_> = places.iter().map(|place| place.topic.clone()).collect();
        topics.dedup();
        topics
    };
    let sum = |places: &[Place], what: fn(&Place) -> u64| places.iter().map(what).sum::<u64>();
    let epoch = |places: &[Place]| places.iter().map(|place| place.stands.epoch).max();
    if arguments.json {
        let listed = groups.iter().map(|(name, places)| {
            json!({
                "group": name, "topics": topics(places), "partitions": places.len(), "epoch": epoch(places),
                "lag": sum(places, Place::lag), "lost": sum(places, Place::lost),
            })
        });
        let listed: Vec<_> = listed.collect();
        let damage = looked.damage.as_ref().map(ToString::to_string);
        writeln!(out, "{}", json!({ "version": 1, "groups": listed, "damage": damage }))?;
        return looked.end();
    }
    let [group, partitions, lag, epochs, read] = ["group", "partitions", "lag", "epoch", "topics"];
    writeln!(out, "{group:<24} {partitions:>10} {lag:>14} {epochs:>8}  {read}")?;
    for (name, places) in &groups {
        let (count, lag, read) = (places.len(), sum(places, Place::lag), topics(places).join(", "));
        let lost = if sum(places, Place::lost) > 0 { "  (some is not kept any more: describe it)" } else { "" };
        writeln!(out, "{name:<24} {count:>10} {lag:>14} {:>8}  {read}{lost}", epoch(places).unwrap_or_default())?;
    }
    looked.end()
}

fn describe(arguments: &Describe) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let (places, others): (Vec<_>, Vec<_>) =
        places(looked.survey.state()).into_iter().partition(|place| place.stands.group == arguments.group);
    if places.is_empty() {
        return Err(unknown(&arguments.group, &others));
    }
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let listed: Vec<_> = places.iter().map(Place::json).collect();
        let damage = looked.damage.as_ref().map(ToString::to_string);
        let document = json!({ "version": 1, "group": arguments.group, "partitions": listed, "damage": damage });
        writeln!(out, "{document}")?;
        return looked.end();
    }
    let [topic, partition, committed, earliest, latest, lag] =
        ["topic", "partition", "committed", "earliest", "latest", "lag"];
    writeln!(out, "{topic:<20} {partition:>9} {committed:>14} {earliest:>14} {latest:>14} {lag:>14}")?;
    for place in &places {
        let Place { topic, stands, extent, .. } = place;
        let (partition, committed, lag) = (stands.of.partition, stands.offset, place.lag());
        write!(out, "{topic:<20} {partition:>9} {committed:>14} {:>14} {:>14} {lag:>14}", extent.start, extent.end)?;
        match place.lost() {
            0 => writeln!(out)?,
            lost => writeln!(out, "  {lost} not kept any more: `slipring group reset` says where to go on")?,
        }
    }
    looked.end()
}

/// The partitions that a command means, each with where the group stands there.
fn chosen(
    state: &State,
    group: &str,
    topic: Option<&str>,
    partition: Option<u32>,
) -> Result<Vec<(String, PartitionId, Option<GroupOffset>)>, Failure> {
    let all = places(state);
    let stands = |of| all.iter().find(|place| place.stands.group == group && place.stands.of == of);
    let Some(name) = topic else {
        let of_group = all.iter().filter(|place| place.stands.group == group);
        let chosen: Vec<_> =
            of_group.map(|place| (place.topic.clone(), place.stands.of, Some(place.stands.clone()))).collect();
        return if chosen.is_empty() { Err(unknown(group, &all)) } else { Ok(chosen) };
    };
    let topics = catalogue(state);
    let Some(RecordedTopic { number, partitions, .. }) = topics.iter().find(|topic| topic.name == name) else {
        let known: Vec<_> = topics.into_iter().map(|topic| topic.name).collect();
        let cause = format!("the journal has no topic {name:?}: it has {}", known.join(", "));
        return Err(Failure::new(1, cause));
    };
    if let Some(partition) = partition.filter(|partition| partition >= partitions) {
        let cause = format!("topic {name:?} has no partition {partition}: it has {partitions}, from 0");
        return Err(Failure::new(1, cause));
    }
    let meant = (0..*partitions).filter(|index| partition.is_none_or(|partition| partition == *index));
    let with_place = meant.map(|partition| {
        let of = PartitionId { topic: *number, partition };
        (name.to_owned(), of, stands(of).map(|place| place.stands.clone()))
    });
    Ok(with_place.collect())
}

/// Where the group is to go on, in one of the partitions.
struct Move {
    topic: String,
    to: GroupOffset,
    from: Option<u64>,
}

fn moves(arguments: &Reset, state: &State, journal: &slipring::journal::Journal) -> Result<Vec<Move>, Failure> {
    let epoch = group_offsets(state).iter().filter(|it| it.group == arguments.group).map(|it| it.epoch).max();
    let chosen = chosen(state, &arguments.group, arguments.topic.as_deref(), arguments.partition)?;
    let one = |(topic, of, stands): (String, PartitionId, Option<GroupOffset>)| {
        let extent = journal.extent(of).unwrap_or_default();
        let Extent { start, end, .. } = extent;
        let offset = match arguments.to {
            To::Earliest => start,
            To::Latest => end,
            To::Offset(asked) if !(start..=end).contains(&asked) => {
                let partition = of.partition;
                let cause = format!(
                    "partition {partition} of topic {topic:?} keeps {start} up to, not including, {end}: {asked} is not there, and nothing was moved"
                );
                return Err(Failure::new(1, cause));
            }
            To::Offset(asked) => asked,
            To::Time(at) => match journal.reader(of, Start::Time(at), Visible::Written) {
                Ok(mut reader) => reader.next()?.map_or(end, |record| record.offset),
                Err(cause) => return Err(cause.into()),
            },
        };
        let from = stands.map(|stands| stands.offset);
        // Another epoch than any member ever had.
        let to = GroupOffset::new(arguments.group.as_str(), of, offset, epoch.unwrap_or(0) + 1);
        Ok(Move { topic, to, from })
    };
    chosen.into_iter().map(one).collect()
}

fn reset(arguments: &Reset) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let moves = if arguments.dry_run {
        let journal = looked.survey.journal(Arc::clone(&looked.storage));
        moves(arguments, looked.survey.state(), &journal)?
    } else {
        change(&arguments.directory, &looked, |state, journal, frame| {
            let moves = moves(arguments, state, journal)?;
            moves.iter().for_each(|it| it.to.put(frame));
            Ok(moves)
        })?
    };
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let listed = moves.iter().map(|Move { topic, to, from }| {
            json!({ "topic": topic, "partition": to.of.partition, "from": from, "to": to.offset })
        });
        let listed: Vec<_> = listed.collect();
        let document =
            json!({ "version": 1, "group": arguments.group, "dry_run": arguments.dry_run, "partitions": listed });
        writeln!(out, "{document}")?;
        return Ok(());
    }
    for Move { topic, to, from } in &moves {
        let from = from.map_or_else(|| "nowhere".to_owned(), |from| from.to_string());
        writeln!(out, "{topic}/{}: {from} -> {}", to.of.partition, to.offset)?;
    }
    if arguments.dry_run {
        writeln!(out, "nothing was changed")?;
    } else {
        writeln!(out, "durable at {}", time(now()))?;
    }
    Ok(())
}

fn forget(arguments: &Forget) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let gone = change(&arguments.directory, &looked, |state, _, frame| {
        let chosen = chosen(state, &arguments.group, arguments.topic.as_deref(), None)?;
        let gone: Vec<_> = chosen.into_iter().filter_map(|(_, _, stands)| stands).collect();
        gone.iter().for_each(|it| it.delete(frame));
        Ok(gone.len())
    })?;
    writeln!(std::io::stdout().lock(), "forgotten: {} in {gone} partitions", arguments.group)?;
    Ok(())
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Opens the journal, writes one frame, all or none of it, and closes it.
fn change<T>(
    directory: &Directory,
    looked: &super::journal::Looked,
    make: impl FnOnce(&State, &slipring::journal::Journal, &mut FrameBuilder) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let segments = looked.survey.segments();
    let defaults = Options::default();
    let segment_size = segments.last().map_or(defaults.segment_size, |last| last.header.size);
    let options = Options { segment_size, helper: false, ..defaults };
    let (mut writer, _) = open(Arc::new(directory.disk()), options)?;
    let mut frame = FrameBuilder::new();
    let made = make(writer.state(), &writer.journal(), &mut frame);
    if made.is_ok() && !frame.is_empty() {
        writer.append(&mut frame, now()).map_err(|cause| Failure::new(1, cause))?;
        writer.sync().map_err(|cause| Failure::new(1, cause))?;
    }
    writer.close(now()).map_err(|cause| Failure::new(1, cause))?;
    made
}
