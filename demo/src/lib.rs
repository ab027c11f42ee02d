//! DeMo: gradients to compressed submissions, and any set of submissions to the same model on every machine.
//!
//! ```text
//! gradient ─ Momentum::step ─▶ Submission ─ encode, object::seal ─▶ bytes
//! bytes ─ object::open, Submission::decode ─▶ Submission ─ Aggregate::add ─▶ outer_step::apply ─▶ θ
//! ```
//!
//! θ is one flat f32 buffer; a [`Layout`] names its tensors. What leaves this crate as bytes and what it does to θ is
//! defined to the bit: integers on the wire and in the sums, one fixed chain of fused multiply-adds in the decode.
//!
//! ```
//! use gauntlet_demo::{outer_step, *};
//! use std::sync::Arc;
//!
//! let layout = Layout::from_shapes([("w", vec![128, 64]), ("norm", vec![64])])?;
//! let config = DemoConfig { min_gather: 1, ..DemoConfig::default() };
//! let format = config.format(layout)?;
//! let mut momentum = config.momentum(Arc::clone(&format))?;
//! let grads: Vec<f32> = (0..format.layout().len()).map(|i| (i * 37 % 101) as f32 - 50.0).collect();
//!
//! let sent = momentum.step(&grads, 4e-4)?;
//! let received = Submission::decode(&format, &sent.encode())?;
//! assert_eq!(received, sent);
//!
//! let mut theta = vec![0.0; grads.len()];
//! let mut gather = Aggregate::new(format, config.strength_cap);
//! gather.add([1; 32], &received)?;
//! let step = OuterStep { lr: 4e-4, weight_decay: 0.0, min_gather: 1 };
//! assert_eq!(outer_step::apply(&mut theta, &gather, &step)?, Applied::Stepped);
//! # Ok::<(), Error>(())
//! ```

pub mod aggregate;
pub mod bench;
pub mod chunk;
pub mod codebook;
pub mod config;
pub mod dct;
pub mod dense;
pub mod error;
pub mod format;
pub mod golden;
pub mod gpu;
pub mod inspect;
mod inverse;
mod kernel;
mod lanes;
pub mod layout;
pub mod momentum;
pub mod object;
pub mod outer_step;
pub mod payload;
pub mod reference;
pub mod rice;
pub mod schedule;
pub mod scheme;
pub mod simd;
pub mod size;
pub mod state;
pub mod submission;
pub mod synthetic;
pub mod topk;

pub use aggregate::{Aggregate, MAX_PEERS, StrengthCap};
pub use codebook::Codebook;
pub use config::{DemoConfig, Optimizer};
pub use dense::{AdamW, Dense};
pub use error::{Error, Result};
pub use format::Format;
pub use layout::{Layout, TensorSpec};
pub use momentum::{Momentum, Pending, Recorded, Subtract};
pub use outer_step::{Applied, OuterStep};
pub use schedule::Schedule;
pub use scheme::{Demo, Outer, Payload, Scheme, Worker};
pub use state::{state_tag, tag_of, tag_positions, theta_hash};
pub use submission::{Submission, Values};
