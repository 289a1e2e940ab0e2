//! Comparing a journal with a stream, record by record.
//!
//! [`outward`] compares the topic that a bridge copies with its stream: offsets and all parts of each record. [`inward`] compares a
//! topic that an import fills with the stream from which it comes: all parts, in order, without the records that others have
//! published. Both only read, also while bridges
//! run, and hold one batch of messages in memory.

use crate::envelope::{Head, Kind};
use crate::origin::ImportedInto;
use crate::record::Record;
use crate::remote::{Remote, RemoteError};
use slipring::Message;
use slipring::journal::{Journal, JournalId, PartitionId, Reader, ReplayError, Start, Visible};
use std::collections::HashSet;
use std::fmt;
use std::time::{Duration, Instant};

/// How many differences are named; the others are counted.
const NAMED: usize = 20;
/// How many messages are read at a time.
const BATCH: u64 = 256;
/// After which time messages are read again that are not there.
const AGAIN: Duration = Duration::from_millis(300);
/// How long an error of the servers is tried again.
const PATIENCE: Duration = Duration::from_secs(15);

/// Why two sides were not compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The stream cannot be read.
    #[error("{stream}: {cause}")]
    Remote {
        /// The stream's name.
        stream: String,
        /// Why not.
        cause: RemoteError,
    },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ReplayError),
    /// The journal does not have the partition.
    #[error("the journal has no partition {partition} of this topic")]
    NoPartition {
        /// The partition's number.
        partition: u32,
    },
    /// A record of the journal is no message.
    #[error("the record at offset {offset} of partition {partition} is no message")]
    NoMessage {
        /// The partition's number.
        partition: u32,
        /// The record's offset.
        offset: u64,
    },
    /// Retention has deleted the first records of an import, so nobody knows which record of the stream is the first here.
    #[error(
        "partition {partition}: retention has deleted records below offset {start}: an import is compared only whole"
    )]
    Incomplete {
        /// The partition's number.
        partition: u32,
        /// The first offset that is left.
        start: u64,
    },
}

/// A difference between a journal and a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The journal has a record that the stream lacks, and the stream has later ones.
    Missing {
        /// The record's offset in the journal.
        offset: u64,
    },
    /// The stream has a record that the journal lacks.
    Unknown {
        /// The number of the message in the stream.
        sequence: u64,
        /// The record's offset, as the stream names it.
        offset: u64,
    },
    /// The record is another one, or its bytes do not match its checksum.
    Differs {
        /// The number of the message in the stream.
        sequence: u64,
        /// The record's offset, as the stream names it.
        offset: u64,
    },
    /// The message does not follow the one before it.
    Broken {
        /// The number of the message in the stream.
        sequence: u64,
    },
    /// No bridge has written the message.
    Foreign {
        /// The number of the message in the stream.
        sequence: u64,
    },
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { offset } => write!(f, "the stream lacks offset {offset}"),
            Self::Unknown { sequence, offset } => {
                write!(f, "message {sequence} has offset {offset}, which the journal does not have")
            }
            Self::Differs { sequence, offset } => write!(f, "message {sequence}, offset {offset}, is another record"),
            Self::Broken { sequence } => write!(f, "message {sequence} does not follow the one before it"),
            Self::Foreign { sequence } => write!(f, "message {sequence} was not written by a bridge"),
        }
    }
}

/// What a comparison has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// How many records are the same on both sides.
    pub equal: u64,
    /// How many records one side does not have yet, behind all that it has.
    pub behind: u64,
    /// How many records of the stream retention has deleted in the journal.
    pub deleted: u64,
    /// How many records the stream names as skipped.
    pub skipped: u64,
    /// How many records of the journal are none of the stream's: for a topic that is copied, those that an import has brought; for
    /// a topic that is imported, those that others have published.
    pub others: u64,
    /// How many differences there are.
    pub wrong: u64,
    /// The first of them.
    pub differences: Vec<Difference>,
}

impl Verified {
    /// True if there is no difference.
    pub fn is_sound(&self) -> bool {
        self.wrong == 0
    }

    fn differ(&mut self, difference: Difference) {
        self.wrong += 1;
        if self.differences.len() < NAMED {
            self.differences.push(difference);
        }
    }
}

