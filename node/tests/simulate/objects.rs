//! Objects of a run: inspected, and forgotten.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{files, gauntlet, run_of, stderr};

#[test]
fn every_object_of_a_run_can_be_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let changes = [("checkpoint_every = 10", "checkpoint_every = 2")];
    run_of(folder.path(), &changes, &["--peers", "honest:2", "--windows", "3", "--keep-objects"]);
    let mut kinds = BTreeSet::new();
    for path in files(&folder.path().join("run")) {
        let object = path.starts_with(folder.path().join("run/objects"));
        let text = path.display().to_string();
        if !object && !text.ends_with(".state")
            || text.ends_with(".safetensors")
            || text.contains("/w0000000001/")
        {
            continue;
        }
        let output = gauntlet(&["inspect", &text, "--json"]);
        assert!(output.status.success(), "{text}: {}", stderr(&output));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        kinds.insert(said["kind"].as_str().unwrap().to_owned());
    }
    let all = "bundle checkpoint commitment judgement record state statement submission values";
    assert_eq!(kinds.into_iter().collect::<Vec<_>>().join(" "), all);
}

#[test]
fn old_objects_are_forgotten_and_joiners_still_come() {
    let folder = tempfile::tempdir().unwrap();
    let changes = [
        ("checkpoint_every = 10", "checkpoint_every = 2"),
        ("anchor_every = 5", "anchor_every = 2"),
        ("keep = 0", "keep = 6"),
    ];
    let args = ["--peers", "honest:3,joiner@10", "--windows", "12", "--keep-objects"];
    let (summary, events) = run_of(folder.path(), &changes, &args);
    assert_eq!(summary["all_agree"], true);
    assert_eq!(events.iter().find(|e| e["kind"] == "joined").unwrap()["from"], 6);
    let (mut grads, mut records, mut checkpoints) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for path in files(&folder.path().join("run/objects")) {
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        let [.., window, file] = parts[..] else { panic!("{}", path.display()) };
        let window = window.trim_start_matches('w').parse::<u64>().unwrap_or(u64::MAX);
        match file {
            "record" => records.insert(window),
            "manifest.json" => checkpoints.insert(window),
            _ if file.ends_with(".grad") => grads.insert(window),
            _ => false,
        };
    }
    assert_eq!(grads, (6..12).collect());
    assert_eq!(records, (0..12).collect(), "joiners follow them to the beginning");
    assert_eq!(checkpoints, [6, 8, 10, 12].into());
}

#[test]
fn the_plan_counts_what_the_buckets_come_to_hold() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--peers", "honest:4,twoface", "--windows", "5"];
    let changes = [("checkpoint_every = 10", "checkpoint_every = 2")];
    run_of(folder.path(), &changes, &[&args[..], &["--keep-objects"]].concat());
    let held: u64 =
        files(&folder.path().join("run/objects")).iter().map(|file| file.metadata().unwrap().len()).sum();
    let manifest = folder.path().join("run.toml").display().to_string();
    let plan = |more: &[&str]| -> Value {
        let output = gauntlet(&[&["simulate", "--manifest", &manifest, "--plan"], &args[..], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let bytes = |plan: &Value| plan["host"]["bucket_bytes"].as_u64().unwrap();
    let planned = bytes(&plan(&[]));
    assert!((held..2 * held).contains(&planned), "{planned} are planned, {held} were held");
    assert_eq!(bytes(&plan(&["--keep-objects"])), 0);
}
