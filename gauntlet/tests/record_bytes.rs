//! Records from hostile bytes: cut short, spoiled, with huge lengths. A record or an error, and no large allocation.
//!
//! One test alone, since what is measured is the largest allocation of the process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// A global allocator is unsafe to implement; this one hands everything to the system's and keeps the largest size.
#![allow(unsafe_code)]

use gauntlet::draw::Draw;
use gauntlet::record::{Accepted, PROTOCOL_VERSION, Record, SignedRecord};
use gauntlet::selection::Selection;
use gauntlet::{Digest, Error, Hotkey, Signature};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Largest;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Largest {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Largest = Largest;

/// What a list may reserve before its entries are there.
const MOST: usize = 1 << 20;

fn record() -> SignedRecord {
    let key = |n| Hotkey([n; 32]);
    let record = Record {
        protocol: PROTOCOL_VERSION,
        run: Digest([7; 32]),
        window: 300,
        previous: Digest([1; 32]),
        state_before: Digest([2; 32]),
        accepted: [1, 2]
            .map(|n| Accepted { hotkey: key(n), content: Digest([n; 32]), size: 1 << 20 })
            .to_vec(),
        bundle: Digest([3; 32]),
        commitments: [1, 2, 3].map(|n| (key(n), Digest([n; 32]))).to_vec(),
        selection: Selection { window: 302, gather: [1, 2].map(key).to_vec(), reserve: vec![key(3)] },
        published: 70_000,
        leader: key(100),
    };
    SignedRecord { record, signature: Signature([9; 64]) }
}

/// Reads bytes; gives what came out and the largest allocation on the way.
fn read(bytes: &[u8]) -> (Result<SignedRecord, Error>, usize) {
    LARGEST.store(0, Ordering::Relaxed);
    let result = SignedRecord::from_bytes(bytes);
    (result, LARGEST.load(Ordering::Relaxed))
}

/// A varint of 2⁶⁴ − 1, and one of more than 64 bits.
const HUGE: [&[u8]; 2] = [
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
];

#[test]
fn hostile_bytes_of_a_record_are_refused_in_little_memory() {
    let good = record().to_bytes().unwrap();
    assert_eq!(read(&good).0, Ok(record()));
    for cut in 0..good.len() {
        let (result, largest) = read(&good[..cut]);
        assert!(matches!(result, Err(Error::RecordBytes { .. })), "cut at {cut}");
        assert!(largest <= MOST, "cut at {cut}: {largest} bytes");
    }
    // A huge number wherever one may stand: before every byte, and in its place.
    let spoiled = |at: usize, skip: usize, huge: &[u8]| [&good[..at], huge, &good[at + skip..]].concat();
    for (at, skip, huge) in
        (0..good.len()).flat_map(|at| [0, 1].map(|skip| HUGE.map(|huge| (at, skip, huge)))).flatten()
    {
        let (result, largest) = read(&spoiled(at, skip, huge));
        assert!(largest <= MOST, "{huge:?} at {at}: {largest} bytes");
        assert!(result.is_err(), "{huge:?} at {at}");
    }
    let mut draw = Draw::new(Digest([0; 32]), "spoil");
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..=draw.below(3) {
            let at = draw.below(bytes.len() as u64) as usize;
            bytes[at] = draw.below(256) as u8;
        }
        let (result, largest) = read(&bytes);
        assert!(largest <= MOST, "{largest} bytes");
        match result {
            Ok(read) => assert_eq!(read.to_bytes().unwrap(), bytes, "one form for each record"),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 100, "lengths and numbers were hit: {refused}");
}
