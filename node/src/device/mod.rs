//! Where a command computes: the one place that reads `--device` and opens a GPU.

pub(crate) mod demo;
mod place;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use gauntlet_gpu::GpuError;
use gauntlet_model::engine::Footprint;
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};
#[cfg(not(target_feature = "crt-static"))]
use {
    gauntlet_gpu::driver::{self, Driver},
    gauntlet_model::engine::cpu::pool,
    gauntlet_model::engine::cuda::{Bf16, Cuda},
    std::sync::Arc,
};

use crate::run::compute::Compute;
use crate::run::context::Run;
pub(crate) use place::Place;

/// What `--device` names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// The first GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok());
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => name
                .strip_prefix("cuda:")
                .and_then(number)
                .flatten()
                .map(Self::Cuda)
                .ok_or_else(|| "expected auto, cpu, or cuda:N such as cuda:0".into()),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

impl Choice {
    /// The CPU unless a device was named.
    pub(crate) fn or_cpu(self) -> Self {
        if self == Self::Auto { Self::Cpu } else { self }
    }
}

/// The flag of all commands that compute.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct DeviceArgs {
    /// Where to compute: auto (a GPU where there is one), cpu, or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub(crate) device: Choice,
}

impl DeviceArgs {
    /// For what computes on the CPU only so far: `auto` is the CPU, and a GPU is refused.
    ///
    /// # Errors
    /// Names the flag and `what` cannot use a GPU.
    pub(crate) fn cpu_only(self, what: &str) -> Result<()> {
        match self.device {
            Choice::Auto | Choice::Cpu => Ok(()),
            gpu @ Choice::Cuda(_) => Err(GpuError::Unsupported(format!(
                "--device {gpu}: {what} computes on the CPU only so far; use --device cpu"
            ))
            .into()),
        }
    }
}

/// A device that was opened.
pub(crate) enum Opened {
    /// The CPU.
    Cpu,
    /// A GPU that holds the kernels of engine and DeMo.
    #[cfg(not(target_feature = "crt-static"))]
    Gpu(Arc<Driver>),
}

impl Opened {
    /// The engine of the nodes of a run that compute here, with room for `momenta` of them.
    ///
    /// # Errors
    /// When it does not fit the device.
    pub(crate) fn compute(self, cpu: Cpu, run: &Run, momenta: usize) -> Result<Compute> {
        match self {
            Self::Cpu => Compute::new(cpu, &run.config, run.manifest.data.seq),
            #[cfg(not(target_feature = "crt-static"))]
            Self::Gpu(driver) => Compute::on(Cuda::<Driver, Bf16>::new(driver)?, cpu, run, momenta),
        }
    }
}

/// Opens what was asked for. `auto` takes the CPU, and says so, where no GPU can be used.
///
/// # Errors
/// When a GPU was named: what is missing for it, and what to do.
pub(crate) fn open(choice: Choice) -> Result<Opened> {
    match choice {
        Choice::Cpu => Ok(Opened::Cpu),
        Choice::Auto => Ok(open_gpu(0).unwrap_or_else(|error| {
            if let Some(reason) = worth_saying(&error) {
                eprintln!("{reason}; computing on the CPU");
            }
            Opened::Cpu
        })),
        Choice::Cuda(ordinal) => open_gpu(ordinal)
            .map_err(|error| anyhow::Error::from(error).context(format!("--device {choice}"))),
    }
}

/// Why `auto` takes the CPU, in short: `gauntlet doctor` has the details.
#[cfg(not(target_feature = "crt-static"))]
fn worth_saying(error: &GpuError) -> Option<String> {
    match driver::version() {
        Err(GpuError::Unavailable(_)) => Some("no CUDA driver".into()),
        _ => Some(error.to_string()),
    }
}

#[cfg(not(target_feature = "crt-static"))]
fn open_gpu(ordinal: usize) -> Result<Opened, GpuError> {
    let driver = Driver::open(ordinal, &images(), &library_folders())?;
    Ok(Opened::Gpu(Arc::new(driver)))
}

/// The kernels of engine and DeMo.
#[cfg(not(target_feature = "crt-static"))]
pub(crate) fn images() -> [&'static [u8]; 2] {
    [gauntlet_model::engine::cuda::FAT_BINARY, gauntlet_demo::gpu::FAT_BINARY]
}

/// Where cuBLASLt is looked for before the loader's own path.
#[cfg(not(target_feature = "crt-static"))]
pub(crate) fn library_folders() -> Vec<std::path::PathBuf> {
    driver::library_folders(|name| std::env::var(name).ok())
}

/// A static program never opens a driver: nothing is missing that its user did not choose.
#[cfg(target_feature = "crt-static")]
fn worth_saying(_: &GpuError) -> Option<String> {
    None
}

#[cfg(target_feature = "crt-static")]
fn open_gpu(_: usize) -> Result<Opened, GpuError> {
    Err(GpuError::Unavailable(CPU_ONLY.into()))
}

/// Why a static program has no GPU.
#[cfg(target_feature = "crt-static")]
pub(crate) const CPU_ONLY: &str = "this program is the static build, which computes on the CPU only: a static program \
                                   cannot open a driver; use the other build (cargo build --release)";

/// What computing on a device costs in memory, by its name alone: nothing is opened for a device that was named.
pub(crate) fn footprint(choice: Choice) -> Footprint {
    use gauntlet_model::engine::cuda::{Bf16, Precision};
    match choice {
        Choice::Cpu => Footprint::CPU,
        Choice::Cuda(_) => Bf16::FOOTPRINT,
        Choice::Auto if has_gpu() => Bf16::FOOTPRINT,
        Choice::Auto => Footprint::CPU,
    }
}

#[cfg(not(target_feature = "crt-static"))]
fn has_gpu() -> bool {
    driver::devices().is_ok_and(|devices| !devices.is_empty())
}

#[cfg(target_feature = "crt-static")]
fn has_gpu() -> bool {
    false
}

/// What a command does on whichever device it gets.
pub(crate) trait Work: Send {
    /// Its result.
    type Out: Send;

    /// Does it.
    fn on<P: Place>(self, place: P) -> Result<Self::Out>;
}

/// Opens the device and does `work` on it, with `threads` threads on the host; `path` is the CPU's.
pub(crate) fn run<W: Work>(choice: Choice, threads: usize, path: CodePath, work: W) -> Result<W::Out> {
    match open(choice)? {
        Opened::Cpu => work.on(Cpu::new(threads, path)?),
        #[cfg(not(target_feature = "crt-static"))]
        Opened::Gpu(driver) => {
            let place = Cuda::<Driver, Bf16>::new(driver)?;
            pool(threads)?.install(|| work.on(place))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written() {
        for name in ["auto", "cpu", "cuda:0", "cuda:13"] {
            assert_eq!(name.parse::<Choice>().unwrap().to_string(), name);
        }
        assert_eq!("cuda".parse(), Ok(Choice::Cuda(0)));
        for name in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:x", "cuda: 0", "cuda0", "cpu:0"] {
            assert!(name.parse::<Choice>().is_err_and(|e| e.contains("cuda:N")), "{name}");
        }
        assert!("cuda:99999999999999999999".parse::<Choice>().is_err());
    }

    #[test]
    fn what_cannot_use_a_gpu_says_so() {
        let refused = DeviceArgs { device: Choice::Cuda(1) }.cpu_only("the simulation").unwrap_err();
        let message = refused.to_string();
        assert!(message.contains("--device cuda:1") && message.contains("--device cpu"), "{message}");
        assert!(DeviceArgs::default().cpu_only("x").is_ok());
    }
}
