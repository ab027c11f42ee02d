//! The `gather` target: what hostile peers can send, made from bytes so that decoders accept all of it, applied together
//! with honest peers.

use crate::FORMATS;
use gauntlet_demo::outer_step::{self, OuterStep};
use gauntlet_demo::submission::EMPTY;
use gauntlet_demo::{Aggregate, Format, Momentum, StrengthCap, Submission, Subtract, Values, synthetic};
use std::sync::{Arc, LazyLock};

const STEP: OuterStep = OuterStep { lr: 0.25, weight_decay: 0.0, min_gather: 1 };

/// One honest submission of each format.
static HONEST: LazyLock<Vec<Submission>> = LazyLock::new(|| {
    let honest = |format: &Arc<Format>| {
        let mut grads = vec![0.0; format.layout().len()];
        synthetic::gradient(format.layout(), 0, 0, &mut grads);
        let mut momentum = Momentum::new(Arc::clone(format), 0.5, 0, Subtract::Always).unwrap();
        momentum.step(&grads, 1.0).unwrap()
    };
    FORMATS.iter().map(honest).collect()
});

/// Input: the first byte chooses the format, the second the number of hostile peers, the rest what each of them sends.
pub fn gather(data: &[u8]) {
    let mut bytes = Bytes(data);
    let number = usize::from(bytes.next()) % FORMATS.len();
    let (format, honest) = (&FORMATS[number], &HONEST[number]);
    let hostile: Vec<Submission> =
        (0..1 + bytes.next() % 3).map(|_| submission(format, &mut bytes)).collect();

    let first = &hostile[0];
    let (alone, theta) = apply(format, StrengthCap::LowerMedian, [(1, first)]);
    // The median of one, or of two equals, is their own, and the mean of two equals is each.
    assert_eq!(apply(format, StrengthCap::Off, [(1, first)]).0, alone);
    assert_eq!(apply(format, StrengthCap::LowerMedian, [(1, first), (2, first)]).0, alone);
    // Rounding knows no sign.
    let turned: Vec<f32> =
        apply(format, StrengthCap::Off, [(1, &negated(first))]).0.iter().map(|x| -x).collect();
    assert_eq!(turned, alone);
    let mut tried = vec![0.0; theta.len()];
    outer_step::trial(&vec![0.0; theta.len()], first, STEP.lr, 1.0, &mut tried).unwrap();
    assert_eq!(tried, theta);

    let all = || (4..).zip(&hostile).chain([(1, honest), (2, honest), (3, honest)]);
    for cap in [StrengthCap::LowerMedian, StrengthCap::Off] {
        let reversed: Vec<_> = all().collect();
        assert_eq!(apply(format, cap, reversed.into_iter().rev()).0, apply(format, cap, all()).0);
    }
}

/// Δ of a gather, and what it makes of parameters that are 0: each moves by the rate, against Δ's sign.
fn apply<'a>(
    format: &Arc<Format>,
    cap: StrengthCap,
    peers: impl IntoIterator<Item = (u8, &'a Submission)>,
) -> (Vec<f32>, Vec<f32>) {
    let mut gather = Aggregate::new(Arc::clone(format), cap);
    for (hotkey, submission) in peers {
        gather.add([hotkey; 32], submission).unwrap();
    }
    let (mut delta, mut theta) = (vec![0.0_f32; format.layout().len()], vec![0.0; format.layout().len()]);
    outer_step::decode(&gather, &mut delta).unwrap();
    outer_step::apply(&mut theta, &gather, &STEP).unwrap();
    for (delta, theta) in delta.iter().zip(&theta) {
        assert!(delta.is_finite());
        let sign = if *delta == 0.0 { 0.0 } else { delta.signum() };
        assert_eq!(*theta, -STEP.lr * sign);
    }
    (delta, theta)
}

