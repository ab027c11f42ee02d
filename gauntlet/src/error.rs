//! The errors of this crate. Each says what was wrong, and with what.

use crate::{Digest, Hotkey};

/// What can go wrong here; all of it concerns data from outside.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Text that is not the hex form of so many bytes.
    #[error("expected {len} bytes in hex, got {text:?}")]
    Hex {
        /// Bytes expected.
        len: usize,
        /// The text.
        text: String,
    },
    /// A rule with a value that means nothing.
    #[error("gauntlet.{field} must be {want}; change it in the manifest")]
    Rule {
        /// The field, as in the manifest.
        field: &'static str,
        /// What is allowed.
        want: String,
    },
    /// Stored state that cannot be used.
    #[error("the stored state cannot be used: {why}; restore an earlier one and replay the windows since")]
    State {
        /// What is wrong.
        why: String,
    },
    /// Stored state of a later version.
    #[error("the stored state has version {version}, this build knows up to {known}; use a newer build")]
    StateVersion {
        /// Its version.
        version: u16,
        /// The newest known here.
        known: u16,
    },
    /// A window that was judged already.
    #[error("window {window} was judged before; the next one is {next}")]
    WindowJudged {
        /// The window of the facts.
        window: u64,
        /// The next one to judge.
        next: u64,
    },
    /// A window beyond the last one that a key can name.
    #[error("window {window} is beyond the last one, {last}")]
    WindowLimit {
        /// The window.
        window: u64,
        /// The last one there can be.
        last: u64,
    },
    /// Losses on D_rand before the trial step that differ between peers of a window.
    #[error("{hotkey} was measured from another loss on D_rand than the others: it is one value a window")]
    RandomLoss {
        /// The first peer that differs.
        hotkey: Hotkey,
    },
    /// Too few sequences outside every assigned set to measure a LossScore on.
    #[error("only {got} sequences are free for D_rand, at least {need} needed; use more data or fewer peers")]
    RandomData {
        /// Sequences found.
        got: usize,
        /// Needed.
        need: usize,
    },
    /// A step of a round out of its order.
    #[error("a round goes fast, primary, finish; {step} does not come here")]
    RoundOrder {
        /// The step that was called.
        step: &'static str,
    },
    /// Losses of a peer that was not drawn.
    #[error("{hotkey} was not drawn for evaluation in window {window}")]
    NotDrawn {
        /// The peer.
        hotkey: Hotkey,
        /// The window.
        window: u64,
    },
    /// A record, an agreement or a proof that does not hold.
    #[error("record of window {window} is not valid: {fault}")]
    Record {
        /// Its window.
        window: u64,
        /// What is wrong.
        fault: RecordFault,
    },
    /// Bytes that are not a record.
    #[error("these bytes are not a record: {why}")]
    RecordBytes {
        /// What is wrong.
        why: String,
    },
    /// A call that the chain rules refuse.
    #[error("refused: {0}")]
    Chain(#[from] ChainFault),
}

/// Why a record does not hold (PROTOCOL section 6.0).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// Another protocol version.
    #[error("protocol version {0}")]
    Protocol(u16),
    /// Another run.
    #[error("it belongs to run {0}")]
    Run(Digest),
    /// Not the window that comes next.
    #[error("the next window is {next}")]
    Window {
        /// The one expected.
        next: u64,
    },
    /// It does not extend the record before.
    #[error("it extends {0}, not the record before")]
    Previous(Digest),
    /// The leader saw another θ: this node or the leader is out of step.
    #[error("its θ hash {0} is not ours")]
    State(Digest),
    /// The signature does not verify.
    #[error("the signature of {0} does not verify")]
    Signature(Hotkey),
    /// It was not this validator's turn.
    #[error("{0} does not lead at that time")]
    Leader(Hotkey),
    /// It was barred by a proof of equivocation.
    #[error("{0} signed two records for one window and leads no more")]
    Barred(Hotkey),
    /// The chain holds the hash of another record for this window.
    #[error("the record anchored for this window is {0}")]
    Anchored(Digest),
    /// A list that is not ascending and free of repeats.
    #[error("{0} is not ascending")]
    Order(&'static str),
    /// A list that is longer than the run allows.
    #[error("{0} is too long")]
    Length(&'static str),
    /// It says that it was published in a block that is not there yet.
    #[error("block {0} is not there yet")]
    Published(u64),
    /// A commitment or a selected peer that is not registered.
    #[error("{0} is not registered")]
    NotRegistered(Hotkey),
    /// A listed peer that was not selected.
    #[error("{0} is not in the gather set")]
    NotSelected(Hotkey),
    /// A listed peer without a commitment, or with another one.
    #[error("{0} did not commit to that object")]
    NotCommitted(Hotkey),
    /// A listed object that fails the checks of PROTOCOL section 5.
    #[error("the object of {0} fails")]
    Object(Hotkey),
    /// Its selection is not for two windows on.
    #[error("its selection is not for two windows on")]
    Selection,
    /// Two records that prove nothing: other leaders, other windows, or one and the same.
    #[error("these two records prove nothing")]
    NoProof,
}

/// Why the chain rules refuse a call (R§6.3, R§6.6, R§6.7), in the order they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChainFault {
    /// uids and values differ in number.
    #[error("{uids} uids but {values} values")]
    Lengths {
        /// Number of uids.
        uids: usize,
        /// Number of values.
        values: usize,
    },
    /// More entries than slots.
    #[error("{0} weights, more than there are neurons")]
    TooMany(usize),
    /// The caller is not registered.
    #[error("the hotkey is not registered")]
    NotRegistered,
    /// The caller has too little stake.
    #[error("stake {stake} is below the minimum {minimum}")]
    Stake {
        /// What it has.
        stake: u64,
        /// What it needs.
        minimum: u64,
    },
    /// The version key is too old.
    #[error("version key {key} is below {minimum}")]
    Version {
        /// The one given.
        key: u64,
        /// The least allowed.
        minimum: u64,
    },
    /// Too soon after the last time.
    #[error("weights may be set again at block {0}")]
    RateLimit(u64),
    /// The caller may not weigh others.
    #[error("no validator permit: only the own uid may be weighed")]
    NoPermit,
    /// A uid twice.
    #[error("uid {0} twice")]
    DuplicateUid(u16),
    /// A uid that does not exist.
    #[error("uid {0} does not exist")]
    NoSuchUid(u16),
    /// Too few weights.
    #[error("{got} weights, at least {minimum} needed")]
    TooFew {
        /// Given.
        got: usize,
        /// Needed.
        minimum: usize,
    },
    /// One weight holds too large a share.
    #[error("the largest weight holds more than {limit} of 65535 of the sum")]
    MaxWeight {
        /// The limit.
        limit: u16,
    },
    /// Weights can only be committed.
    #[error("weights are committed and revealed here, not set")]
    CommitReveal,
    /// Weights can only be set.
    #[error("weights are set here, not committed")]
    NoCommitReveal,
    /// Too many commitments wait.
    #[error("too many commitments wait to be revealed")]
    TooManyCommits,
    /// No such commitment waits.
    #[error("no commitment with that hash waits")]
    NoCommit,
    /// The commitment can be revealed only in another epoch.
    #[error("reveal in epoch {due}, it is {now}")]
    RevealEpoch {
        /// When.
        due: u64,
        /// Now.
        now: u64,
    },
    /// The hotkey is registered already.
    #[error("the hotkey is registered already")]
    AlreadyRegistered,
    /// Nobody can make room.
    #[error("no neuron can be replaced")]
    NoSlot,
}
