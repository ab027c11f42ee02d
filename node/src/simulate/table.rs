//! The live table on a terminal: how the window went, and a line a peer.

use std::io::Write;

use anyhow::{Context, Result};
use indicatif::HumanBytes;

use super::{Simulation, WindowResult};
use crate::chain::Chain;
use crate::chain::UNITS;

/// A table that is drawn over itself.
pub(crate) struct Table {
    windows: u64,
    lines: usize,
}

impl Table {
    pub(crate) fn new(windows: u64) -> Self {
        Self { windows, lines: 0 }
    }

    /// Draws the state after a window.
    pub(crate) fn draw(&mut self, simulation: &Simulation, result: &WindowResult) -> Result<()> {
        let text = render(simulation, result, self.windows)?;
        let mut out = std::io::stdout().lock();
        // Up to where the last table began, and clear from there.
        let up = if self.lines > 0 { format!("\x1b[{}A\x1b[J", self.lines) } else { String::new() };
        self.lines = text.lines().count();
        write!(out, "{up}{text}").and_then(|()| out.flush()).context("cannot write to standard output")
    }
}

fn render(simulation: &Simulation, result: &WindowResult, windows: u64) -> Result<String> {
    let done = result.window + 1;
    let shown = |loss: Option<f64>| loss.map_or("-".to_owned(), |loss| format!("{loss:.4}"));
    let filled = usize::try_from(30 * done / windows.max(1)).unwrap_or(30).min(30);
    let mut text = format!(
        "[{}{}] window {done}/{windows}   loss {}   held out {}   baseline {}   {} accepted, {}\n",
        "#".repeat(filled),
        "-".repeat(30 - filled),
        shown(result.train_loss),
        shown(result.validation),
        shown(result.baseline),
        result.accepted,
        HumanBytes(result.bytes)
    );
    text += &format!(
        "{:<24} {:>7} {:>10} {:>9} {:>12}  {}\n",
        "peer", "μ", "LossRating", "share", "balance", "newest"
    );
    let Some(observer) = simulation.observer() else { return Ok(text) };
    let me = observer.validator().hotkey();
    for met in simulation.log.nodes.iter().skip(simulation.judges.len()) {
        let state = observer.validator().state().peers.get(&met.hotkey);
        let share = simulation.log.share(&me, &met.hotkey, result.window);
        #[allow(clippy::cast_precision_loss)] // shown with four digits
        let balance = simulation.chain.balance(met.hotkey)? as f64 / UNITS as f64;
        let newest = simulation.log.newest(&me, &met.hotkey);
        text += &format!(
            "{:<24} {:>7.3} {:>10.3} {:>9.4} {:>12.4}  {newest}\n",
            met.name,
            state.map_or(0.0, |p| p.proof),
            state.map_or(0.0, |p| p.rating.loss_rating()),
            share,
            balance
        );
    }
    Ok(text)
}
