//! Honest work on an old state.

use std::collections::VecDeque;
use std::sync::Arc;

use anyhow::Result;

use super::{Act, Behaviour, Draft};
use crate::run::theta::Theta;

/// Trains on the state of k windows ago, and says so in its state tag.
pub(super) struct Stale {
    k: usize,
    past: VecDeque<Arc<Theta>>,
}

impl Stale {
    pub(super) fn new(k: u32) -> Self {
        Self { k: k as usize, past: VecDeque::new() }
    }
}

impl Behaviour for Stale {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        self.past.push_back(Arc::clone(act.peer.follower.theta()));
        while self.past.len() > self.k + 1 {
            self.past.pop_front();
        }
        let Some(old) = self.past.front().cloned() else { return Ok(None) };
        let ids = act.peer.assigned(act.world, act.window, act.budget)?;
        let data = &act.world.run.corpus.train;
        let loss = act.world.compute.gradient(data, &old, &ids)?;
        let submission = act.peer.take_up(act.world)?;
        let object = act.peer.seal(act.world, act.window, &old, &submission, act.budget)?;
        Ok(Some(Draft { state: Some(old), ..Draft::new(object, Some(loss)) }))
    }
}
