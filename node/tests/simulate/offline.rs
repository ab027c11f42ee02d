//! Validators that reach nobody.

use std::collections::BTreeSet;

use super::run_of;

#[test]
fn validators_that_reach_nobody_blame_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--peers", "honest:3", "--windows", "6", "--validators", "offline@2,offline@4,honest"];
    let (summary, events) = run_of(folder.path(), &[], &args);
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
    let led: Vec<u64> =
        summary["validators"].as_array().unwrap().iter().map(|v| v["led"].as_u64().unwrap()).collect();
    assert_eq!(led, [5, 1, 0], "who reaches nobody leaves its turn to the next");
    let first = summary["validators"][0]["hotkey"].clone();
    let judged: BTreeSet<u64> = events
        .iter()
        .filter(|e| e["validator"] == first && e["event"] == "check_passed")
        .map(|e| e["window"].as_u64().unwrap())
        .collect();
    assert_eq!(judged, [0, 1, 3, 4, 5].into(), "it knows nothing of what it could not read");
    assert!(!events.iter().any(|e| e["event"] == "check_failed"), "and nobody's fault");
}

#[test]
fn a_run_goes_on_when_its_validators_come_back() {
    for validators in ["offline@2", "offline@2,offline@2"] {
        let folder = tempfile::tempdir().unwrap();
        let args = ["--peers", "honest:3", "--windows", "6", "--validators", validators];
        let (summary, events) = run_of(folder.path(), &[], &args);
        assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
        // In the window that began before window 2 was closed nobody had a θ to train on.
        let blamed = events.iter().filter(|e| e["event"] == "check_failed");
        for event in blamed {
            assert_eq!((&event["window"], &event["reason"]), (&3.into(), &"no_commitment".into()), "{event}");
        }
    }
}
