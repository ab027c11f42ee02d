//! What no run can use of a manifest. A refusal begins with the full path of the key, and ends with exit code 2.
//!
//! Anchors have no budget: the embedded chain takes them for nothing, and a validator makes one in `anchor_every` windows,
//! each of at least five blocks.

use anyhow::Result;
use gauntlet::Digest;
use gauntlet_demo::{MAX_PEERS, Optimizer};
use gauntlet_model::{Layout, LlamaConfig, preset};

use super::{DataSection, Manifest, PROTOCOL, WindowSection, demo_layout};
use crate::chain::ChainError;
use crate::cli::Usage;

/// Blocks and windows in any setting at most: a chain refuses to jump further than ten million blocks.
const MOST: u64 = 5_000_000;

/// A refusal of `key`.
fn wrong(key: &str, problem: impl std::fmt::Display) -> Result<()> {
    Err(Usage(format!("{key}: {problem}")).into())
}

impl Manifest {
    /// Refuses values that no run can use; the message names the key.
    pub(crate) fn check(&self) -> Result<()> {
        if self.protocol != PROTOCOL {
            return wrong("protocol", format!("{}; this program speaks {PROTOCOL}", self.protocol));
        }
        if let Err(error) = preset(&self.model.preset) {
            return wrong("model.preset", error);
        }
        self.data.check_vocabulary()?;
        let config = match self.shape() {
            Ok(config) => config,
            Err(error) => return wrong("model.preset", format!("{error:#}")),
        };
        self.data.check_text(config.max_position_embeddings)?;
        self.window.check()?;
        self.check_rules()?;
        self.check_chain()?;
        self.check_put_times()?;
        self.check_optimizer(&config)
    }

    fn check_rules(&self) -> Result<()> {
        match self.gauntlet.check() {
            Ok(()) => {}
            Err(gauntlet::Error::Rule { field, want }) => {
                return wrong(&format!("gauntlet.{field}"), format!("must be {want}"));
            }
            Err(error) => return wrong("gauntlet", error),
        }
        if self.gauntlet.incentive.burn > 0.0 && self.chain.ledger.owner.is_none() {
            let problem = "needs a hotkey to burn to: set chain.ledger.owner, or this to 0";
            return wrong("gauntlet.incentive.burn", problem);
        }
        Ok(())
    }

    fn check_chain(&self) -> Result<()> {
        positive("chain.windows_per_weights", self.chain.windows_per_weights)?;
        match self.chain.ledger.check() {
            Ok(()) => Ok(()),
            Err(ChainError::Rule { field, want }) => {
                wrong(&format!("chain.ledger.{field}"), format!("must be {want}"))
            }
            Err(error) => wrong("chain.ledger", error),
        }
    }

    /// Stores stamp whole seconds, and what is put in the second of a deadline is late: where blocks begin within seconds,
    /// up to one of the phase is lost.
    fn check_put_times(&self) -> Result<()> {
        let (commit, block_ms) = (self.window.commit, self.chain.ledger.block_time_ms);
        if !block_ms.is_multiple_of(1000) && commit.saturating_mul(block_ms) < 2000 {
            let problem = "stores stamp whole seconds, so commitments need two where blocks begin within one; raise it, or make \
                           chain.ledger.block_time_ms whole seconds";
            return wrong("window.commit", format!("{commit} blocks of {block_ms} ms: {problem}"));
        }
        Ok(())
    }

    fn check_optimizer(&self, config: &LlamaConfig) -> Result<()> {
        use gauntlet_demo::Error;
        let Optimizer::Demo(demo) = &self.optimizer else {
            return wrong("optimizer.scheme", "adamw needs `gauntlet train`; runs use demo");
        };
        match demo_layout(&Layout::new(config)).and_then(|layout| demo.check(&layout)) {
            Ok(()) => {}
            Err(Error::Config { field, reason }) => return wrong(&format!("optimizer.{field}"), reason),
            Err(error) => return wrong("model.preset", error),
        }
        let selection = &self.gauntlet.selection;
        let most = selection.places as usize + selection.reserve as usize;
        if demo.min_gather > most {
            let problem = format!(
                "{} submissions never come together: gauntlet.selection.places and reserve are {most}",
                demo.min_gather
            );
            return wrong("optimizer.min_gather", problem);
        }
        if most > MAX_PEERS {
            let problem = format!("{most} with gauntlet.selection.reserve: {MAX_PEERS} are applied at most");
            return wrong("gauntlet.selection.places", problem);
        }
        Ok(())
    }
}

