//! Packs the project's own text into the crate: every `*.rs`, `*.md` and `*.toml` of the workspace, sorted by
//! path, as a table of (name, text) in `$OUT_DIR/corpus.rs`. Plain, not compressed: it is small next to the
//! binary and there is nothing that could fail at run time.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Folders of the workspace that hold results or binary fixtures, not text of the project.
const EXCLUDED: [&str; 4] = ["target", "runs", "out", "vectors"];

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var(name).map_err(io::Error::other);
    let own = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let root = workspace(&own).unwrap_or(own);
    let mut files = Vec::new();
    collect(&root, "", &mut files)?;
    files.sort();
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
    watch(&root, &files, &variable("PROFILE")?);
    Ok(())
}

/// The folder above, if it is the workspace this crate is a member of.
fn workspace(own: &Path) -> Option<PathBuf> {
    let root = own.parent()?;
    let manifest = fs::read_to_string(root.join("Cargo.toml")).ok()?;
    manifest.contains("[workspace]").then(|| root.to_path_buf())
}

/// Adds the text files below `folder`, named from the root with forward slashes.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let kind = entry.file_type()?;
        if name.starts_with('.') || EXCLUDED.contains(&name.as_str()) {
            continue;
        }
        if kind.is_dir() {
            collect(&entry.path(), &format!("{prefix}{name}/"), files)?;
        } else if kind.is_file() && [".rs", ".md", ".toml"].iter().any(|ending| name.ends_with(ending)) {
            files.push(format!("{prefix}{name}"));
        }
    }
    Ok(())
}

/// A release build packs the text as it is now. Other builds keep what they packed first: else every edit
/// anywhere in the workspace would rebuild this crate and all that depend on it.
fn watch(root: &Path, files: &[String], profile: &str) {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", root.join("Cargo.toml").display());
    if profile != "release" {
        return;
    }
    let mut folders: Vec<&str> = Vec::new();
    for name in files {
        match name.split_once('/') {
            Some((folder, _)) if folders.last() != Some(&folder) => folders.push(folder),
            Some(_) => {}
            None => println!("cargo:rerun-if-changed={}", root.join(name).display()),
        }
    }
    // Cargo looks through a folder recursively, so new files are seen too.
    for folder in folders {
        println!("cargo:rerun-if-changed={}", root.join(folder).display());
    }
}
