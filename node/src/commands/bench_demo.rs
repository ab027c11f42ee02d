//! `gauntlet bench demo`: encoding, decoding and trial of submissions.

use std::time::Instant;

use anyhow::Result;
use clap::Args;
use gauntlet_demo::MAX_PEERS;
use gauntlet_demo::bench::{Setup, host_bytes, run};
use gauntlet_model::engine::cpu::pool;
use serde_json::{Value, json};
#[cfg(not(target_feature = "crt-static"))]
use {gauntlet_demo::gpu, gauntlet_gpu::Device, gauntlet_gpu::GpuError};

use crate::cli::Usage;
use crate::device::{self, DeviceArgs, Opened};
use crate::memory;
use crate::train::demo::wrong_flag;

/// What to compress, how.
#[derive(Args)]
#[command(allow_negative_numbers = true)]
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
    /// Measured runs, at least 1.
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
    if args.runs == 0 {
        return Err(Usage("--runs: must be at least 1".into()).into());
    }
    let DemoArgs { params, peers, topk, bits, runs, .. } = *args;
    let setup = Setup { params, peers, topk, bits, runs };
    let start = Instant::now();
    let clock = || start.elapsed();
    let wrong = |error: gauntlet_demo::Error| match error {
        gauntlet_demo::Error::Config { .. } => anyhow::Error::from(wrong_flag(&error)),
        error => error.into(),
    };
    let (device, report) = match device::open(args.device.device)? {
        Opened::Cpu => {
            memory::check(host_bytes(&setup).map_err(wrong)?, "lower --params, --peers or --topk")?;
            let report = pool(args.threads)?.install(|| run(&setup, &clock));
            ("cpu".to_owned(), report.map(|report| json!(report)))
        }
        #[cfg(not(target_feature = "crt-static"))]
        Opened::Gpu(driver) => {
            // Gradient and zeros, before they are brought to the device.
            memory::check(params.saturating_mul(8), "lower --params")?;
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
    let report = report.map_err(wrong)?;
    let mut result = json!({ "bench": "demo", "device": device });
    if let (Value::Object(result), Value::Object(report)) = (&mut result, report) {
        result.extend(report);
    }
    result["peak_rss_bytes"] = json!(memory::peak_rss_bytes());
    Ok(result)
}
