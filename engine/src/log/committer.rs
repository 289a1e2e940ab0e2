//! The committer: a thread with a stage in the ring of each partition of each durable topic, which writes their events
//! into the engine's journal. Producers cannot overwrite a slot before the committer has written its event.
//!
//! ```text
//!   rings --> gather a group --> append --> move the gates, `written` --> hand a sync over --> `durable`
//!                ^                                                             |  one in flight
//!                +------------------------- next group meanwhile <------------+
//! ```
//!
//! # Offsets are never issued twice
//! Producers can claim slots up to the committer's gate plus the capacity. So the committer keeps its gate at least one
//! capacity below the end of the durable reservation of offsets. It asks for the next reservation long before that.
//!
//! # Committed offsets
//! Each frame also gets the committed offsets of groups that have changed, so they need no sync of their own. If no
//! frame follows, they are written alone when the journal has been idle for 20 ms, and synced a second later.
//!
//! # State sources
//! A state source has state that must be written together with events, for example a queue. Its state goes into the
//! next frame of events. If no events follow, it is written when the journal has been idle for 20 ms and synced a second
//! later; if a thread waits for it, it is written at once. The committer asks the state sources after it has gathered
//! the events of a frame, so a state source knows which events are in the same frame.
//!
//! # Transactions
//! A thread that commits a transaction first claims slots in all its partitions and fills them, but does not publish
//! them. The committer writes all events below these claims, and then one frame with the transaction's events. When
//! that frame is durable, the thread publishes the claims; the committer skips these slots, as their events are written
//! already. Only one thread at a time takes claims and gives a transaction to the committer, so transactions have the
//! same order in all partitions and none waits for a later one.

use super::committer_thread::CommitterThread;
use super::source::{Source, StateSource};
use crate::base::clock::Clock;
use crate::base::multi_wait::MultiWait;
use crate::base::turn::{Turn, TurnGuard};
use crate::log::forget::{forget, orphans};
use crate::log::offsets::group::CommittedOffsets;
use crate::log::offsets::transform::TransformOffsets;
use crate::log::producers::ProducerStates;
use crate::log::progress::Notifier;
use crate::log::progress::OWN_THREAD;
use slipring_journal::{FrameBuilder, Freed, Journal, PartitionId, Retention, State, WriteError, Writer};
use slipring_ring::Waiter;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The name of the committer's stage in each ring.
pub(crate) const STAGE: &str = "journal";

/// How an engine's journal groups events into frames and syncs them: see
/// [`EngineBuilder::journal_pace`](crate::EngineBuilder::journal_pace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// The size in bytes at which a frame of events is written. A smaller frame is written when there are no more
    /// events. Default: 1 MiB.
    pub group: usize,
    /// How long a sync waits for more frames to share it. Default: zero. Frames that are written while a sync runs
    /// share the next sync in any case.
    pub linger: Duration,
    /// True if frames are synced as they are written. Default: true. If false, events become durable only when the
    /// journal is closed and when offsets are reserved. A reservation then has 16,777,216 offsets, or eight times the
    /// capacity if that is more, and a crash may leave that many offsets of each partition unused.
    pub sync: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { group: 1 << 20, linger: Duration::ZERO, sync: true }
    }
}

