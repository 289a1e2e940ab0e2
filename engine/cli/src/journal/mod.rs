//! `slipring journal`: looks at a journal's directory, whoever has it open, and repairs one that is damaged.

mod check;
pub(crate) mod records;
mod show;

use clap::{Args, Subcommand};
use slipring::journal::format::MAX_SEGMENT;
use slipring::journal::repair::RepairError;
use slipring::journal::storage::{Disk, Storage};
use slipring::journal::{OpenError, RecordedTopic, ReplayError, State, Survey, recorded_topics, inspect_to_damage};
use slipring::text;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Looks at a journal's directory: what it holds, whether it is sound, and what is in it.
///
/// No program has to run for that, and one may: nothing but `repair` writes, and nothing but `repair` takes the lock.
#[derive(Args)]
#[command(after_help = CODES)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

pub(crate) const CODES: &str = "\
Exit codes:
  0  done, and nothing was wrong (also when the reader of a pipe has gone)
  1  it could not be done: no journal there, somebody has it open, the disk fails
  2  the command line was not understood
  3  damaged: something that had been durable cannot be read
  4  verify: a torn end, as a crash leaves it; the next opening cuts it, nothing durable is lost
  5  a newer program wrote it
  6  verify: every record is whole, but bytes that belong to none have changed; repair puts them right";

#[derive(Subcommand)]
enum Command {
    /// List the segments, and the files that were put aside
    #[command(after_help = CODES)]
    Ls(show::Arguments),
    /// Say how large it is, up to where it is durable, and what each topic has
    #[command(after_help = CODES)]
    Stat(show::Arguments),
    /// Print records
    #[command(after_help = records::EXAMPLES)]
    Cat(records::Cat),
    /// Print the last records, and with -f those that come
    #[command(after_help = CODES)]
    Tail(records::Tail),
    /// Check every frame, checksum and index, and name the first damage
    #[command(after_help = CODES)]
    Verify(check::Verify),
    /// Copy damaged parts aside and leave a gap in their place, so that the rest can be opened again
    #[command(after_help = CODES)]
    Repair(check::Repair),
    /// Write records to a file, as JSON lines or CSV
    #[command(after_help = CODES)]
    Export(records::Export),
}

/// What ends a command, with its code.
pub(crate) struct Failure {
    code: u8,
    cause: Box<dyn Error>,
}

pub(crate) const DAMAGED: u8 = 3;
pub(crate) const TORN: u8 = 4;
pub(crate) const CHANGED: u8 = 6;

impl Failure {
    pub(crate) fn new(code: u8, cause: impl Into<Box<dyn Error>>) -> Self {
        Self { code, cause: cause.into() }
    }
}

impl From<OpenError> for Failure {
    fn from(cause: OpenError) -> Self {
        let code = match cause {
            OpenError::Damaged { .. } => DAMAGED,
            OpenError::Newer { .. } => 5,
            _ => 1,
        };
        Self::new(code, cause)
    }
}

impl From<ReplayError> for Failure {
    fn from(cause: ReplayError) -> Self {
        Self::new(if matches!(cause, ReplayError::Damaged { .. }) { DAMAGED } else { 1 }, cause)
    }
}

impl From<RepairError> for Failure {
    fn from(cause: RepairError) -> Self {
        match cause {
            RepairError::Open(cause) => cause.into(),
            RepairError::Replay(cause) => cause.into(),
            RepairError::Hopeless { .. } => Self::new(DAMAGED, cause),
            cause => Self::new(1, cause),
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(cause: std::io::Error) -> Self {
        Self::new(1, cause)
    }
}

impl From<serde_json::Error> for Failure {
    fn from(cause: serde_json::Error) -> Self {
        std::io::Error::from(cause).into()
    }
}

impl From<csv::Error> for Failure {
    fn from(cause: csv::Error) -> Self {
        match cause.into_kind() {
            csv::ErrorKind::Io(cause) => cause.into(),
            other => Self::new(1, format!("cannot write CSV: {other:?}")),
        }
    }
}

pub(crate) type Done = Result<(), Failure>;

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let done = match &arguments.command {
        Command::Ls(arguments) => show::ls(arguments),
        Command::Stat(arguments) => show::stat(arguments),
        Command::Cat(arguments) => records::cat(arguments),
        Command::Tail(arguments) => records::tail(arguments),
        Command::Verify(arguments) => check::verify(arguments),
        Command::Repair(arguments) => check::repair_command(arguments),
        Command::Export(arguments) => records::export(arguments),
    };
    ended(done)
}

pub(crate) fn ended(done: Done) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if super::is_broken_pipe(&*failure.cause) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("slipring: {}", text::line(failure.cause));
            ExitCode::from(failure.code)
        }
    }
}

/// Prints a JSON document in one line, or in several if it has some, safe for a terminal.
pub(crate) fn print_json(out: &mut impl Write, document: &impl Display) -> io::Result<()> {
    writeln!(out, "{}", text::json(&document.to_string()))
}

/// A name from a journal, safe for a terminal, as a text that can be padded to a column's width.
pub(crate) fn plain(name: &str) -> String {
    text::line(name).to_string()
}

/// A journal's directory.
#[derive(Args)]
pub(crate) struct Directory {
    /// The journal's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// A journal that was looked at.
pub(crate) struct Looked {
    pub(crate) storage: Arc<dyn Storage>,
    pub(crate) survey: Survey,
    /// What is wrong with it behind what the survey has.
    pub(crate) damage: Option<OpenError>,
}

impl Directory {
    pub(crate) fn disk(&self) -> Disk {
        Disk::new(&self.dir)
    }

    /// Bytes of all segments there.
    pub(crate) fn bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let segments = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "segment"));
        // No more of a file is read than a segment may have.
        let files = segments.filter_map(|entry| entry.metadata().ok()).filter(|data| data.is_file());
        files.map(|data| data.len().min(MAX_SEGMENT)).sum()
    }

    /// Looks, as an opening would but for the lock; `whole`: at every byte.
    pub(crate) fn look(&self, whole: bool, progress: &mut dyn FnMut(u64)) -> Result<Looked, Failure> {
        let storage: Arc<dyn Storage> = Arc::new(self.disk());
        let (survey, damage) = inspect_to_damage(Arc::clone(&storage), whole, progress)?;
        if survey.id().is_none() && damage.is_none() {
            return Err(Failure::new(1, format!("there is no journal in {:?}", self.dir)));
        }
        Ok(Looked { storage, survey, damage })
    }
}

impl Looked {
    /// What a command ends with that has shown all that there is.
    pub(crate) fn end(self) -> Done {
        self.damage.map_or(Ok(()), |damage| Err(damage.into()))
    }
}

/// A topic's line in the catalogue.
#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) number: u32,
    pub(crate) name: String,
    pub(crate) layout: String,
}

/// The kind of state that has the topics by name.
const CATALOGUE: u16 = 1;

pub(crate) fn topics(state: &State) -> Vec<Topic> {
    let topic = |RecordedTopic { number, name, layout, .. }: RecordedTopic| Topic { number, name, layout };
    recorded_topics(state).into_iter().map(topic).collect()
}

pub(crate) fn topic_name(topics: &[Topic], number: u32) -> String {
    let known = topics.iter().find(|topic| topic.number == number);
    known.map_or_else(|| number.to_string(), |topic| topic.name.clone())
}

/// Nanoseconds since the epoch, as people write it.
pub(crate) fn time(nanos: u64) -> String {
    let at = std::time::UNIX_EPOCH + std::time::Duration::from_nanos(nanos);
    humantime::format_rfc3339_nanos(at).to_string()
}

pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
