//! What every node of a run knows: the manifest and all that follows from it.

use std::sync::Arc;

use anyhow::{Result, bail};
use gauntlet::record::RecordLimits;
use gauntlet::{Digest, Hotkey};
use gauntlet_data::Assignment;
use gauntlet_demo::object::{HEADER, TRAILER};
use gauntlet_demo::{DemoConfig, Format, Optimizer};
use gauntlet_model::{Layout, LlamaConfig};

use super::manifest::{DataSection, Manifest, demo_layout};
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
        same_text(&manifest.data, &corpus)?;
        let Optimizer::Demo(demo) = manifest.optimizer.clone() else {
            bail!("optimizer.scheme: runs use demo");
        };
        let config = manifest.shape()?;
        let layout = Layout::new(&config);
        let parts = demo_layout(&layout)?;
        demo.check(&parts)?;
        let format = demo.format(parts)?;
        let sequences = corpus.train.n_sequences(manifest.data.seq)?;
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

/// Refuses a text other than the one that the manifest names.
fn same_text(data: &DataSection, corpus: &Corpus) -> Result<()> {
    let (name, tokenizer) = (&corpus.name, corpus.tokenizer.hash_hex());
    if data.tokenizer != tokenizer {
        bail!(
            "data.tokenizer: {name} has {tokenizer}, the manifest says {}; name that tokenizer with --tokenizer, or the text \
             the manifest was written for with --data",
            data.tokenizer
        );
    }
    if data.hash != corpus.hash {
        let remedy = if corpus.embedded {
            "the text embedded in a program is its own source, so every build has another: use the build that wrote the \
             manifest, name the text it was written for with --data, or write a new one with `gauntlet init`"
        } else {
            "prepare the same data"
        };
        bail!("data.hash: {name} has {}, the manifest says {}; {remedy}", corpus.hash, data.hash);
    }
    let (vocab, eos) = (corpus.tokenizer.vocab_size(), corpus.tokenizer.eos_id());
    if (data.vocab, data.eos) != (vocab, eos) {
        bail!(
            "data.vocab {} and data.eos {}: {name} has {vocab} and {eos}; correct the manifest",
            data.vocab,
            data.eos
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::corpus::DataArgs;

    #[test]
    fn another_text_is_refused_with_what_to_do() {
        let embedded = DataArgs::default().open(Path::new(""), 1, 32).unwrap();
        let right = DataSection::of(&embedded, 32);
        same_text(&right, &embedded).unwrap();
        let other = Digest([1; 32]).to_string();
        let prepared = |corpus: Corpus| Corpus { embedded: false, ..corpus };
        let refused = |data: &DataSection, corpus: &Corpus| same_text(data, corpus).unwrap_err().to_string();
        let hash = DataSection { hash: other.clone(), ..right.clone() };
        let said = refused(&hash, &embedded);
        assert!(said.starts_with("data.hash: ") && said.contains("use the build that wrote"), "{said}");
        let said = refused(&DataSection { tokenizer: other, ..hash.clone() }, &embedded);
        assert!(said.starts_with("data.tokenizer: ") && said.contains("--tokenizer"), "{said}");
        let said = refused(&DataSection { eos: 1, ..right.clone() }, &embedded);
        assert!(said.starts_with("data.vocab 257 and data.eos 1: "), "{said}");
        let said = refused(&hash, &prepared(embedded));
        assert!(said.starts_with("data.hash: ") && said.ends_with("prepare the same data"), "{said}");
    }
}
