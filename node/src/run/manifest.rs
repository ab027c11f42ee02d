//! The run manifest: one TOML file defines a run, and its hash is the run's id (PROTOCOL 1).

use std::path::Path;

use anyhow::{Context, Result};
use gauntlet::{Digest, Rules};
use gauntlet_data::VOCAB_MULTIPLE;
use gauntlet_demo::Optimizer;
use gauntlet_model::{Layout, LlamaConfig, preset};
use serde::{Deserialize, Serialize};

use crate::chain::LedgerRules;
use crate::cli::Usage;
use crate::corpus::Corpus;
use crate::files;

/// Version of the formats and rules of a run; another one is another network.
pub(crate) const PROTOCOL: u16 = 1;

/// Blocks and windows in any setting at most.
const MOST: u64 = 5_000_000;

/// Everything that all nodes of a run must agree on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    /// [`PROTOCOL`].
    pub(crate) protocol: u16,
    /// For people.
    pub(crate) name: String,
    pub(crate) model: ModelSection,
    pub(crate) data: DataSection,
    pub(crate) optimizer: Optimizer,
    pub(crate) window: WindowSection,
    /// The evaluation.
    #[serde(default)]
    pub(crate) gauntlet: Rules,
    #[serde(default)]
    pub(crate) chain: ChainSection,
}

/// `[model]`: what is trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModelSection {
    /// Named shape; the vocabulary is the tokenizer's.
    pub(crate) preset: String,
    /// Seed of the initial weights.
    pub(crate) seed: u64,
}

/// `[data]`: what is trained on. Where it lies is each node's own matter; its hashes are not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DataSection {
    /// Hash of the prepared data, or of the embedded corpus with its tokenizer; hex.
    pub(crate) hash: String,
    /// Hash of the tokenizer, hex.
    pub(crate) tokenizer: String,
    /// Ids of the tokenizer, and which of them ends a text. The model's vocabulary is padded to a multiple of 64.
    pub(crate) vocab: usize,
    pub(crate) eos: u32,
    /// Tokens in a sequence.
    pub(crate) seq: usize,
}

/// `[window]`: when what happens, in blocks. The closing of window w lies at the beginning of w + 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WindowSection {
    /// Block that opens window 0.
    pub(crate) start_block: u64,
    /// Blocks of a window.
    pub(crate) blocks: u64,
    /// Blocks after a window's end in which commitments are put.
    pub(crate) commit: u64,
    /// Blocks after that in which objects are put.
    pub(crate) reveal: u64,
    /// Blocks after that in which a leader publishes the record, before it is the next leader's turn.
    pub(crate) record: u64,
    /// Windows between anchors on chain.
    pub(crate) anchor_every: u64,
    /// Windows between checkpoints.
    pub(crate) checkpoint_every: u64,
    /// Windows whose objects and checkpoints stay in the buckets; records stay for ever. 0: all stay, so
    /// that anyone can replay the run from its beginning.
    pub(crate) keep: u64,
    /// Sequences of a submission that count at most, whatever it says.
    pub(crate) max_sequences: u32,
}

impl Default for WindowSection {
    fn default() -> Self {
        Self {
            start_block: 1,
            blocks: 7,
            commit: 1,
            reveal: 1,
            record: 1,
            anchor_every: 5,
            checkpoint_every: 10,
            keep: 0,
            max_sequences: 4096,
        }
    }
}

/// `[chain]`: the ledger and how validators use it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ChainSection {
    /// Windows between two settings of weights.
    pub(crate) windows_per_weights: u64,
    /// The embedded ledger's constants.
    pub(crate) ledger: LedgerRules,
}

impl Default for ChainSection {
    fn default() -> Self {
        Self { windows_per_weights: 3, ledger: LedgerRules::default() }
    }
}

impl WindowSection {
    /// Block that opens window `w`.
    pub(crate) fn opens(&self, w: u64) -> u64 {
        self.start_block.saturating_add(w.saturating_mul(self.blocks))
    }

    /// Last block in which commitments to window `w` are taken.
    pub(crate) fn commit_deadline(&self, w: u64) -> u64 {
        self.opens(w.saturating_add(1)).saturating_add(self.commit)
    }

    /// Last block in which objects of window `w` are put. The block after it seeds the evaluation.
    pub(crate) fn reveal_deadline(&self, w: u64) -> u64 {
        self.commit_deadline(w).saturating_add(self.reveal)
    }

    /// First block of the first leader's turn to publish the record of window `w`.
    pub(crate) fn record_opens(&self, w: u64) -> u64 {
        self.reveal_deadline(w).saturating_add(1)
    }
}

