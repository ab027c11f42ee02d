//! Nothing is allocated for a chunk, and what lives at once is the outputs and a few tiles a thread.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(unsafe_code, reason = "a global allocator is unsafe to implement")]

use gauntlet_demo::object::{self, HEADER, Header, KIND_DEMO, TRAILER};
use gauntlet_demo::{
    Aggregate, Codebook, Format, Layout, Momentum, OuterStep, StrengthCap, Submission, Subtract, outer_step,
    synthetic,
};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts blocks, of this thread and of all, the bytes that live, and the most that did. A block that grows is still
/// one: lists of groups and pieces grow by doubling.
struct Counter;

thread_local! {
    /// The test harness's own thread is at work meanwhile.
    static MINE: Cell<usize> = const { Cell::new(0) };
}

static COUNT: AtomicUsize = AtomicUsize::new(0);
static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

impl Counter {
    fn block(bytes: usize) {
        MINE.set(MINE.get() + 1);
        COUNT.fetch_add(1, Relaxed);
        Self::grow(bytes);
    }

    fn grow(bytes: usize) {
        let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
        PEAK.fetch_max(live, Relaxed);
    }
}

#[global_allocator]
static COUNTER: Counter = Counter;

// SAFETY: the system's allocator does all the work.
unsafe impl GlobalAlloc for Counter {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        Self::block(block.size());
        unsafe { System.alloc(block) }
    }

    unsafe fn alloc_zeroed(&self, block: Block) -> *mut u8 {
        Self::block(block.size());
        unsafe { System.alloc_zeroed(block) }
    }

    unsafe fn realloc(&self, at: *mut u8, block: Block, size: usize) -> *mut u8 {
        // Both blocks may live while it is copied.
        Self::grow(size);
        LIVE.fetch_sub(block.size(), Relaxed);
        unsafe { System.realloc(at, block, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        LIVE.fetch_sub(block.size(), Relaxed);
        unsafe { System.dealloc(at, block) }
    }
}

fn counted<T>(name: &'static str, counts: &mut Vec<(&'static str, usize)>, run: impl FnOnce() -> T) -> T {
    let before = MINE.get();
    let out = run();
    counts.push((name, MINE.get() - before));
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

/// What one part took: blocks, bytes that lived beside those before it, and bytes that stay.
#[derive(Debug)]
struct Taken {
    blocks: usize,
    peak: usize,
    kept: isize,
}

impl Taken {
    /// Other threads take and free a little meanwhile.
    fn keeps(&self, bytes: usize) {
        assert!(self.kept.abs_diff(bytes.cast_signed()) < 16 << 10, "{self:?}, {bytes} bytes expected");
    }
}

fn taken<T>(run: impl FnOnce() -> T) -> (T, Taken) {
    let (blocks, live) = (COUNT.load(Relaxed), LIVE.load(Relaxed));
    PEAK.store(live, Relaxed);
    let out = run();
    let kept = LIVE.load(Relaxed).cast_signed() - live.cast_signed();
    (out, Taken { blocks: COUNT.load(Relaxed) - blocks, peak: PEAK.load(Relaxed).saturating_sub(live), kept })
}

/// One square matrix of many pieces on several threads.
fn check_memory(edge: usize, chunk: usize, topk: usize, threads: usize) {
    /// A transform's tiles and the selection, or sums of one chunk, for a thread: 4,096 coefficients a few times.
    const TILES: usize = 160 << 10;
    /// What is kept of a piece or group while all are under way: where it begins, its slices.
    const PIECE: usize = 512;

    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
    // What a thread takes when it starts is not counted.
    pool.broadcast(|_| ());
    let layout = Layout::from_shapes([("a", vec![edge, edge])]).unwrap();
    let format = Format::new(layout, chunk, topk, Codebook::with_bits(3).unwrap()).unwrap();
    let (params, chunks, entries) = (edge * edge, format.chunks(), format.entries());
    // 65,536 elements a piece, 64 chunks a group.
    let parts = params.div_ceil(1 << 16) + chunks.div_ceil(64);
    let within = |what: &str, taken: &Taken, outputs: usize| {
        let bound = outputs + threads * TILES + parts * PIECE;
        assert!(taken.peak <= bound, "{what}: {taken:?}, {bound} bytes allowed");
        assert!(taken.blocks <= 64 + 8 * parts, "{what}: {taken:?}, {parts} pieces and groups");
    };
    let submission = 3 * entries + 2 * chunks;

    let (mut momentum, new) =
        taken(|| Momentum::new(Arc::clone(&format), 0.999, 0, Subtract::Always).unwrap());
    // m, and two sums a chunk.
    new.keeps(4 * params + 16 * chunks);
    let mut grads = vec![0.0; params];
    let (mut theta, mut tried) = (vec![0.0; params], vec![0.0; params]);
    let step = OuterStep { lr: 0.01, weight_decay: 0.1, min_gather: 1 };
    for window in 0..2 {
        synthetic::gradient(format.layout(), window, 0, &mut grads);
        let (sent, stepped) = taken(|| pool.install(|| momentum.step(&grads, 0.01).unwrap()));
        let (payload, encoded) = taken(|| pool.install(|| sent.encode()));
        let (found, decoded) = taken(|| pool.install(|| Submission::decode(&format, &payload).unwrap()));
        let mut gather = Aggregate::new(Arc::clone(&format), StrengthCap::LowerMedian);
        let (_, added) = taken(|| {
            pool.install(|| {
                gather.add([1; 32], &sent).unwrap();
                gather.add([2; 32], &found).unwrap();
            });
        });
        let (_, applied) = taken(|| pool.install(|| outer_step::apply(&mut theta, &gather, &step).unwrap()));
        let (_, trial) =
            taken(|| pool.install(|| outer_step::trial(&theta, &sent, 0.01, 0.2, &mut tried).unwrap()));
        // The first window's first use of a thread starts what it keeps.
        if window > 0 {
            within("step", &stepped, submission);
            within("encode", &encoded, 2 * format.max_payload());
            within("decode", &decoded, submission);
            within("add", &added, 0);
            within("apply", &applied, 0);
            within("trial", &trial, 0);
            stepped.keeps(submission);
            decoded.keeps(submission);
            applied.keeps(0);
            trial.keeps(0);
        }
    }
}

fn what_lives_at_once_is_the_outputs_and_tiles_for_each_thread() {
    for threads in [1, 3] {
        check_memory(1024, 64, 32, threads);
        check_memory(1024, 8, 4, threads);
    }
}

// One test, for the counters are the process's.
#[test]
fn neither_blocks_nor_bytes_are_taken_for_each_chunk() {
    four_times_the_chunks_take_no_more_allocations();
    what_lives_at_once_is_the_outputs_and_tiles_for_each_thread();
}
