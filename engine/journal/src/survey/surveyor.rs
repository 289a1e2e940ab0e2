//! The surveyor: it determines which segment files belong to the journal, where the chain of frames ends, and what
//! follows the end.

use crate::checkpoint::Checkpoint;
use crate::error::{DiskError, OpenError};
use crate::files::descriptors::Files;
use crate::files::names::{CHECKPOINT, UNFINISHED, is_ours, segment_number};
use crate::format::{JournalId, MAJOR, MAX_POSITION, MAX_SEGMENT, Malformed, SEGMENT_HEAD, SegmentHeader};
use crate::options::Options;
use crate::segment::Segment;
use crate::state::State;
use crate::storage::{File, Storage};
use crate::survey::candidate::Candidate;
use crate::survey::chain::{Chain, ChainStep};
use crate::survey::checker::Checker;
use crate::survey::{Progress, Survey, TornTail};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

/// The end of the chain: the fault there, true if that place is in the survey's last segment, and the index of the
/// candidate that it is in.
type Broken = (Malformed, bool, usize);

pub(crate) struct Surveyor<'s> {
    files: Arc<Files>,
    options: &'s Options,
    checker: Checker<'s>,
    /// Names of files that were never completed.
    unfinished: Vec<String>,
    /// Names of files that are not part of the journal, or that a recovery or a repair has put aside.
    others: Vec<String>,
    /// Numbers of all segment files, in ascending order.
    numbers: Vec<u64>,
    checkpoint: Option<Checkpoint>,
    /// True if the journal will be written: then a derived file that cannot be replaced is an error.
    strict: bool,
    /// After [`OpenError::Damaged`]: the survey of the part before the damage.
    pub broken: Option<Survey>,
}

impl<'s> Surveyor<'s> {
    /// Lists the directory and reads the checkpoint. If `reads_all` is true, [`survey`](Self::survey) reads every
    /// segment; otherwise it uses valid indexes instead of reading, except for the last segments.
    pub fn new(
        storage: &Arc<dyn Storage>,
        options: &'s Options,
        strict: bool,
        reads_all: bool,
        progress: Option<&'s mut dyn FnMut(Progress)>,
    ) -> Result<Self, OpenError> {
        let names = storage.list().map_err(|cause| DiskError::new("list", storage.name(), &cause))?;
        let unfinished = names.iter().filter(|name| name.ends_with(UNFINISHED) && is_ours(name)).cloned().collect();
        let is_other = |name: &String| !is_ours(name) || name.ends_with(".bin");
        let mut others: Vec<String> = names.iter().filter(|name| is_other(name)).cloned().collect();
        others.sort_unstable();
        let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
        numbers.sort_unstable();
        let has_checkpoint = names.iter().any(|name| name == CHECKPOINT);
        let checkpoint = if has_checkpoint { Checkpoint::read(&**storage, strict)? } else { None };
        let files = Files::new(Arc::clone(storage));
        let checker = Checker::new(options, reads_all, progress);
        Ok(Self { files, options, checker, unfinished, others, numbers, checkpoint, strict, broken: None })
    }

    /// Determines the journal's segments, the end of its frame chain, and the bytes after the end.
    ///
    /// # Errors
    /// There is damage below the durable mark ([`broken`](Self::broken) then holds the survey of the part before it), a
    /// newer program wrote a segment, or the disk fails.
    pub fn survey(&mut self) -> Result<Survey, OpenError> {
        let read = |number: &u64| Candidate::read(&self.files, *number, self.strict);
        let mut candidates = self.numbers.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let id = self.journal_id(&candidates);
        self.checkpoint = self.checkpoint.filter(|checkpoint| checkpoint.id == id);
        candidates.iter_mut().for_each(|candidate| candidate.require_journal(&id));
        // A crash may leave any of the segments that retention was deleting. So the journal begins after a hole in the
        // numbers if the state there says that no segment before the hole is needed.
        let holes = (1..candidates.len()).rev().filter(|at| candidates[at - 1].number + 1 != candidates[*at].number);
        for hole in holes.collect::<Vec<_>>() {
            if let Ok(mut survey) = self.walk(id, &candidates[hole..])
                && survey.state.floor() >= candidates[hole].number
            {
                survey.leftover.extend(candidates[..hole].iter().map(|candidate| candidate.number));
                return Ok(survey);
            }
        }
        self.walk(id, &candidates)
    }

