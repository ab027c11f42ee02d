//! Any bytes as the payload of one of several tiny formats: the parser behind hash and signature. And any codebook and
//! gradient to a payload that the parser takes.
#![no_main]

use gauntlet_demo_fuzz::{Meter, run};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static METER: Meter = Meter;

fuzz_target!(|data: &[u8]| {
    let _ = run(data);
});
