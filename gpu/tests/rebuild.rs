//! The committed fat binaries and their table are what the sources give (`cargo nextest run --profile kernels`: fetches
//! the compiler, so `.ci/run` runs it apart from the tests that need no network).

use std::process::Command;

#[test]
fn rebuilt_fat_binaries_and_tables_are_the_committed_ones() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/build-kernels.sh");
    let status = Command::new(script).arg("--check").status().unwrap();
    assert!(
        status.success(),
        "a committed fat binary or table is not what the sources give: run gpu/build-kernels.sh"
    );
}
