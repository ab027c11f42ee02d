//! Nothing is allocated for a chunk: four times as many chunks take no allocation more.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(unsafe_code, reason = "a global allocator is unsafe to implement")]

use gauntlet_demo::object::{self, HEADER, Header, KIND_DEMO, TRAILER};
use gauntlet_demo::{
    Aggregate, Codebook, Format, Layout, Momentum, OuterStep, StrengthCap, Submission, Subtract, outer_step,
    synthetic,
};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts blocks, of all threads. A block that grows is still one: lists of groups and pieces grow by doubling.
struct Counter;

static COUNT: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTER: Counter = Counter;

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        unsafe { System.alloc(block) }
    }

    unsafe fn alloc_zeroed(&self, block: Block) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        unsafe { System.alloc_zeroed(block) }
    }

    unsafe fn realloc(&self, at: *mut u8, block: Block, size: usize) -> *mut u8 {
        unsafe { System.realloc(at, block, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        unsafe { System.dealloc(at, block) }
    }
}

fn counted<T>(name: &'static str, counts: &mut Vec<(&'static str, usize)>, run: impl FnOnce() -> T) -> T {
    let before = COUNT.load(Relaxed);
    let out = run();
    counts.push((name, COUNT.load(Relaxed) - before));
    out
}

/// Blocks that each part takes for one square matrix of chunks of 8 × 8.
fn counts(edge: usize, bits: u32, subtract: Subtract) -> Vec<(&'static str, usize)> {
    let layout = Layout::from_shapes([("a", vec![edge, edge])]).unwrap();
    let format = Format::new(layout, 8, 4, Codebook::with_bits(bits).unwrap()).unwrap();
    let mut momentum = Momentum::new(Arc::clone(&format), 0.999, 0, subtract).unwrap();
    let (mut theta, mut tried) = (vec![0.0; edge * edge], vec![0.0; edge * edge]);
    let mut grads = vec![0.0; edge * edge];
    let step = OuterStep { lr: 0.01, weight_decay: 0.1, min_gather: 1 };
    let header =
        Header { kind: KIND_DEMO, run: [0; 32], window: 0, hotkey: [0; 32], count: 1, state_tag: [0; 32] };
    let mut counts = Vec::with_capacity(64);
    for window in 0..2 {
        synthetic::gradient(format.layout(), window, 0, &mut grads);
        // What the first window takes once (a thread's first use of something) is not counted.
        counts.clear();
        let counts = &mut counts;
        let sent = counted("step", counts, || momentum.step(&grads, 0.01).unwrap());
        counted("settle", counts, || momentum.settle(gauntlet_demo::Recorded::Yes));
        let payload = counted("encode", counts, || sent.encode());
        let object = counted("seal", counts, || object::seal_with(&header, &payload, |_| [0; 64]));
        let payload = &object[HEADER..object.len() - TRAILER];
        let found = counted("decode", counts, || Submission::decode(&format, payload).unwrap());
        let mut gather = Aggregate::new(Arc::clone(&format), StrengthCap::LowerMedian);
        counted("add", counts, || {
            gather.add([1; 32], &sent).unwrap();
            gather.add([2; 32], &found).unwrap();
        });
        counted("apply", counts, || outer_step::apply(&mut theta, &gather, &step).unwrap());
        counted("trial", counts, || outer_step::trial(&theta, &sent, 0.01, 0.2, &mut tried).unwrap());
    }
    counts
}

#[test]
fn four_times_the_chunks_take_no_more_allocations() {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for bits in [1, 3, 8, 32] {
        for subtract in [Subtract::Always, Subtract::WhenRecorded] {
            // 256 and 1024 chunks: several groups, one piece.
            let [few, many] = [128, 256].map(|edge| pool.install(|| counts(edge, bits, subtract)));
            assert_eq!(few, many, "{bits} bits, {subtract:?}");
            assert!(few.iter().all(|(_, count)| *count < 64), "{few:?}");
        }
    }
}
