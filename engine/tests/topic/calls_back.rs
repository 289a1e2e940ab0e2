//! Code of the user's that calls the engine which runs it: clocks, wakers, callbacks, partitioners, subscribers of
//! `tracing`, and the drop of an event. No lock of the engine's is held meanwhile, so nothing here waits for itself.

use crate::listener::listen;
use crate::soon::{LONG, soon};
use slipring::journal::simulated::SimulatedDisk;
use slipring::{
    Engine, Level, Message, Persist, Record, Topic,
    clock::{Clock, ManualClock, Tick, Timestamp},
    group::Rebalance,
    producer::{IdempotenceError, Multi, Partitioner, PublishError, WaitError},
    queue::{Queue, QueueError},
    subscriber::StartAt,
    topic::{Deduplication, Unreadable},
};
use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, OnceLock, Weak, mpsc};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

const NOW: Duration = Duration::ZERO;

/// What is called back, and how often it was: never from inside of itself.
#[derive(Clone, Default)]
struct CallBack(Arc<Inside>);

#[derive(Default)]
struct Inside {
    call: OnceLock<Box<dyn Fn() + Send + Sync>>,
    calls: AtomicU64,
}

thread_local! { static IS_INSIDE: Cell<bool> = const { Cell::new(false) } }

impl CallBack {
    fn set(&self, call: impl Fn() + Send + Sync + 'static) {
        assert!(self.0.call.set(Box::new(call)).is_ok());
    }

    fn call(&self) {
        if let Some(call) = self.0.call.get()
            && !IS_INSIDE.replace(true)
        {
            self.0.calls.fetch_add(1, SeqCst);
            call();
            IS_INSIDE.set(false);
        }
    }

    fn calls(&self) -> u64 {
        self.0.calls.load(SeqCst)
    }
}

impl Wake for Inside {
    fn wake(self: Arc<Self>) {
        CallBack(self).call();
    }
}

/// Whatever it is asked, it asks the engine first.
struct CuriousClock(CallBack, ManualClock);

impl Clock for CuriousClock {
    fn now(&self) -> Duration {
        self.0.call();
        self.1.now()
    }

    fn wall(&self) -> Timestamp {
        self.0.call();
        self.1.wall()
    }

    fn watch(&self, tick: Weak<dyn Tick>) -> bool {
        self.0.call();
        self.1.watch(tick)
    }
}

