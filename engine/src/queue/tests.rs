mod deferred;

use super::*;
use crate::base::clock::{Clock, ManualClock, Tick, Timestamp};
use crate::event::message::Message;
use crate::read::StartAt;
use crate::{Engine, Level, Topic};
use slipring_journal::{Options, PartitionId, simulated::SimulatedDisk, storage::Storage};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::time::{Duration, Instant};

/// Opens a queue whose messages die after one attempt.
fn open(disk: &SimulatedDisk, clock: &(impl Clock + Clone)) -> (Engine, Topic<u64>, Worker<u64>) {
    let engine = Engine::builder().journal_in(disk.clone()).clock(clock.clone()).build().unwrap();
    let jobs = engine.topic::<u64>("jobs").durable().create().unwrap();
    let worker = jobs.queue("q").max_attempts(1).acknowledge(Level::Durable).join().unwrap();
    (engine, jobs, worker)
}

/// A clock that counts the reads of its wall-clock time. The committer reads it for each frame that it begins.
#[derive(Clone, Default)]
struct Asked(ManualClock, Arc<AtomicU64>);

impl Clock for Asked {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn wall(&self) -> Timestamp {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.wall()
    }

    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        self.0.watch(tick)
    }
}

/// Waits until the committer begins no frames any more.
fn come_to_rest(clock: &Asked) {
    let asked = || clock.1.load(Ordering::Relaxed);
    let until = Instant::now() + Duration::from_secs(60);
    // The sleep is longer than the second after which an idle committer writes the mark that all records are durable.
    let is_quiet = || {
        let before = asked();
        std::thread::sleep(Duration::from_millis(1500));
        asked() == before
    };
    while !is_quiet() {
        assert!(Instant::now() < until, "the committer does not come to rest");
    }
}

/// A queue once signalled the committer whenever the committer asked it for its state while a dead letter found no
/// room. So the committer ran 50 times a second.
#[test]
fn a_message_that_finds_no_place_among_the_dead_letters_keeps_no_thread_busy() {
    let clock = Asked::default();
    let (engine, jobs, mut worker) = open(&SimulatedDisk::new(), &clock);
    engine.get::<Message, Multi>("jobs.q.dead").unwrap().close();
    jobs.producer().create().unwrap().publish(|event| *event = 7).unwrap();
    worker.receive(Duration::MAX).unwrap().unwrap().nack(Duration::ZERO, "no").unwrap();
    assert_eq!(worker.queue().metrics().dying, 1);
    come_to_rest(&clock);
    assert_eq!(worker.queue().metrics().dying, 1);
}

thread_local! {
    static AT_LETTER: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
}

/// A hook for tests: called when a dead letter is published, before its message is marked so.
pub(super) fn dead_letter_is_out() {
    if let Some(then) = AT_LETTER.take() {
        then();
    }
}

/// A frame once had a dead letter without the removal of its message. After a crash between that frame and the next,
/// the message died again, and there were two letters.
#[test]
fn a_letter_is_in_no_frame_without_the_end_of_its_message() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let (_engine, jobs, mut worker) = open(&disk, &clock);
    jobs.producer().create().unwrap().publish(|event| *event = 7).unwrap();
    let lease = worker.receive(Duration::MAX).unwrap().unwrap();
    let queue = worker.queue();
    let after = Arc::new(Mutex::new(None));
    let (copy, live) = (Arc::clone(&after), disk.clone());
    AT_LETTER.set(Some(Box::new(move || {
        let durable = jobs.inner.durable.as_ref().unwrap();
        let letters = (0..9).filter(|topic| *topic != durable.id(0).topic);
        let letters: Vec<_> = letters.map(|topic| PartitionId { topic, partition: 0 }).collect();
        let extent = |id| durable.journal().extent(id);
        let is_written = || letters.iter().any(|id| extent(*id).is_some_and(|extent| extent.end > extent.start));
        // The committer should wait for the queue's lock during this time.
        let deadline = Instant::now() + Duration::from_millis(300);
        while !is_written() && Instant::now() < deadline {
            std::thread::yield_now();
        }
        *copy.lock().unwrap() = Some(live.copy());
    })));
    lease.nack(Duration::ZERO, "no").unwrap();
    assert_eq!(queue.dead_letters().count(), 1);
    let after = after.lock().unwrap().take().unwrap();
    let (_engine, _jobs, worker) = open(&after, &clock);
    // The old lease expires, and the message dies if the queue still has it.
    clock.advance(Duration::from_secs(3600));
    assert_eq!(worker.queue().peek(9).len(), 0);
    assert_eq!(worker.queue().dead_letters().count(), 1);
}

