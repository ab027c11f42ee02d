//! Who comes late, or falls behind.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::{hotkey, peer, run_of};

/// Checkpoints and anchors that come often enough for a short run.
const OFTEN: [(&str, &str); 2] =
    [("checkpoint_every = 10", "checkpoint_every = 4"), ("anchor_every = 5", "anchor_every = 2")];

/// Two joiners of window `w` among three peers, from the checkpoint of window `checkpoint` and from the beginning: both
/// reach the common θ and send from their first window on. Gives the summary, the events, and of each joiner the first
/// window whose record lists it.
fn joined(folder: &Path, w: u64, checkpoint: u64, windows: &str) -> (Value, Vec<Value>, [u64; 2]) {
    let peers = format!("honest:3,joiner@{w},joiner@{w}:replay");
    let (summary, events) = run_of(folder, &OFTEN, &["--peers", &peers, "--windows", windows]);
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()));
    let names = [format!("joiner@{w}-1"), format!("joiner@{w}:replay-1")];
    let first = [(0, checkpoint), (1, 0)].map(|(i, from)| {
        let (name, peer) = (&names[i], peer(&summary, &names[i]));
        let begun = events.iter().find(|e| e["kind"] == "joined" && e["node"] == **name).unwrap();
        assert_eq!((&begun["window"], &begun["from"]), (&w.into(), &from.into()), "{name}");
        let sent = summary["windows"].as_u64().unwrap() - w;
        assert_eq!((&peer["agrees"], &peer["submissions"]), (&true.into(), &sent.into()), "{peer:#}");
        assert_eq!((&peer["failures"], &peer["sync"]), (&serde_json::json!({}), &0.0.into()), "{peer:#}");
        // Its first submission, as both validators see it.
        let me = hotkey(peer);
        let passed = events.iter().filter(|e| e["event"] == "check_passed" && e["hotkey"] == *me);
        let passed: Vec<u64> = passed.map(|e| e["window"].as_u64().unwrap()).collect();
        assert_eq!(passed[..2], [w, w], "{name}");
        let listed = |e: &&Value| {
            let accepted = e["accepted"].as_array();
            e["kind"] == "record" && accepted.is_some_and(|all| all.contains(&peer["hotkey"]))
        };
        events.iter().find(listed).unwrap_or_else(|| panic!("{name} is used"))["window"].as_u64().unwrap()
    });
    // Nobody stands elsewhere at any time: the joiners hold the θ hash that all others hold.
    let windows: Vec<&Value> = events.iter().filter(|e| e["kind"] == "window").collect();
    assert!(windows.iter().all(|window| window["apart"] == serde_json::json!([])));
    let hashes: BTreeSet<&str> = windows.iter().map(|window| window["theta"].as_str().unwrap()).collect();
    assert_eq!(hashes.len(), windows.len(), "θ moves in every window");
    assert_eq!(summary["theta_hash"], windows.last().unwrap()["theta"]);
    (summary, events, first)
}

#[test]
fn joiners_reach_the_common_state_with_and_without_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let (_, _, listed) = joined(folder.path(), 7, 4, "12");
    assert_eq!(listed, [9, 9], "who sends in a window is selected for the second after it");
}

/// From window 20 on an open place needs a positive evaluation. The newest checkpoint that an anchored record vouches for
/// is then that of window 16: the record that names θ of window 20 is still to come.
#[test]
fn heavy_joiners_of_window_20_are_listed_once_they_were_evaluated() {
    let folder = tempfile::tempdir().unwrap();
    let (summary, events, listed) = joined(folder.path(), 20, 16, "30");
    for (name, listed) in ["joiner@20-1", "joiner@20:replay-1"].iter().zip(listed) {
        let me = hotkey(peer(&summary, name));
        let leader = &summary["validators"][0]["hotkey"];
        let of = |kind: &str| {
            let of = events.iter().filter(|e| e["validator"] == *leader && e["event"] == kind);
            of.collect::<Vec<_>>()
        };
        let window = |e: &&Value| e["window"].as_u64().unwrap();
        let helped = |e: &&&Value| {
            e["hotkey"] == *me
                && e["losses"]["random_after"].as_f64().unwrap()
                    < e["losses"]["random_before"].as_f64().unwrap()
        };
        let positive = window(of("evaluated").iter().find(helped).unwrap());
        let selects = |e: &&&Value| e["selection"]["gather"].as_array().unwrap().contains(&Value::from(&*me));
        let selected = window(of("selected").iter().find(selects).unwrap());
        println!("{name}: positive in {positive}, selected in {selected}, listed in {listed}");
        assert!(positive >= 20 && listed >= 22, "{name}");
        assert_eq!((selected, listed), (positive, positive + 2), "{name}");
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
