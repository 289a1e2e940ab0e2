//! Streams of NATS JetStream.
//!
//! A [`Cluster`] is one connection to a cluster of servers; a [`Stream`] of it takes one partition. The client is
//! `async-nats` on a thread of its own.
//!
//! # What a stream must be
//! It must have as many replicas as asked, discard no message for its age, its number or its size, let messages be deleted
//! by number, and have two subjects, to which nobody else writes: one for records, and one with `.mark` behind it for the
//! bridge's own messages. It is created so if it does not exist. A reader that takes the first subject gets records alone.
//!
//! # When a receipt is replicated
//! JetStream confirms a message once a majority of the stream's replicas has it. A server syncs its files every two
//! minutes unless it is told `sync_interval: always`; without that a power cut of a majority of the servers at one time can
//! lose what was confirmed.

mod cluster;
mod following;
mod lease;

pub use cluster::{Cluster, ClusterBuilder, ConnectError};
pub use lease::Lease;

use crate::envelope::{Envelope, Head};
use crate::record::Record;
use crate::remote::{Followed, Limits, Remote, RemoteError, Stored};
use async_nats::HeaderMap;
use async_nats::header::{HeaderName, NATS_EXPECTED_LAST_SEQUENCE, NATS_EXPECTED_STREAM};
use async_nats::jetstream::Context;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{PublishError, PublishErrorKind};
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, LastRawMessageErrorKind, RetentionPolicy, StorageType,
};
use bytes::Bytes;
use following::Following;
use std::collections::VecDeque;
use std::future::{Future, IntoFuture};
use std::ops::Range;
use std::pin::Pin;
use std::task::{self, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How long the answer to a request may take.
const ANSWER: Duration = Duration::from_secs(2);
/// How long the confirmation of a message may take, from its sending on, before everything in flight is in doubt.
const CONFIRMATION: Duration = Duration::from_secs(1);
/// How often in turn a stream must be reported missing before that is believed: servers say so during elections, too.
const MISSING: u32 = 10;
/// How many messages of a stream are asked for at a time.
const AT_ONCE: usize = 64;

type Confirmation = Pin<Box<dyn Future<Output = Result<PublishAck, PublishError>> + Send>>;

/// A stream of JetStream, which takes one partition.
pub struct Stream {
    cluster: Cluster,
    name: String,
    subject: String,
    replicas: usize,
    /// The messages in flight, oldest first, with the times of their sending and their numbers.
    flight: VecDeque<(Instant, u64, Confirmation)>,
    /// The failure of the oldest message in flight, which the next call returns.
    failed: Option<RemoteError>,
    /// True once the stream was there.
    seen: bool,
    /// How often in turn the stream was reported missing.
    missing: u32,
    /// The consumer that reads in order; `None` while nobody does.
    following: Option<Following>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({:?}, {} in flight)", self.name, self.flight.len())
    }
}

fn transient(cause: impl ToString) -> RemoteError {
    RemoteError::Transient(cause.to_string())
}

fn publish_error(cause: &PublishError) -> RemoteError {
    let text =
        std::error::Error::source(cause).map_or_else(|| cause.to_string(), |source| format!("{cause}: {source}"));
    match cause.kind() {
        PublishErrorKind::WrongLastSequence => RemoteError::Sequence(text),
        PublishErrorKind::MaxPayloadExceeded => RemoteError::Refused(text),
        _ => RemoteError::Transient(text),
    }
}

impl Stream {
    /// Deletes the stream with all its messages. Returns false if it does not exist. A bridge that still writes it stops.
    ///
    /// # Errors
    /// The servers do not answer, or refuse it.
    pub fn delete_stream(&mut self) -> Result<bool, RemoteError> {
        let (context, name) = (&self.cluster.context, &self.name);
        let deleted = self.cluster.wait(2, async {
            if Self::info(context, name).await?.is_none() {
                return Ok(false);
            }
            context.delete_stream(name).await.map(|_| true).map_err(transient)
        });
        deleted.map_err(|error| self.explain(error))
    }

    /// Whether the stream exists, as far as the servers know. During an election they may say that it does not.
    ///
    /// # Errors
    /// The servers do not answer, or refuse it.
    pub fn exists(&self) -> Result<bool, RemoteError> {
        let found = self.cluster.wait(1, Self::info(&self.cluster.context, &self.name));
        found.map(|info| info.is_some()).map_err(|error| self.explain(error))
    }

    fn mark_subject(&self) -> String {
        format!("{}.mark", self.subject)
    }

    fn subjects(&self) -> Vec<String> {
        vec![self.subject.clone(), self.mark_subject()]
    }

    /// Adds what the servers have said against the connection.
    fn explain(&self, error: RemoteError) -> RemoteError {
        match (error, self.cluster.refusal()) {
            (RemoteError::Transient(cause), Some(refusal)) => RemoteError::Transient(format!("{cause} ({refusal})")),
            (error, _) => error,
        }
    }

