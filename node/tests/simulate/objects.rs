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

#[test]
fn the_bytes_of_a_window_are_those_that_were_put() {
    let folder = tempfile::tempdir().unwrap();
    let peers = "honest:2,copycat,late-copycat,early-reader,late:object,absent:1,malformed,restart@2";
    let args = ["--peers", peers, "--windows", "4", "--keep-objects"];
    let (summary, events) = run_of(folder.path(), &[], &args);
    let put = files(&folder.path().join("run/objects"));
    let mut all = (0, 0);
    for window in events.iter().filter(|event| event["kind"] == "window") {
        let below = format!("/w{:010}/", window["window"].as_u64().unwrap());
        let objects = put.iter().map(|path| (path.display().to_string(), path));
        let sizes = objects.filter(|(name, _)| name.contains(&below) && name.ends_with(".grad"));
        let sizes: Vec<u64> = sizes.map(|(_, path)| path.metadata().unwrap().len()).collect();
        // Those who copy show something, those who are absent or come too early for it nothing.
        assert_eq!(sizes.len(), 7, "{window}");
        let found = (window["submissions"].as_u64().unwrap(), window["bytes"].as_u64().unwrap());
        assert_eq!(found, (7, sizes.iter().sum()), "{window}");
        all = (all.0 + found.0, all.1 + found.1);
    }
    #[allow(clippy::cast_precision_loss)] // a mean
    let mean = all.1 as f64 / all.0 as f64;
    assert_eq!(summary["submission_bytes"].as_f64(), Some(mean));
}
