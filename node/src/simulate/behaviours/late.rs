//! Honest work, shown too late: the commitment, or the object.

use anyhow::Result;

use super::{Act, Behaviour, Draft, Honest};

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
