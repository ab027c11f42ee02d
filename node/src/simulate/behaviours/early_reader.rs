//! Reads others' objects instead of training, before any is there (PROTOCOL 8).

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// Looks for the others' objects before commitments close, to send their mean.
#[derive(Default)]
pub(super) struct EarlyReader {
    made: Option<Vec<u8>>,
}

impl Behaviour for EarlyReader {
    fn draft(&mut self, _act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        Ok(Some(Draft::new(Vec::new(), None)))
    }

    fn commit(&mut self, act: &mut Act<'_, '_>, _draft: &Draft) -> Result<()> {
        let seen = tools::objects(act, act.window)?;
        self.made = None;
        if seen.is_empty() {
            return Ok(());
        }
        let mean = tools::mean(act, &seen)?;
        let submission = tools::compress(act, &mean)?;
        let object = tools::seal(act, &submission, act.budget)?;
        act.peer.commit(act.world, act.window, &object)?;
        self.made = Some(object);
        Ok(())
    }

    fn reveal(&mut self, act: &mut Act<'_, '_>, _draft: &Draft) -> Result<()> {
        match &self.made {
            Some(object) => act.peer.reveal(act.world, act.window, object),
            None => Ok(()),
        }
    }
}
