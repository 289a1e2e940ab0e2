//! The thread that writes durable topics down: a gating stage of each of their rings, and one journal for all.
//!
//! ```text
//!   rings --> gather a group --> append --> move the gates, `written` --> hand a sync over --> `durable`
//!                ^                                                             |  one in flight
//!                +------------------------- next group meanwhile <------------+
//! ```
//!
//! # Offsets are never issued twice
//! A ring's producers can claim no further than the committer's gate and the capacity. So the gate is never moved to where
//! that would reach beyond the durable reservation; reservations are asked for long before.
//!
//! # Committed offsets
//! Where groups stand is written with whatever is written next, in the same frame, and so without a sync of its own. If
//! nothing comes, it is written when the journal has been idle for a moment.
//!
//! # State sources
//! State of others rides in the frames of events. Where no event comes it is written when the journal has been idle for a
//! moment, and synced a moment later; what somebody waits for is written at once. State sources are asked when the group is gathered, so they know which events are in the same frame.
//!
//! # Transactions
//! Whoever commits one holds claims in all its partitions, filled and not published, while the committer writes: first
//! everything below the claims, then the frame with their events. When that is durable, the claims are published, and the
//! committer passes over what it has written. One thread at a time takes claims and hands them over, so transactions come in one
//! order in all partitions, and none waits for one behind it.

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
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The name of the committer's stage in each ring.
pub(crate) const STAGE: &str = "journal";

/// How an engine's journal groups and syncs: [`EngineBuilder::journal_pace`](crate::EngineBuilder::journal_pace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pace {
    /// A group is written when it has so many bytes, or when nothing more is there. 1 MiB unless told.
    pub group: usize,
    /// How long a sync may be put off for more events to share it; not at all unless told. A sync that takes its time
    /// gathers a group anyway.
    pub linger: Duration,
    /// Whether groups are synced at all before the journal is closed. Yes unless told. If not, `durable` moves then, and
    /// with each reservation of offsets: 16,777,216 at once, or eight times the capacity, and as far a partition's offsets
    /// may go on further after a crash.
    pub sync: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { group: 1 << 20, linger: Duration::ZERO, sync: true }
    }
}

/// An engine's journal, as its topics see it.
pub(crate) struct Committer {
    pub(crate) journal: Journal,
    pub(crate) notifier: Arc<Notifier>,
    /// What was found at the opening, and the catalogue since.
    pub(crate) recovered_state: Mutex<State>,
    /// None once the thread has ended: what is sent then is dropped, and with it whom to tell.
    pub(super) commands: Mutex<Option<Vec<Command>>>,
    pub(super) has_commands: AtomicBool,
    /// Whether a state source has something.
    pub(super) state_pending: AtomicBool,
    /// The committer is to hear of that.
    pub(super) state_signalled: AtomicBool,
    /// Somebody waits for it.
    pub(super) state_urgent: AtomicBool,
    /// Bytes that the state may still grow by, as of the last frame, and all that it may have.
    pub(super) state_room: AtomicUsize,
    pub(super) state_limit: usize,
    pub(super) waiter: Arc<Waiter>,
    pub(super) closed: Arc<Notifier>,
    /// Whoever has it takes a transaction's claims and hands it over. Reading the clock and `Persist` are the user's code: so it
    /// is no lock.
    pub(super) transaction_turn: Arc<Turn<()>>,
    /// Whether groups are synced.
    pub(crate) syncs: bool,
    pub(crate) transform_offsets: TransformOffsets,
    pub(crate) producer_states: ProducerStates,
    pub(crate) committed_offsets: CommittedOffsets,
}

/// How long a journal that has stopped waiting for claims may take to close.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// A transaction, handed over: its claims are held until the reply.
pub(crate) struct TransactionFrame {
    pub(crate) parts: Vec<ClaimedRun>,
    pub(crate) frame: FrameBuilder,
    /// The last word, when nothing but the disk can refuse the frame any more.
    pub(crate) decide: Box<dyn FnOnce() -> bool + Send>,
}

/// Offsets of a partition, claimed and not published.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimedRun {
    pub(crate) id: PartitionId,
    pub(crate) first: u64,
    pub(crate) end: u64,
}

/// What became of a transaction.
pub(crate) enum TransactionOutcome {
    Durable,
    /// Nothing was written.
    Refused(WriteError),
    /// `decide` said no: nothing was written.
    Denied,
    /// The journal ended before it wrote anything.
    Ended(String),
    /// The disk failed on it.
    Unknown(String),
}

pub(super) enum Command {
    Source(Box<dyn Source>),
    StateSource(Weak<dyn StateSource>),
    /// A frame of its own, and who waits for it to be durable.
    Commit(FrameBuilder, SyncSender<Result<(), WriteError>>),
    /// What a topic keeps, by its number.
    Keep(u32, Retention),
    /// Forgets what no topic keeps.
    Retain(SyncSender<Result<Freed, WriteError>>),
    Transaction(Box<TransactionFrame>, SyncSender<Result<(), WriteError>>),
    /// The number and name of a topic that is no more, and who waits for that to be durable.
    Forget(u32, String, SyncSender<Result<(), WriteError>>),
    /// Where groups stand by now, and who waits for that to be durable.
    CommittedOffsets(SyncSender<Result<(), WriteError>>),
    /// All that is there, then the end.
    Close(SyncSender<Result<(), WriteError>>, Option<Instant>),
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
                // If that fails, so does what is written next.
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

