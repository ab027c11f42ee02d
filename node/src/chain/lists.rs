//! Anchors and proofs of equivocation: lists that only grow.

use gauntlet::{Digest, Hotkey};
use rusqlite::params;

use super::ledger::{Ledger, fits, int, uint};
use super::{Anchor, ChainError, Result};

/// Bytes that no proof exceeds beside what grows with the slots: two records with the largest gather sets there can be.
const PROOF_BASE: usize = 1 << 18;
/// Bytes of a proof a slot: in two records a hotkey and the hash it committed to.
const PROOF_SLOT: usize = 2 * 80;

impl Ledger {
    /// A hotkey's first anchor of a window counts; a second one changes nothing.
    pub(super) fn add_anchor(&self, by: Hotkey, anchor: Anchor) -> Result<()> {
        fits("window", anchor.window)?;
        self.write(|tx, open| {
            self.registered(tx, by)?;
            let insert =
                "INSERT OR IGNORE INTO anchors (block, hotkey, window, record) VALUES (?1, ?2, ?3, ?4)";
            let values = params![int(open), by.0, int(anchor.window), anchor.record.0];
            self.db(tx.execute(insert, values))?;
            self.note(tx, open, &("anchor", by, anchor.window, anchor.record))
        })
    }

    pub(super) fn sealed_anchors(&self, from: u64, to: u64) -> Result<Vec<(u64, Hotkey, Anchor)>> {
        self.catch_up()?;
        let query = "SELECT block, hotkey, window, record FROM anchors
                     WHERE window >= ?1 AND window <= ?2 AND block <= (SELECT max(number) FROM blocks) ORDER BY id";
        let mut statement = self.db(self.connection.prepare(query))?;
        let rows = statement.query_map([int(from), int(to)], |row| {
            let anchor = Anchor { window: uint(row, 2)?, record: Digest(row.get(3)?) };
            Ok((uint(row, 0)?, Hotkey(row.get(1)?), anchor))
        });
        self.db(rows.and_then(Iterator::collect))
    }

    /// The same proof again changes nothing.
    pub(super) fn add_equivocation(&self, by: Hotkey, proof: &[u8]) -> Result<()> {
        let most = PROOF_BASE + PROOF_SLOT * usize::from(self.rules.subnet.registry.max_uids);
        if proof.is_empty() || proof.len() > most {
            let want = format!("must have 1 to {most} bytes, not {}", proof.len());
            return Err(ChainError::Argument { field: "proof", want });
        }
        let digest = Digest::of(proof);
        self.write(|tx, open| {
            self.registered(tx, by)?;
            let insert =
                "INSERT OR IGNORE INTO equivocations (block, hotkey, proof, digest) VALUES (?1, ?2, ?3, ?4)";
            self.db(tx.execute(insert, params![int(open), by.0, proof, digest.0]))?;
            self.note(tx, open, &("equivocation", by, digest))
        })
    }

    pub(super) fn sealed_equivocations(&self, known: usize) -> Result<Vec<(u64, Hotkey, Vec<u8>)>> {
        self.catch_up()?;
        let query = "SELECT block, hotkey, proof FROM equivocations
                     WHERE block <= (SELECT max(number) FROM blocks) ORDER BY id
                     LIMIT -1 OFFSET ?1";
        let mut statement = self.db(self.connection.prepare(query))?;
        let rows = statement
            .query_map([int(known as u64)], |row| Ok((uint(row, 0)?, Hotkey(row.get(1)?), row.get(2)?)));
        self.db(rows.and_then(Iterator::collect))
    }
}
