//! Nodes that are killed and started again.

use std::path::Path;

use super::*;

/// θ and the events of a run: names of nodes aside, all that can differ.
fn run(out: &Path, peers: &str, validators: &str) -> (Value, Vec<String>) {
    let summary = simulate(out, peers, "7", &["--validators", validators]);
    assert_eq!(summary["all_agree"], true);
    let text = std::fs::read_to_string(out.join("events.jsonl")).unwrap();
    let lines = text.lines().filter(|line| !line.contains("\"kind\":\"node\""));
    (summary["theta_hash"].clone(), lines.map(str::to_owned).collect())
}

#[test]
fn a_restart_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // The eraser takes back what was judged before the record lists it, so nobody can judge it again.
    let others = "eraser,signflip,copycat";
    let whole = run(&folder.path().join("whole"), &format!("honest:5,{others}"), "3");
    for (i, (miners, validators)) in [
        // Between draft, commitment and object; between judging, publishing and saying.
        (
            "restart@2:commit,restart@3:reveal,restart@4:judge,restart@5,honest",
            "restart@4:publish,restart@3:judge,restart@5:state",
        ),
        // Between publishing and applying, and after that.
        (
            "restart@2:follow,restart@3:settle,restart@4:train,restart@5:catch-up,honest",
            "restart@4:follow,restart@3:read,restart@5:settle",
        ),
        // Everybody before every part of a window.
        ("restart@4,restart@4,restart@4,restart@4,restart@4", "restart@4,restart@4,restart@4"),
    ]
    .into_iter()
    .enumerate()
    {
        let killed = run(&folder.path().join(i.to_string()), &format!("{miners},{others}"), validators);
        assert_eq!(whole.0, killed.0, "{miners}; {validators}");
        for (a, b) in whole.1.iter().zip(&killed.1) {
            assert_eq!(a, b, "{miners}; {validators}");
        }
        assert_eq!(whole.1.len(), killed.1.len(), "{miners}; {validators}");
    }
}
