//! Opening a journal: what is there, what of it counts, and making that durable before anybody builds on it.
//!
//! [`inspect`] looks and changes nothing. [`open`] then mends, in steps that can each be the last one before a crash:
//!
//! 1. Follow the chain of frames to its end E. Segments with an index that is tied to them are believed, but for the last
//!    ones. Look for durable marks in all of it and beyond: D is the highest.
//! 2. E below D: what was acknowledged is damaged. An error, nothing was changed.
//! 3. Copy aside what stands at and behind E, and sync the copy. Take away later segments, the last one first; cut E's
//!    segment there. Sync both, before anything is written that would let this damage look like an elder one.
//! 4. Write again what stands between D and E, and sync it: it may be in the page cache alone, and after a failed sync of
//!    the last process it would look clean and never reach the disk.
//! 5. Begin a new segment, with the state, and under the next incarnation. Old segments are never written again.

use super::error::{DiskError, Malformed, OpenError};
use super::format::{
    ALIGN, Codec, FRAME_HEADER, FrameHeader, FrameKind, JournalId, SEGMENT_HEAD, SegmentHeader, entries, unpack,
};
use super::helper::{CHECKPOINT, Checkpoint, seal};
use super::index::Index;
use super::segment::{Segment, SegmentReport, UNFINISHED, Window, finish, index_name, segment_name, segment_number};
use super::snapshot::State;
use super::storage::{File, Storage};
use super::writer::Writer;
use super::{Options, Shared};
use std::borrow::Cow;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What an opening found and did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Recovered {
    /// There was no journal; now there is.
    pub created: bool,
    /// What stands in the journal's state: catalogue, offsets, and where partitions stand.
    pub state: State,
    /// A torn end that was copied aside and cut.
    pub torn: Option<Torn>,
    /// Bytes that were read to check them.
    pub scanned: u64,
    /// Segments that were believed because of their index.
    pub believed: usize,
    /// Segments there are now.
    pub segments: usize,
    /// The highest durable mark that was found.
    pub durable: u64,
    /// Where the frames end that were found whole.
    pub end: u64,
    /// This opening's number.
    pub incarnation: u32,
    /// How long it took.
    pub took: Duration,
}

/// The end of a journal that was being written when the power went.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Torn {
    /// Where the whole frames end.
    pub position: u64,
    /// Bytes that were no frames, up to the last that is not zero.
    pub bytes: u64,
    /// What was wrong with the first of them.
    pub what: Malformed,
    /// The files that have them now.
    pub copies: Vec<String>,
}

/// What a journal's directory holds, as [`inspect`] saw it.
pub struct Survey {
    pub(crate) id: JournalId,
    pub(crate) incarnation: u32,
    /// Those that count, in order; the frames end in the last one.
    pub(crate) segments: Vec<Arc<Segment>>,
    /// Those that count and have no index.
    unsealed: Vec<Arc<Segment>>,
    /// Files behind the end: name, and the bytes in it that are not zero.
    beyond: Vec<(Arc<Segment>, u64)>,
    /// Files of segments before the first that is needed.
    leftover: Vec<u64>,
    unfinished: Vec<String>,
    pub(crate) state: State,
    pub(crate) previous: u32,
    /// The incarnation of the last frame that counts.
    pub(crate) chain_incarnation: u32,
    durable: u64,
    end: u64,
    torn: Option<Torn>,
    scanned: u64,
    created: bool,
    /// Files that were named, by what stands in them.
    others: Vec<String>,
    stale: Vec<u64>,
    stray: Vec<(u64, u64)>,
}

impl std::fmt::Debug for Survey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { segments, durable, end, torn, .. } = self;
        write!(f, "Survey({} segments, durable {durable}, end {end}, torn {torn:?})", segments.len())
    }
}

impl Survey {
    /// The journal's state at its end.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What would be cut.
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// The highest durable mark that was found.
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// Where the whole frames end, as a position of the journal.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How often the journal was opened.
    pub fn incarnation(&self) -> u32 {
        self.incarnation
    }

    /// The journal's own number; none where there is no journal.
    pub fn id(&self) -> Option<JournalId> {
        (!self.created).then_some(self.id)
    }

    /// Bytes that were read to check them.
    pub fn scanned(&self) -> u64 {
        self.scanned
    }

