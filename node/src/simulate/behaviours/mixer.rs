//! Others' work of the window before, which everybody can read, sent as this window's.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// The mean of all others' objects it can see, with or without one sequence of its own work.
pub(super) struct Mixer {
    pub(super) own: bool,
}

impl Behaviour for Mixer {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let Some(before) = act.window.checked_sub(1) else { return Ok(None) };
        let seen = tools::objects(act, before)?;
        tools::with_own(act, &seen, self.own)
    }
}
