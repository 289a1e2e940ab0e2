//! A lease in a key-value bucket of the cluster: at most one of several machines holds it.
//!
//! The holder renews it by writing over its own last entry (compare and set). Somebody else may take it once the entry has
//! not changed for as long as the lease lasts, by the taker's own clock. The holder gives itself up after two thirds of that time
//! without a renewal, counted from before the last one was sent. So nobody's wall clock matters, and clocks may run at rates
//! that differ by a third.
//!
//! A lease only chooses who works. What keeps an older bridge out is the stream's epoch, see `outward.rs`: a process that was
//! stopped and wakes believes for a moment that it holds the lease.

use super::{Cluster, transient};
use crate::remote::RemoteError;
use async_nats::jetstream::kv::{CreateErrorKind, Operation, Store, UpdateErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, StorageType};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// How many requests taking a lease needs at most: finding the bucket, creating it and finding it, reading the entry
/// and writing it.
const REQUESTS: u32 = 5;

/// A lease that this machine wants, holds or has lost.
pub struct Lease {
    cluster: Cluster,
    bucket: String,
    key: String,
    holder: String,
    lasts: Duration,
    replicas: usize,
    store: Option<Store>,
    /// The revision of this machine's entry, and when its writing began; `None` if it does not hold the lease.
    held: Option<(u64, Instant)>,
    /// The revision of another machine's entry, and when it was seen first.
    seen: Option<(u64, Instant)>,
    /// Who holds the lease, as far as it is known.
    present: Option<String>,
}

impl Cluster {
    /// A lease with this key in a bucket, which has that many replicas and is created if it does not exist. `holder` names this
    /// machine. The lease lasts for `lasts` without a renewal.
    pub fn lease(
        &self,
        (bucket, key): (impl Into<String>, impl Into<String>),
        holder: impl Into<String>,
        lasts: Duration,
        replicas: usize,
    ) -> Lease {
        Lease {
            cluster: self.clone(),
            bucket: bucket.into(),
            key: key.into(),
            // Two processes of one name are told apart.
            holder: format!("{}#{:08x}", holder.into(), fastrand::u32(..)),
            lasts,
            replicas,
            store: None,
            held: None,
            seen: None,
            present: None,
        }
    }
}

impl Lease {
    /// Until when this machine holds the lease, if it is not renewed; `None` if it does not hold it.
    pub fn held_until(&self) -> Option<Instant> {
        self.held.map(|(_, renewed)| renewed + self.lasts * 2 / 3)
    }

    /// True while this machine holds the lease.
    pub fn is_held(&self) -> bool {
        self.held_until().is_some_and(|until| Instant::now() < until)
    }

    /// Who holds the lease, as far as it is known.
    pub fn holder(&self) -> Option<&str> {
        self.present.as_deref()
    }

    /// Takes the lease if it is free, or renews it if it is time. Call it a few times in each third of the time that the lease
    /// lasts. Returns whether this machine holds it.
    ///
    /// # Errors
    /// The servers do not answer. A lease that was held is held until its time has passed.
    pub fn keep(&mut self) -> Result<bool, RemoteError> {
        let cluster = self.cluster.clone();
        if self.held.is_some() && !self.is_held() {
            self.held = None;
        }
        match self.held {
            Some((_, renewed)) if renewed.elapsed() < self.lasts / 3 => Ok(true),
            Some((revision, _)) => cluster.wait(REQUESTS, self.write(Some(revision))),
            None => cluster.wait(REQUESTS, self.take()),
        }
    }

    /// Lets somebody else take the lease at once.
    ///
    /// # Errors
    /// The servers do not answer. Then the lease ends by itself.
    pub fn give_up(&mut self) -> Result<(), RemoteError> {
        let cluster = self.cluster.clone();
        let Some((revision, _)) = self.held.take() else { return Ok(()) };
        cluster.wait(REQUESTS, async {
            let (key, store) = (self.key.clone(), self.store().await?);
            store.update(key, Bytes::new(), revision).await.map(drop).map_err(transient)
        })
    }

    async fn store(&mut self) -> Result<&Store, RemoteError> {
        if self.store.is_none() {
            let context = &self.cluster.context;
            let store = match context.get_key_value(&self.bucket).await {
                Ok(store) => store,
                Err(_) => {
                    context.create_stream(self.bucket_stream()).await.map_err(transient)?;
                    context.get_key_value(&self.bucket).await.map_err(transient)?
                }
            };
            self.store = Some(store);
        }
        self.store.as_ref().ok_or_else(|| transient("there is no bucket"))
    }

    /// The stream that is the bucket. The client's own call for it first asks for the account, and does not read the answer of a
    /// server of version 2.9.
    fn bucket_stream(&self) -> Config {
        Config {
            name: format!("KV_{}", self.bucket),
            subjects: vec![format!("$KV.{}.>", self.bucket)],
            max_messages_per_subject: 1,
            num_replicas: self.replicas,
            discard: DiscardPolicy::New,
            storage: StorageType::File,
            allow_rollup: true,
            allow_direct: true,
            deny_delete: true,
            ..Config::default()
        }
    }

    /// Writes this machine's entry over the one of this revision, or as the first one.
    async fn write(&mut self, over: Option<u64>) -> Result<bool, RemoteError> {
        let begun = Instant::now();
        let (key, entry) = (self.key.clone(), Bytes::from(format!("{} {}", self.lasts.as_millis(), self.holder)));
        let store = self.store().await?;
        let written = match over {
            Some(revision) => match store.update(key, entry, revision).await {
                Err(cause) if cause.kind() == UpdateErrorKind::WrongLastRevision => None,
                written => Some(written.map_err(transient)?),
            },
            None => match store.create(key, entry).await {
                Err(cause) if cause.kind() == CreateErrorKind::AlreadyExists => None,
                written => Some(written.map_err(transient)?),
            },
        };
        self.held = written.map(|revision| (revision, begun));
        if self.held.is_some() {
            (self.seen, self.present) = (None, Some(self.holder.clone()));
        }
        Ok(self.is_held())
    }

    async fn take(&mut self) -> Result<bool, RemoteError> {
        let key = self.key.clone();
        let entry = self.store().await?.entry(key).await.map_err(transient)?;
        let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else {
            return self.write(None).await;
        };
        if entry.value.is_empty() {
            self.present = None;
            return self.write(Some(entry.revision)).await;
        }
        let text = String::from_utf8_lossy(&entry.value).into_owned();
        let (lasts, holder) = text.split_once(' ').unwrap_or(("", &text));
        let lasts = lasts.parse().map_or(self.lasts, Duration::from_millis).max(self.lasts);
        self.present = Some(holder.to_owned());
        match self.seen {
            // The answer to an earlier writing was lost.
            _ if holder == self.holder => self.write(Some(entry.revision)).await,
            Some((revision, since)) if revision == entry.revision => match since.elapsed() >= lasts {
                true => self.write(Some(revision)).await,
                false => Ok(false),
            },
            _ => {
                self.seen = Some((entry.revision, Instant::now()));
                Ok(false)
            }
        }
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({}/{} by {:?}, held: {})", self.bucket, self.key, self.holder, self.is_held())
    }
}
