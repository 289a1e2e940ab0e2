//! Goal: with a million leases outstanding, what does one lease, one ack, one expiry cost, and what does a message hold
//! beside its body? The same through a worker of a durable topic, whose changes are written behind it, and the bytes of a
//! leased message in the journal's state. Not a goal: threads that contend, or the copying of bodies.
//!
//!     cargo bench -p slipring --bench queue
#![allow(clippy::unwrap_used)]

use criterion::{Criterion, criterion_group, criterion_main};
use slipring::queue::lease::{LeaseSettings, LeasedMessage, Leases, Order};
use slipring::{Engine, Level, Message, Record, clock::ManualClock, journal, queue::Backoff};
use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const OUTSTANDING: u64 = 1_000_000;
/// Timed at once: so few that the number outstanding stays the same.
const AT_ONCE: u64 = 1_000;

static BYTES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: passes everything on, and counts.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A queue and what its workers hold; one body is shared by all, so that only the state is measured.
struct Held {
    leases: Leases<Arc<[u8]>>,
    leased: Vec<LeasedMessage<Arc<[u8]>>>,
    body: Arc<[u8]>,
    next: u64,
    random: fastrand::Rng,
}

fn time(offset: u64) -> Duration {
    Duration::from_micros(offset)
}

impl Held {
    fn new(order: Order) -> Self {
        let visibility = Duration::from_secs(3600);
        let (max_messages, max_bytes) = (usize::MAX, usize::MAX);
        let settings =
            LeaseSettings { visibility, max_attempts: None, order, max_messages, max_bytes, backoff: Backoff::NONE };
        let leased = Vec::with_capacity((OUTSTANDING + AT_ONCE) as usize);
        let body: Arc<[u8]> = Arc::from(&b"a job"[..]);
        let leases = Leases::new(settings, |body: &Arc<[u8]>| body.len());
        let mut held = Self { leases, leased, body, next: 0, random: fastrand::Rng::with_seed(1) };
        held.fill(OUTSTANDING);
        held
    }

    fn fill(&mut self, len: u64) {
        for _ in 0..len {
            let offset = self.next;
            self.next += 1;
            let lease = self.leases.admit((offset % 4) as u32, offset, Arc::clone(&self.body), time(offset));
            self.leased.push(lease);
        }
    }

    fn any(&mut self) -> LeasedMessage<Arc<[u8]>> {
        let at = self.random.usize(..self.leased.len());
        self.leased.swap_remove(at)
    }
}

fn state_of_a_message() {
    let before = BYTES.load(Ordering::Relaxed);
    let held = Held::new(Order::Relaxed);
    let leased = held.leased.capacity() * size_of::<LeasedMessage<Arc<[u8]>>>();
    let each = (BYTES.load(Ordering::Relaxed) - before - leased) as f64 / OUTSTANDING as f64;
    println!("{each:.1} bytes of state for each of {OUTSTANDING} leased messages");
    assert!(each < 100.0, "{each}");
}

/// Half of all times are no longer than this, in nanoseconds.
fn median(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times[times.len() / 2]
}

fn nanos(begun: Instant) -> u64 {
    begun.elapsed().as_nanos() as u64
}

