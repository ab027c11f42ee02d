//! `report.html` of a simulated run: what was learnt, who earned what and why. No times in it, as in the summary.

mod charts;
mod course;
mod groups;
mod sections;
mod tables;
#[cfg(test)]
mod tests;

use anyhow::Result;
use gauntlet::Event;

use super::log::Met;
use super::summary::Summary;
use super::{Simulation, WindowResult};
use crate::chain::EpochPay;
use crate::report::html::Html;
use crate::report::page::Page;
use course::Course;
use groups::groups;

/// Id of the legend that all charts of peers share.
const LEGEND: &str = "behaviours-legend";

impl Simulation {
    /// The page, as the first validator that keeps to the rules saw the run.
    pub(crate) fn page(&self, summary: &Summary) -> Result<String> {
        let me = self.observer().map(|judge| judge.validator().hotkey());
        let seen = self.log.events.iter().filter(|(validator, _)| Some(*validator) == me);
        let events: Vec<Event> = seen.map(|(_, event)| event.clone()).collect();
        render(summary, &self.log.windows, &events, &self.log.nodes, &self.chain.history(0)?)
    }
}

/// The page. `events` are one validator's, `nodes` the validators and then the peers of the summary.
pub(crate) fn render(
    summary: &Summary,
    windows: &[WindowResult],
    events: &[Event],
    nodes: &[Met],
    epochs: &[EpochPay],
) -> Result<String> {
    let groups = groups(summary);
    let course = Course::new(summary, windows, events, nodes, epochs);
    let loss = charts::loss(&course);
    let of_peers = charts::of_peers(&course, &groups, summary);
    let of_traffic = charts::of_traffic(&course);
    let mut body = Html::default();
    body.piece(&sections::header(summary, groups.len())).piece(&sections::tiles(summary));
    body.piece(&loss.figure());
    body.piece(&tables::behaviours(summary, &groups)).piece(&tables::peers(summary, &groups));
    body.piece(&sections::legend()).markup("<div class=\"duo\">\n");
    of_peers.iter().for_each(|chart| _ = body.piece(&chart.figure()));
    body.markup("</div>\n<div class=\"trio legends\">\n");
    of_traffic.iter().for_each(|chart| _ = body.piece(&chart.figure()));
    body.markup("</div>\n").piece(&tables::validators(summary)).piece(&sections::facts(summary)?);
    body.piece(&tables::windows(windows, nodes)).piece(&sections::footer(summary));
    let charts = std::iter::once(loss).chain(of_peers).chain(of_traffic).collect();
    Page { title: sections::title(summary), body, charts }.render()
}

/// Units of the chain as tokens with three decimals, cut.
fn tokens(units: u64) -> String {
    let unit = crate::chain::UNITS;
    format!("{}.{:03}", crate::report::format::count(units / unit), units % unit / (unit / 1000))
}

fn float(value: u64) -> f64 {
    // Drawn or shown with few digits.
    #[allow(clippy::cast_precision_loss)]
    let value = value as f64;
    value
}
