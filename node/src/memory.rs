//! How much memory this process has used, and how much it can have.

use anyhow::{Result, bail};

/// Largest resident set so far, in bytes; `None` where the system does not say (Linux does).
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Refuses what would not fit into this machine's free memory, where the system says how much that is.
///
/// # Errors
/// Says how much is needed, how much there is, and what to lower.
pub(crate) fn check(needed: usize, remedy: &str) -> Result<()> {
    check_against(free(), needed, remedy)
}

/// As [`check`] against `free` bytes, where they are known.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_against(free: Option<usize>, needed: usize, remedy: &str) -> Result<()> {
    let Some(free) = free.filter(|free| needed > *free) else { return Ok(()) };
    #[allow(clippy::cast_precision_loss)] // shown with one decimal
    let gb = |bytes: usize| bytes as f64 / 1e9;
    bail!(
        "{:.1} GB of memory are needed, {:.1} GB are free; {remedy}, or name the bytes that can be had in {ASSUMED}",
        gb(needed),
        gb(free)
    )
}

/// The variable that says how many bytes of memory can be had, where the system's word is wrong: a virtual machine may
/// get more as soon as it is used.
const ASSUMED: &str = "GAUNTLET_FREE_MEMORY";

/// Bytes of memory that can be had without swapping, where the environment or the system says so.
pub(crate) fn free() -> Option<usize> {
    free_by(std::env::var(ASSUMED).ok().as_deref(), std::fs::read_to_string("/proc/meminfo").ok().as_deref())
}

/// A word of the environment that is no number of bytes says nothing.
fn free_by(assumed: Option<&str>, meminfo: Option<&str>) -> Option<usize> {
    let assumed = assumed.and_then(|bytes| bytes.trim().parse().ok());
    assumed.or_else(|| usize::try_from(available(meminfo?)?).ok())
}

/// Bytes of memory of this machine, and those free, where the system says so.
pub(crate) fn machine() -> Option<(u64, u64)> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some((field(&meminfo, "MemTotal:")?, available(&meminfo)?))
}

/// Bytes of memory that can be had without swapping, by `/proc/meminfo`.
fn available(meminfo: &str) -> Option<u64> {
    field(meminfo, "MemAvailable:")
}

fn field(meminfo: &str, name: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(available("MemTotal: 9 kB\nMemAvailable:   12 kB\n"), Some(12 * 1024));
        assert_eq!(available("MemTotal: 9 kB\n"), None);
        let meminfo = Some("MemAvailable: 1 kB\n");
        for (assumed, free) in [(Some("5000000"), 5_000_000), (None, 1024), (Some("much"), 1024)] {
            assert_eq!(free_by(assumed, meminfo), Some(free));
        }
        assert_eq!(free_by(Some("7"), None), Some(7));
        let refused = check_against(Some(1), 2, "lower it").unwrap_err().to_string();
        assert!(refused.contains("lower it") && refused.contains(ASSUMED), "{refused}");
        check(1, "").unwrap();
        if std::path::Path::new("/proc/meminfo").exists() {
            assert!(check(usize::MAX, "use --batch").unwrap_err().to_string().contains("--batch"));
        }
    }
}