    /// The segments that count, in order.
    pub fn segments(&self) -> Vec<SegmentReport> {
        let unsealed = |number| self.unsealed.iter().any(|segment| segment.header.number == number);
        self.segments.iter().map(|segment| segment.report(!unsealed(segment.header.number))).collect()
    }

    /// Files of the directory that are no segments: those that a recovery or a repair put aside, and what is not a journal's.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    /// Segments whose index is not what their frames say, though its checksums match. Found where all of them were read.
    pub fn stale_indexes(&self) -> &[u64] {
        &self.stale
    }

    /// Segments, and bytes in their files, that should be zero and are not: no checksum covers them, and no record is made of
    /// them. Found where all was read.
    pub fn stray_bytes(&self) -> &[(u64, u64)] {
        &self.stray
    }

    /// The journal as it is, to be read and not written.
    pub fn journal(&self, storage: Arc<dyn Storage>) -> super::Journal {
        let segments = self.segments.clone();
        let shared =
            Shared::new(storage, self.id, self.incarnation, Options::default(), segments, &self.state, self.end);
        super::Journal { shared: Arc::new(shared) }
    }
}

/// Opens the journal in `storage`, or makes one. Returns its writer, and what was found.
///
/// # Errors
/// Somebody has it, what was durable is damaged, a newer program wrote it, the disk fails, or a setting is refused. The
/// files are as they were, but for what an earlier opening had begun to mend.
pub fn open(storage: Arc<dyn Storage>, options: Options) -> Result<(Writer, Recovered), OpenError> {
    let begun = Instant::now();
    let size = options.segment_size;
    if !(4096..=2 << 30).contains(&size) || !size.is_multiple_of(ALIGN) {
        let why = format!("segments of {size} bytes: take from 4096 to 2147483648, a multiple of {ALIGN}");
        return Err(OpenError::Setting(why));
    }
    let disk = |doing: &'static str, cause: &io::Error| DiskError::new(doing, storage.name(), cause);
    storage.create_dir().map_err(|cause| disk("make the directory", &cause))?;
    let lock = storage.lock().map_err(|cause| match cause.kind() {
        io::ErrorKind::WouldBlock => OpenError::Locked { journal: storage.name(), holder: storage.lock_holder() },
        _ => disk("lock", &cause).into(),
    })?;
    let mut surveyor = Surveyor::new(&*storage, &options)?;
    surveyor.writes = true;
    let survey = surveyor.survey(true)?;
    mend(&*storage, &survey, &options).map_err(|cause| disk("mend", &cause))?;

    let Survey { id, segments, state, durable, end, previous, torn, scanned, created, .. } = survey;
    let (incarnation, mut state) = (survey.incarnation + 1, state);
    state.go_on();
    let last = segments.last().map(|last| last.header);
    let header = SegmentHeader {
        id,
        number: last.map_or(1, |last| last.number + 1),
        first: last.map_or(0, |last| last.first + last.size),
        size,
        incarnation,
        lost: false,
    };
    let active = Arc::new(Segment::make(&*storage, header)?);
    let (believed, mut segments) = (segments.len() - survey.unsealed.len(), segments);
    segments.push(Arc::clone(&active));
    let count = segments.len();
    let shared = Arc::new(Shared::new(storage, id, incarnation, options, segments, &state, end));
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let writer = Writer::begin(shared, state.clone(), active, previous, lock, time)?;
    let took = begun.elapsed();
    let recovered =
        Recovered { created, state, torn, scanned, believed, segments: count, durable, end, incarnation, took };
    Ok((writer, recovered))
}

/// Looks at a journal without changing it, whoever has it open. `whole` has every segment read, the believed ones too.
///
/// # Errors
/// As [`open`], but for the lock.
pub fn inspect(storage: &dyn Storage, whole: bool) -> Result<Survey, OpenError> {
    match survey_to_damage(storage, whole, &mut |_| {})? {
        (survey, None) => Ok(survey),
        (_, Some(damage)) => Err(damage),
    }
}

