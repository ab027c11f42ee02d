//! Which tokenizer a preparation uses: a given one, or one trained on the text itself.

use std::path::PathBuf;

use rayon::ThreadPool;

use crate::bpe::BpeTrainer;
use crate::error::{Error, Result};
use crate::manifest::Split;
use crate::portion::Portion;
use crate::prepare::{PrepareOptions, TOKENIZER_FILE};
use crate::progress::{Advance, Phase, Progress, Totals};
use crate::settings::Settings;
use crate::source::Source;
use crate::tokenizer::Tokenizer;
use crate::validation::HeldOut;

/// About the text a tokenizer is trained on at most unless told otherwise: counts of pairs hardly change
/// beyond. Each input ends its share with a whole portion of documents, some MiB more.
pub const TRAINING_BYTES: u64 = 256 << 20;

/// Inputs looked at, evenly spaced: a large dataset need not be downloaded whole for its vocabulary.
const TRAINING_INPUTS: usize = 64;

/// Where the tokenizer comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenizerChoice {
    /// [`Tokenizer::bytes`].
    Bytes,
    /// A `tokenizer.json`, with the name of its end-of-text token where it is not a common one.
    File {
        /// The file.
        path: PathBuf,
        /// Name of the end-of-text token.
        eos: Option<String>,
    },
    /// A byte-level BPE trained on the training split.
    Train {
        /// Tokens of the vocabulary, 257 at least.
        vocab_size: usize,
    },
}

impl TokenizerChoice {
    /// The tokenizer, and the limit of text if it was trained. `found` are the settings of an earlier run in
    /// the folder, whose trained tokenizer is taken up again.
    pub(crate) fn resolve(
        &self,
        options: &PrepareOptions,
        source: &Source,
        held_out: &HeldOut,
        found: Option<&Settings>,
        pool: &ThreadPool,
        progress: &dyn Progress,
    ) -> Result<(Tokenizer, Option<u64>)> {
        let vocab_size = match self {
            TokenizerChoice::Bytes => return Ok((Tokenizer::bytes(), None)),
            TokenizerChoice::File { path, eos } => {
                return Ok((Tokenizer::load(path, eos.as_deref())?, None));
            }
            TokenizerChoice::Train { vocab_size } => *vocab_size,
        };
        let limit = options.training_bytes;
        let path = options.out.join(TOKENIZER_FILE);
        let same = |found: &&Settings| {
            found.training_bytes == Some(limit) && found.tokenizer.vocab_size == vocab_size
        };
        if let Some(found) = found.filter(same).filter(|_| path.exists()) {
            let tokenizer = Tokenizer::load(&path, None)?;
            if tokenizer.hash_hex() == found.tokenizer.hash {
                return Ok((tokenizer, Some(limit)));
            }
        }
        let tokenizer = train(vocab_size, limit, source, held_out, pool, progress)?;
        Ok((tokenizer, Some(limit)))
    }
}

/// Trains on the training split of evenly spaced inputs, the beginning of each.
fn train(
    vocab_size: usize,
    limit: u64,
    source: &Source,
    held_out: &HeldOut,
    pool: &ThreadPool,
    progress: &dyn Progress,
) -> Result<Tokenizer> {
    let inputs: Vec<_> = source.inputs().iter().filter(|i| !held_out.matches(i.name())).collect();
    let count = inputs.len().clamp(1, TRAINING_INPUTS);
    let chosen: Vec<_> = (0..count).filter_map(|i| inputs.get(i * inputs.len() / count)).collect();
    let share = (limit / count as u64).max(1);
    let bytes = chosen.iter().map(|input| input.bytes().min(share)).sum();
    progress.start(Phase::TrainTokenizer, Totals { inputs: count as u64, bytes });

    let mut trainer = BpeTrainer::new(vocab_size)?;
    for input in chosen {
        let mut documents = source.documents(input, progress)?;
        let (mut taken, mut seen) = (0, 0);
        loop {
            if progress.stopped() {
                return Err(Error::Stopped);
            }
            let portion = Portion::read(&mut documents)?;
            let train = |text: &&String| held_out.split(input.name(), text) == Split::Train;
            let texts: Vec<&str> = portion.texts.iter().filter(train).map(String::as_str).collect();
            let text_bytes = texts.iter().map(|text| text.len() as u64).sum();
            let (read, count) = (documents.consumed(), texts.len() as u64);
            let input_bytes = read - seen;
            pool.install(|| trainer.feed(texts))?;
            progress.advance(Advance { documents: count, input_bytes, text_bytes, tokens: 0 });
            (taken, seen) = (taken + text_bytes, read);
            if portion.last || taken >= share {
                break;
            }
        }
        progress.input_done(input.name());
    }
    trainer.finish()
}
