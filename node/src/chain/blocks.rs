//! Blocks from a clock. Block n is sealed when the clock reaches it, by whichever process looks first; until then it is
//! open and collects calls. Hash = BLAKE3(previous ‖ digest of its calls ‖ fresh randomness), so nobody knows it before,
//! and nobody who makes a call can choose it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use gauntlet::Digest;
use rusqlite::{OptionalExtension, Transaction, params};

use super::ledger::{Ledger, int};
use super::{ChainError, Result, epochs};

/// What moves the chain on.
#[derive(Clone)]
pub(crate) enum Clock {
    /// Milliseconds since 1970; height is (now − genesis) / block time, randomness is the system's.
    #[allow(dead_code, reason = "for nodes in processes of their own")]
    Wall(Arc<dyn Fn() -> u64 + Send + Sync>),
    /// The height itself, moved on by a simulation; hashes are a function of the seed and of the calls made.
    Virtual { height: Arc<AtomicU64>, seed: u64 },
}

impl Clock {
    /// The system's clock.
    #[allow(dead_code, reason = "for nodes in processes of their own")]
    pub(crate) fn wall() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self::Wall(Arc::new(move || u64::try_from(now()).unwrap_or(u64::MAX)))
    }

    /// The height at which the newest sealed block should be.
    pub(super) fn height(&self, genesis_ms: u64, block_time_ms: u64) -> u64 {
        match self {
            Self::Wall(now) => now().saturating_sub(genesis_ms) / block_time_ms.max(1),
            Self::Virtual { height, .. } => height.load(Ordering::Acquire),
        }
    }

    fn randomness(&self, number: u64) -> Result<[u8; 32]> {
        match self {
            Self::Wall(_) => {
                let mut bytes = [0; 32];
                getrandom::fill(&mut bytes).map_err(ChainError::Randomness)?;
                Ok(bytes)
            }
            Self::Virtual { seed, .. } => {
                let label = b"gauntlet ledger block".as_slice();
                Ok(Digest::of(&[label, &seed.to_le_bytes(), &number.to_le_bytes()].concat()).0)
            }
        }
    }
}

/// Puts block 0 into a new file; `rules` makes chains of different rules differ.
pub(super) fn genesis(tx: &Transaction<'_>, clock: &Clock, rules: &str) -> Result<rusqlite::Result<()>> {
    let hash = hash(&[0; 32], &Digest::of(rules.as_bytes()).0, &clock.randomness(0)?);
    Ok(tx.execute("INSERT INTO blocks VALUES (0, ?1)", [hash]).map(|_| ()))
}

/// Seals all blocks up to `target` and runs the epochs that fall due in them: an epoch closes its block, so calls made
/// in that block count.
pub(super) fn seal(ledger: &Ledger, tx: &Transaction<'_>, target: u64) -> Result<()> {
    let head = ledger.sealed(tx)?;
    if head >= target {
        return Ok(());
    }
    let mut state = ledger.newest_state(tx)?;
    let previous =
        ledger.db(tx.query_row("SELECT hash FROM blocks WHERE number = ?1", [int(head)], |r| r.get(0)))?;
    let mut previous: [u8; 32] = previous;
    let mut insert = ledger.db(tx.prepare("INSERT INTO blocks VALUES (?1, ?2)"))?;
    for number in head + 1..=target {
        previous = hash(&previous, &calls(ledger, tx, number)?, &ledger.clock.randomness(number)?);
        ledger.db(insert.execute(params![int(number), previous]))?;
        if state.subnet.is_due(number) {
            let paid = epochs::run(&mut state, &ledger.rules, number);
            ledger.keep_history(tx, &paid)?;
            ledger.store_state(tx, number, &state)?;
        }
    }
    Ok(())
}

/// Adds a call to the digest of the open block.
pub(super) fn note(ledger: &Ledger, tx: &Transaction<'_>, open: u64, call: &[u8]) -> Result<()> {
    let digest = Digest::of(&[&calls(ledger, tx, open)?, call].concat()).0;
    ledger.db(tx.execute("INSERT OR REPLACE INTO open VALUES (0, ?1, ?2)", params![int(open), digest]))?;
    Ok(())
}

/// Digest of the calls in a block; zero for none.
fn calls(ledger: &Ledger, tx: &Transaction<'_>, number: u64) -> Result<[u8; 32]> {
    let query = "SELECT digest FROM open WHERE block = ?1";
    Ok(ledger.db(tx.query_row(query, [int(number)], |row| row.get(0)).optional())?.unwrap_or([0; 32]))
}

fn hash(previous: &[u8; 32], calls: &[u8; 32], randomness: &[u8; 32]) -> [u8; 32] {
    Digest::of(&[*previous, *calls, *randomness].concat()).0
}
