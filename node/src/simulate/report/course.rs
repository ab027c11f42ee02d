//! What charts draw, by window: of the run, and of each peer as one validator saw it.

use std::collections::BTreeMap;

use gauntlet::{Event, EventKind, Hotkey};

use super::float;
use crate::chain::{EpochPay, UNITS};
use crate::simulate::WindowResult;
use crate::simulate::log::Met;
use crate::simulate::summary::Summary;

/// The run as columns. What is not known is not a number.
#[derive(Default)]
pub(super) struct Course {
    pub(super) windows: Vec<f64>,
    /// Tokens that honest peers trained on up to the end of a window.
    pub(super) tokens: Vec<f64>,
    pub(super) train_loss: Vec<f64>,
    pub(super) validation: Vec<f64>,
    pub(super) baseline: Vec<f64>,
    pub(super) bytes: Vec<f64>,
    pub(super) mean_bytes: Vec<f64>,
    pub(super) submissions: Vec<f64>,
    pub(super) accepted: Vec<f64>,
    /// By peer of the summary, then by window, at its end.
    pub(super) proof: Vec<Vec<f64>>,
    pub(super) rating: Vec<Vec<f64>>,
    pub(super) share: Vec<Vec<f64>>,
    /// First block of each window.
    pub(super) opens: Vec<f64>,
    /// Last block of each epoch, and all a peer earned up to it, in tokens.
    pub(super) blocks: Vec<f64>,
    pub(super) balance: Vec<Vec<f64>>,
}

/// What a validator held of a peer.
#[derive(Clone, Copy)]
struct Held {
    proof: f64,
    rating: f64,
    share: f64,
}

impl Course {
    pub(super) fn new(
        summary: &Summary,
        windows: &[WindowResult],
        events: &[Event],
        nodes: &[Met],
        epochs: &[EpochPay],
    ) -> Self {
        let mut course = Self::default();
        let known = |value: Option<f64>| value.unwrap_or(f64::NAN);
        let mut trained = 0;
        for w in windows {
            trained += w.sequences * summary.manifest.data.seq as u64;
            course.windows.push(float(w.window));
            course.tokens.push(float(trained));
            course.opens.push(float(summary.manifest.window.opens(w.window)));
            course.train_loss.push(known(w.train_loss));
            course.validation.push(known(w.validation));
            course.baseline.push(known(w.baseline));
            course.bytes.push(float(w.bytes));
            course.mean_bytes.push(float(w.bytes) / float(w.submissions));
            course.submissions.push(float(w.submissions));
            course.accepted.push(float(w.accepted as u64));
        }
        let peers = nodes.iter().skip(summary.validators.len()).take(summary.peers.len());
        let peers: BTreeMap<Hotkey, usize> = peers.enumerate().map(|(i, met)| (met.hotkey, i)).collect();
        course.judged(summary, windows, events, &peers);
        course.paid(epochs, summary.peers.len(), &peers);
        course
    }

    fn judged(
        &mut self,
        summary: &Summary,
        windows: &[WindowResult],
        events: &[Event],
        peers: &BTreeMap<Hotkey, usize>,
    ) {
        let mut by_window: BTreeMap<u64, Vec<&EventKind>> = BTreeMap::new();
        for event in events {
            by_window.entry(event.window).or_default().push(&event.kind);
        }
        let empty = || vec![Vec::with_capacity(windows.len()); summary.peers.len()];
        (self.proof, self.rating, self.share) = (empty(), empty(), empty());
        let fresh = gauntlet::rating::Rating::new(&summary.manifest.gauntlet.rating).loss_rating();
        let unknown = Held { proof: f64::NAN, rating: f64::NAN, share: f64::NAN };
        let mut held = vec![unknown; summary.peers.len()];
        for w in windows {
            let round = by_window.get(&w.window);
            for held in held.iter_mut().filter(|held| !held.proof.is_nan()) {
                // Nobody is paid by a round that there was not.
                held.share = if round.is_some() { 0.0 } else { f64::NAN };
            }
            for kind in round.into_iter().flatten() {
                let peer = kind.hotkey().and_then(|hotkey| peers.get(hotkey));
                if let Some(held) = peer.and_then(|&i| held.get_mut(i)) {
                    held.take(kind, fresh);
                }
            }
            for (i, held) in held.iter().enumerate() {
                self.proof[i].push(held.proof);
                self.rating[i].push(held.rating);
                self.share[i].push(held.share);
            }
        }
    }

    fn paid(&mut self, epochs: &[EpochPay], n: usize, peers: &BTreeMap<Hotkey, usize>) {
        let mut sums = vec![0_u64; n];
        self.balance = vec![Vec::with_capacity(epochs.len()); n];
        for epoch in epochs {
            self.blocks.push(float(epoch.block));
            for pay in &epoch.pay {
                if let Some(sum) = peers.get(&pay.hotkey).and_then(|&i| sums.get_mut(i)) {
                    *sum = sum.saturating_add(pay.emission());
                }
            }
            for (balance, &sum) in self.balance.iter_mut().zip(&sums) {
                balance.push(float(sum) / float(UNITS));
            }
        }
    }
}

impl Held {
    fn take(&mut self, kind: &EventKind, fresh: f64) {
        match kind {
            EventKind::Joined { .. } => *self = Self { proof: 0.0, rating: fresh, share: 0.0 },
            EventKind::Penalised { after, .. } | EventKind::Evaluated { after, .. } => self.proof = *after,
            EventKind::Rated { after, .. } => self.rating = after.loss_rating(),
            EventKind::Scored { score, .. } => (self.proof, self.rating) = (score.proof, score.loss_rating),
            EventKind::Paid { share, .. } => self.share = *share,
            _ => {}
        }
    }
}
