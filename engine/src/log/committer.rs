//! The committer: a stage in the ring of each partition of each durable topic, whose thread writes the events into the one
//! journal of the engine. Producers cannot overwrite a slot before the committer has written it.
//!
//! ```text
//!   rings --> gather a group --> append --> move the gates, `written` --> hand a sync over --> `durable`
//!                ^                                                             |  one in flight
//!                +------------------------- next group meanwhile <------------+
//! ```
//!
//! # Offsets are never issued twice
//! A ring's producers can claim slots up to the committer's gate plus the capacity. So the committer never moves its gate so
//! far that this would pass the durable reservation of offsets. It asks for the next reservation long before that.
//!
//! # Committed offsets
//! The committed offsets of groups are written into the next frame, whatever it holds, so they need no sync of their own. If
//! no frame follows, they are written alone when the journal has been idle for 20 ms.
//!
//! # State sources
//! A state source has state of its own that must be written together with events: a queue is one. Its state goes into the
//! next frame of events. If no events follow, it is written when the journal has been idle for 20 ms and synced 50 ms later;
//! if somebody waits for it, it is written at once. The committer asks the state sources after it has gathered the events of
//! a frame, so a state source knows which events are in the same frame.
//!
//! # Transactions
//! A thread that commits a transaction first claims slots in all its partitions and fills them, but does not publish them.
//! Then the committer writes everything below these claims, and then one frame with the transaction's events. When that
//! frame is durable, the thread publishes the claims, and the committer passes over these slots. Only one thread at a time
//! takes claims and hands a transaction over, so transactions have the same order in all partitions and none waits for a
//! later one.

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

/// How an engine's journal groups and syncs: [`EngineBuilder::journal_pace`](crate::EngineBuilder::journal_pace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// The size in bytes at which a group of events is written; it is written earlier if no more events are there. 1 MiB
    /// unless told.
    pub group: usize,
    /// How long a sync may wait for more events to share it. Zero unless told. While a sync runs, the next group gathers
    /// anyway.
    pub linger: Duration,
    /// Whether groups are synced before the journal is closed. Yes unless told. If not, `durable` moves only when the
    /// journal is closed and with each reservation of offsets. A reservation is then 16,777,216 offsets, or eight times the
    /// capacity if that is more, and a crash may leave out as many offsets of each partition.
    pub sync: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { group: 1 << 20, linger: Duration::ZERO, sync: true }
    }
}

/// The engine's side of the committer: its journal, the commands for its thread, and the state that topics share with it.
pub(crate) struct Committer {
    pub(crate) journal: Journal,
    pub(crate) notifier: Arc<Notifier>,
    /// The state that was found when the journal was opened, with the topics that were created and deleted since.
    pub(crate) recovered_state: Mutex<State>,
    /// Commands for the thread. `None` once the thread has ended: then a command is dropped, and its sender gets no reply.
    pub(super) commands: Mutex<Option<Vec<Command>>>,
    pub(super) has_commands: AtomicBool,
    /// True if a state source has state to write.
    pub(super) state_pending: AtomicBool,
    /// True until the thread has seen that `state_pending` was set.
    pub(super) state_signalled: AtomicBool,
    /// True if somebody waits for that state, so that it must be written at once.
    pub(super) state_urgent: AtomicBool,
    /// `state_room`: the bytes by which the state may still grow, as of the last frame. `state_limit`: the bytes it may have
    /// in all.
    pub(super) state_room: AtomicUsize,
    pub(super) state_limit: usize,
    pub(super) waiter: Arc<Waiter>,
    pub(super) closed: Arc<Notifier>,
    /// State sources that the thread has not taken over yet. It takes them over each time before it asks for state, since a
    /// frame with a dead letter must also have the state of the queue that published it, even if that queue was opened only now.
    pub(super) new_state_sources: Mutex<Vec<Weak<dyn StateSource>>>,
    /// How the journal ended, for whoever closes it. Set before `closed` is notified.
    pub(super) outcome: OnceLock<Result<(), String>>,
    /// One thread at a time takes a transaction's claims and hands the transaction over. This is not a lock, because user code (the
    /// clock and `Persist`) runs meanwhile.
    pub(super) transaction_turn: Arc<Turn<()>>,
    /// True if groups are synced: [`Pace::sync`].
    pub(crate) syncs: bool,
    pub(crate) transform_offsets: TransformOffsets,
    pub(crate) producer_states: ProducerStates,
    pub(crate) committed_offsets: CommittedOffsets,
}