/// The records of a partition of the journal, in order, with one that was looked at and not taken.
struct Here {
    reader: Reader,
    next: Option<Record>,
}

impl Here {
    fn open(journal: &Journal, of: PartitionId) -> Result<Self, VerifyError> {
        let reader = journal.reader(of, Start::Earliest, Visible::Written)?.pass_gaps();
        let mut here = Self { reader, next: None };
        here.advance()?;
        Ok(here)
    }

    /// Takes the next record.
    fn advance(&mut self) -> Result<Option<Record>, VerifyError> {
        let partition = self.reader.partition().partition;
        let next = match self.reader.next()? {
            Some(record) => {
                let offset = record.offset;
                let message = Message::decode(record.bytes).ok_or(VerifyError::NoMessage { partition, offset })?;
                Some(Record::of(&message, partition, offset))
            }
            None => None,
        };
        Ok(std::mem::replace(&mut self.next, next))
    }
}

/// Calls `each` with each message of the stream that counts, in order.
fn walk(
    remote: &mut impl Remote,
    found: &mut Verified,
    mut each: impl FnMut(u64, Head, Vec<Record>, &mut Verified) -> Result<(), VerifyError>,
) -> Result<(), VerifyError> {
    let numbers = patiently(remote, |remote| remote.numbers())?;
    let (mut next, mut newest): (u64, Option<Head>) = (numbers.start, None);
    while next < numbers.end {
        let end = numbers.end.min(next + BATCH);
        let mut batch = patiently(remote, |remote| remote.read(next..end))?;
        if batch.contains(&None) {
            // A new leader may not have applied them yet.
            std::thread::sleep(AGAIN);
            let again = patiently(remote, |remote| remote.read(next..end))?;
            batch.iter_mut().zip(again).for_each(|(stored, again)| *stored = stored.take().or(again));
        }
        for (stored, sequence) in batch.into_iter().zip(next..) {
            // A message that is not there came late behind a mark, and was deleted; the chain says if it was another.
            let Some(stored) = stored else { continue };
            let Some(head) = stored.head else {
                found.differ(Difference::Foreign { sequence });
                continue;
            };
            if newest.is_some_and(|newest| head.writer.epoch < newest.writer.epoch) {
                // Late, and not deleted yet.
                continue;
            }
            if newest.is_some_and(|newest| newest.tip != head.behind) {
                found.differ(Difference::Broken { sequence });
            }
            newest = Some(head);
            each(sequence, head, stored.records, found)?;
        }
        next = end;
    }
    Ok(())
}

/// Tries again what may go well later.
fn patiently<R: Remote, T>(
    remote: &mut R,
    mut what: impl FnMut(&mut R) -> Result<T, RemoteError>,
) -> Result<T, VerifyError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match what(remote) {
            Ok(it) => return Ok(it),
            Err(RemoteError::Transient(_)) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(100));
            }
            Err(cause) => return Err(VerifyError::Remote { stream: remote.name(), cause }),
        }
    }
}

/// Compares a partition of a journal with the stream to which a bridge copies it.
///
/// # Errors
/// One side cannot be read.
pub fn outward(journal: &Journal, of: PartitionId, remote: &mut impl Remote) -> Result<Verified, VerifyError> {
    let mut found = Verified::default();
    let start = journal.extent(of).ok_or(VerifyError::NoPartition { partition: of.partition })?.start;
    let into = ImportedInto::of(journal.id(), of);
    let mut here = Here::open(journal, of)?;
    walk(remote, &mut found, |sequence, head, records, found| {
        match head.kind {
            Kind::Record | Kind::Pack => {}
            Kind::Skip => {
                while here.next.as_ref().is_some_and(|next| next.offset < head.tip.next) {
                    here.advance()?;
                    found.skipped += 1;
                }
                return Ok(());
            }
            _ => return Ok(()),
        }
        if records.is_empty() {
            found.differ(Difference::Differs { sequence, offset: head.tip.next.saturating_sub(1) });
        }
        for record in records {
            let offset = record.offset;
            if offset < start {
                found.deleted += 1;
                continue;
            }
            while here.next.as_ref().is_some_and(|next| next.offset < offset) {
                match here.advance()? {
                    Some(missing) if missing.origin(into).is_none() => {
                        found.differ(Difference::Missing { offset: missing.offset });
                    }
                    _ => found.others += 1,
                }
            }
            if here.next.as_ref().is_none_or(|next| next.offset > offset) {
                found.differ(Difference::Unknown { sequence, offset });
            } else if here.advance()? == Some(record) {
                found.equal += 1;
            } else {
                found.differ(Difference::Differs { sequence, offset });
            }
        }
        Ok(())
    })?;
    while let Some(record) = here.advance()? {
        match record.origin(into) {
            None => found.behind += 1,
            Some(_) => found.others += 1,
        }
    }
    Ok(found)
}

