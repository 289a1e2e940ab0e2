//! Writing a whole journal anew, with each record in the present layout of its topic.
//!
//! # Crashes
//! The new journal is written in a directory of another name beside its own, is closed, and then gets its name. So under
//! that name stands nothing, or a whole journal. The unfinished directory of a call that was interrupted is emptied by the
//! next one. The source is locked and only read.

use crate::base::clock::{Clock, SystemClock};
use crate::event::codec::Unreadable;
use crate::event::layout::plain_size;
use crate::event::upgrade::{UpgradePath, Upgrades};
use crate::log::catalog::{RecordedTopic, recorded_topics, state_kind};
use slipring_journal::format::{Entry, FrameKind, entries};
use slipring_journal::storage::{Disk, Storage};
use slipring_journal::{
    DiskError, FrameBuilder, OpenError, Options, PartitionId, ReplayError, State, Survey, WriteError, Writer, gaps,
    inspect, open,
};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The result of [`convert`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// Count of the records that were written.
    pub records: u64,
    /// Count of those that had an older layout.
    pub upgraded: u64,
}

/// Why a journal was not converted. The source is as it was, and nothing has the target's name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// There is no journal in the source's directory.
    #[error("there is no journal in {journal:?} to convert")]
    NoJournal {
        /// The source's directory.
        journal: String,
    },
    /// The target's name is taken.
    #[error("{target:?} is there already: name a directory that is not")]
    Exists {
        /// The target's directory.
        target: PathBuf,
    },
    /// The unfinished directory beside the target holds something that is no journal.
    #[error("{unfinished:?} holds {name:?}, which is no file of a journal: move that directory away")]
    NotOurs {
        /// The unfinished directory.
        unfinished: PathBuf,
        /// The name of what is there.
        name: String,
    },
    /// The source is open in a program, damaged, or cannot be read.
    #[error(transparent)]
    Source(OpenError),
    /// A frame of the source cannot be read.
    #[error(transparent)]
    Read(#[from] ReplayError),
    /// The new journal cannot be made.
    #[error("the new journal: {0}")]
    Target(OpenError),
    /// The new journal cannot be written, or the disk is full.
    #[error("the new journal: {0}")]
    Write(#[from] WriteError),
    /// A call to the disk failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Records were lost to damage, and a repair has left gaps of which readers are told where they stand. The new
    /// journal could not tell them.
    #[error("the journal has {count} gaps that a repair has left: only a journal without gaps is converted")]
    Gaps {
        /// Count of the gaps.
        count: usize,
    },
    /// Records of a topic have an older layout, and no steps were given that lead from it to the present one.
    #[error("topic {topic:?} has records of the older layout {from:?}, and no step leads from it to {to:?}")]
    NoUpgrade {
        /// The topic's name.
        topic: String,
        /// The older layout.
        from: String,
        /// The present layout.
        to: String,
    },
    /// A record does not decode as an event of its layout.
    #[error("topic {topic:?}, partition {partition}, offset {offset}: {cause}")]
    Event {
        /// The topic's name.
        topic: String,
        /// The partition's number, from 0.
        partition: u32,
        /// The record's offset.
        offset: u64,
        /// Why it does not decode.
        cause: Unreadable,
    },
}

/// Writes the journal in `from` anew into the directory `to`, which must not exist: each record with its offset and its time,
/// in the present layout of its topic, and all state beside the records. The older layouts are gone from the new journal's
/// catalogue, so programs need no [`upgrade`](crate::TopicBuilder::upgrade) for it. `upgrades` has the steps of each topic by
/// its name; a topic without older layouts needs none. `progress` is called after each frame, with the count of bytes of the
/// source that are still to be read.
///
/// No program may have the journal open; it is locked meanwhile and not changed. Afterwards put the new directory in the place
/// of the old one. A call that is interrupted at any moment leaves nothing under the name `to`; it is called again. The disk
/// needs room for both journals.
///
/// # Errors
/// See [`ConvertError`].
///
/// ```
/// use slipring::{Engine, Level, journal::convert, topic::Upgrades};
/// use std::time::Duration;
///
/// let folder = tempfile::tempdir()?;
/// let (old, new) = (folder.path().join("journal"), folder.path().join("converted"));
/// let long = Duration::from_secs(60);
/// let upgrades = Upgrades::new().step(|old: &u32, new: &mut u64| *new = u64::from(*old) * 100);
///
/// let engine = Engine::open(&old)?;                                   // the first release
/// engine.topic::<u32>("prices").durable().create()?.producer().create()?.publish(|price| *price = 7)?;
/// engine.shutdown(long);
/// let engine = Engine::open(&old)?;                                   // the second one
/// engine.topic::<u64>("prices").durable().upgrades(upgrades.clone()).create()?;
/// engine.shutdown(long);
///
/// let converted = convert(&old, &new, &[("prices", upgrades)], &mut |_| {})?;
/// assert_eq!((converted.records, converted.upgraded), (1, 1));
/// let engine = Engine::open(&new)?;
/// let prices = engine.topic::<u64>("prices").durable().create()?;     // without a step
/// prices.replay("check").open()?.read(long, |price, at| assert_eq!((*price, at.offset), (700, 0)))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn convert(
    from: &Path,
    to: &Path,
    upgrades: &[(&str, Upgrades)],
    progress: &mut dyn FnMut(u64),
) -> Result<Converted, ConvertError> {
    let source: Arc<dyn Storage> = Arc::new(Disk::new(from));
    let lock = source.lock().map_err(|cause| match cause.kind() {
        io::ErrorKind::NotFound => ConvertError::NoJournal { journal: source.name() },
        io::ErrorKind::WouldBlock => {
            ConvertError::Source(OpenError::Locked { journal: source.name(), holder: source.lock_holder() })
        }
        _ => DiskError::new("lock", source.name(), &cause).into(),
    })?;
    if fs::symlink_metadata(to).is_ok() {
        return Err(ConvertError::Exists { target: to.to_owned() });
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".converting");
    let unfinished = to.with_file_name(name);
    let failed = |doing: &'static str, path: &Path, cause: io::Error| {
        ConvertError::Disk(DiskError::new(doing, path.display().to_string(), &cause))
    };
    discard(&unfinished)?;
    let converted = write(&source, Arc::new(Disk::new(&unfinished)), upgrades, progress);
    if converted.is_err() {
        // Room is what a full disk lacks. The next call would discard it, too.
        let _ = discard(&unfinished);
    }
    let converted = converted?;
    // A directory takes the name only if nothing or an empty directory has it.
    fs::rename(&unfinished, to).map_err(|cause| failed("rename", &unfinished, cause))?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = fs::File::open(parent).and_then(|parent| parent.sync_all());
    synced.map_err(|cause| failed("sync", parent, cause))?;
    drop(lock);
    Ok(converted)
}

