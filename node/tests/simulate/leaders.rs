//! Validators that do not keep to the rules.

use serde_json::Value;

use super::{files, gauntlet, hotkey, peer, run_of, simulate, stderr};

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
    // What these sent is listed, and can be had in bundles only: by half of the readers, by nobody later on.
    for name in ["twoface-1", "eraser-1"] {
        assert!(peer(&summary, name)["accepted"].as_u64().unwrap() > 0, "{name}");
    }
    let events = std::fs::read_to_string(folder.path().join("run/events.jsonl")).unwrap();
    assert!(events.contains("\"kind\":\"equivocation\""));
    assert!(!events.contains("its judgement cannot be read"), "who shows two records shows one judgement");
    let troubles: Vec<&str> = events.lines().filter(|line| line.contains("\"kind\":\"trouble\"")).collect();
    assert!(troubles.iter().all(|line| !line.contains("honest-")), "{troubles:?}");
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

/// What the others say of every leader's record: window, who says it, and why it differs, if it does.
fn views(summary: &Value, events: &[Value]) -> Vec<(u64, usize, Option<String>)> {
    let validators = summary["validators"].as_array().unwrap();
    let said = events.iter().filter(|e| e["kind"] == "statement").map(|e| {
        let by = validators.iter().position(|v| v["hotkey"] == e["validator"]).unwrap();
        let differs = &e["view"]["differs"];
        let why = match e["why"].as_str() {
            Some(why) => {
                assert_eq!((&differs["reason"], &differs["hotkey"]), (&"judgement".into(), &hotkey_of(e)));
                Some(why.to_owned())
            }
            None => (e["view"] != "agree").then(|| differs["reason"].to_string()),
        };
        (e["window"].as_u64().unwrap(), by, why)
    });
    said.collect()
}

/// The leader's hotkey, as views have it.
fn hotkey_of(statement: &Value) -> Value {
    hotkey(&serde_json::json!({ "hotkey": statement["leader"] })).into()
}

#[test]
fn a_past_that_a_leader_made_up_before_it_led_is_seen_to() {
    let folder = tempfile::tempdir().unwrap();
    let few = "profile = \"paper\"\n[gauntlet.selection]\nplaces = 2\nopen_places = 1\nfree_before = 4";
    let validators = "silent-leader@9,forging-leader@6,honest";
    let args = ["--peers", "honest:4", "--windows", "13", "--validators", validators];
    let (summary, events) = run_of(folder.path(), &[("profile = \"paper\"", few)], &args);
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
    for (window, by, why) in views(&summary, &events) {
        // The second leads when the first is silent; what it remembers since window 6 does not follow from what it saw.
        let made_up = "it starts from another state than it ended in".to_owned();
        let (others, expected) = if window < 9 { ([1, 2], None) } else { ([0, 2], Some(made_up)) };
        assert!(others.contains(&by), "window {window}: {by}");
        assert_eq!(why, expected, "window {window}, validator {by}");
    }
    assert_eq!(summary["disputed"], serde_json::json!([9, 10, 11, 12]));
    // And it does favour somebody: by the forger the friend earns everything, and is always selected.
    let paid = |validator: usize, window: u64| {
        let by = &summary["validators"][validator]["hotkey"];
        let paid = events.iter().filter(|e| e["event"] == "paid" && e["validator"] == *by);
        paid.filter(|e| e["window"] == window)
            .max_by(|a, b| a["share"].as_f64().unwrap().total_cmp(&b["share"].as_f64().unwrap()))
    };
    let friend = paid(1, 6).unwrap()["hotkey"].clone();
    for window in 6..13 {
        let most = paid(1, window).unwrap();
        assert_eq!((&most["hotkey"], &most["share"]), (&friend, &1.0.into()), "window {window}");
        assert!(paid(2, window).is_none_or(|most| most["hotkey"] != friend || most["share"] != 1.0));
        let selected = |e: &&Value| {
            e["event"] == "selected"
                && e["window"] == window
                && e["validator"] == summary["validators"][1]["hotkey"]
        };
        let gather = events.iter().find(selected).unwrap()["selection"]["gather"].clone();
        assert!(gather.as_array().unwrap().contains(&friend), "window {window}: {gather}");
    }
}

#[test]
fn a_leader_that_does_not_show_its_judgement_is_seen_to() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--peers", "honest:3", "--windows", "5", "--validators", "mute-judge@2,honest,honest,honest"];
    let (summary, events) = run_of(folder.path(), &[], &args);
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
    let views = views(&summary, &events);
    assert_eq!(views.len(), 15);
    for (window, by, why) in views {
        let expected = (window >= 2).then(|| "its judgement cannot be read".to_owned());
        assert_eq!(why, expected, "window {window}, validator {by}");
    }
    assert_eq!(summary["disputed"], serde_json::json!([2, 3, 4]));
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
fn misconduct_may_begin_after_the_last_window() {
    let folder = tempfile::tempdir().unwrap();
    let kinds =
        ["forking-leader", "silent-leader", "equivocating-leader", "withholding-leader", "garbage-anchors"];
    let validators = kinds.map(|kind| format!("{kind}@{}", u64::MAX)).join(",");
    let peers = format!("honest:2,joiner@{0},leaver@{0},restart@{0}", u64::MAX);
    let summary = simulate(&folder.path().join("run"), &peers, "2", &["--validators", &validators]);
    assert_eq!((&summary["all_agree"], &summary["validators"][0]["led"]), (&true.into(), &2.into()));
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
fn a_leader_with_more_than_half_of_the_stake_can_replace_the_past() {
    let folder = tempfile::tempdir().unwrap();
    let args = ["--peers", "honest:3", "--windows", "5", "--keep-objects"];
    let validators = ["--validators", "forking-leader@2,honest"];
    let (summary, events) = run_of(folder.path(), &[], &[&args[..], &validators].concat());
    assert_eq!((&summary["all_agree"], &summary["stalled"]), (&true.into(), &0.into()), "{summary:#}");
    let record = |w: u64| events.iter().find(|e| e["kind"] == "record" && e["window"] == w).unwrap();
    let hotkey = |i: usize| &summary["validators"][i]["hotkey"];
    assert_eq!([&record(2)["leader"], &record(3)["leader"]], [hotkey(1), hotkey(0)]);
    // In the end both serve another record of window 2 than the one that was followed when it was closed.
    let served = files(&folder.path().join("run/objects"));
    let served: Vec<_> = served.iter().filter(|path| path.ends_with("w0000000002/record")).collect();
    assert_eq!(served.len(), 2, "{served:?}");
    for path in served {
        let output = gauntlet(&["inspect", &path.display().to_string(), "--json"]);
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_ne!(said["hash"], record(2)["hash"], "{}", stderr(&output));
    }
}
