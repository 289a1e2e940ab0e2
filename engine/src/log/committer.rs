//! The committer: a thread with a stage in the ring of each partition of each durable topic, which writes their events
//! into the engine's journal. Producers cannot overwrite a slot before the committer has written its event.
//!
//! ```text
//!   rings --> gather a frame --> append --> move the stages, `written` --> start a sync --> `durable`
//!                ^                                                           |  one in flight
//!                +------------------------- next frame meanwhile <-----------+
//! ```
//!
//! # Offsets are never issued twice
//! A *reservation* records durably up to which offset (exclusive) a partition's offsets may be in use, so that after a
//! crash the partition continues at that offset. Producers can claim slots up to the position of the committer's stage
//! plus the capacity. So the committer keeps its position at least one capacity below the end of the reservation. It
//! asks for the next reservation long before it reaches that.
//!
//! # Committed offsets
//! Each frame also gets the committed offsets of groups that have changed, so they need no sync of their own. If no
//! frame follows within 20 ms after a change, they are written alone, and synced a second later.
//!
//! # State sources
//! A state source, for example a queue, has state that must be written together with events. Changed state goes into
//! the next frame of events. If no events follow within 20 ms, the state is written alone and synced a second later. If
//! a thread waits for the state, it is written at once, and synced as events are. Without [`Pace::sync`] no thread waits
//! for that sync, because a queue whose changes are to be durable is refused. The committer asks the state sources
//! after it has gathered the events of a frame, so a state source knows which events are in the same frame.
//!
//! # Transactions
//! A thread that commits a transaction first claims slots in all its partitions and fills them, but does not publish
//! them. The committer writes all events below these claims, and then one frame with the transaction's events. When
//! that frame is durable, the thread publishes the claims; the committer skips these slots, as their events are written
//! already. A shutdown does not cut these claims: see [`promises`](crate::topic::promises). Only one thread at a time
//! takes claims and gives a transaction to the committer, so transactions have the same order in all partitions and
//! none waits for a later one.

use super::committer_thread::CommitterThread;
use super::source::{Source, StateSource};
use crate::base::clock::Clock;
use crate::base::level::OWN_THREAD;
use crate::base::multi_wait::MultiWait;
use crate::base::turn::{Turn, TurnGuard};
use crate::log::bridge::BridgePositions;
use crate::log::compaction::TopicCompaction;
use crate::log::forget::{forget, orphans};
use crate::log::offsets::group::CommittedOffsets;
use crate::log::offsets::transform::TransformOffsets;
use crate::log::producers::ProducerStates;
use crate::log::progress::Notifier;
use slipring_journal::{
    CompactError, Compacted, FrameBuilder, Freed, Journal, PartitionId, Retention, State, WriteError, Writer,
};
use slipring_ring::Waiter;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The stage name of the committer in each ring, which lists of consumers show.
pub(crate) const STAGE: &str = "journal";

/// How an engine's journal gathers events into frames, and when it syncs the frames: see
/// [`EngineBuilder::journal_pace`](crate::EngineBuilder::journal_pace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// The size in bytes from which a frame is written although more events are published. With fewer published events,
    /// the frame is written at once. Default: 1 MiB.
    pub group: usize,
    /// How long a sync is delayed so that more frames share it. Default: zero. Frames that are written while a sync
    /// runs share the next sync in any case.
    pub linger: Duration,
    /// True if frames are synced as they are written. Default: true. If false, events become durable only when the
    /// journal is closed, and with the syncs that the engine itself needs: for reserved offsets, and for writes that a
    /// thread waits for, such as transactions and changes of topics. A receipt that is to reach
    /// [`Level::Durable`](crate::Level::Durable) waits until then. A reservation then has 16,777,216 offsets, or eight
    /// times the capacity if that is more, and a crash may leave that many offsets of each partition unused.
    pub sync: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { group: 1 << 20, linger: Duration::ZERO, sync: true }
    }
}

