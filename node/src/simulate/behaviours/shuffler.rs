//! Others' work of the window before, put together anew.

use anyhow::Result;
use gauntlet::draw::Draw;

use super::{Act, Behaviour, Draft, tools};

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
