//! Validators that reach nobody.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{hotkey, peer, run_of};

/// Who puts something too late, or reveals what it did not commit to; and why it fails.
const LATE: [(&str, &str); 3] = [
    ("late-1", "late_commitment"),
    ("late-copycat-1", "late_commitment"),
    ("copycat-1", "commitment_mismatch"),
];

/// Windows and reasons of the failed checks of all peers whose name starts so, by whichever validator.
fn failures(summary: &Value, events: &[Value], name: &str) -> Vec<(u64, String)> {
    let peers = summary["peers"].as_array().unwrap().iter();
    let named: BTreeSet<String> =
        peers.filter(|p| p["name"].as_str().unwrap().starts_with(name)).map(hotkey).collect();
    let failed = events.iter().filter(|e| e["event"] == "check_failed");
    let failed = failed.filter(|e| named.contains(e["hotkey"].as_str().unwrap()));
    let reason = |e: &Value| e["reason"].as_str().map_or_else(|| e["reason"].to_string(), str::to_owned);
    failed.map(|e| (e["window"].as_u64().unwrap(), reason(e))).collect()
}

#[test]
fn validators_that_reach_nobody_blame_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let peers = "honest:3,late,copycat,late-copycat";
    let args = ["--peers", peers, "--windows", "6", "--validators", "offline@2,offline@4,honest"];
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
    assert_eq!(
        judged,
        (0..6).collect(),
        "it is back before its next turn, and the stores' clocks say what was in time"
    );
    assert!(failures(&summary, &events, "honest-").is_empty(), "and nobody's fault");
    for (name, reason) in LATE {
        let failed = failures(&summary, &events, name);
        assert!(failed.len() > 6 && failed.iter().all(|(_, why)| why == reason), "{name}: {failed:?}");
        assert_eq!(peer(&summary, name)["accepted"], 0, "{name}");
    }
}

#[test]
fn a_validator_whose_bucket_is_down_is_succeeded() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--peers", "honest:3", "--windows", "5", "--validators", "bucket-down@2,honest"];
    let (summary, events) = run_of(folder.path(), &[], &args);
    // The one that goes on has a third of the stake. The other one follows: it reads what others put.
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
    let led: Vec<u64> =
        summary["validators"].as_array().unwrap().iter().map(|v| v["led"].as_u64().unwrap()).collect();
    assert_eq!(led, [2, 3], "{summary:#}");
    let accepted = events.iter().filter(|e| e["kind"] == "window").map(|e| e["accepted"].as_u64().unwrap());
    assert_eq!(accepted.collect::<Vec<_>>(), [3; 5]);
    assert!(failures(&summary, &events, "honest-").is_empty(), "and nobody's fault");
}

#[test]
fn a_run_goes_on_when_its_validators_come_back() {
    for validators in ["offline@2", "offline@2,offline@2"] {
        let folder = tempfile::tempdir().unwrap();
        let peers = "honest:3,late,copycat,late-copycat";
        let args = ["--peers", peers, "--windows", "6", "--validators", validators];
        let (summary, events) = run_of(folder.path(), &[], &args);
        assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
        // In the window that began before window 2 was closed nobody had a θ to train on.
        for (window, reason) in failures(&summary, &events, "honest-") {
            assert_eq!((window, &*reason), (3, "no_commitment"));
        }
        // Nobody read the commitments to window 2 at their deadline; by the stores' clocks they are still late.
        for (name, reason) in LATE {
            let failed = failures(&summary, &events, name);
            assert!(failed.contains(&(2, reason.to_owned())), "{validators}: {name}: {failed:?}");
            assert_eq!(peer(&summary, name)["accepted"], 0, "{validators}: {name}");
        }
    }
}
