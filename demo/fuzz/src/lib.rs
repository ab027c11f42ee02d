//! What the fuzz targets share: tiny formats, an allocation meter, and the property that every accepted payload
//! keeps.

pub mod gather;

use gauntlet_demo::{Codebook, Error, Format, Layout, Momentum, Submission, Subtract, Values};
use std::alloc::{GlobalAlloc, Layout as Block, System};
use std::cell::Cell;
use std::sync::{Arc, LazyLock};

/// Counts the bytes that live by this thread's doing, and the most that ever did. Payloads this small are decoded on
/// the calling thread, so what other threads do meanwhile stays out of it.
pub struct Meter;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, block: Block) -> *mut u8 {
        let live = LIVE.get().wrapping_add(block.size());
        LIVE.set(live);
        PEAK.set(PEAK.get().max(live));
        unsafe { System.alloc(block) }
    }

    unsafe fn dealloc(&self, at: *mut u8, block: Block) {
        LIVE.set(LIVE.get().wrapping_sub(block.size()));
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
    let formats = vec![
        format(&[("a", &[8, 12]), ("b", &[12])], 4, 3, 4),
        format(&[("a", &[8, 12]), ("b", &[12])], 4, 3, 1),
        format(&[("a", &[6, 10]), ("b", &[7])], 4, 2, 2),
        format(&[("a", &[5]), ("b", &[16, 16])], 16, 5, 3),
        format(&[("a", &[70, 2])], 1, 1, 8),
        format(&[("a", &[16, 16]), ("b", &[130])], 16, 1, 8),
        format(&[("a", &[8, 8]), ("b", &[3])], 8, 4, 32),
        format(&[("a", &[64, 64])], 64, 2, 5),
    ];
    // The first decode of a process starts the thread pool; that is not the payload's doing.
    for format in &formats {
        let nothing = Submission::empty(Arc::clone(format));
        assert!(Submission::decode(format, &nothing.encode()) == Ok(nothing));
    }
    formats
});

/// Reads `payload` as the given format: no panic, no allocation above the format's bound, and what is accepted
/// encodes to the same bytes.
pub fn check(format: &Arc<Format>, payload: &[u8]) -> Result<(), Error> {
    // What this thread frees for others would wrap the count below 0.
    LIVE.set(0);
    PEAK.set(0);
    let decoded = Submission::decode(format, payload);
    let taken = PEAK.get();
    // Submission, list of groups and slices into them, error text: a small multiple of what the format implies.
    let bound = 1_024 + 8 * format.entries() + 256 * format.chunks();
    assert!(taken <= bound, "{taken} bytes allocated, bound {bound}");
    let submission = decoded?;
    assert_eq!(submission.encode(), payload);
    assert!(payload.len() <= format.max_payload());
    let (exponents, indices) = (submission.exponents().to_vec(), submission.indices().to_vec());
    let again = Submission::new(Arc::clone(format), exponents, indices, submission.values().clone());
    assert!(again.as_ref() == Ok(&submission));
    let sent = submission.sent();
    assert!(sent <= submission.format().entries());
    let overlap = submission.overlap(&submission).unwrap();
    assert!(overlap == 1.0 || overlap == 0.0);
    assert!(Submission::new(Arc::clone(format), Vec::new(), Vec::new(), Values::Levels(Vec::new())).is_err());
    Ok(())
}

/// Input of the `payload` target: the first byte chooses a format for the rest, or from 128 on the other way round.
pub fn run(data: &[u8]) -> Option<Result<(), Error>> {
    let (&choice, rest) = data.split_first()?;
    if choice < 128 { Some(check(&FORMATS[usize::from(choice) % FORMATS.len()], rest)) } else { encode(rest) }
}

/// Bytes as a codebook and a gradient: what a peer makes of them is a payload that others accept.
fn encode(data: &[u8]) -> Option<Result<(), Error>> {
    let (&[bits, count], rest) = data.split_first_chunk::<2>()?;
    let (levels, rest) = rest.split_at_checked(usize::from(count % 9))?;
    let levels = levels.iter().map(|level| level.cast_signed()).collect();
    let book = match count {
        255 => Ok(Codebook::default()),
        240.. => Codebook::with_bits(u32::from(bits)),
        _ => Codebook::new(u32::from(bits % 34), levels),
    };
    let book = match book {
        Ok(book) => book,
        Err(error) => return Some(Err(error)),
    };
    let text = serde_json::to_string(&book).unwrap();
    assert!(serde_json::from_str::<Codebook>(&text).unwrap() == book);
    assert!(book.levels().len() < 128);
    let layout = Layout::from_shapes([("a", vec![8, 8]), ("b", vec![12]), ("c", vec![30, 9])]).unwrap();
    let grads: Vec<f32> = rest.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    let grads: Vec<f32> = grads.iter().copied().cycle().take(layout.len()).collect();
    let format = Format::new(layout, 15, 1 + usize::from(bits >> 5), book).unwrap();
    let mut momentum = Momentum::new(Arc::clone(&format), 0.5, 0, Subtract::Always).unwrap();
    Some(momentum.step(&grads, 1.0).map(|sent| check(&format, &sent.encode()).unwrap()))
}
