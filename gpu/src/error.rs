//! The one error type of this crate.

/// What can go wrong with a GPU.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// The device has not enough memory.
    #[error(
        "the GPU has no {wanted} bytes left ({free} of {total} are free); choose less at once, or end what else uses it"
    )]
    Memory {
        /// Bytes asked for.
        wanted: usize,
        /// Bytes free.
        free: usize,
        /// Bytes of the device.
        total: usize,
    },
    /// The module holds no kernel of this name.
    #[error("no kernel '{0}' in the module: the program and its kernels do not belong together")]
    NoKernel(String),
    /// A launch was refused or failed.
    #[error("kernel {kernel}: {reason}")]
    Launch {
        /// The kernel's name.
        kernel: String,
        /// The reason.
        reason: String,
    },
    /// A size a kernel cannot take.
    #[error("{what}: {value} is more than a GPU kernel here can take; choose a smaller batch")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its value.
        value: usize,
    },
    /// Elements that a buffer does not hold.
    #[error("elements {start}..+{len} of a buffer of {held}")]
    Outside {
        /// First element.
        start: usize,
        /// Number of elements.
        len: usize,
        /// Elements the buffer holds.
        held: usize,
    },
    /// What the kernels do not do.
    #[error("{0}")]
    Unsupported(String),
    /// The driver or one of NVIDIA's libraries reported an error.
    #[error("{0}")]
    Failed(String),
    /// The driver, or a program that kernels are built with, cannot be used.
    #[error("{0}")]
    Unavailable(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, GpuError>;
