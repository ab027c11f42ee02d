//! What the build packs as embedded text, and what of a checkout it leaves alone.

use std::fs;
use std::path::Path;

#[path = "../../build.rs"]
#[allow(dead_code, unreachable_pub)] // a build script, of which one function is looked at
mod build;

fn names(root: &Path) -> Vec<String> {
    build::names(root).unwrap()
}

#[test]
fn the_text_is_the_projects_own() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let write = |name: &str| {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "text").unwrap();
    };
    let own = [
        "README.md",
        "data/build.rs",
        "docs/log.md",
        "node/src/run/mod.rs",
        "node/src/main.rs",
        "tests/model/main.rs",
    ];
    own.iter().for_each(|name| write(name));
    let mut wanted: Vec<String> = own.iter().map(ToString::to_string).collect();
    wanted.sort();
    assert_eq!(names(root), wanted);
    // What users write beside it: manifests, notes, prepared data, runs; and what builds leave.
    for name in [
        "run.toml",
        "notes.md",
        "books/one.md",
        "data/books/notes.md",
        "data/books/settings.toml",
        "runs/simulate-001/manifest.toml",
        "out/a.rs",
        "target/debug/b.rs",
        "demo/fuzz/target/c.rs",
        "node/notes.toml",
        "docs/.d.md",
        "docs/e.txt",
        "demo/tests/vectors/f.md",
    ] {
        write(name);
        assert_eq!(names(root), wanted, "{name}");
    }
}

#[test]
fn nothing_of_the_project_is_left_out() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let found = names(root);
    for name in ["README.md", "Cargo.toml", "clippy.toml", "docs/simulate.md", "gpu/lock.rs", "tests/lib.rs"]
    {
        assert!(found.iter().any(|f| f == name), "{name}");
    }
    // Every package of the workspace, with its sources.
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let members = manifest.split_once("members = [").unwrap().1.split_once(']').unwrap().0;
    assert!(members.matches('"').count() >= 2 * 7, "{members}");
    for member in members.split('"').skip(1).step_by(2) {
        let prefix = format!("{member}/");
        assert!(found.iter().filter(|f| f.starts_with(&prefix)).count() > 2, "{prefix}");
    }
}
