//! Loss on held-out text.

use std::f64::consts::LN_2;

use anyhow::Result;
use gauntlet_data::{Dataset, Tokenizer, fill_sequences};
use gauntlet_model::engine::{Backend, Batch, Engine, LossSum};

use crate::progress;

/// Losses and the text they are losses of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    /// In nats, of every predicted token.
    pub(crate) loss: LossSum,
    /// UTF-8 bytes that the predicted tokens stand for ([`Tokenizer::text_bytes`]).
    pub(crate) bytes: u64,
}

impl Measured {
    /// Bits a byte of exactly the text that was measured.
    pub(crate) fn bits_per_byte(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)] // a number of bytes
        let bytes = self.bytes as f64;
        self.loss.sum / (LN_2 * bytes)
    }
}

/// Measures θ on the first `most` sequences of `data`, in batches of `batch` × `seq` tokens; `tick` hears how many are
/// done. `None` where Ctrl-C breaks it off.
///
/// # Errors
/// When `data` has not one sequence or cannot be read; those of the engine.
pub(crate) fn measure<B: Backend>(
    engine: &mut Engine<B>,
    theta: &B::Buf,
    (data, tokenizer): (&Dataset, &Tokenizer),
    (batch, seq): (usize, usize),
    most: u64,
    mut tick: impl FnMut(u64),
) -> Result<Option<Measured>> {
    let ids: Vec<u64> = (0..data.n_sequences(seq)?.min(most)).collect();
    let mut measured = Measured::default();
    for ids in ids.chunks(batch) {
        if progress::stopped() {
            return Ok(None);
        }
        let rows = ids.len() * seq;
        let (mut tokens, mut targets) = (vec![0; rows], vec![0; rows]);
        fill_sequences(data, ids, seq, &mut tokens, &mut targets)?;
        let batch = Batch { tokens: &tokens, targets: &targets, batch: ids.len(), seq };
        measured.loss += engine.loss(theta, batch)?;
        // By sequence, so that the result does not depend on the batch.
        for targets in targets.chunks(seq) {
            measured.bytes += tokenizer.text_bytes(targets)?;
        }
        tick(ids.len() as u64);
    }
    Ok(Some(measured))
}

/// Nats a token into bits a byte, by the mean length of a token in all of `data`.
pub(crate) fn bits_per_byte(loss: f64, data: &Dataset) -> f64 {
    loss / (LN_2 * data.bytes_per_token())
}
