//! Which tokenizer a preparation uses: a given one, or one trained on the text itself.

use std::path::PathBuf;

use rayon::ThreadPool;

use crate::bpe::BpeTrainer;
use crate::error::{Error, Result};
use crate::manifest::Split;
use crate::prepare::{PrepareOptions, TOKENIZER_FILE};
use crate::progress::{Advance, Phase, Progress, Totals};
use crate::settings::Settings;
use crate::source::Source;
use crate::tokenizer::Tokenizer;
use crate::validation::HeldOut;

/// Text a tokenizer is trained on at most unless told otherwise: counts of pairs hardly change beyond.
pub const TRAINING_BYTES: u64 = 256 << 20;

/// Inputs looked at, evenly spaced: a large dataset need not be downloaded whole for its vocabulary.
const TRAINING_INPUTS: usize = 64;

/// Bytes of text counted at once.
const PORTION: usize = 8 << 20;

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
        let mut documents = source.documents(input)?;
        let (mut portion, mut taken, mut seen) = (Vec::new(), 0u64, 0);
        loop {
            if progress.stopped() {
                return Err(Error::Stopped);
            }
            let document = documents.next().transpose()?;
            let last = document.is_none() || taken >= share;
            if let Some(text) = document.flatten().filter(|_| taken < share) {
                taken += text.len() as u64;
                if held_out.split(input.name(), &text) == Split::Train {
                    portion.push(text);
                }
            }
            if last || portion.iter().map(String::len).sum::<usize>() >= PORTION {
                pool.install(|| trainer.feed(portion.iter().map(String::as_str)))?;
                let read = documents.consumed();
                progress.advance(Advance {
                    documents: portion.len() as u64,
                    input_bytes: read - seen,
                    text_bytes: portion.iter().map(|text| text.len() as u64).sum(),
                    tokens: 0,
                });
                (seen, portion) = (read, Vec::new());
            }
            if last {
                break;
            }
        }
        progress.input_done(input.name());
    }
    trainer.finish()
}
