//! `gauntlet explain` accounts for all that was paid, and finds whatever was changed afterwards.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::{Place, assert_fails, command, fails, run, stderr};

/// A small run whose owner burns a quarter; gives its summary.
fn simulate(folder: &Path, args: &[&str]) -> Value {
    let (path, out) = (folder.join("run.toml").display().to_string(), folder.join("run"));
    let written = run(&["init", "--out", &path, "--seq", "32", "--windows", "20"]);
    assert!(written.status.success(), "{written:?}");
    let text = std::fs::read_to_string(&path).unwrap();
    let owner = format!("[chain.ledger]\nowner = \"{}\"", "07".repeat(32));
    let burn = "profile = \"paper\"\n[gauntlet.incentive]\nburn = 0.25";
    let few = "min_gather = 1";
    let changed = text.replace("[chain.ledger]", &owner).replace("profile = \"paper\"", burn);
    let changed = changed.replace("min_gather = 3", few);
    assert!(changed.contains(&owner) && changed.contains(burn) && changed.contains(few));
    std::fs::write(&path, changed).unwrap();
    let out_text = out.display().to_string();
    let small =
        ["simulate", "--manifest", &path, "--out", &out_text, "--sequences", "1", "--no-baseline", "--json"];
    let output = run(&[&small, args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&std::fs::read(out.join("summary.json")).unwrap()).unwrap()
}

/// What is said of a peer: exit code, standard error, and the account.
fn explain(folder: &Path, name: &str) -> (Option<i32>, String, Value) {
    let output = run(&["explain", name, "--run", &folder.display().to_string(), "--json"]);
    let stderr = stderr(&output);
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    (output.status.code(), stderr, said)
}

/// The files of a run, to be changed.
#[derive(Clone)]
struct Files {
    events: Vec<Value>,
    facts: Vec<Value>,
    summary: Value,
}

impl Files {
    fn read(run: &Path) -> Self {
        let text = |name: &str| std::fs::read_to_string(run.join(name)).unwrap();
        let lines = |name: &str| text(name).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let summary = serde_json::from_str(&text("summary.json")).unwrap();
        Self { events: lines("events.jsonl"), facts: lines("facts.jsonl"), summary }
    }

    fn write(&self, run: &Path) {
        let lines = |values: &[Value]| values.iter().map(|value| format!("{value}\n")).collect::<String>();
        std::fs::write(run.join("events.jsonl"), lines(&self.events)).unwrap();
        std::fs::write(run.join("facts.jsonl"), lines(&self.facts)).unwrap();
        std::fs::write(run.join("summary.json"), self.summary.to_string()).unwrap();
    }

    fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> &mut Value {
        self.events.iter_mut().find(|event| wanted(event)).unwrap()
    }

    fn last(&mut self, wanted: impl Fn(&Value) -> bool) -> &mut Value {
        self.events.iter_mut().rev().find(|event| wanted(event)).unwrap()
    }

    fn epoch(&mut self, number: u64) -> &mut Value {
        self.find(|event| event["kind"] == "epoch" && event["epoch"] == number)
    }

    /// The uid of a node.
    fn uid(&mut self, name: &str) -> usize {
        let hotkey = self.find(|event| event["kind"] == "node" && event["name"] == name)["hotkey"].clone();
        let epoch = self.last(|event| event["kind"] == "epoch");
        epoch["pays"].as_array().unwrap().iter().position(|pay| pay["hotkey"] == hotkey).unwrap()
    }

    /// What an epoch found of a node, and what it paid it.
    fn neuron(&mut self, epoch: u64, name: &str) -> &mut Value {
        let uid = self.uid(name);
        &mut self.epoch(epoch)["neurons"][uid]
    }

    fn pay(&mut self, epoch: u64, name: &str) -> &mut Value {
        let uid = self.uid(name);
        &mut self.epoch(epoch)["pays"][uid]
    }
}

fn add(value: &mut Value, more: i64) {
    *value = json!(value.as_i64().unwrap() + more);
}

/// A change, and a part of what must be said of it.
type Case = (&'static str, fn(&mut Files));

/// Epochs 5 to 8 of the run pay for weights.
const CASES: &[Case] = &[
    ("are not those that its facts give", |f| {
        f.last(|e| e["event"] == "paid")["share"] = json!(0.5);
    }),
    ("are not those that its facts give", |f| f.find(|e| e["event"] == "evaluated")["after"] = json!(0.9)),
    ("are not those that its facts give", |f| {
        let at = f.events.iter().position(|e| e["event"] == "rated").unwrap();
        f.events.remove(at);
    }),
    ("are not those that its facts give", |f| {
        let losses = f.facts[4]["losses"].as_object_mut().unwrap();
        losses.values_mut().next().unwrap()["own_after"] = json!(1.0);
    }),
    ("without facts", |f| {
        let again = f.last(|e| e["event"] == "split").clone();
        f.events.push(again);
    }),
    ("are not those of its split", |f| add(&mut f.last(|e| e["kind"] == "weights")["weights"][0][1], -1)),
    ("are not those it set", |f| add(&mut f.find(|e| e["kind"] == "weights")["weights"][0][1], -1)),
    ("set weights in block", |f| {
        let at = f.events.iter().position(|e| e["kind"] == "weights").unwrap();
        f.events.remove(at);
    }),
    ("set weights in block", |f| add(&mut f.find(|e| e["kind"] == "weights")["block"], -1)),
    ("the weights of validator-1 are not those", |f| {
        add(&mut f.neuron(7, "validator-1")["weights"][0][1], -9);
    }),
    ("the weights of validator-2 are not those", |f| f.neuron(7, "validator-2")["weights"] = json!([])),
    ("validator-1 set weights in block", |f| add(&mut f.neuron(7, "validator-1")["last_update"], 1)),
    ("the bonds of validator-1", |f| add(&mut f.neuron(7, "validator-1")["bonds"][0][1], -1)),
    ("the bonds of validator-2", |f| f.neuron(7, "validator-2")["bonds"] = json!([])),
    ("the permit of validator-2", |f| f.neuron(7, "validator-2")["permit"] = json!(false)),
    ("the permit of honest-1", |f| f.neuron(7, "honest-1")["permit"] = json!(true)),
    ("the stake of validator-1", |f| add(&mut f.neuron(7, "validator-1")["stake"], 1_000_000)),
    ("the stake of signflip-1", |f| f.neuron(7, "signflip-1")["stake"] = json!(5)),
    ("cannot have registered in block", |f| add(&mut f.neuron(7, "honest-2")["registered_at"], 30)),
    ("cannot have registered in block", |f| f.neuron(1, "honest-2")["registered_at"] = json!(99)),
    ("is taken for the owner", |f| f.neuron(7, "honest-2")["is_owner"] = json!(true)),
    ("committed to weights", |f| f.neuron(7, "validator-1")["waiting_commit"] = json!(3)),
    ("the epoch before closed block 120", |f| add(&mut f.epoch(7)["previous"], -1)),
    ("it was due in block 140", |f| add(&mut f.epoch(7)["block"], 1)),
    ("emit 20000000000, not", |f| add(&mut f.epoch(7)["emission"], 7)),
    ("epoch 7 should come here", |f| f.epoch(7)["epoch"] = json!(70)),
    ("epoch 6 should come here", |f| f.events.retain(|e| e["kind"] != "epoch" || e["epoch"] != 6)),
    ("chain.epochs is", |f| f.events.retain(|e| e["kind"] != "epoch" || e["epoch"] != 8)),
    ("was paid", |f| add(&mut f.pay(7, "validator-1")["validator"], 1)),
    ("was paid", |f| add(&mut f.pay(7, "signflip-1")["server"], 1)),
    ("incentive and dividend of", |f| f.pay(7, "signflip-1")["incentive"] = json!(0.01)),
    ("were burned", |f| add(&mut f.epoch(7)["burned"], -1)),
    ("the owner got", |f| add(&mut f.epoch(7)["owner"], 1)),
    ("is not that of", |f| f.pay(7, "signflip-1")["uid"] = json!(0)),
    ("are not those of its split", |f| {
        // Two peers change places in all epochs.
        let (a, b) = (f.uid("honest-1"), f.uid("signflip-1"));
        for epoch in f.events.iter_mut().filter(|e| e["kind"] == "epoch") {
            let pays = epoch["pays"].as_array_mut().unwrap();
            let hotkey = pays[a]["hotkey"].clone();
            pays[a]["hotkey"] = pays[b]["hotkey"].clone();
            pays[b]["hotkey"] = hotkey;
        }
    }),
    ("payouts to", |f| _ = f.epoch(7)["pays"].as_array_mut().unwrap().pop()),
    ("the balance of honest-1", |f| {
        let peers = f.summary["peers"].as_array_mut().unwrap();
        let peer = peers.iter_mut().find(|peer| peer["name"] == "honest-1").unwrap();
        add(&mut peer["balance"], 1);
    }),
    ("the balance of validator-2", |f| add(&mut f.summary["validators"][1]["balance"], -1)),
    ("the stake of validator-1 is", |f| add(&mut f.summary["validators"][0]["stake"], 1)),
    ("it lists", |f| _ = f.summary["peers"].as_array_mut().unwrap().pop()),
    ("chain.emission", |f| add(&mut f.summary["chain"]["emission"], 1)),
    ("chain.burned", |f| add(&mut f.summary["chain"]["burned"], 1)),
    ("chain.paid_to_peers", |f| add(&mut f.summary["chain"]["paid_to_peers"], 1)),
    ("blocks make", |f| add(&mut f.summary["chain"]["blocks"], 40)),
    ("of another run", |f| f.summary["run"] = json!("00".repeat(32))),
    ("is no node of the events", |f| {
        f.events.retain(|e| e["kind"] != "node" || e["name"] != "joiner@4-1");
    }),
];

#[test]
fn whatever_was_changed_afterwards_is_found() {
    let place = Place::new();
    let summary = simulate(&place.path(""), &["--peers", "honest:3,signflip,joiner@4", "--windows", "24"]);
    let folder = place.path("run");
    let (mut paid, chain) = (0, &summary["chain"]);
    for node in summary["peers"].as_array().unwrap().iter().chain(summary["validators"].as_array().unwrap()) {
        let (code, stderr, said) = explain(&folder, node["name"].as_str().unwrap());
        assert_eq!((code, &said["accounted"]), (Some(0), &json!(true)), "{stderr}");
        assert_eq!((&said["balance"], &said["strange"]), (&node["balance"], &json!([])));
        paid += node["balance"].as_u64().unwrap();
    }
    assert_eq!(
        json!(paid),
        json!(chain["paid_to_peers"].as_u64().unwrap() + chain["paid_to_validators"].as_u64().unwrap())
    );
    assert!(chain["paid_to_peers"].as_u64().unwrap() > 0 && chain["burned"].as_u64().unwrap() > 0, "{chain}");

    let files = Files::read(&folder);
    for (i, (part, change)) in CASES.iter().enumerate() {
        let mut changed = files.clone();
        change(&mut changed);
        changed.write(&folder);
        let (code, stderr, said) = explain(&folder, "honest-1");
        let strange = said["strange"].as_array().unwrap();
        let found = strange.iter().any(|what| what.as_str().unwrap().contains(part));
        assert!(found, "{i}: {part:?} is not in {strange:#?}");
        assert_eq!((code, &said["accounted"]), (Some(1), &json!(false)), "{i}: {part}");
        assert!(
            stderr.starts_with("error: the account does not follow: ") && stderr.lines().count() == 1,
            "{stderr}"
        );
    }
    // A manifest with another rate.
    files.write(&folder);
    let manifest = std::fs::read_to_string(folder.join("manifest.toml")).unwrap();
    let richer = manifest.replace("emission_per_block = 1000000000", "emission_per_block = 2000000000");
    assert_ne!(manifest, richer);
    std::fs::write(folder.join("manifest.toml"), richer).unwrap();
    assert_eq!(explain(&folder, "honest-1").0, Some(1));
    // A run that has not ended: nothing is wrong, and not all can be said.
    std::fs::write(folder.join("manifest.toml"), manifest).unwrap();
    std::fs::remove_file(folder.join("summary.json")).unwrap();
    let (code, _, said) = explain(&folder, "honest-1");
    assert_eq!(
        (code, &said["accounted"], &said["unread"]),
        (Some(0), &Value::Null, &json!(["summary.json"]))
    );
}

#[test]
fn runs_in_which_much_goes_wrong_are_accounted_for() {
    let place = Place::new();
    let peers =
        ["--peers", "honest:2,restart@4,leaver@9,offline@6,late,copycat,noise:0.5", "--windows", "12"];
    let validators = ["--validators", "equivocating-leader@3,offline@5,restart@6,silent-leader@8,honest"];
    let summary = simulate(&place.path(""), &[peers, [validators[0], validators[1], "--seed", "3"]].concat());
    for node in summary["peers"].as_array().unwrap().iter().chain(summary["validators"].as_array().unwrap()) {
        let (code, stderr, said) = explain(&place.path("run"), node["name"].as_str().unwrap());
        assert_eq!((code, &said["accounted"]), (Some(0), &json!(true)), "{stderr}");
        assert_eq!(said["balance"], node["balance"]);
        assert_eq!(said["validator"], summary["validators"][1]["hotkey"], "the first equivocates");
    }
}

#[test]
fn payouts_are_in_the_file_when_they_are_made() {
    let place = Place::new();
    simulate(&place.path(""), &["--peers", "2", "--windows", "8"]);
    let events = Files::read(&place.path("run")).events;
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    let before = |kind: &str| kinds.iter().position(|k| *k == kind).unwrap();
    let windows = kinds[..before("epoch")].iter().filter(|kind| **kind == "window").count();
    // Block 20 lies in window 2, whose closing is over in the first blocks of the next.
    assert_eq!(windows, 2);
    let last = kinds.iter().rposition(|kind| *kind == "window").unwrap();
    assert!(kinds.iter().rposition(|kind| *kind == "epoch").unwrap() < last);
}

/// Where the lines of a window end, in a file of events.
fn ends(events: &[u8]) -> Vec<usize> {
    let mut at = 0;
    let lines = events.split_inclusive(|byte| *byte == b'\n').map(|line| {
        at += line.len();
        (at, line)
    });
    let is_window = |line: &[u8]| serde_json::from_slice::<Value>(line).unwrap()["kind"] == "window";
    lines.filter(|(_, line)| is_window(line)).map(|(at, _)| at).collect()
}

#[test]
fn a_run_that_broke_off_is_explained_up_to_its_last_whole_window() {
    let place = Place::new();
    simulate(&place.path(""), &["--peers", "honest:3,signflip", "--windows", "9"]);
    let (folder, said_by) = (place.path("run"), |events: &[u8], facts: &[u8]| {
        std::fs::write(place.path("run/events.jsonl"), events).unwrap();
        std::fs::write(place.path("run/facts.jsonl"), facts).unwrap();
        run(&["explain", "honest-1", "--run", &place.arg("run"), "--json"])
    });
    std::fs::remove_file(folder.join("summary.json")).unwrap();
    let [events, facts] =
        ["events.jsonl", "facts.jsonl"].map(|name| std::fs::read(folder.join(name)).unwrap());
    let ends = ends(&events);
    assert_eq!(ends.len(), 9);
    for window in [0, 4, 7] {
        let (end, next) = (ends[window], ends[window + 1]);
        let whole = said_by(&events[..end], &facts);
        let said: Value = serde_json::from_slice(&whole.stdout).unwrap();
        assert_eq!((whole.status.code(), &said["accounted"]), (Some(0), &Value::Null), "{said:#}");
        assert_eq!(said["explanation"]["window"], window);
        let newline = end + events[end..].iter().position(|byte| *byte == b'\n').unwrap();
        // In the middle of a line, between two lines, and where but the end of the window's last line is missing.
        for cut in [end + 1, end + (next - end) / 3, newline, newline + 1, next - 2, next - 1] {
            let output = said_by(&events[..cut], &facts);
            assert_eq!(output.stdout, whole.stdout, "window {window}, {cut}: {}", stderr(&output));
        }
    }
    // Facts break off too, in a window that has not ended.
    let lines: Vec<&[u8]> = facts.split_inclusive(|byte| *byte == b'\n').collect();
    let before: usize = lines[..lines.len() - 1].iter().map(|line| line.len()).sum();
    let output = said_by(&events[..ends[7]], &facts[..before + 7]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    // Nobody has judged yet.
    let output = said_by(&events[..events.len().min(ends[0] / 2)], &facts);
    assert_fails(&output, 1, &["no window was judged"]);
    // What is missing in between is found all the same, and so are facts that a window which ended lacks.
    let damaged = [&events[..ends[3]], &events[ends[3] + 1..]].concat();
    assert_fails(&said_by(&damaged, &facts), 1, &["events.jsonl, line ", "damaged"]);
    let output = said_by(&events[..ends[7]], &facts[..facts.len() / 3]);
    assert_fails(&output, 1, &["without facts"]);
}

#[test]
fn a_run_is_explained_while_it_runs_and_when_it_was_killed() {
    let place = Place::new();
    let out = place.arg("run");
    let args = ["simulate", "--out", &out, "--peers", "honest:2,lazy", "--windows", "2000", "--seq", "32"];
    let args = [&args[..], &["--sequences", "1", "--no-baseline", "--json"]].concat();
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut windows = |n: usize| lines.by_ref().take(n).for_each(|line| _ = line.unwrap());
    let explained = || {
        let (code, stderr, said) = explain(&place.path("run"), "lazy-1");
        let unread = (&said["accounted"], &said["unread"]);
        assert_eq!((code, unread), (Some(0), (&Value::Null, &json!(["summary.json"]))), "{stderr}");
        said["explanation"]["window"].as_u64().unwrap()
    };
    windows(2);
    let first = explained();
    assert!(first >= 1);
    // The folder is its own.
    fails(1, &args, &["run: another process works in it"]);
    windows(3);
    let second = explained();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(second >= first + 3 && explained() >= second);
}
