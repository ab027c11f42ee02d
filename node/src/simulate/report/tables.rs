//! Tables: what behaviours and peers came to and why, validators, windows.

use super::groups::Group;
use super::{float, tokens};
use crate::report::chart::evenly;
use crate::report::format::{NONE, count, decimals};
use crate::report::html::{Html, Table, texts};
use crate::simulate::WindowResult;
use crate::simulate::log::Met;
use crate::simulate::summary::{PeerSummary, Summary};

/// Rows of a table, about.
const ROWS: usize = 100;
/// Peers in their table; more than `TALL` of them scroll.
const PEERS: usize = 1024;
const TALL: usize = 30;

/// Incomes of each behaviour against the mean of the honest peers.
pub(super) fn behaviours(summary: &Summary, groups: &[Group]) -> Html {
    let mut html = Html::default();
    html.markup("<section class=\"card\"><h2>Behaviours</h2>\n<p>").text(&verdict(summary)).markup("</p>\n");
    let incomes: Vec<f64> = groups.iter().map(|g| mean(g.of(summary).map(|p| p.of_honest_mean))).collect();
    let most = incomes.iter().copied().fold(1.0, f64::max);
    let rows = groups.iter().zip(&incomes).map(|(group, &income)| {
        let sum = |part: fn(&PeerSummary) -> u64| group.of(summary).map(part).sum::<u64>();
        let (accepted, sent) = (sum(|p| p.accepted), sum(|p| p.submissions));
        let mut row = vec![named(group, &group.label)];
        row.extend(texts(vec![count(group.peers.len() as u64), of_mean(summary, income)]));
        row.push(bar(group, income, most));
        row.extend(texts(vec![of_mean(summary, income * group.peers.len() as f64)]));
        row.extend(texts(vec![
            decimals(plain(mean(group.of(summary).map(|p| p.proof))), 3),
            decimals(plain(mean(group.of(summary).map(|p| p.loss_rating))), 2),
            count(sent),
            count(accepted),
        ]));
        row
    });
    let table = Table {
        caption: "Behaviours",
        head: vec![
            "Behaviour",
            "Peers",
            "Of honest mean",
            "",
            "In all",
            "μ",
            "LossRating",
            "Submissions",
            "Accepted",
        ],
        rows: rows.collect(),
        words: &[3],
        ..Table::default()
    };
    html.piece(&table.html()).markup("</section>\n");
    html
}

/// Whether honesty paid, in a sentence.
fn verdict(summary: &Summary) -> String {
    if !anybody_honest_earned(summary) {
        return "No honest peer earned anything, so there is nothing to compare with.".to_owned();
    }
    let line = "Income against the mean of the honest peers, whose income is the line: the mean of a kind, and in all. μ and LossRating are means.";
    let honest = summary.peers.iter().filter(|p| p.behaviour == "honest");
    let others = summary.peers.iter().filter(|p| !p.honest);
    let least = honest.min_by_key(|p| p.balance);
    let most = others.max_by_key(|p| p.balance);
    let of = |p: &PeerSummary| format!("{}, with {}", p.name, of_mean(summary, p.of_honest_mean));
    match (least, most) {
        (Some(least), Some(most)) => {
            format!("{line} Least of the honest: {}; most of the others: {}.", of(least), of(most))
        }
        _ => line.to_owned(),
    }
}

/// Every peer, what it came to and why.
pub(super) fn peers(summary: &Summary, groups: &[Group]) -> Html {
    let shown = summary.peers.len().min(PEERS);
    let rows = groups.iter().flat_map(|group| group.of(summary).map(move |peer| (group, peer)));
    let rows = rows.take(PEERS).map(|(group, peer)| {
        let mut name = named(group, &peer.name);
        // Most names say it already.
        if !peer.name.starts_with(&format!("{}-", group.label)) {
            name.markup("<span class=\"under\">").text(&group.label).markup("</span>");
        }
        let mut row = vec![name];
        row.extend(texts(vec![
            decimals(plain(peer.proof), 3),
            decimals(plain(peer.loss_rating), 2),
            count(u64::from(peer.evaluations)),
            format!("{} of {}", count(peer.accepted), count(peer.submissions)),
            percent(peer.incentive),
            tokens(peer.balance),
            of_mean(summary, peer.of_honest_mean),
            failures(peer),
            peer.why.clone(),
        ]));
        row
    });
    let table = Table {
        caption: "Peers",
        head: vec![
            "Peer",
            "μ",
            "LossRating",
            "Evaluated",
            "Accepted",
            "Share",
            "Balance",
            "Of honest mean",
            "Failed checks",
            "Why",
        ],
        rows: rows.collect(),
        words: &[8, 9],
        ..Table::default()
    };
    let mut html = Html::default();
    html.markup(if summary.peers.len() > TALL {
        "<section class=\"card peers long\"><h2>Peers</h2>\n<p>"
    } else {
        "<section class=\"card peers\"><h2>Peers</h2>\n<p>"
    });
    html.text(&cut("peers", shown, summary.peers.len(), "summary.json"));
    html.markup("Share is the mean part of the split over all windows; gauntlet explain accounts for ");
    html.markup("each balance.</p>\n").piece(&table.html()).markup("</section>\n");
    html
}

