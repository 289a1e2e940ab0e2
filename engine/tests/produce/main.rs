//! What producers promise: order, keys, names, ids, transactions.

#[path = "../common/accounts.rs"]
mod accounts;
#[path = "../common/crash.rs"]
mod crash;
mod deduplication;
mod idempotence;
mod messages;
mod producers;
mod transactions;