/// How long a closing journal may take after it has stopped waiting for claims.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A transaction that was handed to the committer. Its claims are held until the committer replies.
pub(crate) struct TransactionFrame {
    pub(crate) parts: Vec<ClaimedRun>,
    pub(crate) frame: FrameBuilder,
    /// Asked last, when only the disk can still refuse the frame. False: the frame is not written.
    pub(crate) decide: Box<dyn FnOnce() -> bool + Send>,
}

/// Offsets `first..end` of a partition: claimed, filled, and not published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimedRun {
    pub(crate) id: PartitionId,
    pub(crate) first: u64,
    pub(crate) end: u64,
}

/// What became of a transaction.
pub(crate) enum TransactionOutcome {
    Durable,
    /// The journal refused the frame. Nothing was written.
    Refused(WriteError),
    /// `decide` returned false. Nothing was written.
    Denied,
    /// The journal ended before it wrote anything.
    Ended(String),
    /// The disk failed while the frame was written: it may be in the journal or not.
    Unknown(String),
}

pub(super) enum Command {
    Source(Box<dyn Source>),
    /// Writes these frames, one after the other, and replies when they are durable.
    Commit(Vec<FrameBuilder>, SyncSender<Result<(), WriteError>>),
    /// Sets the retention of the topic with this number.
    Keep(u32, Retention),
    /// Deletes the records that no topic's retention keeps.
    Retain(SyncSender<Result<Freed, WriteError>>),
    Transaction(Box<TransactionFrame>, SyncSender<Result<(), WriteError>>),
    /// Deletes the state and the records of the topic with this number and name, and replies when that is durable.
    Forget(u32, String, SyncSender<Result<(), WriteError>>),
    /// Writes the committed offsets of all groups, and replies when they are durable.
    CommittedOffsets(SyncSender<Result<(), WriteError>>),
    /// Writes everything that is there, and ends. The time is until when it waits for topics to end.
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
                // If this fails, the next write fails too, and that one is reported.
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

    /// An error on the journal's own threads, which would wait for themselves.
    pub(crate) fn may_wait(&self) -> Result<(), String> {
        if self.notifier.is_own_thread() { Err(OWN_THREAD.to_owned()) } else { Ok(()) }
    }

