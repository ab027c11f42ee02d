//! Where a command computes: the one place that reads `--device` and opens a GPU.

pub(crate) mod demo;
mod devices;
mod place;
#[cfg(test)]
pub(crate) mod testing;

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use clap::{Args, ValueEnum};
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

use crate::cli::Usage;
use crate::fit::Free;
use crate::memory;
use crate::output::note;
use crate::run::compute::Compute;
use crate::run::context::Run;
pub(crate) use devices::{Devices, DevicesArgs, Others, Together, run_together, share};
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

/// Who multiplies matrices on a GPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Products {
    /// The library where it is found, else our kernels.
    #[default]
    Auto,
    /// cuBLASLt, for every product: one that it has no algorithm for is an error.
    Library,
    /// Our kernels.
    Own,
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
    #[cfg_attr(
        target_feature = "crt-static",
        allow(unused_variables, reason = "a static program opens no device")
    )]
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
    open_with(choice, Products::Auto)
}

/// As [`open`], with a choice of who multiplies.
///
/// # Errors
/// As [`open`], and when the products that were asked for are not there.
pub(crate) fn open_with(choice: Choice, products: Products) -> Result<Opened> {
    let opened = match choice {
        Choice::Cpu => Opened::Cpu,
        Choice::Auto => open_gpu(0, products).unwrap_or_else(|error| {
            if let Some(reason) = worth_saying(&error) {
                note(format_args!("{reason}; computing on the CPU"));
            }
            Opened::Cpu
        }),
        Choice::Cuda(ordinal) => open_gpu(ordinal, products)
            .map_err(|error| anyhow::Error::from(error).context(format!("--device {choice}")))?,
    };
    if matches!(opened, Opened::Cpu) && products != Products::Auto {
        return Err(Usage("--products: only a GPU has a choice; name one with --device cuda:N".into()).into());
    }
    Ok(opened)
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
fn open_gpu(ordinal: usize, products: Products) -> Result<Opened, GpuError> {
    let mut driver = Driver::open(ordinal, &images(), &library_folders())?;
    match products {
        Products::Own => driver.without_library(),
        Products::Library if !driver.has_library() => {
            let missing = "cuBLASLt is not found; gauntlet doctor says where it was looked for";
            let problem = driver.library_problem().unwrap_or(missing);
            return Err(GpuError::Unavailable(format!("--products library: {problem}")));
        }
        Products::Library => driver.without_own_products(),
        Products::Auto => {
            if let Some(problem) = driver.library_problem() {
                note(format_args!("{problem}; products go through our own kernels"));
            }
        }
    }
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
fn open_gpu(_: usize, _: Products) -> Result<Opened, GpuError> {
    Err(GpuError::Unavailable(CPU_ONLY.into()))
}

/// Why a static program has no GPU.
#[cfg(target_feature = "crt-static")]
pub(crate) const CPU_ONLY: &str = "this program is the static build, which computes on the CPU only: a static program \
                                   cannot open a driver; use the other build (cargo build --release)";

/// What is known of a device's memory without computing on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// What computing there costs.
    pub(crate) footprint: Footprint,
    /// Whether it has memory of its own.
    pub(crate) own_memory: bool,
    /// Free bytes.
    pub(crate) free: Free,
}

/// What is known of a device by its name: one that was named need not be there.
pub(crate) fn known(choice: Choice) -> Known {
    use gauntlet_model::engine::cuda::{Bf16, Precision};
    let ordinal = match choice {
        Choice::Cpu => None,
        Choice::Auto => free_memory(0).map(|_| 0),
        Choice::Cuda(ordinal) => Some(ordinal),
    };
    Known {
        footprint: if ordinal.is_some() { Bf16::FOOTPRINT } else { Footprint::CPU },
        own_memory: ordinal.is_some(),
        free: Free { device: ordinal.and_then(free_memory), host: memory::free() },
    }
}

#[cfg(not(target_feature = "crt-static"))]
fn free_memory(ordinal: usize) -> Option<usize> {
    driver::free_memory(ordinal).ok()
}

#[cfg(target_feature = "crt-static")]
fn free_memory(_: usize) -> Option<usize> {
    None
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
    run_with(choice, Products::Auto, threads, path, work)
}

/// As [`run`], with a choice of who multiplies.
pub(crate) fn run_with<W: Work>(
    choice: Choice,
    products: Products,
    threads: usize,
    path: CodePath,
    work: W,
) -> Result<W::Out> {
    match open_with(choice, products)? {
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
}
