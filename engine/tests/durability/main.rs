//! What outlives a restart, a crash and a full disk.

#[path = "../common/bell.rs"]
mod bell;
mod compaction;
mod convert;
#[path = "../common/counting.rs"]
mod counting;
#[path = "../common/damage.rs"]
mod damage;
mod durable;
mod full;
mod issued;
mod layout;
mod receipts;
mod replication;
#[path = "../common/soon.rs"]
mod soon;
mod state_costs;
mod upgrade;
mod upgrades;
