//! The order-by-order book: every order by id, every price level with its orders in age.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::num::NonZeroU64;

use fnv::{FnvHashMap, FnvHasher};

use super::order::{Action, Best, Change, Order, Side, Touch};

/// An order that is in the book. Without a price or a volume it is known, but stands in no level.
#[derive(Clone, Copy, Debug)]
struct Resting {
    side: Side,
    price: Option<NonZeroU64>,
    volume: Option<NonZeroU64>,
    snapshot: bool,
}

impl Resting {
    fn level(&self) -> Option<(Side, NonZeroU64, NonZeroU64)> {
        Some((self.side, self.price?, self.volume?))
    }
}

#[derive(Debug, Default)]
struct Level {
    volume: u64,
    /// Ids grow with time, so the first is the oldest.
    ids: BTreeSet<u64>,
}

/// The book of one instrument.
///
/// The feed decides what rests: nothing is matched here. So a bid may stand above an ask in the
/// middle of a millisecond, until the rows of the trade have come. See [`Book::settle`].
#[derive(Debug, Default)]
pub struct Book {
    orders: FnvHashMap<u64, Resting>,
    bids: BTreeMap<NonZeroU64, Level>,
    asks: BTreeMap<NonZeroU64, Level>,
    /// Rows that changed or deleted an order that was never created.
    pub unknown: u64,
    /// Orders of the opening snapshot that were stale.
    pub evicted: Vec<u64>,
}

impl Book {
    /// Applies one row and says which levels it moved: at most the old one and the new one.
    ///
    /// An order is found by its id alone: a deletion's price is the price of the trade, and may
    /// differ from the level where the order stands.
    pub fn apply(&mut self, order: &Order) -> [Option<Change>; 2] {
        let (removed, old) = self.remove(order.id);
        if old.is_none() && order.action != Action::Created && !self.evicted.contains(&order.id) {
            self.unknown += 1;
        }
        if order.action == Action::Deleted {
            return [removed, None];
        }
        let resting = Resting {
            side: order.side,
            price: order.price,
            volume: order.volume,
            snapshot: old.map_or(order.snapshot, |old| old.snapshot),
        };
        self.orders.insert(order.id, resting);
        let added = resting.level().map(|(side, price, volume)| {
            let level = self.side(side).entry(price).or_default();
            level.volume += volume.get();
            level.ids.insert(order.id);
            Change { side, price, delta: volume.get().cast_signed() }
        });
        [removed, added]
    }

    /// At a millisecond's end: while the book is crossed and the older of the two best orders came
    /// from the opening snapshot, that order is stale (its deletion was missed before the capture
    /// began) and goes. Pushes what went to `evicted`; a book that is still crossed is the feed's.
    pub fn settle(&mut self, evicted: &mut Vec<Change>) -> Touch {
        loop {
            let touch = self.touch();
            let Some(oldest) = self.oldest_best().filter(|_| touch.crossed()) else {
                return touch;
            };
            if !self.orders[&oldest].snapshot {
                return touch;
            }
            let (change, _) = self.remove(oldest);
            evicted.extend(change);
            self.evicted.push(oldest);
        }
    }

    /// Best bid and offer.
    pub fn touch(&self) -> Touch {
        let best = |level: Option<(&NonZeroU64, &Level)>| {
            level.map_or(Best::default(), |(price, level)| Best { price: price.get(), volume: level.volume })
        };
        Touch { bid: best(self.bids.last_key_value()), ask: best(self.asks.first_key_value()) }
    }

    /// How many orders the book knows.
    pub fn known_orders(&self) -> usize {
        self.orders.len()
    }

