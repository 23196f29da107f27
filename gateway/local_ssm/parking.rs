//! A mutex that a panic elsewhere does not poison.

use std::sync::{MutexGuard, PoisonError};

/// Short critical sections only: never held across an await.
#[derive(Debug, Default)]
pub(super) struct Mutex<T>(std::sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Wraps a value.
    pub(super) const fn new(value: T) -> Self {
        Self(std::sync::Mutex::new(value))
    }

    /// Waits for the value.
    ///
    /// Nothing here is left half changed by a panic, so poison means nothing.
    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
