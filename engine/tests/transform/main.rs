//! What transforms promise: each input event handled once, its outputs with the committed offset or not at all.

#[path = "../common/accounts.rs"]
mod accounts;
mod bank;
#[path = "../common/crash.rs"]
mod crash;
mod managed;
mod parts;
