//! `gauntlet train` as a user meets it: threads, kills, Ctrl-C, full disks, wrong input.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)] // a test binary

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

/// A short run: 14 steps of 4 × 64 bytes.
const SHORT: [&str; 14] = [
    "--steps",
    "14",
    "--batch",
    "4",
    "--seq",
    "64",
    "--warmup",
    "3",
    "--checkpoint-every",
    "3",
    "--validate-every",
    "7",
    "--validation-sequences",
    "4",
];

fn gauntlet() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gauntlet"))
}

fn train(out: &Path, more: &[&str]) -> Command {
    let mut command = gauntlet();
    command.arg("train").arg("--out").arg(out).args(more).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn resume(out: &Path) -> Command {
    train(out, &["--resume"])
}

/// The summary of a run that must succeed.
fn summary(mut command: Command) -> Value {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let last: Value = serde_json::from_str(stdout.lines().last().unwrap()).unwrap();
    last["summary"].clone()
}

fn hash(summary: &Value) -> String {
    summary["theta_hash"].as_str().unwrap().to_owned()
}

/// Reads metric lines until the run reports `step`.
fn wait_for_step(child: &mut Child, step: u64) {
    let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    for line in lines {
        let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
        if value["kind"] == "train" && value["step"].as_u64().unwrap() >= step {
            return;
        }
    }
    let mut stderr = String::new();
    child.stderr.as_mut().unwrap().read_to_string(&mut stderr).unwrap();
    panic!("ended before step {step}: {stderr}");
}

fn reference() -> (tempfile::TempDir, Value) {
    let folder = tempfile::tempdir().unwrap();
    let result = summary(train(&folder.path().join("run"), &[&SHORT[..], &["--threads", "1"]].concat()));
    (folder, result)
}

#[test]
fn threads_kills_and_ctrl_c_leave_the_same_weights() {
    let (folder, unbroken) = reference();
    assert_eq!(unbroken["finished"], true);
    for file in ["train.toml", "metrics.jsonl", "summary.json", "report.html", "checkpoints/step-0000000014"]
    {
        assert!(folder.path().join("run").join(file).exists(), "{file}");
    }
    let two = summary(train(&folder.path().join("two"), &[&SHORT[..], &["--threads", "2"]].concat()));
    assert_eq!(hash(&two), hash(&unbroken), "two threads");
    assert_eq!(two["validation_loss"], unbroken["validation_loss"]);

    // Killed twice, each time at a step nobody chose.
    let out = folder.path().join("killed");
    let random = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_nanos();
    let (first, second) = (1 + u64::from(random) % 8, 9 + u64::from(random / 8) % 4);
    println!("killed at steps {first} and {second}");
    let mut child = train(&out, &SHORT).spawn().unwrap();
    wait_for_step(&mut child, first);
    child.kill().unwrap();
    child.wait().unwrap();
    if first >= 4 {
        let mut child = resume(&out).spawn().unwrap();
        wait_for_step(&mut child, second);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // A kill before the first checkpoint leaves settings only; resuming then starts from step 0.
    let resumed = summary(resume(&out));
    assert_eq!(hash(&resumed), hash(&unbroken), "killed at {first} and {second}");
    let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    let steps: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["kind"] == "train")
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=14).collect::<Vec<_>>(), "every step once");

    interrupted_validation(&folder, &unbroken);
    let out = folder.path().join("interrupted");
    let mut child = train(&out, &SHORT).spawn().unwrap();
    wait_for_step(&mut child, 2);
    let stopped = interrupt(child, &out);
    assert_eq!(stopped["finished"], false);
    assert_eq!(hash(&summary(resume(&out))), hash(&unbroken), "interrupted");
}

/// Ctrl-C for a run that prints no more than its pipe has room for; its summary.
fn interrupt(mut child: Child, out: &Path) -> Value {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert!(child.wait().unwrap().success());
    serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap()
}

#[test]
fn ctrl_c_does_not_wait_for_a_step_of_many_batches() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    // A step that would take an hour.
    let mut child = train(&out, &["--steps", "1", "--batch", "1", "--seq", "64", "--accumulate", "1000000"])
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("\"validation\"")));
    let stopped = interrupt(child, &out);
    assert_eq!((&stopped["steps"], &stopped["finished"]), (&0.into(), &false.into()));
}

