//! The journaler itself: what it does, turn by turn.

use super::committer::{ClaimedRun, Handed, Journaling, Mail, Pace};
use super::source::{Gathering, Rider, Source};
use crate::base::clock::Clock;
use crate::base::multi_wait::{Found, Watch, Watched};
use crate::base::threads::caught;
use crate::log::catalog::what;
use crate::log::forget::forget;
use crate::log::producers::Touched;
use crate::log::progress::Positions;
use slipring_journal::{FrameBuilder, Freed, PartitionId, Retention, SyncJob, WriteError, Writer};
use slipring_ring::{Wait, Waiter};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel};
use std::sync::{Arc, PoisonError, Weak};
use std::time::{Duration, Instant};

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

/// What became of a sync; of one that failed, with whom that is still to be told: when the rings have ended.
type Synced = (Result<(), WriteError>, Replies);

struct Order {
    job: SyncJob,
    promises: Vec<Promise>,
    replies: Replies,
}

/// The rings of all partitions, as the committer waits for them.
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
        let Journaling { has_mail, rides_told, rides_now, bookmarks, .. } = &*self.interrupted;
        let has = |flag: &AtomicBool| flag.load(Ordering::Acquire);
        has(has_mail) || has(rides_told) || has(rides_now) || bookmarks.has_told()
    }
}

/// The thread, and what it knows.
pub(super) struct Journaler {
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
    done: Receiver<Synced>,
    in_flight: bool,
    dirty_since: Option<Instant>,
    /// When it was first seen that a group had moved which is not written yet.
    moved_since: Option<Instant>,
    /// The same of what nobody waits for.
    lazy_since: Option<Instant>,
    /// When it was first heard that a rider has something which is not written yet.
    rides_since: Option<Instant>,
    /// What riders have is written with the next frame, whether events come or not.
    takes_riders: bool,
    riders: Vec<Weak<dyn Rider>>,
    /// Whether a rider waits for events to be drained.
    riders_expect: bool,
    /// What topics keep, by their numbers.
    keeps: HashMap<u32, Retention>,
    /// In the order of their claims.
    transactions: VecDeque<(Box<Handed>, Reply)>,
    /// Who closes the journal, and until when it waits for topics to end.
    closing: Option<(Reply, Option<Instant>)>,
}

/// How long the journal is idle before it writes by itself where groups have moved to, and what riders have.
const IDLE: Duration = Duration::from_millis(20);

/// How long it is idle before a mark says that all is durable. The next frame says so, too: a topic with some events a
/// second does not sync twice for each.
const MARK: Duration = Duration::from_secs(1);

/// How long what nobody waits for stays written and not synced, if no sync comes by.
const LAZY: Duration = Duration::from_millis(50);

/// How often a journal that closes looks whether claims that are out were published.
const CLAIMS_OUT: Duration = Duration::from_millis(10);

/// How often it is looked whether what lies below a transaction's claims was published.
const BELOW_CLAIMS: Duration = Duration::from_millis(1);

