//! Proof 2: the same bits on every path, thread count, profile and processor, and from an independent implementation.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

mod common;

use common::golden::*;
use gauntlet_demo::object::{self, HEADER, Header, KIND_DEMO, TRAILER};
use gauntlet_demo::simd::{Path, Simd};
use gauntlet_demo::{
    Aggregate, Applied, Codebook, Error, Format, Momentum, OuterStep, Schedule, StrengthCap, Submission,
    Subtract, dct, golden, outer_step, state_tag, synthetic, theta_hash,
};
use rayon::ThreadPoolBuilder;
use schnorrkel::{ExpansionMode, MiniSecretKey};
use std::sync::Arc;

#[test]
fn bases_are_the_nearest_f32_to_the_exact_values() {
    for (n, expected) in (1..).zip(golden::BASES) {
        assert_eq!(dct::basis_hash(n).to_string(), expected, "N = {n}");
    }
}

// ---- the gather of tests/peers/demo_golden.py

#[test]
fn an_independent_implementation_gives_the_same_objects_and_state() {
    let expected = [golden::SMALL_OBJECTS, golden::SMALL_DELTA, golden::SMALL_THETA];
    for simd in Simd::available() {
        let format = small_format(book(), simd);
        let (found, theta) = three_windows(&format);
        assert_eq!(found, expected, "{simd:?}");
        assert_eq!(hex(&state_tag(&theta, 3, &[5; 32], &[1; 32])), golden::SMALL_TAG);
    }
}

#[test]
fn an_independent_implementation_gives_the_same_of_a_full_chunk() {
    let expected = [golden::FULL_OBJECTS, golden::FULL_DELTA, golden::FULL_THETA];
    for simd in Simd::available() {
        assert_eq!(three_windows(&full_format(simd)).0, expected, "{simd:?}");
    }
}

#[test]
fn an_independent_implementation_gives_the_same_of_signs_alone() {
    let expected = [golden::ONE_BIT_OBJECTS, golden::ONE_BIT_DELTA, golden::ONE_BIT_THETA];
    for simd in Simd::available() {
        let format = small_format(Codebook::with_bits(1).unwrap(), simd);
        assert_eq!(three_windows(&format).0, expected, "{simd:?}");
    }
}

/// Hashes of objects, Δ and θ, and θ itself.
fn three_windows(format: &Arc<Format>) -> ([String; 3], Vec<f32>) {
    let key = MiniSecretKey::from_bytes(&[7; 32]).unwrap().expand_to_keypair(ExpansionMode::Ed25519);
    let mut theta = small_theta(format);
    let (mut hashes, mut deltas) = (blake3::Hasher::new(), blake3::Hasher::new());
    for window in 0..3 {
        let sent: Vec<_> = (0..PEERS).map(|peer| small_submission(format, window, peer)).collect();
        let mut gather = Aggregate::new(Arc::clone(format), StrengthCap::LowerMedian);
        for (peer, submission) in (1..).zip(&sent) {
            let (run, hotkey, state_tag) = ([9; 32], [peer; 32], [7; 32]);
            let header = Header { kind: KIND_DEMO, run, window, hotkey, count: 16, state_tag };
            let bytes = object::seal_with(&header, &submission.encode(), |hash| object::sign(&key, hash));
            let payload = &bytes[HEADER..bytes.len() - TRAILER];
            assert_eq!(Submission::decode(format, payload).unwrap(), *submission);
            hashes.update(blake3::hash(&bytes[..bytes.len() - TRAILER]).as_bytes());
            gather.add(hotkey, submission).unwrap();
        }
        let mut delta = vec![0.0; theta.len()];
        outer_step::decode(&gather, &mut delta).unwrap();
        deltas.update(&delta_hash(format, &delta));
        let lr = (f64::from(window as u32 + 1) / 300.0) as f32;
        let step = OuterStep { lr, weight_decay: 0.1, min_gather: 3 };
        assert_eq!(outer_step::apply(&mut theta, &gather, &step), Ok(Applied::Stepped));
    }
    let state = hex(&theta_hash(format.layout(), &theta).unwrap());
    ([hashes.finalize().to_string(), deltas.finalize().to_string(), state], theta)
}

// ---- fifty windows from gradients on