fn on_a_durable_topic() {
    let quick = std::env::args().any(|argument| argument == "--test");
    let messages = if quick { 20_000 } else { OUTSTANDING };
    let folder = tempfile::tempdir().unwrap();
    let clock = ManualClock::new();
    let engine = Engine::builder().clock(clock.clone()).journal(folder.path()).build().unwrap();
    let jobs =
        engine.topic::<Message>("jobs").partitions(4).capacity(1 << 14).max_message(64).durable().create().unwrap();
    let queue = jobs.queue("q").visibility(Duration::from_secs(3600)).unlimited_attempts();
    let mut worker = queue.max_outstanding(usize::MAX).join().unwrap();
    let mut producer = jobs.producer().create().unwrap();
    let mut last = None;
    for number in 0..messages {
        last = Some(producer.send(Record::new(&number.to_le_bytes())).unwrap());
    }
    last.unwrap().wait(Level::Written).unwrap();
    let mut leases = Vec::with_capacity(messages as usize);
    let mut leased = Vec::with_capacity(messages as usize);
    while leases.len() < messages as usize {
        let begun = Instant::now();
        let Some(lease) = worker.receive(Duration::ZERO).unwrap() else {
            assert!(worker.queue().metrics().full, "the journal's state has room for no more");
            break;
        };
        leased.push(nanos(begun));
        leases.push(lease);
    }
    let outstanding = leases.len();
    println!("{outstanding} leased on a durable topic: {} ns a lease", median(leased));
    let mut acked = Vec::new();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..outstanding / 100 {
        let lease = leases.swap_remove(random.usize(..leases.len()));
        let begun = Instant::now();
        lease.ack().unwrap();
        acked.push(nanos(begun));
    }
    println!("{} ns an ack, any of them", median(acked));
    let left = leases.len();
    leases.into_iter().for_each(|lease| _ = lease.leave());
    let begun = Instant::now();
    clock.advance(Duration::from_secs(3601));
    println!("{:.0} ns an expiry, of {left} at once", nanos(begun) as f64 / left as f64);
    drop((worker, producer));
    engine.shutdown(Duration::from_secs(60)).journal.unwrap().unwrap();
    let survey = journal::inspect(std::sync::Arc::new(journal::storage::Disk::new(folder.path())), false).unwrap();
    println!("{:.1} bytes of the journal's state for each message", survey.state().size() as f64 / left as f64);
}

fn queue(c: &mut Criterion) {
    state_of_a_message();
    on_a_durable_topic();
    let mut held = Held::new(Order::Relaxed);
    let mut group = c.benchmark_group("a million leased");
    group.bench_function("lease", |b| {
        b.iter_custom(|times| {
            timed(times, &mut held, |held, len| {
                let begun = Instant::now();
                held.fill(len);
                let took = begun.elapsed();
                for _ in 0..len {
                    let lease = held.any();
                    held.leases.ack(lease.id, time(held.next)).unwrap();
                }
                took
            })
        });
    });
    group.bench_function("ack, any of them", |b| {
        b.iter_custom(|times| {
            timed(times, &mut held, |held, len| {
                let leased: Vec<_> = (0..len).map(|_| held.any()).collect();
                let now = time(held.next);
                let begun = Instant::now();
                for lease in leased {
                    held.leases.ack(black_box(lease.id), now).unwrap();
                }
                let took = begun.elapsed();
                held.fill(len);
                took
            })
        });
    });
    group.bench_function("renew, any of them", |b| {
        b.iter_custom(|times| {
            timed(times, &mut held, |held, len| {
                let leased: Vec<_> = (0..len).map(|_| held.any()).collect();
                let now = time(held.next);
                let begun = Instant::now();
                for lease in &leased {
                    held.leases.renew(black_box(lease.id), now, Duration::from_secs(3600)).unwrap();
                }
                let took = begun.elapsed();
                held.leased.extend(leased);
                took
            })
        });
    });
    drop(held);
    let mut held = Held::new(Order::Relaxed);
    group.bench_function("expire and lease again", |b| {
        b.iter_custom(|times| {
            timed(times, &mut held, |held, len| {
                let now = held.leases.next_due(Duration::ZERO).unwrap() + Duration::from_millis(1);
                let begun = Instant::now();
                let again = (0..len).map_while(|_| held.leases.lease_due(now)).count();
                let took = begun.elapsed();
                took.mul_f64(len as f64 / again as f64)
            })
        });
    });
    group.finish();
}

fn timed(times: u64, held: &mut Held, mut some: impl FnMut(&mut Held, u64) -> Duration) -> Duration {
    let mut left = times;
    let mut took = Duration::ZERO;
    while left > 0 {
        let len = left.min(AT_ONCE);
        took += some(held, len);
        left -= len;
    }
    took
}

criterion_group!(benches, queue);
criterion_main!(benches);
