//! How long work tells what it does; the caller draws the bar and knows the time.

/// A stage of preparing, or another long piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Words are counted for a new tokenizer.
    TrainTokenizer,
    /// Documents become shards.
    Tokenize,
    /// Shards are read and compared with their manifest.
    Verify,
    /// Shards are copied to where the parts are joined.
    Copy,
}

/// The size of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Files.
    pub inputs: u64,
    /// Bytes of these files as they are stored; 0 where the source does not say.
    pub bytes: u64,
}

/// What was done since the last call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Advance {
    /// Documents.
    pub documents: u64,
    /// Bytes of stored files, to be held against [`Totals::bytes`].
    pub input_bytes: u64,
    /// UTF-8 bytes of text.
    pub text_bytes: u64,
    /// Tokens, EOS included.
    pub tokens: u64,
}

/// Receives progress, from several threads.
pub trait Progress: Sync {
    /// A phase begins.
    fn start(&self, _phase: Phase, _totals: Totals) {}

    /// Work was done (or found done: input bytes of finished files are counted too).
    fn advance(&self, _step: Advance) {}

    /// An input is complete.
    fn input_done(&self, _name: &str) {}

    /// Asked often; true ends the work soon with [`crate::Error::Stopped`], finished files kept.
    fn stopped(&self) -> bool {
        false
    }
}

/// No progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