/// Ctrl-C in the validation of step 0, which would take long: it ends soon, saved and without a measurement.
fn interrupted_validation(folder: &tempfile::TempDir, unbroken: &Value) {
    let out = folder.path().join("validating");
    let all = ["--validation-sequences", "0", "--threads", "1"];
    let mut command = train(&out, &[&SHORT[..12], &all].concat());
    let mut child = command.spawn().unwrap();
    // The last line before it.
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().starts_with("held out: ")));
    let stopped = interrupt(child, &out);
    assert_eq!((&stopped["steps"], &stopped["finished"]), (&0.into(), &false.into()));
    assert_eq!(stopped["validation_loss"], Value::Null);
    assert_eq!(std::fs::read_to_string(out.join("metrics.jsonl")).unwrap(), "");
    let resumed = summary(train(&out, &["--resume", "--validation-sequences", "4"]));
    assert_eq!(hash(&resumed), hash(unbroken));
    assert_eq!(resumed["validation_loss"], unbroken["validation_loss"]);
    let lines = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert_eq!(lines.lines().filter(|line| line.contains("\"validation\"")).count(), 3);
}

/// The same with twenty kills at moments nobody chose, in the middle of whatever runs then: steps,
/// validations, checkpoints being written. `cargo nextest run --profile heavy`
#[test]
fn heavy_twenty_kills_leave_the_same_weights() {
    let (folder, unbroken) = reference();
    let out = folder.path().join("killed");
    let mut kills = 0;
    let mut wait = std::time::Duration::from_millis(400);
    let mut command = train(&out, &SHORT);
    while kills < 20 {
        let mut child = command.spawn().unwrap();
        std::thread::sleep(wait);
        // A run that ended by itself starts from nothing again, with less time.
        if child.try_wait().unwrap().is_some() {
            std::fs::remove_dir_all(&out).unwrap();
            wait /= 2;
            command = train(&out, &SHORT);
            continue;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
        let random = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().subsec_micros();
        wait = std::time::Duration::from_millis(50 + u64::from(random) % 700);
        command = if out.join("train.toml").exists() { resume(&out) } else { train(&out, &SHORT) };
    }
    let command = if out.join("train.toml").exists() { resume(&out) } else { train(&out, &SHORT) };
    assert_eq!(hash(&summary(command)), hash(&unbroken));
}

/// Runs a command that must fail with `code` and one line on standard error that holds all of `words`.
fn fails(mut command: Command, code: i32, words: &[&str]) {
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(code), "{stderr}");
    let error: Vec<&str> = stderr.lines().skip_while(|line| !line.starts_with("error")).collect();
    assert!(error.len() == 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "'{word}' is not in: {stderr}");
    }
}

#[test]
fn wrong_usage_and_missing_things_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let run = |more: &[&str]| train(&at("out"), more);
    fails(run(&["--stepps", "3"]), 2, &["--stepps"]);
    fails(run(&["--steps", "0"]), 2, &["--steps", "at least 1"]);
    fails(run(&["--lr", "nan"]), 2, &["--lr"]);
    fails(run(&["--preset", "2b"]), 2, &["2b", "small-10m"]);
    fails(run(&["--threads", "99999"]), 2, &["99999", "1024"]);
    fails(run(&["--seq", "1000"]), 2, &["--seq", "512"]);
    fails(run(&["--data", "no/such/place"]), 1, &["no/such/place"]);
    fails(run(&["--from", "no/such/model"]), 1, &["no/such/model"]);
    fails(run(&["--resume"]), 1, &["train.toml", "nothing to resume"]);
    std::fs::create_dir(at("damaged")).unwrap();
    std::fs::write(at("damaged").join("train.toml"), "steps = 3\nbat").unwrap();
    fails(resume(&at("damaged")), 1, &["train.toml", "line 2", "damaged", "--from"]);
    std::fs::write(at("settings.toml"), "stepps = 3\n").unwrap();
    fails(run(&["--config", at("settings.toml").to_str().unwrap()]), 2, &["stepps", "settings.toml"]);
    std::fs::write(at("file"), "").unwrap();
    fails(train(&at("file"), &["--steps", "1"]), 1, &["file"]);
    std::fs::create_dir(at("latin")).unwrap();
    std::fs::write(at("latin").join("a.txt"), [b'a', 0xe4, b'b']).unwrap();
    fails(run(&["--data", at("latin").to_str().unwrap()]), 1, &["a.txt", "UTF-8"]);
    std::fs::create_dir(at("short")).unwrap();
    std::fs::write(at("short").join("a.txt"), "too short").unwrap();
    fails(train(&at("out2"), &["--data", at("short").to_str().unwrap()]), 1, &["sequence", "128"]);
}

