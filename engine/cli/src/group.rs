//! `slipring group`: where consumer groups stand in a journal, and moving them.

use super::journal::{Directory, Done, Failure, plain, print_json, time};
use clap::{Args, Subcommand};
use serde_json::json;
use slipring::journal::{
    Extent, FrameBuilder, GroupKind, GroupOffset, Journal, Options, PartitionId, RecordedTopic, State,
    acknowledge_gaps, group_offsets, open, recorded_topics, reported_gaps, transform_offsets,
};
use slipring::journal::{ReaderKind, ReportedGap};
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Looks at the consumer groups of a journal: where they stand, and what they have still to read.
///
/// `ls` and `describe` read beside a program that has the journal open: what that has not written yet they do not see.
/// `reset`, `acknowledge` and `forget` need the journal for themselves.
///
/// Transforms are here as well: who reads a topic under a name with `Engine::transform` or `Topic::transform`. One that is
/// sent back reads those events again and passes on again what comes of them: its outputs are there twice then.
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
  slipring group acknowledge data/journal billing
  slipring group forget data/journal billing

Exit codes:
  0  done
  1  it could not be done: no such group, topic or offset, no journal there, a program has it open, the disk fails
  2  the command line was not understood
  3  the journal is damaged
  5  a newer program wrote it";

#[derive(Subcommand)]
enum Command {
    /// List the groups and transforms: topics, partitions, lag
    Ls(Ls),
    /// Show where a group or a transform stands in each partition
    Describe(Describe),
    /// Have a group or a transform go on elsewhere
    #[command(after_help = EXAMPLES)]
    Reset(Reset),
    /// Take from the list what a group or a transform was told to be lost
    #[command(after_help = EXAMPLES)]
    Acknowledge(Acknowledge),
    /// Forget a group or a transform: it begins anew when it is joined or opened the next time
    #[command(after_help = EXAMPLES)]
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

/// Whose places a command means.
#[derive(Args)]
struct Whom {
    /// The group, or the transform
    #[arg(value_name = "GROUP")]
    name: String,
    /// Which of the two, where both have this name
    #[arg(long, value_enum)]
    kind: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Group,
    Transform,
}

impl Kind {
    fn of(kind: GroupKind) -> Self {
        match kind {
            GroupKind::Transform => Self::Transform,
            _ => Self::Group,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Transform => "transform",
        }
    }

    fn reader(self) -> ReaderKind {
        match self {
            Self::Group => ReaderKind::Group,
            Self::Transform => ReaderKind::Transform,
        }
    }
}

impl Whom {
    /// The one that is meant, among `all`.
    fn kind(&self, all: &[Place]) -> Result<Kind, Failure> {
        let name = &self.name;
        let is_there = |kind: Kind| all.iter().any(|place| place.stands.group == *name && place.kind() == kind);
        match (self.kind, is_there(Kind::Group), is_there(Kind::Transform)) {
            (Some(kind), ..) if is_there(kind) => Ok(kind),
            (None, true, true) => {
                let cause =
                    format!("a group and a transform are called {name:?}: say `--kind group` or `--kind transform`");
                Err(Failure::new(1, cause))
            }
            (None, true, false) => Ok(Kind::Group),
            (None, false, true) => Ok(Kind::Transform),
            _ => Err(unknown(self, all)),
        }
    }
}

#[derive(Args)]
struct Describe {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    whom: Whom,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Reset {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    whom: Whom,
    /// Where: `earliest`, `latest`, an offset, or a time such as 2026-11-21T08:00:00Z
    #[arg(long, value_name = "WHERE", value_parser = to)]
    to: To,
    /// Only this topic; all that it reads unless told
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
    #[command(flatten)]
    whom: Whom,
    /// Only this topic; all that it reads unless told
    #[arg(long)]
    topic: Option<String>,
}

#[derive(Args)]
struct Acknowledge {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    whom: Whom,
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
        Command::Acknowledge(arguments) => acknowledge(arguments),
        Command::Forget(arguments) => forget(arguments),
    })
}

/// Where a group or a transform stands, with what the partition has.
struct Place {
    topic: String,
    stands: GroupOffset,
    extent: Extent,
    /// Records that are there and not committed.
    lag: u64,
}

impl Place {
    fn kind(&self) -> Kind {
        Kind::of(self.stands.kind)
    }

    /// How many offsets of what it would read next are not kept any more.
    fn lost(&self) -> u64 {
        self.extent.start.saturating_sub(self.stands.offset)
    }

    fn epoch(&self) -> Option<u64> {
        (self.kind() == Kind::Group).then_some(self.stands.epoch)
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "topic": self.topic, "partition": self.stands.of.partition, "committed": self.stands.offset,
            "earliest": self.extent.start, "latest": self.extent.end, "lag": self.lag, "lost": self.lost(),
            "epoch": self.epoch(),
        })
    }
}

