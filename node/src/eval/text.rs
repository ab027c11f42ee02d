//! The text a model is measured on, in the model's own tokens.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use gauntlet_data::{Dataset, PrepareOptions, Split, Tokenizer, TokenizerChoice, Validation, prepare};
use tempfile::TempDir;

use crate::cli::Usage;
use crate::corpus::{Corpus, embedded_with, is_prepared, open_prepared, source_options};
use crate::progress;

/// One split of a corpus.
pub(crate) struct Text {
    pub(crate) split: Split,
    pub(crate) data: Arc<Dataset>,
    /// In words.
    pub(crate) name: String,
    /// Hash of the corpus.
    pub(crate) hash: String,
    /// Raw text is prepared for the one measurement.
    _prepared: Option<TempDir>,
}

impl Text {
    /// Opens `split` of `location` (none: the embedded corpus); without a split the validation split, or
    /// all of a corpus that has none. Raw text is tokenized by `tokenizer`; prepared text must have been.
    pub(crate) fn open(
        location: Option<&str>,
        field: Option<&str>,
        split: Option<Split>,
        tokenizer: &Tokenizer,
    ) -> Result<Self> {
        let Some(location) = location else {
            return Self::of(embedded_with(tokenizer.clone())?, split, None);
        };
        let path = Path::new(location);
        if is_prepared(path) {
            if field.is_some() {
                let problem = format!("--field was settled when {location} was prepared; leave it out");
                return Err(Usage(problem).into());
            }
            let corpus = open_prepared(path)?;
            corpus.train.check_tokenizer(tokenizer).context("the model does not belong to this data")?;
            return Self::of(corpus, split, None);
        }
        let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
        let out = folder.path().join("data");
        let options = PrepareOptions {
            source: source_options(field),
            tokenizer: choice(tokenizer, folder.path())?,
            validation: Validation::None,
            ..PrepareOptions::new(Some(location.to_owned()), out.clone())
        };
        let bar = progress::Preparing::new();
        let prepared = prepare(&options, &bar);
        bar.finish();
        prepared.with_context(|| format!("cannot read {location}"))?;
        let corpus = Corpus { name: location.to_owned(), ..open_prepared(&out)? };
        Self::of(corpus, split, Some(folder))
    }

    fn of(corpus: Corpus, split: Option<Split>, prepared: Option<TempDir>) -> Result<Self> {
        let Corpus { train, validation, name, hash, .. } = corpus;
        let (split, data) = match (split, validation) {
            (None | Some(Split::Validation), Some(validation)) => (Split::Validation, Arc::new(validation)),
            (None | Some(Split::Train), _) => (Split::Train, train),
            (Some(Split::Validation), None) => bail!("{name}: has no validation split; use --split train"),
        };
        Ok(Self { split, data, name, hash, _prepared: prepared })
    }
}

/// The tokenizer as preparing takes it.
fn choice(tokenizer: &Tokenizer, folder: &Path) -> Result<TokenizerChoice> {
    if tokenizer.is_bytes() {
        return Ok(TokenizerChoice::Bytes);
    }
    let path: PathBuf = folder.join("tokenizer.json");
    tokenizer.save(&path)?;
    Ok(TokenizerChoice::File { path, eos: tokenizer.eos_name() })
}
