//! The kernels and their launches: the same bits as this crate's own code. They run on the CPU, or on the GPU that
//! `GAUNTLET_TEST_DEVICE` names.
//!
//! Inputs are fresh in every run; a failure names the seed, and `GAUNTLET_TEST_SEED` repeats it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test stops at the first surprise")]

mod common;

use common::golden::*;
use common::inputs::*;
use gauntlet_demo::gpu::{self, Buffer, Tables};
use gauntlet_demo::{
    Aggregate, Applied, Codebook, Error, Format, MAX_PEERS, Momentum, OuterStep, Recorded, StrengthCap,
    Submission, Subtract, bench, golden, outer_step, simd::Simd, synthetic, theta_hash,
};
use gauntlet_gpu::chosen::Chosen;
use std::path::Path;
use std::sync::{Arc, LazyLock};

/// One for all tests of a process: a GPU takes its time to open, and to load the kernels.
static DEVICE: LazyLock<Arc<Chosen>> = LazyLock::new(|| {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let chosen = Chosen::new(&[&kernels], &[gpu::FAT_BINARY], Path::new(env!("CARGO_TARGET_TMPDIR")));
    Arc::new(chosen.unwrap_or_else(|e| panic!("{e}")))
});

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

/// The first place where two lists differ.
#[track_caller]
fn same<T: PartialEq + std::fmt::Debug>(found: &[T], expected: &[T], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    if let Some(at) = found.iter().zip(expected).position(|(a, b)| a != b) {
        panic!("{what}: {at} is {:?}, not {:?}", found[at], expected[at]);
    }
}

#[track_caller]
fn same_submission(found: &Submission, expected: &Submission, what: &str) {
    same(found.exponents(), expected.exponents(), &format!("{what}: exponents"));
    same(found.indices(), expected.indices(), &format!("{what}: indices"));
    assert_eq!(found.values(), expected.values(), "{what}: levels");
}

/// Six windows of one peer on both, the fourth and fifth without anything new.
fn compare_momenta(device: &Arc<Chosen>, format: &Arc<Format>, subtract: Subtract, seed: u64) {
    let tables = Tables::new(Arc::clone(device), Arc::clone(format)).unwrap();
    let mut expected = Momentum::new(Arc::clone(format), 0.9, 1, subtract).unwrap();
    let mut gather = gpu::Gather::new(Arc::clone(&tables), 1).unwrap();
    let mut found = gpu::Momentum::new(Arc::clone(&tables), 0.9, 1, subtract).unwrap();
    let mut repeated = gpu::Momentum::new(tables, 0.9, 1, subtract).unwrap();
    for window in 0..6 {
        let grads = gradient(format.layout(), seed, window);
        let on_device = Buffer::from_slice(device, &grads).unwrap();
        let what = format!("seed {seed}, {format:?}, {subtract:?}, window {window}");
        let sent = expected.step(&grads, 0.25).unwrap();
        let got = found.step(on_device.view(), 0.25).unwrap();
        same_submission(&got, &sent, &what);
        let payload = sent.encode();
        same(&repeated.step_payload(on_device.view(), 0.25).unwrap(), &payload, &format!("{what}: bytes"));
        gather.clear();
        gather.add_payload([1; 32], &payload).unwrap();
        same_submission(&gather.submission(0).unwrap(), &sent, &format!("{what}: read"));
        let recorded = if window % 2 == 0 { Recorded::Yes } else { Recorded::No };
        expected.settle(recorded);
        found.settle(recorded).unwrap();
        repeated.settle(recorded).unwrap();
        same(&bits(&found.coefficients().unwrap()), &bits(expected.coefficients()), &format!("{what}: m"));
    }
    assert_eq!(found.submissions(), expected.submissions());
}

#[test]
fn momenta_and_submissions_are_the_cpus() {
    let device = &*DEVICE;
    let seed = seed();
    for (number, (shapes, topk, book)) in (0..).zip(formats()) {
        let format = odd_format(&shapes, topk, book);
        let subtract = if number % 2 == 0 { Subtract::Always } else { Subtract::WhenRecorded };
        compare_momenta(device, &format, subtract, seed + number);
    }
}