    /// The journal's own threads would wait for themselves.
    pub(crate) fn may_wait(&self) -> Result<(), String> {
        if self.notifier.is_own_thread() { Err(OWN_THREAD.to_owned()) } else { Ok(()) }
    }

    fn send(&self, command: Command) {
        if self.notifier.is_forked() {
            // Nobody would read it, and whoever waits for an answer gets none.
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

    /// Writes a frame and waits until it is durable.
    pub(crate) fn commit(&self, frame: FrameBuilder) -> Result<(), String> {
        self.may_wait()?;
        let (told, hears) = sync_channel(1);
        self.send(Command::Commit(frame, told));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        hears.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// Writes where groups stand by now, and waits until it is durable.
    pub(crate) fn commit_offsets(&self) -> Result<(), String> {
        self.may_wait()?;
        let (told, hears) = sync_channel(1);
        // Who was fenced in the middle of a commit may have moved the committed offset that the caller moved since.
        self.committed_offsets.look_at_all();
        self.send(Command::CommittedOffsets(told));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        hears.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// Forgets all that the journal has of a topic, and waits until that is durable.
    pub(crate) fn forget(&self, topic: u32, name: &str) -> Result<(), String> {
        self.may_wait()?;
        let (told, hears) = sync_channel(1);
        self.send(Command::Forget(topic, name.to_owned(), told));
        let ended = || self.notifier.end_cause().unwrap_or("the journal was closed").to_owned();
        hears.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// What a topic keeps from now on.
    pub(crate) fn keep(&self, topic: u32, retention: Retention) {
        self.send(Command::Keep(topic, retention));
    }

    /// Has what is too old or too much forgotten, soon.
    pub(crate) fn retain_soon(&self) -> Receiver<Result<Freed, WriteError>> {
        let (told, hears) = sync_channel(1);
        self.send(Command::Retain(told));
        hears
    }

    /// Waits for its turn. None if the calling thread is taking claims: the code that runs meanwhile asks.
    pub(crate) fn transaction_turn(&self) -> Option<TurnGuard<()>> {
        self.transaction_turn.take()
    }

    /// Hands a transaction over, which `order` is then dropped for, and waits until it is durable or nothing.
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

    /// Takes a new partition, whose gate has joined.
    pub(crate) fn add(&self, source: Box<dyn Source>) {
        self.send(Command::Source(source));
    }

    /// Takes somebody whose state rides with groups.
    pub(crate) fn add_state_source(&self, source: Weak<dyn StateSource>) {
        self.send(Command::StateSource(source));
    }

    /// A state source has something that is to be written with the next events, or in a moment.
    pub(crate) fn notify_state(&self) {
        if !self.state_pending.swap(true, Ordering::AcqRel) {
            self.state_signalled.store(true, Ordering::Release);
            self.waiter.wake(MultiWait::WAKE);
        }
    }

    /// A state source has something that somebody waits for.
    pub(crate) fn notify_state_urgent(&self) {
        self.state_pending.store(true, Ordering::Release);
        if !self.state_urgent.swap(true, Ordering::AcqRel) {
            self.waiter.wake(MultiWait::WAKE);
        }
    }

    /// Bytes that the state may have.
    pub(crate) fn state_limit(&self) -> usize {
        self.state_limit
    }

    /// Bytes by which the state may grow before half of what it may have is taken, so that the rest is left to what must
    /// not fail.
    pub(crate) fn state_to_spare(&self) -> usize {
        self.state_room.load(Ordering::Acquire).saturating_sub(self.state_limit / 2)
    }

    /// Writes what is there, closes the journal in good order, and ends the thread; an error says why it could not.
    pub(crate) fn close(&self, deadline: Option<Instant>) -> Result<(), String> {
        self.may_wait()?;
        let (told, hears) = sync_channel(1);
        // Waited for a little longer than it waits itself.
        let far = || slipring_ring::internal::deadline(Duration::MAX);
        self.send(Command::Close(told, Some(deadline.unwrap_or_else(far))));
        let deadline = deadline.and_then(|deadline| deadline.checked_add(CLOSE_GRACE));
        let outcome = self.closed.wait(deadline, || match hears.try_recv() {
            Ok(outcome) => Some(outcome.map_err(|refused| refused.to_string())),
            Err(std::sync::mpsc::TryRecvError::Disconnected) => {
                Some(Err(self.notifier.end_cause().unwrap_or("the journal was closed before").to_owned()))
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => None,
        });
        outcome.unwrap_or_else(|| Err("the journal did not end within the limit".to_owned()))
    }

    /// What is there is written and closed, and nobody waits for it.
    pub(crate) fn leave(&self) {
        let (told, _) = sync_channel(1);
        self.send(Command::Close(told, None));
    }

    pub(crate) fn recovered_state(&self) -> MutexGuard<'_, State> {
        self.recovered_state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
