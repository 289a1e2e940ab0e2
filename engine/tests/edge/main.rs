//! What stands above the library: tasks and streams, metrics and the snapshot.

#[path = "../common/bell.rs"]
mod bell;
#[path = "../common/busy.rs"]
mod busy;
mod observe;
#[path = "../common/soon.rs"]
mod soon;
mod tasks;
