//! Whole pages: hostile names, runs with little in them, runs of many.

use std::collections::BTreeMap;

use gauntlet::peer_score::PeerScore;
use gauntlet::{EventKind, FailReason, Hotkey};
use gauntlet_demo::{DemoConfig, Optimizer};
use serde_json::{Value, json};

use super::*;
use crate::chain::UNITS;
use crate::chain::history::Pay;
use crate::run::manifest::{ChainSection, DataSection, Manifest, ModelSection, PROTOCOL, WindowSection};
use crate::simulate::summary::{BehaviourSummary, ChainSummary, PeerSummary, ValidatorSummary};

/// A run of one validator and these peers, by behaviour.
struct Made {
    summary: Summary,
    windows: Vec<WindowResult>,
    events: Vec<Event>,
    nodes: Vec<Met>,
    epochs: Vec<EpochPay>,
}

impl Made {
    fn page(&self) -> String {
        render(&self.summary, &self.windows, &self.events, &self.nodes, &self.epochs).unwrap()
    }
}

fn key(i: usize) -> Hotkey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(i as u64).to_le_bytes());
    Hotkey(key)
}

fn peer(name: String, behaviour: &str) -> PeerSummary {
    let honest = behaviour == "honest";
    PeerSummary {
        name,
        hotkey: String::new(),
        behaviour: behaviour.to_owned(),
        honest,
        speed: 1.0,
        proof: 0.75,
        loss_rating: 12.5,
        score: 10.0,
        sync: Some(0.0),
        evaluations: 7,
        submissions: 9,
        accepted: 8,
        failures: BTreeMap::from([("late_commitment".to_owned(), 3)]),
        incentive: -0.0,
        balance: if honest { 2_500 * UNITS / 1000 } else { 0 },
        of_honest_mean: f64::from(u8::from(honest)),
        agrees: true,
        why: "earns its share".to_owned(),
    }
}

fn met(i: usize, name: &str, behaviour: &str) -> Met {
    Met { hotkey: key(i), name: name.to_owned(), behaviour: behaviour.to_owned(), speed: 1.0 }
}

fn manifest() -> Manifest {
    Manifest {
        protocol: PROTOCOL,
        name: "test".into(),
        model: ModelSection { preset: "byte-1m".into(), seed: 1 },
        data: DataSection { hash: "c0ffee".into(), tokenizer: "byte".into(), vocab: 257, eos: 256, seq: 128 },
        optimizer: Optimizer::Demo(DemoConfig::default()),
        window: WindowSection::default(),
        gauntlet: gauntlet::Rules::default(),
        chain: ChainSection::default(),
    }
}

