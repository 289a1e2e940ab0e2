//! Following the chain of frames to its end, and looking for durable marks beyond it.

use super::checkpoint::Checkpoint;
use super::copy::{COPY, last_set};
use super::error::{DiskError, OpenError};
use super::file_names::{CHECKPOINT, UNFINISHED, index_name, is_ours, segment_name, segment_number};
use super::files::{Files, SegmentFile};
use super::format::{
    ALIGN, FRAME_HEADER, FrameHeader, FrameKind, JournalId, MAJOR, MAX_POSITION, MAX_SEGMENT, Malformed, SEGMENT_HEAD,
    SegmentHeader, entries, known_entries,
};
use super::index::Index;
use super::options::Options;
use super::segment::Segment;
use super::snapshot::State;
use super::storage::{File, NotOurs, Storage};
use super::survey::{Progress, SeenGap, Survey, Torn};
use super::window::{Window, unpack_frame};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::sync::Arc;

fn random_id() -> JournalId {
    let mut id = [0; 16];
    for half in id.chunks_exact_mut(8) {
        // Each state is keyed by the system's randomness.
        half.copy_from_slice(&std::hash::RandomState::new().build_hasher().finish().to_le_bytes());
    }
    id
}

/// A segment file before it is believed.
struct Candidate {
    number: u64,
    header: Result<SegmentHeader, Malformed>,
    file: SegmentFile,
    index: Option<Index>,
    ends_in_gap: bool,
}

pub(super) struct Surveyor<'s> {
    storage: Arc<dyn Storage>,
    files: Arc<Files>,
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
    /// Whether what is derived must be readable, because it will be written.
    strict: bool,
    pub(super) progress: Option<&'s mut dyn FnMut(Progress)>,
    read: u64,
    /// To be read, all in all.
    total: u64,
    /// What stands before damage, when that was found.
    pub(super) broken: Option<Survey>,
}

/// How far the chain of frames goes.
struct Chain {
    state: State,
    /// The checksum of the last frame; none behind a repaired gap.
    previous: Option<u32>,
    incarnation: u32,
    durable: u64,
    scanned: u64,
    gaps: Vec<SeenGap>,
}

fn disk(doing: &'static str, name: &str, cause: &io::Error) -> OpenError {
    OpenError::Disk(DiskError::new(doing, name, cause))
}

impl<'s> Surveyor<'s> {
    pub(super) fn new(storage: Arc<dyn Storage>, options: &'s Options, strict: bool) -> Result<Self, OpenError> {
        let names = storage.list().map_err(|cause| disk("list", &storage.name(), &cause))?;
        let unfinished = names.iter().filter(|name| name.ends_with(UNFINISHED) && is_ours(name)).cloned().collect();
        let shown = |name: &String| !is_ours(name) || name.ends_with(".bin");
        let mut others: Vec<String> = names.iter().filter(|name| shown(name)).cloned().collect();
        others.sort_unstable();
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let there = names.iter().any(|name| name == CHECKPOINT);
        let checkpoint = if there { read_checkpoint(&*storage, strict)? } else { None };
        let window = Window::new(options);
        let (progress, read, broken, stale) = (None, 0, None, Vec::new());
        let files = Files::new(Arc::clone(&storage));
        Ok(Self {
            storage,
            files,
            options,
            window,
            unfinished,
            others,
            numbers,
            checkpoint,
            strict,
            progress,
            read,
            total: 0,
            broken,
            stale,
            stray: Vec::new(),
            whole: false,
        })
    }

    /// So many bytes more were read.
    fn tell(&mut self, bytes: u64) {
        self.read += bytes;
        let (read, total) = (self.read, self.total.max(self.read));
        if let Some(progress) = &mut self.progress {
            progress(Progress { read, total });
        }
    }

    fn candidate(&mut self, number: u64) -> Result<Candidate, OpenError> {
        let name = segment_name(number);
        let file = self.files.file(number);
        let mut head = [0; 64];
        let read = file.read_at(&mut head, 0).map_err(|cause| disk("read", &name, &cause))?;
        let header = match SegmentHeader::decode(&head[..read]) {
            Err(Malformed::Version(found)) => return Err(OpenError::Newer { file: name, found }),
            Ok(header) if header.number != number => Err(Malformed::Misnamed(header.number)),
            decoded => decoded,
        };
        let index = match &header {
            Ok(header) => self.index(header, &file)?,
            Err(_) => None,
        };
        let (index, ends_in_gap) = index.map_or((None, false), |(index, last)| (Some(index), last == FrameKind::Gap));
        Ok(Candidate { number, header, file, index, ends_in_gap })
    }