impl Manifest {
    /// Reads a TOML file. Errors name the line and the key.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = files::read(path)?;
        let mut manifest: Self = files::parse_toml(path, &text)?;
        let given: toml::Table = files::parse_toml(path, &text)?;
        if let Some(toml::Value::Table(given)) = given.get("chain").and_then(|chain| chain.get("ledger")) {
            // What a table leaves out has the ledger's defaults, not those of the part it describes.
            let mut ledger = toml::Table::try_from(LedgerRules::default())?;
            fill(&mut ledger, given);
            manifest.chain.ledger = ledger.try_into()?;
        }
        manifest.check().map_err(|e| e.context(path.display().to_string()))?;
        Ok(manifest)
    }

    /// Refuses values that no run can use; the message names the key.
    pub(crate) fn check(&self) -> Result<()> {
        let wrong = |key: &str, problem: String| Err(Usage(format!("{key}: {problem}")).into());
        if self.protocol != PROTOCOL {
            return wrong("protocol", format!("{}; this program speaks {PROTOCOL}", self.protocol));
        }
        preset(&self.model.preset).map_err(|e| Usage(format!("model.preset: {e}")))?;
        if !(1..=1 << 24).contains(&self.data.vocab) || self.data.eos as usize >= self.data.vocab {
            let (vocab, eos) = (self.data.vocab, self.data.eos);
            return wrong(
                "data.vocab",
                format!("{vocab} is not in 1..=2^24, or data.eos {eos} not below it"),
            );
        }
        let config = self.shape()?;
        if self.data.seq == 0 || self.data.seq > config.max_position_embeddings {
            let longest = config.max_position_embeddings;
            return wrong("data.seq", format!("{} is not in 1..={longest}", self.data.seq));
        }
        for (key, hash) in [("data.hash", &self.data.hash), ("data.tokenizer", &self.data.tokenizer)] {
            Digest::from_hex(hash).map_err(|e| Usage(format!("{key}: {e}")))?;
        }
        let w = &self.window;
        let positive = [
            ("window.start_block", w.start_block),
            ("window.blocks", w.blocks),
            ("window.commit", w.commit),
            ("window.reveal", w.reveal),
            ("window.record", w.record),
            ("window.anchor_every", w.anchor_every),
            ("window.checkpoint_every", w.checkpoint_every),
            ("window.max_sequences", w.max_sequences.into()),
            ("chain.windows_per_weights", self.chain.windows_per_weights),
        ];
        // A chain refuses to jump further than ten million blocks.
        if let Some((key, value)) = positive.iter().find(|(_, value)| !(1..=MOST).contains(value)) {
            return wrong(key, format!("{value} is not in 1..={MOST}"));
        }
        // A joiner starts from a checkpoint that an anchor vouches for, and needs what came since.
        let least = (2 * w.checkpoint_every).max(w.checkpoint_every + w.anchor_every + 2);
        if w.keep > 0 && !(least..=MOST).contains(&w.keep) {
            return wrong("window.keep", format!("{} is not 0, and not in {least}..={MOST}", w.keep));
        }
        let closing = w.commit + w.reveal + 1 + 2 * w.record;
        if closing > w.blocks {
            let problem = format!(
                "{} are too few: commit, reveal and the turns of two leaders take {closing}",
                w.blocks
            );
            return wrong("window.blocks", problem);
        }
        let block_ms = self.chain.ledger.block_time_ms;
        if w.commit.saturating_mul(block_ms) < 1000 {
            let problem = "stores stamp whole seconds, so commitments need one at least; raise it";
            return wrong("window.commit", format!("{} blocks of {block_ms} ms: {problem}", w.commit));
        }
        self.gauntlet.check().map_err(|e| Usage(format!("gauntlet: {e}")))?;
        let rules = &self.gauntlet;
        if rules.incentive.burn > 0.0 && self.chain.ledger.owner.is_none() {
            let problem = "needs a hotkey to burn to: set chain.ledger.owner, or this to 0";
            return wrong("gauntlet.incentive.burn", problem.into());
        }
        self.chain.ledger.check().map_err(|e| Usage(e.to_string().replacen("chain.", "chain.ledger.", 1)))?;
        match &self.optimizer {
            Optimizer::Demo(demo) => {
                let layout = demo_layout(&Layout::new(&config)).map_err(|e| Usage(format!("model: {e}")))?;
                demo.check(&layout).map_err(|e| Usage(format!("optimizer: {e}")))?;
            }
            Optimizer::Adamw(_) => {
                return wrong("optimizer.scheme", "adamw needs `gauntlet train`; runs use demo".into());
            }
        }
        Ok(())
    }

    /// BLAKE3 of the canonical form: postcard of the fields in order.
    pub(crate) fn id(&self) -> Result<Digest> {
        let bytes = postcard::to_allocvec(self).context("the manifest has no canonical form")?;
        Ok(Digest::of(&bytes))
    }

    /// The model's shape, with the vocabulary of the data.
    pub(crate) fn shape(&self) -> Result<LlamaConfig> {
        let config = LlamaConfig {
            vocab_size: self.data.vocab.next_multiple_of(VOCAB_MULTIPLE),
            tokenizer_vocab_size: self.data.vocab,
            eos_token_id: Some(self.data.eos),
            ..preset(&self.model.preset)?
        };
        config.check()?;
        Ok(config)
    }
}

impl DataSection {
    /// What the manifest says of a corpus.
    pub(crate) fn of(corpus: &Corpus, seq: usize) -> Self {
        let tokenizer = &corpus.tokenizer;
        let (hash, vocab, eos) = (corpus.hash.clone(), tokenizer.vocab_size(), tokenizer.eos_id());
        Self { hash, tokenizer: tokenizer.hash_hex(), vocab, eos, seq }
    }
}

/// Replaces what `given` names.
fn fill(table: &mut toml::Table, given: &toml::Table) {
    for (key, value) in given {
        match (table.get_mut(key), value) {
            (Some(toml::Value::Table(inner)), toml::Value::Table(given)) => fill(inner, given),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The layout of θ as the optimizer crate has it.
pub(crate) fn demo_layout(layout: &Layout) -> Result<gauntlet_demo::Layout, gauntlet_demo::Error> {
    gauntlet_demo::Layout::from_shapes(layout.params().iter().map(|p| (p.name.clone(), p.shape.clone())))
}