/// All that a caller can look at.
fn look_at(engine: &Engine) {
    engine.groups();
    engine.metrics();
    engine.topics();
    engine.failures();
    let _ = engine.describe("jobs");
    if let Ok(jobs) = engine.get::<Message, Multi>("jobs") {
        jobs.metrics();
        // It is not there yet, or it is being opened by whoever asked for the time.
        match jobs.queue("work").open() {
            Ok(queue) => {
                queue.metrics();
                queue.peek(1);
                queue.dead_letters();
            }
            // Or this is the journal's own thread, or the end.
            Err(QueueError::Busy { .. } | QueueError::Journal { .. } | QueueError::DeadLetters(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_clock_may_call_the_engine_that_asks_it_for_the_time() {
    for durable in [false, true] {
        soon("a clock that calls the engine", move || {
            let (call_back, hands) = (CallBack::default(), ManualClock::new());
            let builder = Engine::builder().clock(CuriousClock(call_back.clone(), hands.clone()));
            let engine = builder.journal_in(SimulatedDisk::new()).build().unwrap();
            let inside = engine.clone();
            call_back.set(move || look_at(&inside));
            let jobs = engine.topic::<Message>("jobs").partitions(2).max_message(64).timestamps();
            let jobs = jobs.deduplicate(Deduplication::last(9));
            let jobs = if durable { jobs.durable() } else { jobs }.create().unwrap();
            let mut producer = jobs.producer().create().unwrap();

            let mut member = jobs.group("billing").start(StartAt::Earliest).join().unwrap();
            let mut other = jobs.group("billing").start(StartAt::Earliest).join().unwrap();
            producer.send(Record::new("paid").id(b"1")).unwrap();
            producer.send(Record::new("paid").id(b"1")).unwrap();
            for _ in 0..4 {
                member.poll(NOW).unwrap().unwrap().commit().unwrap();
                other.poll(NOW).unwrap().unwrap().commit().unwrap();
            }
            hands.advance(Duration::from_secs(3600));
            assert!(member.poll(NOW).is_err(), "it is fenced");
            member.rejoin().unwrap();
            drop((member, other));
            jobs.group("billing").reset(StartAt::Earliest).unwrap();

            // The clock has opened it by now.
            let mut worker = jobs.queue("work").join().unwrap();
            for number in 0..4 {
                producer.send(Record::new("job").id(&[number])).unwrap();
            }
            let mut lease = worker.receive(LONG).unwrap().unwrap();
            lease.renew(LONG).unwrap();
            lease.ack().unwrap();
            worker.receive(LONG).unwrap().unwrap().nack(NOW, "no").unwrap();
            drop(worker.receive(LONG).unwrap());
            let queue = worker.queue();
            let ticket = worker.receive(LONG).unwrap().unwrap().leave();
            queue.resume(&ticket).unwrap().retry("later").unwrap();
            hands.advance(Duration::from_secs(3600));
            queue.purge();
            queue.redrive(9);
            drop(worker);

            let mut named = jobs.producer().idempotent("gateway").unwrap();
            named.send(0, Record::new("once")).unwrap();
            let lingering = jobs.producer().linger(Duration::from_secs(1), 2).create().unwrap();
            (0..3).for_each(|_| _ = lingering.send(Record::new("late")).unwrap());
            hands.advance(Duration::from_secs(1));
            let _ = jobs.delete_queue_forced("work");
            assert!(call_back.calls() > 30, "{}", call_back.calls());
            engine.shutdown(LONG);
        });
    }
}

/// A member that joins, leaves or is late wakes others, and so does whoever leaves a queue.
#[test]
fn a_waker_may_call_the_engine_that_wakes_its_task() {
    soon("a waker that calls the engine", || {
        let clock = ManualClock::new();
        let engine = Engine::builder().clock(clock.clone()).build().unwrap();
        let jobs = engine.topic::<Message>("jobs").partitions(2).capacity(4).max_message(64).create().unwrap();
        let call_back = CallBack::default();
        let inside = engine.clone();
        call_back.set(move || look_at(&inside));
        let waker = Waker::from(Arc::clone(&call_back.0));
        let mut context = Context::from_waker(&waker);

        let mut member = jobs.group("billing").join().unwrap();
        for change in 0..3 {
            {
                let mut batch = pin!(member.next_batch());
                assert!(batch.as_mut().poll(&mut context).is_pending());
                let calls = call_back.calls();
                match change {
                    0 => drop(jobs.group("billing").member_name("second").join().unwrap()),
                    1 => clock.advance(Duration::from_secs(3600)),
                    _ => drop(jobs.group("billing").join().unwrap()),
                }
                assert!(call_back.calls() > calls, "change {change} wakes it");
            }
            let _ = member.poll(NOW);
        }
        drop(member);

        let (mut watches, mut waits) = (jobs.queue("work").join().unwrap(), jobs.queue("work").join().unwrap());
        {
            let mut first = Box::pin(watches.receive_async());
            let mut second = pin!(waits.receive_async());
            assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert!(second.as_mut().poll(&mut context).is_pending());
            let calls = call_back.calls();
            drop(first);
            assert!(call_back.calls() > calls, "somebody else is to watch");
        }
        {
            let mut waits = pin!(waits.receive_async());
            assert!(waits.as_mut().poll(&mut context).is_pending());
            let calls = call_back.calls();
            jobs.delete_queue_forced("work").unwrap();
            assert!(call_back.calls() > calls, "it has ended");
        }

        // A task that waits for room is woken by the group that lets go of its gates.
        let gates = jobs.group("gates").start(StartAt::Earliest).join().unwrap();
        let mut producer = jobs.producer().partitioner(Partitioner::RoundRobin).create().unwrap();
        for _ in 0..8 {
            producer.send(Record::new("fills")).unwrap();
        }
        let record = Record::new("waits");
        let mut sends = pin!(producer.send_async(&record));
        assert!(sends.as_mut().poll(&mut context).is_pending());
        let calls = call_back.calls();
        gates.leave();
        assert!(call_back.calls() > calls, "there is room");
    });
}

/// It waited for the lock that it was called under.
#[test]
fn on_completion_may_use_its_own_producer() {
    soon("a callback that sends", || {
        let clock = ManualClock::new();
        let engine = Engine::builder().clock(clock.clone()).build().unwrap();
        let orders = engine.topic::<Message>("orders").create().unwrap();
        let (own, told) =
            (Arc::new(OnceLock::<slipring::producer::LingeringProducer>::new()), Arc::new(Mutex::new(Vec::new())));
        let (inside, numbers) = (Arc::clone(&own), Arc::clone(&told));
        let on_completion = move |number, _| {
            numbers.lock().unwrap().push(number);
            let own = inside.get().unwrap();
            let _ = (own.gathered(), format!("{own:?}"));
            if number < 4 {
                own.send(Record::new("again")).unwrap();
                own.flush().unwrap();
            }
        };
        let producer =
            orders.producer().linger(Duration::from_secs(1), 2).on_completion(on_completion).create().unwrap();
        assert!(own.set(producer.clone()).is_ok());
        producer.send(Record::new("first")).unwrap();
        producer.send(Record::new("second")).unwrap();
        assert_eq!(*told.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
        // On the timer's side, too.
        producer.send(Record::new("late")).unwrap();
        clock.advance(Duration::from_secs(1));
        assert_eq!(told.lock().unwrap().len(), 7);
        assert_eq!(orders.metrics().published, 7);
    });
}

#[test]
fn a_partitioner_that_uses_its_own_gathering_producer_is_refused() {
    soon("a partitioner that sends", || {
        let engine = Engine::builder().build().unwrap();
        let orders = engine.topic::<Message>("orders").partitions(2).create().unwrap();
        let own = Arc::new(OnceLock::<slipring::producer::LingeringProducer>::new());
        let inside = Arc::clone(&own);
        let partitioner = Partitioner::custom(move |_: Option<&[u8]>, _: u32| {
            let own = inside.get().unwrap();
            assert_eq!(own.gathered(), 0);
            assert!(matches!(own.send(Record::new("inner")), Err(PublishError::Nested { .. })));
            assert!(matches!(own.flush(), Err(PublishError::Nested { .. })));
            1
        });
        let producer = orders.producer().partitioner(partitioner).linger(LONG, 9).create().unwrap();
        assert!(own.set(producer.clone()).is_ok());
        producer.send(Record::new("outer")).unwrap();
        producer.flush().unwrap();
        assert_eq!(orders.metrics().published, 1);
    });
}

#[test]
fn what_fills_an_event_may_ask_for_its_producers_name_and_not_publish_under_it() {
    soon("a closure that publishes", || {
        let engine = Engine::builder().build().unwrap();
        let orders = engine.topic::<u64>("orders").create().unwrap();
        let mut first = orders.producer().idempotent("gateway").unwrap();
        let topic = orders.clone();
        let receipt = first.publish(7, move |order| {
            let mut successor = topic.producer().idempotent("gateway").unwrap();
            assert_eq!(successor.next_sequence(), None, "nothing is published yet");
            let nested = successor.publish(7, |_| unreachable!());
            assert!(matches!(nested, Err(IdempotenceError::Nested { sequence: 7, .. })), "{nested:?}");
            *order = 42;
        });
        receipt.unwrap();
        let successor = orders.producer().idempotent("gateway").unwrap();
        assert_eq!(successor.next_sequence(), Some(8));
    });
}

/// An event whose drop looks at the queue that it was in.
#[derive(Default)]
struct Parting(u64, CallBack);

impl Clone for Parting {
    fn clone(&self) -> Self {
        Self(self.0, self.1.clone())
    }
}

impl Drop for Parting {
    fn drop(&mut self) {
        self.1.call();
    }
}

impl Persist for Parting {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0.to_le_bytes());
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        self.0 = u64::from_le_bytes(bytes.try_into().map_err(|_| Unreadable("it has another size"))?);
        Ok(())
    }

    fn layout() -> String {
        "parting".to_owned()
    }
}

#[test]
fn the_drop_of_an_event_may_look_at_the_queue_that_it_leaves() {
    soon("an event's drop that looks at its queue", || {
        let engine = Engine::builder().build().unwrap();
        let jobs: Topic<Parting> = engine.topic::<Parting>("partings").create_with(Parting::default).unwrap();
        let queue: Queue<Parting> = jobs.queue("work").max_attempts(2).open().unwrap();
        let mut worker = jobs.queue("work").max_attempts(2).join().unwrap();
        let call_back = CallBack::default();
        let looks = queue.clone();
        call_back.set(move || _ = looks.metrics());
        let mut producer = jobs.producer().create().unwrap();
        let mut receipts = Vec::new();
        for number in 0..4 {
            let receipt = producer.publish(|event| *event = Parting(number, call_back.clone())).unwrap();
            receipts.push(receipt);
            worker.receive(LONG).unwrap().unwrap().nack(LONG, "later").unwrap();
        }
        let calls = call_back.calls();
        assert!(queue.delete(&receipts[0]).unwrap());
        assert!(call_back.calls() > calls, "the last one of it");
        assert_eq!(queue.purge(), 3);
        assert!(call_back.calls() > calls + 3, "{}", call_back.calls());
        // The last attempt, and the end of the queue with a message in it.
        producer.publish(|event| *event = Parting(5, call_back.clone())).unwrap();
        for _ in 0..2 {
            worker.receive(LONG).unwrap().unwrap().nack(NOW, "no").unwrap();
        }
        producer.publish(|event| *event = Parting(6, call_back.clone())).unwrap();
        worker.receive(LONG).unwrap().unwrap().nack(LONG, "later").unwrap();
        jobs.delete_queue_forced("work").unwrap();
    });
}

/// Looks at the engine whenever something is said.
struct Curious(CallBack);

impl tracing::Subscriber for Curious {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        self.0.call();
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_subscriber_of_tracing_may_call_the_engine_that_tells_it() {
    soon("a subscriber of tracing that calls the engine", || {
        let call_back = CallBack::default();
        let _told = listen(Curious(call_back.clone()), Curious(CallBack::default()));
        let clock = ManualClock::new();
        let engine = Engine::builder().clock(clock.clone()).build().unwrap();
        let inside = engine.clone();
        call_back.set(move || look_at(&inside));
        let jobs = engine.topic::<Message>("jobs").create().unwrap();
        let listens = |_: &Rebalance| ();
        let mut member = jobs.group("billing").listener(listens).join().unwrap();
        member.poll(NOW).unwrap().unwrap().commit().unwrap();
        clock.advance(Duration::from_secs(3600));
        assert!(member.poll(NOW).is_err(), "it is fenced");
        member.rejoin().unwrap();
        member.leave();
        drop(jobs.queue("work").join().unwrap());
        jobs.delete_queue("work").unwrap();
        // The engine's own thread may be the one that fences the member, and this subscriber listens to this thread alone.
        assert!(call_back.calls() >= 8, "{}", call_back.calls());
    });
}

/// Without a deadline it was told that the deadline had passed, and to wait again.
#[test]
fn a_waker_that_waits_for_a_receipt_is_told_on_which_thread_it_runs() {
    soon("a waker that waits for a receipt", || {
        let disk = SimulatedDisk::new();
        let engine = Engine::builder().journal_in(disk.clone()).build().unwrap();
        let ticks = engine.topic::<u64>("ticks").durable().create().unwrap();
        let inside = Mutex::new(ticks.producer().create().unwrap());
        let (tell, told) = mpsc::channel();
        let call_back = CallBack::default();
        call_back.set(move || {
            let receipt = inside.lock().unwrap().publish(|tick| *tick = 2).unwrap();
            let far = Some(Instant::now() + LONG);
            let _ = tell.send([receipt.wait(Level::Durable), receipt.wait_until(Level::Durable, far)]);
        });
        disk.hold_syncs(true);
        let receipt = ticks.producer().create().unwrap().publish(|tick| *tick = 1).unwrap();
        let waker = Waker::from(Arc::clone(&call_back.0));
        let mut wait = pin!(receipt.reach(Level::Durable));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        disk.hold_syncs(false);
        let own = told.recv_timeout(LONG).unwrap();
        assert_eq!(own, [Err(WaitError::OwnThread), Err(WaitError::OwnThread)]);
        assert!(WaitError::OwnThread.to_string().contains("another thread"));
    });
}
