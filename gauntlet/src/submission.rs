//! What a validator reads of a peer in a window: its commitment and its object, as facts.
//!
//! The node fetches, decodes and verifies signatures; here stands only what came out, so that anyone with the same
//! facts comes to the same judgement. Times are those of the storage, compared in whole seconds (PROTOCOL section 8).

use crate::fast_check::UnknownCause;
use crate::{Digest, Hotkey};
use serde::{Deserialize, Serialize};

/// What was read of a peer's commitment at the deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Commitment {
    /// BLAKE3 of the object to come.
    InTime(Digest),
    /// There, but late.
    Late,
    /// Not there.
    Absent,
    /// Could not be read.
    Unknown(UnknownCause),
}

/// What was read of a peer's object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Object {
    /// Not there.
    Absent,
    /// Could not be read.
    Unknown(UnknownCause),
    /// There, but does not decode.
    Undecodable,
    /// There, but of another version of the protocol.
    OtherVersion,
    /// Larger than what the reader fetches.
    TooLarge,
    /// Read and decoded.
    Read(Header),
}

/// The parts of a decoded object that the check looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// BLAKE3 of the bytes read.
    pub content: Digest,
    /// Bytes.
    pub size: u64,
    /// When it was put.
    pub put: PutTime,
    /// Run it names.
    pub run: Digest,
    /// Window it names.
    pub window: u64,
    /// Hotkey it names.
    pub hotkey: Hotkey,
    /// Whether the signature verifies under that hotkey.
    pub signed: Signed,
    /// State tag it carries.
    pub state_tag: Digest,
    /// Sequences it says it was trained on.
    pub count: u32,
}

/// When an object was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PutTime {
    /// Before the reveal phase.
    Early,
    /// In the reveal phase.
    InTime,
    /// After it.
    Late,
}

/// Outcome of a signature check, done by the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signed {
    /// It verifies.
    Valid,
    /// It does not.
    Invalid,
}

/// What the check compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// This run.
    pub run: Digest,
    /// This window.
    pub window: u64,
    /// The peer whose key was read.
    pub hotkey: Hotkey,
    /// The state tag an honest submission of this peer carries.
    pub state_tag: Digest,
}

/// Where a put lies in its phase, by a storage clock that truncates to whole seconds (PROTOCOL section 8):
/// in time iff ⌊opens⌋ ≤ `modified` ≤ ⌈opens + length⌉. `opens_ms` and `length_ms` in ms, `modified` in s, chain time.
pub fn put_time(modified: u64, opens_ms: u64, length_ms: u64) -> PutTime {
    if modified < opens_ms / 1000 {
        PutTime::Early
    } else if modified > opens_ms.saturating_add(length_ms).div_ceil(1000) {
        PutTime::Late
    } else {
        PutTime::InTime
    }
}

/// Whether a commitment was put before its phase ended: iff its stamp is of an earlier second than that end,
/// `modified` < ⌊opens + length⌋. Objects can be read from the end on, so whoever writes in its second may have read what
/// others made; what honest peers put in the part of that second before the end is late too. Units as in [`put_time`].
pub fn committed_in_time(modified: u64, opens_ms: u64, length_ms: u64) -> bool {
    modified < opens_ms.saturating_add(length_ms) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_in_the_second_of_its_deadline_is_late() {
        // Opens at 10.7 s for 5 s: objects can be read from 15.7 s on.
        let at = |modified| committed_in_time(modified, 10_700, 5_000);
        assert_eq!([at(9), at(10), at(14), at(15), at(16)], [true, true, true, false, false]);
        // On whole seconds nothing is lost.
        let at = |modified| committed_in_time(modified, 10_000, 1_000);
        assert_eq!([at(10), at(11)], [true, false]);
    }

    #[test]
    fn truncated_clock_is_in_time() {
        // Opens at 10.7 s for 5 s: a put at 10.9 s is stamped 10, one at 15.6 s is stamped 15.
        let at = |modified| put_time(modified, 10_700, 5_000);
        assert_eq!(
            [at(9), at(10), at(15), at(16)],
            [PutTime::Early, PutTime::InTime, PutTime::InTime, PutTime::InTime]
        );
        assert_eq!(at(17), PutTime::Late);
    }
}
