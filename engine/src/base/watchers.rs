//! The selectors that wait for one reader, and how the reader wakes them for a change that no ring wakes them for, such
//! as a seek back.

use slipring_ring::Waiter;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The selectors that have waited for a reader and may wait for it again: the waiter of each, and the reader's token
/// there. There may be several, because a thread may ask two selectors in turns. A selector replaces its waiter when it
/// gets other readers, and drops it at its own end, so each selector is here at most once.
#[derive(Default)]
pub(crate) struct Watchers(Mutex<Vec<(Weak<Waiter>, usize)>>);

impl Watchers {
    /// Adds a selector, unless it is there, and removes those that no longer wait for this reader.
    pub(crate) fn add(&self, selector: &Arc<Waiter>, token: usize) {
        let this = Arc::downgrade(selector);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.iter().any(|(other, under)| Weak::ptr_eq(other, &this) && *under == token) {
            known.retain(|(other, _)| other.strong_count() > 0);
            known.push((this, token));
        }
    }

    /// Wakes the selectors. One that does not wait now checks the reader in its next call.
    pub(crate) fn wake(&self) {
        // Waking may run a task, which is user code, so the lock is released first.
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (selector, token) in known {
            if let Some(selector) = selector.upgrade() {
                selector.wake(token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_selector_is_listed_once_until_it_is_gone() {
        let (watchers, first) = (Watchers::default(), Arc::new(Waiter::new()));
        for _ in 0..1000 {
            watchers.add(&first, 7);
            watchers.add(&Arc::new(Waiter::new()), 1);
        }
        let count = watchers.0.lock().unwrap().len();
        assert_eq!(count, 2, "the first one, and the last of the others");
        watchers.wake();
        let mut woken = Vec::new();
        first.take(|token| woken.push(token));
        assert_eq!(woken, [7]);
    }
}
