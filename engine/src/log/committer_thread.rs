//! The committer's thread: the loop that gathers events, writes them in frames, and has the sync thread sync these.

mod commands;
mod offsets;
mod sync;
mod sync_thread;

use sync_thread::{PendingProgress, Replies, Reply, SyncDone, SyncRequest, start_syncs};

use super::committer::{ClaimedRun, Command, Committer, Pace, TransactionFrame};
use super::source::{FrameContext, Source, StateRoom, StateSource};
use crate::base::clock::Clock;
use crate::base::multi_wait::{MultiWait, WaitEnd, WaitSources};
use crate::base::threads::caught;
use crate::log::compaction::TopicCompaction;
use crate::log::producers::TouchedProducers;
use crate::log::progress::Progress;
use slipring_journal::{FrameBuilder, PartitionId, Retention, WriteError, Writer};
use slipring_ring::{Wait, Waiter};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The partitions that the committer reads, at the indexes by which its [`MultiWait`] names them; `None` at a free
/// index.
struct Sources {
    list: Vec<Option<Box<dyn Source>>>,
    interrupted: Arc<Committer>,
}

impl Sources {
    fn of(&mut self, id: PartitionId) -> Option<&mut Box<dyn Source>> {
        self.list.iter_mut().flatten().find(|source| source.id() == id)
    }
}

impl WaitSources for Sources {
    fn look(&mut self, source: usize, looks: u32) -> bool {
        self.list[source].as_mut().is_some_and(|source| source.look(looks))
    }

    fn arm(&mut self, source: usize, waiter: &Waiter) -> bool {
        self.list[source].as_mut().is_none_or(|rings| rings.arm(waiter, source))
    }

    fn is_interrupted(&self) -> bool {
        let Committer { has_commands, state_signalled, state_urgent, committed_offsets, .. } = &*self.interrupted;
        let has = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        has(has_commands) || has(state_signalled) || has(state_urgent) || committed_offsets.is_signalled()
    }
}

/// The state of the committer's thread.
pub(super) struct CommitterThread {
    shared: Arc<Committer>,
    writer: Option<Writer>,
    clock: Arc<dyn Clock>,
    pace: Pace,
    sources: Sources,
    watch: MultiWait,
    frame: FrameBuilder,
    touched: TouchedProducers,
    /// The progress that the next sync makes durable: that of all frames written since the last sync began.
    pending: Vec<PendingProgress>,
    replies: Replies,
    syncs: Sender<SyncRequest>,
    done: Receiver<SyncDone>,
    in_flight: bool,
    dirty_since: Option<Instant>,
    /// When the thread first saw a changed committed offset that is not written yet; `None` if all are written.
    moved_since: Option<Instant>,
    /// The time of the oldest unsynced write that no thread waits for; `None` if there is none.
    lazy_since: Option<Instant>,
    /// When the thread first saw that a state source has unwritten state; `None` if none has.
    state_since: Option<Instant>,
    /// True if the next `gather` writes the state of the state sources even if there are no events.
    drains_state: bool,
    state_sources: Vec<Weak<dyn StateSource>>,
    /// True if a state source must be asked again when more events are gathered: see
    /// [`DrainedState::awaits_events`](super::source::DrainedState::awaits_events).
    state_awaits_events: bool,
    /// The room in bytes that the journal's state had when a state source found too little of it for its changes. The
    /// sources are asked again when there is more. `None` if no source waits for room.
    state_starved: Option<usize>,
    /// The retention of each topic, by the topic's number in the journal.
    keeps: HashMap<u32, Retention>,
    /// The compaction of each topic that has one, by the topic's number in the journal.
    compactions: BTreeMap<u32, Arc<TopicCompaction>>,
    /// The transactions that are not written yet, in the order of their claims.
    transactions: VecDeque<(Box<TransactionFrame>, Reply)>,
    /// `Some` once the journal is to be closed. The inner time is the moment until which the close waits for the topics
    /// to end; `None`: it does not wait.
    closing: Option<Option<Instant>>,
}

