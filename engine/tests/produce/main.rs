//! What producers promise: order, keys, names, ids, transactions.

#[path = "../common/accounts.rs"]
mod accounts;
#[path = "../common/crash.rs"]
mod crash;
mod deduplication;
mod gathered;
mod idempotence;
mod late;
mod messages;
mod producers;
mod readers;
#[path = "../common/soon.rs"]
mod soon;
mod transactions;