    /// Adds the whole book to a hash, in an order that does not depend on the hash table.
    pub fn hash_into(&self, hasher: &mut FnvHasher) {
        let number = |number: Option<NonZeroU64>| number.map_or(0, NonZeroU64::get);
        let mut ids: Vec<_> = self.orders.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let order = self.orders[&id];
            for value in [id, order.side as u64, number(order.price), number(order.volume)] {
                hasher.write(&value.to_le_bytes());
            }
        }
        for value in [self.unknown, self.evicted.len() as u64] {
            hasher.write(&value.to_le_bytes());
        }
    }

    fn oldest_best(&self) -> Option<u64> {
        let bid = self.bids.last_key_value()?.1.ids.first()?;
        let ask = self.asks.first_key_value()?.1.ids.first()?;
        Some(*bid.min(ask))
    }

    fn remove(&mut self, id: u64) -> (Option<Change>, Option<Resting>) {
        let Some(old) = self.orders.remove(&id) else {
            return (None, None);
        };
        let Some((side, price, volume)) = old.level() else {
            return (None, Some(old));
        };
        if let Entry::Occupied(mut entry) = self.side(side).entry(price) {
            let level = entry.get_mut();
            level.volume -= volume.get();
            level.ids.remove(&id);
            if level.ids.is_empty() {
                entry.remove();
            }
        }
        let delta = -volume.get().cast_signed();
        (Some(Change { side, price, delta }), Some(old))
    }

    fn side(&mut self, side: Side) -> &mut BTreeMap<NonZeroU64, Level> {
        match side {
            Side::Bid => &mut self.bids,
            Side::Ask => &mut self.asks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(action: Action, id: u64, side: Side, price: u64, volume: u64) -> Order {
        Order { id, action, side, price: NonZeroU64::new(price), volume: NonZeroU64::new(volume), ..Order::default() }
    }

    fn create(book: &mut Book, id: u64, side: Side, price: u64, volume: u64) {
        book.apply(&order(Action::Created, id, side, price, volume));
    }

    fn snapshot(book: &mut Book, id: u64, side: Side, price: u64) {
        book.apply(&Order { snapshot: true, ..order(Action::Created, id, side, price, 1) });
    }

    fn delete(book: &mut Book, id: u64) -> [Option<Change>; 2] {
        // Deletions of the feed may carry another price, and no volume.
        book.apply(&order(Action::Deleted, id, Side::Bid, 1, 0))
    }

    fn prices(touch: Touch) -> (u64, u64) {
        (touch.bid.price, touch.ask.price)
    }

    #[test]
    fn best_prices_follow_orders_as_they_come_and_go() {
        let mut book = Book::default();
        create(&mut book, 1, Side::Bid, 100, 5);
        create(&mut book, 2, Side::Bid, 100, 6);
        create(&mut book, 3, Side::Bid, 99, 7);
        create(&mut book, 4, Side::Ask, 105, 8);
        let touch = book.touch();
        assert_eq!(touch.bid, Best { price: 100, volume: 11 });
        assert_eq!(touch.ask, Best { price: 105, volume: 8 });
        delete(&mut book, 1);
        assert_eq!(book.touch().bid, Best { price: 100, volume: 6 });
        delete(&mut book, 2);
        assert_eq!(book.touch().bid, Best { price: 99, volume: 7 });
        delete(&mut book, 4);
        assert_eq!(book.touch().ask, Best::default());
        assert!(!book.touch().crossed());
        assert_eq!((book.known_orders(), book.unknown), (1, 0));
    }

    #[test]
    fn a_change_moves_volume_and_price_and_names_both_levels() {
        let mut book = Book::default();
        create(&mut book, 1, Side::Ask, 105, 8);
        let [old, new] = book.apply(&order(Action::Changed, 1, Side::Ask, 104, 3));
        let change = |price, delta| {
            let price = NonZeroU64::new(price).unwrap();
            Some(Change { side: Side::Ask, price, delta })
        };
        assert_eq!(old, change(105, -8));
        assert_eq!(new, change(104, 3));
        assert_eq!(book.touch().ask, Best { price: 104, volume: 3 });
    }

    #[test]
    fn orders_without_price_or_volume_are_known_but_stand_nowhere() {
        let mut book = Book::default();
        create(&mut book, 1, Side::Ask, 0, 8);
        create(&mut book, 2, Side::Bid, 100, 0);
        assert_eq!(book.touch(), Touch::default());
        assert_eq!(book.known_orders(), 2);
        assert_eq!(delete(&mut book, 1), [None, None]);
        // Filled to nothing, deleted afterwards.
        create(&mut book, 3, Side::Bid, 101, 4);
        book.apply(&order(Action::Changed, 3, Side::Bid, 101, 0));
        assert_eq!(book.touch(), Touch::default());
        assert_eq!(delete(&mut book, 3), [None, None]);
        assert_eq!(book.unknown, 0);
    }

    #[test]
    fn an_unknown_id_is_counted_and_harms_nothing() {
        let mut book = Book::default();
        create(&mut book, 1, Side::Bid, 100, 5);
        assert_eq!(delete(&mut book, 9), [None, None]);
        assert_eq!((book.unknown, book.known_orders()), (1, 1));
        // A change names an order that exists at the exchange: from here on it is known.
        book.apply(&order(Action::Changed, 8, Side::Bid, 101, 2));
        assert_eq!((book.unknown, book.touch().bid.price), (2, 101));
        // The same id created again replaces the order.
        create(&mut book, 8, Side::Bid, 90, 2);
        assert_eq!((book.known_orders(), book.touch().bid.price), (2, 100));
    }

    #[test]
    fn a_stale_snapshot_order_goes_when_it_crosses_at_a_batch_end() {
        let mut book = Book::default();
        snapshot(&mut book, 1, Side::Bid, 98);
        snapshot(&mut book, 2, Side::Ask, 100);
        snapshot(&mut book, 3, Side::Ask, 101);
        create(&mut book, 10, Side::Ask, 105, 1);
        let mut evicted = Vec::new();
        assert_eq!(prices(book.settle(&mut evicted)), (98, 100));
        assert!(evicted.is_empty());
        // 101 is crossed as well: locked counts.
        create(&mut book, 11, Side::Bid, 101, 1);
        assert!(book.touch().crossed());
        assert_eq!(prices(book.settle(&mut evicted)), (101, 105));
        assert_eq!(book.evicted, [2, 3]);
        let gone: Vec<_> = evicted.iter().map(|c| (c.price.get(), c.delta)).collect();
        assert_eq!(gone, [(100, -1), (101, -1)]);
        // Its deletion comes at last, for an order that is gone: it was created once.
        delete(&mut book, 2);
        assert_eq!(book.unknown, 0);
    }

    #[test]
    fn a_younger_snapshot_order_or_a_live_one_stays() {
        let mut book = Book::default();
        create(&mut book, 1, Side::Bid, 100, 1);
        snapshot(&mut book, 2, Side::Ask, 100);
        let mut evicted = Vec::new();
        assert!(book.settle(&mut evicted).crossed());
        assert!(evicted.is_empty() && book.evicted.is_empty());
    }

    #[test]
    fn a_snapshot_order_that_changed_still_came_from_the_snapshot() {
        let mut book = Book::default();
        snapshot(&mut book, 1, Side::Ask, 100);
        book.apply(&order(Action::Changed, 1, Side::Ask, 99, 1));
        create(&mut book, 2, Side::Bid, 100, 1);
        assert!(!book.settle(&mut Vec::new()).crossed());
        assert_eq!(book.evicted, [1]);
    }
}
