//! The default run, whole.

use serde_json::Value;

use super::{gauntlet, stderr};

/// The default run, whole: 100 windows of 14 peers.
#[test]
fn heavy_no_dishonest_peer_of_the_default_run_earns_as_much_as_the_worst_honest_one() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let output = gauntlet(&["simulate", "--out", &out.display().to_string(), "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!((&summary["all_agree"], &summary["chain"]["adds_up"]), (&true.into(), &true.into()));
    let income = |peer: &Value| peer["balance"].as_u64().unwrap();
    let (honest, others): (Vec<&Value>, Vec<&Value>) =
        summary["peers"].as_array().unwrap().iter().partition(|p| p["honest"] == true);
    assert_eq!((honest.len(), others.len()), (8, 6));
    let worst = honest.iter().map(|peer| income(peer)).min().unwrap();
    assert!(worst > 0, "{summary:#}");
    for peer in others {
        assert!(income(peer) < worst, "{peer:#}");
    }
    for peer in honest {
        assert_eq!(peer["sync"], 0.0, "{peer:#}");
        let name = peer["name"].as_str().unwrap();
        let output = gauntlet(&["explain", name, "--run", &out.display().to_string(), "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!((&said["accounted"], &said["balance"]), (&true.into(), &peer["balance"]));
    }
    let events = std::fs::read_to_string(out.join("events.jsonl")).unwrap();
    let losses: Vec<f64> = events
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["validation"].as_f64())
        .collect();
    assert!(losses.len() == 100 && losses[99] < losses[0] - 1.5, "{:?}", (losses[0], losses[99]));
}
