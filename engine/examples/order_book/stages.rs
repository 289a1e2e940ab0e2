//! What each consumer does with a message: book, depth and signal on `orders`, tape on `quotes`.
//!
//! Every stage folds what it computes into a hash, from messages alone and in their order. So the
//! hashes are the same in every run, or a stage has lost, repeated or overtaken something.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::hash::Hasher;

use fnv::FnvHasher;

use super::book::Book;
use super::order::{Change, Order, OrderSlot, Quote, Side, Touch};

/// Levels of each side that the depth stage adds up.
pub const DEPTH_LEVELS: usize = 10;
/// Batches that the signal stage looks back on.
pub const SIGNAL_WINDOW: usize = 256;

/// Checks that messages arrive in order, by the number that each carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watch {
    /// The number that should come next.
    pub next: u64,
    pub seen: u64,
    pub lost: u64,
    pub duplicated: u64,
}

impl Watch {
    pub fn see(&mut self, index: u64) {
        self.seen += 1;
        if index < self.next {
            self.duplicated += 1;
        } else {
            self.lost += index - self.next;
            self.next = index + 1;
        }
    }

    /// Counts what never came, once the stage has ended.
    pub fn end(&mut self, total: u64) {
        self.lost += total.saturating_sub(self.next);
        self.next = self.next.max(total);
    }
}

fn fold<const N: usize>(hasher: &mut FnvHasher, values: [u64; N]) {
    for value in values {
        hasher.write(&value.to_le_bytes());
    }
}

fn fold_touch(hasher: &mut FnvHasher, touch: &Touch) {
    let Touch { bid, ask } = touch;
    fold(hasher, [bid.price, bid.volume, ask.price, ask.volume]);
}

/// Rebuilds the book, and finds best bid and offer at each millisecond's end.
#[derive(Debug, Default)]
pub struct BookStage {
    pub book: Book,
    /// Millisecond batches after the opening snapshot. The snapshot is where the book starts from,
    /// and no batch of the exchange.
    pub batches: u64,
    /// Batches that ended with a crossed book.
    pub crossed: u64,
    /// The newest best bid and offer with both sides, and its time.
    pub last_two_sided: Option<(u64, Touch)>,
    last: Touch,
    quotes: u64,
    opened: bool,
    evicted: Vec<Change>,
}

impl BookStage {
    /// Applies the order, writes its effect into the slot, and gives a quote when best bid and offer
    /// have moved.
    pub fn handle(&mut self, slot: &OrderSlot) -> Option<Quote> {
        let order = &slot.order;
        let changes = self.book.apply(order);
        self.evicted.clear();
        if !order.ends_batch {
            slot.effect.write(order, changes, &[], &Touch::default());
            return None;
        }
        let touch = self.book.settle(&mut self.evicted);
        slot.effect.write(order, changes, &self.evicted, &touch);
        self.end_batch(order, &touch);
        if touch == self.last {
            return None;
        }
        self.last = touch;
        let quote = Quote {
            index: self.quotes,
            order_index: order.index,
            time_ms: order.time_ms,
            touch,
            sent_ns: slot.sent_ns,
        };
        self.quotes += 1;
        Some(quote)
    }

    /// How many quotes were given.
    pub fn quotes(&self) -> u64 {
        self.quotes
    }

    fn end_batch(&mut self, order: &Order, touch: &Touch) {
        if std::mem::replace(&mut self.opened, true) {
            self.batches += 1;
            self.crossed += u64::from(touch.crossed());
        }
        if touch.two_sided() {
            self.last_two_sided = Some((order.time_ms, *touch));
        }
    }

    pub fn hash(&self) -> u64 {
        let mut hasher = FnvHasher::default();
        self.book.hash_into(&mut hasher);
        fold(&mut hasher, [self.batches, self.crossed, self.quotes]);
        hasher.finish()
    }
}

/// Volume by price level, from what the book stage found each order to change.
#[derive(Default)]
pub struct DepthStage {
    bids: BTreeMap<u64, u64>,
    asks: BTreeMap<u64, u64>,
    /// Volume of the best levels of each side, at the newest batch end with both sides.
    pub near: [u64; 2],
    /// Most levels that stood at a batch's end, both sides together.
    pub most_levels: usize,
    /// Batches whose best levels differ from the book stage's: always 0 in a sound run.
    pub disagreed: u64,
    hasher: FnvHasher,
}

impl DepthStage {
    pub fn handle(&mut self, slot: &OrderSlot) {
        slot.effect.for_each_change(|change| {
            let levels = match change.side {
                Side::Bid => &mut self.bids,
                Side::Ask => &mut self.asks,
            };
            let volume = levels.entry(change.price.get()).or_default();
            // Wraps only when a change was lost or repeated, which `disagreed` then shows.
            *volume = volume.wrapping_add_signed(change.delta);
            if *volume == 0 {
                levels.remove(&change.price.get());
            }
        });
        if !slot.order.ends_batch {
            return;
        }
        let touch = slot.effect.touch();
        let best = |level: Option<(&u64, &u64)>| level.map_or((0, 0), |(&p, &v)| (p, v));
        let agreed = best(self.bids.last_key_value()) == (touch.bid.price, touch.bid.volume)
            && best(self.asks.first_key_value()) == (touch.ask.price, touch.ask.volume);
        self.disagreed += u64::from(!agreed);
        let near = [sum(self.bids.values().rev().take(DEPTH_LEVELS)), sum(self.asks.values().take(DEPTH_LEVELS))];
        if touch.two_sided() {
            self.near = near;
        }
        let levels = self.bids.len() + self.asks.len();
        self.most_levels = self.most_levels.max(levels);
        fold(&mut self.hasher, near);
        fold(&mut self.hasher, [slot.order.index, levels as u64]);
    }

    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}

