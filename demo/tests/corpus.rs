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

use fuzz::gather::gather;
use fuzz::{FORMATS, Meter, check, run};
use gauntlet_demo::{Error, object};
use std::path::Path;

#[global_allocator]
static METER: Meter = Meter;

fn corpus(target: &str) -> impl Iterator<Item = Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    std::fs::read_dir(folder).unwrap().map(|file| std::fs::read(file.unwrap().path()).unwrap())
}

/// Inputs that were accepted and refused, and those that are neither.
#[derive(Debug, Default)]
struct Count {
    accepted: usize,
    refused: usize,
    hollow: usize,
    /// Inputs that reached each format's decoder.
    formats: [usize; 8],
}

impl Count {
    fn add(&mut self, format: Option<usize>, outcome: Option<Result<(), Error>>) {
        match outcome {
            Some(Ok(())) => self.accepted += 1,
            Some(Err(_)) => self.refused += 1,
            None => self.hollow += 1,
        }
        if let Some(format) = format {
            self.formats[format] += 1;
        }
    }
}

// The bounds are what the kept corpus has; one that grows keeps them.

#[test]
fn every_kept_payload_keeps_its_promises() {
    let mut count = Count::default();
    for data in corpus("payload") {
        // From 128 on the first byte is of an input for the encoder.
        let choice = data.first().filter(|&&choice| choice < 128);
        count.add(choice.map(|&choice| usize::from(choice) % FORMATS.len()), run(&data));
    }
    assert!(count.accepted >= 150 && count.refused >= 163, "{count:?}");
    // No byte at all, and an encoder's input that ends before its levels do.
    assert!(count.hollow <= 2, "{count:?}");
    assert!(count.formats.iter().all(|&n| n >= 2), "{count:?}");
}

#[test]
fn every_kept_object_keeps_its_promises() {
    let mut count = Count::default();
    for data in corpus("object") {
        let opened = object::open(&data).ok().map(|object| {
            let format = object.header.window as usize % FORMATS.len();
            (format, check(&FORMATS[format], object.payload))
        });
        let (format, outcome) = opened.unzip();
        count.add(format, outcome);
    }
    assert!(count.accepted >= 10 && count.refused >= 117, "{count:?}");
    // Those that the mutator left unrepaired.
    assert!(count.hollow <= 8, "{count:?}");
    // What covers the code of index 5 is among the others: there is one by hand.
    let (five, others) = (count.formats[5], [&count.formats[..5], &count.formats[6..]].concat());
    assert!(five >= 1 && others.iter().all(|&n| n >= 2), "{count:?}");
}

#[test]
fn every_kept_gather_keeps_its_promises() {
    // One thread: inputs this small take longer to hand over than to work out.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut formats = [0; 8];
    for data in corpus("gather") {
        pool.install(|| gather(&data));
        formats[usize::from(data.first().copied().unwrap_or(0)) % FORMATS.len()] += 1;
    }
    assert!(formats.iter().all(|&n| n >= 2), "{formats:?}");
}