/// The engine's side of the committer: the journal, the commands for the committer's thread, and the state that topics
/// share with it.
pub(crate) struct Committer {
    pub(crate) journal: Journal,
    pub(crate) notifier: Arc<Notifier>,
    /// The state that the journal had when it was opened, updated as topics are created and deleted.
    pub(crate) recovered_state: Mutex<State>,
    /// Commands for the thread. `None` once the thread has ended: a command is then dropped, and its sender gets no
    /// reply.
    pub(super) commands: Mutex<Option<Vec<Command>>>,
    pub(super) has_commands: AtomicBool,
    /// True if a state source has unwritten state.
    pub(super) state_pending: AtomicBool,
    /// True from a signal of `state_pending` until the committer's thread has seen it.
    pub(super) state_signalled: AtomicBool,
    /// True if a thread waits for that state, so that it must be written at once.
    pub(super) state_urgent: AtomicBool,
    /// `state_room`: by how many bytes the journal's state may still grow, as of the last frame. `state_limit`: how
    /// many bytes the state may have in all.
    pub(super) state_room: AtomicUsize,
    pub(super) state_limit: usize,
    pub(super) waiter: Arc<Waiter>,
    pub(super) closed: Arc<Notifier>,
    /// New state sources, which the thread takes over whenever it asks for state: a frame with a dead letter must also
    /// have the state of the queue that published it, even if that queue was opened a moment ago.
    pub(super) new_state_sources: Mutex<Vec<Weak<dyn StateSource>>>,
    /// How the journal has ended. Set before `closed` is notified.
    pub(super) outcome: OnceLock<Result<(), String>>,
    /// Held by the thread that claims a transaction's slots and gives the transaction to the committer. A [`Turn`] and
    /// no lock, because user code (the clock and `Persist`) runs meanwhile.
    pub(super) transaction_turn: Arc<Turn<()>>,
    /// True if frames are synced as they are written: [`Pace::sync`].
    pub(crate) syncs: bool,
    pub(crate) transform_offsets: TransformOffsets,
    pub(crate) producer_states: ProducerStates,
    pub(crate) committed_offsets: CommittedOffsets,
}

/// How much longer than the committer's thread the closing thread waits for the journal's end.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A transaction on its way to the committer. Its claims are held until the committer replies.
pub(crate) struct TransactionFrame {
    pub(crate) parts: Vec<ClaimedRun>,
    pub(crate) frame: FrameBuilder,
    /// Called last, when only the disk can still refuse the frame. If it returns false, the frame is not written.
    pub(crate) decide: Box<dyn FnOnce() -> bool + Send>,
}

/// The offsets `first..end` of a partition: claimed and filled, but not published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimedRun {
    pub(crate) id: PartitionId,
    pub(crate) first: u64,
    pub(crate) end: u64,
}

/// The outcome of a transaction.
pub(crate) enum TransactionOutcome {
    Durable,
    /// The journal refused the frame. Nothing was written.
    Refused(WriteError),
    /// `decide` returned false. Nothing was written.
    Denied,
    /// The journal had ended before anything was written.
    Ended(String),
    /// The disk failed while the frame was written. The journal may or may not have the frame.
    Unknown(String),
}

pub(super) enum Command {
    Source(Box<dyn Source>),
    /// Writes these frames in order, and replies when they are durable.
    Commit(Vec<FrameBuilder>, SyncSender<Result<(), WriteError>>),
    /// Sets the retention of the topic with this number.
    Keep(u32, Retention),
    /// Deletes the records that are outside of their topics' retention.
    Retain(SyncSender<Result<Freed, WriteError>>),
    Transaction(Box<TransactionFrame>, SyncSender<Result<(), WriteError>>),
    /// Deletes the state and the records of the topic with this number and name, and replies when that is durable.
    Forget(u32, String, SyncSender<Result<(), WriteError>>),
    /// Writes the committed offsets of all groups, and replies when they are durable.
    CommittedOffsets(SyncSender<Result<(), WriteError>>),
    /// Writes all remaining events, and ends the thread. With a time, the thread first waits up to that time for the
    /// topics to end.
    Close(Option<Instant>),
}