    async fn info(context: &Context, name: &str) -> Result<Option<Info>, RemoteError> {
        let nothing = serde_json::json!({});
        match context.request(format!("STREAM.INFO.{name}"), &nothing).await.map_err(transient)? {
            Response::Ok(info) => Ok(Some(info)),
            Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            Response::Err { error } => Err(transient(error)),
        }
    }

    /// Why the stream's settings do not fit; `None` if they do.
    fn unfit(&self, config: &Config) -> Option<String> {
        let may_lose = match config {
            it if it.retention != RetentionPolicy::Limits => Some("its retention is not by limits"),
            it if it.max_age != Duration::ZERO => Some("it deletes messages by age"),
            it if it.max_messages_per_subject > 0 => Some("it has a limit of messages for each subject"),
            it if it.discard != DiscardPolicy::New && (it.max_messages > 0 || it.max_bytes > 0) => {
                Some("it discards its oldest messages when it is full: set `discard` to `new`")
            }
            it if it.storage != StorageType::File => Some("it is kept in memory"),
            it if it.deny_delete => {
                return Some("the stream denies deletion, by which a takeover removes what comes late".to_owned());
            }
            _ => None,
        };
        if let Some(reason) = may_lose {
            return Some(format!("the stream can lose messages, {reason}"));
        }
        if config.num_replicas < self.replicas {
            let (has, wants) = (config.num_replicas, self.replicas);
            return Some(format!(
                "the stream has {has} replicas, {wants} are asked for: change the stream or the setting"
            ));
        }
        let (mut has, mut wants) = (config.subjects.clone(), self.subjects());
        has.sort();
        wants.sort();
        (has != wants).then(|| format!("the stream has the subjects {has:?} and must have {wants:?}"))
    }
}

impl Remote for Stream {
    fn name(&self) -> String {
        format!("stream {} at {}", self.name, self.cluster)
    }

    fn limits(&mut self) -> Result<Limits, RemoteError> {
        let (context, name) = (&self.cluster.context, &self.name);
        let config = Config {
            name: name.clone(),
            subjects: self.subjects(),
            num_replicas: self.replicas,
            retention: RetentionPolicy::Limits,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            ..Config::default()
        };
        let found = self.cluster.wait(3, async {
            if let Some(info) = Self::info(context, name).await? {
                return Ok(info);
            }
            context.create_stream(config).await.map_err(transient)?;
            Self::info(context, name).await?.ok_or_else(|| transient("the stream was created and is not there yet"))
        });
        let config = found.map_err(|error| self.explain(error))?.config;
        self.seen = true;
        if let Some(reason) = self.unfit(&config) {
            return Err(RemoteError::Refused(reason));
        }
        let server = self.cluster.client.server_info().max_payload;
        let stream = usize::try_from(config.max_message_size).ok().filter(|size| *size > 0).unwrap_or(usize::MAX);
        match server.min(stream) {
            // The connection has gone meanwhile.
            0 => Err(transient("the server has not told its largest message")),
            message => Ok(Limits::new(message)),
        }
    }

    fn send(&mut self, message: &Envelope, sequence: u64) -> Result<(), RemoteError> {
        let mut headers = HeaderMap::new();
        for (name, value) in message.headers() {
            headers.insert(HeaderName::from_static(name), value);
        }
        headers.insert(NATS_EXPECTED_STREAM, self.name.as_str());
        headers.insert(NATS_EXPECTED_LAST_SEQUENCE, (sequence - 1).to_string());
        let subject = if message.records.is_empty() { self.mark_subject() } else { self.subject.clone() };
        let payload = Bytes::from(message.payload().into_owned());
        let (context, runtime) = (&self.cluster.context, &self.cluster.runtime);
        // The client has a buffer for a lost connection, which may be full.
        let sent = within(runtime, ANSWER, std::pin::pin!(context.publish_with_headers(subject, headers, payload)));
        let sent = sent.ok_or_else(|| self.explain(transient("the connection takes no more messages")))?;
        let confirmation = sent.map_err(|cause| publish_error(&cause))?.into_future();
        self.flight.push_back((Instant::now(), sequence, confirmation));
        Ok(())
    }