impl Journaler {
    pub(super) fn new(
        shared: Arc<Journaling>,
        writer: Writer,
        clock: Arc<dyn Clock>,
        pace: Pace,
    ) -> Result<Self, std::io::Error> {
        let (syncs, jobs) = channel::<Order>();
        let (told, done) = channel();
        let (bell, waiter) = (Arc::clone(&shared.bell), Arc::clone(&shared.waiter));
        std::thread::Builder::new().name("slipring-sync".to_owned()).spawn(move || {
            bell.enter();
            for Order { job, promises, replies } in jobs {
                let outcome = job.run().map(drop);
                let unanswered = if outcome.is_ok() {
                    promises.iter().for_each(Promise::keep);
                    replies.into_iter().for_each(|reply| _ = reply.send(Ok(())));
                    Replies::new()
                } else {
                    replies
                };
                bell.ring();
                if told.send((outcome, unanswered)).is_err() {
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
            rides_since: None,
            takes_riders: false,
            riders: Vec::new(),
            riders_expect: false,
            keeps: HashMap::new(),
            transactions: VecDeque::new(),
            closing: None,
        })
    }

    pub(super) fn run(mut self) {
        self.shared.bell.enter();
        // The clock may panic, as may a task's waker.
        let outcome = caught(|| self.work()).unwrap_or_else(|panic| {
            let cause = std::io::Error::other(panic.to_string());
            Err(WriteError::Poisoned(slipring_journal::DiskError::new("write", "an event", &cause)))
        });
        let cause = match &outcome {
            Ok(()) => "the journal was closed".to_owned(),
            Err(refused) => refused.to_string(),
        };
        // Rings first: who has heard that a receipt is unknown has nothing more taken by that topic.
        let open = self.sources.list.iter().flatten().filter(|source| outcome.is_err() || !source.is_closed());
        open.for_each(|source| source.fail(&cause));
        // Whoever waits learns why nothing more comes.
        self.shared.bell.end(cause.clone());
        if let Err(refused) = &outcome {
            for reply in self.replies.drain(..) {
                let _ = reply.send(Err(refused.clone()));
            }
        }
        // Who has heard that the journal is over may open it again at once.
        if self.in_flight {
            let _ = self.done.recv();
        }
        drop(self.writer.take());
        let mail = self.shared.mail.lock().unwrap_or_else(PoisonError::into_inner).take();
        for mail in mail.into_iter().flatten() {
            match (mail, &outcome) {
                (Mail::Source(source), _) => source.fail(&cause),
                (
                    Mail::Commit(_, reply)
                    | Mail::Forget(_, _, reply)
                    | Mail::Transaction(_, reply)
                    | Mail::Bookmarks(reply)
                    | Mail::Close(reply, _),
                    Err(refused),
                ) => {
                    let _ = reply.send(Err(refused.clone()));
                }
                _ => {}
            }
        }
        if let Some((reply, _)) = self.closing.take() {
            let _ = reply.send(outcome);
        }
        self.shared.over.ring();
    }

    fn writer(&mut self) -> &mut Writer {
        self.writer.as_mut().expect("taken when the journal is closed only")
    }

    fn now(&self) -> u64 {
        self.clock.wall().as_nanos()
    }

    /// Until somebody closes.
    fn work(&mut self) -> Result<(), WriteError> {
        loop {
            self.take_mail()?;
            self.gather(None)?;
            self.transact()?;
            self.sync(false)?;
            if let Some((_, until)) = self.closing {
                return self.close(until);
            }
            let waits = !self.transactions.is_empty();
            let idle = self.writer().wants_mark() && !self.in_flight && !waits;
            // A pace beyond what the clock can tell is none at all: what asks for a sync, or the end, writes.
            let linger = self.dirty_since.and_then(|since| since.checked_add(self.pace.linger));
            let lazy = self.lazy_since.map(|since| since + LAZY).filter(|_| self.pace.sync);
            let linger = linger.into_iter().chain(lazy).min().filter(|_| !self.in_flight);
            let mark = idle.then(|| Instant::now() + MARK);
            let deadline = linger.or(mark);
            // A slot below its claims that is published without an event wakes nobody here.
            let soon = waits.then(|| Instant::now() + BELOW_CLAIMS);
            let moved = self.shared.bookmarks.hear();
            self.moved_since = moved.then(|| self.moved_since.unwrap_or_else(Instant::now));
            let alone = self.moved_since.map(|since| since + IDLE);
            // Who says that it has something has changed it before.
            self.shared.rides_told.store(false, Ordering::Release);
            let rides = self.shared.rides.load(Ordering::Acquire);
            self.rides_since = rides.then(|| self.rides_since.unwrap_or_else(Instant::now));
            let ridden = self.rides_since.map(|since| since + IDLE);
            let deadline = [deadline, soon, alone, ridden].into_iter().flatten().min();
            match self.watch.next(&mut self.sources, false, deadline) {
                Found::Source(source) => self.gather(Some(source))?,
                Found::Interrupted => {}
                Found::Nothing if ridden.is_some_and(|at| at <= Instant::now()) => {
                    self.takes_riders = true;
                    self.gather(None)?;
                }
                Found::Nothing if alone.is_some_and(|alone| alone <= Instant::now()) => {
                    let _ = self.write_bookmarks()?;
                }
                Found::Nothing
                    if mark.is_some_and(|at| at <= Instant::now())
                        && self.dirty_since.is_none()
                        && self.lazy_since.is_none() =>
                {
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
            self.free_first(frame.len())?;
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
        while self.frame.len() < budget && !self.touched.is_full(writer.frame_limit()) {
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
                if let Some(cause) = rings.failed() {
                    let topic = rings.id().topic;
                    let of_topic = self.sources.list.iter().flatten().filter(|source| source.id().topic == topic);
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
        let (urgent, ridden) = self.take_riders(!drained.is_empty(), has_events);
        if !self.frame.is_empty() {
            let _ = self.put_bookmarks()?;
            self.free_first(self.frame.len())?;
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
    fn take_riders(&mut self, drained: bool, has_events: bool) -> (bool, Vec<(Arc<Positions>, u64)>) {
        let (mut urgent, mut ridden) = (false, Vec::new());
        let expected = drained && self.riders_expect;
        // Who waits has said before that there is something.
        let now = self.shared.rides_now.swap(false, Ordering::AcqRel) || std::mem::take(&mut self.takes_riders);
        let takes = (has_events || now) && self.shared.rides.swap(false, Ordering::AcqRel);
        if !takes && !expected {
            return (urgent, ridden);
        }
        self.rides_since = None;
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
            self.shared.ride_now();
        }
        (urgent, ridden)
    }

    /// Takes in what a sync has done, and hands the next one over if it is time.
    fn sync(&mut self, now: bool) -> Result<(), WriteError> {
        if self.in_flight {
            match self.done.try_recv() {
                Ok(told) => self.synced(told)?,
                Err(_) if now => self.sync_wait()?,
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
        let told = self.done.recv().map_err(|_| self.gone())?;
        self.synced(told)
    }

    fn gone(&self) -> WriteError {
        let cause = std::io::Error::other("the thread that syncs has ended");
        WriteError::Poisoned(slipring_journal::DiskError::new("sync", "the journal", &cause))
    }

    fn synced(&mut self, (outcome, unanswered): Synced) -> Result<(), WriteError> {
        self.in_flight = false;
        self.replies.extend(unanswered);
        outcome?;
        for (number, source) in self.sources.list.iter_mut().enumerate() {
            if source.as_mut().is_some_and(|source| source.was_blocked()) {
                self.watch.add(number);
            }
        }
        self.writer().collect();
        Ok(())
    }

    fn take_mail(&mut self) -> Result<(), WriteError> {
        if !self.shared.has_mail.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let mail = self.shared.mail.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(std::mem::take);
        for mail in mail.into_iter().flatten() {
            match mail {
                Mail::Source(source) => {
                    // In the place of one that has gone, if there is one.
                    let list = &mut self.sources.list;
                    let place = list.iter().position(Option::is_none).unwrap_or(list.len());
                    if place == list.len() {
                        list.push(None);
                    }
                    list[place] = Some(source);
                    self.watch.add(place);
                }
                Mail::Rider(rider) => {
                    self.riders.push(rider);
                    // What it had to say may have found nobody to take it.
                    self.shared.ride_now();
                }
                Mail::Commit(frame, reply) => self.commit([frame], reply)?,
                Mail::Forget(topic, name, reply) => {
                    self.keeps.remove(&topic);
                    let writer = self.writer();
                    let limit = writer.frame_limit() / 2;
                    let frames = forget(writer.state(), &[Some(topic)].into(), Some(&name), limit);
                    self.commit(frames, reply)?;
                }
                Mail::Keep(topic, retention) => {
                    if retention == Retention::default() {
                        self.keeps.remove(&topic);
                    } else {
                        self.keeps.insert(topic, retention);
                    }
                }
                Mail::Retain(reply) => {
                    let freed = self.retain();
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
                Mail::Close(reply, until) => _ = self.closing.get_or_insert((reply, until)),
            }
        }
        Ok(())
    }

    /// Gives up what topics do not keep. The files go when that is durable.
    fn retain(&mut self) -> Result<Freed, WriteError> {
        let (now, keeps) = (self.now(), std::mem::take(&mut self.keeps));
        let freed = self.writer().retain(now, |of| keeps.get(&of.topic).copied().unwrap_or_default());
        self.keeps = keeps;
        self.dirty_since.get_or_insert_with(Instant::now);
        freed
    }

    /// Before a frame that needs the next segment, which could not be made: gives up what topics do not keep now, and has the
    /// segment made in the room of that.
    fn free_first(&mut self, len: usize) -> Result<(), WriteError> {
        if self.keeps.is_empty() || !self.writer().lacks_room(len) {
            return Ok(());
        }
        if self.retain()?.segments > 0 {
            self.sync(true)?;
            self.writer().order_segment();
        }
        Ok(())
    }

    /// Writes frames, and answers when they are durable.
    fn commit(&mut self, frames: impl IntoIterator<Item = FrameBuilder>, reply: Reply) -> Result<(), WriteError> {
        let now = self.now();
        for mut frame in frames {
            self.free_first(frame.len())?;
            match self.writer().append(&mut frame, now) {
                Ok(_) => _ = self.dirty_since.get_or_insert_with(Instant::now),
                Err(poisoned @ WriteError::Poisoned(_)) => {
                    let _ = reply.send(Err(poisoned.clone()));
                    return Err(poisoned);
                }
                Err(refused) => {
                    let _ = reply.send(Err(refused));
                    return Ok(());
                }
            }
        }
        self.replies.push(reply);
        Ok(())
    }

    /// Writes what there still is, and closes: when every topic has come to its end, or at `until`. Without that nobody can
    /// publish any more.
    fn close(&mut self, until: Option<Instant>) -> Result<(), WriteError> {
        if until.is_none() {
            self.sources.list.iter().flatten().for_each(|source| source.close());
        }
        loop {
            let before = self.writer().journal().written();
            // What was handed over before is written as well. Who closes once more is told with the first.
            self.take_mail()?;
            self.takes_riders = true;
            self.gather(None)?;
            self.transact()?;
            let _ = self.write_bookmarks()?;
            self.sync(true)?;
            if self.writer().journal().written() != before {
                continue;
            }
            // A pass that wrote nothing is no end: a claim may be out, or a transaction not yet published.
            let is_over =
                self.transactions.is_empty() && self.sources.list.iter().flatten().all(|source| source.is_over());
            let Some(until) = until.filter(|until| !is_over && *until > Instant::now()) else { break };
            let soon = until.min(Instant::now() + CLAIMS_OUT);
            if let Found::Source(source) = self.watch.next(&mut self.sources, false, Some(soon)) {
                self.gather(Some(source))?;
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
