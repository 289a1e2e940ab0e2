//! What a queue promises: leases, delays, dead letters, in memory and durable.

#[path = "../common/bell.rs"]
mod bell;
#[path = "../common/crash.rs"]
mod crash;
mod durable;
mod large_letters;
mod leases;
#[path = "../common/listener.rs"]
mod listener;
mod run;
mod shutdown;
#[path = "../common/sleeps.rs"]
mod sleeps;
mod tasks;
