//! One row of the feed, and the slot of the ring that carries it.
//!
//! All numbers are integers: prices in cents, volumes in 1e-8 of a coin, times in milliseconds.

use std::fmt;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// What happened to an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    Created,
    Changed,
    Deleted,
}

/// The side of the book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Side {
    #[default]
    Bid,
    Ask,
}

impl Side {
    pub fn name(self) -> &'static str {
        match self {
            Side::Bid => "bid",
            Side::Ask => "ask",
        }
    }
}

/// One order event, as the feed has it.
///
/// A price or a volume of zero means "none" in the feed: a market order has no price, and an order
/// that was filled has no volume left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// The row's number in the feed, from 0. Every stage counts what it lost by this.
    pub index: u64,
    /// The exchange's order id. Ids grow with time.
    pub id: u64,
    /// When the exchange did it, in milliseconds since 1970.
    pub time_ms: u64,
    /// In cents.
    pub price: Option<NonZeroU64>,
    /// In 1e-8 of a coin.
    pub volume: Option<NonZeroU64>,
    pub action: Action,
    pub side: Side,
    /// The row belongs to the opening snapshot.
    pub snapshot: bool,
    /// The next row is of another millisecond: the book is whole after this one.
    pub ends_batch: bool,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = match self.action {
            Action::Created => "created",
            Action::Changed => "changed",
            Action::Deleted => "deleted",
        };
        write!(
            f,
            "#{} {} {action} {} {} @ {}",
            self.index,
            self.time_ms,
            self.side.name(),
            Volume(self.volume.map_or(0, NonZeroU64::get)),
            Price(self.price.map_or(0, NonZeroU64::get)),
        )
    }
}

/// Prints cents as units with two decimals, and `-` for none.
pub struct Price(pub u64);

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("-"),
            cents => write!(f, "{}.{:02}", cents / 100, cents % 100),
        }
    }
}

/// Prints 1e-8 of a coin as coins with eight decimals, and `-` for none.
pub struct Volume(pub u64);

impl fmt::Display for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const COIN: u64 = 100_000_000;
        match self.0 {
            0 => f.write_str("-"),
            units => write!(f, "{}.{:08}", units / COIN, units % COIN),
        }
    }
}

/// A price level's move: how much volume came or went at one price.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    pub side: Side,
    pub price: NonZeroU64,
    pub delta: i64,
}

/// The best price of a side and all the volume that stands there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Best {
    /// In cents; 0 when the side is empty.
    pub price: u64,
    /// In 1e-8 of a coin.
    pub volume: u64,
}

/// Best bid and offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touch {
    pub bid: Best,
    pub ask: Best,
}

impl Touch {
    /// Whether a buyer pays what a seller asks, or more. A sound book never stands like this.
    pub fn crossed(&self) -> bool {
        self.bid.price != 0 && self.ask.price != 0 && self.bid.price >= self.ask.price
    }

    pub fn two_sided(&self) -> bool {
        self.bid.price != 0 && self.ask.price != 0
    }
}

impl fmt::Display for Touch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bid {} @ {} | ask {} @ {}",
            Volume(self.bid.volume),
            Price(self.bid.price),
            Volume(self.ask.volume),
            Price(self.ask.price)
        )
    }
}

/// The message of topic `orders`: the order, and what the book stage found out about it.
///
/// The stages behind `book` need its results. They stand in the same slot, so that each stage reads
/// what belongs to its own event, however far the book has gone on meanwhile.
#[derive(Debug, Default)]
pub struct OrderSlot {
    pub order: Order,
    /// Nanoseconds since the run began: when it was published, or should have been.
    pub sent_ns: u64,
    pub effect: Effect,
}

impl fmt::Display for OrderSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.order.fmt(f)
    }
}

/// What the book stage writes on an event for the stages behind it.
///
/// Relaxed is enough: the topic lets a stage see an event only after `book` has finished it, and
/// lets `book` write here again only after all of them have.
#[derive(Debug, Default)]
pub struct Effect {
    /// The order's index plus one, so that a slot never written can't pass for event 0.
    stamp: AtomicU64,
    changes: [(AtomicU64, AtomicU64); 2],
    evicted_len: AtomicU32,
    /// Only touched where the book evicted something, which is rare.
    evicted: Mutex<Vec<Change>>,
    touch: [AtomicU64; 4],
    finished: AtomicU32,
}