fn fifty_windows(simd: Simd) -> String {
    let format = fifty_format(simd);
    let mut peers: Vec<Momentum> = (0..8)
        .map(|peer| {
            let subtract = if peer == 3 { Subtract::WhenRecorded } else { Subtract::Always };
            Momentum::new(Arc::clone(&format), 0.999, 5, subtract).unwrap()
        })
        .collect();
    let mut theta = fifty_theta(&format);
    let mut grads = vec![0.0; theta.len()];
    for window in 0..50 {
        let mut sent = Vec::new();
        for (peer, momentum) in (0..).zip(&mut peers) {
            fifty_gradient(&format, window, peer, &mut grads);
            sent.push(momentum.step(&grads, FIFTY_SCHEDULE.at(window)).unwrap());
            momentum.settle(if window % 3 == 0 {
                gauntlet_demo::Recorded::No
            } else {
                gauntlet_demo::Recorded::Yes
            });
        }
        let mut gather = Aggregate::new(Arc::clone(&format), StrengthCap::LowerMedian);
        for (peer, submission) in (0..).zip(&sent) {
            gather.add([peer; 32], submission).unwrap();
        }
        // The last chunk is the subnormal tensor's: what it sends lies at the end of what an i8 exponent can say.
        let last = sent.iter().filter_map(|s| s.exponents().last()).max().unwrap();
        assert!(window < 5 || (-128..-110).contains(last), "{last}");
        let step = OuterStep { lr: FIFTY_SCHEDULE.at(window), weight_decay: 0.1, min_gather: 3 };
        outer_step::apply(&mut theta, &gather, &step).unwrap();
    }
    hex(&theta_hash(format.layout(), &theta).unwrap())
}

/// Paths that must not be skipped: those named in `GAUNTLET_REQUIRE_PATHS`, such as `avx2,avx512`.
fn required_paths() -> Vec<Path> {
    let names = std::env::var("GAUNTLET_REQUIRE_PATHS").unwrap_or_default();
    let path = |name: &str| match name {
        "portable" => Path::Portable,
        "avx2" => Path::Avx2,
        "avx512" => Path::Avx512,
        _ => panic!("GAUNTLET_REQUIRE_PATHS: `{name}` is none of portable, avx2, avx512"),
    };
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(path).collect()
}

/// The same state on a path, for any number of threads.
fn on_path(path: Path, run: impl Fn(Simd) -> String + Sync, expected: &str) {
    let required = required_paths().contains(&path);
    let Some(simd) = Simd::with_path(path) else {
        assert!(!required, "GAUNTLET_REQUIRE_PATHS names {path:?}, which this processor does not have");
        println!("skipped: this processor has no {path:?}");
        return;
    };
    for threads in [1, 2, 3] {
        let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        assert_eq!(pool.install(|| run(simd)), expected, "{path:?}, {threads} threads");
    }
}

fn fifty_windows_on(path: Path) {
    on_path(path, fifty_windows, golden::FIFTY_WINDOWS);
}

#[test]
fn fifty_windows_portable() {
    fifty_windows_on(Path::Portable);
}

#[test]
fn fifty_windows_avx2() {
    fifty_windows_on(Path::Avx2);
}

#[test]
fn fifty_windows_avx512() {
    fifty_windows_on(Path::Avx512);
}

// ---- tensors that several threads share

/// Every submission of three windows, a trial in each, and θ after them.
fn large_windows(simd: Simd) -> String {
    let format = large_format(simd);
    let layout = format.layout();
    let mut peers: Vec<Momentum> =
        (0..4).map(|_| Momentum::new(Arc::clone(&format), 0.999, 1, Subtract::Always).unwrap()).collect();
    let mut theta: Vec<f32> = (0..layout.len() as u64).map(|i| 0.02 * synthetic::normal(i)).collect();
    let (mut grads, mut tried) = (vec![0.0; theta.len()], vec![0.0; theta.len()]);
    let mut hasher = blake3::Hasher::new();
    for window in 0..3 {
        let sent: Vec<_> = (0..)
            .zip(&mut peers)
            .map(|(peer, momentum)| {
                synthetic::gradient(layout, window, peer, &mut grads);
                momentum.step(&grads, 0.01).unwrap()
            })
            .collect();
        let mut gather = Aggregate::new(Arc::clone(&format), StrengthCap::LowerMedian);
        for (peer, submission) in (0..).zip(&sent) {
            hasher.update(&submission.encode());
            gather.add([peer; 32], submission).unwrap();
        }
        outer_step::trial(&theta, &sent[0], 0.01, 0.5, &mut tried).unwrap();
        hasher.update(&theta_hash(layout, &tried).unwrap());
        let step = OuterStep { lr: 0.01, weight_decay: 0.1, min_gather: 3 };
        outer_step::apply(&mut theta, &gather, &step).unwrap();
    }
    hasher.update(&theta_hash(layout, &theta).unwrap());
    hasher.finalize().to_string()
}

#[test]
fn tensors_in_pieces_portable() {
    on_path(Path::Portable, large_windows, golden::LARGE);
}

#[test]
fn tensors_in_pieces_avx2() {
    on_path(Path::Avx2, large_windows, golden::LARGE);
}

