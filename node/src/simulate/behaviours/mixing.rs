//! Others' work of the window before, which everybody can read, sent as this window's.

use anyhow::Result;
use gauntlet::draw::Draw;

use super::{Act, Behaviour, Draft, tools};

/// The mean of all others' objects it can see, with or without one sequence of its own work.
pub(super) struct Mixer {
    pub(super) own: bool,
}

impl Behaviour for Mixer {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let Some(before) = act.window.checked_sub(1) else { return Ok(None) };
        let seen = tools::objects(act, before)?;
        with_own(act, &seen, self.own)
    }
}

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
        with_own(act, &seen, self.own)
    }
}

fn with_own(act: &mut Act<'_, '_>, seen: &[tools::Seen], own: bool) -> Result<Option<Draft>> {
    if seen.is_empty() {
        return Ok(None);
    }
    let mut mean = tools::mean(act, seen)?;
    let mut loss = None;
    if own {
        let ids = act.peer.assigned(act.world, act.window, 1)?;
        let (mut grads, own_loss) = tools::gradient(act, &ids)?;
        tools::normalise(&mut mean);
        tools::normalise(&mut grads);
        mean.iter_mut().zip(grads).for_each(|(m, g)| *m += g);
        loss = Some(own_loss);
    }
    let submission = tools::compress(act, &mean)?;
    let object = tools::seal(act, &submission, act.budget)?;
    Ok(Some(Draft::new(object, loss)))
}

/// Chunks of different peers.
pub(super) struct Shuffler;

impl Behaviour for Shuffler {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let Some(before) = act.window.checked_sub(1) else { return Ok(None) };
        let seen = tools::objects(act, before)?;
        if seen.is_empty() {
            return Ok(None);
        }
        let mut draw = Draw::new(tools::seed(act, "chunks"), "chunks");
        let chunks = tools::chunks(&act.world.run.format);
        let mut parts = tools::Parts::empty(&act.world.run.format);
        for (chunk, entries) in chunks.into_iter().enumerate() {
            let from = &seen[usize::try_from(draw.below(seen.len() as u64))?].1;
            parts.take(chunk, entries, from);
        }
        let submission = parts.finish(&act.world.run.format)?;
        let object = tools::seal(act, &submission, act.budget)?;
        Ok(Some(Draft::new(object, None)))
    }
}
