//! Peers by behaviour and speed, each group with a look of its own: honest ones blue, the others not.

use crate::report::chart::Style;
use crate::simulate::summary::{PeerSummary, Summary};

/// Numbers of colours in the style sheet: blues, and all others told apart best first.
const HONEST: [u8; 3] = [0, 8, 9];
const OTHERS: [u8; 12] = [1, 5, 2, 3, 4, 10, 12, 11, 7, 14, 15, 13];

/// Peers of one behaviour and speed.
pub(super) struct Group {
    pub(super) label: String,
    pub(super) honest: bool,
    pub(super) colour: u8,
    /// The colour stands for another group too.
    pub(super) again: bool,
    /// Indices of the summary's peers.
    pub(super) peers: Vec<usize>,
}

impl Group {
    pub(super) fn style(&self) -> Style {
        if self.again { Style::Dashed } else { Style::Line }
    }

    /// Its peers.
    pub(super) fn of<'a>(&self, summary: &'a Summary) -> impl Iterator<Item = &'a PeerSummary> {
        self.peers.iter().filter_map(|&i| summary.peers.get(i))
    }
}

/// Honest ones first, else in the order of the peers.
pub(super) fn groups(summary: &Summary) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (i, peer) in summary.peers.iter().enumerate() {
        let same = |g: &&mut Group| {
            g.of(summary).next().is_some_and(|p| p.behaviour == peer.behaviour && p.speed == peer.speed)
        };
        match groups.iter_mut().find(same) {
            Some(group) => group.peers.push(i),
            None => {
                let label = label(&peer.behaviour, peer.speed);
                groups.push(Group { label, honest: peer.honest, colour: 0, again: false, peers: vec![i] })
            }
        }
    }
    groups.sort_by_key(|g| !g.honest);
    for honest in [true, false] {
        let colours: &[u8] = if honest { &HONEST } else { &OTHERS };
        for (i, group) in groups.iter_mut().filter(|g| g.honest == honest).enumerate() {
            group.colour = colours.get(i % colours.len()).copied().unwrap_or_default();
            group.again = i >= colours.len();
        }
    }
    groups
}

/// As `--peers` spells it, but for three digits of the speed: one that was divided has many.
fn label(behaviour: &str, speed: f64) -> String {
    #[allow(clippy::float_cmp)] // 1 as it was typed
    if speed == 1.0 {
        return behaviour.to_owned();
    }
    let scale = 10f64.powi(2 - speed.log10().floor() as i32);
    format!("{behaviour} @{}", (speed * scale).round() / scale)
}