/// How long changed committed offsets, or changed state of state sources, wait for a frame with events before they are
/// written in a frame without events.
const IDLE: Duration = Duration::from_millis(20);

/// How long the journal is idle before it writes a mark that all records are durable. The next frame says that too, so
/// the mark is needed only if no frame follows. Without this delay a topic with a few events a second would cost two
/// syncs for each event.
const MARK: Duration = Duration::from_secs(1);

/// How long a write that no thread waits for may stay unsynced. The sync of the next event covers it, so a topic with a
/// few events a second, each of which a group commits or a queue leases, does not cost two syncs for each event.
const LAZY: Duration = MARK;

/// The interval at which a closing journal checks if the outstanding claims were published or dropped.
const CLAIMS_OUT: Duration = Duration::from_millis(10);

/// The interval at which the thread checks if all slots below a transaction's claims were published.
const BELOW_CLAIMS: Duration = Duration::from_millis(1);

impl CommitterThread {
    pub(super) fn new(
        shared: Arc<Committer>,
        writer: Writer,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> Result<Self, std::io::Error> {
        let compactions = TopicCompaction::all(&shared.recovered_state());
        let (syncs, done) = start_syncs(Arc::clone(&shared.notifier), Arc::clone(&shared.waiter))?;
        Ok(Self {
            watch: MultiWait::new(Wait::default(), Arc::clone(&shared.waiter)).sparing(),
            sources: Sources { list: Vec::new(), interrupted: Arc::clone(&shared) },
            shared,
            writer: Some(writer),
            clock,
            pace,
            frame: FrameBuilder::new(),
            touched: TouchedProducers::default(),
            pending: Vec::new(),
            replies: Vec::new(),
            syncs,
            done,
            in_flight: false,
            dirty_since: None,
            moved_since: None,
            lazy_since: None,
            state_since: None,
            drains_state: false,
            state_sources: Vec::new(),
            state_awaits_events: false,
            state_starved: None,
            keeps: HashMap::new(),
            compactions,
            transactions: VecDeque::new(),
            closing: None,
        })
    }

    pub(super) fn run(mut self) {
        self.shared.notifier.enter();
        // The clock and the wakers of tasks are user code, which may panic.
        let outcome = caught(|| self.work()).unwrap_or_else(|panic| {
            let cause = std::io::Error::other(panic.to_string());
            Err(WriteError::Poisoned(slipring_journal::DiskError::new("write", "an event", &cause)))
        });
        let cause = match &outcome {
            Ok(()) => "the journal was closed".to_owned(),
            Err(refused) => refused.to_string(),
        };
        // The rings fail first: a producer that gets an unknown outcome for its receipt must find its topic failed.
        let open = self.sources.list.iter().flatten().filter(|source| outcome.is_err() || !source.is_closed());
        let open: Vec<_> = open.collect();
        open.iter().for_each(|source| source.announce_failure(&cause));
        open.iter().for_each(|source| source.fail(&cause));
        // Threads that wait for the journal get the cause after the rings have failed.
        self.shared.notifier.end(cause.clone());
        if let Err(refused) = &outcome {
            for reply in self.replies.drain(..) {
                let _ = reply.send(Err(refused.clone()));
            }
        }
        // A thread that is notified of the end may open the journal again at once, so the running sync must be over
        // first.
        if self.in_flight {
            let _ = self.done.recv();
        }
        drop(self.writer.take());
        let held = self.shared.held_state_sources.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The messages of a dropped queue are of the users' types, whose drops may panic.
        let _ = caught(|| drop(held));
        let commands = self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).take();
        for command in commands.into_iter().flatten() {
            match (command, &outcome) {
                (Command::Source(source), _) => source.fail(&cause),
                (
                    Command::Commit(_, reply)
                    | Command::Forget(_, _, reply)
                    | Command::Transaction(_, reply)
                    | Command::CommittedOffsets(reply),
                    Err(refused),
                ) => {
                    let _ = reply.send(Err(refused.clone()));
                }
                _ => {}
            }
        }
        let _ = self.shared.outcome.set(outcome.map_err(|refused| refused.to_string()));
        self.shared.closed.notify();
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("taken when the journal is closed only")
    }

