//! `gauntlet simulate` as a user meets it: the same bytes for any thread count, faults survived, payouts accounted for.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)] // a test binary

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn gauntlet(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gauntlet")).args(args).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A small run; gives its summary.
fn simulate(out: &Path, peers: &str, windows: &str, more: &[&str]) -> Value {
    let out_text = out.display().to_string();
    let small = ["--seq", "32", "--sequences", "1", "--no-baseline", "--json"];
    let args = [&["simulate", "--out", &out_text, "--peers", peers, "--windows", windows][..], &small, more];
    let output = gauntlet(&args.concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap()
}

/// A manifest for short runs with some lines changed; every line must be there.
fn manifest(folder: &Path, changes: &[(&str, &str)]) -> String {
    let path = folder.join("run.toml").display().to_string();
    let output = gauntlet(&["init", "--out", &path, "--seq", "32", "--windows", "20", "--force"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let mut text = std::fs::read_to_string(&path).unwrap();
    for (from, to) in changes {
        let changed = text.replace(from, to);
        assert_ne!(text, changed, "{from}");
        text = changed;
    }
    std::fs::write(&path, text).unwrap();
    path
}

fn peer<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let peers = summary["peers"].as_array().unwrap();
    peers.iter().find(|p| p["name"] == name).unwrap_or_else(|| panic!("no peer {name}"))
}

fn peers() -> &'static str {
    "honest:2,lazy,copycat,sybil:2:interleave,noise:0.5,absent:0.3"
}

/// All files somewhere below.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn any_number_of_threads_gives_the_same_summary() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, threads: &str| {
        let out = folder.path().join(name);
        let summary = simulate(&out, peers(), "5", &["--threads", threads]);
        assert_eq!(summary["all_agree"], true);
        assert_eq!(summary["chain"]["adds_up"], true);
        let timing: Value = serde_json::from_slice(&std::fs::read(out.join("timing.json")).unwrap()).unwrap();
        let windows = timing["windows"].as_array().unwrap();
        let spent = |w: &Value| ["train", "encode", "apply", "evaluate"].map(|p| w[p].as_f64().unwrap());
        assert!(windows.len() == 5 && windows.iter().all(|w| spent(w).iter().all(|s| *s > 0.0)), "{timing}");
        let share = timing["validator"]["share"].as_f64().unwrap();
        assert!(share > 0.0 && timing["window_seconds"] == 84.0 && timing["device_bytes"].is_null());
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
fn every_object_of_a_run_can_be_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let changes = [("checkpoint_every = 10", "checkpoint_every = 2")];
    run_of(folder.path(), &changes, &["--peers", "honest:2", "--windows", "3", "--keep-objects"]);
    let mut kinds = BTreeSet::new();
    for path in files(&folder.path().join("run")) {
        let object = path.starts_with(folder.path().join("run/objects"));
        let text = path.display().to_string();
        if !object && !text.ends_with(".state")
            || text.ends_with(".safetensors")
            || text.contains("/w0000000001/")
        {
            continue;
        }
        let output = gauntlet(&["inspect", &text, "--json"]);
        assert!(output.status.success(), "{text}: {}", stderr(&output));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        kinds.insert(said["kind"].as_str().unwrap().to_owned());
    }
    let all = "bundle checkpoint commitment judgement record state statement submission values";
    assert_eq!(kinds.into_iter().collect::<Vec<_>>().join(" "), all);
}

#[test]
fn honest_nodes_agree_whatever_others_do() {
    let folder = tempfile::tempdir().unwrap();
    let peers = "honest:3,twoface,eraser,offline@4,malformed,late,stale:2,leaver@5,late:object";
    let validators = ["--validators", "equivocating-leader@3,silent-leader@5,honest"];
    let summary = simulate(&folder.path().join("run"), peers, "9", &validators);
    assert_eq!(summary["all_agree"], true, "{summary:#}");
    let led: Vec<u64> =
        summary["validators"].as_array().unwrap().iter().map(|v| v["led"].as_u64().unwrap()).collect();
    // The first leads until it signs two records, the second until it falls silent, the third from then on.
    assert_eq!(led, [3, 2, 4], "{summary:#}");
    let honest = summary["theta_hash"].as_str().unwrap();
    assert_ne!(honest, "");
    for (name, reason) in [
        ("malformed-1", "undecodable"),
        ("late-1", "late_commitment"),
        ("late:object-1", "too_late"),
        ("stale:2-1", "wrong_state"),
    ] {
        let failures = &peer(&summary, name)["failures"];
        assert!(failures[reason].as_u64().unwrap() > 0, "{name}: {failures}");
        assert_eq!(peer(&summary, name)["balance"], 0, "{name}");
    }
    for honest in ["honest-1", "honest-2", "honest-3", "eraser-1", "offline@4-1"] {
        assert_eq!(peer(&summary, honest)["sync"], 0.0, "{honest}");
    }
    assert!(peer(&summary, "stale:2-1")["sync"].as_f64().unwrap() > 0.5);
    let events = std::fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
    assert!(events.contains("\"kind\":\"equivocation\""));
    let troubles: Vec<&str> = events.lines().filter(|line| line.contains("\"kind\":\"trouble\"")).collect();
    assert!(troubles.iter().all(|line| !line.contains("honest-")), "{troubles:?}");
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
fn every_unit_paid_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let summary = simulate(&out, "honest:3,signflip", "20", &[]);
    let run = out.display().to_string();
    let (mut paid, mut weighed) = (0, 0);
    let everybody =
        summary["peers"].as_array().unwrap().iter().chain(summary["validators"].as_array().unwrap());
    for node in everybody {
        let output = gauntlet(&["explain", node["name"].as_str().unwrap(), "--run", &run, "--json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["balance"], node["balance"]);
        assert_eq!(said["accounted"], true, "{said:#}");
        for payout in said["payouts"].as_array().unwrap() {
            assert_eq!(payout["paid"], payout["recomputed"], "{payout}");
            let weights = payout["weights"].as_array().unwrap();
            let given = |weight: &Value| weight[1].as_f64().unwrap() * weight[2].as_f64().unwrap();
            if payout["incentive"].as_f64().unwrap() > 0.0 {
                assert!(
                    weights.iter().map(given).sum::<f64>() >= 0.5 * payout["consensus"].as_f64().unwrap()
                );
                weighed += 1;
            }
        }
        paid += node["balance"].as_u64().unwrap();
    }
    assert!(weighed > 0, "weights were set, so payouts follow from them");
    let earners = summary["peers"].as_array().unwrap().iter().filter(|p| p["balance"].as_u64().unwrap() > 0);
    assert!(earners.count() > 0, "{summary:#}");
    let chain = &summary["chain"];
    assert_eq!(paid + chain["burned"].as_u64().unwrap(), chain["emission"].as_u64().unwrap());
    // A share that was not the validator's is noticed.
    let events = std::fs::read_to_string(out.join("events.jsonl")).unwrap();
    let tampered =
        events.replacen("\"event\":\"paid\",\"hotkey\"", "\"event\":\"void\",\"hotkey\"", usize::MAX);
    assert_ne!(events, tampered);
    let other = folder.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::copy(out.join("manifest.toml"), other.join("manifest.toml")).unwrap();
    std::fs::write(other.join("events.jsonl"), tampered).unwrap();
    let output = gauntlet(&["explain", "honest-1", "--run", &other.display().to_string(), "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["accounted"], false);
    let nobody = gauntlet(&["explain", "somebody", "--run", &run]);
    assert_eq!(nobody.status.code(), Some(2));
    assert!(stderr(&nobody).contains("honest-1"), "{}", stderr(&nobody));
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

#[test]
fn a_run_without_records_fails() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let args = [
        "--peers",
        "2",
        "--validators",
        "silent-leader@1",
        "--windows",
        "3",
        "--seq",
        "32",
        "--sequences",
        "1",
    ];
    let output = gauntlet(&[&["simulate", "--out", &out, "--no-baseline", "--json"][..], &args].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no validator published a record of window 1"), "{}", stderr(&output));
    let many = gauntlet(&["simulate", "--out", &format!("{out}2"), "--peers", "255"]);
    assert_eq!(many.status.code(), Some(2));
    assert!(stderr(&many).contains("256 slots"), "{}", stderr(&many));
}

#[test]
fn wrong_input_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run").display().to_string();
    let file = folder.path().join("file");
    std::fs::write(&file, "text").unwrap();
    let manifest = folder.path().join("run.toml");
    let path = manifest.display().to_string();
    assert!(gauntlet(&["init", "--out", &path]).status.success());
    let good = std::fs::read_to_string(&manifest).unwrap();
    let wrong = |code, args: &[&str], part: &str| {
        let output = gauntlet(args);
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(part) && stderr.lines().count() <= 3, "{args:?}: {stderr}");
        assert!(!Path::new(&out).exists(), "{args:?}");
    };
    wrong(2, &["simulate", "--out", &out, "--peers", "honest,liar"], "liar");
    wrong(2, &["simulate", "--out", &out, "--validators", "loud"], "loud");
    wrong(2, &["simulate", "--out", &out, "--windows", "0"], "--windows");
    wrong(2, &["simulate", "--out", &out, "--sequences", "0"], "--sequences");
    wrong(2, &["simulate", "--out", &out, "--preset", "huge"], "huge");
    wrong(2, &["simulate", "--out", &out, "--seq", "100000"], "data.seq");
    wrong(2, &["init", "--out", &path], "--force");
    wrong(1, &["simulate", "--out", &format!("{}/run", file.display())], "cannot create");
    for (from, to, part) in [
        ("blocks = 7", "blocks = 3", "window.blocks"),
        ("protocol = 1", "protocol = 9", "protocol"),
        ("keep = 0", "keep = 5", "window.keep"),
        ("preset = \"byte-1m\"", "preset = \"byte-9m\"", "model.preset"),
        ("[window]", "[window]\nblocs = 3", "blocs"),
        ("profile = \"paper\"", "profile = \"paper\"\n[gauntlet.proof]\ndecay = 7.0", "proof.decay"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        std::fs::write(&manifest, bad).unwrap();
        wrong(2, &["simulate", "--out", &out, "--manifest", &path], part);
        wrong(2, &["config", "print", "--config", &path], part);
    }
    let other_text = good.replacen("hash = \"", "hash = \"00", 1).replacen("00", "", 0);
    let digits = other_text.find("hash = \"00").unwrap();
    let mut other_text = other_text;
    // 64 digits again, of another text.
    other_text.replace_range(digits + 10..digits + 12, "");
    std::fs::write(&manifest, other_text).unwrap();
    wrong(1, &["simulate", "--out", &out, "--manifest", &path], "prepare the same data");
}

/// A run of a manifest with short windows; gives its summary and events.
fn run_of(folder: &Path, changes: &[(&str, &str)], args: &[&str]) -> (Value, Vec<Value>) {
    let path = manifest(folder, changes);
    let out = folder.join("run");
    let common = ["simulate", "--manifest", &path, "--sequences", "1", "--no-baseline", "--json", "--out"];
    let output = gauntlet(&[&common[..], &[&out.display().to_string()], args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let summary = serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap();
    let events = std::fs::read_to_string(out.join("events.jsonl")).unwrap();
    (summary, events.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
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
fn hostile_validators_stop_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let often = [("checkpoint_every = 10", "checkpoint_every = 4"), ("anchor_every = 5", "anchor_every = 2")];
    let validators = "withholding-leader@2,favouring-leader@4,garbage-anchors@1,offline@3,honest";
    let peers = "honest:3,joiner@7";
    let args = ["--peers", peers, "--windows", "10", "--validators", validators];
    let (summary, events) = run_of(folder.path(), &often, &args);
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
    let led: Vec<u64> =
        summary["validators"].as_array().unwrap().iter().map(|v| v["led"].as_u64().unwrap()).collect();
    // What the first lists in window 2 nobody can have, so it is the second's turn.
    assert_eq!(led, [9, 1, 0, 0, 0], "{summary:#}");
    let missing =
        |event: &Value| event["kind"] == "trouble" && event["what"].as_str().unwrap().contains("missing");
    assert!(events.iter().any(missing), "the first one's record is seen to be empty talk");
    let joined = events.iter().find(|e| e["kind"] == "joined").unwrap();
    assert_eq!(joined["from"], 4, "a checkpoint is found among garbage");
    assert_eq!(peer(&summary, "joiner@7-1")["agrees"], true);
}

#[test]
fn a_leader_who_selects_its_friends_is_seen_to() {
    let folder = tempfile::tempdir().unwrap();
    let args =
        ["--peers", "honest:4", "--windows", "5", "--validators", "favouring-leader@2,honest,honest,honest"];
    let (summary, events) = run_of(folder.path(), &[], &args);
    assert_eq!(summary["all_agree"], true);
    let views: Vec<&Value> = events.iter().filter(|e| e["kind"] == "statement").collect();
    assert_eq!(views.len(), 15);
    for view in views {
        let favoured = view["window"].as_u64().unwrap() >= 2;
        assert_eq!(view["view"]["differs"]["reason"] == "selection", favoured, "{view}");
        assert_eq!(view["view"] == "agree", !favoured, "{view}");
    }
    assert_eq!(summary["disputed"], serde_json::json!([2, 3, 4]), "more stake differs than agrees");
}

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
fn old_objects_are_forgotten_and_joiners_still_come() {
    let folder = tempfile::tempdir().unwrap();
    let changes = [
        ("checkpoint_every = 10", "checkpoint_every = 2"),
        ("anchor_every = 5", "anchor_every = 2"),
        ("keep = 0", "keep = 6"),
    ];
    let args = ["--peers", "honest:3,joiner@10", "--windows", "12", "--keep-objects"];
    let (summary, events) = run_of(folder.path(), &changes, &args);
    assert_eq!(summary["all_agree"], true);
    assert_eq!(events.iter().find(|e| e["kind"] == "joined").unwrap()["from"], 6);
    let (mut grads, mut records, mut checkpoints) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for path in files(&folder.path().join("run/objects")) {
        let parts: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        let [.., window, file] = parts[..] else { panic!("{}", path.display()) };
        let window = window.trim_start_matches('w').parse::<u64>().unwrap_or(u64::MAX);
        match file {
            "record" => records.insert(window),
            "manifest.json" => checkpoints.insert(window),
            _ if file.ends_with(".grad") => grads.insert(window),
            _ => false,
        };
    }
    assert_eq!(grads, (6..12).collect());
    assert_eq!(records, (0..12).collect(), "joiners follow them to the beginning");
    assert_eq!(checkpoints, [6, 8, 10, 12].into());
}

#[test]
fn reference_rules_burn_and_rank_by_marginal_value() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), &[("profile = \"paper\"", "profile = \"reference-2026\"")]);
    let output = gauntlet(&["config", "print", "--config", &path]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("chain.ledger.owner"), "{}", stderr(&output));
    let owner = format!("emission_per_block = 1000000000\nowner = \"{}\"", "07".repeat(32));
    let changes = [
        ("profile = \"paper\"", "profile = \"reference-2026\"\n[gauntlet.loss]\nrank_by = \"marginal\""),
        ("emission_per_block = 1000000000", &owner),
    ];
    let (summary, _) = run_of(folder.path(), &changes, &["--peers", "honest:4", "--windows", "9"]);
    assert_eq!((&summary["all_agree"], &summary["chain"]["adds_up"]), (&true.into(), &true.into()));
    let facts = std::fs::read_to_string(folder.path().join("run/facts.jsonl")).unwrap();
    let facts: Vec<gauntlet::RoundFacts> =
        facts.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let losses: Vec<_> = facts.iter().flat_map(|facts| facts.losses.values()).collect();
    // Where the gather set holds nobody else there is nothing to be moved by.
    let marginal = |l: &&&gauntlet::loss_score::Losses| l.marginal.unwrap().before != l.random_before;
    let moved: Vec<_> = losses.iter().filter(marginal).collect();
    assert!(moved.len() > 5 && 2 * moved.len() > losses.len(), "{} of {}", moved.len(), losses.len());
    let helped = moved.iter().filter(|l| l.marginal.unwrap().before < l.random_before).count();
    assert!(2 * helped > moved.len(), "the others' step helps: {helped} of {}", moved.len());
    let (burned, paid) = (&summary["chain"]["burned"], &summary["chain"]["paid_to_peers"]);
    assert!(burned.as_u64().unwrap() >= paid.as_u64().unwrap(), "half is burned: {}", summary["chain"]);
    assert!(paid.as_u64().unwrap() > 0);
}

#[test]
fn without_arguments_a_manifest_is_written_here() {
    let folder = tempfile::tempdir().unwrap();
    for args in [&["init"][..], &["config", "print"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gauntlet"));
        let output = command.args(args).current_dir(folder.path()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    }
    assert!(folder.path().join("run.toml").is_file());
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

#[test]
fn nodes_that_took_either_of_two_records_meet_again() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody is there to tell the two records of window 2 apart, so each half of the miners follows one of them.
    let validators = "equivocating-leader@2,offline@2,offline@2,offline@2";
    let peers = "honest:4,joiner@7:replay,offline@4";
    let args = ["--peers", peers, "--windows", "9", "--validators", validators];
    let (summary, events) = run_of(folder.path(), &[], &args);
    let apart = events.iter().filter(|e| e["kind"] == "window" && e["apart"] != serde_json::json!([]));
    assert!(apart.count() > 0, "they were apart");
    assert!(events.iter().any(|e| e["kind"] == "equivocation"));
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
    let led = |i: usize| summary["validators"][i]["led"].as_u64().unwrap();
    assert!(led(0) <= 4 && led(1) >= 4, "{summary:#}");
}

#[test]
fn a_leader_cannot_replace_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--peers", "honest:3", "--windows", "7", "--validators", "forking-leader@2,honest,honest"];
    let (summary, events) = run_of(folder.path(), &[], &args);
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
    let records = |w: u64| events.iter().filter(move |e| e["kind"] == "record" && e["window"] == w);
    assert_eq!(records(3).count(), 2, "its own, and the next leader's");
    let theta =
        |w: u64| events.iter().find(|e| e["kind"] == "window" && e["window"] == w).unwrap()["theta"].clone();
    assert_eq!(records(3).next_back().unwrap()["state_before"], theta(2));
    let led = |i: usize| summary["validators"][i]["led"].as_u64().unwrap();
    assert_eq!([led(0), led(1)], [5, 2], "windows 2 and 3 are the second's");
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

#[test]
fn every_behaviour_takes_part() {
    let folder = tempfile::tempdir().unwrap();
    let peers = "honest:3,idle,random,zero,mixer,mixer+1,replayer,replayer+1,shuffler,early-reader,concentrate,\
        sybil:2:same,sybil:2:split@2,lazy,signflip,noise:2";
    let summary = simulate(&folder.path().join("run"), peers, "5", &[]);
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()));
    for peer in summary["peers"].as_array().unwrap() {
        // These have nothing to send before others have.
        let waits = ["mixer", "replayer", "shuffler", "early-reader"];
        let waits = waits.iter().any(|kind| peer["behaviour"].as_str().unwrap().starts_with(kind));
        let submissions = peer["submissions"].as_u64().unwrap();
        assert!(submissions == 5 || waits && submissions < 5, "{peer:#}");
    }
}

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
