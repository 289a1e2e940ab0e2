//! The thread that writes durable topics down: a gating stage of each of their rings, and one journal for all.
//!
//! ```text
//!   rings --> gather a group --> append --> move the gates, `written` --> hand a sync over --> `durable`
//!                ^                                                             |  one in flight
//!                +------------------------- next group meanwhile <------------+
//! ```
//!
//! # Offsets are never issued twice
//! A ring's producers can claim no further than the journaler's gate and the capacity. So the gate is never moved to where
//! that would reach beyond the durable reservation; reservations are asked for long before.
//!
//! # Committed offsets
//! Where groups stand is written with whatever is written next, in the same frame, and so without a sync of its own. If
//! nothing comes, it is written when the journal has been idle for a moment.
//!
//! # Riders
//! State of others rides in the frames of events. What rides alone is written at once and synced a moment later, unless
//! somebody waits for it. Riders are asked when the group is gathered, so they know which events are in the same frame.
//!
//! # Transactions
//! Whoever commits one holds claims in all its partitions, filled and not published, while the journaler writes: first
//! everything below the claims, then the frame with their events. When that is durable, the claims are published, and the
//! journaler passes over what it has written. Claims are taken and handed over under one lock, so transactions come in one
//! order in all partitions, and none waits for one behind it.

use crate::acks::{Bell, Positions};
use crate::clock::Clock;
use crate::durable::what;
use crate::group::Bookmarks;
use crate::journal::{FrameBuilder, Freed, Journal, PartitionId, Retention, State, SyncJob, WriteError, Writer};
use crate::ledger::{Ledgers, Touched};
use crate::partition::Partition;
use crate::persist::Persistence;
use crate::producer::Producers;
use crate::threads::caught;
use crate::transform::Standings;
use crate::watch::{Found, Watch, Watched};
use slipring_ring::{Consumer, Sequence, Wait, Waiter};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

/// The name of the journaler's stage in each ring.
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
    /// Whether groups are synced at all before the journal is closed. If not, `durable` moves then only. Yes unless told.
    pub sync: bool,
}

impl Default for Pace {
    fn default() -> Self {
        Self { group: 1 << 20, linger: Duration::ZERO, sync: true }
    }
}

/// An engine's journal, as its topics see it.
pub(crate) struct Journaling {
    pub(crate) journal: Journal,
    pub(crate) bell: Arc<Bell>,
    /// What was found at the opening, and the catalogue since.
    pub(crate) catalogue: Mutex<State>,
    /// None once the thread has ended: what is sent then is dropped, and with it whom to tell.
    mail: Mutex<Option<Vec<Mail>>>,
    has_mail: AtomicBool,
    /// Whether a rider has something.
    rides: AtomicBool,
    /// Bytes that the state may still grow by, as of the last frame, and all that it may have.
    state_room: AtomicUsize,
    state_limit: usize,
    waiter: Arc<Waiter>,
    over: Arc<Bell>,
    /// Held from a transaction's first claim until it is handed over.
    order: Mutex<()>,
    pub(crate) standings: Standings,
    pub(crate) ledgers: Ledgers,
    pub(crate) bookmarks: Bookmarks,
}

