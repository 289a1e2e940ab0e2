//! `--journal DIR`: every row goes through a durable topic first, and the stages read what that has.
//!
//! ```text
//! feed --> rows (durable) --> replay --> orders --> the stages
//! ```
//!
//! A run that is killed and started again replays what the journal has, goes on in the feed behind the last row there,
//! and derives everything else anew: it ends in the same state as a run that was never broken.

//! The catalogue of the journal names the fields of a row, so they are columns for research:
//! `slipring journal export DIR --topic rows --format parquet -o rows.parquet`, which
//! `engine/cli/examples/order_book.py` plots.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slipring::journal::Visible;
use slipring::{Engine, Topic};

use super::feed::Feed;
use super::order::{Action, Order, Side};

slipring::plain_event! {
    /// An [`Order`] as the journal has it: numbers only. A price or a volume of 0 is none.
    #[derive(Debug, Default)]
    pub struct Row {
        pub index: u64,
        pub id: u64,
        pub time_ms: u64,
        /// In cents.
        pub price: u64,
        /// In 1e-8 of a coin.
        pub volume: u64,
        /// 0 created, 1 changed, 2 deleted.
        pub action: u8,
        /// 0 bid, 1 ask.
        pub side: u8,
        pub snapshot: u8,
        pub ends_batch: u8,
        pub unused: [u8; 4],
    }
}

impl From<&Order> for Row {
    fn from(order: &Order) -> Self {
        let none_is_zero = |number: Option<NonZeroU64>| number.map_or(0, NonZeroU64::get);
        Self {
            index: order.index,
            id: order.id,
            time_ms: order.time_ms,
            price: none_is_zero(order.price),
            volume: none_is_zero(order.volume),
            action: order.action as u8,
            side: u8::from(order.side == Side::Ask),
            snapshot: u8::from(order.snapshot),
            ends_batch: u8::from(order.ends_batch),
            unused: [0; 4],
        }
    }
}

impl From<&Row> for Order {
    fn from(row: &Row) -> Self {
        Self {
            index: row.index,
            id: row.id,
            time_ms: row.time_ms,
            price: NonZeroU64::new(row.price),
            volume: NonZeroU64::new(row.volume),
            action: match row.action {
                0 => Action::Created,
                1 => Action::Changed,
                _ => Action::Deleted,
            },
            side: if row.side == 0 { Side::Bid } else { Side::Ask },
            snapshot: row.snapshot != 0,
            ends_batch: row.ends_batch != 0,
        }
    }
}

/// Moves the feed through the journal. `pace` waits until a row is due, `forward` takes each row that the journal has.
///
/// # Errors
/// The journal fails or has another feed's rows, or what `forward` says.
pub fn through(
    engine: &Engine,
    capacity: usize,
    feed: &Feed,
    pace: impl Fn(&Order) + Sync,
    mut forward: impl FnMut(&Order) -> Result<(), String>,
) -> Result<(), String> {
    let rows = engine.topic::<Row>("rows").capacity(capacity).durable().create().map_err(text)?;
    let begun = recovered(&rows, feed)?;
    let mut producer = rows.producer().create().map_err(text)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for order in feed.orders.iter().skip(begun).take_while(|_| !stop.load(Ordering::Relaxed)) {
                pace(order);
                producer.publish(|row| *row = Row::from(order)).map_err(text)?;
            }
            Ok::<_, String>(())
        });
        let mut replay = rows.replay("forward").visible(Visible::Written).open().map_err(text)?;
        let mut moved = 0;
        let mut outcome = Ok(());
        while moved < feed.orders.len() && outcome.is_ok() {
            let read = replay.read(Duration::from_millis(100), |row, _| {
                moved += 1;
                if outcome.is_ok() {
                    outcome = forward(&row.into());
                }
            });
            match read {
                Ok(Some(_)) => {}
                Ok(None) => outcome = Err("the journal ended before the feed".to_owned()),
                Err(refused) => outcome = Err(refused.to_string()),
            }
        }
        stop.store(true, Ordering::Relaxed);
        drop(replay);
        outcome.and(writer.join().map_err(|_| "the publisher broke".to_owned())?)
    })
}

/// How many rows the journal has, which must be this feed's.
fn recovered(rows: &Topic<Row>, feed: &Feed) -> Result<usize, String> {
    let mut replay = rows.replay("recovered").visible(Visible::Written).open().map_err(text)?;
    let (mut count, mut same) = (0, true);
    let mut check = |row: &Row| {
        same &= feed.orders.get(count) == Some(&row.into());
        count += 1;
    };
    while replay.read(Duration::ZERO, |row, _| check(row)).map_err(text)? != Some(0) {}
    if same { Ok(count) } else { Err("the journal has rows of another feed: take another folder".to_owned()) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
