//! What readers promise: where they begin, what they catch up with, what they are told of gaps and damage.

mod catch_up;
#[path = "../common/counting.rs"]
mod counting;
mod damage;
mod dead_letters;
mod deleted;
mod gaps;
#[path = "../common/damage.rs"]
mod lost;
mod many_partitions;
mod positions;
mod resting;
mod select_sources;
mod selector;
#[path = "../common/sleeps.rs"]
mod sleeps;
mod starts;
mod unreadable;
mod whole_batches;
