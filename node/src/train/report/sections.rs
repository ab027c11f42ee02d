//! Sections of a training report: results in tiles, identity, tables.

use anyhow::Result;
use serde_json::{Map, Value};

use super::Curves;
use crate::report::chart::evenly;
use crate::report::format::{NONE, compact, count, decimals, digits, duration};
use crate::report::html::{Columns, Html, Table, texts};
use crate::train::settings::Settings;

/// Rows of a table, about.
const ROWS: usize = 100;

/// For the browser's tab.
pub(super) fn title(settings: &Settings, summary: &Value) -> String {
    format!("{} on {}: training run", model_name(settings), text(summary, "corpus"))
}

/// Name and state.
pub(super) fn header(settings: &Settings, summary: &Value) -> Html {
    let (done, wanted) = (summary.get("steps").and_then(Value::as_u64), count(settings.steps));
    let mut html = Html::default();
    html.markup("<header><p class=\"over\">Training run</p>\n<div class=\"head\"><h1>");
    html.text(&model_name(settings)).markup("</h1>");
    match summary.get("finished").and_then(Value::as_bool) {
        Some(true) => html.markup("<span class=\"pill good\">Finished</span>"),
        Some(false) => html.markup("<span class=\"pill warn\">Stopped early</span>"),
        None => &mut html,
    };
    html.markup("</div>\n<p class=\"lead\">");
    html.text(&done.map_or(NONE.to_owned(), count)).markup(" of ").text(&wanted).markup(" steps on ");
    html.text(text(summary, "corpus")).markup("</p></header>\n");
    html
}

/// Results.
pub(super) fn tiles(summary: &Value, curves: &Curves) -> Html {
    let number = |key| summary.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN);
    let whole = |key| summary.get(key).and_then(Value::as_u64);
    let validated =
        |words: String| match (curves.validations.is_empty(), number("validation_loss").is_finite()) {
            (true, _) => "no validation in this run".to_owned(),
            (false, false) => "the last validation is not a number".to_owned(),
            (false, true) => words,
        };
    let first = curves
        .validations
        .first()
        .map_or(NONE.to_owned(), |v| format!("nats per token; {} at step {}", decimals(v.2, 4), count(v.0)));
    let speed = number("tokens_per_s");
    let speed = if speed > 0.0 { compact(speed) } else { NONE.to_owned() };
    let machine = match (whole("threads"), summary.get("simd").and_then(Value::as_str)) {
        (Some(threads), Some(simd)) => format!("mean, {threads} threads, {simd}"),
        _ => "mean".to_owned(),
    };
    let shown = |key| compact(number(key));
    let exact = |key| whole(key).map_or(NONE.to_owned(), count);
    let mut tiles = vec![
        ("Validation loss", decimals(number("validation_loss"), 4), validated(first)),
        ("Bits per byte", decimals(number("bits_per_byte"), 4), validated("of held-out text".into())),
        ("Tokens per second", speed, machine),
        ("Parameters", shown("parameters"), exact("parameters")),
        ("Tokens trained on", shown("tokens"), exact("tokens")),
        ("Time", duration(number("seconds")), "since the start or the last resume".into()),
    ];
    if curves.sends() {
        let (bytes, bits) = (number("payload_bytes"), decimals(number("bits_per_index"), 2));
        let part = decimals(4.0 * number("parameters") / bytes, 1);
        let note = format!("bytes a worker sends in a step; {bits} bits an index, 1/{part} of f32 gradients");
        tiles.insert(2, ("Payload", compact(bytes), note));
    }
    let mut html = Html::default();
    html.markup("<dl class=\"tiles\">\n");
    for (name, value, note) in &tiles {
        html.markup("<div class=\"tile\"><dt>").text(name).markup("</dt><dd class=\"value\">").text(value);
        html.markup("</dd><dd class=\"note\">").text(note).markup("</dd></div>\n");
    }
    html.markup("</dl>\n");
    html
}

/// What the run is made of, by name and hash.
pub(super) fn facts(summary: &Value) -> Html {
    let mut html = Html::default();
    html.markup("<section class=\"card\" aria-label=\"Identity\"><dl class=\"facts\">\n<dt>Corpus</dt><dd>");
    html.text(text(summary, "corpus")).markup("</dd>\n<dt>Corpus hash</dt><dd class=\"hash\">");
    html.text(text(summary, "corpus_hash")).markup("</dd>\n<dt>θ hash</dt><dd class=\"hash\">");
    html.text(text(summary, "theta_hash")).markup("</dd>\n</dl></section>\n");
    html
}

