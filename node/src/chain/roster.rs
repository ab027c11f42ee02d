//! Who took part as of a block: what records are judged by, long after the block.

use std::collections::{BTreeMap, BTreeSet};

use gauntlet::Hotkey;
use rusqlite::{OptionalExtension, Transaction, params};
use serde::{Deserialize, Serialize};

use super::ledger::{Ledger, int};
use super::state::State;
use super::{ChainError, LedgerRules, Result};

/// Everybody registered, by uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Roster {
    pub(crate) members: Vec<Member>,
}

/// A registered hotkey.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) uid: u16,
    pub(crate) hotkey: Hotkey,
    /// In smallest units; 0 where it is less than `subnet.weights.stake_minimum`, so that who stakes a little on somebody
    /// else's miner makes no validator of it.
    pub(crate) stake: u64,
}

impl Member {
    /// Whether it is a validator: it has stake. Miners of a run have none.
    pub(crate) fn is_validator(&self) -> bool {
        self.stake > 0
    }
}

impl Roster {
    /// Stake of each validator: who leads follows from it.
    pub(crate) fn stakes(&self) -> BTreeMap<Hotkey, u64> {
        self.members.iter().filter(|m| m.is_validator()).map(|m| (m.hotkey, m.stake)).collect()
    }

    /// Everybody who is no validator.
    pub(crate) fn miners(&self) -> impl Iterator<Item = Hotkey> {
        self.members.iter().filter(|m| !m.is_validator()).map(|m| m.hotkey)
    }

    /// All hotkeys.
    pub(crate) fn hotkeys(&self) -> BTreeSet<Hotkey> {
        self.members.iter().map(|m| m.hotkey).collect()
    }

    fn of(state: &State, rules: &LedgerRules) -> Self {
        let slots = state.subnet.slots.iter().zip(0_u16..);
        let least = rules.subnet.weights.stake_minimum;
        let member = |(slot, uid): (&gauntlet::yuma::subnet::Slot, u16)| Member {
            uid,
            hotkey: slot.hotkey,
            stake: if slot.neuron.stake >= least { slot.neuron.stake } else { 0 },
        };
        Self { members: slots.map(member).collect() }
    }
}

impl Ledger {
    /// Keeps the roster after `block` where it is another than the one before. The open block's may be written again.
    pub(super) fn keep_roster(&self, tx: &Transaction<'_>, block: u64, state: &State) -> Result<()> {
        let body = postcard::to_allocvec(&Roster::of(state, &self.rules))
            .map_err(|e| self.damaged(e.to_string()))?;
        let query = "SELECT body FROM rosters WHERE block < ?1 ORDER BY block DESC LIMIT 1";
        let before: Option<Vec<u8>> =
            self.db(tx.query_row(query, [int(block)], |row| row.get(0)).optional())?;
        if before.as_ref() == Some(&body) {
            self.db(tx.execute("DELETE FROM rosters WHERE block = ?1", [int(block)]))?;
        } else {
            let insert = "INSERT OR REPLACE INTO rosters VALUES (?1, ?2)";
            self.db(tx.execute(insert, params![int(block), body]))?;
        }
        Ok(())
    }

    pub(super) fn sealed_roster(&self, block: u64) -> Result<Roster> {
        if let Some((_, roster)) = self.roster.borrow().as_ref().filter(|(known, _)| *known == block) {
            return Ok(roster.clone());
        }
        let mut head = self.sealed(&self.connection)?;
        if block > head {
            self.catch_up()?;
            head = self.sealed(&self.connection)?;
        }
        if block > head {
            return Err(ChainError::NoBlock { number: block, head });
        }
        let query = "SELECT body FROM rosters WHERE block <= ?1 ORDER BY block DESC LIMIT 1";
        let body: Option<Vec<u8>> =
            self.db(self.connection.query_row(query, [int(block)], |row| row.get(0)).optional())?;
        let roster: Roster = match body {
            Some(body) => postcard::from_bytes(&body)
                .map_err(|e| self.damaged(format!("a roster does not decode: {e}")))?,
            None => Roster::default(),
        };
        *self.roster.borrow_mut() = Some((block, roster.clone()));
        Ok(roster)
    }
}