    fn now(&self) -> u64 {
        self.clock.wall().as_nanos()
    }

    /// The thread's loop, until the journal is closed or fails.
    fn work(&mut self) -> Result<(), WriteError> {
        loop {
            self.take_commands()?;
            self.gather(None)?;
            self.transact()?;
            self.sync(false)?;
            if let Some(until) = self.closing {
                return self.close(until);
            }
            let waits = !self.transactions.is_empty();
            let idle = self.writer().wants_mark() && !self.in_flight && !waits;
            // If the end of the linger is beyond the clock's range, there is no deadline: the sync is then started by a
            // thread that waits for it, or by the close.
            let linger = self.dirty_since.and_then(|since| since.checked_add(self.pace.linger));
            let lazy = self.lazy_since.map(|since| since + LAZY).filter(|_| self.pace.sync);
            let linger = linger.into_iter().chain(lazy).min().filter(|_| !self.in_flight);
            let mark = idle.then(|| Instant::now() + MARK);
            let deadline = linger.or(mark);
            // A producer may drop a claim below the first transaction's claims, which lets the transaction be written.
            // The drop wakes no thread, so this thread checks at this interval.
            let soon = waits.then(|| Instant::now() + BELOW_CLAIMS);
            let moved = self.shared.committed_offsets.take_signal();
            self.moved_since = moved.then(|| self.moved_since.unwrap_or_else(Instant::now));
            let alone = self.moved_since.map(|since| since + IDLE);
            // A state source changes its state before it signals, so the flag is cleared before the state is read.
            self.shared.state_signalled.store(false, Ordering::Release);
            let state_pending = self.shared.state_pending.load(Ordering::Acquire);
            self.state_since = state_pending.then(|| self.state_since.unwrap_or_else(Instant::now));
            let state_due = self.state_since.map(|since| since + IDLE);
            let deadline = [deadline, soon, alone, state_due].into_iter().flatten().min();
            match self.watch.next(&mut self.sources, false, deadline) {
                WaitEnd::Source(source) => self.gather(Some(source))?,
                WaitEnd::Interrupted => {}
                WaitEnd::Nothing if state_due.is_some_and(|at| at <= Instant::now()) => {
                    self.drains_state = true;
                    self.gather(None)?;
                }
                WaitEnd::Nothing if alone.is_some_and(|alone| alone <= Instant::now()) => {
                    let _ = self.write_committed_offsets()?;
                }
                WaitEnd::Nothing
                    if mark.is_some_and(|at| at <= Instant::now())
                        && self.dirty_since.is_none()
                        && self.lazy_since.is_none() =>
                {
                    let now = self.now();
                    self.writer().mark(now)?;
                    self.dirty_since = Some(Instant::now());
                }
                WaitEnd::Nothing => {}
            }
            self.transact()?;
            self.sync(false)?;
        }
    }

    /// Writes the waiting transactions in the order of their claims, up to the first one with unwritten events below
    /// its claims.
    fn transact(&mut self) -> Result<(), WriteError> {
        while let Some((transaction, _)) = self.transactions.front() {
            let mut is_turn = true;
            let mut is_gone = false;
            for run in &transaction.parts {
                match self.sources.of(run.id) {
                    Some(source) => is_turn &= source.reaches(run.first),
                    None => is_gone = true,
                }
            }
            if !is_turn && !is_gone {
                return Ok(());
            }
            let Some((transaction, reply)) = self.transactions.pop_front() else { return Ok(()) };
            if is_gone {
                // A topic of the transaction was halted or has failed. Dropping the reply notifies the sender that
                // nothing was written.
                continue;
            }
            let TransactionFrame { parts, mut frame, decide } = *transaction;
            self.free_first(frame.len())?;
            let now = self.now();
            match self.writer().append_if(&mut frame, now, decide) {
                Ok(true) => {
                    self.note_state_room();
                    self.dirty_since.get_or_insert_with(Instant::now);
                    for ClaimedRun { id, first, end } in parts {
                        let Some(source) = self.sources.of(id) else { continue };
                        source.pass_over(first, end);
                        let progress = Arc::clone(source.progress());
                        self.pending.push(PendingProgress { progress, durable: Some(end), reserved: None });
                    }
                    self.replies.push(reply);
                }
                Ok(false) => {}
                Err(poisoned @ WriteError::Poisoned(_)) => {
                    let _ = reply.send(Err(poisoned.clone()));
                    return Err(poisoned);
                }
                Err(refused) => {
                    let _ = reply.send(Err(refused));
                }
            }
        }
        Ok(())
    }

