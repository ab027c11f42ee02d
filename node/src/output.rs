//! What goes to standard output: JSON for programs, aligned lines for people. And notes on standard error.

use std::fmt::Display;
use std::io::{ErrorKind, IsTerminal, Write};

use anyhow::{Context, Result};
use serde_json::Value;

/// Whether a result is written as JSON: asked for, or read by a program.
pub(crate) fn wants_json(asked: bool) -> bool {
    asked || !std::io::stdout().is_terminal()
}

/// Prints `result` as JSON or as `rows` of a name and a value.
pub(crate) fn result(json: bool, result: &Value, rows: &[(&str, String)]) -> Result<()> {
    if json { text(&format!("{result:#}\n")) } else { text(&table(rows)) }
}

/// Writes `text` at once. A reader that has gone away is not an error: it had what it wanted.
pub(crate) fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Writes a line to standard error. Where that cannot be written there is nobody to tell, and the work goes on.
pub(crate) fn note(line: impl Display) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Lines on standard output of work that must not be lost with them: after the first failure the rest is not
/// printed, and [`Lines::end`] says why.
#[derive(Default)]
pub(crate) struct Lines {
    failure: Option<anyhow::Error>,
}

impl Lines {
    pub(crate) fn print(&mut self, line: impl Display) {
        if self.failure.is_none() {
            self.failure = text(&format!("{line}\n")).err();
        }
    }

    /// # Errors
    /// The first failure.
    pub(crate) fn end(self) -> Result<()> {
        self.failure.map_or(Ok(()), Err)
    }
}

fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_below_each_other() {
        assert_eq!(table(&[("θ", "1".into()), ("loss", "2".into())]), "θ     1\nloss  2\n");
    }
}