#[test]
fn tensors_in_pieces_avx512() {
    on_path(Path::Avx512, large_windows, golden::LARGE);
}

// ---- what an outer step refuses

#[test]
fn the_order_of_arrival_does_not_matter() {
    let format = small_format(book(), Simd::detect());
    let sent: Vec<_> = (0..PEERS).map(|peer| small_submission(&format, 1, peer)).collect();
    let mut states = Vec::new();
    for start in 0..PEERS as usize {
        let mut gather = Aggregate::new(Arc::clone(&format), StrengthCap::LowerMedian);
        for i in 0..PEERS as usize {
            let peer = (start + 2 * i) % PEERS as usize;
            gather.add([peer as u8; 32], &sent[peer]).unwrap();
        }
        assert_eq!(gather.add([2; 32], &sent[0]), Err(Error::DuplicatePeer { hotkey: [2; 32] }));
        let mut theta = vec![0.5; format.layout().len()];
        let step = OuterStep { lr: 0.01, weight_decay: 0.0, min_gather: 5 };
        outer_step::apply(&mut theta, &gather, &step).unwrap();
        states.push(theta);
    }
    assert!(states.iter().all(|state| *state == states[0]));
}

#[test]
fn too_few_submissions_make_no_step() {
    let format = small_format(book(), Simd::detect());
    let sent = small_submission(&format, 0, 0);
    let mut gather = Aggregate::new(Arc::clone(&format), StrengthCap::LowerMedian);
    gather.add([0; 32], &sent).unwrap();
    let mut theta = vec![0.5; format.layout().len()];
    let step = OuterStep { lr: 0.01, weight_decay: 0.1, min_gather: 2 };
    assert_eq!(outer_step::apply(&mut theta, &gather, &step), Ok(Applied::TooFew));
    assert!(theta.iter().all(|&x| x == 0.5));
}

#[test]
fn a_trial_is_a_gather_of_one_without_decay_and_leaves_theta() {
    for simd in Simd::available() {
        let format = small_format(book(), simd);
        let sent = small_submission(&format, 2, 4);
        let theta: Vec<f32> = (0..format.layout().len() as u64).map(synthetic::normal).collect();
        let mut out = vec![f32::NAN; theta.len()];
        outer_step::trial(&theta, &sent, 0.01, 0.2, &mut out).unwrap();
        let mut gather = Aggregate::new(Arc::clone(&format), StrengthCap::Off);
        gather.add([0; 32], &sent).unwrap();
        let mut expected = theta.clone();
        let lr = (f64::from(0.2_f32) * f64::from(0.01_f32)) as f32;
        let step = OuterStep { lr, weight_decay: 0.0, min_gather: 1 };
        outer_step::apply(&mut expected, &gather, &step).unwrap();
        assert_eq!(out, expected, "{simd:?}");
    }
}

#[test]
fn rates_and_buffers_that_cannot_be_are_refused() {
    let format = small_format(book(), Simd::detect());
    let sent = small_submission(&format, 0, 0);
    let mut gather = Aggregate::new(Arc::clone(&format), StrengthCap::Off);
    gather.add([0; 32], &sent).unwrap();
    let mut theta = vec![0.0; format.layout().len()];
    for lr in [f32::NAN, f32::INFINITY, -1.0] {
        let step = OuterStep { lr, weight_decay: 0.0, min_gather: 1 };
        let refused = outer_step::apply(&mut theta, &gather, &step);
        assert!(matches!(refused, Err(Error::Config { field: "learning_rate", .. })));
    }
    for weight_decay in [f64::NAN, f64::INFINITY, -0.1] {
        let step = OuterStep { lr: 0.1, weight_decay, min_gather: 1 };
        let refused = outer_step::apply(&mut theta, &gather, &step);
        assert!(matches!(refused, Err(Error::Config { field: "weight_decay", .. })));
    }
    let step = OuterStep { lr: 0.1, weight_decay: 0.0, min_gather: 1 };
    assert!(matches!(outer_step::apply(&mut theta[1..], &gather, &step), Err(Error::Length { .. })));
    let other = Format::new(format.layout().clone(), 32, 6, format.codebook().clone()).unwrap();
    assert_eq!(Aggregate::new(other, StrengthCap::Off).add([0; 32], &sent), Err(Error::Format));
}

#[test]
fn rates_are_the_nearest_f32_to_the_exact_values() {
    let schedule = Schedule { peak: 0.004, warmup: 37, t_max: 311, floor: 0.1 };
    let rates: Vec<u8> = (0..400).flat_map(|steps| schedule.at(steps).to_le_bytes()).collect();
    assert_eq!(blake3::hash(&rates).to_hex().as_str(), golden::RATES);
}