    /// The id that most segment headers state; in a tie, the checkpoint's. A new random id if no file states one.
    fn journal_id(&self, candidates: &[Candidate]) -> JournalId {
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

    /// True if a checkpoint of this journal was read.
    pub fn has_checkpoint(&self) -> bool {
        self.checkpoint.is_some()
    }

    /// Follows the chain of frames through these segments, and surveys the bytes after its end.
    fn walk(&mut self, id: JournalId, candidates: &[Candidate]) -> Result<Survey, OpenError> {
        // The state comes from the snapshot of the first segment whose frames are read. Unless it is the first of
        // `candidates`, that segment must have an index, which proves that its snapshot is complete.
        let sealed = candidates.iter().take_while(|candidate| candidate.index.is_some()).count();
        let read_from = if self.checker.reads_all { 0 } else { sealed.min(candidates.len().saturating_sub(1)) };
        let read_from = read_from.saturating_sub(1);
        let sizes = candidates[read_from..].iter().map(|candidate| {
            let most = candidate.header.map_or(MAX_SEGMENT, |header| header.size);
            candidate.file.size().unwrap_or(0).min(most)
        });
        self.checker.total = self.checker.read + sizes.sum::<u64>();
        let mut chain = Chain::new(self.checkpoint.map_or(0, |checkpoint| checkpoint.durable));
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        let mut unsealed = Vec::new();
        let mut broken = None;
        for (index, candidate) in candidates.iter().enumerate() {
            match chain.follow(&mut self.checker, &self.files, candidate, segments.last(), index < read_from)? {
                ChainStep::Whole { segment, unindexed } => {
                    unsealed.extend(unindexed.then(|| Arc::clone(&segment)));
                    segments.push(segment);
                }
                ChainStep::Ends { segment, what } => {
                    broken = Some((what, segment.is_some(), index));
                    if let Some(segment) = segment {
                        unsealed.push(Arc::clone(&segment));
                        segments.push(segment);
                    }
                    break;
                }
            }
        }
        let incarnation = chain.incarnation.max(self.checkpoint.map_or(0, |checkpoint| checkpoint.incarnation));
        let mut survey = Survey {
            files: Arc::clone(&self.files),
            id,
            incarnation,
            created: segments.is_empty(),
            others: self.others.clone(),
            stale: chain.stale,
            stray: self.checker.stray.clone(),
            unsealed,
            beyond: Vec::new(),
            spare: None,
            leftover: Vec::new(),
            unfinished: self.unfinished.clone(),
            previous: chain.previous.unwrap_or(0),
            chain_incarnation: chain.incarnation,
            durable: chain.durable,
            end: segments.last().map_or(0, |last| last.position(last.end())),
            torn: None,
            scanned: chain.scanned,
            gaps: chain.gaps,
            state: chain.state,
            segments,
        };
        if let Some((what, in_last, index)) = broken {
            self.survey_tail(&mut survey, &candidates[index..], in_last, what)?;
        }
        let judged = damage_below_mark(&survey, candidates, broken).map_or(Ok(()), Err);
        if let Err(damaged) = judged.and_then(|()| drop_unneeded(&mut survey)) {
            self.broken = Some(survey);
            return Err(damaged);
        }
        if survey.segments.is_empty() {
            survey.state = State::default();
        }
        Ok(survey)
    }

    /// Surveys the files after the end of the chain: durable marks, nonzero bytes, and a segment created ahead.
    fn survey_tail(
        &mut self,
        survey: &mut Survey,
        rest: &[Candidate],
        in_last: bool,
        what: Malformed,
    ) -> Result<(), OpenError> {
        let mut bytes = 0;
        let mut copies = Vec::new();
        let mut is_in_last = in_last;
        for candidate in rest {
            let (segment, from) = if std::mem::take(&mut is_in_last) {
                let last = Arc::clone(&survey.segments[survey.segments.len() - 1]);
                let end = last.end();
                (last, end)
            } else {
                let header = candidate.header.unwrap_or_else(|_| self.guess_header(survey, candidate.number));
                (Arc::new(Segment::new(header, self.files.file(candidate.number))), SEGMENT_HEAD)
            };
            let tail = self.checker.search_tail(&segment, from, &survey.id)?;
            survey.durable = survey.durable.max(tail.durable);
            survey.incarnation = survey.incarnation.max(tail.incarnation);
            if tail.until == 0 && candidate.header.is_ok() && self.is_spare(&segment, survey.segments.last())? {
                survey.spare = Some(Segment::new(segment.header, self.files.file(candidate.number)));
                continue;
            }
            if tail.until > 0 {
                bytes += tail.until - from;
                // A higher incarnation found later does not change the names, which only have to be unused.
                copies.push(format!("torn-{:020}-{}.bin", segment.position(from), survey.incarnation));
            }
            survey.beyond.push((segment, tail.until));
        }
        if bytes > 0 {
            survey.torn = Some(TornTail { position: survey.end, bytes, what, copies });
        }
        Ok(())
    }

    /// True if a segment without frames is the one that was created ahead, to follow the segment `last`.
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

    /// The header that a segment file with a damaged header most likely had. It gives the positions of the file's
    /// bytes.
    fn guess_header(&self, survey: &Survey, number: u64) -> SegmentHeader {
        let last = survey.segments.last().map(|last| last.header);
        let size = last.map_or(self.options.segment_size, |last| last.size).min(MAX_SEGMENT);
        let span = |from: u64| number.saturating_sub(from).saturating_mul(size);
        let first = last.map_or_else(|| span(1), |last| last.first.saturating_add(span(last.number)));
        let (id, incarnation) = (survey.id, survey.incarnation);
        // With this limit the positions of the file's bytes do not overflow.
        SegmentHeader { version: MAJOR, id, number, first: first.min(MAX_POSITION), size, incarnation, lost: false }
    }
}

fn random_id() -> JournalId {
    let mut id = [0; 16];
    for half in id.chunks_exact_mut(8) {
        // Each `RandomState` takes its keys from the system's randomness.
        half.copy_from_slice(&std::hash::RandomState::new().build_hasher().finish().to_le_bytes());
    }
    id
}

/// The error if the chain breaks where no crash can break it: below the durable mark, in the first segment's header, or
/// at a file with another segment's name. `None` if it does not.
fn damage_below_mark(survey: &Survey, candidates: &[Candidate], broken: Option<Broken>) -> Option<OpenError> {
    let (durable, position) = (survey.durable, survey.end);
    let damaged = |segment, at, what| Some(OpenError::Damaged { segment, at, position, durable, what });
    // A segment file gets its name only when its header is durable, so no crash leaves a first segment without one.
    if let (true, Some(first)) = (survey.segments.is_empty(), candidates.first())
        && let Err(what) = first.header
    {
        return damaged(first.number, 0, what);
    }
    // No crash gives a segment another segment's name.
    if let Some((what @ Malformed::Misnamed(_), _, index)) = broken {
        return damaged(candidates[index].number, 0, what);
    }
    if survey.end >= survey.durable {
        return None;
    }
    let last = survey.segments.last();
    let at = last.map_or(0, |last| last.end());
    match (broken, last.map(|last| last.header)) {
        // Between two segments: a segment is missing, or the next one's header is damaged.
        (Some((Malformed::Missing, _, _)), Some(last)) => damaged(last.number + 1, 0, Malformed::Missing),
        (Some((what, false, index)), _) => {
            let is_header =
                candidates[index].header.is_err() || matches!(what, Malformed::Position(_) | Malformed::Opening);
            damaged(candidates[index].number, if is_header { 0 } else { SEGMENT_HEAD }, what)
        }
        (Some((what, true, _)), Some(last)) => damaged(last.number, at, what),
        (None, Some(last)) if survey.durable <= last.first + last.size => damaged(last.number, at, Malformed::Magic),
        (_, last) => damaged(last.map_or(survey.state.floor(), |last| last.number + 1), 0, Malformed::Missing),
    }
}

/// Drops the segments before the first needed one. An error if the first needed segment is missing.
fn drop_unneeded(survey: &mut Survey) -> Result<(), OpenError> {
    let (floor, durable) = (survey.state.floor(), survey.durable);
    let (Some(first), Some(last)) = (survey.segments.first(), survey.segments.last()) else { return Ok(()) };
    let (first, last) = (first.header, last.header);
    if floor > last.number {
        // A valid state always needs the segment that contains it. Accepting this one would drop all segments.
        let (segment, position, what) = (last.number, last.first, Malformed::Floor(floor));
        return Err(OpenError::Damaged { segment, at: SEGMENT_HEAD, position, durable, what });
    }
    if first.number > floor {
        let position = first.first;
        return Err(OpenError::Damaged { segment: floor, at: 0, position, durable, what: Malformed::Missing });
    }
    survey.leftover = survey.segments.iter().map(|s| s.header.number).filter(|number| *number < floor).collect();
    survey.segments.retain(|segment| segment.header.number >= floor);
    survey.unsealed.retain(|segment| segment.header.number >= floor);
    survey.gaps.retain(|gap| gap.segment >= floor);
    Ok(())
}