fn made(behaviours: &[&str], windows: u64) -> Made {
    let mut nodes = vec![met(0, "validator-1", "honest")];
    let mut peers = Vec::new();
    for (i, behaviour) in behaviours.iter().enumerate() {
        let name = format!("{behaviour}-{i}");
        nodes.push(met(i + 1, &name, behaviour));
        peers.push(peer(name, behaviour));
    }
    let mut events = Vec::new();
    for window in 0..windows {
        for i in 1..=behaviours.len() {
            let (hotkey, gain) = (key(i), 0.01 * float(window));
            let score =
                PeerScore { proof: gain, loss_rating: 3.0, sync: 1.0, work: 1.0, gate: None, score: 1.0 };
            let mut kinds = vec![
                EventKind::CheckFailed { hotkey, reason: FailReason::TooLate, overlap: None },
                EventKind::Scored { hotkey, score, evaluations: 1 },
                EventKind::Paid { hotkey, share: 0.25 },
            ];
            if window == 0 {
                kinds.insert(0, EventKind::Joined { hotkey });
            }
            events.extend(kinds.into_iter().map(|kind| Event { window, kind }));
        }
    }
    let result = |window| WindowResult {
        window,
        train_loss: Some(4.0 - 0.1 * float(window)),
        leader: Some(key(0)),
        submissions: behaviours.len() as u64,
        accepted: 1,
        bytes: 10_000,
        sequences: 16,
        validation: Some(3.5),
        baseline: Some(3.25),
        ..WindowResult::default()
    };
    let pay = |i| Pay { uid: 1, hotkey: key(i), incentive: 0.5, dividend: 0.0, server: UNITS, validator: 0 };
    let epochs = (1..=windows / 4).map(|epoch| EpochPay {
        epoch,
        block: 20 * epoch,
        emission: 20 * UNITS,
        owner: 0,
        burned: 0,
        previous: 20 * (epoch - 1),
        neurons: Vec::new(),
        pay: (1..=behaviours.len()).map(pay).collect(),
    });
    let chain = ChainSummary {
        blocks: 6 * windows,
        epochs: windows / 4,
        emission: 20_123_456_789,
        burned: 0,
        paid_to_peers: UNITS,
        paid_to_validators: UNITS,
        adds_up: true,
    };
    let validator = ValidatorSummary {
        name: "validator-1".into(),
        hotkey: "5Grw".into(),
        behaviour: "honest".into(),
        stake: 1000 * UNITS,
        balance: UNITS,
        led: windows,
        agrees: true,
    };
    let of = |behaviour: &&str| BehaviourSummary {
        behaviour: (*behaviour).to_owned(),
        speed: 1.0,
        peers: 1,
        of_honest_mean: 1.0,
        in_all: 1.0,
    };
    let summary = Summary {
        version: "0.1.0",
        run: "beef".into(),
        manifest: manifest(),
        corpus: "stories".into(),
        seed: 42,
        windows,
        interrupted: false,
        parameters: 935_040,
        honest_tokens: 2048 * windows,
        theta_hash: "0123456789abcdef".into(),
        stalled: 0,
        disputed: Vec::new(),
        all_agree: true,
        validation_loss: Some(3.5),
        baseline_loss: Some(3.25),
        bits_per_byte: Some(5.0494),
        submission_bytes: 10_653.7,
        chain,
        validators: vec![validator],
        peers,
        behaviours: behaviours.iter().map(of).collect(),
    };
    Made { summary, windows: (0..windows).map(result).collect(), events, nodes, epochs: epochs.collect() }
}

