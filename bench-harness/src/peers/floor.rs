//! The floor: the least that a ring has to do, for comparison. These are no rivals: they have one producer and one
//! consumer, cannot be closed, and carry only words of 64 bits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_utils::CachePadded;

use super::link::{Link, NoFigure, Receiver, Round, Sender, Work, round_trips};
use super::waiting::{ShortBatchPause, WaitClass, Waiting};
use crate::payload::Payload;

/// A ring of slots and two positions; with `PAUSE` also the short-batch pause of our consumers.
pub struct BareRing<const PAUSE: bool>;

struct Shared<const N: usize> {
    slots: Box<[[AtomicU64; N]]>,
    published: CachePadded<AtomicU64>,
    consumed: CachePadded<AtomicU64>,
}

/// The only producer.
pub struct BareSender<const N: usize> {
    shared: Arc<Shared<N>>,
    next: u64,
    limit: u64,
}

/// The only consumer.
pub struct BareReceiver<const N: usize, const PAUSE: bool> {
    shared: Arc<Shared<N>>,
    next: u64,
    pause: ShortBatchPause,
    target: usize,
}

impl<const N: usize> BareSender<N> {
    #[inline(always)]
    fn make_room<W: Waiting>(&mut self, count: u64) {
        let mut waiting = W::begin();
        while self.next + count > self.limit {
            let consumed = self.shared.consumed.load(Ordering::Acquire);
            self.limit = consumed + self.shared.slots.len() as u64;
            if self.next + count > self.limit {
                waiting.idle();
            }
        }
    }

    #[inline(always)]
    fn write(&self, at: u64, value: u64) {
        let slots = &self.shared.slots;
        for word in &slots[at as usize & (slots.len() - 1)] {
            word.store(value, Ordering::Relaxed);
        }
    }
}

impl<const N: usize> Sender<N> for BareSender<N> {
    #[inline(always)]
    fn send<W: Waiting>(&mut self, value: u64) {
        self.make_room::<W>(1);
        self.write(self.next, value);
        self.next += 1;
        self.shared.published.store(self.next, Ordering::Release);
    }

    #[inline(always)]
    fn send_batch<W: Waiting>(&mut self, first: u64, count: usize) {
        self.make_room::<W>(count as u64);
        for index in 0..count as u64 {
            self.write(self.next + index, first + index);
        }
        self.next += count as u64;
        self.shared.published.store(self.next, Ordering::Release);
    }
}

impl<const N: usize, const PAUSE: bool> Receiver<N> for BareReceiver<N, PAUSE> {
    #[inline(always)]
    fn receive<W: Waiting, const BATCHED: bool>(&mut self, total: u64, mut see: impl FnMut(&Payload<N>)) {
        let end = self.next + total;
        let mut waiting = W::begin();
        while self.next < end {
            let published = self.shared.published.load(Ordering::Acquire).min(end);
            let ready = published - self.next;
            if ready == 0 {
                self.pause.empty();
                waiting.idle();
                continue;
            }
            let slots = &self.shared.slots;
            for at in self.next..published {
                let slot = &slots[at as usize & (slots.len() - 1)];
                see(&Payload::from_words(std::array::from_fn(|word| slot[word].load(Ordering::Relaxed))));
            }
            self.next = published;
            self.shared.consumed.store(self.next, Ordering::Release);
            if PAUSE && self.next < end {
                self.pause.handled(ready as usize, self.target);
            }
            waiting = W::begin();
        }
    }
}

impl<const N: usize, const PAUSE: bool> Link<N> for BareRing<PAUSE> {
    const MANY_PRODUCERS: bool = false;
    const BATCHES: bool = true;
    const SLEEPS: bool = false;
    type Sender = BareSender<N>;
    type Receiver = BareReceiver<N, PAUSE>;

    fn open(
        capacity: usize,
        _producers: usize,
        _waiting: WaitClass,
    ) -> Result<(Vec<Self::Sender>, Self::Receiver), NoFigure> {
        let slots = (0..capacity).map(|_| std::array::from_fn(|_| AtomicU64::new(0))).collect();
        let shared = Arc::new(Shared {
            slots,
            published: CachePadded::new(AtomicU64::new(0)),
            consumed: CachePadded::new(AtomicU64::new(0)),
        });
        let sender = BareSender { shared: Arc::clone(&shared), next: 0, limit: capacity as u64 };
        let target = ShortBatchPause::target(capacity);
        let pause = ShortBatchPause::default();
        Ok((vec![sender], BareReceiver { shared, next: 0, pause, target }))
    }
}

/// Passes a number between two cores in two cache lines: the least that a round trip can cost.
pub fn bare_line<W: Waiting>(work: &Work) -> Result<Round, NoFigure> {
    let lines: Arc<[CachePadded<AtomicU64>; 2]> = Arc::default();
    let (there, each) = (Arc::clone(&lines), work.each);
    round_trips(
        work,
        move |line, core| {
            line.take_place(core).then(|| {
                for number in 1..=each {
                    let mut waiting = W::begin();
                    while there[0].load(Ordering::Acquire) != number {
                        waiting.idle();
                    }
                    there[1].store(number, Ordering::Release);
                }
            })
        },
        move || {
            Ok(move |number| {
                lines[0].store(number + 1, Ordering::Release);
                let mut waiting = W::begin();
                loop {
                    let answer = lines[1].load(Ordering::Acquire);
                    if answer == number + 1 {
                        return answer - 1;
                    }
                    waiting.idle();
                }
            })
        },
    )
}
