//! Accuracy over multiple-choice questions, as lm-evaluation-harness defines it (`lm_eval/api/task.py`).
//!
//! acc: the choice with the largest log p is the right one. acc_norm: the one with the largest log p divided
//! by the number of characters of the choice. Ties go to the first. Standard error of a share p over n
//! questions: √(p(1−p)/(n−1)).

use serde::Serialize;

use super::task::Item;

/// Shares of right answers and their standard errors (none for a single question).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Accuracy {
    pub(crate) acc: f64,
    pub(crate) acc_stderr: Option<f64>,
    pub(crate) acc_norm: f64,
    pub(crate) acc_norm_stderr: Option<f64>,
}

impl Accuracy {
    /// `scores` holds log p of every choice of every item, one after the other.
    pub(crate) fn of(items: &[Item], scores: &[f64]) -> Self {
        let (mut right, mut right_norm, mut rest) = (0, 0, scores);
        for item in items {
            let (scores, later) = rest.split_at_checked(item.choices.len()).unwrap_or((rest, &[]));
            #[allow(clippy::cast_precision_loss)] // a number of characters
            let lengths = item.choices.iter().map(|choice| choice.chars().count() as f64);
            right += u64::from(best(scores.iter().copied()) == Some(item.gold));
            right_norm += u64::from(best(scores.iter().zip(lengths).map(|(s, n)| s / n)) == Some(item.gold));
            rest = later;
        }
        let (acc, acc_stderr) = share(right, items.len());
        let (acc_norm, acc_norm_stderr) = share(right_norm, items.len());
        Self { acc, acc_stderr, acc_norm, acc_norm_stderr }
    }
}

/// Index of the largest value, the first of equals.
fn best(values: impl Iterator<Item = f64>) -> Option<usize> {
    let larger = |best: Option<(usize, f64)>, (i, value)| match best {
        Some((_, most)) if value <= most => best,
        _ => Some((i, value)),
    };
    values.enumerate().fold(None, larger).map(|(i, _)| i)
}

#[allow(clippy::cast_precision_loss)] // numbers of questions
fn share(right: u64, count: usize) -> (f64, Option<f64>) {
    let (p, n) = (right as f64 / count as f64, count as f64);
    (p, (count > 1).then(|| (p * (1.0 - p) / (n - 1.0)).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(choices: [&str; 2], gold: usize) -> Item {
        Item { context: String::new(), choices: choices.map(str::to_owned).to_vec(), gold }
    }

    #[test]
    fn by_hand() {
        let items = [
            item(["ab", "abcd"], 0),  // −3 beats −4; −1.5 loses to −1
            item(["ab", "abcd"], 1),  // −3 beats −4; −1.5 loses to −1
            item(["é€", "xyz"], 1),   // a tie goes to the first; −1.5 loses to −1: characters, not bytes
            item(["a", "longer"], 0), // both ways the first
        ];
        let scores = [-3.0, -4.0, -3.0, -4.0, -3.0, -3.0, -1.0, -9.0];
        let got = Accuracy::of(&items, &scores);
        assert_eq!((got.acc, got.acc_norm), (0.5, 0.75));
        assert!((got.acc_stderr.unwrap() - 0.288_675_134_594_812_9).abs() < 1e-15);
        assert!((got.acc_norm_stderr.unwrap() - 0.25).abs() < 1e-15);
        let single = Accuracy::of(&items[..1], &scores);
        assert_eq!((single.acc, single.acc_stderr, single.acc_norm), (1.0, None, 0.0));
    }
}
