//! The command line.

use clap::Parser;
use clap::builder::RangedU64ValueParser;

use crate::commands::Command;

/// Permissionless training of language models in pure Rust.
#[derive(Parser)]
#[command(name = "gauntlet", version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// A number that is kept in a TOML file, which holds none from 2^63 on.
pub(crate) fn kept_number<T: TryFrom<u64>>() -> RangedU64ValueParser<T> {
    RangedU64ValueParser::new().range(..=i64::MAX.unsigned_abs())
}

/// Wrong usage that only shows after parsing; ends with exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}
