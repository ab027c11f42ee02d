//! Charts as data for `charts.js`, and what keeps long runs small: thinning that keeps extremes, and a
//! moving mean.

use serde::{Serialize, Serializer};

use super::html::Html;

/// One chart; `charts.js` draws it into the figure with its id.
#[derive(Debug, Serialize)]
pub(crate) struct Chart {
    /// Of the figure; unique on the page.
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// What it shows, in a sentence; under the title and for screen readers.
    pub(crate) description: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
    /// Of the element that holds the one legend of several charts; none: a legend of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) legend: Option<&'static str>,
}

/// What an axis measures.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Axis {
    /// Name or unit.
    pub(crate) label: &'static str,
    pub(crate) scale: Scale,
    pub(crate) from_zero: bool,
    /// Places are numbered, as window 3, and not measured, as 3 tokens.
    pub(crate) numbered: bool,
    /// A second reading of the same place.
    pub(crate) also: Option<Also>,
}

/// Spacing of values.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scale {
    #[default]
    Linear,
    /// Logarithmic where all values are positive and spread over more than two decades.
    Auto,
}

/// A second name for a place, such as the step of a number of tokens.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Also {
    pub(crate) label: &'static str,
    #[serde(flatten)]
    pub(crate) by: By,
}

/// How a place becomes its second name.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum By {
    /// The place divided by this, rounded.
    Divide(f64),
    /// The value of the last of the rising places `at` that is not beyond; also shown under the ticks.
    Table { at: Vec<f64>, values: Vec<f64> },
}

/// Values against places; a value that is not finite is a gap.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) style: Style,
    /// Number of its colour, 0 to 15.
    pub(crate) colour: u8,
    /// What the legend shows and hides together; none: itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<String>,
    /// Rising.
    pub(crate) x: Vec<f64>,
    #[serde(serialize_with = "six_digits")]
    pub(crate) y: Vec<f64>,
    /// Lowest and highest of what `y` is the mean of, drawn as a band.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) range: Option<Range>,
}

/// A band around a series.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Range {
    #[serde(serialize_with = "six_digits")]
    pub(crate) low: Vec<f64>,
    #[serde(serialize_with = "six_digits")]
    pub(crate) high: Vec<f64>,
}

/// Look of a series.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Style {
    #[default]
    Line,
    Dashed,
    Faint,
    Points,
}

impl Chart {
    /// Its place on the page; the legend and the drawing come in when the page opens.
    pub(crate) fn figure(&self) -> Html {
        let mut html = Html::default();
        html.markup("<figure class=\"card\" id=\"").text(self.id).markup("\">\n<figcaption><h2>");
        html.text(self.title).markup("</h2><p>").text(&self.description);
        html.markup("</p></figcaption>\n<div class=\"plot\"><noscript>This chart needs JavaScript; ");
        html.markup("the tables below hold its values.</noscript></div>\n</figure>\n");
        html
    }
}

impl Series {
    /// The values at `kept`.
    pub(crate) fn at(mut self, kept: &[usize]) -> Self {
        let pick = |values: &[f64]| kept.iter().filter_map(|&i| values.get(i).copied()).collect();
        (self.x, self.y) = (pick(&self.x), pick(&self.y));
        self.range = self.range.map(|range| Range { low: pick(&range.low), high: pick(&range.high) });
        self
    }
}

/// Indices of at most about `most` of `values`: first, last, and of each stretch the lowest, the highest
/// and a value that is not finite, so that spikes and gaps stay.
pub(crate) fn thin(values: &[f64], most: usize) -> Vec<usize> {
    if values.len() <= most.max(2) {
        return (0..values.len()).collect();
    }
    let stretch = values.len().div_ceil((most / 2).max(1));
    let mut kept = vec![0, values.len() - 1];
    for (n, part) in values.chunks(stretch).enumerate() {
        let start = n * stretch;
        let finite = || part.iter().enumerate().filter(|(_, v)| v.is_finite());
        kept.extend(finite().min_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| start + i));
        kept.extend(finite().max_by(|a, b| a.1.total_cmp(b.1)).map(|(i, _)| start + i));
        kept.extend(part.iter().position(|v| !v.is_finite()).map(|i| start + i));
    }
    kept.sort_unstable();
    kept.dedup();
    kept
}

/// Every nth index, with first and last; at most `most` and one.
pub(crate) fn evenly(count: usize, most: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = (0..count).step_by(count.div_ceil(most.max(1)).max(1)).collect();
    if count > 0 && kept.last() != Some(&(count - 1)) {
        kept.push(count - 1);
    }
    kept
}

/// At each of the `places`, the mean of the values up to `reach` to both sides. At the start it reaches
/// only as far as there are values before, since a curve falls steepest there. Values that are not finite
/// do not count.
pub(crate) fn moving_mean(values: &[f64], reach: usize, places: &[usize]) -> Vec<f64> {
    // Summed anew each time: a running sum would carry what one huge value rounded away.
    let mean = |&i: &usize| {
        let reach = reach.min(i);
        let window = values.get(i - reach..values.len().min(i + reach + 1)).unwrap_or_default();
        let finite = window.iter().filter(|v| v.is_finite());
        let (sum, n) = finite.fold((0.0, 0.0), |(sum, n), v| (sum + v, n + 1.0));
        sum / n
    };
    places.iter().map(mean).collect()
}

/// What a page can show, in fewer bytes; what is not finite becomes null.
fn six_digits<S: Serializer>(values: &[f64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(values.iter().map(|v| format!("{v:.5e}").parse().unwrap_or(*v)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_ends_spikes_and_gaps() {
        let mut values: Vec<f64> = (0..100_000).map(|i| f64::from(i % 7)).collect();
        (values[31_234], values[77_777], values[50_000]) = (99.0, -99.0, f64::NAN);
        let kept = thin(&values, 1000);
        assert!(kept.len() <= 1010 && kept.is_sorted());
        for i in [0, 31_234, 50_000, 77_777, 99_999] {
            assert!(kept.contains(&i), "{i}");
        }
        assert_eq!(thin(&[], 10), [0; 0]);
        assert_eq!(thin(&[1.0, f64::NAN], 1), [0, 1]);
        assert!(thin(&[f64::NAN; 5000], 100).len() <= 102);
    }

    #[test]
    fn every_nth_has_first_and_last() {
        assert_eq!(evenly(0, 5), [0; 0]);
        assert_eq!(evenly(1, 5), [0]);
        assert_eq!(evenly(10, 4), [0, 3, 6, 9]);
        assert_eq!(evenly(11, 4), [0, 3, 6, 9, 10]);
    }

    #[test]
    fn the_mean_reaches_both_sides_and_skips_gaps() {
        let values = [4.0, 1.0, 1.0, 4.0, 1.0, 1e30, 1.0, 3.0];
        assert_eq!(moving_mean(&values, 1, &[0, 1, 2, 3, 7]), [4.0, 2.0, 2.0, 2.0, 2.0]);
        assert_eq!(moving_mean(&[2.0, f64::NAN, 4.0], 1, &[1]), [3.0]);
        assert!(moving_mean(&[f64::NAN], 3, &[0])[0].is_nan());
    }

    #[test]
    fn digits_are_cut_and_gaps_become_null() {
        let series = Series { x: vec![1.0, 2.0, 3.0], ..Series::default() };
        let series = Series { y: vec![1.234_567_89, f64::NAN, 0.000_123_456_78], ..series }.at(&[0, 1, 2]);
        let json = serde_json::to_value(series).unwrap();
        assert_eq!(json["y"], serde_json::json!([1.23457, null, 0.000123457]));
    }
}