/// Letters are sent back while workers take the messages. A message that was acked before the last letter was sent back
/// was once a dead letter again after a crash.
#[test]
fn what_was_sent_back_and_acked_is_no_letter_after_a_crash() {
    let (disk, clock) = (SimulatedDisk::new(), ManualClock::new());
    let (_engine, jobs, mut worker) = open(&disk, &clock);
    let mut producer = jobs.producer().create().unwrap();
    (0..3).for_each(|number| _ = producer.publish(|event| *event = number).unwrap());
    for _ in 0..3 {
        worker.receive(Duration::MAX).unwrap().unwrap().nack(Duration::ZERO, "no").unwrap();
    }
    let queue = worker.queue();
    assert_eq!(queue.dead_letters().count(), 3);
    let mut after = None;
    queue.core.each_dead_letter(|letter, next| {
        if after.is_some() {
            return Verdict::Stop;
        }
        assert!(queue.core.restore(letter, next));
        worker.receive(Duration::MAX).unwrap().unwrap().ack().unwrap();
        after = Some(disk.crash(3));
        Verdict::Drop
    });
    let (_engine, _, mut worker) = open(&after.unwrap(), &clock);
    let left: Vec<u64> = worker.queue().dead_letters().map(|letter| letter.unwrap().offset).collect();
    assert_eq!(left, [1, 2]);
    assert_eq!(worker.queue().redrive(9), 2);
    let offset = |_| worker.receive(Duration::MAX).unwrap().unwrap().offset();
    assert_eq!((0..2).map(offset).collect::<Vec<_>>(), [1, 2]);
}

/// A transaction's frame is in the journal before its events are published. A queue that was opened meanwhile, to start
/// at a time, was once refused as the start was above the published offsets.
#[test]
fn a_start_by_time_is_never_above_what_is_published() {
    let (_engine, jobs, _worker) = open(&SimulatedDisk::new(), &ManualClock::new());
    let mut producer = jobs.producer().create().unwrap();
    (0..3).for_each(|_| _ = producer.publish(|_| ()).unwrap().wait(Level::Written).unwrap());
    let durable = jobs.inner.durable.as_ref().unwrap();
    let far = StartAt::Timestamp(Timestamp::from_nanos(u64::MAX));
    // The third event is in the journal, and not published.
    assert_eq!(builder::begin(durable, 0, 2, &far), Ok(2));
    assert_eq!(builder::begin(durable, 0, 3, &far), Ok(3));
}

/// A clock that stops the journal's thread where it begins a frame, after the frame's events were gathered.
#[derive(Clone, Default)]
struct Stopping(ManualClock, Arc<(Mutex<Stop>, Condvar)>);

#[derive(Clone, Copy, Default, PartialEq)]
enum Stop {
    #[default]
    Never,
    Next,
    Reached,
}

impl Stopping {
    fn set(&self, stop: Stop) {
        *self.1.0.lock().unwrap() = stop;
        self.1.1.notify_all();
    }

    fn wait_while(&self, stop: Stop) {
        drop(self.1.1.wait_while(self.1.0.lock().unwrap(), |now| *now == stop).unwrap());
    }
}

impl Clock for Stopping {
    fn now(&self) -> Duration {
        self.0.now()
    }

    fn wall(&self) -> Timestamp {
        if std::thread::current().name() == Some("slipring-journal") && *self.1.0.lock().unwrap() == Stop::Next {
            self.set(Stop::Reached);
            self.wait_while(Stop::Reached);
        }
        self.0.wall()
    }

    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        self.0.watch(tick)
    }
}

