//! Accounts: a durable topic with a partition of changes for each.

use slipring::{Engine, Topic, subscriber::At, topic::TopicError};
use std::time::Duration;

/// The number of a transfer, and by how much the account changes.
pub type Change = [i64; 2];

pub const ACCOUNTS: i64 = 4;

pub fn open(engine: &Engine) -> Result<Topic<Change>, TopicError> {
    engine.topic::<Change>("accounts").partitions(ACCOUNTS as usize).capacity(64).durable().create()
}

/// Calls `each` with every event that the topic has. `None` if the topic cannot be read.
pub fn read_all<E: Send + Sync + 'static>(topic: &Topic<E>, mut each: impl FnMut(&E, At)) -> Option<()> {
    let mut replay = topic.replay("auditor").open().ok()?;
    loop {
        // The change from journal to ring reads nothing.
        let live = replay.is_live();
        match replay.read(Duration::ZERO, &mut each).ok()? {
            None => return Some(()),
            Some(0) if live => return Some(()),
            Some(_) => {}
        }
    }
}

/// All changes, by account.
pub fn ledger(accounts: &Topic<Change>) -> Vec<Vec<Change>> {
    let mut ledger = vec![Vec::new(); ACCOUNTS as usize];
    read_all(accounts, |change, at| ledger[at.partition as usize].push(*change)).unwrap();
    ledger
}