/// Removes the directory of a call that was interrupted, if there is one. Anything in it that is no file of a journal is an
/// error, and nothing is removed.
fn discard(unfinished: &Path) -> Result<(), ConvertError> {
    let failed = |cause: io::Error| DiskError::new("remove", unfinished.display().to_string(), &cause);
    let entries = match fs::read_dir(unfinished) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    let files = entries.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    for file in &files {
        let name = file.file_name().to_string_lossy().into_owned();
        let is_ours = ["lock", "checkpoint", "checkpoint.new"].contains(&&*name)
            || [".segment", ".index", ".segment.new", ".index.new"].iter().any(|end| name.ends_with(end));
        if !is_ours || !file.file_type().is_ok_and(|kind| kind.is_file()) {
            return Err(ConvertError::NotOurs { unfinished: unfinished.to_owned(), name });
        }
    }
    files.iter().try_for_each(|file| fs::remove_file(file.path())).map_err(failed)?;
    Ok(fs::remove_dir(unfinished).map_err(failed)?)
}

/// The steps of a topic's records: for each older layout, those that lead to the present one.
struct Paths<'t> {
    topic: &'t RecordedTopic,
    /// True if all events have one size.
    is_fixed: bool,
    paths: Vec<Option<UpgradePath>>,
}

/// Writes the journal of `source` into `target`, which is empty.
fn write(
    source: &Arc<dyn Storage>,
    target: Arc<dyn Storage>,
    upgrades: &[(&str, Upgrades)],
    progress: &mut dyn FnMut(u64),
) -> Result<Converted, ConvertError> {
    let survey = inspect(Arc::clone(source), false).map_err(ConvertError::Source)?;
    let segments = survey.segments();
    let Some(last) = segments.last() else { return Err(ConvertError::NoJournal { journal: source.name() }) };
    let count = gaps(survey.state()).len();
    if count > 0 {
        return Err(ConvertError::Gaps { count });
    }
    let topics = recorded_topics(survey.state());
    let paths = topics.iter().map(|topic| {
        let steps = upgrades.iter().find(|(name, _)| *name == topic.name).map(|(_, steps)| steps.clone());
        let steps = steps.unwrap_or_default();
        let paths = topic.older.iter().map(|older| steps.path(&older.layout, &topic.layout)).collect();
        (topic.number, Paths { topic, is_fixed: plain_size(&topic.layout).is_some(), paths })
    });
    let options = Options { segment_size: last.header.size, ..Options::default() };
    let (writer, _) = open(target, options).map_err(ConvertError::Target)?;
    let paths = paths.collect();
    let mut converting = Converting {
        survey: &survey,
        paths,
        writer,
        frame: FrameBuilder::new(),
        ends: BTreeMap::new(),
        done: Converted::default(),
    };
    converting.records(source, progress)?;
    let time = SystemClock::default().wall().as_nanos();
    converting.state(time)?;
    let Converting { writer, done, .. } = converting;
    writer.close(time)?;
    Ok(done)
}

