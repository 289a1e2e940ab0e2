//! `slipring group`: shows and moves the committed offsets of groups and transforms in a journal.

mod change;
mod position;
mod show;

use crate::failure::{Done, FAILED, Failure};
use crate::inspected::{Directory, Listing};
use clap::{Args, Subcommand};
use position::Position;
use slipring::journal::{GroupKind, ReaderKind};

/// Shows and changes the consumer groups of a journal: their committed offsets, and the count of records left to read.
///
/// `ls` and `describe` also work while a program has the journal open, and show what that program has written so far.
/// `reset`, `acknowledge` and `forget` need a journal that no program has open. They act at once; with `--dry-run` they print what
/// they would do.
///
/// Transforms are listed as well: they read a topic under a name with `Engine::transform` or `Topic::transform`. A
/// transform that is reset to an earlier offset reads those events again and publishes their outputs a second time.
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
  slipring group reset data/journal billing --to-earliest --dry-run
  slipring group reset data/journal billing --to-earliest
  slipring group reset data/journal billing --to 2026-11-21T08:00:00Z --topic orders --dry-run
  slipring group reset data/journal billing --to 4711 --topic orders --partition 3
  slipring group acknowledge data/journal billing
  slipring group forget data/journal billing --dry-run

Exit codes:
  0  done
  1  it could not be done: no such group, topic or offset, no journal there, a program has it open, the disk fails
  2  the command line was not understood
  3  the journal is damaged
  5  a newer program wrote it";

#[derive(Subcommand)]
enum Command {
    /// List the groups and transforms: topics, partitions, lag
    #[command(visible_alias = "list")]
    Ls(Listing),
    /// Show the committed offset of a group or a transform in each partition, with the metadata of the commit
    Describe(Describe),
    /// Set the committed offset of a group or a transform
    #[command(after_help = EXAMPLES)]
    Reset(change::Reset),
    /// Acknowledge the gaps (offsets lost to damage) that were reported to a group or a transform: `describe` then no
    /// longer lists them
    #[command(after_help = EXAMPLES)]
    Acknowledge(change::Acknowledge),
    /// Forget a group or a transform: the next time it is joined or opened, it starts as a new one
    #[command(after_help = EXAMPLES)]
    Forget(change::Forget),
}

/// The group or transform that a command applies to.
#[derive(Args)]
struct Reader {
    /// The group, or the transform
    #[arg(value_name = "GROUP")]
    name: String,
    /// The kind, if both a group and a transform have this name
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

impl Reader {
    /// The kind of the reader with this name in `positions`. An error if there is none, or if there are both and no
    /// kind was given.
    fn kind(&self, positions: &[Position]) -> Result<Kind, Failure> {
        let name = &self.name;
        let has = |kind: Kind| positions.iter().any(|it| it.is_of(kind, name));
        match (self.kind, has(Kind::Group), has(Kind::Transform)) {
            (Some(kind), ..) if has(kind) => Ok(kind),
            (None, true, true) => {
                let cause =
                    format!("a group and a transform are called {name:?}: say `--kind group` or `--kind transform`");
                Err(Failure::new(FAILED, cause))
            }
            (None, true, false) => Ok(Kind::Group),
            (None, false, true) => Ok(Kind::Transform),
            _ => Err(self.unknown(positions)),
        }
    }

    fn unknown(&self, positions: &[Position]) -> Failure {
        let (name, asked) = (&self.name, self.kind.map_or("group or transform", Kind::name));
        let mut known: Vec<_> =
            positions.iter().map(|it| format!("{} {}", it.kind().name(), it.committed.group)).collect();
        known.dedup();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        Failure::new(FAILED, format!("the journal has no {asked} {name:?}: it has {known}"))
    }
}

#[derive(Args)]
struct Describe {
    #[command(flatten)]
    directory: Directory,
    #[command(flatten)]
    reader: Reader,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Done {
    match &arguments.command {
        Command::Ls(arguments) => show::ls(arguments),
        Command::Describe(arguments) => show::describe(arguments),
        Command::Reset(arguments) => change::reset(arguments),
        Command::Acknowledge(arguments) => change::acknowledge(arguments),
        Command::Forget(arguments) => change::forget(arguments),
    }
}
