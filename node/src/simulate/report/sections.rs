//! Title, key figures, legend, identity and footer.

use anyhow::Result;

use super::{LEGEND, float, tokens};
use crate::report::format::{NONE, compact, count, decimals};
use crate::report::html::Html;
use crate::simulate::summary::Summary;

/// For the browser's tab.
pub(super) fn title(summary: &Summary) -> String {
    format!("{} by {}: simulated run", model(summary), counted(summary.peers.len(), "peer"))
}

/// What ran.
pub(super) fn header(summary: &Summary, groups: usize) -> Html {
    let mut html = Html::default();
    html.markup("<header><p class=\"over\">Simulated permissionless run</p>\n<div class=\"head\"><h1>");
    html.text(model(summary)).markup(" by ").text(&counted(summary.peers.len(), "peer")).markup("</h1>");
    html.markup(if summary.all_agree {
        "<span class=\"pill good\">All nodes agree on θ</span>"
    } else {
        "<span class=\"pill warn\">Nodes disagree on θ</span>"
    });
    html.markup("</div>\n<p class=\"lead\">").text(&whole(summary.windows, "window"));
    html.markup(if summary.interrupted { ", then interrupted, on " } else { " on " });
    html.text(&summary.corpus).markup("; ").text(&counted(groups, "kind")).markup(" of peer; ");
    html.text(&counted(summary.validators.len(), "validator")).markup("; seed ");
    html.text(&summary.seed.to_string()).markup("</p></header>\n");
    html
}

/// Results.
pub(super) fn tiles(summary: &Summary) -> Html {
    let known = |value: Option<f64>| value.unwrap_or(f64::NAN);
    let (loss, baseline, bits) =
        (known(summary.validation_loss), known(summary.baseline_loss), known(summary.bits_per_byte));
    let against = |baseline: f64| {
        if baseline.is_finite() {
            format!("centralised baseline {}", decimals(baseline, 4))
        } else {
            "no baseline in this run".to_owned()
        }
    };
    let chain = &summary.chain;
    let honest = summary.peers.iter().filter(|p| p.honest).count();
    let weights = float(4 * summary.parameters as u64) / summary.submission_bytes;
    let bytes = if summary.submission_bytes > 0.0 {
        let size = if weights >= 1.0 {
            format!("mean; the weights in f32 have {} times as many", compact(weights))
        } else {
            "mean".to_owned()
        };
        (compact(summary.submission_bytes), size)
    } else {
        (NONE.to_owned(), "none was put".to_owned())
    };
    let yes = |value: bool| if value { "Yes" } else { "No" }.to_owned();
    let hash: String = summary.theta_hash.chars().take(12).collect();
    let tiles = [
        ("Held-out loss", decimals(loss, 4), against(baseline)),
        ("Bits per byte", decimals(bits, 4), against(bits * baseline / loss)),
        (
            "Windows",
            count(summary.windows),
            format!("{} blocks, {} epochs", count(chain.blocks), count(chain.epochs)),
        ),
        ("Tokens trained on", compact(float(summary.honest_tokens)), "by honest peers".to_owned()),
        (
            "Peers",
            count(summary.peers.len() as u64),
            format!("{honest} honest; {}", counted(summary.validators.len(), "validator")),
        ),
        ("One θ at all honest nodes", yes(summary.all_agree), format!("hash {hash}…")),
        ("Balances add up", yes(chain.adds_up), format!("{} tokens emitted", tokens(chain.emission))),
        ("Bytes a submission", bytes.0, bytes.1),
    ];
    let mut html = Html::default();
    html.markup("<dl class=\"tiles four\">\n");
    for (name, value, note) in &tiles {
        html.markup("<div class=\"tile\"><dt>").text(name).markup("</dt><dd class=\"value\">").text(value);
        html.markup("</dd><dd class=\"note\">").text(note).markup("</dd></div>\n");
    }
    html.markup("</dl>\n");
    html
}

/// The place of the legend of all charts of peers.
pub(super) fn legend() -> Html {
    let mut html = Html::default();
    html.markup(
        "<section class=\"card\"><h2>Peers over time</h2>\n<p>By one validator that keeps to the rules. ",
    );
    html.markup("Blue is honest; a button hides or shows a behaviour in the four charts below.</p>\n");
    html.markup("<div class=\"legend\" role=\"group\" aria-label=\"Behaviours\" id=\"").text(LEGEND);
    html.markup("\"></div></section>\n");
    html
}

/// What the run is, by name and hash, what the chain paid, and the manifest.
pub(super) fn facts(summary: &Summary) -> Result<Html> {
    let chain = &summary.chain;
    let mut html = Html::default();
    html.markup("<section class=\"card\"><h2>Facts</h2>\n<dl class=\"facts\">\n");
    let seed = summary.seed.to_string();
    let windows: Vec<String> = summary.disputed.iter().map(ToString::to_string).collect();
    let disputed = if windows.is_empty() { "none".to_owned() } else { windows.join(", ") };
    let facts = [
        ("Run", summary.run.as_str(), true),
        ("Seed", &seed, false),
        ("Corpus", &summary.corpus, false),
        ("Corpus hash", &summary.manifest.data.hash, true),
        ("θ hash", &summary.theta_hash, true),
        ("Parameters", &count(summary.parameters as u64), false),
        ("Emission", &format!("{} tokens", tokens(chain.emission)), false),
        ("to peers", &format!("{} tokens", tokens(chain.paid_to_peers)), false),
        ("to validators", &format!("{} tokens", tokens(chain.paid_to_validators)), false),
        ("burned", &format!("{} tokens", tokens(chain.burned)), false),
        ("Windows disputed", &disputed, false),
    ];
    for (name, value, hash) in facts {
        html.markup("<dt>").text(name).markup(if hash { "</dt><dd class=\"hash\">" } else { "</dt><dd>" });
        html.text(value).markup("</dd>\n");
    }
    html.markup("</dl>\n<details><summary>Manifest</summary>\n<pre tabindex=\"0\">");
    html.whole_text(&toml::to_string(&summary.manifest)?).markup("</pre></details></section>\n");
    Ok(html)
}

/// What the numbers mean and who wrote them.
pub(super) fn footer(summary: &Summary) -> Html {
    let mut html = Html::default();
    html.markup(
        "<footer>Losses are means in nats per token. Balances are in tokens of the chain, cut after three ",
    );
    html.markup("decimals; summary.json has them to the last unit, events.jsonl everything that happened. ");
    html.markup("Written by gauntlet ").text(summary.version).markup(".</footer>\n");
    html
}

fn model(summary: &Summary) -> &str {
    &summary.manifest.model.preset
}

fn counted(n: usize, of: &str) -> String {
    whole(n as u64, of)
}

/// 1 peer, 2 peers.
fn whole(n: u64, of: &str) -> String {
    format!("{} {of}{}", count(n), if n == 1 { "" } else { "s" })
}