/// All that is sent, with the other sign.
fn negated(submission: &Submission) -> Submission {
    let values = match submission.values() {
        Values::Levels(levels) => Values::Levels(levels.iter().map(|x| -x).collect()),
        // Empty chunks have no zero but the positive one.
        Values::Exact(values) => {
            Values::Exact(values.iter().map(|&x| if x == 0.0 { x } else { -x }).collect())
        }
    };
    let (exponents, indices) = (submission.exponents().to_vec(), submission.indices().to_vec());
    Submission::new(Arc::clone(submission.format()), exponents, indices, values).unwrap()
}

/// Any exponents, any ascending indices, any levels or finite values.
fn submission(format: &Arc<Format>, bytes: &mut Bytes<'_>) -> Submission {
    let (mut exponents, mut indices, mut levels, mut exact) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for tensor in 0..format.layout().tensors().len() {
        let grid = format.grid(tensor).unwrap();
        let k = format.topk().min(grid.chunk_len());
        for _ in 0..grid.chunks() {
            let kind = bytes.next();
            let ascending = bytes.ascending(k, grid.chunk_len());
            let (l, x) = (bytes.levels(format, k), bytes.exact(format, k));
            let largest = x.iter().fold(0.0_f32, |largest, x| largest.max(x.abs()));
            let exponent = if kind < 64 || l.iter().all(|&l| l == 0) && largest == 0.0 {
                EMPTY
            } else if largest == 0.0 {
                bytes.next().cast_signed().into()
            } else {
                floor_log2(largest)
            };
            let sent = exponent != EMPTY;
            exponents.push(exponent);
            indices.extend(ascending.iter().map(|&i| if sent { i } else { 0 }));
            levels.extend(l.iter().map(|&l| if sent { l } else { 0 }));
            exact.extend(x.iter().map(|&x| if sent { x } else { 0.0 }));
        }
    }
    let values = if format.codebook().is_exact() { Values::Exact(exact) } else { Values::Levels(levels) };
    let made = Submission::new(Arc::clone(format), exponents, indices, values).unwrap();
    assert!(Submission::decode(format, &made.encode()).as_ref() == Ok(&made));
    made
}

/// floor(log2 x) of a positive finite x, not below −128.
fn floor_log2(x: f32) -> i16 {
    match x.to_bits() {
        bits if bits < 1 << 22 => -128,
        bits => (bits >> 23) as i16 - 127,
    }
}

/// Bytes of an input, 0 behind its end.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    /// `k` numbers below `end`.
    fn ascending(&mut self, k: usize, end: usize) -> Vec<u16> {
        let (mut at, mut room) = (0, end - k);
        (0..k)
            .map(|_| {
                // One byte, or two where one cannot reach all.
                let high = if room > 255 { usize::from(self.next()) << 8 } else { 0 };
                let gap = (high + usize::from(self.next())) % (room + 1);
                room -= gap;
                at += gap + 1;
                (at - 1) as u16
            })
            .collect()
    }

    /// `k` levels of a codebook that has some, with signs; 0 where it has a code for it.
    fn levels(&mut self, format: &Format, k: usize) -> Vec<i8> {
        let book = format.codebook();
        let count = if book.is_exact() { 0 } else { k };
        (0..count)
            .map(|_| {
                let choice = self.next();
                let sign = if choice >= 128 { -1 } else { 1 };
                let level =
                    usize::from(choice % 128).checked_sub(1).map(|i| book.levels()[i % book.levels().len()]);
                match level {
                    Some(level) => sign * level,
                    None if book.bits() == 1 => sign * book.levels()[0],
                    None => 0,
                }
            })
            .collect()
    }

    /// `k` finite values where values are f32.
    fn exact(&mut self, format: &Format, k: usize) -> Vec<f32> {
        let count = if format.codebook().is_exact() { k } else { 0 };
        (0..count)
            .map(|_| {
                let x = f32::from_le_bytes(std::array::from_fn(|_| self.next()));
                if x.is_finite() { x } else { f32::MAX }
            })
            .collect()
    }
}
