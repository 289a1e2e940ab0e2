//! How other threads end the wait of a replay.

use crate::base::wakeup::{WakeFlag, WakeTarget};
use crate::log::progress::Notifier;
use crate::topic::durable::DurableTopic;
use std::sync::Arc;

/// The part of a replay that the handles of other threads reach.
pub(crate) struct ReplayWake {
    flag: WakeFlag,
    notifier: Arc<Notifier>,
}

impl ReplayWake {
    pub(crate) fn new<E>(durable: &DurableTopic<E>) -> Arc<Self> {
        Arc::new(Self { flag: WakeFlag::default(), notifier: Arc::clone(&durable.acks.notifier) })
    }
}

impl WakeTarget for ReplayWake {
    fn flag(&self) -> &WakeFlag {
        &self.flag
    }

    fn rouse(&self) {
        self.notifier.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::wakeup::Wakeup;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::{Wake, Waker};

    #[derive(Default)]
    struct Told(AtomicBool);

    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// A replay that sleeps looks up every 50 ms in any case, so a test from outside would pass without the wake-up.
    #[test]
    fn whoever_waits_for_the_journal_is_woken_and_finds_the_flag_set() {
        let outside = Arc::new(ReplayWake { flag: WakeFlag::default(), notifier: Arc::default() });
        let told = Arc::new(Told::default());
        let is_set = || outside.flag.is_set().then_some(());
        assert_eq!(outside.notifier.watch(&Waker::from(Arc::clone(&told)), is_set), None);
        Wakeup::new(&outside).wake();
        assert!(told.0.load(Ordering::SeqCst));
        assert!(outside.flag.take() && !outside.flag.take());
    }
}
