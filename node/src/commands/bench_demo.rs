//! `gauntlet bench demo`: encoding, decoding and trial of submissions.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use gauntlet_demo::MAX_PEERS;
use gauntlet_demo::bench::{Setup, run};
use gauntlet_model::engine::cpu::pool;
use serde_json::{Value, json};
#[cfg(not(target_feature = "crt-static"))]
use {gauntlet_demo::gpu, gauntlet_gpu::Device, gauntlet_gpu::GpuError};

use crate::cli::Usage;
use crate::device::{self, DeviceArgs, Opened};
use crate::memory;

/// What to compress, how.
#[derive(Args)]
pub(crate) struct DemoArgs {
    /// Parameters of the model, about; also as 1.2e9.
    #[arg(long, default_value = "1e8", value_parser = count)]
    params: usize,
    /// Submissions in a gather, 1 to 512.
    #[arg(long, default_value_t = 15)]
    peers: usize,
    /// Coefficients sent of each chunk.
    #[arg(long, default_value_t = 32)]
    topk: usize,
    /// Bits of a value: 1, 2, 3, 4, 8, or 32 for f32 values.
    #[arg(long, default_value_t = 4)]
    bits: u32,
    /// Threads; 0: one a core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Measured runs.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    #[command(flatten)]
    device: DeviceArgs,
}

fn count(text: &str) -> Result<usize, String> {
    let number: f64 = text.replace('_', "").parse().map_err(|_| "expected a number".to_owned())?;
    if !(1e4..=1e12).contains(&number) {
        return Err("expected 1e4 to 1e12".into());
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // in the range just checked
    let number = number as usize;
    Ok(number)
}

pub(crate) fn demo(args: &DemoArgs) -> Result<Value> {
    if !(1..=MAX_PEERS).contains(&args.peers) {
        return Err(Usage(format!("--peers: 1 to {MAX_PEERS}")).into());
    }
    let setup = Setup {
        params: args.params,
        peers: args.peers,
        topk: args.topk,
        bits: args.bits,
        runs: args.runs.max(1),
    };
    let start = Instant::now();
    let clock = || start.elapsed();
    let on_host = |bytes: usize| memory::check(args.params.saturating_mul(bytes), "lower --params");
    let (device, report) = match device::open(args.device.device)? {
        Opened::Cpu => {
            on_host(20)?; // θ, gradient, momentum, its zeros, trial
            let report = pool(args.threads)?.install(|| run(&setup, &clock));
            ("cpu".to_owned(), report.map(|report| json!(report)))
        }
        #[cfg(not(target_feature = "crt-static"))]
        Opened::Gpu(driver) => {
            on_host(8)?; // gradient and zeros, before they are brought to the device
            let (needed, (free, total)) = (gpu::bench::device_bytes(&setup), driver.memory()?);
            if needed > free {
                let problem = anyhow::Error::from(GpuError::Memory { wanted: needed, free, total });
                return Err(problem.context("lower --params or --peers"));
            }
            let found = driver.found();
            let name = format!("cuda:{} ({})", found.ordinal, found.name);
            // The host makes gradients and reads payloads meanwhile.
            let report = pool(args.threads)?.install(|| gpu::bench::run(&driver, &setup, &clock));
            (name, report.map(|report| json!(report)))
        }
    };
    let report = report.map_err(|e| match e {
        gauntlet_demo::Error::Config { .. } => anyhow::Error::from(Usage(e.to_string())),
        e => e.into(),
    })?;
    let mut result = json!({ "bench": "demo", "device": device });
    if let (Value::Object(result), Value::Object(report)) = (&mut result, report) {
        result.extend(report);
    }
    result["peak_rss_bytes"] = json!(memory::peak_rss_bytes());
    Ok(result)
}
