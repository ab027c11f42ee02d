//! What must not change a run: threads, folders, kills; and that it can be judged again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{files, gauntlet, read_summary, simulate, stderr};

/// All that a run leaves, by path within its folder.
fn left(out: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let all = files(out).into_iter();
    all.map(|path| (path.strip_prefix(out).unwrap().to_owned(), std::fs::read(&path).unwrap())).collect()
}

/// Every phase of every window took time.
fn timed(timing: &Value) {
    let windows = timing["windows"].as_array().unwrap();
    let spent = |w: &Value| ["train", "encode", "apply", "evaluate"].map(|p| w[p].as_f64().unwrap());
    assert!(windows.len() == 5 && windows.iter().all(|w| spent(w).iter().all(|s| *s > 0.0)), "{timing}");
    let share = timing["validator"]["share"].as_f64().unwrap();
    assert!(share > 0.0 && timing["window_seconds"] == 7.0 && timing["device_bytes"].is_null());
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    let peers = "honest:2,lazy,copycat,sybil:2:interleave,noise:0.5,absent:0.3";
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let text = out.display().to_string();
        let small = ["--peers", peers, "--windows", "5", "--seq", "32", "--sequences", "1", "--json"];
        let output = gauntlet(&[&["simulate", "--out", &text][..], &small, more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let mut left = left(&out);
        // The one file that holds times.
        let timing = left.remove(Path::new("timing.json")).expect("timing.json");
        timed(&serde_json::from_slice(&timing).unwrap());
        left
    };
    let one = run("one", &["--threads", "1"]);
    let mut names: Vec<&str> = one.keys().map(|path| path.to_str().unwrap()).collect();
    names.retain(|name| !name.starts_with("states/"));
    assert_eq!(names, ["events.jsonl", "facts.jsonl", "manifest.toml", "report.html", "summary.json"]);
    assert_eq!(one.len(), names.len() + 2, "and a state of each validator");
    let summary = read_summary(&folder.path().join("one"));
    assert_eq!((&summary["all_agree"], &summary["chain"]["adds_up"]), (&true.into(), &true.into()));
    assert!(summary["baseline_loss"].is_number());
    let same = |other: &BTreeMap<PathBuf, Vec<u8>>, what: &str| {
        let differ = one.iter().filter(|(path, bytes)| other.get(*path) != Some(bytes));
        assert_eq!(differ.map(|(path, _)| path).collect::<Vec<_>>(), Vec::<&PathBuf>::new(), "{what}");
    };
    let two = run("two", &["--threads", "2"]);
    same(&two, "two threads");
    assert_eq!(one.len(), two.len());
    same(&run("elsewhere", &["--keep-objects"]), "where objects are kept does not matter");
    let other = run("other", &["--seed", "7"]);
    assert!(one.iter().all(|(path, bytes)| other.get(path) != Some(bytes)), "another seed is another run");
}

#[test]
fn what_a_validator_did_can_be_judged_again() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let summary = simulate(&out, "honest:3,signflip,copycat", "8", &[]);
    let manifest: toml::Table = std::fs::read_to_string(out.join("manifest.toml")).unwrap().parse().unwrap();
    let rules: gauntlet::Rules = manifest["gauntlet"].clone().try_into().unwrap();
    let validator = summary["validators"][0]["hotkey"].as_str().unwrap();
    let lines = |file: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(out.join(file)).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let events: Vec<Value> = lines("events.jsonl")
        .into_iter()
        .filter(|line| line["kind"].is_null() && line["validator"] == validator)
        .map(|mut line| {
            line.as_object_mut().unwrap().remove("validator");
            line
        })
        .collect();
    let facts: Vec<gauntlet::RoundFacts> =
        lines("facts.jsonl").into_iter().map(|line| serde_json::from_value(line).unwrap()).collect();
    let first = facts[0].window.validator;
    let (mut state, mut again) = (gauntlet::State::default(), Vec::new());
    for facts in facts.iter().filter(|facts| facts.window.validator == first) {
        let finished = gauntlet::replay(&rules, state, facts).unwrap();
        again.extend(finished.events.iter().map(|event| serde_json::to_value(event).unwrap()));
        state = finished.state;
    }
    assert!(events.len() > 50);
    assert_eq!(again, events);
    // And the text is learned: the held-out loss falls from window to window, on the whole.
    let losses: Vec<f64> =
        lines("events.jsonl").iter().filter_map(|line| line["validation"].as_f64()).collect();
    assert!(losses.len() == 8 && losses[7] < losses[0] - 0.2, "{losses:?}");
}
