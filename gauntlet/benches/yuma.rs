//! Cost of an epoch: 256 neurons, 64 of them validators that weigh everybody.
//!
//! `cargo bench -p gauntlet --bench yuma`

#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use gauntlet::Digest;
use gauntlet::draw::Draw;
use gauntlet::yuma::{Neuron, YumaRules, epoch};
use std::hint::black_box;

fn neurons() -> Vec<Neuron> {
    let mut draw = Draw::new(Digest([1; 32]), "neurons");
    let neuron = |uid: u16| {
        let mut row = || (0..256).map(|target| (target, draw.below(65_536) as u16)).collect();
        let (weights, bonds) = if uid < 64 { (row(), row()) } else { (Vec::new(), Vec::new()) };
        let stake = if uid < 64 { 1_000 + u64::from(uid) } else { 0 };
        Neuron { stake, weights, bonds, last_update: 1, permit: uid < 64, ..Neuron::default() }
    };
    (0..256).map(neuron).collect()
}

fn epochs(c: &mut Criterion) {
    let (rules, neurons) = (YumaRules::default(), neurons());
    c.bench_function("yuma epoch, 256 neurons, 64 validators", |b| {
        b.iter(|| epoch(&rules, black_box(&neurons), 360, 0))
    });
}

criterion_group!(benches, epochs);
criterion_main!(benches);
