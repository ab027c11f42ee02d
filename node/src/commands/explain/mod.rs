//! `gauntlet explain`: why a peer earned what it earned, from the files of a run alone, and whether all of it follows.

mod account;
mod epoch;
mod events;
mod payouts;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use gauntlet::{Event, explain};
use serde_json::{Value, json};

use super::simulate::{MANIFEST, SUMMARY};
use crate::chain::UNITS;
use crate::output;
use crate::run::manifest::Manifest;
use crate::simulate::log::{EVENTS, FACTS};
use crate::storage::ss58;
use account::Account;
use events::{Events, Stage};
use payouts::{Again, Line};

/// Say why a peer earned what it earned, and what would raise it; fails where the account does not follow.
#[derive(Args)]
pub(crate) struct ExplainArgs {
    /// The peer: its hotkey or its name in the run.
    hotkey: String,
    /// Folder of the run.
    #[arg(long, value_name = "DIR")]
    run: PathBuf,
    /// Window to explain [default: the last].
    #[arg(long)]
    window: Option<u64>,
    /// Validator whose view is taken, by hotkey or name [default: the first that keeps to the rules, as in the summary].
    #[arg(long)]
    validator: Option<String>,
    /// JSON on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &ExplainArgs) -> Result<()> {
    let manifest = Manifest::read(&args.run.join(MANIFEST))?;
    // Asked first: a run may end while its files are read.
    let stage = if args.run.join(SUMMARY).exists() { Stage::Ended } else { Stage::Open };
    let events = Events::read(&args.run.join(EVENTS), stage)?;
    let peer = events.find(&args.hotkey)?;
    let validator = match &args.validator {
        Some(name) => events.find(name)?.hotkey,
        None => events.observer().context("the run has no validator")?.hotkey,
    };
    let rounds: Vec<Event> =
        events.rounds.iter().filter(|(by, _)| *by == validator).map(|(_, event)| event.clone()).collect();
    let last = rounds.iter().map(|e| e.window).max();
    let Some(window) = args.window.or(last) else {
        bail!("{}: no window was judged by {}", args.run.display(), ss58::encode(&validator));
    };
    let explanation = explain(&manifest.gauntlet, &rounds, peer.hotkey, window);
    let ledger = &manifest.chain.ledger;
    let again: Vec<Again> = events.epochs.iter().map(|epoch| Again::new(ledger, epoch)).collect();
    let lines = payouts::of(ledger, &events, &again, &peer.hotkey);
    let total = lines.iter().fold(0_u64, |sum, line| sum.saturating_add(line.paid));
    let (strange, unread) = audit(args, &manifest, (&events, stage), &again)?;
    if output::wants_json(args.json) {
        let payouts = lines.iter().map(|l| {
            json!({
                "epoch": l.epoch, "block": l.block, "weights": l.weights, "consensus": l.consensus,
                "incentive": l.incentive, "dividend": l.dividend, "paid": l.paid, "recomputed": l.recomputed,
            })
        });
        // Neither true nor false where a file is missing, as in a run that has not ended.
        let accounted =
            if strange.is_empty() && !unread.is_empty() { None } else { Some(strange.is_empty()) };
        let result = json!({
            "name": peer.name, "hotkey": ss58::encode(&peer.hotkey), "validator": ss58::encode(&validator),
            "explanation": explanation, "payouts": payouts.collect::<Vec<Value>>(), "balance": total,
            "accounted": accounted, "strange": strange, "unread": unread,
        });
        output::text(&format!("{result:#}\n"))?;
    } else {
        let mut text = format!("{} ({})\n{explanation}", peer.name, ss58::encode(&peer.hotkey));
        text += &account_text(&lines, total, &strange, &unread);
        output::text(&text)?;
    }
    match strange.first() {
        None => Ok(()),
        Some(first) => bail!("the account does not follow: {first}{}", and_more(strange.len() - 1)),
    }
}

/// What does not follow, and the files that could not be looked at: a run has no summary before it ends.
fn audit(
    args: &ExplainArgs,
    manifest: &Manifest,
    (events, stage): (&Events, Stage),
    again: &[Again],
) -> Result<(Vec<String>, Vec<&'static str>)> {
    let mut account = Account { manifest, events, stage, again, strange: Vec::new() };
    let (facts, summary) = (args.run.join(FACTS), args.run.join(SUMMARY));
    let mut unread = Vec::new();
    if facts.exists() {
        account.rounds(&events::facts(&facts, stage)?);
    } else {
        unread.push(FACTS);
    }
    account.splits();
    account.epochs();
    if stage == Stage::Ended {
        let text = crate::files::read(&summary)?;
        let summary = serde_json::from_str(&text).with_context(|| format!("{}", summary.display()))?;
        account.balances(&summary);
    } else {
        unread.push(SUMMARY);
    }
    Ok((account.strange, unread))
}

fn account_text(lines: &[Line], total: u64, strange: &[String], unread: &[&str]) -> String {
    let mut text = String::from("  payouts by the chain\n");
    for line in lines.iter().filter(|line| line.paid > 0) {
        let follows = if line.recomputed == line.paid { "follows" } else { "DOES NOT follow" };
        text += &format!("    epoch {}, block {}\n", line.epoch, line.block);
        for (name, stake, weight) in &line.weights {
            text += &format!(
                "      {name}, with {:.1} % of the stake, gave it {weight:.6} of its weights\n",
                stake * 100.0
            );
        }
        text += &format!(
            "      consensus {:.6}, incentive {:.6}, dividend {:.6}: {} units, which {follows} from the weights\n",
            line.consensus, line.incentive, line.dividend, line.paid
        );
    }
    #[allow(clippy::cast_precision_loss)] // shown in tokens; the units stand beside
    let tokens = total as f64 / UNITS as f64;
    text += &format!("  balance         {total} units = {tokens:.9} tokens, the sum of the lines above\n");
    for what in strange.iter().take(SHOWN) {
        text += &format!("  DOES NOT FOLLOW {what}\n");
    }
    match (strange.is_empty(), unread) {
        (true, []) => {
            text += "  accounted       facts, rounds, splits, weights, bonds, payouts and balances follow from each other\n"
        }
        (true, unread) => {
            text += &format!("  accounted       as far as it goes: there is no {}\n", unread.join(", no "));
        }
        (false, _) => {}
    }
    text
}

/// Things that do not follow which the text shows; the data form has all.
const SHOWN: usize = 20;

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!("; and {more} more") }
}
