//! Reads others' objects instead of training, too late to commit to one (PROTOCOL 8).

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// Waits until another shows its object, and then commits to that as its own and reveals it.
pub(super) struct LateCopycat;

impl Behaviour for LateCopycat {
    fn draft(&mut self, _act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        Ok(Some(Draft::new(Vec::new(), None)))
    }

    fn commit(&mut self, _act: &mut Act<'_, '_>, _draft: &Draft) -> Result<()> {
        Ok(())
    }

    fn reveal(&mut self, act: &mut Act<'_, '_>, _draft: &Draft) -> Result<()> {
        let Some((_, submission, count)) = tools::objects(act, act.window)?.into_iter().next() else {
            return Ok(());
        };
        let object = tools::seal(act, &submission, count)?;
        act.peer.commit(act.world, act.window, &object)?;
        act.peer.reveal(act.world, act.window, &object)
    }
}
