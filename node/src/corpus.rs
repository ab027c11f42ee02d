//! The text a command works on: the embedded corpus, a prepared folder, or raw text prepared on the way.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use gauntlet_data::{
    Dataset, HubOptions, Input, MANIFEST_FILE, Manifest, PrepareOptions, SourceOptions, Split, Tokenizer,
    TokenizerChoice, Validation, embedded, prepare,
};
use serde::{Deserialize, Serialize};

use crate::cli::Usage;
use crate::progress;

/// Where text comes from and how it is read.
#[derive(Args, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct DataArgs {
    /// Text file or folder, prepared folder, or hf:owner/name[@revision][:path]; none: the embedded corpus.
    #[arg(long, value_name = "PATH")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<String>,
    /// JSONL field or Parquet column that holds the text [default: text].
    #[arg(long, value_name = "NAME")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) field: Option<String>,
    /// tokenizer.json to use for raw text, or 'bytes' [default: bytes].
    #[arg(long, value_name = "FILE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tokenizer: Option<String>,
    /// Name of the tokenizer's end-of-text token, if it has an unusual one.
    #[arg(long, value_name = "TOKEN")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) eos: Option<String>,
    /// Hold out the raw files that match this glob.
    #[arg(long, value_name = "GLOB", conflicts_with = "validation_fraction")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) validation: Option<String>,
    /// Hold out this share of the raw documents.
    #[arg(long, value_name = "SHARE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) validation_fraction: Option<f64>,
}

/// Tokens to train on and tokens to measure on.
pub(crate) struct Corpus {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) train: Arc<Dataset>,
    pub(crate) validation: Option<Dataset>,
    /// In words.
    pub(crate) name: String,
    /// What is held out, in words.
    pub(crate) held_out: String,
    /// Where the text came from, without the folder it was prepared in.
    pub(crate) source: String,
    /// Equal hashes: equal tokens.
    pub(crate) hash: String,
    /// Whether it is the text inside this program, which differs from build to build.
    pub(crate) embedded: bool,
}

impl DataArgs {
    /// Opens the corpus for sequences of `seq` tokens, of which each split has at least one. Raw text is prepared
    /// under `work` first, and found there the next time.
    pub(crate) fn open(&self, work: &Path, threads: usize, seq: usize) -> Result<Corpus> {
        let Some(location) = &self.data else { return self.embedded()?.with_sequences_of(seq) };
        let path = Path::new(location);
        let Some(out) = self.prepared_in(work) else {
            self.refuse_raw_flags(location)?;
            return open_prepared(path)?.with_sequences_of(seq);
        };
        let options = PrepareOptions {
            source: source_options(self.field.as_deref()),
            tokenizer: self.tokenizer_choice(),
            validation: self.validation(path, seq)?,
            threads,
            ..PrepareOptions::new(Some(location.clone()), out)
        };
        let (new, new_work) = (!options.out.exists(), !work.exists());
        let bar = progress::Preparing::new();
        let prepared = prepare(&options, &bar).with_context(|| format!("cannot prepare {location}"));
        bar.finish();
        let opened = prepared.and_then(|_| {
            let opened = open_prepared(&options.out)?.with_sequences_of(seq);
            opened.inspect_err(|_| {
                if new {
                    // No run begins with it, and other settings could not go on in the same folder.
                    let _ = std::fs::remove_dir_all(&options.out);
                }
            })
        });
        opened.inspect_err(|_| {
            if new_work {
                // Succeeds only where nothing is left in it.
                let _ = std::fs::remove_dir(work);
            }
        })
    }

    /// These with what was typed put over them, flag by flag.
    pub(crate) fn overridden(self, typed: &Self) -> Self {
        let over = |file: Option<String>, typed: &Option<String>| typed.clone().or(file);
        // There is one rule for what is held out.
        let (validation, validation_fraction) = match (&typed.validation, typed.validation_fraction) {
            (None, None) => (self.validation, self.validation_fraction),
            (glob, share) => (glob.clone(), share),
        };
        Self {
            data: over(self.data, &typed.data),
            field: over(self.field, &typed.field),
            tokenizer: over(self.tokenizer, &typed.tokenizer),
            eos: over(self.eos, &typed.eos),
            validation,
            validation_fraction,
        }
    }