impl DataSection {
    fn check_vocabulary(&self) -> Result<()> {
        if !(1..=1 << 24).contains(&self.vocab) {
            return wrong("data.vocab", format!("{} is not in 1..=2^24", self.vocab));
        }
        if self.eos as usize >= self.vocab {
            return wrong("data.eos", format!("{} is not below data.vocab {}", self.eos, self.vocab));
        }
        Ok(())
    }

    /// `longest`: tokens in a sequence that the model can read.
    fn check_text(&self, longest: usize) -> Result<()> {
        if !(1..=longest).contains(&self.seq) {
            return wrong("data.seq", format!("{} is not in 1..={longest}", self.seq));
        }
        for (key, hash) in [("data.hash", &self.hash), ("data.tokenizer", &self.tokenizer)] {
            if let Err(error) = Digest::from_hex(hash) {
                return wrong(key, error);
            }
        }
        Ok(())
    }
}

impl WindowSection {
    fn check(&self) -> Result<()> {
        let values = [
            ("window.start_block", self.start_block),
            ("window.blocks", self.blocks),
            ("window.commit", self.commit),
            ("window.reveal", self.reveal),
            ("window.record", self.record),
            ("window.anchor_every", self.anchor_every),
            ("window.checkpoint_every", self.checkpoint_every),
            ("window.max_sequences", self.max_sequences.into()),
        ];
        values.into_iter().try_for_each(|(key, value)| positive(key, value))?;
        // A joiner starts from a checkpoint that an anchor vouches for, and needs what came since.
        let least = (2 * self.checkpoint_every).max(self.checkpoint_every + self.anchor_every + 2);
        if self.keep > 0 && !(least..=MOST).contains(&self.keep) {
            return wrong("window.keep", format!("{} is not 0, and not in {least}..={MOST}", self.keep));
        }
        let closing = self.commit + self.reveal + 1 + 2 * self.record;
        if closing > self.blocks {
            let problem = format!(
                "{} are too few: commit, reveal and the turns of two leaders take {closing}",
                self.blocks
            );
            return wrong("window.blocks", problem);
        }
        Ok(())
    }
}

