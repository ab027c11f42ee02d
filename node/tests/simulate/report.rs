//! The report of a run, as its reader has it.

use serde_json::Value;

use super::{gauntlet, read_events, read_summary, stderr};

/// The charts that a page draws.
fn charts(page: &str) -> Vec<Value> {
    let (_, rest) = page.split_once("id=\"charts\">").unwrap();
    serde_json::from_str(rest.split_once("</script>").unwrap().0).unwrap()
}

/// What the chart `id` plots, by series: names and values.
fn plotted(charts: &[Value], id: &str) -> Vec<(String, Vec<f64>)> {
    let chart = charts.iter().find(|chart| chart["id"] == id).unwrap_or_else(|| panic!("no chart {id}"));
    let numbers = |y: &Value| y.as_array().unwrap().iter().map(|v| v.as_f64().unwrap_or(f64::NAN)).collect();
    let series = chart["series"].as_array().unwrap().iter();
    series.map(|s| (s["name"].as_str().unwrap().to_owned(), numbers(&s["y"]))).collect()
}

#[test]
fn the_report_shows_the_run_that_was_made() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    let args =
        ["--peers", "honest:2,signflip,malformed", "--windows", "6", "--seq", "32", "--sequences", "2"];
    let place = ["simulate", "--json", "--out", &out.display().to_string()];
    let output = gauntlet(&[&place[..], &args].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let (page, summary) = (std::fs::read_to_string(out.join("report.html")).unwrap(), read_summary(&out));
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    // Nothing is loaded from elsewhere.
    assert!(!page.contains(" src=") && !page.contains("url(") && !page.contains("href=\"http"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let hash: String = text(&summary["theta_hash"]).chars().take(12).collect();
    let mut shown =
        vec![text(&summary["run"]), hash, "6 windows on ".to_owned(), "All nodes agree on θ".to_owned()];
    let nodes = summary["peers"].as_array().unwrap().iter().chain(summary["validators"].as_array().unwrap());
    shown.extend(nodes.map(|node| text(&node["name"])));
    shown.extend(
        ["validation_loss", "baseline_loss"].map(|loss| format!("{:.4}", summary[loss].as_f64().unwrap())),
    );
    for shown in shown {
        assert!(page.contains(&shown), "{shown}");
    }
    // The curves are what happened: losses of every window, and of every peer what its validator paid it.
    let (charts, events) = (charts(&page), read_events(&out));
    let windows: Vec<&Value> = events.iter().filter(|e| e["kind"] == "window").collect();
    let of = |key: &str| windows.iter().map(|w| w[key].as_f64().unwrap()).collect::<Vec<_>>();
    // Six digits are drawn.
    let drawn = |values: &[f64]| values.iter().map(|v| (v * 1e5).round()).collect::<Vec<_>>();
    let losses: Vec<Vec<f64>> = plotted(&charts, "loss").into_iter().map(|(_, y)| drawn(&y)).collect();
    for key in ["validation", "baseline", "train_loss"] {
        assert!(losses.contains(&drawn(&of(key))), "{key}: {losses:?}");
    }
    let names: Vec<String> = plotted(&charts, "proof").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["honest-1", "honest-2", "signflip-1", "malformed-1"]);
    let submissions = plotted(&charts, "submissions");
    assert!(submissions.iter().any(|(_, y)| *y == of("accepted")), "{submissions:?}");
}
