//! What must not change a run: threads, folders, kills; and that it can be judged again.

use serde_json::Value;

use super::{peers, simulate};

#[test]
fn any_number_of_threads_gives_the_same_summary() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, threads: &str| {
        let out = folder.path().join(name);
        let summary = simulate(&out, peers(), "5", &["--threads", threads]);
        assert_eq!(summary["all_agree"], true);
        assert_eq!(summary["chain"]["adds_up"], true);
        ["summary.json", "events.jsonl", "facts.jsonl", "manifest.toml"]
            .map(|f| std::fs::read(out.join(f)).unwrap())
    };
    let one = run("one", "1");
    assert!(one == run("two", "2"), "two threads");
    let place = folder.path().join("elsewhere");
    let kept = simulate(&place, peers(), "5", &["--keep-objects"]);
    let text = String::from_utf8(one[0].clone()).unwrap();
    assert_eq!(kept, serde_json::from_str::<Value>(&text).unwrap(), "where files are kept does not matter");
    let other = simulate(&folder.path().join("other"), peers(), "5", &["--seed", "7"]);
    assert_ne!(other["theta_hash"], kept["theta_hash"], "another seed is another run");
}

#[test]
fn a_restart_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, peers: &str, validators: &str| {
        let summary = simulate(&folder.path().join(name), peers, "9", &["--validators", validators]);
        assert_eq!(summary["all_agree"], true);
        let text = std::fs::read_to_string(folder.path().join(name).join("events.jsonl")).unwrap();
        // Names of nodes differ, and nothing else.
        let lines = text.lines().filter(|line| !line.contains("\"kind\":\"node\""));
        (summary["theta_hash"].clone(), lines.map(str::to_owned).collect::<Vec<_>>())
    };
    let whole = run("whole", "honest:4,signflip,copycat", "3");
    let killed =
        run("killed", "honest,restart@4,restart@8,honest,signflip,copycat", "honest,restart@6,restart@3");
    assert_eq!(whole.0, killed.0);
    for (a, b) in whole.1.iter().zip(&killed.1) {
        assert_eq!(a, b);
    }
    assert_eq!(whole.1.len(), killed.1.len());
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