fn sum<'a>(volumes: impl Iterator<Item = &'a u64>) -> u64 {
    volumes.fold(0, |sum, &volume| sum.wrapping_add(volume))
}

/// A rolling imbalance of the volume at best bid and offer.
#[derive(Default)]
pub struct SignalStage {
    window: VecDeque<[u64; 2]>,
    sums: [u128; 2],
    /// From -1,000,000 (all offered) to 1,000,000 (all bid), in parts per million.
    pub imbalance_ppm: i64,
    pub lowest_ppm: i64,
    pub highest_ppm: i64,
    hasher: FnvHasher,
}

impl SignalStage {
    pub fn handle(&mut self, slot: &OrderSlot) {
        if !slot.order.ends_batch {
            return;
        }
        let touch = slot.effect.touch();
        if touch.two_sided() {
            self.add([touch.bid.volume, touch.ask.volume]);
        }
        let imbalance = self.imbalance_ppm.cast_unsigned();
        fold(&mut self.hasher, [slot.order.index, imbalance]);
    }

    fn add(&mut self, volumes: [u64; 2]) {
        if self.window.len() == SIGNAL_WINDOW
            && let Some(oldest) = self.window.pop_front()
        {
            for (sum, volume) in self.sums.iter_mut().zip(oldest) {
                *sum -= u128::from(volume);
            }
        }
        self.window.push_back(volumes);
        for (sum, volume) in self.sums.iter_mut().zip(volumes) {
            *sum += u128::from(volume);
        }
        // At most 256 volumes of 63 bits a side: a million times that is far below 127 bits.
        let [bid, ask] = self.sums.map(u128::cast_signed);
        self.imbalance_ppm = ((bid - ask) * 1_000_000 / (bid + ask)) as i64;
        self.lowest_ppm = self.lowest_ppm.min(self.imbalance_ppm);
        self.highest_ppm = self.highest_ppm.max(self.imbalance_ppm);
    }

    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}

/// Reads the quotes.
#[derive(Default)]
pub struct TapeStage {
    pub last: Quote,
    hasher: FnvHasher,
}

impl TapeStage {
    pub fn handle(&mut self, quote: &Quote) {
        self.last = *quote;
        fold(&mut self.hasher, [quote.index, quote.order_index, quote.time_ms]);
        fold_touch(&mut self.hasher, &quote.touch);
    }

    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}

/// One number for all that a run computed.
pub fn state_hash(book: &BookStage, depth: &DepthStage, signal: &SignalStage, tape: &TapeStage) -> u64 {
    let mut hasher = FnvHasher::default();
    let hashes = [book.hash(), depth.hash(), signal.hash(), tape.hash()];
    fold(&mut hasher, hashes);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::super::order::{Action, Best};
    use super::*;
    use std::num::NonZeroU64;

    #[test]
    fn a_watch_counts_gaps_repeats_and_the_missing_end() {
        let mut watch = Watch::default();
        for index in [0, 1, 4, 4, 2, 5] {
            watch.see(index);
        }
        watch.end(8);
        let wanted = Watch { next: 8, seen: 6, lost: 4, duplicated: 2 };
        assert_eq!(watch, wanted);
    }

    fn slot(index: u64, id: u64, side: Side, price: u64, ends_batch: bool) -> OrderSlot {
        OrderSlot {
            order: Order {
                index,
                id,
                time_ms: index,
                side,
                price: NonZeroU64::new(price),
                volume: NonZeroU64::new(10 + index),
                action: Action::Created,
                snapshot: index == 0,
                ends_batch,
            },
            ..OrderSlot::default()
        }
    }

    #[test]
    fn depth_follows_the_book_through_an_eviction() {
        let slots = [
            slot(0, 1, Side::Ask, 100, true),
            slot(1, 2, Side::Ask, 105, false),
            slot(2, 3, Side::Bid, 101, true),
            slot(3, 4, Side::Bid, 102, true),
        ];
        let (mut book, mut depth) = (BookStage::default(), DepthStage::default());
        let (mut signal, mut quotes) = (SignalStage::default(), Vec::new());
        for slot in &slots {
            quotes.extend(book.handle(slot));
            depth.handle(slot);
            signal.handle(slot);
        }
        assert_eq!(depth.disagreed, 0);
        assert_eq!((book.batches, book.crossed), (2, 0));
        assert_eq!(book.book.evicted, [1]);
        assert_eq!(depth.near, [12 + 13, 11]);
        let touch = quotes[1].touch;
        assert_eq!(touch.bid, Best { price: 101, volume: 12 });
        assert_eq!(touch.ask, Best { price: 105, volume: 11 });
        assert_eq!(quotes.len(), 3);
        // 12 and 13 bid against twice 11 offered.
        assert_eq!(signal.imbalance_ppm, (25 - 22) * 1_000_000 / 47);
        // A change that the depth stage misses is seen.
        depth.handle(&slot(4, 5, Side::Bid, 99, true));
        assert_eq!(depth.disagreed, 1);
    }

    #[test]
    fn the_signal_forgets_what_leaves_its_window() {
        let mut signal = SignalStage::default();
        signal.add([1_000, 0]);
        assert_eq!(signal.imbalance_ppm, 1_000_000);
        for _ in 0..SIGNAL_WINDOW {
            signal.add([1, 3]);
        }
        assert_eq!(signal.imbalance_ppm, -500_000);
        assert_eq!(signal.window.len(), SIGNAL_WINDOW);
    }
}
