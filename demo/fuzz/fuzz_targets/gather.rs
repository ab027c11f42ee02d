//! Up to three hostile submissions, applied alone, twice, and beside honest ones.
#![no_main]

use gauntlet_demo_fuzz::gather::gather;
use libfuzzer_sys::fuzz_target;
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::LazyLock;

/// One thread: tensors this small take longer to hand over than to work out.
static POOL: LazyLock<ThreadPool> =
    LazyLock::new(|| ThreadPoolBuilder::new().num_threads(1).build().unwrap());

fuzz_target!(|data: &[u8]| POOL.install(|| gather(data)));