fn charts_of(page: &str) -> Vec<Value> {
    let (_, rest) = page.split_once("id=\"charts\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// Every page is complete and loads nothing, whatever it shows.
fn check(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (2, 2));
    assert!(!page.contains("{{") && !page.contains(" src=") && !page.contains("url("));
    for broken in ["NaN", ">inf", " inf", ">-0.0", "null%"] {
        let (body, _) = page.split_once("id=\"charts\">").unwrap();
        assert!(!body.contains(broken), "{broken}");
    }
    assert_eq!(charts_of(page).len(), page.matches("<figure").count());
    for element in ["section", "table", "details", "svg", "div", "tr", "figure", "dl"] {
        let opened =
            page.matches(&format!("<{element} ")).count() + page.matches(&format!("<{element}>")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn a_run_shows_who_earned_what_and_why() {
    let made = made(&["honest", "honest", "copycat"], 9);
    let page = made.page();
    check(&page);
    for shown in [
        "byte-1m by 3 peers",
        "9 windows on stories",
        "3.5000",
        "centralised baseline 3.2500",
        "5.0494",
        "centralised baseline 4.6887",
        "20.123 tokens",
        "validator-1",
        "copycat-2",
        "0.750",
        "8 of 9",
        "2.500",
        "3 × late commitment",
        "earns its share",
        "100.0%",
        "0.0%",
        "preset = &quot;byte-1m&quot;",
        "c0ffee",
        "honest-0, with 100.0%",
        "351 times as many",
    ] {
        assert!(page.contains(shown), "{shown}");
    }
    let charts = charts_of(&page);
    let ids: Vec<&str> = charts.iter().map(|c| c["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["loss", "proof", "rating", "share", "balance", "bytes", "mean-bytes", "submissions"]);
    assert_eq!(charts[0]["x"]["also"]["table"]["values"][1], json!(2.0 * 16.0 * 128.0));
    let copycat = &charts[1]["series"][2];
    assert_eq!((&copycat["name"], &copycat["group"]), (&json!("copycat-2"), &json!("copycat")));
    assert_eq!((&copycat["y"][3], &charts[3]["series"][0]["y"][3]), (&json!(0.03), &json!(0.25)));
    assert_ne!(copycat["colour"], charts[1]["series"][0]["colour"]);
    assert_eq!(
        (&charts[4]["series"][0]["x"], &charts[4]["series"][0]["y"]),
        (&json!([20.0, 40.0]), &json!([1.0, 2.0]))
    );
    assert_eq!(page, made.page(), "the same bytes every time");
}

#[test]
fn strings_from_outside_stay_text() {
    let hostile = "</script><script>alert(1)</script><img src=x onerror=\"a()\">'&{{script}}";
    let mut made = made(&["honest", hostile], 3);
    made.nodes[1].name = hostile.to_owned();
    let summary = &mut made.summary;
    summary.peers[0].name = hostile.to_owned();
    summary.peers[0].why = hostile.to_owned();
    summary.peers[0].failures = BTreeMap::from([(hostile.to_owned(), 1)]);
    (summary.corpus, summary.run, summary.theta_hash) = (hostile.into(), hostile.into(), hostile.into());
    summary.validators[0].name = hostile.to_owned();
    summary.manifest.model.preset = hostile.to_owned();
    let page = made.page();
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"));
    assert!(!page.contains("<script>") && !page.contains("<img"));
    assert_eq!(page.matches("<script").count(), 2);
}

#[test]
fn runs_with_little_in_them_make_a_page() {
    let mut nothing = made(&["honest"], 0);
    nothing.summary.validation_loss = None;
    nothing.summary.baseline_loss = None;
    nothing.summary.bits_per_byte = None;
    nothing.summary.submission_bytes = 0.0;
    nothing.summary.peers[0].balance = 0;
    let page = nothing.page();
    check(&page);
    assert!(page.contains("no baseline in this run") && page.contains("nothing to compare with"));
    check(&made(&["honest"], 1).page());
    check(&made(&["copycat"], 5).page());
    check(&made(&[], 5).page());
    let mut alone = made(&["honest", "joiner@3"], 5);
    alone
        .windows
        .iter_mut()
        .for_each(|w| (w.baseline, w.submissions, w.train_loss) = (None, 0, Some(f64::NAN)));
    alone.summary.all_agree = false;
    // Nobody saw the second peer, and one window had no round.
    alone.events.retain(|e| e.kind.hotkey() == Some(&key(1)) && e.window != 2);
    let page = alone.page();
    check(&page);
    assert!(page.contains("Nodes disagree"));
    let charts = charts_of(&page);
    assert_eq!(charts[0]["series"].as_array().unwrap().len(), 2);
    assert_eq!(charts[3]["series"][0]["y"], json!([0.25, 0.25, null, 0.25, 0.25]));
    assert_eq!(charts[3]["series"][1]["y"], json!([null, null, null, null, null]));
}

#[test]
fn many_peers_become_means_with_ranges() {
    let mut behaviours = vec!["honest"; 150];
    behaviours.extend(["lazy"; 30]);
    let names: Vec<String> = (0..20).map(|i| format!("odd:{i}")).collect();
    behaviours.extend(names.iter().map(String::as_str));
    let page = made(&behaviours, 1500).page();
    check(&page);
    assert!(page.len() < 4_000_000, "{} bytes", page.len());
    let charts = charts_of(&page);
    let series = charts[1]["series"].as_array().unwrap();
    assert_eq!(series.len(), 2 + 20);
    assert_eq!(series[0]["name"], json!("honest, mean of 150"));
    let low = series[0]["range"]["low"].as_array().unwrap();
    assert_eq!((low.len(), &low[0]), (series[0]["y"].as_array().unwrap().len(), &series[0]["y"][0]));
    // Colours that had to be used again are told apart by dashes.
    let looks: std::collections::BTreeSet<String> =
        series.iter().map(|s| format!("{} {}", s["colour"], s["style"])).collect();
    assert_eq!(looks.len(), series.len());
}