    /// The folder in which [`Self::open`] prepares the text; none where it is prepared already, or embedded.
    pub(crate) fn prepared_in(&self, work: &Path) -> Option<PathBuf> {
        let raw = self.data.as_ref().filter(|location| !is_prepared(Path::new(location)));
        raw.map(|_| work.join("data"))
    }

    /// The tokenizer that a run on this would use, as far as that is known without preparing: none where neither text
    /// nor tokenizer is named.
    pub(crate) fn planned_tokenizer(&self) -> Result<Option<Tokenizer>> {
        if let Some(location) = &self.data {
            let path = Path::new(location);
            if is_prepared(path) {
                self.refuse_raw_flags(location)?;
                return Ok(Some(Tokenizer::of_folder(path)?));
            }
            return self.named_tokenizer().map(Some);
        }
        self.tokenizer.is_some().then(|| self.named_tokenizer()).transpose()
    }

    fn named_tokenizer(&self) -> Result<Tokenizer> {
        Ok(match self.tokenizer.as_deref() {
            None | Some("bytes") => Tokenizer::bytes(),
            Some(file) => Tokenizer::load(Path::new(file), self.eos.as_deref())?,
        })
    }

    fn embedded(&self) -> Result<Corpus> {
        if self.field.is_some() || self.validation.is_some() || self.validation_fraction.is_some() {
            let problem = "--field, --validation and --validation-fraction need --data with raw text";
            return Err(Usage(problem.into()).into());
        }
        embedded_with(self.named_tokenizer()?)
    }

    fn tokenizer_choice(&self) -> TokenizerChoice {
        match self.tokenizer.as_deref() {
            None | Some("bytes") => TokenizerChoice::Bytes,
            Some(file) => TokenizerChoice::File { path: PathBuf::from(file), eos: self.eos.clone() },
        }
    }

    /// What is held out: as asked; else the last file of a folder that is long enough for a sequence of `seq` tokens
    /// and leaves as much; else nothing.
    fn validation(&self, path: &Path, seq: usize) -> Result<Validation> {
        if let Some(glob) = &self.validation {
            return Ok(Validation::Files(glob.clone()));
        }
        if let Some(share) = self.validation_fraction {
            return Ok(Validation::Fraction(share));
        }
        let location = path.display().to_string();
        if location.starts_with("hf:") {
            return Ok(Validation::Fraction(0.001));
        }
        let source = gauntlet_data::Source::open(&location, &source_options(self.field.as_deref()))?;
        let bytes_per_token = match self.tokenizer_choice() {
            TokenizerChoice::Bytes => 1,
            // More than tokens of any usual vocabulary have.
            _ => 8,
        };
        let (needed, inputs) = ((seq as u64).saturating_mul(bytes_per_token), source.inputs());
        let total: u64 = inputs.iter().map(Input::bytes).sum();
        let fits = |input: &&Input| needed <= input.bytes() && needed <= total - input.bytes();
        let last = inputs.iter().rev().find(fits);
        Ok(last.map_or(Validation::None, |input| Validation::Files(literal(input.name()))))
    }

