//! The default run, whole.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{gauntlet, hotkey, read_events, read_summary, stderr};

/// 100 windows of 14 peers.
#[test]
fn heavy_no_dishonest_peer_of_the_default_run_earns_as_much_as_the_worst_honest_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let output = gauntlet(&["simulate", "--out", &out.display().to_string(), "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (summary, events) = (read_summary(&out), read_events(&out));
    assert_eq!((&summary["all_agree"], &summary["chain"]["adds_up"]), (&true.into(), &true.into()));
    assert_eq!((&summary["interrupted"], &summary["disputed"]), (&false.into(), &serde_json::json!([])));
    let income = |peer: &Value| peer["balance"].as_u64().unwrap();
    let (honest, others): (Vec<&Value>, Vec<&Value>) =
        summary["peers"].as_array().unwrap().iter().partition(|p| p["honest"] == true);
    assert_eq!((honest.len(), others.len()), (8, 6));
    let worst = honest.iter().map(|peer| income(peer)).min().unwrap();
    assert!(worst > 0, "{summary:#}");
    for peer in &others {
        assert!(income(peer) < worst, "{peer:#}");
    }
    // Every payout of everybody is accounted for, to the last unit.
    let validators = summary["validators"].as_array().unwrap();
    for node in honest.iter().chain(&others).copied().chain(validators) {
        let name = node["name"].as_str().unwrap();
        let output = gauntlet(&["explain", name, "--run", &out.display().to_string(), "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&said["accounted"], &said["balance"]), (&true.into(), &node["balance"]), "{name}");
    }
    let windows: Vec<&Value> = events.iter().filter(|e| e["kind"] == "window").collect();
    assert!(
        windows.iter().all(|window| window["apart"] == serde_json::json!([])),
        "one θ after every window"
    );
    let losses: Vec<f64> = windows.iter().map(|window| window["validation"].as_f64().unwrap()).collect();
    assert!(losses.len() == 100 && losses[99] < losses[0] - 1.5, "{:?}", (losses[0], losses[99]));
    // State tags match in every window, and published values do, by both validators.
    let honest: BTreeMap<String, &str> =
        honest.iter().map(|peer| (hotkey(peer), peer["name"].as_str().unwrap())).collect();
    let (mut passed, mut synced) = (BTreeMap::new(), BTreeMap::new());
    for event in &events {
        let Some(name) = event["hotkey"].as_str().and_then(|key| honest.get(key)) else { continue };
        match event["event"].as_str() {
            Some("check_failed") => assert_ne!(event["reason"], "wrong_state", "{name}: {event}"),
            Some("check_passed") => *passed.entry(*name).or_insert(0) += 1,
            Some("synced") => {
                assert_eq!(event["steps"], 0.0, "{name}: {event}");
                *synced.entry(*name).or_insert(0) += 1;
            }
            _ => {}
        }
    }
    println!("checks passed {passed:?}, SyncScores {synced:?}");
    for counts in [&passed, &synced] {
        assert!(counts.len() == 8 && counts.values().all(|count| *count >= 150), "{counts:?}");
    }
    let page = std::fs::read_to_string(out.join("report.html")).unwrap();
    for node in summary["peers"].as_array().unwrap().iter().chain(validators) {
        assert!(page.contains(node["name"].as_str().unwrap()), "{}", node["name"]);
    }
}
