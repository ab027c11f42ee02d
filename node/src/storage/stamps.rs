//! Times of objects by a simulation's clock: what the validators compare with the put window must not be the wall's.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// When each object was put.
pub(super) struct Stamps {
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    seconds: Mutex<HashMap<String, u64>>,
}

impl Stamps {
    pub(super) fn new(now_ms: Box<dyn Fn() -> u64 + Send + Sync>) -> Self {
        Self { now_ms, seconds: Mutex::default() }
    }

    pub(super) fn set(&self, key: &str) {
        let now = (self.now_ms)() / 1_000;
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), now);
    }

    pub(super) fn get(&self, key: &str) -> Option<u64> {
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }

    pub(super) fn remove(&self, key: &str) {
        self.seconds.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }
}
