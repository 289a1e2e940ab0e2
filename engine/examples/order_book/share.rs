//! `--share RING`: the best prices go to other processes, too, through a ring in shared memory.
//!
//! ```text
//! quotes --> prices (flat numbers) --> the ring --> ring/python/examples/order_book_live.py, or `slipring shm tail`
//! ```

use slipring::producer::Single;
use slipring::share::{SharedError, SharedRing, Size};
use slipring::{Engine, Topic};

use super::order::Quote;

/// The ring's slots, and how many of its last events a reader that comes late finds.
const SLOTS: usize = 65_536;
const KEPT: usize = 49_152;

slipring::plain_event! {
    /// A [`Quote`] as other languages read it.
    #[derive(Debug, Default)]
    pub struct BestPrices {
        pub index: u64,
        pub time_ms: u64,
        /// In cents; 0 when the side is empty.
        pub bid: u64,
        /// In 1e-8 of a coin.
        pub bid_volume: u64,
        pub ask: u64,
        pub ask_volume: u64,
    }
}

impl From<&Quote> for BestPrices {
    fn from(quote: &Quote) -> Self {
        let Quote { index, time_ms, touch, .. } = *quote;
        let (bid, ask) = (touch.bid, touch.ask);
        Self { index, time_ms, bid: bid.price, bid_volume: bid.volume, ask: ask.price, ask_volume: ask.volume }
    }
}

/// Shares the quotes to a new ring. One that an earlier run has left is removed, if nobody reads it.
///
/// # Errors
/// The ring cannot be had, for example because another process uses it.
pub fn share(engine: &Engine, quotes: &Topic<Quote, Single>, ring: &str) -> Result<(), String> {
    match SharedRing::<BestPrices>::remove(ring) {
        Ok(()) | Err(SharedError::NotFound { .. }) => {}
        Err(refused) => return Err(refused.to_string()),
    }
    let prices = engine.topic::<BestPrices>("prices").single_producer().create().map_err(text)?;
    prices.share(ring).size(Size::slots(SLOTS).retain(KEPT)).open().map_err(text)?;
    let mut out = prices.producer().create().map_err(text)?;
    let sharing = move |quote: &Quote, _| out.publish(|place| *place = quote.into()).map(drop);
    quotes.subscribe("prices").run(sharing).map_err(text)?;
    Ok(())
}

/// Ends the ring, so that its readers end once they have read all of it.
///
/// # Errors
/// The ring is gone.
pub fn end(ring: &str) -> Result<(), String> {
    SharedRing::<BestPrices>::open(ring).map(|ring| ring.close()).map_err(text)
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
