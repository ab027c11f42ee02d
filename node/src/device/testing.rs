//! The device that tests compute on: the kernels on the CPU, or on the GPU that `GAUNTLET_TEST_DEVICE` names.
#![cfg(not(target_feature = "crt-static"))] // the emulation opens a library

use std::path::Path;
use std::sync::Arc;

use gauntlet_gpu::chosen::Chosen;
use gauntlet_model::engine::cuda::{Cuda, F32};
use serde_json::{Map, Value};

use super::place::Named;

/// A device as commands see it, in f32.
pub(crate) type TestPlace = Cuda<Chosen, F32>;

/// The device, with the kernels of engine and DeMo.
pub(crate) fn place() -> TestPlace {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = [root.join("../model/kernels"), root.join("../demo/kernels")];
    // Unit tests have no folder of their own but the one they lie in.
    let program = std::env::current_exe().unwrap();
    let cache = program.parent().unwrap();
    let device = Chosen::new(&[&folders[0], &folders[1]], &super::images(), cache);
    Cuda::new(Arc::new(device.unwrap_or_else(|e| panic!("{e}")))).unwrap()
}

impl Named for Chosen {
    fn name(&self) -> String {
        match self {
            Self::Emulated(_) => "emulated".into(),
            Self::Driver(driver) => driver.name(),
        }
    }

    fn products(&self) -> &'static str {
        match self {
            Self::Emulated(_) => "our own products",
            Self::Driver(driver) => driver.products(),
        }
    }

    fn facts(&self) -> Map<String, Value> {
        match self {
            Self::Emulated(_) => Map::from_iter([("device".to_owned(), "emulated".into())]),
            Self::Driver(driver) => driver.facts(),
        }
    }
}
