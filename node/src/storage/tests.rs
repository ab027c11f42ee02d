//! Storages against one table of operations, against trouble, and against a server's replies.

mod server;
mod stores;
mod trouble;

use std::time::{Duration, Instant};

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

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(60)
}
