//! `report.html`: one self-contained page with the results, curves, settings and validations of a run.

mod sections;
#[cfg(test)]
mod tests;

use anyhow::Result;
use serde_json::Value;

use super::metrics::Metric;
use super::settings::Settings;
use crate::report::chart::{Also, Axis, By, Chart, Scale, Series, Style, moving_mean, thin};
use crate::report::format::count;
use crate::report::html::Html;
use crate::report::page::Page;

/// Points drawn of the loss and of each other curve.
const LOSS_POINTS: usize = 2000;
const SMALL_POINTS: usize = 700;

/// The page. `summary` is what `summary.json` holds; what it lacks is shown as missing.
pub(crate) fn render(settings: &Settings, summary: &Value, metrics: &[Metric]) -> Result<String> {
    let curves = Curves::new(metrics);
    let charts = charts(&curves, settings.tokens_per_step());
    let mut body = Html::default();
    body.piece(&sections::header(settings, summary));
    body.piece(&sections::tiles(summary, &curves)).piece(&sections::facts(summary));
    for (i, chart) in charts.iter().enumerate() {
        // The first is wide, the others stand side by side: three, and two of what DeMo sends.
        body.markup(match i {
            1 => "<div class=\"trio\">\n",
            4 => "</div>\n<div class=\"duo\">\n",
            _ => "",
        });
        body.piece(&chart.figure());
    }
    body.markup("</div>\n<div class=\"pair\">\n").piece(&sections::validations(&curves));
    body.piece(&sections::settings(settings)?).markup("</div>\n").piece(&sections::steps(&curves));
    body.piece(&sections::footer(summary));
    let title = sections::title(settings, summary);
    Page { title, body, charts }.render()
}

/// The metrics by column. Index i of every training column is the same step.
#[derive(Default)]
struct Curves {
    step: Vec<u64>,
    tokens: Vec<u64>,
    loss: Vec<f64>,
    lr: Vec<f64>,
    grad_norm: Vec<f64>,
    speed: Vec<f64>,
    /// Of DeMo: mean bytes of a worker's payload, and bits of an index in it. Not a number elsewhere.
    bytes: Vec<f64>,
    bits_per_index: Vec<f64>,
    /// Step, tokens, loss, bits a byte.
    validations: Vec<(u64, u64, f64, f64)>,
}

impl Curves {
    fn new(metrics: &[Metric]) -> Self {
        let mut curves = Self::default();
        for metric in metrics {
            match *metric {
                Metric::Train { step, tokens, loss, lr, grad_norm, tokens_per_s, bytes, bits_per_index } => {
                    curves.step.push(step);
                    curves.tokens.push(tokens);
                    curves.loss.push(loss);
                    curves.lr.push(lr);
                    curves.grad_norm.push(grad_norm);
                    curves.speed.push(tokens_per_s);
                    curves.bytes.push(bytes.unwrap_or(f64::NAN));
                    curves.bits_per_index.push(bits_per_index.unwrap_or(f64::NAN));
                }
                Metric::Validation { step, tokens, loss, bits_per_byte } => {
                    curves.validations.push((step, tokens, loss, bits_per_byte));
                }
            }
        }
        curves
    }

    /// Whether its workers send payloads.
    fn sends(&self) -> bool {
        self.bytes.iter().any(|bytes| bytes.is_finite())
    }

    /// Index of the validation with the lowest loss.
    fn best(&self) -> Option<usize> {
        let finite = self.validations.iter().enumerate().filter(|(_, v)| v.2.is_finite());
        finite.min_by(|a, b| a.1.2.total_cmp(&b.1.2)).map(|(i, _)| i)
    }
}

