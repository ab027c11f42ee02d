//! Leases: one node per hotkey. Two would sign two objects, or two records, for one window.

use gauntlet::Hotkey;
use rusqlite::{OptionalExtension, params};

use super::ledger::{Ledger, fits, int, uint};
use super::{ChainError, Result};

impl Ledger {
    /// A lease lives while the newest sealed block is below `until`. It is not a call of the chain: it acts at once, and
    /// a crashed process's runs out.
    pub(super) fn lease(&self, hotkey: Hotkey, instance: [u8; 16], until: u64) -> Result<()> {
        fits("until", until)?;
        self.write(|tx, open| {
            let query = "SELECT instance, until FROM leases WHERE hotkey = ?1";
            let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, [u8; 16]>(0)?, uint(row, 1)?));
            let held = self.db(tx.query_row(query, [hotkey.0], read).optional())?;
            match held {
                Some((holder, until)) if holder != instance && open <= until => {
                    return Err(ChainError::Leased { hotkey, until });
                }
                _ => {}
            }
            let lease = params![hotkey.0, instance, int(until)];
            self.db(tx.execute("INSERT OR REPLACE INTO leases VALUES (?1, ?2, ?3)", lease))?;
            Ok(())
        })
    }
}
