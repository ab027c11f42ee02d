//! The embedded chain: a [`Chain`](super::Chain) in one SQLite file, or in memory.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rusqlite::{Connection, Row, Transaction, TransactionBehavior, params};

use super::state::State;
use super::{ChainError, Clock, LedgerRules, Result, Roster, blocks, file};

/// Blocks sealed in one transaction, so that other processes get their turn while one catches up.
const BATCH: u64 = 50_000;
/// Blocks that nobody sealed, beyond which the clock is wrong or the ledger forgotten.
const MAX_GAP: u64 = 10_000_000;

/// A connection to the ledger; every thread and process opens its own.
pub(crate) struct Ledger {
    pub(super) path: PathBuf,
    pub(super) connection: Connection,
    pub(super) rules: LedgerRules,
    pub(super) clock: Clock,
    genesis_ms: u64,
    /// The last state read and its block. A sealed state never changes.
    cache: RefCell<Option<(u64, Arc<State>)>>,
    /// The last roster read and its block: all nodes of a process ask for the same.
    pub(super) roster: RefCell<Option<(u64, Roster)>>,
}

impl Ledger {
    /// Opens the ledger at `path`, or makes it; `:memory:` is one that nobody else sees and that ends with it.
    /// Errors: rules that mean nothing or differ from the file's; a file that is not a ledger, is damaged, or may not be
    /// written.
    pub(crate) fn open(path: &Path, rules: &LedgerRules, clock: Clock) -> Result<Self> {
        rules.check()?;
        let (connection, genesis_ms) = file::open(path, rules, &clock)?;
        let (cache, roster) = (RefCell::new(None), RefCell::new(None));
        let (path, rules) = (path.to_path_buf(), rules.clone());
        Ok(Self { path, connection, rules, clock, genesis_ms, cache, roster })
    }

    /// When block `number` is sealed, in milliseconds of chain time.
    pub(crate) fn time_ms(&self, number: u64) -> u64 {
        self.genesis_ms.saturating_add(number.saturating_mul(self.rules.block_time_ms))
    }

    /// Seals what the clock says should be sealed.
    pub(super) fn catch_up(&self) -> Result<()> {
        let target = self.clock.height(self.genesis_ms, self.rules.block_time_ms);
        let mut head = self.sealed(&self.connection)?;
        let missing = target.saturating_sub(head);
        if missing > MAX_GAP {
            let why = format!("the clock is {missing} blocks past its newest block; is the clock right?");
            return Err(ChainError::File { path: self.path.clone(), why });
        }
        while head < target {
            head = target.min(head + BATCH);
            let tx = self.begin()?;
            blocks::seal(self, &tx, head)?;
            self.db(tx.commit())?;
        }
        Ok(())
    }

