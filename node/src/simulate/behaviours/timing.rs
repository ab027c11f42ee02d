//! Honest work at the wrong time.

use anyhow::Result;
use gauntlet::draw::Draw;

use super::{Act, Behaviour, Draft, Honest, tools};

/// Commits when the deadline has passed.
pub(super) struct Late;

impl Behaviour for Late {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        Honest.draft(act)
    }

    fn commit(&mut self, _act: &mut Act<'_, '_>, _draft: &Draft) -> Result<()> {
        Ok(())
    }

    fn reveal(&mut self, act: &mut Act<'_, '_>, draft: &Draft) -> Result<()> {
        act.peer.commit(act.world, act.window, &draft.object)?;
        act.peer.reveal(act.world, act.window, &draft.object)
    }
}

/// Commits in time, and puts its object when the put window is over.
pub(super) struct LateObject;

impl Behaviour for LateObject {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        Honest.draft(act)
    }

    fn reveal(&mut self, _act: &mut Act<'_, '_>, _draft: &Draft) -> Result<()> {
        Ok(())
    }

    fn overdue(&mut self, act: &mut Act<'_, '_>, draft: &Draft) -> Result<()> {
        act.peer.reveal(act.world, act.window, &draft.object)
    }
}

/// Misses windows with probability p.
pub(super) struct Absent(pub(super) f64);

impl Behaviour for Absent {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let mut draw = Draw::new(tools::seed(act, "absent"), "absent");
        #[allow(clippy::cast_precision_loss)] // 53 bits
        let uniform = (draw.bits() >> 11) as f64 / (1_u64 << 53) as f64;
        if uniform < self.0 { Ok(None) } else { Honest.draft(act) }
    }
}

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
