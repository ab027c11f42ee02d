//! Fast evaluation: is there a submission, in time, whole, and made on the common state? (paper; R§3.1; PROTOCOL 7.1)
//!
//! In order: commitment in time; object there, not above what the reader fetches, decodes; put in its window, within
//! the size limit, equal to its commitment, run, window and hotkey right, signature, state tag equal, count ≥
//! `min_sequences`. The first that fails is the reason: an object that does not decode shows nothing else. Copies are judged over all peers of the window, in [`crate::overlap`].
//! *Unknown is not failure*: a time-out, a broken connection, 429 and 5xx say nothing about the peer (R§8.2 row 13).
//! Where we differ from the reference: it estimated desynchronisation from published values at fixed positions; the
//! state tag is exact and cannot be copied, so it is a check and not a score (PROTOCOL sections 3 and 5).

use crate::Hotkey;
use crate::settings::settings;
use crate::submission::{Commitment, Expected, Object, PutTime, Signed};
use serde::{Deserialize, Serialize};

settings! {
    /// Constants of the fast evaluation.
    FastRules, FastPatch {
        /// Least number of sequences a submission must say it was trained on.
        min_sequences: u32 = 1, 1;
        /// Largest object in bytes; 0 leaves the limit to the codec.
        max_bytes: u64 = 0, 0;
        /// Peers outside the gather set checked a window, in rotation.
        sample: u32 = 10, 10;
        /// From so many unknown windows on they count as missing; each readable window makes one good (PROTOCOL 7.1).
        unknown_limit: u32 = 3, 3;
        /// Windows without a commitment after which a peer is no longer active (R§1.2, R§3.5.10).
        recent_windows: u64 = 5, 2;
    }
}

/// Why a submission fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailReason {
    /// No commitment was seen before the deadline.
    NoCommitment,
    /// The commitment came after the deadline.
    LateCommitment,
    /// There is no object under the derived key.
    Absent,
    /// Too many windows in which nothing could be read, while others could.
    Unreachable,
    /// The object was put before the reveal phase.
    TooEarly,
    /// The object was put after the put window.
    TooLate,
    /// The object is larger than the run allows.
    TooLarge,
    /// The object does not decode, or not to the same bytes.
    Undecodable,
    /// The object is of another version of the protocol.
    OtherVersion,
    /// The object is not the one committed to.
    CommitmentMismatch,
    /// The object belongs to another run.
    WrongRun,
    /// The object belongs to another window.
    WrongWindow,
    /// The object names another hotkey.
    WrongHotkey,
    /// The signature does not verify.
    BadSignature,
    /// The state tag differs: trained on another θ.
    WrongState,
    /// Fewer sequences than the run asks for.
    TooFewSequences,
    /// The object repeats another peer's of this window.
    Copy {
        /// The peer that counts.
        of: Hotkey,
    },
    /// The object repeats one accepted earlier.
    Replay {
        /// Whose object it was.
        of: Hotkey,
        /// The window of that object.
        window: u64,
    },
    /// A loss after the trial step is not finite.
    NotFinite,
    /// SyncScore above the limit (profile `reference-2026` only).
    Behind,
}

impl FailReason {
    /// Nothing usable was there, as against something wrong.
    pub fn is_missing(self) -> bool {
        use FailReason::*;
        matches!(self, NoCommitment | LateCommitment | Absent | Unreachable | TooEarly | TooLate)
    }
}

/// Why nothing is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownCause {
    /// A deadline of the reader passed.
    TimeOut,
    /// No connection, or it broke.
    Connection,
    /// 429.
    RateLimited,
    /// 5xx.
    ServerError,
}

/// The result of a fast check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// All is well; the number of sequences it says it was trained on.
    Passed {
        /// Sequences.
        count: u32,
    },
    /// It fails.
    Failed(FailReason),
    /// Nothing is known.
    Unknown(UnknownCause),
}

