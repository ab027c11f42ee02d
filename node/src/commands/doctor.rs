//! `gauntlet doctor`: what this machine computes with, what is missing, and what to do about it.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
use serde::Serialize;
use serde_json::json;

use crate::{memory, output};

/// Below this a run of the smallest models is at risk.
const LITTLE: u64 = 1 << 30;

/// Say what this machine computes with, and what is missing.
#[derive(Args)]
pub(crate) struct DoctorArgs {
    /// JSON on standard output even on a terminal.
    #[arg(long)]
    json: bool,
}

/// Something that is not as it could be.
#[derive(Debug, Serialize)]
struct Missing {
    what: String,
    remedy: String,
}

impl Missing {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// What is known of NVIDIA's part.
#[derive(Debug, Default, Serialize)]
struct Cuda {
    /// Version of CUDA the driver is made for.
    driver: Option<String>,
    /// Why there is none, or why it cannot be used.
    problem: Option<String>,
    devices: Vec<Gpu>,
    /// Code in the embedded fat binaries.
    kernels: Vec<String>,
    /// cuBLASLt, where it is found: its file (without a folder where the loader's path has it) and its version.
    cublaslt: Option<String>,
    /// NCCL's version, where it is found: several GPUs train one model through it.
    nccl: Option<String>,
    /// Folders both were looked for in, before the loader's own path.
    looked_in: Vec<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Gpu {
    device: String,
    name: String,
    memory_bytes: usize,
    capability: String,
    /// Bytes of shared memory a block may have.
    shared_memory: u32,
    /// Widths of heads (and those below) that attention can be computed for.
    head_widths: Vec<usize>,
    /// The code of engine and DeMo that fits it.
    kernels: Option<String>,
    /// Whether the driver took the kernels.
    opens: bool,
    /// The file of cuBLASLt that matrix products go through; else our own kernels compute them.
    cublaslt: Option<PathBuf>,
}

pub(crate) fn run(args: &DoctorArgs) -> Result<()> {
    let cpu = Cpu::new(0, CodePath::Best)?;
    let folder = std::env::current_dir().context("the working folder is gone; change to one that exists")?;
    let disk = rustix::fs::statvfs(&folder)
        .with_context(|| format!("cannot ask {} for its free space", folder.display()))?;
    let disk_free = disk.f_bavail.saturating_mul(disk.f_frsize);
    let memory = memory::machine();
    let mut missing = Vec::new();
    if cpu.simd_name() == "portable" {
        let remedy =
            "nothing to install: everything works, several times slower than on a processor with AVX2";
        missing.push(Missing::new("AVX2", remedy));
    }
    if memory.is_some_and(|(_, free)| free < LITTLE) {
        missing.push(Missing::new("memory: less than 1 GiB is free", "end other programs"));
    }
    if disk_free < LITTLE {
        missing.push(Missing::new("disk: less than 1 GiB is free here", "free some, or name another --out"));
    }
    let cuda = examine(&mut missing);
    let result = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(target_feature = "crt-static") { "static, CPU only" } else { "CPU and GPU" },
        "cpu": { "path": cpu.simd_name(), "threads": cpu.threads() },
        "memory": memory.map(|(total, free)| json!({ "total_bytes": total, "free_bytes": free })),
        "disk": { "folder": folder.display().to_string(), "free_bytes": disk_free },
        "cuda": cuda,
        "missing": missing,
    });
    let mut rows = vec![
        ("processor", format!("{}, {} threads", cpu.simd_name(), cpu.threads())),
        (
            "memory",
            memory.map_or("unknown".into(), |(all, free)| format!("{} free of {}", gb(free), gb(all))),
        ),
        ("disk", format!("{} free in {}", gb(disk_free), folder.display())),
    ];
    rows.extend(cuda.rows());
    rows.extend(missing.iter().map(|m| ("missing", format!("{}: {}", m.what, m.remedy))));
    output::result(output::wants_json(args.json), &result, &rows)
}

impl Cuda {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let driver = match (&self.driver, &self.problem) {
            (Some(version), _) => format!("CUDA {version}"),
            (None, Some(problem)) => problem.clone(),
            (None, None) => "none".into(),
        };
        let mut rows = vec![("CUDA driver", driver), ("kernels", self.kernels.join(", "))];
        for gpu in &self.devices {
            let kernels = gpu.kernels.as_deref().unwrap_or("no kernels fit");
            let size = gb(gpu.memory_bytes as u64);
            let state = if gpu.opens { "works" } else { "cannot be used" };
            let Gpu { name, capability, .. } = gpu;
            rows.push(("GPU", format!("{}: {name}, {size}, {capability}, {kernels}, {state}", gpu.device)));
        }
        rows.push(("cuBLASLt", self.cublaslt.clone().unwrap_or_else(|| "not found".into())));
        rows.push((
            "NCCL",
            self.nccl.clone().unwrap_or_else(|| "not found; only several GPUs need it".into()),
        ));
        rows
    }
}

