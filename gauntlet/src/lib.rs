//! Who gets paid, and why: the evaluation of peers as a pure state machine that anyone can run again.
//!
//! One window, judged by one validator, is a function (state, facts) → (state, outcome, events): see [`round`]. There is
//! no clock here, no input or output, no thread; exp and pow come from `libm`, every map is ordered, every draw is
//! seeded by public values. The same facts therefore give the same bits on every machine, and whoever keeps the facts
//! can have any payout judged again with [`replay`] and explained with [`mod@explain`].
//!
//! Sources: the Gauntlet paper (arXiv 2505.21684); `PROTOCOL` points to docs/protocol.md, `R§` to docs/reference.md. Each
//! module says which rule it holds, where it comes from, and where we differ.

pub mod bytes;
pub mod draw;
mod error;
pub mod evaluation_sample;
pub mod events;
pub mod explain;
pub mod facts;
pub mod fast_check;
pub mod history;
pub mod incentive;
pub mod loss_score;
pub mod overlap;
pub mod peer_score;
pub mod penalty;
pub mod proof_of_computation;
pub mod rating;
pub mod record;
pub mod round;
pub mod rules;
pub mod selection;
mod settings;
pub mod state;
pub mod submission;
pub mod sync_score;
pub mod yuma;

pub use bytes::{Digest, Hotkey, Signature};
pub use error::{ChainFault, Error, RecordFault};
pub use events::{Event, EventKind};
pub use explain::explain;
pub use facts::{CheckFacts, RoundFacts, WindowFacts};
pub use fast_check::{Check, FailReason};
pub use round::{Finished, Outcome, Round, replay};
pub use rules::{Profile, Rules};
pub use state::State;
