//! Whole pages: hostile strings, runs with little or nothing in them, long runs.

use std::path::PathBuf;

use serde_json::json;

use super::*;

fn train(step: u64, loss: f64) -> Metric {
    Metric::Train {
        step,
        tokens: step * 2048,
        loss,
        lr: 1e-3,
        grad_norm: 1.5,
        tokens_per_s: 12_345.678,
        bytes: None,
        bits_per_index: None,
    }
}

fn validation(step: u64, loss: f64) -> Metric {
    Metric::Validation { step, tokens: step * 2048, loss, bits_per_byte: loss / std::f64::consts::LN_2 }
}

fn summary() -> Value {
    json!({
        "version": "0.1.0", "finished": true, "steps": 300, "tokens": 614_400, "parameters": 1_115_264,
        "corpus": "stories", "corpus_hash": "c0ffee", "theta_hash": "beef", "validation_loss": 1.75,
        "bits_per_byte": 2.5, "seconds": 31.0, "tokens_per_s": 19_800.0, "threads": 2, "simd": "avx2",
    })
}

/// The charts as the page carries them.
fn charts_of(page: &str) -> Vec<Value> {
    let (_, rest) = page.split_once("id=\"charts\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

fn values(chart: &Value, series: usize) -> &Vec<Value> {
    chart["series"][series]["y"].as_array().unwrap()
}

/// Every page is complete and loads nothing, whatever it shows.
fn check(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (2, 2));
    assert!(!page.contains("{{") && !page.contains(" src=") && !page.contains("url("));
    assert!(!page.contains("NaN<") && !page.contains(">inf"));
    let figures = page.matches("<figure").count();
    assert_eq!(charts_of(page).len(), figures);
}

#[test]
fn a_run_shows_its_results_curves_settings_and_validations() {
    let mut metrics = vec![validation(0, 5.5)];
    metrics.extend((1..=300).map(|step| train(step, 5.0 / f64::from(u32::try_from(step).unwrap()))));
    metrics.extend([validation(200, 1.5), validation(300, 1.75)]);
    let page = render(&Settings::default(), &summary(), &metrics).unwrap();
    check(&page);
    for shown in ["1.7500", "2.5000", "19.8k", "1,115,264", "stories", "c0ffee", "beef", "Finished", "31.0 s"]
    {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(page.contains("<tr class=\"best\"><th scope=\"row\">200</th><td>409,600</td><td>1.5000</td>"));
    for (key, value) in [("beta2", "0.95"), ("eps", "1e-8"), ("lr", "0.003"), ("recompute", "auto")] {
        assert!(page.contains(&format!("<th scope=\"row\">{key}</th><td>{value}</td>")), "{key}");
    }
    let charts = charts_of(&page);
    assert_eq!(charts.len(), 4);
    assert_eq!([values(&charts[0], 0).len(), values(&charts[0], 2).len()], [300, 3]);
    assert_eq!(charts[0]["x"]["also"], json!({ "label": "step", "divide": 2048.0 }));
}

#[test]
fn a_run_of_demo_shows_what_it_sends() {
    let sends = |step| match train(step, 4.0) {
        Metric::Train { step, tokens, loss, lr, grad_norm, tokens_per_s, .. } => Metric::Train {
            step,
            tokens,
            loss,
            lr,
            grad_norm,
            tokens_per_s,
            bytes: Some(21_000.0 + f64::from(u32::try_from(step).unwrap())),
            bits_per_index: Some(8.5),
        },
        other => other,
    };
    let mut summary = summary();
    (summary["payload_bytes"], summary["bits_per_index"]) = (json!(21_003.0), json!(8.5));
    let page = render(&Settings::default(), &summary, &[1, 2, 3].map(sends)).unwrap();
    check(&page);
    let charts = charts_of(&page);
    assert_eq!(charts.len(), 6);
    assert_eq!(values(&charts[4], 0), &[json!(21_001.0), json!(21_002.0), json!(21_003.0)]);
    assert_eq!(values(&charts[5], 0), &[json!(8.5), json!(8.5), json!(8.5)]);
    // 4 bytes times 1,115,264 parameters.
    for shown in ["<dt>Payload</dt><dd class=\"value\">21.0k</dd>", "8.50 bits an index, 1/212.4 of"] {
        assert!(page.contains(shown), "{shown}");
    }
    assert!(page.contains("Payload bytes"));
    let other = render(&Settings::default(), &summary, &[train(1, 4.0)]).unwrap();
    assert!(!other.contains("Payload"), "AdamW sends none");
}

#[test]
fn strings_from_outside_stay_text() {
    let hostile = "</script><script>alert(1)</script><img src=x onerror=\"a()\">'&{{script}}";
    let mut summary = summary();
    for key in ["corpus", "corpus_hash", "theta_hash", "simd", "version"] {
        summary[key] = json!(hostile);
    }
    let mut settings = Settings { from: Some(PathBuf::from(hostile)), ..Settings::default() };
    settings.data.data = Some(hostile.to_owned());
    settings.preset = hostile.to_owned();
    let page = render(&settings, &summary, &[train(1, 5.0)]).unwrap();
    let escaped =
        "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;img src=x onerror=&quot;a()&quot;&gt;";
    assert!(page.contains(&format!("<title>from {escaped}")) && page.contains(&format!("<td>{escaped}")));
    assert!(!page.contains("<script>") && !page.contains("<img"));
    // What looks like a place of the template stays as it came.
    assert_eq!((page.matches("<script").count(), page.matches("SVG, with").count()), (2, 1));
    assert!(page.contains("&#39;&amp;{{script}}"));
}

#[test]
fn one_step_no_step_and_no_validation_make_a_page() {
    for metrics in [vec![], vec![train(1, 5.5)], vec![validation(0, 5.5)]] {
        let mut summary = summary();
        summary["finished"] = json!(false);
        summary["validation_loss"] = Value::Null;
        let page = render(&Settings::default(), &summary, &metrics).unwrap();
        check(&page);
        assert!(page.contains("Stopped early"));
        let validated = metrics.iter().any(|m| matches!(m, Metric::Validation { .. }));
        assert_eq!(page.contains("None in this run."), !validated);
    }
    check(&render(&Settings::default(), &Value::Null, &[]).unwrap());
}

#[test]
fn values_that_are_not_finite_are_gaps() {
    let metrics = [train(1, f64::NAN), train(2, 4.0), train(3, f64::INFINITY), validation(3, f64::NAN)];
    let mut summary = summary();
    summary["validation_loss"] = json!(f64::NAN);
    let page = render(&Settings::default(), &summary, &metrics).unwrap();
    check(&page);
    let charts = charts_of(&page);
    assert_eq!(values(&charts[0], 0), &[Value::Null, json!(4.0), Value::Null]);
    assert_eq!(values(&charts[0], 1), &[Value::Null]);
    assert!(page.contains("the last validation is not a number"));
    assert!(!page.contains("class=\"best\""));
}

#[test]
fn long_runs_make_small_pages_that_keep_spikes() {
    let noise = |step: u64| 2.0 + f64::from(u32::try_from(step * 7919 % 104_729).unwrap()) * 1e-6;
    let mut metrics = Vec::new();
    for step in 1..=200_000 {
        metrics.push(train(step, if step == 123_456 { 11.0 } else { noise(step) }));
        metrics.push(validation(step, noise(step) + if step == 70_001 { -1.0 } else { 0.1 }));
    }
    let mut summary = summary();
    summary["corpus"] = json!("x".repeat(1 << 20));
    let page = render(&Settings::default(), &summary, &metrics).unwrap();
    check(&page);
    assert!(page.len() < 400_000, "{} bytes", page.len());
    let charts = charts_of(&page);
    assert!(values(&charts[0], 0).contains(&json!(11.0)));
    assert!(page.contains("<tr class=\"best\"><th scope=\"row\">70,001</th>"));
    assert!(page.contains("of 200,000 are shown"));
}