fn places(state: &State, journal: &Journal) -> Vec<Place> {
    let topics: BTreeMap<u32, String> =
        recorded_topics(state).into_iter().map(|topic| (topic.number, topic.name)).collect();
    let place = |stands: GroupOffset| {
        let topic = topics.get(&stands.of.topic)?.clone();
        let extent = state.extent(stands.of).unwrap_or_default();
        let lag = journal.records_in(stands.of, stands.offset..extent.end);
        Some(Place { topic, extent, lag, stands })
    };
    group_offsets(state).into_iter().chain(transform_offsets(state)).filter_map(place).collect()
}

fn seen(looked: &super::journal::Looked) -> Vec<Place> {
    places(looked.survey.state(), &looked.survey.journal(Arc::clone(&looked.storage)))
}

fn unknown(whom: &Whom, all: &[Place]) -> Failure {
    let (name, asked) = (&whom.name, whom.kind.map_or("group or transform", Kind::name));
    let mut known: Vec<_> = all.iter().map(|place| format!("{} {}", place.kind().name(), place.stands.group)).collect();
    known.dedup();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Failure::new(1, format!("the journal has no {asked} {name:?}: it has {known}"))
}

fn ls(arguments: &Ls) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let mut groups: BTreeMap<(String, GroupKind), Vec<Place>> = BTreeMap::new();
    for place in seen(&looked) {
        groups.entry((place.stands.group.clone(), place.stands.kind)).or_default().push(place);
    }
    let mut out = std::io::stdout().lock();
    let topics = |places: &[Place]| {
        let mut topics: Vec<_> = places.iter().map(|place| place.topic.clone()).collect();
        topics.dedup();
        topics
    };
    let sum = |places: &[Place], what: fn(&Place) -> u64| places.iter().map(what).sum::<u64>();
    let epoch = |places: &[Place]| places.iter().filter_map(Place::epoch).max();
    if arguments.json {
        let listed = groups.iter().map(|((name, kind), places)| {
            json!({
                "group": name, "kind": Kind::of(*kind).name(), "topics": topics(places), "partitions": places.len(),
                "epoch": epoch(places), "lag": sum(places, |place| place.lag), "lost": sum(places, Place::lost),
                "unacknowledged_gaps": told(&looked, Kind::of(*kind), name).len(),
            })
        });
        let listed: Vec<_> = listed.collect();
        let damage = looked.damage.as_ref().map(ToString::to_string);
        print_json(&mut out, &json!({ "version": 1, "groups": listed, "damage": damage }))?;
        return looked.end();
    }
    let [group, kind, partitions, lag, epochs, read] = ["group", "kind", "partitions", "lag", "epoch", "topics"];
    writeln!(out, "{group:<24} {kind:<9} {partitions:>10} {lag:>14} {epochs:>8}  {read}")?;
    for ((name, kind), places) in &groups {
        let (count, lag, read) = (places.len(), sum(places, |place| place.lag), plain(&topics(places).join(", ")));
        let lost = if sum(places, Place::lost) > 0 { "  (some is not kept any more: describe it)" } else { "" };
        let gaps = match told(&looked, Kind::of(*kind), name).len() {
            0 => String::new(),
            gaps => format!("  ({gaps} gaps were told and not acknowledged: describe it)"),
        };
        let epoch = epoch(places).map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
        let (name, kind) = (plain(name), Kind::of(*kind).name());
        writeln!(out, "{name:<24} {kind:<9} {count:>10} {lag:>14} {epoch:>8}  {read}{lost}{gaps}")?;
    }
    looked.end()
}

fn describe(arguments: &Describe) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let all = seen(&looked);
    let (name, kind) = (&arguments.whom.name, arguments.whom.kind(&all)?);
    let places: Vec<_> = all.into_iter().filter(|place| place.stands.group == *name && place.kind() == kind).collect();
    let gaps = told(&looked, kind, name);
    let mut out = std::io::stdout().lock();
    if arguments.json {
        let listed: Vec<_> = places.iter().map(Place::json).collect();
        let damage = looked.damage.as_ref().map(ToString::to_string);
        let gaps = gaps.iter().map(|told| {
            let ReportedGap { gap, time, .. } = told;
            let (first, end) = (gap.offsets.start, gap.offsets.end);
            json!({ "topic": gap.topic, "partition": gap.partition, "first": first, "end": end, "told_ns": time.as_nanos() })
        });
        let gaps: Vec<_> = gaps.collect();
        let document = json!({
            "version": 1, "group": name, "kind": kind.name(), "partitions": listed, "gaps": gaps, "damage": damage,
        });
        print_json(&mut out, &document)?;
        return looked.end();
    }
    let [topic, partition, committed, earliest, latest, lag] =
        ["topic", "partition", "committed", "earliest", "latest", "lag"];
    writeln!(out, "{topic:<20} {partition:>9} {committed:>14} {earliest:>14} {latest:>14} {lag:>14}")?;
    for place in &places {
        let Place { topic, stands, extent, lag, .. } = place;
        let (topic, partition, committed) = (plain(topic), stands.of.partition, stands.offset);
        write!(out, "{topic:<20} {partition:>9} {committed:>14} {:>14} {:>14} {lag:>14}", extent.start, extent.end)?;
        match place.lost() {
            0 => writeln!(out)?,
            lost => writeln!(out, "  {lost} not kept any more: `slipring group reset` says where to go on")?,
        }
    }
    for ReportedGap { gap, time: told, .. } in &gaps {
        let (topic, partition, Range { start, end }) = (plain(&gap.topic), gap.partition, &gap.offsets);
        let told = time(told.as_nanos());
        writeln!(
            out,
            "{topic}/{partition}: {start} up to, not including, {end} were lost to damage, as it was told at {told}"
        )?;
    }
    if !gaps.is_empty() {
        writeln!(out, "`slipring group acknowledge` takes these from the list")?;
    }
    looked.end()
}

