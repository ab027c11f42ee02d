//! Storages against one table of operations, against trouble, and against a server's replies.

mod server;
mod stores;
mod trouble;

use std::time::{Duration, Instant};

use super::faulty::{Action, Request};
use super::*;

/// Tries again at once.
fn hasty() -> Patience {
    Patience { tries: 3, pause: Duration::from_millis(1), base: Duration::from_secs(20), rate: 1 << 30 }
}

/// For those that never answer.
fn impatient() -> Patience {
    Patience { base: Duration::from_millis(150), ..hasty() }
}

fn memory() -> Storage {
    Storage::memory().with_patience(hasty())
}

/// [`Storage::fetch_many`] without sizes and times.
fn bytes_of(wanted: &[(Storage, String, u64)], deadline: Instant) -> Vec<Result<Vec<u8>, Fault>> {
    Storage::fetch_many(wanted, deadline).into_iter().map(|found| found.map(|f| f.bytes)).collect()
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}
