//! The committed fat binaries are what the sources give (`cargo nextest run --profile kernels`: fetches the
//! compiler, so it is not among the tests every change runs).

use std::process::Command;

#[test]
fn rebuilt_fat_binaries_are_the_committed_ones() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/build-kernels.sh");
    let status = Command::new(script).arg("--check").status().unwrap();
    assert!(
        status.success(),
        "a committed fat binary is not what its sources give: run gpu/build-kernels.sh"
    );
}
