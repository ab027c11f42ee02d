//! Packs the project's own text into the crate: every `*.rs`, `*.md` and `*.toml` of what belongs to it, sorted by
//! path, as a table of (name, text) in `$OUT_DIR/corpus.rs`. Plain, not compressed: it is small next to the
//! binary and there is nothing that could fail at run time.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// What belongs to the project in the root of the workspace. Manifests, data and runs that lie there are not its text:
/// with them every checkout would have another one.
const ROOT: [&str; 7] =
    ["ARCHITECTURE.md", "CHANGELOG.md", "Cargo.toml", "README.md", "clippy.toml", "docs", "rustfmt.toml"];

/// Folders of the packages, and what of each belongs.
const PACKAGES: [&str; 7] = ["data", "demo", "gauntlet", "gpu", "model", "node", "tests"];
const PARTS: [&str; 11] = [
    "Cargo.toml",
    "benches",
    "build.rs",
    "clippy.toml",
    "examples",
    "fuzz",
    "lib.rs",
    "lock.rs",
    "model",
    "src",
    "tests",
];

/// Folders inside these that hold results or binary fixtures.
const EXCLUDED: [&str; 2] = ["target", "vectors"];

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var(name).map_err(io::Error::other);
    let own = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = workspace(&own).unwrap_or(own);
    let files = names(&root)?;
    let mut table = String::from("pub(crate) static CORPUS: &[(&str, &str)] = &[\n");
    for name in &files {
        // The same text, and so the same hash, from a checkout with Windows line ends.
        let text = fs::read_to_string(root.join(name))?.replace("\r\n", "\n");
        if !text.is_empty() {
            writeln!(table, "({name:?}, {text:?}),").map_err(io::Error::other)?;
        }
    }
    table.push_str("];\n");
    fs::write(Path::new(&variable("OUT_DIR")?).join("corpus.rs"), table)?;
    watch(&root, &variable("PROFILE")?);
    Ok(())
}

/// The folder above, if it is the workspace this crate is a member of.
fn workspace(own: &Path) -> Option<PathBuf> {
    let root = own.parent()?;
    let manifest = fs::read_to_string(root.join("Cargo.toml")).ok()?;
    manifest.contains("[workspace]").then(|| root.to_path_buf())
}

/// Files and folders that belong to the project, from its root; a package need not have every part.
fn belonging() -> impl Iterator<Item = String> {
    let parts = PACKAGES.iter().flat_map(|package| PARTS.map(|part| format!("{package}/{part}")));
    ROOT.map(str::to_owned).into_iter().chain(parts)
}

/// The text files that belong to the project, named from `root` with forward slashes, sorted.
pub(crate) fn names(root: &Path) -> io::Result<Vec<String>> {
    let mut files = Vec::new();
    for name in belonging() {
        collect(&root.join(&name), name, &mut files)?;
    }
    files.sort();
    Ok(files)
}

/// Adds the file at `path`, or the files below it; `name` is its own from the root.
fn collect(path: &Path, name: String, files: &mut Vec<String>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let Ok(inner) = entry.file_name().into_string() else { continue };
            // A link could lead anywhere.
            let skipped = inner.starts_with('.') || EXCLUDED.contains(&inner.as_str());
            if !skipped && !entry.file_type()?.is_symlink() {
                collect(&entry.path(), format!("{name}/{inner}"), files)?;
            }
        }
    } else if path.is_file() && [".rs", ".md", ".toml"].iter().any(|ending| name.ends_with(ending)) {
        files.push(name);
    }
    Ok(())
}

/// A release build packs the text as it is now. Other builds keep what they packed first: else every edit
/// anywhere in the workspace would rebuild this crate and all that depend on it.
fn watch(root: &Path, profile: &str) {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", root.join("Cargo.toml").display());
    if profile != "release" {
        return;
    }
    // Cargo looks through a folder recursively, so new files are seen too.
    for path in belonging().map(|name| root.join(name)) {
        if path.exists() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}