#[test]
fn more_groups_than_a_block_places_at_a_time() {
    let device = &*DEVICE;
    let seed = seed();
    // 333 groups: of one chunk but for two tensors of 65 and 130 chunks.
    let small = (0..330).map(|i| vec![2 + i % 3, 1 + i % 5]);
    let shapes: Vec<_> = small.chain([vec![65 * 64, 3], vec![2, 130 * 64]]).collect();
    compare_momenta(device, &odd_format(&shapes, 2, Codebook::with_bits(3).unwrap()), Subtract::Always, seed);
}

#[test]
fn what_is_not_finite_names_its_tensor_and_keeps_its_chunk() {
    let device = &*DEVICE;
    let seed = seed();
    let format = odd_format(&[vec![128, 64], vec![64, 64], vec![70]], 8, Codebook::with_bits(3).unwrap());
    let tables = Tables::new(Arc::clone(device), Arc::clone(&format)).unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut expected = Momentum::new(Arc::clone(&format), 0.9, 0, Subtract::Always).unwrap();
        let mut found = gpu::Momentum::new(Arc::clone(&tables), 0.9, 0, Subtract::Always).unwrap();
        let start = gradient(format.layout(), seed, 0);
        expected.restore(&start, 3).unwrap();
        found.restore(&start, 3).unwrap();
        let mut grads = gradient(format.layout(), seed, 1);
        for at in [128 * 64 + 4095, 128 * 64 + 4096 + 69] {
            grads[at] = bad;
        }
        let on_device = Buffer::from_slice(device, &grads).unwrap();
        let error = expected.step(&grads, 0.5).unwrap_err();
        assert_eq!(error, Error::NonFinite { tensor: "t01".into() });
        assert_eq!(found.step(on_device.view(), 0.5).unwrap_err(), error);
        same(&bits(&found.coefficients().unwrap()), &bits(expected.coefficients()), "m");
        assert_eq!(found.submissions(), 3);
    }
}

fn hotkey(peer: u32) -> [u8; 32] {
    let mut hotkey = [0; 32];
    hotkey[..4].copy_from_slice(&peer.to_be_bytes());
    hotkey
}

/// Δ, the outer step and the trial of a gather, on both.
fn compare_gathers(
    device: &Arc<Chosen>,
    format: &Arc<Format>,
    sent: &[Submission],
    cap: StrengthCap,
    what: &str,
) {
    let tables = Tables::new(Arc::clone(device), Arc::clone(format)).unwrap();
    let mut expected = Aggregate::new(Arc::clone(format), cap);
    let mut found = gpu::Gather::new(tables, (sent.len() + 1).min(MAX_PEERS)).unwrap();
    // Arrival in another order.
    for (peer, submission) in (0..).zip(sent) {
        expected.add(hotkey(peer), submission).unwrap();
    }
    for (peer, submission) in sent.iter().enumerate().rev() {
        found.add(hotkey(peer as u32), submission).unwrap();
    }
    let len = format.layout().len();
    let mut delta = vec![0.0; len];
    outer_step::decode(&expected, &mut delta).unwrap();
    let mut poisoned = Buffer::from_slice(device, &vec![f32::NAN; len]).unwrap();
    found.decode(cap, poisoned.view_mut()).unwrap();
    let unsigned = |x: &[f32]| x.iter().map(|x| (x + 0.0).to_bits()).collect::<Vec<_>>();
    same(&unsigned(&poisoned.to_vec().unwrap()), &unsigned(&delta), &format!("{what}: Δ"));

    let mut theta = gradient(format.layout(), 77, 5);
    let mut on_device = Buffer::from_slice(device, &theta).unwrap();
    let step = OuterStep { lr: 0.01, weight_decay: 0.1, min_gather: 1 };
    poisoned.upload(0, &vec![f32::NAN; len]).unwrap();
    let start = bits(&theta);
    assert_eq!(found.apply_to(on_device.view(), cap, &step, poisoned.view_mut()), Ok(Applied::Stepped));
    same(&bits(&on_device.to_vec().unwrap()), &start, &format!("{what}: θ stays"));
    assert_eq!(outer_step::apply(&mut theta, &expected, &step), Ok(Applied::Stepped));
    assert_eq!(found.apply(on_device.view_mut(), cap, &step), Ok(Applied::Stepped));
    same(&bits(&poisoned.to_vec().unwrap()), &bits(&theta), &format!("{what}: θ elsewhere"));
    same(&bits(&on_device.to_vec().unwrap()), &bits(&theta), &format!("{what}: θ"));

    let mut trial = vec![0.0; len];
    // Each place is a launch: of many peers the first will do.
    for (place, sent) in sent.iter().rev().enumerate().take(8) {
        outer_step::trial(&theta, sent, 0.01, 0.2, &mut trial).unwrap();
        poisoned.upload(0, &vec![f32::NAN; len]).unwrap();
        found.trial(on_device.view(), place, 0.01, 0.2, poisoned.view_mut()).unwrap();
        same(&bits(&poisoned.to_vec().unwrap()), &bits(&trial), &format!("{what}: trial {place}"));
        poisoned.upload(0, &theta).unwrap();
        found.trial_in_place(poisoned.view_mut(), place, 0.01, 0.2).unwrap();
        same(&bits(&poisoned.to_vec().unwrap()), &bits(&trial), &format!("{what}: trial {place} in place"));
    }
    let beyond = found.trial(on_device.view(), sent.len(), 0.01, 0.2, poisoned.view_mut());
    assert!(matches!(beyond, Err(Error::Length { .. })));
    same(&bits(&on_device.to_vec().unwrap()), &bits(&theta), &format!("{what}: θ stays"));
}

