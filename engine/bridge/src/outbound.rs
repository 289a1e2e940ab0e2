//! The settings of a bridge outward, and its start.

use crate::bridge::{Bridge, Shared};
use crate::origin::ImportedInto;
use crate::outward::{Outward, Window};
use crate::position::Position;
use crate::remote::Remote;
use crate::work::Work;
use slipring::journal::ReplayError as JournalError;
use slipring::producer::Producers;
use slipring::replay::{Replay, ReplayError};
use slipring::replication::ReplicationError;
use slipring::subscriber::StartAt;
use slipring::{Message, Topic};
use std::sync::Arc;
use std::time::Instant;

/// Why a bridge was not started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The topic cannot be replicated, or has a bridge already.
    #[error(transparent)]
    Replication(#[from] ReplicationError),
    /// The journal cannot be read.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// What the journal has recorded of this bridge is malformed.
    #[error("topic {topic:?}, partition {partition}: the journal's position of the bridge is malformed")]
    Position {
        /// The topic's name.
        topic: String,
        /// The partition's number.
        partition: u32,
    },
    /// The engine has no journal.
    #[error("the engine has no journal")]
    NoJournal,
    /// The operating system gave no thread.
    #[error("no thread for the bridge: {0}")]
    Thread(#[from] std::io::Error),
}

/// What a bridge does with records that it cannot copy: those that are larger than the stream takes and that their producer was
/// [not refused](Outbound::refuse_large), and those that retention has deleted before they were copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Uncopied {
    /// The bridge stops, with the offsets in its error. The default.
    #[default]
    Stop,
    /// The bridge writes a message in their place that names their offsets, and goes on. Whoever waits for one of them to be
    /// replicated gets an error.
    Skip,
}

/// Settings of a [`Bridge`]; made by [`Bridge::outward`].
#[derive(Clone, Debug)]
pub struct Outbound {
    name: String,
    window: Window,
    hold: Option<u64>,
    uncopied: Uncopied,
    refuses_large: bool,
    takes_over: bool,
}

impl Bridge {
    /// Returns the settings of a bridge to other machines. The `name` is that of the bridge: under it the journal records
    /// how far it has come. Finish them with [`start`](Outbound::start).
    pub fn outward(name: impl Into<String>) -> Outbound {
        Outbound {
            name: name.into(),
            window: Window::default(),
            hold: None,
            uncopied: Uncopied::default(),
            refuses_large: true,
            takes_over: false,
        }
    }
}

impl Outbound {
    /// Sets how much may be on its way.
    pub fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Sets how many records a message holds at most, up to 100. By default each message is one record, which any client of
    /// JetStream reads. The servers' cost is by message, so packed records are copied several times as fast; only a bridge, or
    /// [`Record::parse_all`](crate::Record::parse_all), reads them.
    pub fn packed(mut self, records: usize) -> Self {
        self.window.packed = records;
        self
    }

    /// Sets how many bytes of records of each partition the journal keeps for this bridge at most: see
    /// [`ReplicationBuilder::hold`](slipring::replication::ReplicationBuilder::hold). By default there is no limit.
    pub fn hold(mut self, bytes: u64) -> Self {
        self.hold = Some(bytes);
        self
    }

    /// Sets what happens to records that cannot be copied.
    pub fn uncopied(mut self, uncopied: Uncopied) -> Self {
        self.uncopied = uncopied;
        self
    }

    /// Sets whether the topic's producers are refused messages that are larger than the streams take, with
    /// [`PublishError::TooLargeForBridge`](slipring::producer::PublishError::TooLargeForBridge). Default: true. With false,
    /// and for what was published before the servers have told their limit, [`uncopied`](Self::uncopied) decides.
    pub fn refuse_large(mut self, yes: bool) -> Self {
        self.refuses_large = yes;
        self
    }

    /// Lets the bridge go on in a stream that another bridge has written last. The stream's last record must be the one
    /// that this journal has at its offset. The other bridge is fenced: it stops when it writes again.
    pub fn take_over(mut self, yes: bool) -> Self {
        self.takes_over = yes;
        self
    }

    /// Attaches the bridge to a durable topic, and starts its thread. `remote` returns the stream of a partition; it is
    /// called on this thread, and again on the bridge's for partitions that are added later.
    ///
    /// # Errors
    /// The topic cannot be replicated, has a bridge already, or cannot be read.
    pub fn start<K, R>(
        self,
        engine: &slipring::Engine,
        topic: &Topic<Message, K>,
        mut remote: impl FnMut(u32) -> R + Send + 'static,
    ) -> Result<Bridge, StartError>
    where
        K: Producers,
        R: Remote + 'static,
    {
        let Self { name, window, hold, uncopied, refuses_large, takes_over } = self;
        let journal = engine.journal().ok_or(StartError::NoJournal)?.id();
        let mut attach = topic.replicate(&name);
        if let Some(bytes) = hold {
            attach = attach.hold(bytes);
        }
        let replication = attach.attach()?;
        let (mut starts, mut copiers) = (Vec::new(), Vec::new());
        let mut nonce = fastrand::u64(..);
        for partition in 0..replication.partitions() {
            let known = replication.position(partition);
            let (next, detail) = known.map_or((0, Vec::new()), |known| (known.offset, known.detail));
            let malformed = || StartError::Position { topic: topic.name().to_owned(), partition };
            let position = Position::decode(&detail).ok_or_else(malformed)?;
            starts.push(next);
            nonce = nonce.wrapping_add(1);
            copiers.push(Outward::new(remote(partition), window, (journal, nonce), (next, position), takes_over));
        }
        // A position below the start is one whose records retention has deleted: the reader's error says so.
        let (replay, lost) = open(topic, &name, &starts)?;
        let shared = Arc::new(Shared::default());
        let work = Work {
            topic: topic.clone(),
            name,
            into: topic
                .recorded()
                .map(|(journal, topic)| ImportedInto::new(journal, topic))
                .ok_or(StartError::NoJournal)?,
            replication: Some(replication),
            replay,
            lost,
            copiers,
            limits: Vec::new(),
            told_limit: None,
            refuses_large,
            uncopied,
            stops: None,
            level: Vec::new(),
            recorded: Instant::now(),
            ends_at: None,
            told: Vec::new(),
            shared: Arc::clone(&shared),
            make: Box::new(move |partition, nonce| {
                Outward::new(remote(partition), window, (journal, nonce), (0, Position::default()), takes_over)
            }),
        };
        let thread = std::thread::Builder::new().name("slipring-bridge".to_owned()).spawn(move || work.run())?;
        Ok(Bridge::new(shared, thread))
    }
}

/// Partitions, each with the first offset that was deleted and the earliest one that is left.
pub(crate) type Lost = Vec<(u32, u64, u64)>;

/// Opens a replay at these offsets. Where records were deleted, it begins at the earliest one, and the result names these.
pub(crate) fn open<K: Producers>(
    topic: &Topic<Message, K>,
    name: &str,
    starts: &[u64],
) -> Result<(Replay<Message, K>, Lost), ReplayError> {
    let (mut starts, mut lost) = (starts.to_vec(), Lost::new());
    loop {
        match topic.replay(format!("bridge-{name}")).start(StartAt::Offsets(starts.clone())).open() {
            Err(ReplayError::Journal {
                partition, cause: JournalError::OutOfRange { asked, earliest, .. }, ..
            }) if earliest > asked => {
                lost.push((partition, asked, earliest));
                starts[partition as usize] = earliest;
            }
            opened => return opened.map(|replay| (replay, lost)),
        }
    }
}