/// A journal that is being converted.
struct Converting<'s> {
    survey: &'s Survey,
    /// By the topic's number.
    paths: BTreeMap<u32, Paths<'s>>,
    writer: Writer,
    frame: FrameBuilder,
    /// For each partition the offset after the last record that was written.
    ends: BTreeMap<PartitionId, u64>,
    done: Converted,
}

impl Converting<'_> {
    /// Writes all records, frame by frame.
    fn records(&mut self, source: &Arc<dyn Storage>, progress: &mut dyn FnMut(u64)) -> Result<(), ConvertError> {
        let mut frames = self.survey.frames(Arc::clone(source));
        let limit = self.writer.frame_limit() / 2;
        while let Some(frame) = frames.next()? {
            if frame.header.kind != FrameKind::Data {
                continue;
            }
            let (time, segment, at) = (frame.header.time, frame.segment, frame.at);
            for entry in entries(&frame.plain) {
                let Entry::Run(run) = entry.map_err(|what| ReplayError::Damaged { segment, at, what, next: None })?
                else {
                    continue;
                };
                // Partitions of topics that were deleted have no extent.
                let Some(extent) = self.survey.state().extent(run.partition) else { continue };
                let begin = extent.start.max(self.ends.get(&run.partition).copied().unwrap_or(0));
                for record in run.records().filter(|record| record.offset >= begin) {
                    self.record(run.partition, record.offset, record.time, record.bytes)?;
                    if self.frame.len() > limit {
                        self.writer.append(&mut self.frame, time)?;
                    }
                }
                self.ends.insert(run.partition, run.end().max(begin));
            }
            if !self.frame.is_empty() {
                self.writer.append(&mut self.frame, time)?;
            }
            progress(frames.left());
        }
        Ok(())
    }

    fn record(&mut self, of: PartitionId, offset: u64, time: Option<u64>, bytes: &[u8]) -> Result<(), ConvertError> {
        // Records of topics that the catalogue does not have are nobody's.
        let Some(Paths { topic, is_fixed, paths }) = self.paths.get(&of.topic) else { return Ok(()) };
        self.done.records += 1;
        let mut write = |bytes: &[u8]| match is_fixed {
            true => self.frame.fixed(of, offset, time, bytes),
            false => self.frame.record(of, offset, time, bytes),
        };
        let Some(index) = topic.older_at(of.partition, offset) else {
            write(bytes);
            return Ok(());
        };
        let none = || ConvertError::NoUpgrade {
            topic: topic.name.clone(),
            from: topic.older[index].layout.clone(),
            to: topic.layout.clone(),
        };
        let upgraded = paths[index].as_ref().ok_or_else(none)?.run(bytes);
        let unreadable =
            |cause| ConvertError::Event { topic: topic.name.clone(), partition: of.partition, offset, cause };
        write(&upgraded.map_err(unreadable)?);
        self.done.upgraded += 1;
        Ok(())
    }

    /// Writes the state beside the records: all but the older layouts, of which no records are left.
    fn state(&mut self, time: u64) -> Result<(), ConvertError> {
        let state: &State = self.survey.state();
        let limit = self.writer.frame_limit() / 2;
        let kinds: Vec<u16> = state.kinds().map(|(kind, _)| kind).filter(|kind| *kind != state_kind::LAYOUTS).collect();
        for (partition, extent) in state.extents() {
            self.frame.extent(partition, extent);
            self.append_above(limit, time)?;
        }
        for kind in kinds {
            for (key, value) in state.values(kind) {
                self.frame.put(kind, key, value);
                self.append_above(limit, time)?;
            }
        }
        self.append_above(0, time)
    }

    /// Writes the frame if it has more than `limit` bytes.
    fn append_above(&mut self, limit: usize, time: u64) -> Result<(), ConvertError> {
        if self.frame.len() > limit && !self.frame.is_empty() {
            self.writer.append(&mut self.frame, time)?;
        }
        Ok(())
    }
}
