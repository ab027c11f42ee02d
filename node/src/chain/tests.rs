//! The ledger against its promises: exact sums, sealed reads, many processes, clear errors.

mod files;
mod money;
mod processes;
mod views;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gauntlet::Hotkey;

use super::history::Pay;
use super::*;

fn key(n: u8) -> Hotkey {
    Hotkey([n; 32])
}

/// A ledger in memory, and the height it follows.
fn simulated(rules: &LedgerRules, seed: u64) -> (Ledger, Arc<AtomicU64>) {
    at(Path::new(":memory:"), rules, seed)
}

fn at(path: &Path, rules: &LedgerRules, seed: u64) -> (Ledger, Arc<AtomicU64>) {
    let height = Arc::new(AtomicU64::new(0));
    let clock = Clock::Virtual { height: Arc::clone(&height), seed };
    (Ledger::open(path, rules, clock).unwrap(), height)
}

fn pass(height: &AtomicU64, blocks: u64) {
    height.fetch_add(blocks, Ordering::Release);
}

fn wall(now: &Arc<AtomicU64>) -> Clock {
    let now = Arc::clone(now);
    Clock::Wall(Arc::new(move || now.load(Ordering::Acquire)))
}