/// Every validation, or evenly chosen ones and the best.
pub(super) fn validations(curves: &Curves) -> Html {
    let mut html = Html::default();
    html.markup("<section class=\"card\"><h2>Validations</h2>\n");
    let (all, best) = (&curves.validations, curves.best());
    if all.is_empty() {
        html.markup("<p>None in this run.</p></section>\n");
        return html;
    }
    let mut kept = evenly(all.len(), ROWS);
    // The lowest is in the table whatever the stride.
    kept.extend(best);
    kept.sort_unstable();
    kept.dedup();
    let rows = kept.iter().filter_map(|&i| all.get(i)).map(|&(step, tokens, loss, bits)| {
        texts(vec![count(step), count(tokens), decimals(loss, 4), decimals(bits, 4)])
    });
    let table = Table {
        caption: "Validations",
        head: vec!["Step", "Tokens", "Loss", "Bits per byte"],
        rows: rows.collect(),
        best: kept.iter().position(|&i| Some(i) == best),
        ..Table::default()
    };
    html.markup("<p>").text(&shown_of(kept.len(), all.len()));
    html.markup(if best.is_some() { "The lowest loss stands out." } else { "" }).markup("</p>\n");
    html.piece(&table.html()).markup("</section>\n");
    html
}

/// All settings that were used.
pub(super) fn settings(settings: &Settings) -> Result<Html> {
    // Through text, which keeps the digits of an f32 as they were typed.
    let all: Map<String, Value> = serde_json::from_str(&serde_json::to_string(settings)?)?;
    let cell = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut rows: Vec<Vec<String>> = all.iter().map(|(key, value)| vec![key.clone(), cell(value)]).collect();
    rows.sort();
    let rows = rows.into_iter().map(texts).collect();
    let table = Table { caption: "Settings", columns: Columns::Pairs, rows, ..Table::default() };
    let mut html = Html::default();
    html.markup("<section class=\"card\"><h2>Settings</h2>\n").piece(&table.html());
    html.markup("</section>\n");
    Ok(html)
}

/// The curves as figures, for those who do not see them.
pub(super) fn steps(curves: &Curves) -> Html {
    let kept = evenly(curves.step.len(), ROWS);
    let float = |values: &[f64], i: usize| values.get(i).copied().unwrap_or(f64::NAN);
    let whole = |values: &[u64], i: usize| values.get(i).map_or(NONE.to_owned(), |&v| count(v));
    let rows = kept.iter().map(|&i| {
        let mut row = vec![
            whole(&curves.step, i),
            whole(&curves.tokens, i),
            decimals(float(&curves.loss, i), 4),
            digits(float(&curves.lr, i)),
            digits(float(&curves.grad_norm, i)),
            compact(float(&curves.speed, i)),
        ];
        row.extend(curves.sends().then(|| compact(float(&curves.bytes, i))));
        texts(row)
    });
    let mut head = vec!["Step", "Tokens", "Loss", "Learning rate", "Gradient norm", "Tokens/s"];
    head.extend(curves.sends().then_some("Payload bytes"));
    let table = Table { caption: "Training steps", head, rows: rows.collect(), ..Table::default() };
    let mut html = Html::default();
    html.markup("<details class=\"card\"><summary>Training steps as a table</summary>\n<p>");
    html.text(&shown_of(kept.len(), curves.step.len())).markup("</p>\n");
    html.piece(&table.html()).markup("</details>\n");
    html
}

/// What the numbers mean and who wrote them.
pub(super) fn footer(summary: &Value) -> Html {
    let mut html = Html::default();
    html.markup("<footer>Losses are means in nats per token. Written by gauntlet ");
    html.text(text(summary, "version")).markup(".</footer>\n");
    html
}

fn shown_of(shown: usize, all: usize) -> String {
    let words = |n: usize| count(n as u64);
    if shown == all {
        return String::new();
    }
    format!("{} of {} are shown; metrics.jsonl holds all. ", words(shown), words(all))
}

fn model_name(settings: &Settings) -> String {
    match &settings.from {
        Some(from) => format!("from {}", from.display()),
        None => settings.preset.clone(),
    }
}

fn text<'a>(summary: &'a Value, key: &str) -> &'a str {
    summary.get(key).and_then(Value::as_str).unwrap_or(NONE)
}
