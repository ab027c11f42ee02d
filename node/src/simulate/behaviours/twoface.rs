//! Two objects for one commitment.

use anyhow::Result;

use super::{Act, Behaviour, Draft, Honest, tools};

/// Serves the object it committed to to some readers, and another one to the rest.
pub(super) struct TwoFace;

impl Behaviour for TwoFace {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        Honest.draft(act)
    }

    fn reveal(&mut self, act: &mut Act<'_, '_>, draft: &Draft) -> Result<()> {
        act.peer.reveal(act.world, act.window, &draft.object)?;
        let noise = tools::normal(act, act.world.run.layout.total());
        let submission = tools::compress(act, &noise)?;
        let other = tools::seal(act, &submission, act.budget)?;
        let me = act.peer.hotkey();
        if let Some(bucket) = act.world.buckets.second(&me) {
            bucket.put(&act.world.run.keys.submission(act.window, &me), &other)?;
        }
        Ok(())
    }
}