    /// Gathers published events up to the size of [`Pace::group`], and writes them as one frame, with the state that
    /// belongs into it. `first` is the source to read first; `None` if any may be first.
    fn gather(&mut self, first: Option<usize>) -> Result<(), WriteError> {
        let writer = self.writer.as_ref().expect("taken when the journal is closed only");
        // The budget is at most a quarter of the largest frame, which leaves room for one more event of up to half a
        // frame and for the states of the producers.
        let budget = self.pace.group.min(writer.frame_limit() / 4).max(1);
        let mut drained = Vec::new();
        let mut next = first;
        while self.frame.len() < budget && !self.touched.is_full(writer.frame_limit()) {
            let source = match next.take() {
                Some(source) => source,
                None => match self.watch.next(&mut self.sources, true, None) {
                    WaitEnd::Source(source) => source,
                    _ => break,
                },
            };
            if let Some(rings) = &mut self.sources.list[source] {
                let (frame, producer_states, touched) =
                    (&mut self.frame, &self.shared.producer_states, &mut self.touched);
                rings.drain(FrameContext { frame, producer_states, touched }, budget, writer);
                drained.push(source);
                if let Some(cause) = rings.failed() {
                    let topic = rings.id().topic;
                    let of_topic = self.sources.list.iter().flatten().filter(|source| source.id().topic == topic);
                    of_topic.clone().for_each(|source| source.announce_failure(&cause));
                    of_topic.for_each(|source| source.fail(&cause));
                    break;
                }
                if rings.is_over() {
                    break;
                }
            }
        }
        let has_events = !self.frame.is_empty();
        let now = self.clock.wall();
        if has_events {
            self.touched.put(&mut self.frame, now);
        }
        let (urgent, state_written) = self.drain_state_sources(!drained.is_empty(), has_events);
        let has_news = !self.frame.is_empty() || !drained.is_empty() || !state_written.is_empty();
        if !self.frame.is_empty() {
            let _ = self.put_committed_offsets()?;
            self.free_first(self.frame.len())?;
            let writer = self.writer.as_mut().expect("taken when the journal is closed only");
            writer.append(&mut self.frame, now.as_nanos())?;
            self.note_state_room();
            let since = if has_events || urgent { &mut self.dirty_since } else { &mut self.lazy_since };
            since.get_or_insert_with(Instant::now);
        } else if urgent && self.lazy_since.is_some() {
            self.dirty_since.get_or_insert_with(Instant::now);
        }
        for (progress, changes) in state_written {
            progress.written.fetch_max(changes, Ordering::Release);
            progress.wake();
            self.pending.push(PendingProgress { progress, durable: Some(changes), reserved: None });
        }
        for source in drained {
            let Some(rings) = &mut self.sources.list[source] else { continue };
            let (durable, reserved) = (rings.written(), rings.reserves());
            rings.progress().wake();
            if durable.is_some() || reserved.is_some() {
                let progress = Arc::clone(rings.progress());
                self.pending.push(PendingProgress { progress, durable, reserved });
            }
            if rings.is_over() {
                // The source's last events are not synced yet. `pending` keeps the source's progress until they are.
                self.watch.remove(source);
                let (id, issued) = (rings.id(), rings.issued());
                self.writer.as_mut().expect("taken when the journal is closed only").note_issued(id, issued);
                self.sources.list[source] = None;
            }
        }
        if has_news {
            // A woken queue may signal this thread, which would wake it again, without end, if nothing had changed.
            self.shared.notifier.notify();
        }
        Ok(())
    }

