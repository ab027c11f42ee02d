//! Who comes late, or falls behind.

use serde_json::Value;

use super::{gauntlet, manifest, peer, run_of, stderr};

#[test]
fn joiners_reach_the_common_state_with_and_without_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let often = [("checkpoint_every = 10", "checkpoint_every = 4"), ("anchor_every = 5", "anchor_every = 2")];
    let path = manifest(folder.path(), &often);
    let out = folder.path().join("run");
    let out_text = out.display().to_string();
    let peers = "honest:3,joiner@7,joiner@7:replay";
    let args = ["--peers", peers, "--windows", "12", "--sequences", "1", "--no-baseline", "--json"];
    let output = gauntlet(&[&["simulate", "--manifest", &path, "--out", &out_text][..], &args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let summary: Value = serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["all_agree"], true);
    let events = std::fs::read_to_string(out.join("events.jsonl")).unwrap();
    let joined = |name: &str| {
        let lines = events.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.into_iter().find(|l| l["kind"] == "joined" && l["node"] == name).unwrap()["from"]
            .as_u64()
            .unwrap()
    };
    assert_eq!((joined("joiner@7-1"), joined("joiner@7:replay-1")), (4, 0));
    for name in ["joiner@7-1", "joiner@7:replay-1"] {
        let peer = peer(&summary, name);
        assert_eq!((&peer["agrees"], &peer["submissions"]), (&true.into(), &5.into()), "{peer:#}");
        assert_eq!(peer["failures"], serde_json::json!({}));
        let first = |line: &&str| line.contains("check_passed") && line.contains("\"window\":7");
        let passed = events.lines().filter(first).filter(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            gauntlet::Hotkey::from_hex(event["hotkey"].as_str().unwrap()).is_ok()
        });
        assert!(passed.count() >= 5, "its first submission passes");
        assert!(peer["accepted"].as_u64().unwrap() > 0, "and is used: {peer:#}");
    }
}

#[test]
fn who_is_far_behind_comes_back_by_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let changes = [
        ("checkpoint_every = 10", "checkpoint_every = 2"),
        ("anchor_every = 5", "anchor_every = 2"),
        ("keep = 0", "keep = 6"),
    ];
    let args = ["--peers", "honest:3,joiner@11:replay", "--windows", "14"];
    let (summary, _) = run_of(folder.path(), &changes, &args);
    assert_eq!(summary["all_agree"], true);
    assert!(peer(&summary, "joiner@11:replay-1")["submissions"].as_u64().unwrap() >= 2, "{summary:#}");
}
