//! Miners that do not keep to the rules.

use std::path::PathBuf;

use serde_json::Value;

use super::{files, gauntlet, manifest, simulate, stderr};

#[test]
fn every_behaviour_takes_part() {
    let folder = tempfile::tempdir().unwrap();
    let peers = "honest:3,idle,random,zero,mixer,mixer+1,replayer,replayer+1,shuffler,early-reader,concentrate,\
        sybil:2:same,sybil:2:split@2,sybil:2:interleave,lazy,signflip,noise:2,copycat,late-copycat";
    let out = folder.path().join("run");
    let summary = simulate(&out, peers, "5", &["--keep-objects"]);
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()));
    let put: Vec<PathBuf> = files(&out.join("objects"));
    for peer in summary["peers"].as_array().unwrap() {
        let objects = put.iter().filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.strip_suffix(".grad").is_some_and(|hotkey| peer["hotkey"] == hotkey)
        });
        let sent = (objects.count(), peer["submissions"].as_u64().unwrap());
        let expected = match peer["behaviour"].as_str().unwrap() {
            // These send what others sent in the window before.
            "mixer" | "mixer+1" | "replayer" | "replayer+1" | "shuffler" => (4, 4),
            // Whoever looks for objects before commitments close finds none.
            "early-reader" => (0, 0),
            // It has an object, and never committed to it in time.
            "late-copycat" => (5, 0),
            _ => (5, 5),
        };
        assert_eq!(sent, expected, "{peer:#}");
    }
    let behaviours = summary["behaviours"].as_array().unwrap();
    assert!(behaviours.iter().any(|kind| kind["behaviour"] == "sybil:2:same" && kind["peers"] == 2));
    for kind in behaviours {
        let own = |peer: &&Value| ["behaviour", "speed"].iter().all(|key| peer[key] == kind[key]);
        let peers = summary["peers"].as_array().unwrap().iter().filter(own);
        let earned: f64 = peers.map(|peer| peer["of_honest_mean"].as_f64().unwrap()).sum();
        let [mean, in_all, peers] =
            ["of_honest_mean", "in_all", "peers"].map(|key| kind[key].as_f64().unwrap());
        assert!((in_all - earned).abs() < 1e-9 && (mean * peers - earned).abs() < 1e-9, "{kind:#}");
    }
}

#[test]
fn large_claims_do_not_end_the_evaluation() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--peers", "honest:2,zero*14@1000", "--windows", "3", "--seq", "128"];
    let out = folder.path().join("run");
    let common = ["simulate", "--sequences", "4", "--no-baseline", "--json", "--out"];
    let output = gauntlet(&[&common[..], &[&out.display().to_string()], &args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let facts = std::fs::read_to_string(out.join("facts.jsonl")).unwrap();
    for line in facts.lines() {
        let facts: gauntlet::RoundFacts = serde_json::from_str(line).unwrap();
        assert!(!facts.losses.is_empty(), "window {}", facts.window.window);
    }
}

#[test]
fn too_few_submissions_make_no_step_and_everybody_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), &[("min_gather = 1", "min_gather = 3")]);
    let out = folder.path().join("run");
    let out_text = out.display().to_string();
    let args = ["--peers", "honest:2,late", "--windows", "3", "--sequences", "1", "--no-baseline", "--json"];
    let output = gauntlet(&[&["simulate", "--manifest", &path, "--out", &out_text][..], &args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let lines = String::from_utf8(output.stdout).unwrap();
    let windows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let windows: Vec<&Value> = windows.iter().filter(|line| line["theta"].is_string()).collect();
    assert_eq!(windows.len(), 3);
    for window in &windows {
        assert_eq!(window["theta"], windows[0]["theta"], "θ stays");
        assert_eq!((&window["accepted"], &window["apart"]), (&2.into(), &serde_json::json!([])));
        assert!(window["leader"].is_string());
    }
}
