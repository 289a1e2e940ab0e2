//! Helpers for all layers above, which know nothing of topics: time, threads, cores, numbers and names.

pub(crate) mod alarm;
pub(crate) mod backoff;
pub(crate) mod batch_retries;
pub(crate) mod by_name;
pub(crate) mod clock;
pub(crate) mod closed;
pub(crate) mod cores;
pub(crate) mod handler_thread;
pub(crate) mod held;
pub(crate) mod ids;
pub(crate) mod kind;
pub(crate) mod level;
pub(crate) mod multi_wait;
pub(crate) mod overload;
pub(crate) mod rate;
pub(crate) mod threads;
pub(crate) mod timer;
pub(crate) mod trace;
pub(crate) mod turn;
pub(crate) mod varint;
pub(crate) mod wakeup;
pub(crate) mod watchers;
pub(crate) mod when_full;