/// A transaction, handed over: its claims are held until the reply.
pub(crate) struct Handed {
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
pub(crate) enum Outcome {
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

enum Mail {
    Source(Box<dyn Source>),
    Rider(Weak<dyn Rider>),
    /// A frame of its own, and who waits for it to be durable.
    Commit(FrameBuilder, SyncSender<Result<(), WriteError>>),
    /// What a topic keeps, by its number.
    Keep(u32, Retention),
    /// Forgets what no topic keeps.
    Retain(SyncSender<Result<Freed, WriteError>>),
    Transaction(Box<Handed>, SyncSender<Result<(), WriteError>>),
    /// Where groups stand by now, and who waits for that to be durable.
    Bookmarks(SyncSender<Result<(), WriteError>>),
    /// All that is there, then the end.
    Close(SyncSender<Result<(), WriteError>>),
}

impl Journaling {
    pub(crate) fn start(
        writer: Writer,
        state: State,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> Result<Arc<Self>, std::io::Error> {
        let journal = writer.journal();
        let no_epoch_check = journal.shared.options.sabotage().no_epoch_check;
        let standings = Standings::new(no_epoch_check);
        let shared = Arc::new(Self {
            journal,
            bell: Arc::default(),
            catalogue: Mutex::new(state),
            mail: Mutex::new(Some(Vec::new())),
            has_mail: AtomicBool::new(false),
            rides: AtomicBool::new(false),
            state_room: AtomicUsize::new(writer.state_room()),
            state_limit: writer.state_limit(),
            waiter: Arc::new(Waiter::new()),
            over: Arc::default(),
            order: Mutex::default(),
            standings,
            ledgers: Ledgers::default(),
            bookmarks: Bookmarks::default(),
        });
        let journaler = Journaler::new(Arc::clone(&shared), writer, clock, pace)?;
        std::thread::Builder::new().name("slipring-journal".to_owned()).spawn(move || journaler.run())?;
        Ok(shared)
    }

    fn send(&self, mail: Mail) {
        if let Some(letters) = &mut *self.mail.lock().unwrap_or_else(PoisonError::into_inner) {
            letters.push(mail);
        } else if let Mail::Source(source) = mail {
            source.fail(self.bell.over().unwrap_or("the journal was closed"));
        }
        self.has_mail.store(true, Ordering::Release);
        self.waiter.wake(Watch::WAKE);
    }

    /// Writes a frame and waits until it is durable.
    pub(crate) fn commit(&self, frame: FrameBuilder) -> Result<(), String> {
        let (told, hears) = sync_channel(1);
        self.send(Mail::Commit(frame, told));
        let ended = || self.bell.over().unwrap_or("the journal was closed").to_owned();
        hears.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// A group has moved on: it is written with what comes next.
    pub(crate) fn bookmark_moved(&self) {
        if self.bookmarks.note() {
            self.waiter.wake(Watch::WAKE);
        }
    }

    /// Writes where groups stand by now, and waits until it is durable.
    pub(crate) fn commit_bookmarks(&self) -> Result<(), String> {
        let (told, hears) = sync_channel(1);
        self.send(Mail::Bookmarks(told));
        let ended = || self.bell.over().unwrap_or("the journal was closed").to_owned();
        hears.recv().map_err(|_| ended())?.map_err(|refused| refused.to_string())
    }

    /// What a topic keeps from now on.
    pub(crate) fn keep(&self, topic: u32, retention: Retention) {
        self.send(Mail::Keep(topic, retention));
    }

    /// Has what is too old or too much forgotten, soon.
    pub(crate) fn retain_soon(&self) -> Receiver<Result<Freed, WriteError>> {
        let (told, hears) = sync_channel(1);
        self.send(Mail::Retain(told));
        hears
    }

    pub(crate) fn order(&self) -> MutexGuard<'_, ()> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a transaction over, which `order` is then dropped for, and waits until it is durable or nothing.
    pub(crate) fn transact(&self, order: MutexGuard<'_, ()>, mut handed: Handed) -> Outcome {
        const OPEN: u8 = 0;
        const DENIED: u8 = 1;
        const DECIDED: u8 = 2;
        let (told, hears) = sync_channel(1);
        let state = Arc::new(AtomicU8::new(OPEN));
        let (decide, decided) = (handed.decide, Arc::clone(&state));
        handed.decide = Box::new(move || {
            let yes = decide();
            decided.store(if yes { DECIDED } else { DENIED }, Ordering::Release);
            yes
        });
        self.send(Mail::Transaction(Box::new(handed), told));
        drop(order);
        let ended = || self.bell.over().unwrap_or("the journal was closed, or a topic of it halted").to_owned();
        let reply = hears.recv();
        match (reply, state.load(Ordering::Acquire)) {
            (Ok(Ok(())), _) => Outcome::Durable,
            (_, DENIED) => Outcome::Denied,
            (Ok(Err(cause)), DECIDED) => Outcome::Unknown(cause.to_string()),
            (Err(_), DECIDED) => Outcome::Unknown(ended()),
            (Ok(Err(refused)), _) => Outcome::Refused(refused),
            (Err(_), _) => Outcome::Ended(ended()),
        }
    }

    /// Takes a new partition, whose gate has joined.
    pub(crate) fn add(&self, source: Box<dyn Source>) {
        self.send(Mail::Source(source));
    }

    /// Takes somebody whose state rides with groups.
    pub(crate) fn add_rider(&self, rider: Weak<dyn Rider>) {
        self.send(Mail::Rider(rider));
    }

    /// A rider has something to be written.
    pub(crate) fn ride(&self) {
        if !self.rides.swap(true, Ordering::AcqRel) {
            self.waiter.wake(Watch::WAKE);
        }
    }

    /// Bytes by which the state may grow before half of what it may have is taken, so that the rest is left to what must
    /// not fail.
    pub(crate) fn state_to_spare(&self) -> usize {
        self.state_room.load(Ordering::Acquire).saturating_sub(self.state_limit / 2)
    }

    /// Writes what is there, closes the journal in good order, and ends the thread; an error says why it could not.
    pub(crate) fn close(&self, deadline: Option<Instant>) -> Result<(), String> {
        let (told, hears) = sync_channel(1);
        self.send(Mail::Close(told));
        let outcome = self.over.wait(deadline, || match hears.try_recv() {
            Ok(outcome) => Some(outcome.map_err(|refused| refused.to_string())),
            Err(std::sync::mpsc::TryRecvError::Disconnected) => {
                Some(Err(self.bell.over().unwrap_or("the journal was closed before").to_owned()))
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => None,
        });
        outcome.unwrap_or_else(|| Err("the journal did not end within the limit".to_owned()))
    }

    /// What is there is written and closed, and nobody waits for it.
    pub(crate) fn leave(&self) {
        let (told, _) = sync_channel(1);
        self.send(Mail::Close(told));
    }

    pub(crate) fn catalogue(&self) -> MutexGuard<'_, State> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a group is gathered into.
pub(crate) struct Gathering<'g> {
    frame: &'g mut FrameBuilder,
    ledgers: &'g Ledgers,
    touched: &'g mut Touched,
}

/// Somebody whose state is written in the frames of events.
pub(crate) trait Rider: Send + Sync {
    /// Puts what has changed into `frame`, up to about `room` bytes. `drained` tells up to where the events of a partition
    /// are in this frame or in earlier ones.
    fn drain(
        &self,
        frame: &mut FrameBuilder,
        room: usize,
        drained: &mut dyn FnMut(PartitionId) -> Option<u64>,
    ) -> Ridden;

    /// How many of its changes are written, and durable.
    fn positions(&self) -> &Arc<Positions>;
}

/// What a rider has put into a frame.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ridden {
    /// All changes up to this number are in this frame or in earlier ones.
    pub(crate) changes: Option<u64>,
    /// There is more, for the next frame.
    pub(crate) more: bool,
    /// Somebody waits until it is durable.
    pub(crate) urgent: bool,
    /// It waits for events to be drained.
    pub(crate) expects: bool,
}

/// One partition of a durable topic, whatever its events.
pub(crate) trait Source: Send {
    fn look(&mut self, looks: u32) -> bool;
    fn arm(&mut self, waiter: &Waiter, token: usize) -> bool;
    /// Puts what is there into `frame`, up to about `budget` bytes, and asks for offsets if they are running out.
    /// Whose events have marks, `gathering` learns.
    fn drain(&mut self, gathering: Gathering<'_>, budget: usize, writer: &Writer);
    /// What was drained is written: gives the slots free. Returns the end, if there was anything.
    fn written(&mut self) -> Option<u64>;
    fn positions(&self) -> &Arc<Positions>;
    fn id(&self) -> PartitionId;
    /// Whether all below `offset` is written, by groups or transactions.
    fn reaches(&mut self, offset: u64) -> bool;
    /// A transaction wrote these offsets, which are claimed and not published.
    fn pass_over(&mut self, first: u64, end: u64);
    /// What it reserves by now, if that has changed since the last call.
    fn reserves(&mut self) -> Option<u64>;
    /// All was read and no more comes, or its reading was cut short.
    /// Whether it waited for a reservation since the last call.
    fn was_blocked(&mut self) -> bool;
    fn is_over(&self) -> bool;
    fn fail(&self, cause: &str);
    /// Up to where its events are in a frame, written or about to be.
    fn drained(&self) -> u64;
}

pub(crate) struct RingSource<E, K: Producers> {
    pub(crate) id: PartitionId,
    pub(crate) partition: Arc<Partition<E, K>>,
    pub(crate) consumer: Option<Consumer<E, K>>,
    pub(crate) persistence: Persistence<E>,
    pub(crate) positions: Arc<Positions>,
    /// Asked for, durable or not.
    pub(crate) reserving: u64,
    pub(crate) reserves: Option<u64>,
    pub(crate) capacity: u64,
    /// Up to where it was read and not written yet.
    pub(crate) drained: Option<u64>,
    /// What was told as written last.
    pub(crate) noted: u64,
    pub(crate) blocked: bool,
    /// What transactions have written at or above the gate, in order.
    pub(crate) ahead: VecDeque<(u64, u64)>,
}

/// How many offsets are reserved at once, at least.
pub(crate) fn reservation(next: u64, capacity: u64) -> u64 {
    next.saturating_add((capacity * 8).max(1 << 16))
}

impl<E, K: Producers> RingSource<E, K> {
    /// How many events may be taken before offsets run out.
    fn room(&mut self) -> usize {
        let Some(consumer) = &self.consumer else { return usize::MAX };
        let limit = self.positions.reserved.load(Ordering::Acquire).saturating_sub(self.capacity);
        let room = usize::try_from(limit.saturating_sub(consumer.consumed().0)).unwrap_or(usize::MAX);
        self.blocked |= room == 0;
        room
    }
}

impl<E: Send + Sync + 'static, K: Producers> Source for RingSource<E, K> {
    fn look(&mut self, looks: u32) -> bool {
        if self.drained.is_some() || self.room() == 0 {
            return false;
        }
        let Some(consumer) = &mut self.consumer else { return false };
        let found = consumer.poll_paced(usize::MAX, looks).map_or(true, |batch| !batch.is_empty());
        // A look passes over slots without an event: they are to be told as written, too.
        found || consumer.consumed().0 != self.noted
    }

    fn arm(&mut self, waiter: &Waiter, token: usize) -> bool {
        if self.room() == 0 {
            // The sync that makes the reservation durable wakes the journaler.
            return true;
        }
        self.consumer.as_mut().is_none_or(|consumer| consumer.arm(waiter, token))
    }

    fn drain(&mut self, gathering: Gathering<'_>, budget: usize, writer: &Writer) {
        let Gathering { frame, ledgers, touched } = gathering;
        let room = self.room();
        let Some(consumer) = &mut self.consumer else { return };
        let from = consumer.consumed();
        let Persistence { write, time, size, .. } = self.persistence;
        let mut end = from.0;
        let mut is_over = false;
        match consumer.poll(room) {
            Ok(mut batch) => {
                let mut ahead = self.ahead.iter().peekable();
                let marks = self.partition.marks_if_any();
                for (offset, event) in &mut batch {
                    while ahead.next_if(|(_, end)| *end <= offset.0).is_some() {}
                    if ahead.peek().is_some_and(|(first, _)| *first <= offset.0) {
                        end = offset.0 + 1;
                        continue;
                    }
                    let at = time(event).map(|at| at.as_nanos());
                    let at = at.or_else(|| Some(self.partition.times.as_ref()?.get(offset.0).as_nanos()));
                    match size {
                        Some(size) => frame.fixed_with(self.id, offset.0, at, size, |out| write(event, out)),
                        None => frame.record_with(self.id, offset.0, at, |out| write(event, out)),
                    }
                    if let Some(mark) = marks.and_then(|marks| marks.get(offset.0)) {
                        touched.note(ledgers, mark, self.id.partition, offset.0);
                    }
                    end = offset.0 + 1;
                    if frame.len() >= budget {
                        break;
                    }
                }
                let read = batch.position();
                // The slots stay as they are until this is written.
                batch.put_back(from);
                if read.0 != self.noted {
                    self.drained = Some(read.0);
                }
            }
            // All was read; or the topic was halted, and what was not read is nobody's.
            Err(_) => is_over = true,
        }
        if is_over {
            self.consumer = None;
            return;
        }
        if end + self.capacity * 4 > self.reserving {
            self.reserving = reservation(end, self.capacity);
            self.reserves = Some(self.reserving);
            writer.reserve(frame, self.id, self.reserving);
        }
    }

    fn written(&mut self) -> Option<u64> {
        let read = self.drained.take()?;
        self.noted = read;
        // A transaction may be ahead.
        self.positions.written.fetch_max(read, Ordering::Release);
        while self.ahead.front().is_some_and(|(_, end)| *end <= read) {
            self.ahead.pop_front();
        }
        if let Some(consumer) = &mut self.consumer {
            let _ = consumer.seek(Sequence(read));
        }
        Some(read)
    }

    fn positions(&self) -> &Arc<Positions> {
        &self.positions
    }

    fn id(&self) -> PartitionId {
        self.id
    }

    fn reaches(&mut self, offset: u64) -> bool {
        let has_room = self.room() > 0;
        let Some(consumer) = &mut self.consumer else { return false };
        if consumer.consumed().0 < offset && has_room {
            // Slots without an event are passed over by a look.
            let _ = consumer.poll(1).map(drop);
        }
        let mut at = consumer.consumed().0;
        for (first, end) in &self.ahead {
            if *first <= at {
                at = at.max(*end);
            }
        }
        at >= offset
    }

    fn pass_over(&mut self, first: u64, end: u64) {
        self.ahead.push_back((first, end));
    }

    fn reserves(&mut self) -> Option<u64> {
        self.reserves.take()
    }

    fn was_blocked(&mut self) -> bool {
        std::mem::take(&mut self.blocked)
    }

    fn is_over(&self) -> bool {
        self.consumer.is_none()
    }

    fn fail(&self, cause: &str) {
        self.partition.ring.fail(STAGE, cause);
    }

    fn drained(&self) -> u64 {
        self.drained.unwrap_or(self.noted)
    }
}

/// What becomes true when a sync is done.
struct Promise {
    positions: Arc<Positions>,
    durable: Option<u64>,
    reserved: Option<u64>,
}

impl Promise {
    fn keep(&self) {
        if let Some(reserved) = self.reserved {
            self.positions.reserved.fetch_max(reserved, Ordering::Release);
        }
        if let Some(durable) = self.durable {
            // Readers of what is written see a transaction when it is durable.
            self.positions.written.fetch_max(durable, Ordering::Release);
            self.positions.durable.fetch_max(durable, Ordering::Release);
        }
    }
}

type Reply = SyncSender<Result<(), WriteError>>;
type Replies = Vec<Reply>;

struct Order {
    job: SyncJob,
    promises: Vec<Promise>,
    replies: Replies,
}

struct Journaler {
    shared: Arc<Journaling>,
    writer: Option<Writer>,
    clock: Arc<dyn Clock>,
    pace: Pace,
    sources: Sources,
    watch: Watch,
    frame: FrameBuilder,
    touched: Touched,
    /// Of what was written since the last sync was handed over.
    promises: Vec<Promise>,
    replies: Replies,
    syncs: Sender<Order>,
    done: Receiver<Result<(), WriteError>>,
    in_flight: bool,
    dirty_since: Option<Instant>,
    /// When it was first seen that a group had moved which is not written yet.
    moved_since: Option<Instant>,
    /// The same of what nobody waits for.
    lazy_since: Option<Instant>,
    riders: Vec<Weak<dyn Rider>>,
    /// Whether a rider waits for events to be drained.
    riders_expect: bool,
    /// What topics keep, by their numbers.
    keeps: HashMap<u32, Retention>,
    /// In the order of their claims.
    transactions: VecDeque<(Box<Handed>, Reply)>,
}

struct Sources {
    list: Vec<Option<Box<dyn Source>>>,
    interrupted: Arc<Journaling>,
}

impl Sources {
    fn of(&mut self, id: PartitionId) -> Option<&mut Box<dyn Source>> {
        self.list.iter_mut().flatten().find(|source| source.id() == id)
    }
}

impl Watched for Sources {
    fn look(&mut self, source: usize, looks: u32) -> bool {
        self.list[source].as_mut().is_some_and(|source| source.look(looks))
    }

    fn arm(&mut self, source: usize, waiter: &Waiter) -> bool {
        self.list[source].as_mut().is_none_or(|rings| rings.arm(waiter, source))
    }

    fn is_interrupted(&self) -> bool {
        let Journaling { has_mail, rides, bookmarks, .. } = &*self.interrupted;
        has_mail.load(Ordering::Acquire) || rides.load(Ordering::Acquire) || bookmarks.has_told()
    }
}

/// How long the journal is idle before a mark says that all is durable.
const IDLE: Duration = Duration::from_millis(20);

/// How long what nobody waits for stays written and not synced, if no sync comes by.
const LAZY: Duration = Duration::from_millis(50);

/// How often it is looked whether what lies below a transaction's claims was published.
const BELOW_CLAIMS: Duration = Duration::from_millis(1);

impl Journaler {
    fn new(shared: Arc<Journaling>, writer: Writer, clock: Arc<dyn Clock>, pace: Pace) -> Result<Self, std::io::Error> {
        let (syncs, jobs) = channel::<Order>();
        let (told, done) = channel();
        let (bell, waiter) = (Arc::clone(&shared.bell), Arc::clone(&shared.waiter));
        std::thread::Builder::new().name("slipring-sync".to_owned()).spawn(move || {
            for Order { job, promises, replies } in jobs {
                let outcome = job.run().map(drop);
                if outcome.is_ok() {
                    promises.iter().for_each(Promise::keep);
                }
                for reply in replies {
                    let _ = reply.send(outcome.clone());
                }
                bell.ring();
                if told.send(outcome).is_err() {
                    break;
                }
                waiter.wake(Watch::WAKE);
            }
        })?;
        Ok(Self {
            watch: Watch::new(Wait::default(), Arc::clone(&shared.waiter)),
            sources: Sources { list: Vec::new(), interrupted: Arc::clone(&shared) },
            shared,
            writer: Some(writer),
            clock,
            pace,
            frame: FrameBuilder::new(),
            touched: Touched::default(),
            promises: Vec::new(),
            replies: Vec::new(),
            syncs,
            done,
            in_flight: false,
            dirty_since: None,
            moved_since: None,
            lazy_since: None,
            riders: Vec::new(),
            riders_expect: false,
            keeps: HashMap::new(),
            transactions: VecDeque::new(),
        })
    }

    fn run(mut self) {
        // An event of the user's may panic when it is written.
        let outcome = caught(|| self.work()).unwrap_or_else(|panic| {
            let cause = std::io::Error::other(panic);
            Err(WriteError::Poisoned(crate::journal::DiskError::new("write", "an event", &cause)))
        });
        let cause = match &outcome {
            Ok(_) => "the journal was closed".to_owned(),
            Err(refused) => refused.to_string(),
        };
        // Rings first: who has heard that a receipt is unknown has nothing more taken by that topic.
        self.sources.list.iter().flatten().for_each(|source| source.fail(&cause));
        // Whoever waits learns why nothing more comes.
        self.shared.bell.end(cause.clone());
        if let Err(refused) = &outcome {
            for reply in self.replies.drain(..) {
                let _ = reply.send(Err(refused.clone()));
            }
        }
        let mail = self.shared.mail.lock().unwrap_or_else(PoisonError::into_inner).take();
        for mail in mail.into_iter().flatten() {
            match (mail, &outcome) {
                (Mail::Source(source), _) => source.fail(&cause),
                (
                    Mail::Commit(_, reply) | Mail::Transaction(_, reply) | Mail::Bookmarks(reply) | Mail::Close(reply),
                    Err(refused),
                ) => {
                    let _ = reply.send(Err(refused.clone()));
                }
                _ => {}
            }
        }
        if let Ok(Some(reply)) = outcome {
            let _ = reply.send(Ok(()));
        }
        self.shared.over.ring();
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("taken when the journal is closed only")
    }

    fn now(&self) -> u64 {
        self.clock.wall().as_nanos()
    }

    /// Until somebody closes; whom to tell.
    fn work(&mut self) -> Result<Option<SyncSender<Result<(), WriteError>>>, WriteError> {
        loop {
            let close = self.take_mail()?;
            self.gather(None)?;
            self.transact()?;
            self.sync(false)?;
            if let Some(reply) = close {
                return self.close().map(|()| Some(reply));
            }
            let waits = !self.transactions.is_empty();
            let idle = self.writer().wants_mark() && !self.in_flight && !waits;
            let linger = self.dirty_since.map(|since| since + self.pace.linger);
            let lazy = self.lazy_since.map(|since| since + LAZY).filter(|_| self.pace.sync);
            let linger = linger.into_iter().chain(lazy).min().filter(|_| !self.in_flight);
            let deadline = linger.or_else(|| idle.then(|| Instant::now() + IDLE));
            // A slot below its claims that is published without an event wakes nobody here.
            let soon = waits.then(|| Instant::now() + BELOW_CLAIMS);
            let moved = self.shared.bookmarks.hear();
            self.moved_since = moved.then(|| self.moved_since.unwrap_or_else(Instant::now));
            let alone = self.moved_since.map(|since| since + IDLE);
            let deadline = [deadline, soon, alone].into_iter().flatten().min();
            match self.watch.next(&mut self.sources, false, deadline) {
                Found::Source(source) => self.gather(Some(source))?,
                Found::Interrupted => {}
                Found::Nothing if alone.is_some_and(|alone| alone <= Instant::now()) => {
                    let _ = self.write_bookmarks()?;
                }
                Found::Nothing if idle && self.dirty_since.is_none() && self.lazy_since.is_none() => {
                    let now = self.now();
                    self.writer().mark(now)?;
                    self.dirty_since = Some(Instant::now());
                }
                Found::Nothing => {}
            }
            self.transact()?;
            self.sync(false)?;
        }
    }

    /// Writes the transactions whose turn it is.
    fn transact(&mut self) -> Result<(), WriteError> {
        while let Some((handed, _)) = self.transactions.front() {
            let mut is_turn = true;
            let mut is_gone = false;
            for run in &handed.parts {
                match self.sources.of(run.id) {
                    Some(source) => is_turn &= source.reaches(run.first),
                    None => is_gone = true,
                }
            }
            if !is_turn && !is_gone {
                return Ok(());
            }
            let Some((handed, reply)) = self.transactions.pop_front() else { return Ok(()) };
            if is_gone {
                // The topic was halted or has failed: without a reply, nothing was written.
                continue;
            }
            let Handed { parts, mut frame, decide } = *handed;
            let now = self.now();
            match self.writer().append_if(&mut frame, now, decide) {
                Ok(true) => {
                    self.dirty_since.get_or_insert_with(Instant::now);
                    for ClaimedRun { id, first, end } in parts {
                        let Some(source) = self.sources.of(id) else { continue };
                        source.pass_over(first, end);
                        let positions = Arc::clone(source.positions());
                        self.promises.push(Promise { positions, durable: Some(end), reserved: None });
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

    /// One group: what all sources have, up to its size.
    fn gather(&mut self, first: Option<usize>) -> Result<(), WriteError> {
        let writer = self.writer.as_ref().expect("taken when the journal is closed only");
        // One more event must fit, of up to half of it, and what is to be noted of producers.
        let budget = self.pace.group.min(writer.frame_limit() / 4).max(1);
        let mut drained = Vec::new();
        let mut next = first;
        while self.frame.len() < budget {
            let source = match next.take() {
                Some(source) => source,
                None => match self.watch.next(&mut self.sources, true, None) {
                    Found::Source(source) => source,
                    _ => break,
                },
            };
            if let Some(rings) = &mut self.sources.list[source] {
                let (frame, ledgers, touched) = (&mut self.frame, &self.shared.ledgers, &mut self.touched);
                rings.drain(Gathering { frame, ledgers, touched }, budget, writer);
                drained.push(source);
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
        let (urgent, ridden) = self.take_riders(!drained.is_empty());
        if !self.frame.is_empty() {
            let _ = self.put_bookmarks()?;
            let writer = self.writer.as_mut().expect("taken when the journal is closed only");
            writer.append(&mut self.frame, now.as_nanos())?;
            self.shared.state_room.store(writer.state_room(), Ordering::Release);
            let since = if has_events || urgent { &mut self.dirty_since } else { &mut self.lazy_since };
            since.get_or_insert_with(Instant::now);
        } else if urgent && self.lazy_since.is_some() {
            self.dirty_since.get_or_insert_with(Instant::now);
        }
        for (positions, changes) in ridden {
            positions.written.fetch_max(changes, Ordering::Release);
            self.promises.push(Promise { positions, durable: Some(changes), reserved: None });
        }
        for source in drained {
            let Some(rings) = &mut self.sources.list[source] else { continue };
            let (durable, reserved) = (rings.written(), rings.reserves());
            if durable.is_some() || reserved.is_some() {
                let positions = Arc::clone(rings.positions());
                self.promises.push(Promise { positions, durable, reserved });
            }
            if rings.is_over() {
                // Its last events are still to be synced: the promises know them.
                self.watch.remove(source);
                self.sources.list[source] = None;
            }
        }
        self.shared.bell.ring();
        Ok(())
    }

    /// Puts into the frame where groups have moved to. What it has no room for, or what may be refused, is written by
    /// itself: events must not fail for it. The first refusal.
    fn put_bookmarks(&mut self) -> Result<Result<(), WriteError>, WriteError> {
        let mut outcome = Ok(());
        let moved = self.shared.bookmarks.take_moved();
        if moved.is_empty() {
            return Ok(outcome);
        }
        let now = self.now();
        let writer = self.writer.as_mut().expect("taken when the journal is closed only");
        for bookmark in moved {
            let (key, value) = (bookmark.key(), bookmark.value());
            let known = writer.state().get(what::GROUPS, key);
            if known == Some(&value[..]) {
                continue;
            }
            // One that is known takes no more room at each segment's head than it did.
            if known.is_some() && self.frame.len() + key.len() + 64 <= writer.frame_limit() {
                self.frame.put(what::GROUPS, key, &value);
                continue;
            }
            let mut alone = FrameBuilder::new();
            alone.put(what::GROUPS, key, &value);
            match writer.append(&mut alone, now) {
                Ok(_) => _ = self.dirty_since.get_or_insert_with(Instant::now),
                Err(poisoned @ WriteError::Poisoned(_)) => return Err(poisoned),
                Err(refused) => outcome = outcome.and(Err(refused)),
            }
        }
        Ok(outcome)
    }

    /// Writes where groups have moved to, in a frame of its own.
    fn write_bookmarks(&mut self) -> Result<Result<(), WriteError>, WriteError> {
        let outcome = self.put_bookmarks()?;
        if !self.frame.is_empty() {
            let now = self.now();
            let writer = self.writer.as_mut().expect("taken when the journal is closed only");
            writer.append(&mut self.frame, now)?;
            self.dirty_since.get_or_insert_with(Instant::now);
        }
        Ok(outcome)
    }

    /// Has riders put into the frame what they have. Whether somebody waits for it to be durable, and which changes are
    /// written with the frame.
    fn take_riders(&mut self, drained: bool) -> (bool, Vec<(Arc<Positions>, u64)>) {
        let (mut urgent, mut ridden) = (false, Vec::new());
        let expected = drained && self.riders_expect;
        if !self.shared.rides.swap(false, Ordering::AcqRel) && !expected {
            return (urgent, ridden);
        }
        let writer = self.writer.as_ref().expect("taken when the journal is closed only");
        let limit = writer.frame_limit();
        let mut more = false;
        self.riders_expect = false;
        let Self { riders, frame, sources, riders_expect, .. } = self;
        riders.retain(|rider| {
            let Some(rider) = rider.upgrade() else { return false };
            let room = limit.saturating_sub(frame.len()).min(writer.state_room().saturating_sub(frame.len()));
            let mut drained = |id| sources.of(id).map(|source| source.drained());
            let told = rider.drain(frame, room, &mut drained);
            urgent |= told.urgent;
            more |= told.more;
            *riders_expect |= told.expects;
            ridden.extend(told.changes.map(|changes| (Arc::clone(rider.positions()), changes)));
            true
        });
        if more {
            self.shared.rides.store(true, Ordering::Release);
        }
        (urgent, ridden)
    }

    /// Takes in what a sync has done, and hands the next one over if it is time.
    fn sync(&mut self, now: bool) -> Result<(), WriteError> {
        if self.in_flight {
            match self.done.try_recv() {
                Ok(outcome) => {
                    outcome?;
                    self.synced();
                }
                Err(_) if now => {
                    self.done.recv().map_err(|_| self.gone())??;
                    self.synced();
                }
                Err(_) => return Ok(()),
            }
        }
        if self.dirty_since.is_none() && self.lazy_since.is_none() && !self.promises.is_empty() {
            // Of slots without an event nothing is written, so there is nothing to be synced.
            self.promises.drain(..).for_each(|promise| promise.keep());
            self.shared.bell.ring();
        }
        let lingered = self.dirty_since.is_some_and(|since| since.elapsed() >= self.pace.linger);
        let lazy = self.lazy_since.is_some_and(|since| since.elapsed() >= LAZY);
        let due = self.pace.sync && (lingered || lazy);
        let wanted = now || !self.replies.is_empty() || due || self.promises_reserve();
        if !wanted {
            return Ok(());
        }
        let Some(job) = self.writer().begin_sync() else {
            // All is durable already.
            if self.writer().journal().poisoned().is_none() {
                self.replies.drain(..).for_each(|reply| _ = reply.send(Ok(())));
            }
            return Ok(());
        };
        (self.dirty_since, self.lazy_since) = (None, None);
        let (promises, replies) = (std::mem::take(&mut self.promises), std::mem::take(&mut self.replies));
        self.in_flight = self.syncs.send(Order { job, promises, replies }).is_ok();
        if now {
            return self.sync_wait();
        }
        Ok(())
    }

    fn promises_reserve(&self) -> bool {
        self.promises.iter().any(|promise| promise.reserved.is_some())
    }

    fn sync_wait(&mut self) -> Result<(), WriteError> {
        self.done.recv().map_err(|_| self.gone())??;
        self.synced();
        Ok(())
    }

    fn gone(&self) -> WriteError {
        let cause = std::io::Error::other("the thread that syncs has ended");
        WriteError::Poisoned(crate::journal::DiskError::new("sync", "the journal", &cause))
    }

    fn synced(&mut self) {
        self.in_flight = false;
        for (number, source) in self.sources.list.iter_mut().enumerate() {
            if source.as_mut().is_some_and(|source| source.was_blocked()) {
                self.watch.add(number);
            }
        }
        self.writer().collect();
    }

    fn take_mail(&mut self) -> Result<Option<SyncSender<Result<(), WriteError>>>, WriteError> {
        if !self.shared.has_mail.swap(false, Ordering::AcqRel) {
            return Ok(None);
        }
        let mail = self.shared.mail.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(std::mem::take);
        let mut close = None;
        for mail in mail.into_iter().flatten() {
            match mail {
                Mail::Source(source) => {
                    self.watch.add(self.sources.list.len());
                    self.sources.list.push(Some(source));
                }
                Mail::Rider(rider) => {
                    self.riders.push(rider);
                    // What it had to say may have found nobody to take it.
                    self.shared.rides.store(true, Ordering::Release);
                }
                Mail::Commit(mut frame, reply) => {
                    let now = self.now();
                    match self.writer().append(&mut frame, now) {
                        Ok(_) => {
                            self.dirty_since.get_or_insert_with(Instant::now);
                            self.replies.push(reply);
                        }
                        Err(poisoned @ WriteError::Poisoned(_)) => {
                            let _ = reply.send(Err(poisoned.clone()));
                            return Err(poisoned);
                        }
                        Err(refused) => {
                            let _ = reply.send(Err(refused));
                        }
                    }
                }
                Mail::Keep(topic, retention) => {
                    self.keeps.insert(topic, retention);
                }
                Mail::Retain(reply) => {
                    let (now, keeps) = (self.now(), std::mem::take(&mut self.keeps));
                    let freed = self.writer().retain(now, |of| keeps.get(&of.topic).copied().unwrap_or_default());
                    self.keeps = keeps;
                    self.dirty_since.get_or_insert_with(Instant::now);
                    let outcome = freed.as_ref().map(|_| ()).map_err(WriteError::clone);
                    let _ = reply.send(freed);
                    outcome?;
                }
                Mail::Bookmarks(reply) => match self.write_bookmarks() {
                    Ok(Ok(())) => self.replies.push(reply),
                    Ok(Err(refused)) => _ = reply.send(Err(refused)),
                    Err(poisoned) => {
                        let _ = reply.send(Err(poisoned.clone()));
                        return Err(poisoned);
                    }
                },
                Mail::Transaction(handed, reply) => self.transactions.push_back((handed, reply)),
                Mail::Close(reply) => close = Some(reply),
            }
        }
        Ok(close)
    }

    /// Writes what there still is, and closes.
    fn close(&mut self) -> Result<(), WriteError> {
        loop {
            let before = self.writer().journal().written();
            self.gather(None)?;
            self.transact()?;
            let _ = self.write_bookmarks()?;
            self.sync(true)?;
            if self.writer().journal().written() == before {
                break;
            }
        }
        self.sync(true)?;
        let now = self.now();
        let Some(writer) = self.writer.take() else { return Ok(()) };
        writer.close(now)?;
        self.shared.bell.ring();
        Ok(())
    }
}