    fn send(&self, command: Command) {
        if self.notifier.is_forked() {
            // The parent's thread would never read it, and whoever waits for a reply gets none.
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

    /// Writes frames, one after the other, and waits until they are durable. If one is refused, so are those behind it.
    pub(crate) fn commit(&self, frames: impl Into<Vec<FrameBuilder>>) -> Result<(), String> {
        self.may_wait()?;
        let (told, hears) = sync_channel(1);
        self.send(Command::Commit(frames.into(), told));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        hears.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// Writes the committed offsets of all groups, and waits until they are durable.
    pub(crate) fn commit_offsets(&self) -> Result<(), String> {
        self.may_wait()?;
        let (told, hears) = sync_channel(1);
        // A member that was fenced in the middle of a commit may have marked an offset as moved without a signal.
        self.committed_offsets.look_at_all();
        self.send(Command::CommittedOffsets(told));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        hears.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// Deletes everything that the journal has of a topic, and waits until that is durable.
    pub(crate) fn forget(&self, topic: u32, name: &str) -> Result<(), String> {
        self.may_wait()?;
        let (told, hears) = sync_channel(1);
        self.send(Command::Forget(topic, name.to_owned(), told));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        hears.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// Sets a topic's retention.
    pub(crate) fn keep(&self, topic: u32, retention: Retention) {
        self.send(Command::Keep(topic, retention));
    }

    /// Has the thread delete the records that no topic's retention keeps. The receiver gets the outcome.
    pub(crate) fn retain_soon(&self) -> Receiver<Result<Freed, WriteError>> {
        let (told, hears) = sync_channel(1);
        self.send(Command::Retain(told));
        hears
    }

    /// Waits for the turn to hand a transaction over. None if the calling thread has the turn already: code that runs during
    /// a commit has called this.
    pub(crate) fn transaction_turn(&self) -> Option<TurnGuard<()>> {
        self.transaction_turn.take()
    }

    /// Hands a transaction over, ends the turn `order`, and waits until the transaction is durable or refused.
    pub(crate) fn transact(&self, order: TurnGuard<()>, mut transaction: TransactionFrame) -> TransactionOutcome {
        const OPEN: u8 = 0;
        const DENIED: u8 = 1;
        const DECIDED: u8 = 2;
        if let Err(own) = self.may_wait() {
            return TransactionOutcome::Ended(own);
        }
        let (told, hears) = sync_channel(1);
        let state = Arc::new(AtomicU8::new(OPEN));
        let (decide, decided) = (transaction.decide, Arc::clone(&state));
        transaction.decide = Box::new(move || {
            let yes = decide();
            decided.store(if yes { DECIDED } else { DENIED }, Ordering::Release);
            yes
        });
        self.send(Command::Transaction(Box::new(transaction), told));
        drop(order);
        let ended =
            || self.notifier.end_cause().unwrap_or("the journal was closed, or a topic of it halted").to_owned();
        let reply = hears.recv();
        match (reply, state.load(Ordering::Acquire)) {
            (Ok(Ok(())), _) => TransactionOutcome::Durable,
            (_, DENIED) => TransactionOutcome::Denied,
            (Ok(Err(cause)), DECIDED) => TransactionOutcome::Unknown(cause.to_string()),
            (Err(_), DECIDED) => TransactionOutcome::Unknown(ended()),
            (Ok(Err(refused)), _) => TransactionOutcome::Refused(refused),
            (Err(_), _) => TransactionOutcome::Ended(ended()),
        }
    }

    /// Gives the thread a new partition, whose gate has joined the ring.
    pub(crate) fn add(&self, source: Box<dyn Source>) {
        self.send(Command::Source(source));
    }

    /// Gives the thread a state source.
    pub(crate) fn add_state_source(&self, source: Weak<dyn StateSource>) {
        self.new_state_sources.lock().unwrap_or_else(PoisonError::into_inner).push(source);
        // It may have state already.
        self.notify_state_urgent();
    }

    /// A state source has state that is to be written with the next events, or after 20 ms.
    pub(crate) fn notify_state(&self) {
        if !self.state_pending.swap(true, Ordering::AcqRel) {
            self.state_signalled.store(true, Ordering::Release);
            self.waiter.wake(MultiWait::WAKE);
        }
    }

    /// A state source has state that somebody waits for: it is to be written at once.
    pub(crate) fn notify_state_urgent(&self) {
        self.state_pending.store(true, Ordering::Release);
        if !self.state_urgent.swap(true, Ordering::AcqRel) {
            self.waiter.wake(MultiWait::WAKE);
        }
    }

    /// The most bytes that the journal's state may have.
    pub(crate) fn state_limit(&self) -> usize {
        self.state_limit
    }

    /// The bytes by which the state may grow until half of its limit is used. The other half is kept for writes that must
    /// not fail.
    pub(crate) fn state_to_spare(&self) -> usize {
        self.state_room.load(Ordering::Acquire).saturating_sub(self.state_limit / 2)
    }

    /// Writes everything that is there, closes the journal, and ends the thread. An error says why it could not. Each caller
    /// gets the same, also one that calls later or at the same time.
    pub(crate) fn close(&self, deadline: Option<Instant>) -> Result<(), String> {
        self.may_wait()?;
        // This waits one second longer than the thread itself does.
        let far = || slipring_ring::internal::deadline(Duration::MAX);
        self.send(Command::Close(Some(deadline.unwrap_or_else(far))));
        let deadline = deadline.and_then(|deadline| deadline.checked_add(CLOSE_GRACE));
        let outcome = self.closed.wait(deadline, || self.outcome.get().cloned());
        let forked = || self.notifier.is_forked().then(|| self.notifier.end_cause()).flatten();
        outcome.unwrap_or_else(|| Err(forked().unwrap_or("the journal did not end within the limit").to_owned()))
    }

    /// Has the thread write everything, close the journal and end, and does not wait for that.
    pub(crate) fn leave(&self) {
        self.send(Command::Close(None));
    }

    pub(crate) fn recovered_state(&self) -> MutexGuard<'_, State> {
        self.recovered_state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
