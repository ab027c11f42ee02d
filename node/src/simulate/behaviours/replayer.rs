//! What moved θ in the window before, sent as this window's.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// What was accepted in the last window, with or without one sequence of its own work.
pub(super) struct Replayer {
    pub(super) own: bool,
}

impl Behaviour for Replayer {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let Some(listed) = act.window.checked_sub(1).and_then(|w| act.peer.follower.accepted(w)) else {
            return Ok(None);
        };
        let me = act.peer.hotkey();
        let others = listed.iter().filter(|(hotkey, _)| *hotkey != me);
        let seen: Vec<tools::Seen> = others.map(|(hotkey, s)| (*hotkey, (**s).clone(), act.budget)).collect();
        tools::with_own(act, &seen, self.own)
    }
}
