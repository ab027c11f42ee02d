//! The charts: of losses, of each peer or group of peers, and of what was sent.

use super::course::Course;
use super::groups::Group;
use super::{LEGEND, float};
use crate::report::chart::{Also, Axis, By, Chart, Range, Series, Style, evenly, thin};
use crate::simulate::summary::Summary;

/// Points drawn of a series of few.
const POINTS: usize = 1500;
/// Points of all peers of a chart together, and of one peer.
const ALL_POINTS: usize = 16_000;
const PEER_POINTS: std::ops::RangeInclusive<usize> = 100..=700;
/// Peers of a behaviour that get a line each: on their own, and in a run of many.
const LINES: usize = 20;
const FEW: usize = 4;
const MANY: usize = 32;

/// Losses of the network and of the baseline, by window and by token.
pub(super) fn loss(course: &Course) -> Chart {
    let line = |name: &str, style, colour, y: &Vec<f64>| {
        let (name, x, y) = (name.to_owned(), course.windows.clone(), y.clone());
        let series = Series { name, style, colour, x, y, ..Series::default() };
        let kept = thin(&series.y, POINTS);
        series.at(&kept)
    };
    let mut series = vec![
        line("Training text", Style::Faint, 7, &course.train_loss),
        line("Held-out text", Style::Line, 0, &course.validation),
    ];
    let mut description = "On held-out text after each window; on training text before its step.".to_owned();
    if course.baseline.iter().any(|loss| loss.is_finite()) {
        series.push(line("Held-out text, centralised baseline", Style::Dashed, 1, &course.baseline));
        description +=
            " The baseline is one machine that trains with AdamW on what the honest peers trained on.";
    }
    let y = Axis { label: "nats per token", ..Axis::default() };
    Chart { id: "loss", title: "Loss", description, x: by_window(course), y, series, legend: None }
}

/// μ, LossRating, share and balance of everybody.
pub(super) fn of_peers(course: &Course, groups: &[Group], summary: &Summary) -> Vec<Chart> {
    let axis = |label, from_zero| Axis { label, from_zero, ..Axis::default() };
    let chart = |id, title, description: &str, y, series| {
        let (x, description) = (numbered("window"), description.to_owned());
        Chart { id, title, description, x, y, series, legend: Some(LEGEND) }
    };
    let lines = |values: &[Vec<f64>]| lines(&course.windows, values, groups, summary);
    let opens = By::Table { at: course.opens.clone(), values: course.windows.clone() };
    let blocks = Axis { also: Some(Also { label: "window", by: opens }), ..numbered("block") };
    let balances = self::lines(&course.blocks, &course.balance, groups, summary);
    vec![
        chart(
            "proof",
            "μ, the proof of computation",
            "Whether the assigned data gained more than other data; −1 to 1.",
            axis("μ", false),
            lines(&course.proof),
        ),
        chart(
            "rating",
            "LossRating",
            "Strength in matches, at the lower end of what is sure.",
            axis("mean − 3 deviations", false),
            lines(&course.rating),
        ),
        chart(
            "share",
            "Incentive",
            "Share of each window's split.",
            axis("share", true),
            lines(&course.share),
        ),
        Chart {
            x: blocks,
            ..chart("balance", "Balance", "All earned so far.", axis("tokens of the chain", true), balances)
        },
    ]
}

/// Bytes and numbers of submissions.
pub(super) fn of_traffic(course: &Course) -> Vec<Chart> {
    let chart = |id, title, label, description: &str, lines: &[(&str, u8, &Vec<f64>)]| {
        let series = lines.iter().map(|&(name, colour, y)| {
            let (name, x, y) = (name.to_owned(), course.windows.clone(), y.clone());
            let series = Series { name, colour, x, y, ..Series::default() };
            let kept = thin(&series.y, POINTS / 2);
            series.at(&kept)
        });
        let y = Axis { label, from_zero: true, ..Axis::default() };
        let (series, description) = (series.collect(), description.to_owned());
        Chart { id, title, description, x: numbered("window"), y, series, legend: None }
    };
    vec![
        chart(
            "bytes",
            "Bytes a window",
            "bytes",
            "Of all submissions that were put.",
            &[("Bytes", 6, &course.bytes)],
        ),
        chart(
            "mean-bytes",
            "Bytes a submission",
            "bytes",
            "Mean of the window.",
            &[("Mean bytes", 6, &course.mean_bytes)],
        ),
        chart(
            "submissions",
            "Submissions",
            "submissions",
            "Put, and accepted into the step.",
            &[("Put", 7, &course.submissions), ("Accepted", 2, &course.accepted)],
        ),
    ]
}

fn numbered(label: &'static str) -> Axis {
    Axis { label, numbered: true, ..Axis::default() }
}

fn by_window(course: &Course) -> Axis {
    let tokens = By::Table { at: course.windows.clone(), values: course.tokens.clone() };
    Axis { also: Some(Also { label: "tokens", by: tokens }), ..numbered("window") }
}

/// A line a peer, or a mean with its range where a behaviour has too many of them to be read.
fn lines(x: &[f64], values: &[Vec<f64>], groups: &[Group], summary: &Summary) -> Vec<Series> {
    let peers: usize = groups.iter().map(|g| g.peers.len()).sum();
    let together = |g: &Group| g.peers.len() > LINES || (peers > MANY && g.peers.len() > FEW);
    let drawn: usize = groups.iter().map(|g| if together(g) { 1 } else { g.peers.len() }).sum();
    let points = (ALL_POINTS / drawn.max(1)).clamp(*PEER_POINTS.start(), *PEER_POINTS.end());
    let mut series = Vec::with_capacity(drawn);
    for group in groups {
        let (style, colour) = (group.style(), group.colour);
        let look =
            |name| Series { name, style, colour, group: Some(group.label.clone()), ..Series::default() };
        if together(group) {
            let name = format!("{}, mean of {}", group.label, group.peers.len());
            let of: Vec<&Vec<f64>> = group.peers.iter().filter_map(|&i| values.get(i)).collect();
            let (y, range) = spread(&of, x.len());
            let whole = Series { x: x.to_vec(), y, range: Some(range), ..look(name) };
            series.push(whole.at(&evenly(x.len(), points)));
        } else {
            for &i in &group.peers {
                let (Some(peer), Some(y)) = (summary.peers.get(i), values.get(i)) else { continue };
                let line = Series { x: x.to_vec(), y: y.clone(), ..look(peer.name.clone()) };
                series.push(line.at(&thin(y, points)));
            }
        }
    }
    series
}

/// Mean, lowest and highest at each place of those values that are known.
fn spread(of: &[&Vec<f64>], places: usize) -> (Vec<f64>, Range) {
    let (mut means, mut range) = (Vec::with_capacity(places), Range::default());
    for place in 0..places {
        let known = || of.iter().filter_map(|values| values.get(place).copied()).filter(|v| v.is_finite());
        means.push(known().sum::<f64>() / float(known().count() as u64));
        range.low.push(known().reduce(f64::min).unwrap_or(f64::NAN));
        range.high.push(known().reduce(f64::max).unwrap_or(f64::NAN));
    }
    (means, range)
}
