//! Honest work on something else than what was assigned.

use anyhow::Result;
use gauntlet_data::Assignment;

use super::{Act, Behaviour, Draft, tools};

/// Trains on data of its own choice, new in every window.
pub(super) struct Lazy;

impl Behaviour for Lazy {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let key = tools::seed(act, "its own data");
        let own = Assignment::from_key(key.0, act.world.run.sequences)?;
        let ids: Vec<u64> = (0..u64::from(act.budget)).map(|i| own.at(i)).collect();
        tools::train(act, &ids).map(Some)
    }
}
