//! Refuses to build when the committed CUDA kernels are not those of the sources.

#[path = "../gpu/lock.rs"]
mod lock;

fn main() -> Result<(), String> {
    lock::verify()
}
