//! The one error type of this crate. Every message names what was wrong and what to do.

use std::path::PathBuf;

/// What can go wrong in the model crate.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A configuration value the model cannot be built from.
    #[error("model config: {field}: {problem}")]
    Config {
        /// Field name as it stands in `config.json`.
        field: &'static str,
        /// What is wrong with it and what would be right.
        problem: String,
    },
    /// No preset of this name.
    #[error("unknown preset '{name}'; known presets: {known}")]
    UnknownPreset {
        /// The name asked for.
        name: String,
        /// Comma-separated names that exist.
        known: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}; check path, permissions and free disk space", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file does not hold what its name says.
    #[error("{}: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        problem: String,
    },
    /// A tensor is missing, superfluous or of another shape.
    #[error("{}: tensor {name}: {problem}; copy or export the weights and config.json again", path.display())]
    Tensor {
        /// The file of weights, or their folder.
        path: PathBuf,
        /// Hugging Face name of the tensor.
        name: String,
        /// What is wrong with it; of shapes, both.
        problem: String,
    },
    /// A batch that does not fit the engine it was given to.
    #[error("batch: {0}")]
    Batch(String),
    /// A token id outside the model's vocabulary.
    #[error(
        "token id {id} at position {position} is outside the model's vocabulary of {vocab}; the tokenizer and the model do not belong together"
    )]
    Token {
        /// The id found.
        id: u32,
        /// Flat position in the batch.
        position: usize,
        /// Ids below this are valid.
        vocab: usize,
    },
    /// candle refused an operation.
    #[error("candle: {0}")]
    Candle(#[from] candle_core::Error),
    /// More memory than the device has free.
    #[error(
        "{:.1} GiB are needed (weights {:.1}, gradients {:.1}, optimizer {:.1}, activations {:.1}, reserve {:.1}) and the \
         device has {:.1} GiB free; choose a smaller batch, shorter sequences or a smaller model",
        gib(plan.total_bytes.saturating_add(*reserve)), gib(plan.weights_bytes), gib(plan.gradients_bytes),
        gib(plan.optimizer_bytes), gib(plan.workspace_bytes), gib(*reserve), gib(*free)
    )]
    Memory {
        /// What is needed.
        plan: crate::engine::MemoryPlan,
        /// Bytes besides the plan.
        reserve: usize,
        /// Bytes the device has free.
        free: usize,
    },
    /// A GPU refused or failed.
    #[error("GPU: {0}")]
    Gpu(#[from] gauntlet_gpu::GpuError),
    /// The thread pool could not be started.
    #[error("cannot start {threads} threads: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The system's reason.
        reason: String,
    },
}

fn gib(bytes: usize) -> f64 {
    #[allow(clippy::cast_precision_loss)] // printed with one decimal
    let bytes = bytes as f64;
    bytes / f64::from(1 << 30)
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, ModelError>;

impl ModelError {
    pub(crate) fn io(path: &std::path::Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn format(path: &std::path::Path, problem: impl std::fmt::Display) -> Self {
        Self::Format { path: path.to_path_buf(), problem: problem.to_string() }
    }

    pub(crate) fn tensor(path: &std::path::Path, name: &str, problem: impl std::fmt::Display) -> Self {
        Self::Tensor { path: path.to_path_buf(), name: name.to_string(), problem: problem.to_string() }
    }
}
