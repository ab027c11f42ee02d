//! `gauntlet train --optimizer demo` and `gauntlet inspect`.

use crate::*;

/// Six steps of three workers.
const SHORT: [&str; 21] = [
    "--optimizer",
    "demo",
    "--workers",
    "3",
    "--batch",
    "1",
    "--seq",
    "32",
    "--steps",
    "6",
    "--warmup",
    "1",
    "--lr",
    "0.005",
    "--momentum-warmup",
    "2",
    "--checkpoint-every",
    "2",
    "--validation-sequences",
    "8",
    "--json",
];

fn train(out: &str, more: &[&str]) -> Value {
    let output = run(&[&["train", "--out", out], &SHORT[..], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    last["summary"].clone()
}

#[test]
fn threads_and_a_resume_leave_the_same_weights() {
    let place = Place::new();
    let one = train(&place.arg("one"), &["--threads", "1"]);
    assert_eq!((&one["finished"], &one["tokens"]), (&true.into(), &(6 * 3 * 32).into()));
    let two = train(&place.arg("two"), &["--threads", "2"]);
    assert_eq!(one["theta_hash"], two["theta_hash"], "two threads");
    let first = |run: &str| {
        let text = std::fs::read_to_string(place.path(&format!("{run}/metrics.jsonl"))).unwrap();
        let line = text.lines().find(|line| line.contains("validation")).unwrap();
        serde_json::from_str::<Value>(line).unwrap()["loss"].as_f64().unwrap()
    };
    assert!(one["validation_loss"].as_f64().unwrap() < first("one"), "it learns");
    // Back to step 4, and on from there.
    std::fs::remove_dir_all(place.path("two/checkpoints/step-0000000006")).unwrap();
    let again = run(&["train", "--resume", "--out", &place.arg("two"), "--json"]);
    assert!(stderr(&again).contains("resumed at step 4"), "{}", stderr(&again));
    let text = String::from_utf8(again.stdout).unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["summary"]["theta_hash"], one["theta_hash"], "after a resume");
    // Once more: all is done already, and what was measured stays.
    let summary = || std::fs::read_to_string(place.path("two/summary.json")).unwrap();
    let measured = summary();
    assert!(run(&["train", "--resume", "--out", &place.arg("two")]).status.success());
    assert_eq!(summary(), measured);
    // Settings that were changed under the checkpoint.
    let (toml, file) = (place.path("two/train.toml"), place.arg("two"));
    let kept = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, kept.replace("workers = 3", "workers = 2")).unwrap();
    fails(1, &["train", "--resume", "--out", &file], &["`workers`", "step-0000000006", "train.toml"]);
    // What is drawn of the submissions, and when they leave the momentum, changes the numbers.
    let some = train(&place.arg("some"), &["--gather", "2"]);
    let late = train(&place.arg("late"), &["--gather", "2", "--subtract", "when-recorded"]);
    assert_ne!(some["theta_hash"], one["theta_hash"]);
    assert_ne!(some["theta_hash"], late["theta_hash"]);
}

#[test]
fn a_submission_can_be_looked_at() {
    let place = Place::new();
    train(&place.arg("run"), &["--bits", "4", "--topk", "16"]);
    let file = place.arg("run/submissions/worker-1.grad");
    let seen = json(&["inspect", &file]);
    assert_eq!(seen["window"], 5);
    assert_eq!(seen["sequences"], 1);
    assert_eq!(seen["body"]["bits"], 4);
    assert_eq!(seen["body"]["topk"], 16);
    let tensors = seen["body"]["tensors"].as_array().unwrap();
    assert_eq!(tensors[0]["name"], "lm_head.weight");
    let sent: u64 = tensors.iter().map(|t| t["sent"].as_u64().unwrap()).sum();
    assert_eq!(seen["body"]["sent"], sent);
    assert!(sent > 0);

    let elsewhere = place.arg("elsewhere.grad");
    std::fs::copy(&file, &elsewhere).unwrap();
    assert_eq!(json(&["inspect", &elsewhere])["body"], Value::Null);
    assert_eq!(json(&["inspect", &elsewhere, "--run", &place.arg("run")]), seen);
    // By another run's settings it is not read, though it could be.
    train(&place.arg("other"), &["--bits", "4", "--topk", "16", "--levels", "1,2,3"]);
    fails(1, &["inspect", &elsewhere, "--run", &place.arg("other")], &["elsewhere.grad", "other", "--run"]);
    fails(2, &["inspect", &elsewhere, "--run", &place.arg("none")], &["--run", "none"]);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&elsewhere, bytes).unwrap();
    fails(1, &["inspect", &elsewhere], &["elsewhere.grad", "hash"]);
    fails(1, &["inspect", &place.write("text.grad", "text")], &["text.grad", "not a valid object"]);
}
