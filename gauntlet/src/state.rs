//! State: what a validator remembers of each peer between windows.
//!
//! Keyed by hotkey, never by uid: a peer that soon comes back under another uid keeps its state, the next owner of a uid
//! inherits nothing (R§6.7, R§8.2 row 15). Written with every window, so a restart changes no score.
//!
//! Stored form: magic `GNTS`, version u16 little-endian, postcard payload, BLAKE3 of all before (32 bytes). Old versions
//! are read for ever ([`v1`]); a fixture of each is kept.

use crate::history::History;
use crate::rating::{Rating, RatingRules};
use crate::selection::{SELECTION_DELAY, Selection};
use crate::{Digest, Error, Hotkey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub mod v1;

/// The last window there can be: keys name a window with ten digits (PROTOCOL section 5).
pub const LAST_WINDOW: u64 = 9_999_999_999;
/// Windows after its last commitment in which a hotkey without a slot is remembered. A new hotkey costs no more than an old
/// one that starts anew, so nobody gains by being forgotten, and registering ever new ones fills no memory.
pub const FORGOTTEN_AFTER: u64 = 100;
/// The version written.
pub const STATE_VERSION: u16 = 2;
const MAGIC: &[u8; 4] = b"GNTS";
const HEAD: usize = 6;

/// The memory of one validator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The next window to judge; earlier ones are refused.
    pub next_window: u64,
    /// Every miner that is registered, and who committed in the last [`FORGOTTEN_AFTER`] windows.
    pub peers: BTreeMap<Hotkey, PeerState>,
    /// The newest selection, kept where a profile selects less often than every window.
    pub selection: Option<Selection>,
}

/// The memory of one peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerState {
    /// Window in which it was first registered.
    pub first_seen: u64,
    /// Last window with a commitment in time.
    pub last_seen: Option<u64>,
    /// Last window in which its object was looked at.
    pub last_checked: Option<u64>,
    /// Last window in which it was evaluated, or failed to be.
    pub last_evaluated: Option<u64>,
    /// Windows with a commitment in time.
    pub commitments: u64,
    /// Evaluations that gave scores.
    pub evaluations: u32,
    /// Those in which it lowered the loss on D_rand.
    pub positive: u32,
    /// Unknown windows that readable ones have not made good; see [`crate::round`].
    pub unknown_debt: u32,
    /// μ_p.
    pub proof: f64,
    /// Sequences the last submission that was looked at says it was trained on.
    pub count: u32,
    /// LossRating's μ and σ.
    pub rating: Rating,
    /// Factor of SyncScore; 1 where it pays nothing.
    pub sync: f64,
    /// Windows known to be without a commitment since the last one; unknown windows do not count.
    pub absent_streak: u64,
    /// Missing windows in a row.
    pub miss_streak: u32,
    /// Outcomes as a gather peer: missing or not.
    pub misses: History,
    /// Outcomes of evaluations: negative or not.
    pub negatives: History,
    /// Negative evaluations in a row.
    pub negative_streak: u32,
    /// Windows of ban left.
    pub banned: u32,
    /// Nothing is paid until an evaluation succeeds.
    pub red_card: bool,
}

impl PeerState {
    /// A peer first seen in `window`.
    pub fn new(rules: &RatingRules, window: u64) -> Self {
        Self {
            first_seen: window,
            last_seen: None,
            last_checked: None,
            last_evaluated: None,
            commitments: 0,
            evaluations: 0,
            positive: 0,
            unknown_debt: 0,
            proof: 0.0,
            count: 0,
            rating: Rating::new(rules),
            sync: 1.0,
            absent_streak: 0,
            miss_streak: 0,
            misses: History::default(),
            negatives: History::default(),
            negative_streak: 0,
            banned: 0,
            red_card: false,
        }
    }

    /// Whether rounds up to `next_window` can have left it so.
    fn is_sound(&self, next_window: u64) -> bool {
        let past = [Some(self.first_seen), self.last_seen, self.last_checked, self.last_evaluated];
        past.into_iter().flatten().all(|window| window < next_window)
            && self.commitments <= next_window
            && self.absent_streak <= next_window
            && u64::from(self.evaluations) <= next_window
            && self.positive <= self.evaluations
            && self.misses.is_sound()
            && self.negatives.is_sound()
            && (-1.0..=1.0).contains(&self.proof)
            && self.rating.is_sound()
            && (0.0..=1.0).contains(&self.sync)
    }

    /// Windows since the last evaluation, or since it was first seen; at least 1.
    pub fn waiting(&self, window: u64) -> u64 {
        window.saturating_sub(self.last_evaluated.unwrap_or(self.first_seen)).max(1)
    }

    /// Whether it committed in the last `recent` windows, `window` included.
    pub fn is_active(&self, window: u64, recent: u64) -> bool {
        self.last_seen.is_some_and(|seen| window.saturating_sub(seen) < recent.max(1))
    }
}

impl State {
    /// The stored form. Errors: [`Error::State`] if it cannot be encoded.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(STATE_VERSION.to_le_bytes());
        bytes.extend(postcard::to_allocvec(self).map_err(|e| Error::State { why: e.to_string() })?);
        let digest = Digest::of(&bytes);
        bytes.extend(digest.0);
        Ok(bytes)
    }

    /// Reads the stored form of this or an earlier version.
    /// Errors: [`Error::State`] for damaged bytes, [`Error::StateVersion`] for a version of the future.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let damaged = |why: &str| Error::State { why: why.to_owned() };
        let body =
            bytes.len().checked_sub(32).filter(|body| *body >= HEAD).ok_or_else(|| damaged("too short"))?;
        let (content, digest) = bytes.split_at(body);
        if !content.starts_with(MAGIC) {
            return Err(damaged("not a state"));
        }
        if Digest::of(content).0 != digest {
            return Err(damaged("hash does not match"));
        }
        let payload = &content[HEAD..];
        let decode_error = |e: postcard::Error| Error::State { why: e.to_string() };
        let (state, rest) = match u16::from_le_bytes([content[4], content[5]]) {
            1 => {
                let (old, rest) = postcard::take_from_bytes::<v1::State>(payload).map_err(decode_error)?;
                (old.into(), rest)
            }
            STATE_VERSION => postcard::take_from_bytes::<Self>(payload).map_err(decode_error)?,
            version => return Err(Error::StateVersion { version, known: STATE_VERSION }),
        };
        if !rest.is_empty() {
            return Err(damaged("bytes follow it"));
        }
        state.check()?;
        Ok(state)
    }

    /// Refuses values that no round produces, among them all that could overflow one. Errors: [`Error::State`].
    fn check(&self) -> Result<(), Error> {
        let refuse = |why: String| Err(Error::State { why });
        if self.next_window > LAST_WINDOW + 1 {
            return refuse(format!("window {} is beyond the last one", self.next_window));
        }
        let later = |s: &Selection| s.window > self.next_window.saturating_add(SELECTION_DELAY);
        if self.selection.as_ref().is_some_and(later) {
            return refuse("its selection is for a window too far on".to_owned());
        }
        match self.peers.iter().find(|(_, peer)| !peer.is_sound(self.next_window)) {
            Some((hotkey, _)) => refuse(format!("impossible values for {hotkey}")),
            None => Ok(()),
        }
    }
}
