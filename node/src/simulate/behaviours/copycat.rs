//! Reads others' commitments instead of training. Commit, then reveal leaves it nothing to read in time (PROTOCOL 8).

use anyhow::Result;
use gauntlet::Hotkey;

use super::{Act, Behaviour, Draft, tools};

/// Commits to the hash another peer committed to, and reveals that peer's work as its own.
#[derive(Default)]
pub(super) struct Copycat {
    victim: Option<Hotkey>,
}

impl Behaviour for Copycat {
    fn draft(&mut self, _act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        Ok(Some(Draft::new(Vec::new(), None)))
    }

    fn commit(&mut self, act: &mut Act<'_, '_>, _draft: &Draft) -> Result<()> {
        self.victim = None;
        if let Some((victim, content)) = tools::commitments(act)?.into_iter().next() {
            self.victim = Some(victim);
            act.peer.commit_to(act.world, act.window, &content)?;
        }
        Ok(())
    }

    fn reveal(&mut self, act: &mut Act<'_, '_>, _draft: &Draft) -> Result<()> {
        let Some(victim) = self.victim else { return Ok(()) };
        let Some((_, submission, count)) =
            tools::objects(act, act.window)?.into_iter().find(|(hotkey, ..)| *hotkey == victim)
        else {
            return Ok(());
        };
        let object = tools::seal(act, &submission, count)?;
        act.peer.reveal(act.world, act.window, &object)
    }
}