#[test]
fn gathers_and_steps_are_the_cpus() {
    let device = &*DEVICE;
    let seed = seed();
    for (number, (shapes, topk, book)) in (0..).zip(formats()) {
        let format = odd_format(&shapes, topk, book);
        for (peers, cap) in [(1, StrengthCap::Off), (7, StrengthCap::LowerMedian)] {
            let sent: Vec<_> =
                (0..peers).map(|peer| submission(&format, seed + 100 * number + peer, peer)).collect();
            let what = format!("seed {seed}, {format:?}, {peers} peers, {cap:?}");
            compare_gathers(device, &format, &sent, cap, &what);
        }
    }
}

#[test]
fn payloads_are_refused_as_on_the_cpu() {
    let device = &*DEVICE;
    let seed = seed();
    let mut refused = 0;
    for (shapes, topk, book) in formats() {
        let format = odd_format(&shapes, topk, book);
        let tables = Tables::new(Arc::clone(device), Arc::clone(&format)).unwrap();
        let mut gather = gpu::Gather::new(tables, 2).unwrap();
        // What lies in the place before must not show.
        gather.add([9; 32], &submission(&format, seed, 3)).unwrap();
        let payload = submission(&format, seed + 1, 1).encode();
        for change in 0..60 {
            let mut bytes = payload.clone();
            let at = (synthetic::mix(seed + change) % bytes.len() as u64) as usize;
            match change % 6 {
                0..=3 => bytes[at] ^= 1 << (change / 6 % 8),
                4 => bytes.truncate(at),
                _ => bytes.extend(vec![0; at % 9]),
            }
            gather.clear();
            let what = format!("seed {seed}, {format:?}, change {change} at {at}");
            match (gather.add_payload([1; 32], &bytes), Submission::decode(&format, &bytes)) {
                (Ok(()), Ok(sent)) => same_submission(&gather.submission(0).unwrap(), &sent, &what),
                (found, expected) => {
                    assert_eq!(found.err(), expected.err(), "{what}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

#[test]
fn more_coefficients_than_are_summed_at_a_time() {
    let device = &*DEVICE;
    let seed = seed();
    for (shape, topk) in
        [(vec![128, 64], 4096), (vec![64, 128], 300), (vec![63, 61], 700), (vec![64, 18], 1100)]
    {
        let format = odd_format(&[shape], topk, Codebook::with_bits(8).unwrap());
        let sent: Vec<_> = (0..5).map(|peer| submission(&format, seed + peer, peer)).collect();
        compare_gathers(device, &format, &sent, StrengthCap::LowerMedian, &format!("seed {seed}, k {topk}"));
    }
}

#[test]
fn opposite_submissions_cancel_and_nothing_decays_theta_alone() {
    let device = &*DEVICE;
    let seed = seed();
    let format = odd_format(&[vec![64, 64], vec![50]], 16, Codebook::with_bits(3).unwrap());
    let sent = submission(&format, seed, 0);
    let negated = negated(&sent);
    compare_gathers(device, &format, &[sent, negated], StrengthCap::LowerMedian, &format!("seed {seed}"));
    let silent = Submission::empty(Arc::clone(&format));
    compare_gathers(device, &format, &[silent.clone(), silent], StrengthCap::LowerMedian, "silent");
}

#[test]
fn the_lower_median_of_many_peers() {
    let device = &*DEVICE;
    let seed = seed();
    // Several chunks: of one alone all energies are those of unit norm.
    let format = odd_format(&[vec![130]], 3, Codebook::with_bits(3).unwrap());
    // Everyone's own strength, and everyone's as often as not; fewer and more than a block has threads.
    for (peers, cycle) in [(2, 2), (31, 31), (64, 32), (255, 100), (MAX_PEERS as u64, 300)] {
        let sent: Vec<_> =
            (0..peers).map(|peer| submission(&format, seed + peer % cycle, peer % cycle)).collect();
        compare_gathers(
            device,
            &format,
            &sent,
            StrengthCap::LowerMedian,
            &format!("seed {seed}, {peers} peers"),
        );
    }
}

#[test]
fn an_independent_implementation_gives_the_same_state() {
    let device = &*DEVICE;
    let one_bit = Codebook::with_bits(1).unwrap();
    for (book, delta_golden, theta_golden) in [
        (book(), golden::SMALL_DELTA, golden::SMALL_THETA),
        (one_bit, golden::ONE_BIT_DELTA, golden::ONE_BIT_THETA),
    ] {
        let format = small_format(book, Simd::detect());
        let tables = Tables::new(Arc::clone(device), Arc::clone(&format)).unwrap();
        let mut gather = gpu::Gather::new(tables, PEERS as usize).unwrap();
        let mut theta = Buffer::from_slice(device, &small_theta(&format)).unwrap();
        let mut deltas = blake3::Hasher::new();
        for window in 0..3 {
            gather.clear();
            for (peer, number) in (1..).zip(0..PEERS) {
                gather.add([peer; 32], &small_submission(&format, window, number)).unwrap();
            }
            let mut delta = Buffer::zeros(device, format.layout().len()).unwrap();
            gather.decode(StrengthCap::LowerMedian, delta.view_mut()).unwrap();
            deltas.update(&delta_hash(&format, &delta.to_vec().unwrap()));
            let lr = (f64::from(window as u32 + 1) / 300.0) as f32;
            let step = OuterStep { lr, weight_decay: 0.1, min_gather: 3 };
            gather.apply(theta.view_mut(), StrengthCap::LowerMedian, &step).unwrap();
        }
        assert_eq!(deltas.finalize().to_string(), delta_golden);
        let theta = theta.to_vec().unwrap();
        assert_eq!(hex(&theta_hash(format.layout(), &theta).unwrap()), theta_golden);
    }
}

#[test]
fn fifty_windows_from_gradients_on_give_the_golden_state() {
    let device = &*DEVICE;
    let format = fifty_format(Simd::detect());
    let tables = Tables::new(Arc::clone(device), Arc::clone(&format)).unwrap();
    let mut peers: Vec<_> = (0..8)
        .map(|peer| {
            let subtract = if peer == 3 { Subtract::WhenRecorded } else { Subtract::Always };
            gpu::Momentum::new(Arc::clone(&tables), 0.999, 5, subtract).unwrap()
        })
        .collect();
    let mut gather = gpu::Gather::new(tables, peers.len()).unwrap();
    let mut theta = Buffer::from_slice(device, &fifty_theta(&format)).unwrap();
    let mut grads = vec![0.0; theta.len()];
    let mut on_device = Buffer::zeros(device, grads.len()).unwrap();
    for window in 0..50 {
        gather.clear();
        for (peer, momentum) in (0..).zip(&mut peers) {
            fifty_gradient(&format, window, peer, &mut grads);
            on_device.upload(0, &grads).unwrap();
            let sent = momentum.step(on_device.view(), FIFTY_SCHEDULE.at(window)).unwrap();
            momentum.settle(if window % 3 == 0 { Recorded::No } else { Recorded::Yes }).unwrap();
            gather.add([peer as u8; 32], &Submission::decode(&format, &sent.encode()).unwrap()).unwrap();
        }
        let step = OuterStep { lr: FIFTY_SCHEDULE.at(window), weight_decay: 0.1, min_gather: 3 };
        gather.apply(theta.view_mut(), StrengthCap::LowerMedian, &step).unwrap();
    }
    let hash = theta_hash(format.layout(), &theta.to_vec().unwrap()).unwrap();
    assert_eq!(hex(&hash), golden::FIFTY_WINDOWS);
}

#[test]
fn the_benchmark_ends_with_the_cpus_state() {
    let device = &*DEVICE;
    let setup = bench::Setup { params: 60_000, peers: 3, topk: 32, bits: 3, runs: 2 };
    let start = std::time::Instant::now();
    let clock = || start.elapsed();
    let found = gpu::bench::run(device, &setup, &clock).unwrap();
    let expected = bench::run(&setup, &clock).unwrap();
    assert_eq!((found.params, found.theta_hash), (expected.params, expected.theta_hash));
    assert!(found.encode_over_traffic > 0.0 && found.apply_over_traffic > 0.0);
}

#[test]
fn what_cannot_be_is_refused() {
    let device = &*DEVICE;
    let format = small_format(book(), Simd::detect());
    let tables = Tables::new(Arc::clone(device), Arc::clone(&format)).unwrap();
    let exact = odd_format(&[vec![64]], 4, Codebook::with_bits(32).unwrap());
    let refused = Tables::new(Arc::clone(device), exact).err();
    assert!(matches!(refused, Some(Error::Config { field: "bits", .. })));
    let refused = gpu::Momentum::new(Arc::clone(&tables), 1.5, 0, Subtract::Always).err();
    assert!(matches!(refused, Some(Error::Config { field: "decay", .. })));
    let mut momentum = gpu::Momentum::new(Arc::clone(&tables), 0.9, 0, Subtract::Always).unwrap();
    let mut short = Buffer::zeros(device, 7).unwrap();
    assert!(matches!(momentum.step(short.view(), 0.1), Err(Error::Length { .. })));
    assert!(matches!(momentum.restore(&[0.0; 7], 0), Err(Error::Length { .. })));
    let mut saved = momentum.coefficients().unwrap();
    saved[15 * 70] = f32::INFINITY;
    assert_eq!(momentum.restore(&saved, 0), Err(Error::SavedNonFinite { tensor: "b".into() }));
    assert!(matches!(short.upload(5, &[0.0; 3]), Err(Error::Length { .. })));
    assert!(matches!(short.download(5..8), Err(Error::Length { .. })));

    let mut gather = gpu::Gather::new(tables, 2).unwrap();
    let sent: Vec<_> = (0..3).map(|peer| small_submission(&format, 0, peer)).collect();
    gather.add([1; 32], &sent[0]).unwrap();
    assert_eq!(gather.add([1; 32], &sent[1]), Err(Error::DuplicatePeer { hotkey: [1; 32] }));
    gather.add([2; 32], &sent[1]).unwrap();
    assert_eq!(gather.add([3; 32], &sent[2]), Err(Error::TooManyPeers { limit: 2 }));
    let other = odd_format(&[vec![64]], 4, Codebook::with_bits(3).unwrap());
    assert_eq!(gather.add([3; 32], &Submission::empty(other)), Err(Error::Format));
    let mut theta = Buffer::from_slice(device, &small_theta(&format)).unwrap();
    let cap = StrengthCap::LowerMedian;
    let step = |lr, min_gather| OuterStep { lr, weight_decay: 0.1, min_gather };
    assert_eq!(gather.apply(theta.view_mut(), cap, &step(0.1, 3)), Ok(Applied::TooFew));
    let few = step(0.1, 3);
    assert_eq!(gather.apply_to(theta.view(), cap, &few, short.view_mut()), Ok(Applied::TooFew));
    assert_eq!(theta.to_vec().unwrap(), small_theta(&format));
    assert!(matches!(gather.apply(theta.view_mut(), cap, &step(f32::NAN, 1)), Err(Error::Config { .. })));
    let nan = OuterStep { weight_decay: f64::NAN, ..step(0.1, 1) };
    assert!(matches!(gather.apply(theta.view_mut(), cap, &nan), Err(Error::Config { .. })));
    assert!(matches!(gather.apply_to(theta.view(), cap, &nan, short.view_mut()), Err(Error::Config { .. })));
    assert!(matches!(gather.apply(short.view_mut(), cap, &step(0.1, 1)), Err(Error::Length { .. })));
}