/// Validators and what they earned.
pub(super) fn validators(summary: &Summary) -> Html {
    let rows = summary.validators.iter().map(|v| {
        texts(vec![
            v.name.clone(),
            v.behaviour.clone(),
            tokens(v.stake),
            count(v.led),
            tokens(v.balance),
            if v.agrees { "yes" } else { "no" }.to_owned(),
            v.hotkey.clone(),
        ])
    });
    let table = Table {
        caption: "Validators",
        head: vec!["Validator", "Behaviour", "Stake", "Windows led", "Balance", "Same θ", "Hotkey"],
        rows: rows.collect(),
        words: &[1, 6],
        ..Table::default()
    };
    let mut html = Html::default();
    html.markup("<section class=\"card\"><h2>Validators</h2>\n").piece(&table.html()).markup("</section>\n");
    html
}

/// The charts of the run as figures, for those who do not see them.
pub(super) fn windows(windows: &[WindowResult], nodes: &[Met]) -> Html {
    let kept = evenly(windows.len(), ROWS);
    let loss = |loss: Option<f64>| decimals(loss.unwrap_or(f64::NAN), 4);
    let rows = kept.iter().filter_map(|&i| windows.get(i)).map(|w| {
        let leader = nodes.iter().find(|met| Some(met.hotkey) == w.leader);
        texts(vec![
            count(w.window),
            loss(w.train_loss),
            loss(w.validation),
            loss(w.baseline),
            count(w.submissions),
            count(w.accepted as u64),
            count(w.bytes),
            count(w.sequences),
            count(w.apart.len() as u64),
            leader.map_or(NONE.to_owned(), |met| met.name.clone()),
        ])
    });
    let table = Table {
        caption: "Windows",
        head: vec![
            "Window",
            "Training loss",
            "Held-out loss",
            "Baseline",
            "Submissions",
            "Accepted",
            "Bytes",
            "Honest sequences",
            "Nodes apart",
            "Leader",
        ],
        rows: rows.collect(),
        words: &[9],
        ..Table::default()
    };
    let mut html = Html::default();
    html.markup("<details class=\"card\"><summary>Windows as a table</summary>\n<p>");
    html.text(&cut("windows", kept.len(), windows.len(), "events.jsonl")).markup("</p>\n");
    html.piece(&table.html()).markup("</details>\n");
    html
}

/// A name with the colour of its group.
fn named(group: &Group, name: &str) -> Html {
    let mut html = Html::default();
    html.markup("<svg class=\"dot s").text(&group.colour.to_string());
    html.markup(if group.again { " again" } else { "" });
    html.markup("\" viewBox=\"0 0 10 10\" aria-hidden=\"true\"><circle cx=\"5\" cy=\"5\" r=\"4\"/></svg>");
    html.text(name);
    html
}

/// An income as a bar, with a line where the honest mean is. Sizes are attributes: the page allows no inline styles.
fn bar(group: &Group, income: f64, most: f64) -> Html {
    let width = |part: f64| decimals((100.0 * part / most).clamp(0.0, 100.0), 2);
    let mut html = Html::default();
    html.markup("<svg class=\"bar s").text(&group.colour.to_string());
    html.markup("\" viewBox=\"0 0 101 10\" preserveAspectRatio=\"none\" aria-hidden=\"true\">");
    html.markup("<rect class=\"rail\" width=\"101\" height=\"10\"/><rect width=\"").text(&width(income));
    html.markup("\" height=\"10\"/><rect class=\"mark\" width=\"1\" height=\"10\" x=\"").text(&width(1.0));
    html.markup("\"/></svg>");
    html
}

fn failures(peer: &PeerSummary) -> String {
    let mut failures: Vec<_> = peer.failures.iter().collect();
    failures.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
    let words =
        failures.iter().map(|(reason, times)| format!("{} × {}", count(**times), reason.replace('_', " ")));
    if failures.is_empty() { NONE.to_owned() } else { words.collect::<Vec<_>>().join(", ") }
}

fn anybody_honest_earned(summary: &Summary) -> bool {
    summary.peers.iter().any(|p| p.behaviour == "honest" && p.balance > 0)
}

fn of_mean(summary: &Summary, income: f64) -> String {
    if anybody_honest_earned(summary) { percent(income) } else { NONE.to_owned() }
}

fn percent(part: f64) -> String {
    if part.is_finite() { format!("{:.1}%", plain(100.0 * part)) } else { NONE.to_owned() }
}

/// Without the sign that a sum of nothing has.
fn plain(value: f64) -> f64 {
    value + 0.0
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0), |(sum, n), value| (sum + value, n + 1));
    sum / float(n)
}

fn cut(what: &str, shown: usize, all: usize, file: &str) -> String {
    if shown == all {
        return String::new();
    }
    format!("{} of {} {what} are shown; {file} holds all. ", count(shown as u64), count(all as u64))
}