    /// Runs a call in one transaction, in the open block whose number it is given. What fails leaves nothing behind.
    pub(super) fn write<T>(&self, call: impl FnOnce(&Transaction<'_>, u64) -> Result<T>) -> Result<T> {
        self.catch_up()?;
        let tx = self.begin()?;
        // The clock may have moved on while another process wrote.
        blocks::seal(self, &tx, self.clock.height(self.genesis_ms, self.rules.block_time_ms))?;
        let open = self.sealed(&tx)? + 1;
        let done = call(&tx, open)?;
        self.db(tx.commit())?;
        Ok(done)
    }

    /// Changes the state in the open block; `call` is what was asked, for the block's hash.
    pub(super) fn change<T>(
        &self,
        call: &impl serde::Serialize,
        change: impl FnOnce(&mut State, u64) -> Result<T>,
    ) -> Result<T> {
        self.write(|tx, open| {
            let mut state = self.newest_state(tx)?;
            let done = change(&mut state, open)?;
            self.store_state(tx, open, &state)?;
            self.note(tx, open, call)?;
            Ok(done)
        })
    }

    /// Makes a call part of the open block's hash.
    pub(super) fn note(&self, tx: &Transaction<'_>, open: u64, call: &impl serde::Serialize) -> Result<()> {
        let bytes = postcard::to_allocvec(call).map_err(|e| self.damaged(e.to_string()))?;
        blocks::note(self, tx, open, &bytes)
    }

    /// Number of the newest sealed block.
    pub(super) fn sealed(&self, connection: &Connection) -> Result<u64> {
        self.db(connection.query_row("SELECT max(number) FROM blocks", [], |row| uint(row, 0)))
    }

    /// The state as calls of the open block left it.
    pub(super) fn newest_state(&self, tx: &Transaction<'_>) -> Result<State> {
        let query = "SELECT body FROM states ORDER BY block DESC LIMIT 1";
        let body: Vec<u8> = self.db(tx.query_row(query, [], |row| row.get(0)))?;
        State::from_bytes(&body).map_err(|why| self.damaged(why))
    }

    /// The newest sealed block and the state after it. One statement, so both are of one moment.
    pub(super) fn sealed_state(&self) -> Result<(u64, Arc<State>)> {
        self.catch_up()?;
        let query = "WITH head AS (SELECT max(number) AS number FROM blocks)
                     SELECT head.number, block, CASE WHEN block = ?1 THEN NULL ELSE body END
                     FROM states, head WHERE block <= head.number ORDER BY block DESC LIMIT 1";
        let mut cache = self.cache.borrow_mut();
        let known = cache.as_ref().map_or(-1, |(block, _)| int(*block));
        let read = |row: &Row<'_>| Ok((uint(row, 0)?, uint(row, 1)?, row.get::<_, Option<Vec<u8>>>(2)?));
        let (head, block, body) = self.db(self.connection.query_row(query, [known], read))?;
        let state = match (body, cache.take()) {
            (None, Some((_, state))) => state,
            (Some(body), _) => Arc::new(State::from_bytes(&body).map_err(|why| self.damaged(why))?),
            (None, None) => return Err(self.damaged("a state is missing".to_owned())),
        };
        *cache = Some((block, Arc::clone(&state)));
        Ok((head, state))
    }

    /// Stores the state after `block`, and drops those before the newest sealed one.
    pub(super) fn store_state(&self, tx: &Transaction<'_>, block: u64, state: &State) -> Result<()> {
        let body = state.to_bytes().map_err(|why| self.damaged(why))?;
        self.db(tx.execute("INSERT OR REPLACE INTO states VALUES (?1, ?2)", params![int(block), body]))?;
        let drop = "DELETE FROM states WHERE block <
                    (SELECT max(block) FROM states WHERE block <= (SELECT max(number) FROM blocks))";
        self.db(tx.execute(drop, []))?;
        self.keep_roster(tx, block, state)
    }

    pub(super) fn db<T>(&self, result: rusqlite::Result<T>) -> Result<T> {
        result.map_err(|source| ChainError::database(&self.path, source))
    }

    pub(super) fn damaged(&self, why: String) -> ChainError {
        ChainError::File { path: self.path.clone(), why }
    }

    /// Writers lock at once: a transaction that read first and then found the file changed could only fail.
    pub(super) fn begin(&self) -> Result<Transaction<'_>> {
        self.db(Transaction::new_unchecked(&self.connection, TransactionBehavior::Immediate))
    }
}

/// A number as the database holds it. All that come here are block heights, amounts below the supply or checked by
/// [`fits`]; a larger one would only ever compare as the largest.
pub(super) fn int(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Refuses a number from outside that the database cannot hold.
pub(super) fn fits(field: &'static str, value: u64) -> Result<()> {
    i64::try_from(value)
        .map(|_| ())
        .map_err(|_| ChainError::Argument { field, want: format!("must be below 2^63, not {value}") })
}

/// Reads a number. Errors: a negative one, which is damage.
pub(super) fn uint(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(at)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(at, value))
}
