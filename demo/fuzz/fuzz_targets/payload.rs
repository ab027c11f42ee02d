//! Any bytes as the payload of one of several tiny formats: the parser behind hash and signature.
#![no_main]

use gauntlet_demo_fuzz::{FORMATS, Meter, check};
use libfuzzer_sys::fuzz_target;

#[global_allocator]
static METER: Meter = Meter;

fuzz_target!(|data: &[u8]| {
    if let Some((&choice, payload)) = data.split_first() {
        let _ = check(&FORMATS[usize::from(choice) % FORMATS.len()], payload);
    }
});
