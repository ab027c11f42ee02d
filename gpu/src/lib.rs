//! A GPU as the other crates need it: memory, copies, and kernels launched by name.
//!
//! [`Device`] has two implementations: the driver, opened at run time, and an emulation that compiles the
//! same kernel sources as C++ and runs them on the CPU (feature `emulate`, for tests: it checks a
//! kernel's logic and the launching code, not its speed).
//!
//! Invariants: nothing here knows models or the protocol; nothing links to CUDA, so a program starts
//! without it.

#[cfg(all(feature = "emulate", not(target_feature = "crt-static")))]
pub mod chosen;
mod device;
#[cfg(not(target_feature = "crt-static"))]
pub mod driver;
#[cfg(all(feature = "emulate", not(target_feature = "crt-static")))]
pub mod emulated;
mod error;
pub mod fat_binary;

pub use device::{Arg, Counts, Device, Factor, Grid, Kernel, LibraryProduct, Number};
pub use error::{GpuError, Result};
