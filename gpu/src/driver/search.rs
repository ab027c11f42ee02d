//! NVIDIA's libraries beside the driver: where a machine may have them, and how one is opened.
//!
//! Each is bound here rather than through cudarc, which knows them by names in the loader's path alone (unversioned first,
//! so that it may take another version than the one found) and panics where it finds none.

use std::error::Error as _;
use std::path::{Path, PathBuf};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

/// Where CUDA's libraries may lie, by the environment's variables (`variable` looks one up).
pub fn folders(variable: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for name in ["CUDA_HOME", "CUDA_PATH"] {
        if let Some(home) = variable(name).map(PathBuf::from) {
            all.extend([home.join("lib64"), home.join("targets/x86_64-linux/lib"), home.join("lib")]);
        }
    }
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        if let Some(home) = variable(name).map(PathBuf::from) {
            all.push(home.join("lib"));
            all.extend(packages(&home.join("lib")));
        }
    }
    all.extend(["/usr/local/cuda/lib64", "/usr/local/cuda/targets/x86_64-linux/lib"].map(PathBuf::from));
    for home in ["/usr/local/lib", "/usr/lib", "/usr/lib/python3"] {
        all.extend(packages(Path::new(home)));
    }
    all
}

/// Opens the first file of these names, in `folders` and then in the loader's path, in which `bind` finds all it wants.
/// It stays open as long as the process runs.
///
/// # Errors
/// Why the first file in the folders was refused, where there is one.
pub(super) fn open<T>(
    folders: &[PathBuf],
    names: &[&str],
    bind: impl Fn(&Library) -> Result<T, libloading::Error>,
) -> Result<(T, PathBuf), Option<String>> {
    let mut refused = None;
    let found = folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name)));
    let by_name = names.iter().map(PathBuf::from);
    for file in found.filter(|file| file.is_file()).chain(by_name) {
        // SAFETY: NVIDIA's libraries, whose constructors do nothing that matters here.
        let opened = unsafe { Library::open(Some(&file), RTLD_NOW | RTLD_LOCAL) };
        match opened.and_then(|library| Ok((bind(&library)?, library))) {
            Ok((bound, library)) => {
                std::mem::forget(library);
                return Ok((bound, file));
            }
            Err(error) if file.components().count() > 1 => {
                // The error itself says only that opening or finding failed, its source what.
                let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                refused = refused.or(Some(format!("{}: {why}", file.display())));
            }
            Err(_) => {}
        }
    }
    Err(refused)
}

/// Folders of NVIDIA's wheels in the Pythons below `lib`.
fn packages(lib: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(lib) else { return Vec::new() };
    let mut pythons: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok().map(|entry| entry.path())).collect();
    pythons.sort();
    let places = ["nvidia/cu13/lib", "nvidia/cublas/lib", "nvidia/nccl/lib"];
    pythons
        .iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python3")))
        .flat_map(|python| ["site-packages", "dist-packages"].map(|kind| python.join(kind)))
        .flat_map(|packages| places.map(|place| packages.join(place)))
        .filter(|path| path.is_dir())
        .collect()
}