/// A partition, its topic's name, and where the group or transform stands there.
type Chosen = (String, PartitionId, Option<GroupOffset>);

/// The partitions that a command means.
fn chosen(
    state: &State,
    journal: &Journal,
    whom: &Whom,
    topic: Option<&str>,
    partition: Option<u32>,
) -> Result<(Kind, Vec<Chosen>), Failure> {
    let all = places(state, journal);
    // Of a topic that is named it may be new.
    let kind = match whom.kind(&all) {
        Err(_) if topic.is_some() && all.iter().all(|place| place.stands.group != whom.name) => {
            whom.kind.unwrap_or(Kind::Group)
        }
        known => known?,
    };
    let is_its = |place: &&Place| place.stands.group == whom.name && place.kind() == kind;
    let stands = |of| all.iter().filter(is_its).find(|place| place.stands.of == of);
    let Some(name) = topic else {
        let its = all.iter().filter(is_its);
        return Ok((kind, its.map(|it| (it.topic.clone(), it.stands.of, Some(it.stands.clone()))).collect()));
    };
    let topics = recorded_topics(state);
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
    Ok((kind, with_place.collect()))
}

/// Where the group is to go on, in one of the partitions.
struct Move {
    topic: String,
    to: GroupOffset,
    from: Option<u64>,
}

fn moves(arguments: &Reset, state: &State, journal: &Journal) -> Result<Vec<Move>, Failure> {
    let name = arguments.whom.name.as_str();
    let epoch = group_offsets(state).iter().filter(|it| it.group == name).map(|it| it.epoch).max();
    let (kind, chosen) = chosen(state, journal, &arguments.whom, arguments.topic.as_deref(), arguments.partition)?;
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
            To::Time(at) => journal.first_since(of, at)?.unwrap_or(end),
        };
        let from = stands.map(|stands| stands.offset);
        let to = match kind {
            // Another epoch than any member ever had.
            Kind::Group => GroupOffset::new(name, of, offset, epoch.unwrap_or(0) + 1),
            Kind::Transform => GroupOffset::of_transform(name, of, offset),
        };
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
            json!({ "version": 1, "group": arguments.whom.name, "dry_run": arguments.dry_run, "partitions": listed });
        print_json(&mut out, &document)?;
        return Ok(());
    }
    for Move { topic, to, from } in &moves {
        let from = from.map_or_else(|| "nowhere".to_owned(), |from| from.to_string());
        writeln!(out, "{}/{}: {from} -> {}", plain(topic), to.of.partition, to.offset)?;
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
    let gone = change(&arguments.directory, &looked, |state, journal, frame| {
        let (kind, chosen) = chosen(state, journal, &arguments.whom, arguments.topic.as_deref(), None)?;
        let gone: Vec<_> = chosen.into_iter().filter_map(|(_, _, stands)| stands).collect();
        gone.iter().for_each(|it| it.delete(frame));
        if arguments.topic.is_none() {
            acknowledge_gaps(state, kind.reader(), &arguments.whom.name, frame);
        }
        Ok(gone.len())
    })?;
    writeln!(std::io::stdout().lock(), "forgotten: {} in {gone} partitions", plain(&arguments.whom.name))?;
    Ok(())
}

fn acknowledge(arguments: &Acknowledge) -> Done {
    let looked = arguments.directory.look(false, &mut |_| {})?;
    let whom = &arguments.whom;
    let count = change(&arguments.directory, &looked, |state, journal, frame| {
        let kind = whom.kind(&places(state, journal))?;
        Ok(acknowledge_gaps(state, kind.reader(), &whom.name, frame))
    })?;
    writeln!(std::io::stdout().lock(), "acknowledged: {count} gaps of {}", plain(&whom.name))?;
    Ok(())
}

/// The gaps of which somebody was told and that nobody has acknowledged.
fn told(looked: &super::journal::Looked, kind: Kind, name: &str) -> Vec<ReportedGap> {
    let told = reported_gaps(looked.survey.state()).into_iter();
    told.filter(|told| told.kind == kind.reader() && told.reader == name).collect()
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Opens the journal, writes one frame, all or none of it, and closes it.
fn change<T>(
    directory: &Directory,
    looked: &super::journal::Looked,
    make: impl FnOnce(&State, &Journal, &mut FrameBuilder) -> Result<T, Failure>,
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