#[cfg(target_feature = "crt-static")]
fn examine(missing: &mut Vec<Missing>) -> Cuda {
    let problem = crate::device::CPU_ONLY;
    missing.push(Missing::new("GPU", problem));
    Cuda { problem: Some(problem.into()), ..Cuda::default() }
}

/// Asks the driver, and tries to load the kernels on each device.
#[cfg(not(target_feature = "crt-static"))]
fn examine(missing: &mut Vec<Missing>) -> Cuda {
    use gauntlet_gpu::driver::{self, Driver, Found};
    use gauntlet_gpu::fat_binary;
    use gauntlet_model::engine::cuda;

    let images = crate::device::images();
    let looked_in = crate::device::library_folders();
    let nccl = driver::nccl_version(&looked_in);
    let mut cuda = Cuda {
        kernels: images
            .first()
            .map(|image| fat_binary::contents(image).iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        cublaslt: driver::cublaslt(&looked_in)
            .map(|(file, version)| format!("{} ({version})", file.display())),
        nccl: nccl.as_ref().ok().cloned(),
        ..Cuda::default()
    };
    let mut describe = |found: Found| {
        let Found { ordinal, name, memory, capability: (major, minor), shared_memory } = found;
        let head_widths = cuda::head_widths(shared_memory);
        let opened = Driver::open(ordinal, &images, &looked_in);
        if let Err(error) = &opened {
            missing.push(Missing::new(format!("cuda:{ordinal}"), error.to_string()));
        }
        let problem = opened.as_ref().ok().and_then(Driver::library_problem);
        if let Some(problem) = problem {
            let remedy = format!("{problem}; products go through our own kernels until it is repaired");
            missing.push(Missing::new(format!("cuda:{ordinal}: cuBLASLt"), remedy));
        }
        if let (true, Some(widest @ ..256)) = (opened.is_ok(), head_widths.last().copied()) {
            missing.push(Missing::new(
                format!("cuda:{ordinal}: shared memory for heads over {widest} wide"),
                "train models with narrower heads here, others on a GPU of compute capability 8.0, 9.0 or 10.0",
            ));
        }
        let codes = images.iter().map(|image| fat_binary::fitting(image, (major, minor)));
        let codes: Option<Vec<String>> = codes.map(|code| code.map(|code| code.to_string())).collect();
        Gpu {
            device: format!("cuda:{ordinal}"),
            name,
            memory_bytes: memory,
            capability: format!("{major}.{minor}"),
            shared_memory,
            head_widths,
            kernels: codes.and_then(|mut codes| codes.pop()),
            opens: opened.is_ok(),
            cublaslt: opened.ok().and_then(|driver| driver.library_file().map(PathBuf::from)),
        }
    };
    match driver::version().and_then(|version| Ok((version, driver::devices()?))) {
        Ok(((major, minor), devices)) => {
            cuda.driver = Some(format!("{major}.{minor}"));
            cuda.devices = devices.into_iter().map(&mut describe).collect();
            if let (Err(error), [_, _, ..]) = (&nccl, &cuda.devices[..]) {
                missing.push(Missing::new("NCCL", error.to_string()));
            }
            if cuda.devices.is_empty() {
                let remedy =
                    "the driver knows none: check CUDA_VISIBLE_DEVICES, and in a container --gpus all";
                missing.push(Missing::new("GPU", remedy));
            } else if cuda.cublaslt.is_none() {
                let remedy = "products go through our own kernels; for NVIDIA's install CUDA's toolkit, or \
                              pip install nvidia-cublas in a Python environment, and set CUDA_HOME or VIRTUAL_ENV to it";
                missing.push(Missing::new("cuBLASLt", remedy));
            }
        }
        Err(error) => {
            let problem = error.to_string();
            // The driver's message says what is missing, then what to do.
            let (what, remedy) = problem.split_once(": ").unwrap_or(("CUDA driver", &problem));
            missing.push(Missing::new(what, remedy));
            cuda.problem = Some(problem);
        }
    }
    cuda.looked_in = looked_in;
    cuda
}

#[allow(clippy::cast_precision_loss)] // shown with one decimal
fn gb(bytes: u64) -> String {
    format!("{:.1} GB", bytes as f64 / 1e9)
}