    fn refuse_raw_flags(&self, location: &str) -> Result<()> {
        let given = [
            ("--field", self.field.is_some()),
            ("--tokenizer", self.tokenizer.is_some()),
            ("--eos", self.eos.is_some()),
            ("--validation", self.validation.is_some()),
            ("--validation-fraction", self.validation_fraction.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((flag, _)) => {
                Err(Usage(format!("{flag} was settled when {location} was prepared; leave it out")).into())
            }
        }
    }
}

impl Corpus {
    /// Refuses text of which a split has not one sequence of `seq` tokens.
    fn with_sequences_of(self, seq: usize) -> Result<Self> {
        let too_short = |data: &Dataset| data.n_tokens() <= seq as u64;
        let problem = |split: &str, data: &Dataset| {
            let (name, has) = (&self.name, data.n_tokens());
            format!(
                "{name}: the {split} has {has} tokens, a sequence of {seq} takes {}",
                seq.saturating_add(1)
            )
        };
        if too_short(&self.train) {
            bail!("{}; lower --seq or give more text", problem("training split", &self.train));
        }
        if let Some(held_out) = self.validation.as_ref().filter(|data| too_short(data)) {
            let split = format!("validation split ({})", self.held_out);
            let remedy = "lower --seq, or hold out more with --validation or --validation-fraction";
            bail!("{}; {remedy}", problem(&split, held_out));
        }
        Ok(self)
    }
}

/// The embedded corpus, tokenized.
pub(crate) fn embedded_with(tokenizer: Tokenizer) -> Result<Corpus> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&embedded::hash()).update(&tokenizer.hash());
    Ok(Corpus {
        train: Arc::new(Dataset::embedded(&tokenizer, Split::Train)?),
        validation: Some(Dataset::embedded(&tokenizer, Split::Validation)?),
        name: format!("embedded corpus {}", &embedded::hash_hex()[..16]),
        source: format!("embedded corpus {}", &embedded::hash_hex()[..16]),
        held_out: "every tenth file".into(),
        hash: hasher.finalize().to_hex().to_string(),
        embedded: true,
        tokenizer,
    })
}

/// A glob that matches exactly this name.
fn literal(name: &str) -> String {
    let special = |c| "*?[]{}!\\".contains(c);
    name.chars().map(|c| if special(c) { format!("[{c}]") } else { c.to_string() }).collect()
}

/// How to read raw text, with the Hub settings of the environment (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`).
pub(crate) fn source_options(field: Option<&str>) -> SourceOptions {
    let mut options = SourceOptions::default();
    if let Some(field) = field {
        options.field = field.to_owned();
    }
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let defaults = HubOptions::default();
    options.hub = HubOptions {
        endpoint: variable("HF_ENDPOINT").unwrap_or(defaults.endpoint),
        token: variable("HF_TOKEN"),
        cache: variable("HF_HOME").map_or(defaults.cache, |home| PathBuf::from(home).join("hub")),
        patience: defaults.patience,
    };
    options
}

/// Whether a folder was written by `gauntlet data prepare` (other tools write a `manifest.json` too).
pub(crate) fn is_prepared(path: &Path) -> bool {
    let Ok(bytes) = std::fs::read(path.join(MANIFEST_FILE)) else { return false };
    match serde_json::from_slice::<serde_json::Value>(&bytes) {
        Ok(value) => value.get("tokenizer").is_some() && value.get("splits").is_some(),
        // Damaged, and ours by what lies beside it: opening it says what is wrong.
        Err(_) => path.join("settings.json").exists(),
    }
}

/// Bytes of shards that are read and hashed before anything else is done: a second's work. Shards of larger data are
/// hashed one by one, when their first token is read.
const CHECKED_AT_ONCE: u64 = 1 << 30;

/// Opens a folder written by `gauntlet data prepare`; its shards are what its manifest says.
pub(crate) fn open_prepared(folder: &Path) -> Result<Corpus> {
    let manifest = Manifest::read(folder)?;
    let has_validation = manifest.splits.contains_key(&Split::Validation);
    let tokenizer = Tokenizer::of_folder(folder)?;
    let train = Dataset::open(folder, Split::Train)?;
    if train.n_tokens() == 0 {
        bail!("{}: the training split is empty", folder.display());
    }
    let validation = has_validation.then(|| Dataset::open(folder, Split::Validation)).transpose()?;
    let stored = train.stored_bytes() + validation.as_ref().map_or(0, Dataset::stored_bytes);
    if stored <= CHECKED_AT_ONCE {
        train.check_shards()?;
        validation.as_ref().map_or(Ok(()), Dataset::check_shards)?;
    }
    Ok(Corpus {
        train: Arc::new(train),
        validation,
        name: format!("{} ({})", folder.display(), manifest.source),
        source: manifest.source.clone(),
        held_out: manifest.validation.clone(),
        hash: blake3::Hash::from(manifest.data_hash()).to_hex().to_string(),
        embedded: false,
        tokenizer,
    })
}