impl Effect {
    /// Writes what `order` did. `touch` is only meant where the order ends a batch.
    pub fn write(&self, order: &Order, changes: [Option<Change>; 2], evicted: &[Change], touch: &Touch) {
        for (slot, change) in self.changes.iter().zip(changes) {
            let (key, delta) = match change {
                Some(change) => {
                    (change.price.get() << 1 | u64::from(change.side == Side::Ask), change.delta.cast_unsigned())
                }
                None => (0, 0),
            };
            slot.0.store(key, Relaxed);
            slot.1.store(delta, Relaxed);
        }
        if !evicted.is_empty() {
            let mut list = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
            list.clear();
            list.extend_from_slice(evicted);
        }
        self.evicted_len.store(evicted.len() as u32, Relaxed);
        let values = [touch.bid.price, touch.bid.volume, touch.ask.price, touch.ask.volume];
        for (slot, value) in self.touch.iter().zip(values) {
            slot.store(value, Relaxed);
        }
        self.finished.store(0, Relaxed);
        self.stamp.store(order.index + 1, Relaxed);
    }

    /// Whether the book stage has written this for `order`. False means that a stage ran too early.
    pub fn belongs_to(&self, order: &Order) -> bool {
        self.stamp.load(Relaxed) == order.index + 1
    }

    /// Calls `apply` with every change of a level, evictions last.
    pub fn for_each_change(&self, mut apply: impl FnMut(Change)) {
        for slot in &self.changes {
            let key = slot.0.load(Relaxed);
            if let Some(price) = NonZeroU64::new(key >> 1) {
                let side = if key & 1 == 1 { Side::Ask } else { Side::Bid };
                let delta = slot.1.load(Relaxed).cast_signed();
                apply(Change { side, price, delta });
            }
        }
        if self.evicted_len.load(Relaxed) != 0 {
            let list = self.evicted.lock().unwrap_or_else(PoisonError::into_inner);
            list.iter().copied().for_each(apply);
        }
    }

    /// Best bid and offer at the end of a batch.
    pub fn touch(&self) -> Touch {
        let [bid_price, bid_volume, ask_price, ask_volume] = self.touch.each_ref().map(|value| value.load(Relaxed));
        Touch { bid: Best { price: bid_price, volume: bid_volume }, ask: Best { price: ask_price, volume: ask_volume } }
    }

    /// Counts a stage that is done with the event; true for the last of `stages`.
    pub fn finish(&self, stages: u32) -> bool {
        self.finished.fetch_add(1, Relaxed) + 1 == stages
    }
}

/// The message of topic `quotes`: best bid and offer after a millisecond in which they moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// The quote's number, from 0.
    pub index: u64,
    /// The order event that ended the millisecond.
    pub order_index: u64,
    pub time_ms: u64,
    pub touch: Touch,
    /// The send time of that order event.
    pub sent_ns: u64,
}

impl fmt::Display for Quote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{} {} {}", self.index, self.time_ms, self.touch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_gives_back_what_was_written() {
        let price = |cents| NonZeroU64::new(cents).unwrap();
        let change = |side, cents, delta| Change { side, price: price(cents), delta };
        let order = Order { index: 6, ..Order::default() };
        let touch = Touch { bid: Best { price: 1, volume: 2 }, ask: Best { price: 3, volume: 4 } };
        let effect = Effect::default();
        assert!(!effect.belongs_to(&Order::default()));
        let wanted = [change(Side::Ask, 500, -3), change(Side::Bid, 400, 9)];
        let evicted = [change(Side::Ask, 399, -1)];
        effect.write(&order, wanted.map(Some), &evicted, &touch);
        assert!(effect.belongs_to(&order));
        assert_eq!(effect.touch(), touch);
        let mut seen = Vec::new();
        effect.for_each_change(|change| seen.push(change));
        assert_eq!(seen, [&wanted[..], &evicted[..]].concat());
        assert!(!effect.finish(2));
        assert!(effect.finish(2));

        // The slot's next lap: nothing of the old event may show.
        effect.write(&order, [None, None], &[], &touch);
        effect.for_each_change(|change| panic!("left over: {change:?}"));
    }

    #[test]
    fn numbers_print_as_a_reader_expects() {
        assert_eq!(Price(7_831_805).to_string(), "78318.05");
        assert_eq!(Volume(718).to_string(), "0.00000718");
        assert_eq!(Price(0).to_string(), "-");
    }
}