    fn confirm(&mut self, limit: Duration) -> Result<usize, RemoteError> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let (flight, runtime) = (&mut self.flight, &self.cluster.runtime);
        let (mut count, mut failed) = (0, None);
        while let Some((sent, sequence, confirmation)) = flight.front_mut() {
            let wait = if count > 0 { Duration::ZERO } else { limit };
            let left = (*sent + CONFIRMATION).saturating_duration_since(Instant::now());
            failed = match within(runtime, wait.min(left), confirmation.as_mut()) {
                Some(Ok(ack)) if ack.sequence == *sequence => {
                    flight.pop_front();
                    count += 1;
                    continue;
                }
                Some(Ok(ack)) => Some(transient(format!("message {sequence} was stored as {}", ack.sequence))),
                Some(Err(cause)) => Some(publish_error(&cause)),
                None if !left.is_zero() => None,
                None => Some(transient("a message was not confirmed in time")),
            };
            break;
        }
        match failed {
            Some(failed) if count == 0 => Err(failed),
            failed => {
                self.failed = failed;
                Ok(count)
            }
        }
    }

    fn forget(&mut self) {
        self.flight.clear();
        self.failed = None;
    }

    fn numbers(&mut self) -> Result<Range<u64>, RemoteError> {
        let (context, name) = (&self.cluster.context, &self.name);
        let found = self.cluster.wait(1, Self::info(context, name));
        match found.map_err(|error| self.explain(error))? {
            Some(info) => {
                (self.missing, self.seen) = (0, true);
                let next = info.state.last_sequence + 1;
                Ok(if info.state.messages == 0 { next } else { info.state.first_sequence }..next)
            }
            None if !self.seen => Err(transient("the stream is not there yet: a bridge outward creates it")),
            None if self.missing < MISSING => {
                self.missing += 1;
                Err(transient("the stream is not there"))
            }
            None => {
                Err(RemoteError::Refused("the stream was deleted: create it again, or forget the bridge".to_owned()))
            }
        }
    }

    fn read(&mut self, sequences: Range<u64>) -> Result<Vec<Option<Stored>>, RemoteError> {
        let (context, name) = (&self.cluster.context, &self.name);
        self.cluster.runtime.block_on(async {
            let stream = context.get_stream_no_info(name).await.map_err(transient)?;
            let (mut found, mut next, mut at_once) = (Vec::new(), sequences.start, AT_ONCE);
            let mut asked = VecDeque::new();
            while found.len() < sequences.end.saturating_sub(sequences.start) as usize {
                while asked.len() < at_once && next < sequences.end {
                    let (stream, sequence) = (stream.clone(), next);
                    let answer = async move { stream.get_raw_message(sequence).await };
                    // The client's own limit begins once the question is in its queue.
                    asked.push_back(tokio::spawn(async { tokio::time::timeout(2 * ANSWER, answer).await }));
                    next += 1;
                }
                let Some(answer) = asked.pop_front() else { break };
                found.push(match answer.await.map_err(transient)? {
                    Ok(Ok(message)) => Some(stored(Some(&message.headers), &message.payload)),
                    Ok(Err(cause)) if cause.kind() == LastRawMessageErrorKind::NoMessageFound => None,
                    // Servers that are slow answer fewer questions in time: the rest is asked again, by fewer at a time.
                    Ok(Err(_)) if at_once > 1 => {
                        asked.clear();
                        (next, at_once) = (sequences.start + found.len() as u64, at_once / 4);
                        continue;
                    }
                    Ok(Err(cause)) => return Err(transient(cause)),
                    Err(_) => return Err(transient("no connection takes a request")),
                });
            }
            Ok(found)
        })
    }

    fn follow(&mut self, from: u64, limit: Duration) -> Result<Followed, RemoteError> {
        let followed = self.follow_on(from, limit);
        if followed.is_err() {
            // A new consumer begins where this one has failed.
            self.following = None;
        }
        followed
    }

    fn delete(&mut self, sequence: u64) -> Result<(), RemoteError> {
        let (context, name) = (&self.cluster.context, &self.name);
        self.cluster.wait(1, async {
            let stream = context.get_stream_no_info(name).await.map_err(transient)?;
            stream.delete_message(sequence).await.map(drop).map_err(transient)
        })
    }
}

/// What a future gives within this time; `None` if it gives nothing. The runtime is blocked on only if there is something to wait for:
/// that costs as much as to send a message.
fn within<F: Future + ?Sized>(runtime: &Runtime, limit: Duration, mut future: Pin<&mut F>) -> Option<F::Output> {
    let at_once = {
        let _entered = runtime.enter();
        future.as_mut().poll(&mut task::Context::from_waker(task::Waker::noop()))
    };
    match at_once {
        Poll::Ready(output) => Some(output),
        Poll::Pending if limit.is_zero() => None,
        Poll::Pending => runtime.block_on(async { tokio::time::timeout(limit, future).await }).ok(),
    }
}

/// What a bridge reads of a message.
fn stored(headers: Option<&HeaderMap>, payload: &[u8]) -> Stored {
    let header = |name: &'static str| headers?.get(HeaderName::from_static(name)).map(|value| value.as_str());
    let head = Head::parse(header);
    let records = head.map_or_else(Vec::new, |head| Record::parse_with(&head, header, payload));
    Stored { head, records }
}
