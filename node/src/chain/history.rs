//! What every epoch paid to whom: kept for ever, so that each unit of a balance can be accounted for.

use gauntlet::Hotkey;
use gauntlet::yuma::Neuron;
use rusqlite::types::Type;
use rusqlite::{Row, Transaction, params};

use super::Result;
use super::ledger::{Ledger, int, uint};

/// One epoch's payout. `emission` = `owner` + `burned` + all of `pay`.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct EpochPay {
    /// Counts from 1.
    pub(crate) epoch: u64,
    /// The block it closed.
    pub(crate) block: u64,
    pub(crate) emission: u64,
    /// The owner's cut.
    pub(crate) owner: u64,
    pub(crate) burned: u64,
    /// The block that the epoch before closed, and the neurons as this one found them: what the payout follows from.
    pub(crate) previous: u64,
    pub(crate) neurons: Vec<Neuron>,
    /// By uid.
    pub(crate) pay: Vec<Pay>,
}

/// What an epoch found about a neuron, and paid it in smallest units.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub(crate) struct Pay {
    pub(crate) uid: u16,
    pub(crate) hotkey: Hotkey,
    pub(crate) incentive: f64,
    pub(crate) dividend: f64,
    /// For `incentive`.
    pub(crate) server: u64,
    /// For `dividend`.
    pub(crate) validator: u64,
}

impl Pay {
    /// All it was paid.
    pub(crate) fn emission(&self) -> u64 {
        self.server + self.validator
    }
}

impl Ledger {
    /// Payouts of epoch `from` and later, in order. Errors: the file.
    pub(crate) fn history(&self, from: u64) -> Result<Vec<EpochPay>> {
        self.catch_up()?;
        let query = "SELECT e.epoch, e.block, e.emission, e.owner, e.burned, e.previous,
                            p.uid, p.hotkey, p.incentive, p.dividend, p.server, p.validator, e.neurons
                     FROM epochs e LEFT JOIN pay p USING (epoch)
                     WHERE e.epoch >= ?1 ORDER BY e.epoch, p.uid";
        let mut statement = self.db(self.connection.prepare(query))?;
        let mut rows = self.db(statement.query([int(from)]))?;
        let mut found: Vec<EpochPay> = Vec::new();
        while let Some(row) = self.db(rows.next())? {
            let (epoch, pay) = self.db(read(row))?;
            if found.last().is_none_or(|last| last.epoch != epoch.epoch) {
                found.push(epoch);
            }
            if let Some(last) = found.last_mut() {
                last.pay.extend(pay);
            }
        }
        Ok(found)
    }

    pub(super) fn keep_history(&self, tx: &Transaction<'_>, paid: &EpochPay) -> Result<()> {
        let EpochPay { epoch, block, emission, owner, burned, previous, neurons, pay } = paid;
        let neurons = postcard::to_allocvec(neurons).map_err(|e| self.damaged(e.to_string()))?;
        let totals = params![
            int(*epoch),
            int(*block),
            int(*emission),
            int(*owner),
            int(*burned),
            int(*previous),
            neurons
        ];
        self.db(tx.execute("INSERT INTO epochs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)", totals))?;
        let mut insert = self.db(tx.prepare("INSERT INTO pay VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"))?;
        for p in pay {
            let values = params![
                int(*epoch),
                p.uid,
                p.hotkey.0,
                p.incentive,
                p.dividend,
                int(p.server),
                int(p.validator)
            ];
            self.db(insert.execute(values))?;
        }
        Ok(())
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<(EpochPay, Option<Pay>)> {
    let number = |at: usize| uint(row, at);
    let neurons: Vec<u8> = row.get(12)?;
    let neurons = postcard::from_bytes(&neurons)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(12, Type::Blob, Box::new(e)))?;
    let epoch = EpochPay {
        epoch: number(0)?,
        block: number(1)?,
        emission: number(2)?,
        owner: number(3)?,
        burned: number(4)?,
        previous: number(5)?,
        neurons,
        pay: Vec::new(),
    };
    let Some(uid) = row.get(6)? else { return Ok((epoch, None)) };
    let pay = Pay {
        uid,
        hotkey: Hotkey(row.get(7)?),
        incentive: row.get(8)?,
        dividend: row.get(9)?,
        server: number(10)?,
        validator: number(11)?,
    };
    Ok((epoch, Some(pay)))
}
