//! Makes the small feed: a seeded random market with everything odd that the real feed has.

use std::fmt::Write;

const TICK: u64 = 100;
const ROWS: usize = 2_000;
/// Two offers whose deletion was missed: they stand in the snapshot, and the market walks past them.
const STALE: [(u64, u64); 2] = [(1_000_001, 10_004), (1_000_003, 10_009)];

#[derive(Clone, Copy)]
struct Resting {
    id: u64,
    price: u64,
    volume: u64,
    bid: bool,
}

struct Market {
    random: u64,
    text: String,
    rows: usize,
    time_ms: u64,
    next_id: u64,
    resting: Vec<Resting>,
}

/// The feed as CSV, the same on every machine.
pub fn csv() -> String {
    let mut market = Market {
        random: 0x5eed,
        text: "id,timestamp,exchange_timestamp,price,volume,action,direction\n".into(),
        rows: 0,
        time_ms: 1_700_000_000_000,
        next_id: 2_000_000,
        resting: Vec::new(),
    };
    market.snapshot();
    while market.rows < ROWS {
        market.time_ms += 1 + market.below(40);
        // Prices drift up, past the stale offers.
        match market.below(100) {
            0..3 => market.trade(true),
            3..5 => market.trade(false),
            5..9 => market.change(),
            9..10 => market.delete_unknown(),
            10..11 => market.market_order(),
            11..55 => market.delete(),
            _ => market.create(),
        }
    }
    market.text
}

impl Market {
    fn snapshot(&mut self) {
        for level in 1..=60 {
            for bid in [true, false] {
                let price = if bid { 10_000 - level } else { 10_000 + level };
                let volume = 1_000_000 * (1 + self.below(200));
                let id = self.id();
                self.row(id, price, volume, "created", bid);
                self.resting.push(Resting { id, price, volume, bid });
            }
        }
        for (id, price) in STALE {
            self.row(id, price, 24_148_480, "created", false);
        }
        let id = self.id();
        self.row(id, 0, 1_000_000_000, "created", true);
    }

    fn create(&mut self) {
        let bid = self.below(2) == 0;
        let away = self.below(12);
        let price = match bid {
            true => self.best(false) - 1 - away,
            false => self.best(true) + 1 + away,
        };
        // Down to a hundred-millionth of a coin, which prints in exponent form.
        let bits = 1 + self.below(30);
        let volume = 1 + self.below(1 << bits);
        let id = self.id();
        self.row(id, price, volume, "created", bid);
        self.resting.push(Resting { id, price, volume, bid });
    }

    fn delete(&mut self) {
        if let Some(order) = self.pick() {
            self.resting.retain(|other| other.id != order.id);
            self.row(order.id, order.price, order.volume, "deleted", order.bid);
        }
    }

    /// A smaller volume; sometimes another price, sometimes no volume at all.
    fn change(&mut self) {
        let Some(mut order) = self.pick() else { return };
        order.volume = order.volume.div_ceil(2);
        if self.below(2) == 0 {
            order.price = if order.bid { order.price - 1 } else { order.price + 1 };
        }
        self.resting.retain(|other| other.id != order.id);
        if self.below(6) == 0 {
            self.row(order.id, order.price, 0, "changed", order.bid);
            self.time_ms += 1;
            self.row(order.id, order.price, 0, "deleted", order.bid);
        } else {
            self.row(order.id, order.price, order.volume, "changed", order.bid);
            self.resting.push(order);
        }
    }

    /// An order that crosses the market, and in the same millisecond the deletion of all it hit. So
    /// the book is crossed between rows, but not at the millisecond's end.
    fn trade(&mut self, bid: bool) {
        let depth = self.below(3);
        let best = self.best(!bid);
        let price = if bid { best + depth } else { best - depth };
        let id = self.id();
        self.row(id, price, 50_000_000, "created", bid);
        let reached =
            |order: &Resting| order.bid != bid && if bid { order.price <= price } else { order.price >= price };
        let hit: Vec<_> = self.resting.iter().copied().filter(reached).collect();
        self.resting.retain(|order| !reached(order));
        for order in hit {
            // The deletion carries the price of the trade.
            self.row(order.id, price, 0, "deleted", order.bid);
        }
        if self.below(2) == 0 {
            self.resting.push(Resting { id, price, volume: 50_000_000, bid });
        } else {
            self.row(id, price, 0, "deleted", bid);
        }
    }

    fn delete_unknown(&mut self) {
        let id = 1_500_000 + self.below(1_000);
        self.row(id, 10_050, 3_703_408, "deleted", false);
    }

    fn market_order(&mut self) {
        let id = self.id();
        self.row(id, 0, 12_345_678, "created", false);
        let price = self.best(true);
        self.row(id, price, 0, "deleted", false);
    }

    fn pick(&mut self) -> Option<Resting> {
        // Far from the edges there is always something left to trade with.
        let len = self.resting.len() as u64;
        if len <= 90 {
            return None;
        }
        let at = self.below(len) as usize;
        Some(self.resting[at])
    }

    fn best(&self, bid: bool) -> u64 {
        let prices = self.resting.iter().filter(|order| order.bid == bid).map(|order| order.price);
        match bid {
            true => prices.max().unwrap_or(9_000),
            false => prices.min().unwrap_or(11_000),
        }
    }

    fn id(&mut self) -> u64 {
        self.next_id += 1 + self.below(50);
        self.next_id
    }

    /// xorshift64*, so that no crate's next version changes the feed.
    fn below(&mut self, limit: u64) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    /// Prices are in ticks of one unit, volumes in 1e-8.
    fn row(&mut self, id: u64, price: u64, volume: u64, action: &str, bid: bool) {
        let volume = match volume {
            1..10_000 => format!("{volume}e-08"),
            _ => format!("{}.{:08}", volume / 100_000_000, volume % 100_000_000),
        };
        let cents = price * TICK;
        let price = format!("{}.{:02}", cents / 100, cents % 100);
        let (time, side) = (self.time_ms, if bid { "bid" } else { "ask" });
        let seen = time + 70;
        writeln!(self.text, "{id},{seen},{time},{price},{volume},{action},{side}").unwrap();
        self.rows += 1;
    }
}
