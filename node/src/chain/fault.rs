//! What can go wrong with a chain, where a caller must tell cases apart.

use std::path::{Path, PathBuf};

use gauntlet::{ChainFault, Hotkey};

pub(crate) type Result<T> = std::result::Result<T, ChainError>;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    /// A rule of the chain forbids it.
    #[error("{hotkey} is refused by the chain: {fault}")]
    Refused { hotkey: Hotkey, fault: ChainFault },
    /// A block that is not sealed yet.
    #[error("block {number} is not there yet, the newest is {head}; wait for it")]
    NoBlock { number: u64, head: u64 },
    /// Another node works with this hotkey.
    #[error(
        "hotkey {hotkey} is in use by another node, until block {until} at least; stop that one, or wait"
    )]
    Leased { hotkey: Hotkey, until: u64 },
    /// A value that a call cannot take.
    #[error("{field} {want}")]
    Argument { field: &'static str, want: String },
    /// A rule with a value that means nothing.
    #[error("chain.{field} must be {want}; change it in the manifest")]
    Rule { field: &'static str, want: &'static str },
    /// The file exists and was made with other rules.
    #[error("ledger {} was made with {difference}; use its rules, or another file", path.display())]
    OtherRules { path: PathBuf, difference: String },
    /// The file is not a ledger, or a damaged one.
    #[error("ledger {} cannot be used: {why}; restore a copy, or start a new one elsewhere", path.display())]
    File { path: PathBuf, why: String },
    /// The database refused a statement.
    #[error("ledger {}: {source}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    /// The system gave no randomness for a block hash.
    #[error("no randomness from the system: {0}")]
    Randomness(getrandom::Error),
}

impl ChainError {
    /// Turns a database error into one that names the file, and says what damage means.
    pub(super) fn database(path: &Path, source: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseCorrupt, NotADatabase, PermissionDenied, ReadOnly};
        let file = |why: &str| Self::File { path: path.to_path_buf(), why: why.to_owned() };
        match source.sqlite_error_code() {
            Some(NotADatabase) => file("it is not an SQLite file"),
            Some(DatabaseCorrupt) => file("it is damaged"),
            Some(CannotOpen) => {
                file("it cannot be opened; does its folder exist, and may this user write there?")
            }
            Some(ReadOnly | PermissionDenied) => file("it may not be written"),
            _ => Self::Database { path: path.to_path_buf(), source },
        }
    }
}
