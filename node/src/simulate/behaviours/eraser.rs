//! Honest work that is not there when others need it.

use anyhow::Result;

use super::{Act, Behaviour, Draft, Honest};

/// Deletes its object after the put window.
pub(super) struct Eraser;

impl Behaviour for Eraser {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        Honest.draft(act)
    }

    fn afterwards(&mut self, act: &mut Act<'_, '_>) -> Result<()> {
        let me = act.peer.hotkey();
        if let Some(bucket) = act.world.buckets.of(&me, &me) {
            bucket.delete(&[act.world.run.keys.submission(act.window, &me)])?;
        }
        Ok(())
    }
}