/// Looks at a journal as [`inspect`] does, and where it is damaged gives what stands before the damage along with the error.
/// `progress` hears now and then how many bytes were read, all in all.
///
/// # Errors
/// As [`open`], but for the lock and for damage.
pub fn survey_to_damage(
    storage: &dyn Storage,
    whole: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<(Survey, Option<OpenError>), OpenError> {
    let options = Options::default();
    let mut before = None;
    loop {
        let mut surveyor = Surveyor::new(storage, &options)?;
        surveyor.progress = Some(&mut *progress);
        let refused = match surveyor.survey(!whole) {
            Ok(survey) => return Ok((survey, None)),
            Err(refused) => refused,
        };
        // Its writer goes on meanwhile, and a mark may be seen of a frame that was not there yet when the chain was followed;
        // retention may take a file away. What is really damaged looks the same a second time.
        let place = match &refused {
            OpenError::Damaged { segment, at, what, .. } => Some((*segment, *at, Some(*what), String::new())),
            OpenError::Disk(cause) if cause.kind == io::ErrorKind::NotFound => Some((0, 0, None, cause.file.clone())),
            _ => None,
        };
        if place.is_some() && place != before {
            before = place;
            continue;
        }
        return match (surveyor.broken.take(), &refused) {
            (Some(survey), OpenError::Damaged { .. }) => Ok((survey, Some(refused))),
            _ => Err(refused),
        };
    }
}

fn random_id() -> JournalId {
    let mut id = [0; 16];
    for half in id.chunks_exact_mut(8) {
        // Each state is keyed by the system's randomness.
        half.copy_from_slice(&std::hash::RandomState::new().build_hasher().finish().to_le_bytes());
    }
    id
}

/// Steps 3 and 4.
fn mend(storage: &dyn Storage, survey: &Survey, options: &Options) -> io::Result<()> {
    let keep = options.sabotage().keep_torn_tail;
    if let Some(torn) = &survey.torn {
        let mut window = Window::default();
        for ((segment, until), copy) in survey.beyond.iter().filter(|(_, until)| *until > 0).zip(&torn.copies) {
            let from = if segment.end() > SEGMENT_HEAD { segment.end() } else { 0 };
            finish(storage, copy, |file| copy_range(&mut window, &*segment.file, from, *until, file))?;
        }
    }
    for (segment, _) in survey.beyond.iter().rev() {
        let kept = survey.segments.last().is_some_and(|last| last.header.number == segment.header.number);
        if !kept {
            take_away(storage, &index_name(segment.header.number))?;
            take_away(storage, &segment.name)?;
        }
    }
    for name in &survey.unfinished {
        take_away(storage, name)?;
    }
    for number in &survey.leftover {
        take_away(storage, &index_name(*number))?;
        take_away(storage, &segment_name(*number))?;
    }
    if let Some(last) = survey.unsealed.last().filter(|_| !keep)
        && last.file.size()? > last.end()
    {
        last.file.truncate(last.end())?;
    }
    if !options.sabotage().serve_before_sync {
        let mut window = Window::default();
        for segment in &survey.unsealed {
            let from = survey.durable.saturating_sub(segment.header.first).max(SEGMENT_HEAD);
            if from < segment.end() {
                window.reset();
                copy_range_within(&mut window, &*segment.file, from & !(ALIGN - 1), segment.end())?;
            }
            segment.file.sync()?;
        }
    }
    storage.sync_dir()?;
    for segment in survey.unsealed.iter().filter(|segment| !segment.headless()) {
        seal(storage, &survey.id, segment)?;
    }
    Ok(())
}

pub(crate) fn take_away(storage: &dyn Storage, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

const COPY: usize = 1 << 20;

pub(crate) fn copy_range(
    window: &mut Window,
    from: &dyn File,
    begin: u64,
    end: u64,
    into: &dyn File,
) -> io::Result<()> {
    window.reset();
    let mut at = begin;
    while at < end {
        let bytes = window.bytes(from, at, COPY.min((end - at) as usize), end)?;
        if bytes.is_empty() {
            break;
        }
        into.write_at(bytes, at - begin)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

fn copy_range_within(window: &mut Window, file: &dyn File, begin: u64, end: u64) -> io::Result<()> {
    let mut at = begin;
    while at < end {
        let bytes = window.bytes(file, at, COPY.min((end - at) as usize), end)?;
        if bytes.is_empty() {
            break;
        }
        file.write_at(bytes, at)?;
        at += bytes.len() as u64;
    }
    Ok(())
}

/// A segment file before it is believed.
struct Candidate {
    number: u64,
    header: Result<SegmentHeader, Malformed>,
    file: Arc<dyn File>,
    index: Option<Index>,
    ends_in_gap: bool,
}

struct Surveyor<'s> {
    storage: &'s dyn Storage,
    options: &'s Options,
    window: Window,
    unfinished: Vec<String>,
    others: Vec<String>,
    stale: Vec<u64>,
    /// Only looked for where all is read.
    stray: Vec<(u64, u64)>,
    whole: bool,
    numbers: Vec<u64>,
    checkpoint: Option<Checkpoint>,
    /// Whether files are opened to be mended.
    writes: bool,
    progress: Option<&'s mut dyn FnMut(u64)>,
    read: u64,
    /// What stands before damage, when that was found.
    broken: Option<Survey>,
}

/// How far the chain of frames goes.
struct Chain {
    state: State,
    /// The checksum of the last frame; none behind a repaired gap.
    previous: Option<u32>,
    incarnation: u32,
    durable: u64,
    scanned: u64,
}

fn disk(doing: &'static str, name: &str, cause: &io::Error) -> OpenError {
    OpenError::Disk(DiskError::new(doing, name, cause))
}

impl<'s> Surveyor<'s> {
    fn new(storage: &'s dyn Storage, options: &'s Options) -> Result<Self, OpenError> {
        let names = storage.list().map_err(|cause| disk("list", &storage.name(), &cause))?;
        let unfinished = names.iter().filter(|name| name.ends_with(UNFINISHED)).cloned().collect();
        let ours = |name: &String| {
            let kind = name.rsplit_once('.').map_or(name.as_str(), |(_, kind)| kind);
            ["segment", "index", "new", CHECKPOINT, "lock"].contains(&kind)
        };
        let mut others: Vec<String> = names.iter().filter(|name| !ours(name)).cloned().collect();
        others.sort_unstable();
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let checkpoint = if names.iter().any(|name| name == CHECKPOINT) { read_checkpoint(storage)? } else { None };
        let window = Window::new(options);
        let (writes, progress, read, broken, stale) = (false, None, 0, None, Vec::new());
        Ok(Self {
            storage,
            options,
            window,
            unfinished,
            others,
            numbers,
            checkpoint,
            writes,
            progress,
            read,
            broken,
            stale,
            stray: Vec::new(),
            whole: false,
        })
    }

    /// So many bytes more were read.
    fn tell(&mut self, bytes: u64) {
        self.read += bytes;
        if let Some(progress) = &mut self.progress {
            progress(self.read);
        }
    }

    fn candidate(&mut self, number: u64) -> Result<Candidate, OpenError> {
        let name = segment_name(number);
        let file = if self.writes { self.storage.open(&name, true).ok() } else { None };
        let file =
            file.map_or_else(|| self.storage.open(&name, false), Ok).map_err(|cause| disk("open", &name, &cause))?;
        let mut head = [0; 64];
        let read = file.read_at(&mut head, 0).map_err(|cause| disk("read", &name, &cause))?;
        let header = match SegmentHeader::decode(&head[..read]) {
            Err(Malformed::Version(found)) => return Err(OpenError::Newer { file: name, found }),
            Ok(header) if header.number != number => Err(Malformed::Stranger),
            decoded => decoded,
        };
        let index = header.as_ref().ok().and_then(|header| self.index(header, &*file));
        let (index, ends_in_gap) = index.map_or((None, false), |(index, last)| (Some(index), last == FrameKind::Gap));
        Ok(Candidate { number, header, file, index, ends_in_gap })
    }

    /// The index of a segment, if it is tied to it: its checksum, the header's, and that of the last frame; with that one's
    /// kind.
    fn index(&self, header: &SegmentHeader, file: &dyn File) -> Option<(Index, FrameKind)> {
        let stored = self.storage.open(&index_name(header.number), false).ok()?;
        let mut bytes = vec![0; usize::try_from(stored.size().ok()?).ok()?];
        let read = stored.read_at(&mut bytes, 0).ok()?;
        let index = Index::decode(&bytes[..read], &header.id, header.number, header.checksum()).ok()?;
        let mut last = [0; 64];
        let (at, checksum) = index.last;
        let read = file.read_at(&mut last, at).ok()?;
        let (frame, found) = FrameHeader::decode(&header.id, header.first + at, &last[..read]).ok()?;
        let tied = found == checksum && at + frame.span() == index.end && file.size().ok()? >= index.end;
        tied.then_some((index, frame.kind))
    }

    fn survey(&mut self, believe: bool) -> Result<Survey, OpenError> {
        self.whole = !believe;
        let mut candidates = Vec::new();
        for number in self.numbers.clone() {
            candidates.push(self.candidate(number)?);
        }
        let known = candidates.iter().find_map(|candidate| candidate.header.as_ref().ok().map(|header| header.id));
        let id = self.checkpoint.map(|checkpoint| checkpoint.id).or(known).unwrap_or_else(random_id);
        for candidate in &mut candidates {
            if candidate.header.as_ref().is_ok_and(|header| header.id != id) {
                (candidate.header, candidate.index) = (Err(Malformed::Stranger), None);
            }
        }
        // Retention deletes elder segments in any order: what stands behind a hole is the beginning, if its state says
        // that nothing before is needed.
        let holes = (1..candidates.len()).rev().filter(|at| candidates[at - 1].number + 1 != candidates[*at].number);
        for hole in holes.collect::<Vec<_>>() {
            if let Ok(mut survey) = self.walk(id, &candidates[hole..], believe)
                && survey.state.floor() >= candidates[hole].number
            {
                survey.leftover.extend(candidates[..hole].iter().map(|candidate| candidate.number));
                return Ok(survey);
            }
        }
        self.walk(id, &candidates, believe)
    }

    /// Follows the chain of frames through these segments.
    fn walk(&mut self, id: JournalId, candidates: &[Candidate], believe: bool) -> Result<Survey, OpenError> {
        // The state comes from the head of the first segment that is read: one that is sealed, so that its head is whole.
        let sealed = candidates.iter().take_while(|candidate| candidate.index.is_some()).count();
        let read_from = if believe { sealed.min(candidates.len().saturating_sub(1)).saturating_sub(1) } else { 0 };
        let mut chain = Chain {
            state: State::default(),
            previous: None,
            incarnation: 0,
            durable: self.checkpoint.map_or(0, |checkpoint| checkpoint.durable),
            scanned: 0,
        };
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        let mut unsealed = Vec::new();
        let mut wrong = None;
        for (index, candidate) in candidates.iter().enumerate() {
            match self.segment(candidate, segments.last(), index < read_from, &mut chain, &id)? {
                Step::Whole { segment, unindexed } => {
                    unsealed.extend(unindexed.then(|| Arc::clone(&segment)));
                    segments.push(segment);
                }
                Step::Ends { segment, what } => {
                    wrong = Some((what, segment.is_some(), index));
                    if let Some(segment) = segment {
                        unsealed.push(Arc::clone(&segment));
                        segments.push(segment);
                    }
                    break;
                }
            }
        }
        let (end, at) = segments.last().map_or((0, 0), |last| (last.position(last.end()), last.end()));
        let incarnation = chain.incarnation.max(self.checkpoint.map_or(0, |checkpoint| checkpoint.incarnation));
        let mut survey = Survey {
            id,
            incarnation,
            created: segments.is_empty(),
            others: self.others.clone(),
            stale: self.stale.clone(),
            stray: self.stray.clone(),
            unsealed,
            beyond: Vec::new(),
            leftover: Vec::new(),
            unfinished: self.unfinished.clone(),
            previous: chain.previous.unwrap_or(0),
            chain_incarnation: chain.incarnation,
            durable: chain.durable,
            end,
            torn: None,
            scanned: chain.scanned,
            state: chain.state,
            segments,
        };
        if let Some((what, in_last, index)) = wrong {
            self.beyond(&mut survey, &candidates[index..], in_last, what)?;
        }
        if survey.end < survey.durable {
            let last = survey.segments.last().map(|last| last.header);
            let (segment, at, what) = match (wrong, last) {
                // Between segments: in the head of the next one, or before it.
                (Some((Malformed::Missing, _, _)), Some(last)) => (last.number + 1, 0, Malformed::Missing),
                (Some((what, false, index)), _) => {
                    let beheaded = candidates[index].header.is_err() || matches!(what, Malformed::Position(_));
                    (candidates[index].number, if beheaded { 0 } else { SEGMENT_HEAD }, what)
                }
                (Some((what, true, _)), Some(last)) => (last.number, at, what),
                (None, Some(last)) if survey.durable <= last.first + last.size => (last.number, at, Malformed::Magic),
                (_, last) => (last.map_or(survey.state.floor(), |last| last.number + 1), 0, Malformed::Missing),
            };
            let (position, durable) = (survey.end, survey.durable);
            self.broken = Some(survey);
            return Err(OpenError::Damaged { segment, at, position, durable, what });
        }
        if let Err(missing) = self.floor(&mut survey) {
            self.broken = Some(survey);
            return Err(missing);
        }
        if survey.segments.is_empty() {
            survey.state = State::default();
        }
        Ok(survey)
    }

    /// The first segment must be the first that is needed, and elder ones are only left over.
    fn floor(&self, survey: &mut Survey) -> Result<(), OpenError> {
        let floor = survey.state.floor();
        let Some(first) = survey.segments.first().map(|first| first.header.number) else { return Ok(()) };
        if first > floor {
            let (position, durable) = (survey.segments[0].header.first, survey.durable);
            return Err(OpenError::Damaged { segment: floor, at: 0, position, durable, what: Malformed::Missing });
        }
        survey.leftover = survey.segments.iter().map(|s| s.header.number).filter(|number| *number < floor).collect();
        survey.segments.retain(|segment| segment.header.number >= floor);
        survey.unsealed.retain(|segment| segment.header.number >= floor);
        Ok(())
    }

    /// Follows the chain through one segment.
    fn segment(
        &mut self,
        candidate: &Candidate,
        before: Option<&Arc<Segment>>,
        believe: bool,
        chain: &mut Chain,
        id: &JournalId,
    ) -> Result<Step, OpenError> {
        let nothing = |what| Ok(Step::Ends { segment: None, what });
        let header = match candidate.header {
            Ok(header) => header,
            Err(what) => return nothing(what),
        };
        if let Some(before) = before.map(|before| before.header)
            && (header.number != before.number + 1 || header.first != before.first + before.size)
        {
            let follows = header.number == before.number + 1;
            return nothing(if follows { Malformed::Position(header.first) } else { Malformed::Missing });
        }
        let segment = Arc::new(Segment::new(header, Arc::clone(&candidate.file)));
        if header.lost {
            chain.previous = None;
            chain.incarnation = chain.incarnation.max(header.incarnation);
            // What it stands for is lost, and no damage any more.
            segment.set_end(header.size);
            return Ok(Step::Whole { segment, unindexed: false });
        }
        if let Some(index) = candidate.index.as_ref().filter(|_| believe) {
            segment.set_end(index.end);
            // Behind a gap the chain begins anew.
            chain.previous = (!candidate.ends_in_gap).then_some(index.last.1);
            chain.durable = chain.durable.max(segment.position(index.end));
            chain.incarnation = chain.incarnation.max(header.incarnation);
            *segment.index() = index.clone();
            return Ok(Step::Whole { segment, unindexed: false });
        }
        if let Some(index) = &candidate.index {
            // Sealed: durable to its end, and there was nothing behind it.
            chain.durable = chain.durable.max(segment.position(index.end));
        }
        if self.whole {
            self.window.reset();
            self.stray(&segment, 64, SEGMENT_HEAD)?;
        }
        let mut index = Index::default();
        let what = self.frames(&segment, chain, &mut index, id)?;
        if segment.end() == SEGMENT_HEAD {
            return nothing(what);
        }
        if let Some(stored) = &candidate.index {
            let bytes = |index: &Index| index.encode(id, header.number, header.checksum());
            let stale = bytes(stored) != bytes(&index) && !self.stale.contains(&header.number);
            self.stale.extend(stale.then_some(header.number));
        }
        *segment.index() = index;
        let tail = self.search(&segment, segment.end())?;
        chain.scanned += segment.end();
        if tail.until == 0 {
            return Ok(Step::Whole { segment, unindexed: candidate.index.is_none() });
        }
        let what = if what == Malformed::Magic { Malformed::Slack } else { what };
        Ok(Step::Ends { segment: Some(segment), what })
    }

    /// Reads frames until one is none, and says why. The segment counts only if the snapshot at its head is whole.
    fn frames(
        &mut self,
        segment: &Segment,
        chain: &mut Chain,
        index: &mut Index,
        id: &JournalId,
    ) -> Result<Malformed, OpenError> {
        let size = segment.file.size().map_err(|cause| segment.disk_error("read", &cause))?;
        let limit = size.min(segment.header.size);
        let mut snapshot = Some(State::default());
        let mut begun = false;
        let (mut at, mut previous, mut incarnation) = (SEGMENT_HEAD, chain.previous, chain.incarnation);
        let mut durable = chain.durable;
        let mut told = at;
        self.window.reset();
        loop {
            if at - told >= COPY as u64 {
                self.tell(at - told);
                told = at;
            }
            let found = self.window.frame(id, segment.header.first, &*segment.file, at, limit);
            let found = found.map_err(|cause| segment.disk_error("read", &cause))?;
            let frame = match found {
                Ok(frame) => frame,
                Err(Malformed::Version(found)) => return Err(OpenError::Newer { file: segment.name.clone(), found }),
                Err(what) => return Ok(what),
            };
            let header = frame.header;
            if previous.is_some_and(|previous| previous != header.previous) {
                return Ok(Malformed::Chain);
            }
            if header.incarnation < incarnation {
                return Ok(Malformed::Incarnation);
            }
            let plain = match unpack_frame(&header, frame.stored) {
                Ok(plain) => plain,
                Err(Malformed::NoZstd) => {
                    return Err(OpenError::Setting(format!("{}: {}", segment.name, Malformed::NoZstd)));
                }
                Err(what) => return Ok(what),
            };
            match (header.kind, &mut snapshot) {
                (FrameKind::Snapshot { first, last }, Some(building)) if first != begun => {
                    for entry in entries(&plain) {
                        let applied = entry.map(|entry| building.apply(&entry));
                        if !matches!(applied, Ok(Ok(()))) {
                            return Ok(Malformed::Entry);
                        }
                    }
                    begun = true;
                    if last {
                        chain.state = snapshot.take().unwrap_or_default();
                    }
                }
                (FrameKind::Data, None) => {
                    // All of it or nothing.
                    if chain.state.check(&plain).is_err() {
                        return Ok(Malformed::Entry);
                    }
                    for entry in entries(&plain).flatten() {
                        index.entry(at, header.time, &entry);
                        let _ = chain.state.apply(&entry);
                    }
                }
                (FrameKind::Mark, None) => {}
                (FrameKind::Gap, _) => {
                    if snapshot.take().is_some() {
                        segment.set_headless();
                    }
                }
                _ => return Ok(Malformed::Snapshot),
            }
            let end = at + header.span();
            let checksum = frame.checksum;
            index.frame(at, end, checksum);
            previous = if header.kind == FrameKind::Gap { None } else { Some(checksum) };
            if self.whole && header.kind != FrameKind::Gap {
                let padding = at + FRAME_HEADER as u64 + u64::from(header.stored);
                self.stray(segment, padding, end)?;
            }
            incarnation = header.incarnation;
            durable = durable.max(header.durable);
            at = end;
            if snapshot.is_none() {
                // Until its snapshot is whole, a segment changes nothing.
                (chain.previous, chain.incarnation, chain.durable) = (previous, incarnation, durable);
                segment.set_end(at);
            }
        }
    }

    /// Takes note of bytes that should be zero, in a part that no checksum covers.
    fn stray(&mut self, segment: &Segment, from: u64, to: u64) -> Result<(), OpenError> {
        let bytes = self.window.bytes(&*segment.file, from, (to - from) as usize, to);
        let bytes = bytes.map_err(|cause| segment.disk_error("read", &cause))?;
        if let Some(stray) = bytes.iter().position(|byte| *byte != 0) {
            let place = (segment.header.number, from + stray as u64);
            self.stray.extend((!self.stray.contains(&place)).then_some(place));
        }
        Ok(())
    }

    /// Looks for marks and bytes in what is behind the end.
    fn beyond(
        &mut self,
        survey: &mut Survey,
        rest: &[Candidate],
        in_last: bool,
        what: Malformed,
    ) -> Result<(), OpenError> {
        let mut bytes = 0;
        let mut copies = Vec::new();
        let mut skip = in_last;
        for candidate in rest {
            let (segment, from) = if std::mem::take(&mut skip) {
                let last = Arc::clone(&survey.segments[survey.segments.len() - 1]);
                let end = last.end();
                (last, end)
            } else {
                let header = candidate.header.unwrap_or_else(|_| self.guess(survey, candidate.number));
                (Arc::new(Segment::new(header, Arc::clone(&candidate.file))), SEGMENT_HEAD)
            };
            let tail = self.search_marks(&segment, from, survey.id)?;
            survey.durable = survey.durable.max(tail.durable);
            survey.incarnation = survey.incarnation.max(tail.incarnation);
            if tail.until > 0 {
                bytes += tail.until - from;
                copies.push(format!("torn-{:020}-{}.bin", segment.position(from), survey.incarnation));
            }
            survey.beyond.push((segment, tail.until));
        }
        // Incarnations seen later must not change the names: those are only names.
        if bytes > 0 {
            survey.torn = Some(Torn { position: survey.end, bytes, what, copies });
        }
        Ok(())
    }

    /// Where a segment without a header would stand.
    fn guess(&self, survey: &Survey, number: u64) -> SegmentHeader {
        let last = survey.segments.last().map(|last| last.header);
        let size = last.map_or(self.options.segment_size, |last| last.size);
        let first = last.map_or((number - 1) * size, |last| last.first + (number - last.number) * size);
        SegmentHeader { id: survey.id, number, first, size, incarnation: survey.incarnation, lost: false }
    }

    fn search(&mut self, segment: &Segment, from: u64) -> Result<Tail, OpenError> {
        self.search_marks(segment, from, segment.header.id)
    }

    fn search_marks(&mut self, segment: &Segment, from: u64, id: JournalId) -> Result<Tail, OpenError> {
        let size = segment.file.size().map_err(|cause| segment.disk_error("read", &cause))?;
        let mut tail = Tail { until: 0, durable: 0, incarnation: segment.header.incarnation };
        let mut at = from;
        self.window.reset();
        while at < size {
            let bytes = self.window.bytes(&*segment.file, at, COPY, size);
            let bytes = bytes.map_err(|cause| segment.disk_error("read", &cause))?;
            if bytes.is_empty() {
                break;
            }
            if let Some(last) = last_set(bytes) {
                tail.until = at + last as u64 + 1;
                for (step, piece) in bytes.chunks(ALIGN as usize).enumerate() {
                    let position = segment.position(at + step as u64 * ALIGN);
                    if let Ok((header, _)) = FrameHeader::decode(&id, position, piece) {
                        tail.durable = tail.durable.max(header.durable);
                        tail.incarnation = tail.incarnation.max(header.incarnation);
                    }
                }
            }
            let len = bytes.len() as u64;
            at += len;
            self.tell(len);
        }
        Ok(tail)
    }
}

/// The last byte that is not zero. Most of what it looks at is, so it goes by whole lines.
pub(crate) fn last_set(bytes: &[u8]) -> Option<usize> {
    const LINE: usize = 256;
    let lines = bytes.len().div_ceil(LINE);
    let line = (0..lines).rev().find(|line| {
        let line = &bytes[line * LINE..bytes.len().min((line + 1) * LINE)];
        line.iter().fold(0, |seen, byte| seen | byte) != 0
    })?;
    let end = bytes.len().min((line + 1) * LINE);
    bytes[..end].iter().rposition(|byte| *byte != 0)
}

struct Tail {
    /// Where the last byte that is not zero ends; 0 if there is none.
    until: u64,
    durable: u64,
    incarnation: u32,
}

enum Step {
    /// The chain goes through it and on.
    Whole { segment: Arc<Segment>, unindexed: bool },
    /// The chain ends in it, or before it.
    Ends { segment: Option<Arc<Segment>>, what: Malformed },
}

fn read_checkpoint(storage: &dyn Storage) -> Result<Option<Checkpoint>, OpenError> {
    let mut bytes = [0; 64];
    let read = storage.open(CHECKPOINT, false).and_then(|file| file.read_at(&mut bytes, 0));
    let read = read.map_err(|cause| disk("read", CHECKPOINT, &cause))?;
    match Checkpoint::decode(&bytes[..read]) {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(Malformed::Version(found)) => Err(OpenError::Newer { file: CHECKPOINT.to_owned(), found }),
        // A damaged one says nothing: the marks in the frames are there beside it.
        Err(_) => Ok(None),
    }
}

pub(crate) fn unpack_frame<'b>(header: &FrameHeader, stored: &'b [u8]) -> Result<Cow<'b, [u8]>, Malformed> {
    match header.codec {
        Codec::Plain if header.raw == header.stored || header.kind == FrameKind::Gap => Ok(Cow::Borrowed(stored)),
        Codec::Plain => Err(Malformed::Length),
        codec => unpack(codec, stored, header.raw as usize).map(Cow::Owned),
    }
}