/// The part of the committer that other threads use: the journal, the commands for the committer's thread, and the
/// state that topics share with it.
pub(crate) struct Committer {
    pub(crate) journal: Journal,
    pub(crate) notifier: Arc<Notifier>,
    /// The state that the journal had when the engine opened it, with later changes of topics and of queues' entries,
    /// deletions of groups' offsets, and reported gaps. Other changes, such as committed offsets, are not in it.
    pub(crate) recovered_state: Mutex<State>,
    /// Commands for the committer's thread. `None` once the thread has ended: a command is then dropped, and its sender
    /// gets no reply.
    pub(super) commands: Mutex<Option<Vec<Command>>>,
    pub(super) has_commands: AtomicBool,
    /// True if a state source has state that is not in a frame yet.
    pub(super) state_pending: AtomicBool,
    /// True from the moment that `state_pending` is set until the committer's thread has seen it.
    pub(super) state_signalled: AtomicBool,
    /// True if a thread waits until a state source's state is durable, so the state must be written at once.
    pub(super) state_urgent: AtomicBool,
    /// By how many bytes the journal's state may still grow, as of the last frame. `state_limit` is the size in bytes
    /// that the state may have in all.
    pub(super) state_room: AtomicUsize,
    pub(super) state_limit: usize,
    pub(super) waiter: Arc<Waiter>,
    pub(super) closed: Arc<Notifier>,
    /// State sources that the committer's thread has not taken over yet. The thread takes them over each time before it
    /// asks for state: a frame with a dead letter must also have the state of the queue that published it, even if that
    /// queue was opened a moment ago.
    pub(super) new_state_sources: Mutex<Vec<Weak<dyn StateSource>>>,
    /// State sources, by their numbers, that have published an event whose frame must have their state too. Held so that
    /// they are still there when the committer's thread writes that frame, even if the engine's last handle is dropped
    /// meanwhile. `None` once the thread has ended: no frame is written any more.
    pub(super) held_state_sources: Mutex<Option<BTreeMap<u32, Arc<dyn StateSource>>>>,
    /// The result of closing the journal: the error says why the journal does not have all events. Unset while the
    /// journal is open; set before `closed` is notified.
    pub(super) outcome: OnceLock<Result<(), String>>,
    /// Lets only one thread at a time claim a transaction's slots and give the transaction to the committer. A [`Turn`]
    /// instead of a lock, because user code (the clock and `Persist`) runs meanwhile: if it commits a transaction too,
    /// it gets an error instead of a deadlock.
    pub(super) transaction_turn: Arc<Turn<()>>,
    /// True if frames are synced as they are written: [`Pace::sync`].
    pub(crate) syncs: bool,
    pub(crate) transform_offsets: TransformOffsets,
    pub(crate) producer_states: ProducerStates,
    pub(crate) committed_offsets: CommittedOffsets,
    pub(crate) bridges: BridgePositions,
}

/// How long after the deadline of a close, which ends the committer's wait for the topics, the closing thread still
/// waits for the committer's thread to end.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A transaction that the committer is to write. Its sender holds the transaction's claims until the committer replies.
pub(crate) struct TransactionFrame {
    pub(crate) parts: Vec<ClaimedRun>,
    pub(crate) frame: FrameBuilder,
    /// The last check before the frame is written, called when only the disk can still refuse the frame. If it returns
    /// false, the frame is not written.
    pub(crate) decide: Box<dyn FnOnce() -> bool + Send>,
}

/// The offsets `first..end` of a partition, which a transaction has claimed and filled, but not published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimedRun {
    pub(crate) id: PartitionId,
    pub(crate) first: u64,
    pub(crate) end: u64,
}

/// How the commit of a transaction has ended.
pub(crate) enum TransactionOutcome {
    Durable,
    /// The journal refused the frame for this reason. Nothing was written.
    Refused(WriteError),
    /// [`TransactionFrame::decide`] returned false. Nothing was written.
    Denied,
    /// Nothing was written: the journal had ended, a topic of the transaction was halted or has failed, or the calling
    /// thread is one of the journal's own. The text says why.
    Ended(String),
    /// The disk failed with this error while the frame was written. The journal may or may not have the frame after a
    /// restart.
    Unknown(String),
}

/// Gets the result of a pass of compaction.
pub(crate) type CompactionReply = Receiver<Result<Compacted, CompactError>>;