/// If the last handle of the engine was dropped between the gathering of a dead letter and the writing of its frame, the
/// frame once had the letter without the removal of its message, as the queue was gone. In the next process the message
/// died again, and there were two letters.
#[test]
fn a_letter_is_in_no_frame_without_the_end_of_its_message_when_the_engine_is_dropped_meanwhile() {
    let (disk, clock) = (SimulatedDisk::new(), Stopping::default());
    let (engine, jobs, mut worker) = open(&disk, &clock);
    engine.get::<Message, Multi>("jobs.q.dead").unwrap();
    jobs.producer().create().unwrap().publish(|event| *event = 7).unwrap();
    let lease = worker.receive(Duration::MAX).unwrap().unwrap();
    let mut producer = jobs.producer().create().unwrap();
    clock.set(Stop::Next);
    producer.publish(|event| *event = 8).unwrap();
    clock.wait_while(Stop::Next);
    // The stopped frame is without the letter. The next stop is at the frame that has it, or shortly before that.
    drop(lease);
    clock.set(Stop::Next);
    clock.wait_while(Stop::Next);
    drop((engine, jobs, worker, producer));
    clock.set(Stop::Never);
    let until = Instant::now() + Duration::from_secs(60);
    while disk.lock().is_err() {
        assert!(Instant::now() < until, "the journal is not closed");
        std::thread::yield_now();
    }
    let (_engine, _jobs, worker) = open(&disk, &clock);
    clock.0.advance(Duration::from_secs(3600));
    let left = worker.queue().peek(9).iter().map(|waiting| *waiting.message).collect::<Vec<_>>();
    assert_eq!(left, [8]);
    assert_eq!(worker.queue().dead_letters().count(), 1);
}

/// When the journal's state was full to the last bytes, the committer once asked the queue for its changes again and again,
/// and was told each time that they have no room; and it wrote no removal, which needs none.
#[test]
fn changes_without_room_in_the_journals_state_keep_no_thread_busy_and_are_written_when_there_is_room() {
    let (disk, clock) = (SimulatedDisk::new(), Asked::default());
    let open = |disk: &SimulatedDisk| {
        let options = Options { segment_size: 1 << 17, ..Options::default() };
        let engine = Engine::builder().journal_in(disk.clone()).journal_options(options).clock(clock.clone());
        let engine = engine.build().unwrap();
        let jobs = engine.topic::<u64>("jobs").durable().create().unwrap();
        let worker = jobs.queue("q").max_attempts(1).acknowledge(Level::Published).join().unwrap();
        (engine, jobs, worker)
    };
    let (engine, jobs, mut worker) = open(&disk);
    let queue = worker.queue();
    let written = || {
        let change = queue.core.lock().change();
        queue.core.log.as_ref().unwrap().wait(change, Level::Written).unwrap();
    };
    engine.get::<Message, Multi>("jobs.q.dead").unwrap().close();
    let mut producer = jobs.producer().create().unwrap();
    (0..40).for_each(|number| _ = producer.publish(|event| *event = number).unwrap().wait(Level::Written).unwrap());
    let mut leases: Vec<_> = (0..32).map(|_| worker.receive(Duration::MAX).unwrap().unwrap()).collect();
    written();
    let mut names = Vec::new();
    for len in [200, 100, 50, 20, 3] {
        loop {
            let name = format!("{:01$}", names.len(), len);
            if engine.topic::<u64>(&name).capacity(2).durable().create().is_err() {
                break;
            }
            names.push(name);
        }
    }
    // The reasons of eight messages need more room than is left; the end of the others needs none.
    for lease in leases.drain(..8) {
        lease.nack(Duration::ZERO, &"no".repeat(50)).unwrap();
    }
    leases.drain(8..).for_each(|lease| lease.ack().unwrap());
    let waiting = std::thread::spawn(move || {
        let lease = worker.receive(Duration::MAX).unwrap().unwrap();
        let number = *lease.message();
        lease.ack().map(|()| number).unwrap()
    });
    come_to_rest(&clock);
    // How many messages the journal has as leased, and how many have died: in the next process these become letters.
    let after = |disk: SimulatedDisk| {
        let (_engine, _jobs, worker) = open(&disk);
        let queue = worker.queue();
        let until = Instant::now() + Duration::from_secs(60);
        while queue.metrics().dying > 0 {
            assert!(Instant::now() < until, "{:?}", queue.metrics());
            std::thread::yield_now();
        }
        (queue.metrics().leased, queue.dead_letters().count())
    };
    assert_eq!(after(disk.copy()), (16, 0), "what ended is out of the journal's state, and the reasons are not in it");
    names.iter().for_each(|name| _ = engine.delete(name).unwrap());
    assert_eq!(waiting.join().unwrap(), 32, "the worker goes on");
    written();
    assert_eq!(after(disk.copy()), (8, 8));
}
