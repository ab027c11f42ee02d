//! Tests of the crate through its public interface, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // Helpers outside test functions may fail loudly as well.

mod datasets;
mod hub;
mod killed;
mod packing;
mod prepared;
mod sources;
mod tokenizers;
mod tools;