impl Committer {
    pub(crate) fn start(
        mut writer: Writer,
        mut state: State,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> Result<Arc<Self>, std::io::Error> {
        let journal = writer.journal();
        let gone = orphans(&state);
        if !gone.is_empty() {
            for mut frame in forget(&state, &gone, None, writer.frame_limit() / 2) {
                state.take(&mut frame);
                // If this append fails, the next one fails too, and reports the error.
                let _ = writer.append(&mut frame, clock.wall().as_nanos());
            }
        }
        let no_epoch_check = journal.sabotage().no_epoch_check;
        let (transform_offsets, producer_states) = (TransformOffsets::new(no_epoch_check), ProducerStates::new(&state));
        let waiter = Arc::new(Waiter::new());
        let committed_offsets = CommittedOffsets::new(Arc::clone(&waiter), no_epoch_check);
        let shared = Arc::new(Self {
            journal,
            notifier: Arc::default(),
            recovered_state: Mutex::new(state),
            commands: Mutex::new(Some(Vec::new())),
            has_commands: AtomicBool::new(false),
            state_pending: AtomicBool::new(false),
            state_signalled: AtomicBool::new(false),
            state_urgent: AtomicBool::new(false),
            state_room: AtomicUsize::new(writer.state_room()),
            state_limit: writer.state_limit(),
            waiter,
            closed: Arc::default(),
            new_state_sources: Mutex::default(),
            outcome: OnceLock::new(),
            transaction_turn: Turn::new(()),
            syncs: pace.sync,
            transform_offsets,
            producer_states,
            committed_offsets,
        });
        let thread = CommitterThread::new(Arc::clone(&shared), writer, clock, pace)?;
        std::thread::Builder::new().name("slipring-journal".to_owned()).spawn(move || thread.run())?;
        Ok(shared)
    }

    /// Fails on the journal's own threads, which would wait for themselves.
    pub(crate) fn may_wait(&self) -> Result<(), String> {
        if self.notifier.is_own_thread() { Err(OWN_THREAD.to_owned()) } else { Ok(()) }
    }

    fn send(&self, command: Command) {
        if self.notifier.is_forked() {
            // In a forked process no thread reads commands. Dropping the command tells its sender.
            if let Command::Source(source) = command {
                source.fail(self.notifier.end_cause().unwrap_or_default());
            }
            return;
        }
        if let Some(queued) = &mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner) {
            queued.push(command);
        } else if let Command::Source(source) = command {
            source.fail(self.notifier.end_cause().unwrap_or("the journal was closed"));
        }
        self.has_commands.store(true, Ordering::Release);
        self.waiter.wake(MultiWait::WAKE);
    }