    /// Adds the state of the state sources to the frame. `drained`: true if events were read from a partition;
    /// `has_events`: true if the frame has events. Returns true if a thread waits until that state is durable; and, for
    /// each state source with changes in the frame, its progress and the number of the last change.
    fn drain_state_sources(&mut self, drained: bool, has_events: bool) -> (bool, Vec<(Arc<Progress>, u64)>) {
        let (mut urgent, mut state_written) = (false, Vec::new());
        let expected = drained && self.state_awaits_events;
        // A thread sets the flag before it begins to wait, so no waiting thread is missed.
        let now = self.shared.state_urgent.swap(false, Ordering::AcqRel) || std::mem::take(&mut self.drains_state);
        let takes = (has_events || now) && self.shared.state_pending.swap(false, Ordering::AcqRel);
        if !takes && !expected {
            return (urgent, state_written);
        }
        self.state_since = None;
        let writer = self.writer.as_ref().expect("taken when the journal is closed only");
        let mut more = false;
        self.state_awaits_events = false;
        let Self { state_sources, frame, sources, state_awaits_events, shared, .. } = self;
        state_sources.append(&mut shared.new_state_sources.lock().unwrap_or_else(PoisonError::into_inner));
        state_sources.retain(|source| {
            let Some(source) = source.upgrade() else { return false };
            let room = StateRoom::beside(frame, writer);
            let mut drained = |id| sources.of(id).map(|source| source.drained());
            let state = source.drain(frame, room, &mut drained);
            urgent |= state.urgent;
            more |= state.more;
            *state_awaits_events |= state.awaits_events;
            state_written.extend(state.changes.map(|changes| (Arc::clone(source.progress()), changes)));
            // This may be the last reference, and the messages of a queue are of the users' types, whose drops may
            // panic.
            let _ = caught(|| drop(source));
            true
        });
        match more {
            // Without a frame nothing changes, so the sources would find no more room if they were asked again at once.
            true if self.frame.is_empty() => self.state_starved = Some(writer.state_room()),
            true => self.shared.notify_state_urgent(),
            false => self.state_starved = None,
        }
        (urgent, state_written)
    }

    /// Writes all remaining events, then closes the journal. With `until`, first waits, at most until then, until every
    /// topic has ended. Without `until`, closes all sources at once.
    fn close(&mut self, until: Option<Instant>) -> Result<(), WriteError> {
        if until.is_none() {
            self.sources.list.iter().flatten().for_each(|source| source.close());
        }
        loop {
            let before = self.writer().journal().written();
            // Commands that were sent before the close are executed. A second close gets the result of the first.
            self.take_commands()?;
            self.drains_state = true;
            self.gather(None)?;
            self.transact()?;
            let _ = self.write_committed_offsets()?;
            self.sync(true)?;
            if self.writer().journal().written() != before {
                continue;
            }
            // A pass that has written nothing does not prove that all events are written: a claim may still be
            // published, or a transaction may still wait for the claims below its own.
            let is_over =
                self.transactions.is_empty() && self.sources.list.iter().flatten().all(|source| source.is_over());
            let Some(until) = until.filter(|until| !is_over && *until > Instant::now()) else { break };
            let soon = until.min(Instant::now() + CLAIMS_OUT);
            if let WaitEnd::Source(source) = self.watch.next(&mut self.sources, false, Some(soon)) {
                self.gather(Some(source))?;
            }
        }
        self.sync(true)?;
        let now = self.now();
        let Some(mut writer) = self.writer.take() else { return Ok(()) };
        self.sources.list.iter().flatten().for_each(|source| writer.note_issued(source.id(), source.issued()));
        writer.close(now)?;
        self.shared.notifier.notify();
        Ok(())
    }
}
