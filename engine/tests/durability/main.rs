//! What outlives a restart, a crash and a full disk.

#[path = "../common/counting.rs"]
mod counting;
#[path = "../common/damage.rs"]
mod damage;
mod durable;
mod full;
mod state_costs;
mod upgrade;