pub(super) enum Command {
    Source(Box<dyn Source>),
    /// Writes these frames in order, and replies when all are durable, or with the first error.
    Commit(Vec<FrameBuilder>, SyncSender<Result<(), WriteError>>),
    /// Writes these frames in order, and sets the cell when all are written, or to the first error. Does not start a
    /// sync: the next sync makes them durable.
    Append(Vec<FrameBuilder>, Arc<OnceLock<Result<(), WriteError>>>),
    /// Sets the retention of the topic with this number in the journal.
    Keep(u32, Retention),
    /// Deletes the records that are outside of their topics' retention, and replies with the counts of freed records
    /// and segments.
    Retain(SyncSender<Result<Freed, WriteError>>),
    /// Sets the compaction of the topic with this number in the journal; `None` if it is not compacted.
    Compaction(u32, Option<Arc<TopicCompaction>>),
    /// Begins a pass of compaction, which replies when it has ended.
    Compact(SyncSender<Result<CompactionReply, WriteError>>),
    Transaction(Box<TransactionFrame>, SyncSender<Result<(), WriteError>>),
    /// Deletes the state and the records of the topic with this number and name, and replies when the deletion is
    /// durable.
    Forget(u32, String, SyncSender<Result<(), WriteError>>),
    /// Writes the committed offsets of all groups, and replies when they are durable.
    CommittedOffsets(SyncSender<Result<(), WriteError>>),
    /// Writes all remaining events, closes the journal and ends the thread. With a time, the thread first waits, at
    /// most until then, for the topics to end.
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
                // An error is ignored here: the next append fails too, and reports it.
                let _ = writer.append(&mut frame, clock.wall().as_nanos());
            }
        }
        let no_epoch_check = journal.sabotage().no_epoch_check;
        let (transform_offsets, producer_states) = (TransformOffsets::new(no_epoch_check), ProducerStates::new(&state));
        let bridges = BridgePositions::recovered(&state);
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
            held_state_sources: Mutex::new(Some(BTreeMap::new())),
            outcome: OnceLock::new(),
            transaction_turn: Turn::new(()),
            syncs: pace.sync,
            transform_offsets,
            producer_states,
            committed_offsets,
            bridges,
        });
        let thread = CommitterThread::new(Arc::clone(&shared), writer, clock, pace)?;
        std::thread::Builder::new().name("slipring-journal".to_owned()).spawn(move || thread.run())?;
        Ok(shared)
    }

    /// Returns an error if the calling thread is one of the journal's own: it must not wait for the journal, because it
    /// would wait for itself.
    pub(crate) fn may_wait(&self) -> Result<(), String> {
        if self.notifier.is_own_thread() { Err(OWN_THREAD.to_owned()) } else { Ok(()) }
    }

    /// The reason why nothing can be committed at the moment: the journal has ended, or the calling thread is one of its
    /// own.
    pub(crate) fn may_commit(&self) -> Result<(), String> {
        self.may_wait()?;
        match self.notifier.forked_cause().as_deref().or(self.notifier.end_cause()) {
            Some(cause) => Err(cause.to_owned()),
            None => Ok(()),
        }
    }

    fn send(&self, command: Command) {
        if self.notifier.is_forked() {
            // A forked process has no thread that reads commands. Dropping the command closes its reply channel, so its
            // sender does not wait.
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

    /// Writes frames in order, and waits until they are durable. If the journal refuses a frame, the later ones are not
    /// written, and the error says why.
    pub(crate) fn commit(&self, frames: impl Into<Vec<FrameBuilder>>) -> Result<(), String> {
        self.may_wait()?;
        let (sender, receiver) = sync_channel(1);
        self.send(Command::Commit(frames.into(), sender));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        receiver.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// Sends frames to the committer's thread, and does not wait until they are written. The returned cell is set when
    /// all of them are written, or to the first error. To wait until they are durable, [`commit`](Self::commit) no
    /// frames.
    pub(crate) fn append_soon(&self, frames: Vec<FrameBuilder>) -> Arc<OnceLock<Result<(), WriteError>>> {
        let outcome = Arc::default();
        self.send(Command::Append(frames, Arc::clone(&outcome)));
        outcome
    }

    /// Writes the committed offsets of all groups, and waits until they are durable.
    pub(crate) fn commit_offsets(&self) -> Result<(), String> {
        self.may_wait()?;
        let (sender, receiver) = sync_channel(1);
        // A member that was fenced in the middle of a commit may have changed its offset without signalling the change.
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

    /// Sets which records of a topic the journal keeps. `topic` is its number in the journal.
    pub(crate) fn keep(&self, topic: u32, retention: Retention) {
        self.send(Command::Keep(topic, retention));
    }

    /// Starts deleting the records that are outside of their topics' retention, without waiting. The receiver gets the
    /// result.
    pub(crate) fn retain_soon(&self) -> Receiver<Result<Freed, WriteError>> {
        let (sender, receiver) = sync_channel(1);
        self.send(Command::Retain(sender));
        receiver
    }

    /// Sets how a topic is compacted; `None` if it is not. `topic` is its number in the journal.
    pub(crate) fn set_compaction(&self, topic: u32, compaction: Option<TopicCompaction>) {
        self.send(Command::Compaction(topic, compaction.map(Arc::new)));
    }

    /// Starts a pass of compaction, without waiting. The receiver gets another one, which gets the result.
    pub(crate) fn compact_soon(&self) -> Receiver<Result<CompactionReply, WriteError>> {
        let (sender, receiver) = sync_channel(1);
        self.send(Command::Compact(sender));
        receiver
    }

    /// Waits until the calling thread may claim a transaction's slots and give the transaction to the committer: see
    /// `transaction_turn`. `None` if the calling thread has this turn already, that is, if user code calls this during
    /// a commit.
    pub(crate) fn transaction_turn(&self) -> Option<TurnGuard<()>> {
        self.transaction_turn.take()
    }

    /// Gives a transaction to the committer, returns the turn `order`, and waits until the transaction is durable or
    /// refused.
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

    /// Adds a partition to the committer's thread. The committer's stage must have joined the partition's ring before.
    pub(crate) fn add(&self, source: Box<dyn Source>) {
        self.send(Command::Source(source));
    }

    /// Adds a state source to the committer's thread.
    pub(crate) fn add_state_source(&self, source: Weak<dyn StateSource>) {
        self.new_state_sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
        // The source may have state to write already.
        self.notify_state_urgent();
    }

    /// Keeps a state source until [`release_state_source`](Self::release_state_source), or until the journal ends.
    pub(crate) fn hold_state_source(&self, number: u32, source: Arc<dyn StateSource>) {
        if let Some(held) = &mut *self.held_state_sources.lock().unwrap_or_else(PoisonError::into_inner) {
            held.insert(number, source);
        }
    }

    /// Ends [`hold_state_source`](Self::hold_state_source). The caller has another reference to the source, so that the
    /// source is not dropped here.
    pub(crate) fn release_state_source(&self, number: u32) {
        if let Some(held) = &mut *self.held_state_sources.lock().unwrap_or_else(PoisonError::into_inner) {
            held.remove(&number);
        }
    }

    /// Signals that a state source has state to write. The state goes into the next frame of events, or, without
    /// events, into a frame of its own after 20 ms.
    pub(crate) fn notify_state(&self) {
        if !self.state_pending.swap(true, Ordering::AcqRel) {
            self.state_signalled.store(true, Ordering::Release);
            self.waiter.wake(MultiWait::WAKE);
        }
    }

    /// Signals that a state source has state to write and that a thread waits for it, so that the state is written at
    /// once.
    pub(crate) fn notify_state_urgent(&self) {
        self.state_pending.store(true, Ordering::Release);
        if !self.state_urgent.swap(true, Ordering::AcqRel) {
            self.waiter.wake(MultiWait::WAKE);
        }
    }

    /// The size in bytes that the journal's state may have.
    pub(crate) fn state_limit(&self) -> usize {
        self.state_limit
    }

    /// By how many bytes the journal's state may grow until its size is half of the limit; 0 if it is larger already.
    /// The other half of the limit is reserved for writes that must not fail.
    pub(crate) fn state_to_spare(&self) -> usize {
        self.state_room.load(Ordering::Acquire).saturating_sub(self.state_limit / 2)
    }

    /// Writes all remaining events, closes the journal, and ends the committer's thread. Before that, the thread waits
    /// for the topics to end, at most until `deadline` (`None`: without limit). The error says why the journal does not
    /// have all events, or that the thread has not ended in time. Later and concurrent callers get the result of one
    /// close.
    pub(crate) fn close(&self, deadline: Option<Instant>) -> Result<(), String> {
        self.may_wait()?;
        // This thread waits [`CLOSE_GRACE`] longer than the committer's thread does.
        let far = || slipring_ring::internal::deadline(Duration::MAX);
        self.send(Command::Close(Some(deadline.unwrap_or_else(far))));
        let deadline = deadline.and_then(|deadline| deadline.checked_add(CLOSE_GRACE));
        let outcome = self.closed.wait(deadline, || self.outcome.get().cloned());
        let forked = || self.notifier.is_forked().then(|| self.notifier.end_cause()).flatten();
        outcome.unwrap_or_else(|| Err(forked().unwrap_or("the journal did not end within the limit").to_owned()))
    }

    /// Starts closing the journal without waiting for the close: the thread writes all remaining events, closes the
    /// journal and ends.
    pub(crate) fn leave(&self) {
        self.send(Command::Close(None));
    }

    pub(crate) fn recovered_state(&self) -> MutexGuard<'_, State> {
        self.recovered_state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
