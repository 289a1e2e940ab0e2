//! `--journal DIR`: every row goes through a durable topic first, and the stages read what that has.
//!
//! ```text
//! feed --> rows (durable) --> replay --> orders --> the stages
//! ```
//!
//! A run that is killed and started again replays what the journal has, goes on in the feed behind the last row there,
//! and derives everything else anew: it ends in the same state as a run that was never broken.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slipring::journal::Visible;
use slipring::{Engine, Persist, Topic, topic::Unreadable};

use super::feed::Feed;
use super::order::{Action, Order, Side};

/// Words of a row, and one byte of flags.
const WORDS: usize = 5;

impl Persist for Order {
    fn write(&self, out: &mut Vec<u8>) {
        let none_is_zero = |number: Option<std::num::NonZeroU64>| number.map_or(0, std::num::NonZeroU64::get);
        let words = [self.index, self.id, self.time_ms, none_is_zero(self.price), none_is_zero(self.volume)];
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        let ask = u8::from(self.side == Side::Ask);
        out.push(self.action as u8 | ask << 2 | u8::from(self.snapshot) << 3 | u8::from(self.ends_batch) << 4);
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let (words, flags) = bytes.split_at_checked(8 * WORDS).ok_or(Unreadable("a row has 41 bytes"))?;
        let &[flags] = flags else { return Err(Unreadable("a row has 41 bytes")) };
        let mut words = words.chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap_or_default()));
        let mut next = || words.next().unwrap_or_default();
        (self.index, self.id, self.time_ms) = (next(), next(), next());
        (self.price, self.volume) = (next().try_into().ok(), next().try_into().ok());
        self.action = match flags & 3 {
            0 => Action::Created,
            1 => Action::Changed,
            _ => Action::Deleted,
        };
        self.side = if flags & 4 == 0 { Side::Bid } else { Side::Ask };
        (self.snapshot, self.ends_batch) = (flags & 8 != 0, flags & 16 != 0);
        Ok(())
    }

    fn layout() -> String {
        "order_book row 1".to_owned()
    }

    fn size() -> Option<usize> {
        Some(8 * WORDS + 1)
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
    let rows = engine.topic::<Order>("rows").capacity(capacity).durable().create().map_err(text)?;
    let begun = recovered(&rows, feed)?;
    let mut producer = rows.producer().create().map_err(text)?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for order in feed.orders.iter().skip(begun).take_while(|_| !stop.load(Ordering::Relaxed)) {
                pace(order);
                producer.publish(|row| *row = *order).map_err(text)?;
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
                    outcome = forward(row);
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
fn recovered(rows: &Topic<Order>, feed: &Feed) -> Result<usize, String> {
    let mut replay = rows.replay("recovered").visible(Visible::Written).open().map_err(text)?;
    let (mut count, mut same) = (0, true);
    let mut check = |row: &Order| {
        same &= feed.orders.get(count) == Some(row);
        count += 1;
    };
    while replay.read(Duration::ZERO, |row, _| check(row)).map_err(text)? != Some(0) {}
    if same { Ok(count) } else { Err("the journal has rows of another feed: take another folder".to_owned()) }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
