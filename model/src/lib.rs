//! The LLaMA: definition, initialisation, weights, and the engine that trains it.
//!
//! One model, two faces: [`llama`] defines it on candle (the oracle, inference and generation), and
//! [`engine`] trains it with explicit forward and backward passes. Golden tests hold both to the
//! same numbers.

pub mod config;
pub mod engine;
mod error;
pub mod generate;
pub mod hash;
pub mod init;
pub mod layout;
pub mod llama;
pub mod presets;
pub mod schedule;
pub mod weights;

pub use config::LlamaConfig;
pub use error::{ModelError, Result};
pub use layout::Layout;
pub use presets::preset;
