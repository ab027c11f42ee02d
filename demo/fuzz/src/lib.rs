//! What the fuzz targets share: tiny formats, an allocation meter, and the property that every accepted payload
//! keeps.

use gauntlet_demo::{Codebook, Error, Format, Layout, Submission};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};

/// Counts the bytes that live, and the most that ever lived.
pub struct Meter;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        let live = LIVE.fetch_add(block.size(), Relaxed) + block.size();
        PEAK.fetch_max(live, Relaxed);
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        LIVE.fetch_sub(block.size(), Relaxed);
        unsafe { System.dealloc(at, block) }
    }
}

/// One format for each way a payload can be read: every code width, f32 values, chunks that send all indices,
/// gaps with and without remainder bits, several groups, odd edges.
pub static FORMATS: LazyLock<Vec<Arc<Format>>> = LazyLock::new(|| {
    let format = |shapes: &[(&str, &[usize])], edge, topk, bits: u32| {
        let layout = Layout::from_shapes(shapes.iter().map(|(name, shape)| (*name, shape.to_vec()))).unwrap();
        let book = match bits {
            1 | 2 | 3 | 4 | 8 | 32 => Codebook::with_bits(bits).unwrap(),
            bits => Codebook::new(bits, (1..1_i8 << (bits - 1)).collect()).unwrap(),
        };
        Format::new(layout, edge, topk, book).unwrap()
    };
    vec![
        format(&[("a", &[8, 12]), ("b", &[12])], 4, 3, 4),
        format(&[("a", &[8, 12]), ("b", &[12])], 4, 3, 1),
        format(&[("a", &[6, 10]), ("b", &[7])], 4, 2, 2),
        format(&[("a", &[5]), ("b", &[16, 16])], 16, 5, 3),
        format(&[("a", &[70, 2])], 1, 1, 8),
        format(&[("a", &[16, 16]), ("b", &[130])], 16, 1, 8),
        format(&[("a", &[8, 8]), ("b", &[3])], 8, 4, 32),
        format(&[("a", &[64, 64])], 64, 2, 5),
    ]
});

/// Reads `payload` as the given format: no panic, no allocation above the format's bound, and what is accepted
/// encodes to the same bytes.
pub fn check(format: &Arc<Format>, payload: &[u8]) -> Result<(), Error> {
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let decoded = Submission::decode(format, payload);
    let taken = PEAK.load(Relaxed) - before;
    // Submission, list of groups and slices into them, error text: a small multiple of what the format implies.
    let bound = 16_384 + 16 * format.entries() + 1_024 * format.chunks();
    assert!(taken <= bound, "{taken} bytes allocated, bound {bound}");
    let submission = decoded?;
    assert_eq!(submission.encode(), payload);
    assert!(payload.len() <= format.max_payload());
    let (exponents, indices) = (submission.exponents().to_vec(), submission.indices().to_vec());
    let again = Submission::new(Arc::clone(format), exponents, indices, submission.values().clone());
    // f32 values may be equal in bits and still differ as numbers (never NaN: those are refused).
    assert!(again == Ok(submission));
    Ok(())
}
