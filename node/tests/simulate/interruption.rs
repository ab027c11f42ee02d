//! Runs that are stopped, and disks that are full.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{gauntlet, peer, read_summary, stderr};

#[test]
fn ctrl_c_ends_a_run_with_all_that_it_came_to() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    command.arg("simulate").arg("--out").arg(&out).args(["--peers", "honest:2", "--windows", "2000"]);
    command.args(["--seq", "32", "--sequences", "1", "--no-baseline", "--json"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    while !first.contains("\"theta\"") {
        first.clear();
        assert!(lines.read_line(&mut first).unwrap() > 0, "it ended by itself");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    lines.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let summary = read_summary(&out);
    let windows = summary["windows"].as_u64().unwrap();
    assert_eq!(summary["interrupted"], true);
    assert_eq!(windows, 1 + rest.lines().filter(|line| line.contains("\"theta\"")).count() as u64);
    let said = format!("interrupted after {windows} of 2000 windows");
    assert!(stderr(&output).contains(&said), "{}", stderr(&output));
    assert_eq!((&summary["all_agree"], &summary["chain"]["adds_up"]), (&true.into(), &true.into()));
    assert!(std::fs::read_to_string(out.join("report.html")).unwrap().contains("then interrupted"));
    // What is there is whole: an explanation reads all of it.
    let explained = gauntlet(&["explain", "honest-1", "--run", &out.display().to_string(), "--json"]);
    let said: Value = serde_json::from_slice(&explained.stdout).unwrap();
    assert_eq!(said["balance"], peer(&summary, "honest-1")["balance"]);
}

#[test]
fn ctrl_c_does_not_wait_for_all_miners_of_a_window() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
    // One miner trains for a moment, all of them for long.
    command.arg("simulate").arg("--out").arg(&out).args(["--peers", "honest:200", "--windows", "1"]);
    command.args(["--seq", "32", "--sequences", "64", "--no-baseline", "--json"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.starts_with("text: ") {
        line.clear();
        assert!(said.read_line(&mut line).unwrap() > 0, "it ended by itself");
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{rest}");
    assert!(rest.contains("interrupted after 0 of 1 windows"), "{rest}");
    let summary = read_summary(&out);
    assert_eq!((&summary["windows"], &summary["interrupted"]), (&0.into(), &true.into()));
    assert_eq!((&summary["all_agree"], &summary["chain"]["adds_up"]), (&true.into(), &true.into()));
}

#[test]
fn a_full_disk_is_named() {
    let folder = tempfile::tempdir().unwrap();
    // Files may grow so far and no further: first the facts do not fit any more, then the manifest.
    for (blocks, file) in [("60", "facts.jsonl"), ("1", "manifest.toml")] {
        let out = folder.path().join(file);
        let script = "trap '' XFSZ; ulimit -f \"$0\"; exec \"$@\"";
        let mut limited = Command::new("sh");
        limited.args(["-c", script, blocks, env!("CARGO_BIN_EXE_gauntlet"), "simulate", "--out"]).arg(&out);
        limited.args(["--peers", "honest:4", "--windows", "30", "--seq", "32", "--sequences", "1"]);
        let output = limited.args(["--no-baseline", "--json"]).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        let text = stderr(&output);
        let errors: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("error")).collect();
        assert!(errors.len() == 1 && errors[0].contains(file), "{text}");
        assert!(!out.join("summary.json").exists(), "nothing is summed up");
    }
}