fn positive(key: &str, value: u64) -> Result<()> {
    if (1..=MOST).contains(&value) { Ok(()) } else { wrong(key, format!("{value} is not in 1..={MOST}")) }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use gauntlet::penalty::CopyLevel;
    use gauntlet_demo::{AdamW, DemoConfig};

    use super::*;
    use crate::corpus::DataArgs;
    use crate::simulate::settings::of_flags;

    type Change = Box<dyn Fn(&mut Manifest)>;

    fn change(change: impl Fn(&mut Manifest) + 'static) -> Change {
        Box::new(change)
    }

    fn demo(change: impl Fn(&mut DemoConfig) + 'static) -> Change {
        Box::new(move |manifest| {
            if let Optimizer::Demo(demo) = &mut manifest.optimizer {
                change(demo);
            }
        })
    }

    /// A key, and a change that no run can use of it.
    fn cases() -> Vec<(&'static str, Change)> {
        let level = CopyLevel { from: 0.5, factor: 0.5, ban: 1 };
        vec![
            ("protocol", change(|m| m.protocol = 9)),
            ("model.preset", change(|m| m.model.preset = "byte-9m".into())),
            ("data.hash", change(|m| m.data.hash = "00".into())),
            ("data.tokenizer", change(|m| m.data.tokenizer.replace_range(..1, "x"))),
            ("data.vocab", change(|m| m.data.vocab = 0)),
            ("data.eos", change(|m| m.data.eos = 257)),
            ("data.seq", change(|m| m.data.seq = 0)),
            ("data.seq", change(|m| m.data.seq = 1 << 30)),
            ("optimizer.scheme", change(|m| m.optimizer = Optimizer::Adamw(AdamW::default()))),
            ("optimizer.decay", demo(|d| d.decay = 7.0)),
            ("optimizer.topk", demo(|d| d.topk = 0)),
            ("optimizer.chunk", demo(|d| d.chunk = 65)),
            ("optimizer.weight_decay", demo(|d| d.weight_decay = 1.0)),
            ("optimizer.schedule.peak", demo(|d| d.schedule.peak = 0.0)),
            ("optimizer.schedule.floor", demo(|d| d.schedule.floor = 2.0)),
            ("optimizer.min_gather", demo(|d| d.min_gather = 0)),
            ("optimizer.min_gather", demo(|d| d.min_gather = 16)),
            ("window.start_block", change(|m| m.window.start_block = 0)),
            ("window.blocks", change(|m| m.window.blocks = 3)),
            ("window.anchor_every", change(|m| m.window.anchor_every = MOST + 1)),
            ("window.keep", change(|m| m.window.keep = 5)),
            ("window.commit", change(|m| m.chain.ledger.block_time_ms = 1_500)),
            ("window.commit", change(|m| m.chain.ledger.block_time_ms = 999)),
            ("window.max_sequences", change(|m| m.window.max_sequences = 0)),
            ("gauntlet.proof.decay", change(|m| m.gauntlet.proof.decay = 7.0)),
            (
                "gauntlet.penalty.copy_levels",
                change(move |m| m.gauntlet.penalty.copy_levels = vec![level; 33]),
            ),
            ("gauntlet.incentive.burn", change(|m| m.gauntlet.incentive.burn = 0.5)),
            ("chain.windows_per_weights", change(|m| m.chain.windows_per_weights = 0)),
            ("chain.ledger.block_time_ms", change(|m| m.chain.ledger.block_time_ms = 0)),
            ("chain.ledger.subnet.tempo", change(|m| m.chain.ledger.subnet.tempo = 0)),
            (
                "chain.ledger.subnet.weights.max_weight",
                change(|m| m.chain.ledger.subnet.weights.max_weight = 0),
            ),
        ]
    }

    #[test]
    fn what_is_refused_is_named_by_its_full_path() {
        let corpus = DataArgs::default().open(Path::new(""), 1, 32).unwrap();
        let good = of_flags("byte-1m", 32, (1e-3, 10), 1, &corpus);
        good.check().unwrap();
        let table = toml::Value::try_from(&good).unwrap();
        for (key, change) in cases() {
            let mut bad = good.clone();
            change(&mut bad);
            let error = bad.check().unwrap_err();
            assert!(error.is::<Usage>(), "{key}: {error}");
            let error = error.to_string();
            assert_eq!(error.split(": ").next(), Some(key), "{error}");
            assert!(!error.contains('\n'), "{error}");
            // It is a key that the manifest has.
            let found = key.split('.').try_fold(&table, |table, part| table.get(part));
            assert!(found.is_some(), "{key}");
        }
        // Two seconds of commitments do where blocks begin within one, and one where they do not.
        let mut long = good.clone();
        (long.window.commit, long.chain.ledger.block_time_ms) = (2, 1_250);
        long.check().unwrap();
        (long.window.commit, long.chain.ledger.block_time_ms) = (1, 3_000);
        long.check().unwrap();
        let mut most = good;
        demo(|d| d.min_gather = 18)(&mut most);
        most.gauntlet.selection.reserve = 3;
        most.check().unwrap();
        let places = u32::try_from(MAX_PEERS).unwrap() - 3;
        most.gauntlet.selection.places = places;
        most.check().unwrap();
        most.gauntlet.selection.places = places + 1;
        let error = most.check().unwrap_err().to_string();
        assert!(error.contains("gauntlet.selection.places: 513 with"), "{error}");
    }

    #[test]
    fn what_does_not_parse_is_named_with_its_line() {
        let corpus = DataArgs::default().open(Path::new(""), 1, 32).unwrap();
        let good = toml::to_string(&of_flags("byte-1m", 32, (1e-3, 10), 1, &corpus)).unwrap();
        let path = Path::new("run.toml");
        Manifest::parse(path, &good).unwrap();
        for (from, to, said) in [
            ("[window]", "[window]\nblocs = 3", "unknown field `blocs`"),
            ("bits = 1", "bits = 9", "optimizer.codebook.bits: "),
            ("levels = [", "levels = [-1, ", "optimizer.codebook.levels: "),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            let error = Manifest::parse(path, &bad).unwrap_err().to_string();
            assert!(error.starts_with("run.toml, line ") && error.contains(said), "{error}");
        }
        // What parses and is refused carries the file's name before the key.
        let bad = good.replacen("anchor_every = 5", "anchor_every = 0", 1);
        let error = format!("{:#}", Manifest::parse(path, &bad).unwrap_err());
        assert!(error.starts_with("run.toml: window.anchor_every: "), "{error}");
    }
}
