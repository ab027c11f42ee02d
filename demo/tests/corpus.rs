//! Proof 4: the kept fuzz corpus, replayed with the fuzz targets' own checks and allocation meter.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../fuzz/src/lib.rs"]
#[allow(
    unsafe_code,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a global allocator is unsafe to implement"
)]
mod fuzz;

use fuzz::{FORMATS, Meter, check, run};
use gauntlet_demo::object;
use std::path::Path;

#[global_allocator]
static METER: Meter = Meter;

fn corpus(target: &str) -> impl Iterator<Item = Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap())
}

#[test]
fn every_kept_input_keeps_its_promises() {
    let (mut accepted, mut refused) = (0, 0);
    let mut count = |outcome: Result<(), gauntlet_demo::Error>| match outcome {
        Ok(()) => accepted += 1,
        Err(_) => refused += 1,
    };
    for data in corpus("payload") {
        if let Some(outcome) = run(&data) {
            count(outcome);
        }
    }
    for data in corpus("object") {
        if let Ok(object) = object::open(&data) {
            count(check(&FORMATS[object.header.window as usize % FORMATS.len()], object.payload));
        }
    }
    assert!(accepted >= 20 && refused >= 20, "{accepted} accepted, {refused} refused");
}