#[test]
fn runs_are_not_overwritten_and_resumes_not_bent() {
    let (folder, _) = reference();
    let out = folder.path().join("run");
    fails(train(&out, &SHORT), 1, &["--resume", "--out"]);
    fails(train(&out, &["--resume", "--lr", "1"]), 2, &["--lr"]);
    let weights = out.join("checkpoints/step-0000000014/model.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    fails(resume(&out), 1, &["step-0000000014", "model.safetensors", "damaged"]);
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let done = summary(train(&out, &SHORT));
    // Files may grow to 1 MB and no further: writing the next checkpoint fails as on a full disk.
    let mut limited = Command::new("sh");
    let script = "trap '' XFSZ; ulimit -f 2000; exec \"$@\"";
    limited
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_gauntlet"), "train", "--resume", "--out"])
        .arg(&out);
    std::fs::remove_dir_all(out.join("checkpoints/step-0000000014")).unwrap();
    fails(limited, 1, &["checkpoint was not written", "disk"]);
    let mut left: Vec<_> =
        std::fs::read_dir(out.join("checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["step-0000000012"], "the old checkpoint and nothing half-written");
    assert_eq!(done["steps"], 14);
}

#[test]
fn a_plan_allocates_nothing() {
    let output = gauntlet()
        .args(["train", "--preset", "1b", "--batch", "8", "--seq", "2048", "--plan"])
        .output()
        .unwrap();
    assert!(output.status.success());
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(plan["plan"]["parameters"], 1_204_881_408u64);
    assert_eq!(plan["plan"]["optimizer_bytes"], 8 * 1_204_881_408u64);
    // θ alone would take 4.8 GB.
    assert!(plan["peak_rss_bytes"].as_u64().unwrap() < 256 << 20, "{plan}");
    let bytes = &plan["recompute"]["total_bytes"];
    assert!(bytes["on"].as_u64().unwrap() < bytes["off"].as_u64().unwrap(), "{plan}");
    let chosen = plan["recompute"]["chosen"].as_str().unwrap();
    assert_eq!((&plan["recompute"]["asked"], &plan["plan"]["total_bytes"]), (&"auto".into(), &bytes[chosen]));
    let note = String::from_utf8(output.stderr).unwrap();
    assert!(note.contains("32000 rows"), "{note}");
}

#[test]
fn a_plan_has_the_vocabulary_of_the_run() {
    let planned = |flags: &[&str]| {
        let output = gauntlet().args(["train", "--plan"]).args(flags).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        let plan: Value = serde_json::from_slice(&output.stdout).unwrap();
        plan["plan"]["parameters"].as_u64().unwrap()
    };
    // 257 ids in 320 rows of 2048, twice: tied to nothing.
    assert_eq!(planned(&["--preset", "1b", "--tokenizer", "bytes"]), 1_075_120_128);
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("text.txt");
    std::fs::write(&text, "Call me Ishmael. ".repeat(40)).unwrap();
    let raw = text.to_str().unwrap();
    assert_eq!(planned(&["--preset", "1b", "--data", raw]), 1_075_120_128);
    let prepared = folder.path().join("prepared");
    let out = prepared.to_str().unwrap();
    assert!(gauntlet().args(["data", "prepare", "--data", raw, "--out", out]).status().unwrap().success());
    assert_eq!(planned(&["--preset", "1b", "--data", out]), 1_075_120_128);
}

#[test]
fn what_auto_chose_is_written_and_computing_again_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut hashes = Vec::new();
    for (name, flags, written) in
        [("auto", &[][..], "off"), ("on", &["--recompute", "on"], "on"), ("bare", &["--recompute"], "on")]
    {
        let out = folder.path().join(name);
        let args = [&["--steps", "2"], &SHORT[2..], flags].concat();
        hashes.push(hash(&summary(train(&out, &args))));
        let settings = std::fs::read_to_string(out.join("train.toml")).unwrap();
        assert!(settings.contains(&format!("recompute = \"{written}\"")), "{settings}");
    }
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    let unknown = train(&folder.path().join("x"), &["--recompute", "maybe"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