/// Judges one submission. The first rule that fails gives the reason.
pub fn check(rules: &FastRules, expected: &Expected, commitment: Commitment, object: &Object) -> Check {
    let committed = match commitment {
        Commitment::InTime(digest) => digest,
        Commitment::Late => return Check::Failed(FailReason::LateCommitment),
        Commitment::Absent => return Check::Failed(FailReason::NoCommitment),
        Commitment::Unknown(cause) => return Check::Unknown(cause),
    };
    let header = match object {
        Object::Absent => return Check::Failed(FailReason::Absent),
        Object::Unknown(cause) => return Check::Unknown(*cause),
        Object::Undecodable => return Check::Failed(FailReason::Undecodable),
        Object::OtherVersion => return Check::Failed(FailReason::OtherVersion),
        Object::TooLarge => return Check::Failed(FailReason::TooLarge),
        Object::Read(header) => header,
    };
    let failures = [
        (header.put == PutTime::Early, FailReason::TooEarly),
        (header.put == PutTime::Late, FailReason::TooLate),
        (rules.max_bytes > 0 && header.size > rules.max_bytes, FailReason::TooLarge),
        (header.content != committed, FailReason::CommitmentMismatch),
        (header.run != expected.run, FailReason::WrongRun),
        (header.window != expected.window, FailReason::WrongWindow),
        (header.hotkey != expected.hotkey, FailReason::WrongHotkey),
        (header.signed == Signed::Invalid, FailReason::BadSignature),
        (header.state_tag != expected.state_tag, FailReason::WrongState),
        (header.count < rules.min_sequences, FailReason::TooFewSequences),
    ];
    match failures.iter().find(|(failed, _)| *failed) {
        Some((_, reason)) => Check::Failed(*reason),
        None => Check::Passed { count: header.count },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Digest;
    use crate::rules::Profile;
    use crate::submission::Header;

    const EXPECTED: Expected =
        Expected { run: Digest([1; 32]), window: 7, hotkey: Hotkey([2; 32]), state_tag: Digest([3; 32]) };

    fn header() -> Header {
        Header {
            content: Digest([4; 32]),
            size: 100,
            put: PutTime::InTime,
            run: EXPECTED.run,
            window: 7,
            hotkey: EXPECTED.hotkey,
            signed: Signed::Valid,
            state_tag: EXPECTED.state_tag,
            count: 8,
        }
    }

    fn judge(commitment: Commitment, object: Object) -> Check {
        let rules = FastRules { min_sequences: 4, max_bytes: 1000, ..FastRules::of(Profile::Paper) };
        check(&rules, &EXPECTED, commitment, &object)
    }

    #[test]
    fn every_reason_has_its_own_check() {
        use FailReason::*;
        let other = Digest([9; 32]);
        let cases = [
            (Header { put: PutTime::Early, ..header() }, TooEarly),
            (Header { put: PutTime::Late, ..header() }, TooLate),
            (Header { size: 1001, ..header() }, TooLarge),
            (Header { content: other, ..header() }, CommitmentMismatch),
            (Header { run: other, ..header() }, WrongRun),
            (Header { window: 8, ..header() }, WrongWindow),
            (Header { hotkey: Hotkey([9; 32]), ..header() }, WrongHotkey),
            (Header { signed: Signed::Invalid, ..header() }, BadSignature),
            (Header { state_tag: other, ..header() }, WrongState),
            (Header { count: 3, ..header() }, TooFewSequences),
        ];
        let committed = Commitment::InTime(header().content);
        for (bad, reason) in cases {
            assert_eq!(judge(committed, Object::Read(bad)), Check::Failed(reason));
        }
        assert_eq!(judge(committed, Object::Absent), Check::Failed(Absent));
        assert_eq!(judge(committed, Object::Undecodable), Check::Failed(Undecodable));
        assert_eq!(judge(committed, Object::OtherVersion), Check::Failed(OtherVersion));
        assert_eq!(judge(committed, Object::TooLarge), Check::Failed(TooLarge));
        assert_eq!(judge(Commitment::Absent, Object::Read(header())), Check::Failed(NoCommitment));
        assert_eq!(judge(Commitment::Late, Object::Read(header())), Check::Failed(LateCommitment));
        assert_eq!(judge(committed, Object::Read(header())), Check::Passed { count: 8 });
    }

    #[test]
    fn the_first_rule_that_fails_is_the_reason() {
        use FailReason::*;
        let other = Digest([9; 32]);
        let committed = Commitment::InTime(header().content);
        let mut bad = header();
        // Spoiled from the last rule to the first, each comes before those already broken.
        type Spoil = fn(&mut Header, Digest);
        let spoils: [(Spoil, FailReason); 9] = [
            (|h, _| h.count = 3, TooFewSequences),
            (|h, other| h.state_tag = other, WrongState),
            (|h, _| h.signed = Signed::Invalid, BadSignature),
            (|h, _| h.hotkey = Hotkey([9; 32]), WrongHotkey),
            (|h, _| h.window = 8, WrongWindow),
            (|h, other| h.run = other, WrongRun),
            (|h, other| h.content = other, CommitmentMismatch),
            (|h, _| h.size = 1001, TooLarge),
            (|h, _| h.put = PutTime::Late, TooLate),
        ];
        for (spoil, reason) in spoils {
            spoil(&mut bad, other);
            assert_eq!(judge(committed, Object::Read(bad)), Check::Failed(reason));
        }
        assert_eq!(judge(Commitment::Late, Object::TooLarge), Check::Failed(LateCommitment));
        assert_eq!(judge(Commitment::Absent, Object::Read(bad)), Check::Failed(NoCommitment));
    }

    #[test]
    fn unknown_is_not_failure() {
        use UnknownCause::*;
        for cause in [TimeOut, Connection, RateLimited, ServerError] {
            let committed = Commitment::InTime(header().content);
            assert_eq!(judge(committed, Object::Unknown(cause)), Check::Unknown(cause));
            assert_eq!(judge(Commitment::Unknown(cause), Object::Absent), Check::Unknown(cause));
        }
    }
}
