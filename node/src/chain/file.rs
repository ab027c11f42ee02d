//! The ledger's file: one SQLite database, written by all processes of a machine (write-ahead log, so not on a network
//! drive). What is not a ledger is refused before anything in it changes.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior, params};

use super::state::State;
use super::{ChainError, Clock, LedgerRules, Result, blocks};

/// Marks the file as ours: "GNTL".
const APPLICATION: i32 = 0x474E_544C;
/// Version of the tables below.
const SCHEMA: i32 = 3;
/// Patience with other writers; their transactions take milliseconds.
const BUSY: Duration = Duration::from_secs(60);

/// `open` holds the digest of the calls in the open block. A row of `states` is the state after its block and holds
/// until the next row; the newest may belong to the open block. So do those of `rosters`, of which none is dropped.
const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE blocks (number INTEGER PRIMARY KEY, hash BLOB NOT NULL);
CREATE TABLE open (id INTEGER PRIMARY KEY CHECK (id = 0), block INTEGER NOT NULL, digest BLOB NOT NULL);
CREATE TABLE states (block INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE rosters (block INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE anchors (id INTEGER PRIMARY KEY, block INTEGER NOT NULL, hotkey BLOB NOT NULL,
    window INTEGER NOT NULL, record BLOB NOT NULL, UNIQUE (window, hotkey));
CREATE TABLE equivocations (id INTEGER PRIMARY KEY, block INTEGER NOT NULL, hotkey BLOB NOT NULL,
    proof BLOB NOT NULL, digest BLOB NOT NULL UNIQUE);
CREATE TABLE leases (hotkey BLOB PRIMARY KEY, instance BLOB NOT NULL, until INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE epochs (epoch INTEGER PRIMARY KEY, block INTEGER NOT NULL, emission INTEGER NOT NULL,
    owner INTEGER NOT NULL, burned INTEGER NOT NULL, previous INTEGER NOT NULL, neurons BLOB NOT NULL);
CREATE TABLE pay (epoch INTEGER NOT NULL, uid INTEGER NOT NULL, hotkey BLOB NOT NULL, incentive REAL NOT NULL,
    dividend REAL NOT NULL, server INTEGER NOT NULL, validator INTEGER NOT NULL,
    PRIMARY KEY (epoch, uid)) WITHOUT ROWID;
";

/// Opens the file, or makes it. Gives the connection and the time of genesis in milliseconds.
pub(super) fn open(path: &Path, rules: &LedgerRules, clock: &Clock) -> Result<(Connection, u64)> {
    let database = |e| ChainError::database(path, e);
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags).map_err(database)?;
    connection.busy_timeout(BUSY).map_err(database)?;
    let until = Instant::now() + BUSY;
    loop {
        match prepare(&mut connection, path, rules, clock) {
            // Turning the log on needs the file alone, and SQLite does not wait for that by itself.
            Err(ChainError::Database { source, .. })
                if source.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done.map(|genesis| (connection, genesis)),
        }
    }
}

fn prepare(connection: &mut Connection, path: &Path, rules: &LedgerRules, clock: &Clock) -> Result<u64> {
    let database = |e| ChainError::database(path, e);
    identify(connection, path)?;
    connection.pragma_update(None, "journal_mode", "WAL").map_err(database)?;
    // A simulation is run again rather than recovered; a network must not lose a block whose hash was seen.
    let synchronous = if matches!(clock, Clock::Wall(_)) { "FULL" } else { "OFF" };
    connection.pragma_update(None, "synchronous", synchronous).map_err(database)?;
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(database)?;
    if identify(&tx, path)? == Found::Nothing {
        create(&tx, path, rules, clock)?;
    }
    let genesis = check(&tx, path, rules, clock)?;
    tx.commit().map_err(database)?;
    // Not in the transaction: a long chain takes a while, and others may want to write.
    let health = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    match health.map_err(database)?.as_str() {
        "ok" => Ok(genesis),
        damage => Err(ChainError::File { path: path.to_path_buf(), why: format!("it is damaged: {damage}") }),
    }
}

#[derive(PartialEq)]
enum Found {
    Nothing,
    Ledger,
}

fn identify(connection: &Connection, path: &Path) -> Result<Found> {
    let database = |e| ChainError::database(path, e);
    let number = |query: &str| connection.query_row(query, [], |row| row.get::<_, i32>(0)).map_err(database);
    let file = |why: String| ChainError::File { path: path.to_path_buf(), why };
    let tables = number("SELECT count(*) FROM sqlite_master")?;
    match (number("PRAGMA application_id")?, number("PRAGMA user_version")?) {
        (APPLICATION, SCHEMA) => Ok(Found::Ledger),
        (APPLICATION, other) => Err(file(format!("its format is {other}, this build knows {SCHEMA}"))),
        (0, 0) if tables == 0 => Ok(Found::Nothing),
        _ => Err(file("it is a database of another program".to_owned())),
    }
}

fn create(tx: &Transaction<'_>, path: &Path, rules: &LedgerRules, clock: &Clock) -> Result<()> {
    let database = |e| ChainError::database(path, e);
    let file = |why: String| ChainError::File { path: path.to_path_buf(), why };
    tx.execute_batch(TABLES).map_err(database)?;
    tx.pragma_update(None, "application_id", APPLICATION).map_err(database)?;
    tx.pragma_update(None, "user_version", SCHEMA).map_err(database)?;
    let text = serde_json::to_string(rules).map_err(|e| file(e.to_string()))?;
    let genesis = match clock {
        // Stores stamp whole seconds: between blocks, too, nothing of one is lost.
        Clock::Wall(now) => now().div_ceil(1000).saturating_mul(1000),
        Clock::Virtual { .. } => 0,
    };
    for (key, value) in [("rules", text.clone()), ("clock", kind(clock)), ("genesis_ms", genesis.to_string())]
    {
        tx.execute("INSERT INTO meta VALUES (?1, ?2)", [key, &value]).map_err(database)?;
    }
    blocks::genesis(tx, clock, &text)?.map_err(database)?;
    let state = State::genesis(rules).to_bytes().map_err(file)?;
    tx.execute("INSERT INTO states VALUES (0, ?1)", params![state]).map_err(database)?;
    Ok(())
}

/// Compares what the file was made with, and gives the time of genesis.
fn check(tx: &Transaction<'_>, path: &Path, rules: &LedgerRules, clock: &Clock) -> Result<u64> {
    let database = |e| ChainError::database(path, e);
    let file = |why: String| ChainError::File { path: path.to_path_buf(), why };
    let other = |difference| ChainError::OtherRules { path: path.to_path_buf(), difference };
    let meta = |key: &str| {
        let found =
            tx.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, String>(0));
        found.map_err(database)
    };
    let made: LedgerRules =
        serde_json::from_str(&meta("rules")?).map_err(|e| file(format!("its rules do not read: {e}")))?;
    if let Some(difference) = LedgerRules::difference(&made, rules) {
        return Err(other(difference));
    }
    let made = meta("clock")?;
    if made != kind(clock) {
        return Err(other(format!("{made}, now {}", kind(clock))));
    }
    meta("genesis_ms")?.parse().map_err(|_| file("its time of genesis is not a number".to_owned()))
}

fn kind(clock: &Clock) -> String {
    match clock {
        Clock::Wall(_) => "a wall clock".to_owned(),
        Clock::Virtual { seed, .. } => format!("a virtual clock and seed {seed}"),
    }
}