    /// Writes frames in order, and waits until they are durable. If a frame is refused, the later ones are not written.
    pub(crate) fn commit(&self, frames: impl Into<Vec<FrameBuilder>>) -> Result<(), String> {
        self.may_wait()?;
        let (sender, receiver) = sync_channel(1);
        self.send(Command::Commit(frames.into(), sender));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        receiver.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// Writes the committed offsets of all groups, and waits until they are durable.
    pub(crate) fn commit_offsets(&self) -> Result<(), String> {
        self.may_wait()?;
        let (sender, receiver) = sync_channel(1);
        // A member that was fenced in the middle of a commit may have changed its offset without signalling it.
        self.committed_offsets.look_at_all();
        self.send(Command::CommittedOffsets(sender));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        receiver.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// Deletes a topic's state and records from the journal, and waits until that is durable.
    pub(crate) fn forget(&self, topic: u32, name: &str) -> Result<(), String> {
        self.may_wait()?;
        let (sender, receiver) = sync_channel(1);
        self.send(Command::Forget(topic, name.to_owned(), sender));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        receiver.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// Sets a topic's retention.
    pub(crate) fn keep(&self, topic: u32, retention: Retention) {
        self.send(Command::Keep(topic, retention));
    }

    /// Starts deleting the records that are outside of their topics' retention. The receiver gets the outcome.
    pub(crate) fn retain_soon(&self) -> Receiver<Result<Freed, WriteError>> {
        let (sender, receiver) = sync_channel(1);
        self.send(Command::Retain(sender));
        receiver
    }

    /// Waits for the right to give a transaction to the committer. `None` if the calling thread has it already, because
    /// this is called by code that runs during a commit.
    pub(crate) fn transaction_turn(&self) -> Option<TurnGuard<()>> {
        self.transaction_turn.take()
    }

    /// Gives a transaction to the committer, releases `order`, and waits until the transaction is durable or refused.
    pub(crate) fn transact(&self, order: TurnGuard<()>, mut transaction: TransactionFrame) -> TransactionOutcome {
        const OPEN: u8 = 0;
        const DENIED: u8 = 1;
        const DECIDED: u8 = 2;
        if let Err(own) = self.may_wait() {
            return TransactionOutcome::Ended(own);
        }
        let (sender, receiver) = sync_channel(1);
        let state = Arc::new(AtomicU8::new(OPEN));
        let (decide, decided) = (transaction.decide, Arc::clone(&state));
        transaction.decide = Box::new(move || {
            let yes = decide();
            decided.store(if yes { DECIDED } else { DENIED }, Ordering::Release);
            yes
        });
        self.send(Command::Transaction(Box::new(transaction), sender));
        drop(order);
        let ended =
            || self.notifier.end_cause().unwrap_or("the journal was closed, or a topic of it halted").to_owned();
        let reply = receiver.recv();
        match (reply, state.load(Ordering::Acquire)) {
            (Ok(Ok(())), _) => TransactionOutcome::Durable,
            (_, DENIED) => TransactionOutcome::Denied,
            (Ok(Err(cause)), DECIDED) => TransactionOutcome::Unknown(cause.to_string()),
            (Err(_), DECIDED) => TransactionOutcome::Unknown(ended()),
            (Ok(Err(refused)), _) => TransactionOutcome::Refused(refused),
            (Err(_), _) => TransactionOutcome::Ended(ended()),
        }
    }

    /// Adds a partition to the committer's thread. The partition's gate has joined the ring before.
    pub(crate) fn add(&self, source: Box<dyn Source>) {
        self.send(Command::Source(source));
    }

    /// Adds a state source to the committer's thread.
    pub(crate) fn add_state_source(&self, source: Weak<dyn StateSource>) {
        self.new_state_sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
        // The source may have state to write already.
        self.notify_state_urgent();
    }

    /// Signals that a state source has state to be written with the next events, or after 20 ms.
    pub(crate) fn notify_state(&self) {
        if !self.state_pending.swap(true, Ordering::AcqRel) {
            self.state_signalled.store(true, Ordering::Release);
            self.waiter.wake(MultiWait::WAKE);
        }
    }

    /// Signals that a state source has state that a thread waits for, so that it is written at once.
    pub(crate) fn notify_state_urgent(&self) {
        self.state_pending.store(true, Ordering::Release);
        if !self.state_urgent.swap(true, Ordering::AcqRel) {
            self.waiter.wake(MultiWait::WAKE);
        }
    }

    /// How many bytes the journal's state may have.
    pub(crate) fn state_limit(&self) -> usize {
        self.state_limit
    }

    /// By how many bytes the state may grow until half of its limit is used. The other half is reserved for writes that
    /// must not fail.
    pub(crate) fn state_to_spare(&self) -> usize {
        self.state_room.load(Ordering::Acquire).saturating_sub(self.state_limit / 2)
    }

    /// Writes all remaining events, closes the journal, and ends the committer's thread. The error says why the journal
    /// has not all events. Later and concurrent callers get the same result.
    pub(crate) fn close(&self, deadline: Option<Instant>) -> Result<(), String> {
        self.may_wait()?;
        // This thread waits one second longer than the committer's thread does.
        let far = || slipring_ring::internal::deadline(Duration::MAX);
        self.send(Command::Close(Some(deadline.unwrap_or_else(far))));
        let deadline = deadline.and_then(|deadline| deadline.checked_add(CLOSE_GRACE));
        let outcome = self.closed.wait(deadline, || self.outcome.get().cloned());
        let forked = || self.notifier.is_forked().then(|| self.notifier.end_cause()).flatten();
        outcome.unwrap_or_else(|| Err(forked().unwrap_or("the journal did not end within the limit").to_owned()))
    }

    /// Starts the close without waiting for it: the thread writes all remaining events, closes the journal and ends.
    pub(crate) fn leave(&self) {
        self.send(Command::Close(None));
    }

    pub(crate) fn recovered_state(&self) -> MutexGuard<'_, State> {
        self.recovered_state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
