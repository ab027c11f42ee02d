//! `gauntlet simulate` as a user meets it: the same bytes for any thread count, faults survived, payouts accounted for.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)] // a test binary

mod behaviours;
mod default_run;
mod determinism;
mod input;
mod interruption;
mod joiners;
mod leaders;
mod objects;
mod offline;
mod payouts;
mod report;
mod restarts;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn gauntlet(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gauntlet")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A small run; gives its summary.
fn simulate(out: &Path, peers: &str, windows: &str, more: &[&str]) -> Value {
    let out_text = out.display().to_string();
    let small = ["--seq", "32", "--sequences", "1", "--no-baseline", "--json"];
    let args = [&["simulate", "--out", &out_text, "--peers", peers, "--windows", windows][..], &small, more];
    let output = gauntlet(&args.concat());
    assert!(output.status.success(), "{}", stderr(&output));
    read_summary(out)
}

fn read_summary(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap()
}

fn read_events(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("events.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A manifest for short runs, in which one submission makes a step, with some lines changed; every line must be there.
fn manifest(folder: &Path, changes: &[(&str, &str)]) -> String {
    let path = folder.join("run.toml").display().to_string();
    let output = gauntlet(&["init", "--out", &path, "--seq", "32", "--windows", "20", "--force"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [("min_gather = 3", "min_gather = 1")].iter().chain(changes) {
        let changed = text.replace(from, to);
        assert_ne!(text, changed, "{from}");
        text = changed;
    }
    std::fs::write(&path, text).unwrap();
    path
}

fn peer<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let peers = summary["peers"].as_array().unwrap();
    peers.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no peer {name}"))
}

/// A peer's hotkey as events have it: hex of what lies between prefix and checksum of its address.
fn hotkey(peer: &Value) -> String {
    let address = bs58::decode(peer["hotkey"].as_str().unwrap()).into_vec().unwrap();
    address[1..33].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All files somewhere below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// A run of a manifest with short windows; gives its summary and events.
fn run_of(folder: &Path, changes: &[(&str, &str)], args: &[&str]) -> (Value, Vec<Value>) {
    let path = manifest(folder, changes);
    let out = folder.join("run");
    let common = ["simulate", "--manifest", &path, "--sequences", "1", "--no-baseline", "--json", "--out"];
    let output = gauntlet(&[&common[..], &[&out.display().to_string()], args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    (read_summary(&out), read_events(&out))
}
