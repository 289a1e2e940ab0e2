//! Why a bridge stops for good.

use crate::remote::RemoteError;

/// Why a bridge has stopped for good, until somebody has decided what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Stopped {
    /// Another bridge writes the stream in a higher epoch.
    #[error(
        "{stream}: fenced by {by}: another bridge has taken the stream over; let this one end, or let it take over in turn"
    )]
    Fenced {
        /// The stream's name.
        stream: String,
        /// The other bridge, as the stream names it.
        by: String,
    },
    /// The stream belongs to another journal.
    #[error("{stream}: written by {by}, which is not this journal: choose another stream, or take this one over")]
    Owned {
        /// The stream's name.
        stream: String,
        /// The other journal, epoch and nonce.
        by: String,
    },
    /// A message of the stream was not written by a bridge.
    #[error("{stream}: message {sequence} was not written by a bridge: choose a stream to which nobody else writes")]
    Foreign {
        /// The stream's name.
        stream: String,
        /// The sequence number of the message in the stream.
        sequence: u64,
    },
    /// A message of the stream does not follow the one before it: messages were deleted or written by hand.
    #[error(
        "{stream}: message {sequence} does not follow the one before it: messages were deleted or written by hand, take an empty stream"
    )]
    Broken {
        /// The stream's name.
        stream: String,
        /// The sequence number of the message in the stream.
        sequence: u64,
    },
    /// The stream has other records than this journal.
    #[error(
        "{stream}: the stream's record before offset {next} is not the one that this journal has: compare both \
         sides; a machine that lost a takeover begins with an empty directory"
    )]
    Diverged {
        /// The stream's name.
        stream: String,
        /// The offset after the stream's last record.
        next: u64,
    },
    /// The stream has lost records that it had confirmed: it was emptied, deleted or created anew.
    #[error(
        "{stream}: records up to offset {confirmed} were confirmed, and the stream ends at {next}: it has lost them"
    )]
    Lost {
        /// The stream's name.
        stream: String,
        /// The offset after the last confirmed record.
        confirmed: u64,
        /// The offset after the stream's last record; 0 if it has none.
        next: u64,
    },
    /// A record is larger than the stream takes.
    #[error(
        "{stream}: the record at offset {offset} takes {size} bytes, the stream takes {limit}: raise the limit, or let such records be skipped"
    )]
    TooLarge {
        /// The stream's name.
        stream: String,
        /// The record's offset.
        offset: u64,
        /// The size of the message, headers included, in bytes.
        size: usize,
        /// The largest size that the stream takes, in bytes.
        limit: usize,
    },
    /// The stream's settings do not fit, or the server refuses this client.
    #[error("{stream}: {cause}")]
    Refused {
        /// The stream's name.
        stream: String,
        /// Why, as text.
        cause: String,
    },
    /// Retention has deleted records that were not copied yet.
    #[error(
        "{stream}: records {from}..{earliest} were deleted here before they were copied: raise `hold`, or let them be skipped"
    )]
    Deleted {
        /// The stream's name.
        stream: String,
        /// The first offset that was not copied.
        from: u64,
        /// The earliest offset that the journal still has.
        earliest: u64,
    },
    /// A reader finds that records which it has not read were removed from the stream.
    #[error(
        "{stream}: its first record now is number {earliest} since it began, and earlier ones were not read here: begin with an empty topic, under another name"
    )]
    Missing {
        /// The stream's name.
        stream: String,
        /// The count of the first record that the stream still has, from 1.
        earliest: u64,
    },
    /// An import finds that its own topic is copied to the stream.
    #[error(
        "{stream}: this journal's own bridge writes it, and the topic that imports it is copied outward: import the streams of other machines"
    )]
    Own {
        /// The stream's name.
        stream: String,
    },
    /// The topic, its journal or the attachment has ended.
    #[error("{0}")]
    Ended(String),
}

/// Why a step was given up: the bridge stops, or the remote has failed and is tried again.
pub(crate) enum Halt {
    Stopped(Stopped),
    Remote(RemoteError),
}

impl Halt {
    /// An answer that contradicts what is known: that of a server with old data, unless it is believed, as it was given again and again.
    pub(crate) fn contradiction(stopped: Stopped, is_believed: bool) -> Self {
        match is_believed {
            true => stopped.into(),
            false => RemoteError::Transient(format!("a server has answered with old data, or: {stopped}")).into(),
        }
    }
}

impl From<Stopped> for Halt {
    fn from(stopped: Stopped) -> Self {
        Self::Stopped(stopped)
    }
}

impl From<RemoteError> for Halt {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}