    /// The index of a segment, if it is tied to it: its checksum, the header's, and that of the last frame; with that one's
    /// kind.
    fn index(&self, header: &SegmentHeader, file: &dyn File) -> Result<Option<(Index, FrameKind)>, OpenError> {
        let name = index_name(header.number);
        match self.storage.open(&name, false) {
            Err(cause) if self.strict && NotOurs::of(&cause).is_some() => Err(disk("read", &name, &cause)),
            // Without one, the segment is read.
            Err(_) => Ok(None),
            Ok(stored) => Ok(tied(header, file, &*stored)),
        }
    }

    pub(super) fn survey(&mut self, believe: bool) -> Result<Survey, OpenError> {
        self.whole = !believe;
        let mut candidates = Vec::new();
        for number in self.numbers.clone() {
            candidates.push(self.candidate(number)?);
        }
        let id = self.identity(&candidates);
        self.checkpoint = self.checkpoint.filter(|checkpoint| checkpoint.id == id);
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

    /// The journal's id: what most headers say, whatever the checkpoint is of.
    fn identity(&self, candidates: &[Candidate]) -> JournalId {
        let mut known: BTreeMap<JournalId, (usize, bool)> = BTreeMap::new();
        for header in candidates.iter().filter_map(|candidate| candidate.header.as_ref().ok()) {
            known.entry(header.id).or_default().0 += 1;
        }
        if let Some(checkpoint) = self.checkpoint {
            known.entry(checkpoint.id).or_default().1 = true;
        }
        let most = known.into_iter().max_by_key(|(_, says)| *says);
        most.map_or_else(random_id, |(id, _)| id)
    }

    /// Whether the file beside the segments knows the identity, too.
    pub(super) fn has_checkpoint(&self) -> bool {
        self.checkpoint.is_some()
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
            gaps: Vec::new(),
        };
        let sizes = candidates[read_from..].iter().map(|candidate| {
            let most = candidate.header.map_or(MAX_SEGMENT, |header| header.size);
            candidate.file.size().unwrap_or(0).min(most)
        });
        self.total = self.read + sizes.sum::<u64>();
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
            files: Arc::clone(&self.files),
            id,
            incarnation,
            created: segments.is_empty(),
            others: self.others.clone(),
            stale: self.stale.clone(),
            stray: self.stray.clone(),
            unsealed,
            beyond: Vec::new(),
            spare: None,
            leftover: Vec::new(),
            unfinished: self.unfinished.clone(),
            previous: chain.previous.unwrap_or(0),
            chain_incarnation: chain.incarnation,
            durable: chain.durable,
            end,
            torn: None,
            scanned: chain.scanned,
            gaps: chain.gaps,
            state: chain.state,
            segments,
        };
        if let Some((what, in_last, index)) = wrong {
            self.beyond(&mut survey, &candidates[index..], in_last, what)?;
        }
        // A segment has its name only when its head is durable: no crash leaves a first one without.
        if let (true, Some(first)) = (survey.segments.is_empty(), candidates.first())
            && let Err(what) = first.header
        {
            let (durable, position) = (survey.durable, survey.end);
            self.broken = Some(survey);
            return Err(OpenError::Damaged { segment: first.number, at: 0, position, durable, what });
        }
        // Nor does any give a segment the name of another one.
        if let Some((what @ Malformed::Misnamed(_), _, index)) = wrong {
            let (segment, durable, position) = (candidates[index].number, survey.durable, survey.end);
            self.broken = Some(survey);
            return Err(OpenError::Damaged { segment, at: 0, position, durable, what });
        }
        if survey.end < survey.durable {
            let last = survey.segments.last().map(|last| last.header);
            let (segment, at, what) = match (wrong, last) {
                // Between segments: in the head of the next one, or before it.
                (Some((Malformed::Missing, _, _)), Some(last)) => (last.number + 1, 0, Malformed::Missing),
                (Some((what, false, index)), _) => {
                    let beheaded = candidates[index].header.is_err()
                        || matches!(what, Malformed::Position(_) | Malformed::Opening);
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
        let (Some(first), Some(last)) = (survey.segments.first(), survey.segments.last()) else { return Ok(()) };
        let (first, last) = (first.header.number, last.header);
        if floor > last.number {
            // A state never says that the segment it stands in is not needed: believed, it would take all of them away.
            let (segment, position, durable) = (last.number, last.first, survey.durable);
            let what = Malformed::Floor(floor);
            return Err(OpenError::Damaged { segment, at: SEGMENT_HEAD, position, durable, what });
        }
        if first > floor {
            let (position, durable) = (survey.segments[0].header.first, survey.durable);
            return Err(OpenError::Damaged { segment: floor, at: 0, position, durable, what: Malformed::Missing });
        }
        survey.leftover = survey.segments.iter().map(|s| s.header.number).filter(|number| *number < floor).collect();
        survey.segments.retain(|segment| segment.header.number >= floor);
        survey.unsealed.retain(|segment| segment.header.number >= floor);
        survey.gaps.retain(|gap| gap.segment >= floor);
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
        let segment = Arc::new(Segment::new(header, self.files.file(candidate.number)));
        if header.lost {
            chain.previous = None;
            chain.incarnation = chain.incarnation.max(header.incarnation);
            // What it stands for is lost, and no damage any more.
            segment.set_end(header.size);
            chain.gaps.push(SeenGap { position: header.first, segment: header.number, bytes: header.size });
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
        let before = self.read;
        let what = self.frames(&segment, chain, &mut index, id)?;
        self.tell((before + segment.end()).saturating_sub(self.read));
        if segment.end() == SEGMENT_HEAD {
            return nothing(what);
        }
        if let Some(stored) = &candidate.index {
            let stale = stored.is_stale(&index, id, header.number) && !self.stale.contains(&header.number);
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
            let found = self.window.frame(id, segment.header.first, &segment.file, at, limit);
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
            if header.incarnation < segment.header.incarnation {
                return Ok(Malformed::Opening);
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
                    if chain.state.check(entries(&plain)).is_err() {
                        return Ok(Malformed::Entry);
                    }
                    for entry in known_entries(&plain).flatten() {
                        index.entry(at, at + header.span(), header.time, &entry);
                        let _ = chain.state.apply(&entry);
                    }
                }
                (FrameKind::Mark, None) => {}
                (FrameKind::Gap, _) => {
                    let (position, bytes) = (header.position, header.span());
                    chain.gaps.push(SeenGap { position, segment: segment.header.number, bytes });
                    if snapshot.take().is_some() {
                        segment.set_headless();
                    }
                }
                _ => return Ok(Malformed::Snapshot),
            }
            let end = at + header.span();
            let checksum = frame.checksum;
            index.frame(at, end, checksum, header.time);
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
        let bytes = self.window.bytes(&segment.file, from, (to - from) as usize, to);
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
                (Arc::new(Segment::new(header, self.files.file(candidate.number))), SEGMENT_HEAD)
            };
            let tail = self.search_marks(&segment, from, survey.id)?;
            survey.durable = survey.durable.max(tail.durable);
            survey.incarnation = survey.incarnation.max(tail.incarnation);
            if tail.until == 0 && candidate.header.is_ok() && self.is_spare(&segment, survey.segments.last())? {
                survey.spare = Some(Segment::new(segment.header, self.files.file(candidate.number)));
                continue;
            }
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

    /// Whether a segment without frames is one that was made to be written behind the last one.
    fn is_spare(&self, segment: &Segment, last: Option<&Arc<Segment>>) -> Result<bool, OpenError> {
        let Some(last) = last.map(|last| last.header) else { return Ok(false) };
        let header = SegmentHeader {
            version: MAJOR,
            number: last.number + 1,
            first: last.first + last.size,
            size: self.options.segment_size,
            lost: false,
            ..segment.header
        };
        let size = segment.file.size().map_err(|cause| segment.disk_error("read", &cause))?;
        Ok(segment.header == header && header.id == last.id && size == header.size)
    }

    /// Where a segment without a header would stand.
    fn guess(&self, survey: &Survey, number: u64) -> SegmentHeader {
        let last = survey.segments.last().map(|last| last.header);
        let size = last.map_or(self.options.segment_size, |last| last.size).min(MAX_SEGMENT);
        let far = |from: u64| number.saturating_sub(from).saturating_mul(size);
        // Its bytes must have positions, too.
        let first = last.map_or_else(|| far(1), |last| last.first.saturating_add(far(last.number))).min(MAX_POSITION);
        let (id, incarnation) = (survey.id, survey.incarnation);
        SegmentHeader { version: MAJOR, id, number, first, size, incarnation, lost: false }
    }

    fn search(&mut self, segment: &Segment, from: u64) -> Result<Tail, OpenError> {
        self.search_marks(segment, from, segment.header.id)
    }

    fn search_marks(&mut self, segment: &Segment, from: u64, id: JournalId) -> Result<Tail, OpenError> {
        // What the file has behind that is nobody's, however long it is.
        let size = segment.file.size().map_err(|cause| segment.disk_error("read", &cause))?.min(segment.header.size);
        let mut tail = Tail { until: 0, durable: 0, incarnation: segment.header.incarnation };
        let mut at = from;
        self.window.reset();
        while at < size {
            let bytes = self.window.bytes(&segment.file, at, COPY, size);
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

/// The index that is stored, if it is that of this segment, and the kind of its last frame.
fn tied(header: &SegmentHeader, file: &dyn File, stored: &dyn File) -> Option<(Index, FrameKind)> {
    let (size, of) = (stored.size().ok()?, file.size().ok()?);
    if size > Index::most(of) {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(size).ok()?];
    let read = stored.read_at(&mut bytes, 0).ok()?;
    let index = Index::decode(&bytes[..read], &header.id, header.number, header.checksum()).ok()?;
    let mut last = [0; 64];
    let (at, checksum) = index.last;
    let read = file.read_at(&mut last, at).ok()?;
    let (frame, found) = FrameHeader::decode(&header.id, header.first + at, &last[..read]).ok()?;
    let tied = found == checksum
        && at + frame.span() == index.end
        && of.min(header.size) >= index.end
        && frame.incarnation >= header.incarnation;
    tied.then_some((index, frame.kind))
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

fn read_checkpoint(storage: &dyn Storage, strict: bool) -> Result<Option<Checkpoint>, OpenError> {
    let mut bytes = [0; 64];
    let read = match storage.open(CHECKPOINT, false).and_then(|file| file.read_at(&mut bytes, 0)) {
        // One that is not needed, unless it is to be written.
        Err(cause) if !strict && NotOurs::of(&cause).is_some() => return Ok(None),
        read => read.map_err(|cause| disk("read", CHECKPOINT, &cause))?,
    };
    match Checkpoint::decode(&bytes[..read]) {
        Ok(checkpoint) => Ok(Some(checkpoint)),
        Err(Malformed::Version(found)) => Err(OpenError::Newer { file: CHECKPOINT.to_owned(), found }),
        // A damaged one says nothing: the marks in the frames are there beside it.
        Err(_) => Ok(None),
    }
}

/// Looks at a journal without changing it, whoever has it open. `whole` has every segment read, the believed ones too.
///
/// # Errors
/// As [`open`](crate::open), but for the lock.
pub fn inspect(storage: Arc<dyn Storage>, whole: bool) -> Result<Survey, OpenError> {
    match survey_to_damage(storage, whole, &mut |_| {})? {
        (survey, None) => Ok(survey),
        (_, Some(damage)) => Err(damage),
    }
}

/// Looks at a journal as [`inspect`] does, and where it is damaged gives what stands before the damage along with the error.
/// `progress` hears now and then how many bytes were read, all in all.
///
/// # Errors
/// As [`open`](crate::open), but for the lock and for damage.
pub fn survey_to_damage(
    storage: Arc<dyn Storage>,
    whole: bool,
    progress: &mut dyn FnMut(u64),
) -> Result<(Survey, Option<OpenError>), OpenError> {
    let options = Options::default();
    let mut before = None;
    loop {
        let mut told = |now: Progress| progress(now.read);
        let mut surveyor = Surveyor::new(Arc::clone(&storage), &options, false)?;
        surveyor.progress = Some(&mut told);
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