/// How many records of a stream an import has brought into a partition of `journal`: the count of the last one that came from the
/// journal `writer`, whose bridge writes the stream. `None` if the partition has none of them.
///
/// # Errors
/// The journal cannot be read.
pub fn imported(journal: &Journal, of: PartitionId, writer: JournalId) -> Result<Option<u64>, VerifyError> {
    let extent = journal.extent(of).ok_or(VerifyError::NoPartition { partition: of.partition })?;
    let into = ImportedInto::of(journal.id(), of);
    let (mut found, mut end, mut back) = (None, extent.end, BATCH);
    while found.is_none() && end > extent.start {
        let from = end.saturating_sub(back).max(extent.start);
        let reader = journal.reader(of, Start::Offset(from), Visible::Written)?.pass_gaps();
        let mut here = Here { reader, next: None };
        here.advance()?;
        while let Some(record) = here.advance()?.filter(|record| record.offset < end) {
            let origin = record.origin(into).filter(|origin| origin.journal == writer);
            found = origin.map(|origin| origin.count).or(found);
        }
        (end, back) = (from, back * 4);
    }
    Ok(found)
}

/// Compares a partition that an import fills with the stream from which it comes.
///
/// # Errors
/// One side cannot be read, or retention has deleted records of the import.
pub fn inward(journal: &Journal, of: PartitionId, remote: &mut impl Remote) -> Result<Verified, VerifyError> {
    let mut found = Verified::default();
    let start = journal.extent(of).ok_or(VerifyError::NoPartition { partition: of.partition })?.start;
    if start > 0 {
        return Err(VerifyError::Incomplete { partition: of.partition, start });
    }
    let into = ImportedInto::of(journal.id(), of);
    let (mut here, mut writers) = (Here::open(journal, of)?, HashSet::new());
    walk(remote, &mut found, |sequence, head, records, found| {
        let writer = head.writer.journal;
        writers.insert(writer);
        if records.is_empty() && matches!(head.kind, Kind::Record | Kind::Pack) {
            found.differ(Difference::Differs { sequence, offset: head.tip.next.saturating_sub(1) });
        }
        for (mut record, count) in records.into_iter().zip(head.behind.count + 1..) {
            let offset = record.offset;
            // Others publish into the topic too, and other streams may be imported into it.
            let of_stream = |next: &Record| next.origin(into).filter(|origin| origin.journal == writer);
            while let Some(next) = &here.next
                && of_stream(next).is_none_or(|origin| origin.count < count)
            {
                match of_stream(next) {
                    Some(_) => found.differ(Difference::Missing { offset: next.offset }),
                    None => found.others += 1,
                }
                here.advance()?;
            }
            match here.next.as_ref().and_then(of_stream) {
                None => found.behind += 1,
                Some(origin) if origin.count > count => found.differ(Difference::Unknown { sequence, offset }),
                Some(_) => {
                    let copy = here.advance()?.map(|mut copy| {
                        copy.headers.pop();
                        Record { offset, ..copy }
                    });
                    record.headers.retain(|(name, _)| name != Record::ORIGIN);
                    if copy == Some(record) {
                        found.equal += 1;
                    } else {
                        found.differ(Difference::Differs { sequence, offset });
                    }
                }
            }
        }
        Ok(())
    })?;
    while let Some(record) = here.advance()? {
        match record.origin(into) {
            Some(origin) if writers.contains(&origin.journal) => {
                found.differ(Difference::Missing { offset: record.offset });
            }
            _ => found.others += 1,
        }
    }
    Ok(found)
}
