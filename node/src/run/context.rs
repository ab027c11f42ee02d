//! What every node of a run knows: the manifest and all that follows from it.

use std::sync::Arc;

use anyhow::{Result, bail};
use gauntlet::record::RecordLimits;
use gauntlet::{Digest, Hotkey};
use gauntlet_data::Assignment;
use gauntlet_demo::object::{HEADER, TRAILER};
use gauntlet_demo::{DemoConfig, Format, Optimizer};
use gauntlet_model::{Layout, LlamaConfig};

use super::manifest::{Manifest, demo_layout};
use crate::corpus::Corpus;
use crate::storage::Keys;

/// A run, resolved.
pub(crate) struct Run {
    pub(crate) manifest: Manifest,
    pub(crate) id: Digest,
    pub(crate) config: LlamaConfig,
    pub(crate) layout: Layout,
    pub(crate) demo: DemoConfig,
    pub(crate) format: Arc<Format>,
    pub(crate) corpus: Corpus,
    pub(crate) keys: Keys,
    /// Sequences of the training split.
    pub(crate) sequences: u64,
}

impl Run {
    /// Resolves a manifest with the text it names.
    ///
    /// # Errors
    /// When the manifest is refused, or the text is another.
    pub(crate) fn new(manifest: Manifest, corpus: Corpus) -> Result<Self> {
        manifest.check()?;
        let (data, hash) = (&manifest.data, corpus.tokenizer.hash_hex());
        let (vocab, eos) = (corpus.tokenizer.vocab_size(), corpus.tokenizer.eos_id());
        if (data.vocab, data.eos) != (vocab, eos) {
            bail!(
                "data.vocab {} and data.eos {}: {} has {vocab} and {eos}; correct the manifest",
                data.vocab,
                data.eos,
                corpus.name
            );
        }
        if data.hash != corpus.hash || data.tokenizer != hash {
            bail!(
                "{}: hash {}, tokenizer {hash}; the run's manifest says {} and {}; prepare the same data",
                corpus.name,
                corpus.hash,
                data.hash,
                data.tokenizer
            );
        }
        let Optimizer::Demo(demo) = manifest.optimizer.clone() else {
            bail!("optimizer.scheme: runs use demo");
        };
        let config = manifest.shape()?;
        let layout = Layout::new(&config);
        let parts = demo_layout(&layout)?;
        demo.check(&parts)?;
        let format = demo.format(parts)?;
        let sequences = corpus.train.n_sequences(data.seq)?;
        let id = manifest.id()?;
        Ok(Self { keys: Keys::new(&id), id, config, layout, demo, format, sequences, corpus, manifest })
    }

    /// α of the step after `steps` applied ones.
    pub(crate) fn learning_rate(&self, steps: u64) -> f32 {
        self.demo.schedule.at(steps)
    }

    /// D_p of a peer in the window that `block` opens.
    pub(crate) fn assignment(&self, block: &Digest, hotkey: &Hotkey) -> Result<Assignment> {
        Ok(Assignment::new(self.id.0, block.0, &hotkey.0, self.sequences)?)
    }

    /// Bytes no submission of this run exceeds.
    pub(crate) fn max_object(&self) -> u64 {
        (HEADER + self.format.max_payload() + TRAILER) as u64
    }

    /// How long a record's lists may be.
    pub(crate) fn record_limits(&self) -> RecordLimits {
        let selection = &self.manifest.gauntlet.selection;
        RecordLimits {
            gather: (selection.places + selection.reserve) as usize,
            object_bytes: self.max_object(),
        }
    }
}
