//! Everything that can be refused, one variant each.

use thiserror::Error;

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a layout, a gradient, a payload or an object was refused.
///
/// A payload or object that fails is invalid for everybody: no variant depends on the machine.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of tensors cannot describe one flat buffer.
    #[error("tensor `{tensor}`: {reason}")]
    Layout {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting of `[optimizer]` is refused.
    #[error("optimizer.{field}: {reason}")]
    Config {
        /// Name of the setting, from the section on.
        field: &'static str,
        /// What is wrong and what would be accepted.
        reason: String,
    },
    /// A buffer has the wrong number of elements.
    #[error("{what} has {found} elements, the layout has {expected}")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Elements the layout needs.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// A gradient, or the momentum it leads to, is infinite or not a number.
    #[error(
        "tensor `{tensor}`: the gradient is not finite; nothing was sent, drop this window and lower the rate"
    )]
    NonFinite {
        /// Name of the tensor.
        tensor: String,
    },
    /// A saved momentum, or what waits with it, is infinite or not a number.
    #[error("tensor `{tensor}`: the saved momentum is not finite; begin with none instead")]
    SavedNonFinite {
        /// Name of the tensor.
        tensor: String,
    },
    /// The processor flushes subnormal numbers to zero; the decode would differ from other machines.
    #[error("this thread flushes subnormal numbers to zero; clear FTZ and DAZ before the outer step")]
    FlushToZero,
    /// Submissions of different shapes, `topk` or codebooks meet.
    #[error("the submission belongs to another format (layout, topk, chunk or codebook differ)")]
    Format,
    /// The same hotkey contributes twice to one gather.
    #[error("hotkey {} contributes twice to one gather", hex(hotkey))]
    DuplicatePeer {
        /// The hotkey.
        hotkey: [u8; 32],
    },
    /// More submissions than a GPU's block holds units of.
    #[error("a gather holds at most {limit} submissions")]
    TooManyPeers {
        /// The limit.
        limit: usize,
    },

    /// A GPU that does not do what it was asked.
    #[error(transparent)]
    Gpu(#[from] gauntlet_gpu::GpuError),

    /// The payload ends before the manifest's tensors do.
    #[error("tensor `{tensor}`: the payload ends inside it")]
    Truncated {
        /// Name of the tensor.
        tensor: String,
    },
    /// The payload goes on after the last tensor.
    #[error("{count} bytes after the last tensor")]
    TrailingBytes {
        /// Bytes too many.
        count: usize,
    },
    /// A group's stated byte length is impossible or not what its chunks take.
    #[error("tensor `{tensor}`: group {group} states {stated} bytes")]
    GroupLength {
        /// Name of the tensor.
        tensor: String,
        /// Number of the group inside the tensor.
        group: usize,
        /// Stated byte length.
        stated: usize,
    },
    /// A group's bits end inside a chunk.
    #[error("tensor `{tensor}`: chunk {chunk} ends early")]
    ShortGroup {
        /// Name of the tensor.
        tensor: String,
        /// Number of the chunk inside the tensor.
        chunk: usize,
    },
    /// Padding bits of a group are not zero.
    #[error("tensor `{tensor}`: group {group} has padding bits set")]
    Padding {
        /// Name of the tensor.
        tensor: String,
        /// Number of the group inside the tensor.
        group: usize,
    },
    /// An index lies outside its chunk.
    #[error("tensor `{tensor}`: chunk {chunk} has an index out of range")]
    IndexRange {
        /// Name of the tensor.
        tensor: String,
        /// Number of the chunk inside the tensor.
        chunk: usize,
    },
    /// Indices of a chunk repeat or do not ascend (only possible before packing: gaps cannot express it).
    #[error("tensor `{tensor}`: chunk {chunk} has a duplicate or descending index")]
    IndexOrder {
        /// Name of the tensor.
        tensor: String,
        /// Number of the chunk inside the tensor.
        chunk: usize,
    },
    /// A code has no level in the manifest's codebook.
    #[error("tensor `{tensor}`: chunk {chunk} has an unknown code")]
    UnknownCode {
        /// Name of the tensor.
        tensor: String,
        /// Number of the chunk inside the tensor.
        chunk: usize,
    },
    /// A chunk that is not marked empty sends no value; the canonical form marks it empty.
    #[error("tensor `{tensor}`: chunk {chunk} is not marked empty but sends nothing")]
    ZeroChunk {
        /// Name of the tensor.
        tensor: String,
        /// Number of the chunk inside the tensor.
        chunk: usize,
    },
    /// The stated largest exponent is not the largest of the tensor's chunks.
    #[error("tensor `{tensor}`: states largest exponent {stated}, its chunks have {found}")]
    MaxExponent {
        /// Name of the tensor.
        tensor: String,
        /// Stated largest exponent.
        stated: i8,
        /// Largest exponent found.
        found: i8,
    },
    /// A chunk of f32 values (measurement codebook) states an exponent its values do not have, or is not finite.
    #[error("tensor `{tensor}`: chunk {chunk} has values that do not fit its exponent")]
    ChunkExponent {
        /// Name of the tensor.
        tensor: String,
        /// Number of the chunk inside the tensor.
        chunk: usize,
    },
    /// A list of entries has the wrong length for the format.
    #[error("wrong number of {what}: {found} instead of {expected}")]
    Count {
        /// Which list.
        what: &'static str,
        /// Entries the format implies.
        expected: usize,
        /// Entries found.
        found: usize,
    },

    /// The object is shorter than its fixed parts.
    #[error("the object has {found} bytes, at least {needed} are needed")]
    ObjectLength {
        /// Smallest possible length.
        needed: usize,
        /// Length found.
        found: usize,
    },
    /// The first four bytes are not `GNTL`.
    #[error("not a Gauntlet object")]
    Magic,
    /// Written in another version of the protocol.
    #[error("protocol version {found}, this build reads {supported}")]
    Version {
        /// Version in the header.
        found: u16,
        /// Version understood here.
        supported: u16,
    },
    /// The kind byte names another scheme, or none.
    #[error("object kind {found}, expected {expected}")]
    Kind {
        /// Kind in the header.
        found: u8,
        /// Kind of the run's scheme.
        expected: u8,
    },
    /// The stated payload length is not what lies between header and trailer.
    #[error("the header states a payload of {stated} bytes, {found} are there")]
    PayloadLength {
        /// Stated length.
        stated: u64,
        /// Length found.
        found: u64,
    },
    /// The BLAKE3 in the trailer is not that of the bytes before it.
    #[error("the object's hash does not match its bytes")]
    Hash,
    /// The hotkey is no sr25519 public key.
    #[error("the hotkey is not a public key")]
    PublicKey,
    /// The signature does not verify under the hotkey.
    #[error("the signature does not verify")]
    Signature,
    /// The object belongs to another run.
    #[error("the object belongs to another run")]
    Run,
    /// The object belongs to another window.
    #[error("the object belongs to window {found}, expected {expected}")]
    Window {
        /// Window in the header.
        found: u64,
        /// Window asked for.
        expected: u64,
    },
    /// The object was signed by another hotkey.
    #[error("the object belongs to another hotkey")]
    Hotkey,
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
