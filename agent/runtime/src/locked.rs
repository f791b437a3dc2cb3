//! One policy for a lock whose holder panicked: go on with what it guards.
//!
//! Each section under a lock of this crate changes what it guards by whole values, so a panic leaves it as it was or as
//! it was to be. A panic for every later caller would turn one fault into the end of all image and container calls.

use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_under_a_lock_does_not_end_those_who_come_later() {
        let shared = std::sync::Arc::new(Mutex::new(1));
        let theirs = std::sync::Arc::clone(&shared);
        let ended = std::thread::spawn(move || {
            let _held = lock(&theirs);
            panic!("a fault while the lock is held");
        });
        assert!(ended.join().is_err() && shared.is_poisoned());
        *lock(&shared) += 1;
        assert_eq!(*lock(&shared), 2);
    }
}
