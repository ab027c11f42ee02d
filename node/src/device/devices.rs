//! `--device` of what can compute on several GPUs at once.
#![allow(unsafe_code)] // sets a variable of the environment, while no other thread can read it

use std::fmt;
use std::str::FromStr;

use anyhow::Result;
use clap::Args;
use gauntlet_model::engine::Collective;
use gauntlet_model::engine::cpu::{Cpu, Path as CodePath};

use super::{Choice, Opened, Place, Products, open_with};
use crate::cli::Usage;

/// What `--device` names: one device, or several GPUs that compute together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Devices {
    first: Choice,
    more: Vec<usize>,
}

impl FromStr for Devices {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let expected = || "expected auto, cpu, cuda:N, or several GPUs such as cuda:0,1".to_owned();
        let mut names = name.split(',');
        let first: Choice = names.next().unwrap_or_default().parse().map_err(|_| expected())?;
        let mut all: Vec<usize> = match first {
            Choice::Cuda(ordinal) => vec![ordinal],
            Choice::Auto | Choice::Cpu => Vec::new(),
        };
        let mut more = Vec::new();
        for name in names {
            let Ok(Choice::Cuda(ordinal)) = format!("cuda:{name}").parse() else { return Err(expected()) };
            if all.is_empty() {
                return Err(expected());
            }
            if all.contains(&ordinal) {
                return Err(format!("cuda:{ordinal} is named twice"));
            }
            all.push(ordinal);
            more.push(ordinal);
        }
        Ok(Self { first, more })
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.more.iter().try_for_each(|ordinal| write!(f, ",{ordinal}"))
    }
}

/// The flag of commands that can compute on several GPUs.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DevicesArgs {
    /// Where to compute: auto (a GPU where there is one), cpu, cuda:N, or several GPUs that share every batch: cuda:0,1.
    #[arg(long = "device", value_name = "DEVICE", default_value_t)]
    pub(crate) devices: Devices,
}

impl Devices {
    /// The first, which also validates and writes checkpoints.
    pub(crate) fn first(&self) -> Choice {
        self.first
    }

    /// How many.
    pub(crate) fn count(&self) -> usize {
        1 + self.more.len()
    }

    /// Sequences of a batch that each device takes.
    ///
    /// # Errors
    /// When they cannot be split evenly.
    pub(crate) fn share(&self, batch: usize) -> Result<usize> {
        share(batch, self.count())
    }

    /// Has sums over several GPUs made in the one order of a ring, unless the environment says otherwise. To be called
    /// before anything starts a thread.
    pub(crate) fn fix_order(&self) {
        const ALGORITHM: &str = "NCCL_ALGO";
        if self.count() > 1 && std::env::var_os(ALGORITHM).is_none() {
            // SAFETY: no other thread runs yet, by this function's contract.
            unsafe { std::env::set_var(ALGORITHM, "Ring") };
        }
    }
}

/// Sequences of a batch that each of `devices` takes.
///
/// # Errors
/// When they cannot be split evenly.
pub(crate) fn share(batch: usize, devices: usize) -> Result<usize> {
    if batch.is_multiple_of(devices) {
        return Ok(batch / devices);
    }
    let problem =
        format!("--batch {batch}: {devices} devices share every batch; choose a multiple of {devices}");
    Err(Usage(problem).into())
}

/// The devices besides the first, and how all of them exchange values.
pub(crate) struct Others<P: Place> {
    pub(crate) places: Vec<P>,
    pub(crate) collective: Box<dyn Collective<P>>,
}

/// What a command does on one device or several.
pub(crate) trait Together: Send {
    /// Its result.
    type Out: Send;

    /// Does it.
    fn on<P: Place>(self, first: P, others: Option<Others<P>>) -> Result<Self::Out>;
}

/// Opens the devices and does `work` on them, with `threads` threads on the host; `path` is the CPU's.
pub(crate) fn run_together<W: Together>(
    (devices, products): (&Devices, Products),
    threads: usize,
    path: CodePath,
    work: W,
) -> Result<W::Out> {
    match open_with(devices.first, products)? {
        Opened::Cpu => work.on(Cpu::new(threads, path)?, None),
        #[cfg(not(target_feature = "crt-static"))]
        Opened::Gpu(first) => gpus::run((devices, products), first, threads, work),
    }
}

#[cfg(not(target_feature = "crt-static"))]
mod gpus {
    use std::sync::Arc;

    use anyhow::{Context, Result};
    use gauntlet_gpu::driver::{Driver, Nccl};
    use gauntlet_model::engine::cpu::pool;
    use gauntlet_model::engine::cuda::{Bf16, Cuda};

    use super::{Devices, Others, Products, Together};
    use crate::device::{Choice, Opened, library_folders, open_with};

    pub(super) fn run<W: Together>(
        (devices, products): (&Devices, Products),
        first: Arc<Driver>,
        threads: usize,
        work: W,
    ) -> Result<W::Out> {
        let mut drivers = vec![first];
        for &ordinal in &devices.more {
            if let Opened::Gpu(driver) = open_with(Choice::Cuda(ordinal), products)? {
                drivers.push(driver);
            }
        }
        let places = |drivers: &[Arc<Driver>]| -> Result<Vec<Cuda<Driver, Bf16>>> {
            drivers.iter().map(|driver| Ok(Cuda::new(Arc::clone(driver))?)).collect()
        };
        let others = if devices.more.is_empty() {
            None
        } else {
            let members: Vec<&Driver> = drivers.iter().map(AsRef::as_ref).collect();
            let joined = Nccl::open(&members, &library_folders());
            let collective = Box::new(joined.with_context(|| format!("--device {devices}"))?);
            Some(Others { places: places(&drivers[1..])?, collective })
        };
        let first = Cuda::<Driver, Bf16>::new(drivers.swap_remove(0))?;
        pool(threads)?.install(|| work.on(first, others))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_gpus_are_read_as_they_are_written() {
        for (name, count) in [("auto", 1), ("cpu", 1), ("cuda:3", 1), ("cuda:0,1", 2), ("cuda:7,2,0", 3)] {
            let devices: Devices = name.parse().unwrap();
            assert_eq!((devices.to_string().as_str(), devices.count()), (name, count));
        }
        for name in
            ["", "cuda:0,", "cuda:,1", "cpu,1", "auto,cuda:1", "cuda:0,cuda:1", "cuda:0;1", "cuda:0,-1"]
        {
            assert!(name.parse::<Devices>().is_err_and(|e| e.contains("cuda:0,1")), "{name}");
        }
        assert!("cuda:1,0,1".parse::<Devices>().is_err_and(|e| e == "cuda:1 is named twice"));
    }

    #[test]
    fn a_batch_is_shared_evenly_or_not_at_all() {
        let devices: Devices = "cuda:0,1,2".parse().unwrap();
        assert_eq!(devices.share(12).unwrap(), 4);
        let message = devices.share(8).unwrap_err().to_string();
        assert!(message.contains("--batch 8") && message.contains("multiple of 3"), "{message}");
    }
}
