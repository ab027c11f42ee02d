//! DeMo on a device beside DeMo on the host: equal gradients give the same submissions, momenta and θ.
#![cfg(not(target_feature = "crt-static"))] // the emulation opens a library

use gauntlet_demo::synthetic;
use gauntlet_model::engine::ViewMut;
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use gauntlet_model::{LlamaConfig, init, preset};

use super::*;
use crate::device::testing;
use crate::train::demo::{DemoSettings, Subtracted};
use crate::train::optimizer::Kind;

const WORKERS: usize = 3;

fn settings(demo: DemoSettings) -> Settings {
    Settings { optimizer: Kind::Demo, workers: WORKERS, demo, ..Settings::default() }
}

fn shape() -> LlamaConfig {
    let (hidden_size, head_dim) = (32, 16);
    let base = preset("byte-1m").unwrap();
    LlamaConfig {
        hidden_size,
        head_dim,
        intermediate_size: 96,
        n_layers: 1,
        n_heads: 2,
        n_kv_heads: 2,
        ..base
    }
}

/// Workers on one place, with its θ and gradients.
struct Side<P: Place> {
    place: P,
    workers: Workers,
    theta: P::Buf,
    grads: P::Buf,
}

impl<P: Place> Side<P> {
    fn new(place: P, settings: &Settings, layout: &Layout) -> Self {
        let start = |theta: &mut [f32]| {
            init::init(layout, 5, theta);
            Ok(())
        };
        let (theta, ()) = place.make(layout.total(), start).unwrap();
        let grads = place.alloc(layout.total()).unwrap();
        let workers = Workers::new(settings, layout, &place).unwrap();
        Self { place, workers, theta, grads }
    }

    /// Every worker's submission, on gradients that follow from step and worker, then the outer step; what was sent.
    fn step(&mut self, step: u64) -> Sent {
        let mut host = vec![0.0; self.workers.format.layout().len()];
        self.workers.open(&self.place, &self.theta, step).unwrap();
        for worker in 0..WORKERS {
            synthetic::gradient(self.workers.format.layout(), step, worker as u64, &mut host);
            let to = ViewMut { buf: &mut self.grads, start: 0, len: host.len() };
            self.place.upload(&host, to).unwrap();
            let turn = Turn { worker, step, sequences: 4 };
            let clip = 1.0 / (worker + 1) as f64;
            self.workers.submit(&self.place, turn, &self.grads, (0.01, clip)).unwrap();
        }
        self.workers.apply(&self.place, &mut self.theta, 0.01, step).unwrap()
    }

    fn momenta(&self) -> Vec<Vec<u32>> {
        let bits =
            |worker| self.workers.momentum(worker).unwrap().unwrap().iter().map(|m| m.to_bits()).collect();
        (0..WORKERS).map(bits).collect()
    }

    fn theta(&self) -> Vec<u32> {
        self.place.host(&self.theta).unwrap().iter().map(|x| x.to_bits()).collect()
    }
}

fn compare(demo: DemoSettings, on_device: bool) {
    let (settings, layout) = (settings(demo), Layout::new(&shape()));
    let mut here = Side::new(Cpu::new(1, CodePath::Best).unwrap(), &settings, &layout);
    let mut there = Side::new(testing::place(), &settings, &layout);
    assert_eq!(there.workers.gathered.is_some(), on_device);
    for step in 0..5 {
        let before = here.theta();
        let (sent, same) = (here.step(step), there.step(step));
        assert!(here.workers.sent == there.workers.sent, "step {step}: objects, with state tags of θ");
        assert_eq!(sent.bytes, same.bytes);
        let bits = there.workers.bits_per_index().unwrap();
        assert_eq!((sent.bits_per_index, same.bits_per_index), (bits, bits.filter(|_| !on_device)));
        assert!(here.theta() != before && here.theta() == there.theta(), "step {step}: θ");
        assert!(here.momenta() == there.momenta(), "step {step}: momenta");
        if step == 2 {
            // Off the device and on again, each from what the other saved.
            for worker in 0..WORKERS {
                let saved = there.workers.momentum(worker).unwrap().unwrap().into_owned();
                here.workers.restore(worker, &saved, step + 1).unwrap();
                there.workers.restore(worker, &saved, step + 1).unwrap();
            }
        }
    }
}

#[test]
fn equal_gradients_give_the_same_bits_on_a_device() {
    let base = DemoSettings { topk: 8, momentum_warmup: 1, ..DemoSettings::default() };
    compare(base.clone(), true);
    let some =
        DemoSettings { gather: 2, subtract: Subtracted::WhenRecorded, bits: 4, strength_cap: false, ..base };
    compare(some, true);
}

#[test]
fn f32_values_stay_on_the_host() {
    compare(DemoSettings { bits: 32, topk: 8, ..DemoSettings::default() }, false);
}
