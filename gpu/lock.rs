//! Verifies that a folder's committed fat binary belongs to its sources. Build scripts of crates with
//! kernels include this file, so that a changed kernel without a new fat binary fails the build and
//! nobody needs nvcc to build.
//!
//! The lock (`kernels.lock`, written by `gpu/build-kernels.sh`) lists SHA-256 and path of the fat binary,
//! of every kernel and header it was made of, and of the files with the compiler's flags.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Set while writing kernels: a fat binary that does not belong to the sources is then a warning.
const UNLOCKED: &str = "GAUNTLET_KERNELS_UNLOCKED";

/// Checks `kernels/kernels.fatbin` of the crate being built; the message says what to do.
pub(crate) fn verify() -> Result<(), String> {
    let root = std::env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?;
    let krate = PathBuf::from(root);
    let (folder, shared) = (krate.join("kernels"), krate.join("../gpu/kernels"));
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-changed={}", shared.display());
    println!("cargo::rerun-if-env-changed={UNLOCKED}");
    let name = krate.file_name().and_then(|name| name.to_str()).ok_or("the crate's folder has no name")?;
    let outcome = compare(&folder, &shared, name);
    match outcome {
        Err(problem) if std::env::var_os(UNLOCKED).is_some() => {
            println!("cargo::warning={problem}");
            Ok(())
        }
        outcome => outcome,
    }
}

fn compare(folder: &Path, shared: &Path, name: &str) -> Result<(), String> {
    let lock = read(&folder.join("kernels.lock"))?;
    let lock = String::from_utf8(lock).map_err(|e| format!("kernels.lock: {e}"))?;
    let locked: BTreeMap<&str, &str> = lock
        .lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("toolkit "))
        .filter_map(|line| line.split_once(' ').map(|(hash, path)| (path, hash)))
        .collect();
    let mut found = BTreeMap::from([("kernels.fatbin".to_owned(), hash(&folder.join("kernels.fatbin"))?)]);
    for (place, path) in [(format!("{name}/kernels"), folder), ("gpu/kernels".to_owned(), shared)] {
        for file in sources(path)? {
            let at = format!("{place}/{}", file.file_name().unwrap_or_default().to_string_lossy());
            found.insert(at, hash(&file)?);
        }
    }
    let same = |(path, hash): (&String, &String)| locked.get(path.as_str()) == Some(&hash.as_str());
    let changed = found.iter().find(|entry| !same(*entry)).map(|(path, _)| path.clone());
    let gone = locked.keys().find(|path| !found.contains_key(**path)).map(|path| (*path).to_owned());
    match changed.or(gone) {
        None => Ok(()),
        Some(path) => Err(format!(
            "{name}/kernels/kernels.fatbin was not made from these sources ({path} differs): run gpu/build-kernels.sh \
             {name}/kernels (while writing kernels, {UNLOCKED}=1 makes this a warning)"
        )),
    }
}

/// Kernels, headers and flags, as `gpu/build-kernels.sh` lists them.
fn sources(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_file());
    let counts = |path: &PathBuf| {
        let kind = path.extension().and_then(|kind| kind.to_str());
        matches!(kind, Some("cu" | "cuh")) || path.file_name().is_some_and(|name| name == "flags")
    };
    Ok(paths.filter(counts).collect())
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

fn hash(path: &Path) -> Result<String, String> {
    Ok(Sha256::digest(read(path)?).iter().map(|byte| format!("{byte:02x}")).collect())
}
