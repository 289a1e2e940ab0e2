//! The memory of a queue.

use super::bound::Bound;
use super::cost::in_memory;
use super::row::{Row, Unit};
use crate::failure::Failure;
use crate::system::resident;
use slipring::Message;

pub const ROWS: &[Row] = &[Row {
    name: "queue-memory",
    cost: "memory of a queue of messages of 32 bytes",
    of: "queues of one topic",
    unit: Unit::Bytes,
    quick: &[16, 64],
    full: &[16, 64, 256],
    target: Bound::AtMost(65_536.0),
    today: None,
    before: "594 KB",
    measure: memory,
}];

fn memory(n: usize) -> Result<f64, Failure> {
    let engine = in_memory()?;
    let jobs = engine.topic::<Message>("jobs").max_message(32).capacity(64).create().map_err(Failure::refused)?;
    let queue = |index| jobs.queue(format!("queue-{index}")).open().map_err(Failure::refused);
    // The first queue also allocates what all queues share, so it is not measured.
    let first = queue(n)?;
    let before = resident()?;
    let queues = (0..n).map(queue).collect::<Result<Vec<_>, _>>()?;
    let grown = resident()?.saturating_sub(before);
    // Freed memory would be used again for the next size, which would then seem to need none.
    std::mem::forget((engine, jobs, first, queues));
    Ok(grown as f64 / n as f64)
}
