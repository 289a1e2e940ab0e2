//! A journal's directory: inspecting it even while a program has it open, and changing it while no program has.

use crate::failure::{Done, FAILED, Failure};
use clap::Args;
use slipring::journal::format::MAX_SEGMENT;
use slipring::journal::storage::{Disk, Storage};
use slipring::journal::{
    Journal, OpenError, Options, PartitionId, RecordedTopic, State, Survey, Writer, check_files, inspect_to_damage,
    open, recorded_topics,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The argument of every command on a journal.
#[derive(Args)]
pub(crate) struct Directory {
    /// The journal's directory
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// The arguments of every command that lists.
#[derive(Args)]
pub(crate) struct Listing {
    #[command(flatten)]
    pub(crate) directory: Directory,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The result of inspecting a journal's directory. The inspection changes no file and takes no lock.
pub(crate) struct Inspected {
    pub(crate) storage: Arc<dyn Storage>,
    /// The journal, or the part of it before the damage.
    pub(crate) survey: Survey,
    /// The first damage; `None` if none was found.
    pub(crate) damage: Option<OpenError>,
}

impl Directory {
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn disk(&self) -> Disk {
        Disk::new(&self.dir)
    }

    /// Total size of the segment files, in bytes. Files that cannot be read count as 0.
    pub(crate) fn bytes(&self) -> u64 {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let segments = entries.filter(|entry| entry.path().extension().is_some_and(|kind| kind == "segment"));
        let files = segments.filter_map(|entry| entry.metadata().ok()).filter(|data| data.is_file());
        // A longer file counts as the largest segment, because no more of it is read.
        files.map(|data| data.len().min(MAX_SEGMENT)).sum()
    }

    /// Inspects the journal, reading only the segments that have no valid index.
    pub(crate) fn inspect(&self) -> Result<Inspected, Failure> {
        self.inspect_with(false, &mut |_| {})
    }

    /// Inspects the journal. If `whole` is true, reads every byte, and checks that all names belong to regular files;
    /// otherwise reads only the segments without a valid index. `progress` is called with the count of bytes read so
    /// far.
    pub(crate) fn inspect_with(&self, whole: bool, progress: &mut dyn FnMut(u64)) -> Result<Inspected, Failure> {
        let storage: Arc<dyn Storage> = Arc::new(self.disk());
        let (survey, damage) = inspect_to_damage(Arc::clone(&storage), whole, progress)?;
        if survey.id().is_none() && damage.is_none() {
            return Err(Failure::new(FAILED, format!("there is no journal in {:?}", self.dir)));
        }
        if whole {
            check_files(&*storage)?;
        }
        Ok(Inspected { storage, survey, damage })
    }
}

impl Inspected {
    pub(crate) fn state(&self) -> &State {
        self.survey.state()
    }

    /// The journal, for reading.
    pub(crate) fn journal(&self) -> Journal {
        self.survey.journal(Arc::clone(&self.storage))
    }

    pub(crate) fn topics(&self) -> Topics {
        Topics(recorded_topics(self.state()))
    }

    /// Options with the size of the journal's last segment; with the default size if the journal has no segment.
    pub(crate) fn options(&self) -> Options {
        let defaults = Options::default();
        let segment_size = self.survey.segments().last().map_or(defaults.segment_size, |last| last.header.size);
        Options { segment_size, helper: false, ..defaults }
    }

    /// The damage as the text of a JSON field; `None` if none was found.
    pub(crate) fn damage_text(&self) -> Option<String> {
        self.damage.as_ref().map(ToString::to_string)
    }

    /// The result of a command that has shown the part before the damage: the damage as an error, if there is any.
    pub(crate) fn end(self) -> Done {
        self.damage.map_or(Ok(()), |damage| Err(damage.into()))
    }

    /// Opens the journal, calls `change` with its writer, and closes it. A damaged journal is refused.
    pub(crate) fn change<T>(self, change: impl FnOnce(&mut Writer) -> Result<T, Failure>) -> Result<T, Failure> {
        let options = self.options();
        let (mut writer, _) = open(self.storage, options)?;
        let changed = change(&mut writer);
        writer.close(crate::output::now().as_nanos())?;
        changed
    }
}

/// The topics of a journal.
pub(crate) struct Topics(pub(crate) Vec<RecordedTopic>);

impl Topics {
    /// The name of the topic with this number; the number as text if the topic is unknown.
    pub(crate) fn name(&self, number: u32) -> String {
        let known = self.0.iter().find(|topic| topic.number == number);
        known.map_or_else(|| number.to_string(), |topic| topic.name.clone())
    }

    /// The place among its topic's older layouts of the layout that this record has; `None` if it has the present one.
    pub(crate) fn older_at(&self, of: PartitionId, offset: u64) -> Option<usize> {
        let known = self.0.iter().find(|topic| topic.number == of.topic)?;
        known.older_at(of.partition, offset)
    }

    /// True for a topic of messages. False for a topic of other events, or an unknown one.
    pub(crate) fn has_messages(&self, number: u32) -> bool {
        self.0.iter().any(|topic| topic.number == number && topic.max_message > 0)
    }
}
