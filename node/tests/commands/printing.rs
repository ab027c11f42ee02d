//! Standard output and standard error that take nothing: one line, and no work is lost with them.

use std::process::Stdio;

use crate::*;

/// A short training run into `out`.
fn train(out: &str) -> Vec<&str> {
    let settings =
        "--threads 1 --batch 1 --seq 8 --steps 3 --warmup 1 --validate-every 0 --validation-sequences 1";
    ["train", "--out", out].into_iter().chain(settings.split(' ')).collect()
}

/// The run was trained to its end and saved.
fn assert_trained(place: &Place, run: &str) {
    let folder = place.path(run);
    let summary: Value =
        serde_json::from_slice(&std::fs::read(folder.join("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["finished"], &summary["steps"]), (&true.into(), &3.into()));
    assert_eq!(names(&folder.join("checkpoints")), ["step-0000000003"]);
    let metrics = std::fs::read_to_string(folder.join("metrics.jsonl")).unwrap();
    assert_eq!(metrics.lines().filter(|line| line.contains("\"train\"")).count(), 3);
}

#[test]
fn a_full_disk_behind_standard_output_is_named() {
    let place = Place::new();
    let (model, out) = (place.model("model"), place.arg("run"));
    let shape = "--hidden 16 --layers 1 --heads 1 --ffn 16 --vocab 64 --seq 4 --batch 1 --runs 1";
    let bench: Vec<&str> = ["bench", "gemm"].into_iter().chain(shape.split(' ')).collect();
    for args in [
        &["eval", "--model", &model, "--sequences", "1"][..],
        &["generate", "--model", &model],
        &["train", "--plan"],
        &bench[..],
        &train(&out)[..],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = command(args).stdout(full).output().unwrap();
        assert_fails(&output, 1, &["standard output"]);
    }
    assert_trained(&place, "run");
}

#[test]
fn a_reader_that_goes_away_ends_no_run() {
    let place = Place::new();
    let out = place.arg("run");
    let mut child = command(&train(&out)).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_trained(&place, "run");
}