fn charts(curves: &Curves, tokens_per_step: u64) -> Vec<Chart> {
    let x = || Axis {
        label: "tokens",
        scale: Scale::Linear,
        from_zero: true,
        numbered: false,
        also: Some(Also { label: "step", by: By::Divide(float(tokens_per_step.max(1))) }),
    };
    let y = |label, scale, from_zero| Axis { label, scale, from_zero, ..Axis::default() };
    let (rate, norm, speed) =
        (y("", Scale::Linear, true), y("L2 norm", Scale::Auto, false), y("tokens/s", Scale::Linear, true));
    let small =
        |id, title, y, description, series| Chart { id, title, description, x: x(), y, series, legend: None };
    let tokens = floats(&curves.tokens);
    let plain = |name: &str, colour, y: &Vec<f64>| {
        let (name, x, y) = (name.to_owned(), tokens.clone(), y.clone());
        let series = Series { name, colour, x, y, ..Series::default() };
        let kept = thin(&series.y, SMALL_POINTS);
        vec![series.at(&kept)]
    };
    let noisy = |names, colour, y| with_mean(names, colour, &tokens, y, SMALL_POINTS);
    let (norms, norm_mean) = noisy(["Gradient norm", "Smoothed"], 3, &curves.grad_norm);
    let (speeds, speed_mean) = noisy(["Tokens per second", "Smoothed"], 6, &curves.speed);
    let mut charts = vec![
        loss_chart(curves, &tokens, x()),
        small("lr", "Learning rate", rate, "Of each step.".into(), plain("Learning rate", 2, &curves.lr)),
        small("grad-norm", "Gradient norm", norm, format!("Before clipping{norm_mean}."), norms),
        small("speed", "Speed", speed, format!("Of each step{speed_mean}."), speeds),
    ];
    if curves.sends() {
        let (bytes, bits) = (y("bytes", Scale::Linear, true), y("bits", Scale::Linear, false));
        let payload = plain("Payload", 4, &curves.bytes);
        let index = plain("Bits per index", 5, &curves.bits_per_index);
        let words = "What a worker sends in a step, mean of all.".to_owned();
        charts.push(small("payload", "Payload", bytes, words, payload));
        let words = "Mean of an index in a payload.".to_owned();
        charts.push(small("bits-per-index", "Bits per index", bits, words, index));
    }
    charts
}

/// Values with their moving mean over a 25th of the run, and words for it; of a few steps a mean says
/// nothing. Both at the same places, thinned to about `most` of the values.
fn with_mean(
    names: [&'static str; 2],
    colour: u8,
    x: &[f64],
    y: &[f64],
    most: usize,
) -> (Vec<Series>, String) {
    let kept = thin(y, most);
    let [name, mean] = names.map(str::to_owned);
    let raw = Series { name, colour, x: x.to_vec(), y: y.to_vec(), ..Series::default() }.at(&kept);
    if y.len() < 20 {
        return (vec![raw], String::new());
    }
    let reach = y.len().div_ceil(50);
    let means = moving_mean(y, reach, &kept);
    let mean = Series { name: mean, colour, x: raw.x.clone(), y: means, ..Series::default() };
    let both = vec![Series { style: Style::Faint, ..raw }, mean];
    (both, format!("; smoothed over {} steps", count(2 * reach as u64 + 1)))
}

fn loss_chart(curves: &Curves, tokens: &[f64], x: Axis) -> Chart {
    let names = ["Training loss", "Training loss, smoothed"];
    let (mut series, mean) = with_mean(names, 0, tokens, &curves.loss, LOSS_POINTS);
    let (drawn, all) = (series.first().map_or(0, |s| s.x.len()), curves.loss.len());
    let thinned = if drawn == all {
        String::new()
    } else {
        let (drawn, all) = (count(drawn as u64), count(all as u64));
        format!(". {drawn} of {all} steps are drawn, the lowest and highest of each stretch among them")
    };
    if !curves.validations.is_empty() {
        let y: Vec<f64> = curves.validations.iter().map(|v| v.2).collect();
        let x = curves.validations.iter().map(|v| float(v.1)).collect();
        let kept = thin(&y, SMALL_POINTS);
        let name = "Validation loss".to_owned();
        let points = Series { name, style: Style::Points, colour: 1, x, y, ..Series::default() };
        series.push(points.at(&kept));
    }
    let description = format!("Mean of each step, before its update{mean}{thinned}.");
    let y = Axis { label: "nats per token", ..Axis::default() };
    Chart { id: "loss", title: "Loss", description, x, y, series, legend: None }
}

fn float(value: u64) -> f64 {
    // Of tokens, drawn: more than 2^53 of them nobody trains on.
    #[allow(clippy::cast_precision_loss)]
    let value = value as f64;
    value
}

fn floats(values: &[u64]) -> Vec<f64> {
    values.iter().map(|&v| float(v)).collect()
}
