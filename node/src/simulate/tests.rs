//! A simulation on the emulated device.
#![cfg(not(target_feature = "crt-static"))] // the emulation opens a library

use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};

use super::*;
use crate::device::testing;
use crate::run::compute::tests::tiny_run;
use crate::simulate::settings::Settings;

#[test]
fn nodes_on_a_device_hold_the_theta_that_the_cpu_gives() {
    let run = tiny_run();
    let settings = Settings {
        peers: spec::peers("honest:2,stale:1").unwrap(),
        validators: spec::validators("1").unwrap(),
        stakes: vec![1],
        windows: 3,
        sequences: 1,
        seed: 1,
        keep_objects: false,
        baseline: true,
    };
    let out = tempfile::tempdir().unwrap();
    let cpu = Cpu::new(1, CodePath::Best).unwrap();
    // Checked: each outer step is compared with the CPU's.
    let compute = Compute::on(testing::place(), cpu, &run, 3).unwrap().checked();
    let mut simulation = Simulation::new(&settings, run, compute, out.path()).unwrap();
    let mut thetas = Vec::new();
    for w in 0..settings.windows {
        let result = simulation.window(w).unwrap().unwrap();
        assert!(result.apart.is_empty() && result.accepted >= 2, "{result:?}");
        assert!(result.train_loss.is_some() && result.validation.is_some() && result.baseline.is_some());
        thetas.push(result.theta);
    }
    thetas.dedup();
    assert_eq!(thetas.len(), 3, "θ moves in every window");
    assert!(simulation.summary(&settings).unwrap().all_agree);
}
