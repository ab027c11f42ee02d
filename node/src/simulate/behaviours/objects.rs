//! Objects that are not what they should be.

use anyhow::Result;
use gauntlet::draw::Draw;

use super::{Act, Behaviour, Draft, Honest, tools};

/// Random bytes.
pub(super) struct Malformed;

impl Behaviour for Malformed {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let mut draw = Draw::new(tools::seed(act, "bytes"), "bytes");
        let object = (0..128).flat_map(|_| draw.bits().to_le_bytes()).collect();
        Ok(Some(Draft::new(object, None)))
    }
}

/// Serves the object it committed to to some readers, and another one to the rest.
pub(super) struct TwoFace;

impl Behaviour for TwoFace {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        Honest.draft(act)
    }

    fn reveal(&mut self, act: &mut Act<'_, '_>, draft: &Draft) -> Result<()> {
        act.peer.reveal(act.world, act.window, &draft.object)?;
        let noise = tools::normal(act, act.world.run.layout.total());
        let submission = tools::compress(act, &noise)?;
        let other = tools::seal(act, &submission, act.budget)?;
        let me = act.peer.hotkey();
        if let Some(bucket) = act.world.buckets.second(&me) {
            bucket.put(&act.world.run.keys.submission(act.window, &me), &other)?;
        }
        Ok(())
    }
}

/// Puts all its strength into the first chunk of every tensor, to own the signs there.
pub(super) struct Concentrate;

/// Binary orders by which the chosen chunks stand above the others.
const ORDERS: i16 = 12;

impl Behaviour for Concentrate {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let ids = act.peer.assigned(act.world, act.window, act.budget)?;
        let (submission, loss) = act.peer.train(act.world, &ids)?;
        let format = &act.world.run.format;
        let mut parts = tools::Parts::of(&submission);
        let mut chunk = 0;
        for tensor in 0..format.layout().tensors().len() {
            parts.raise(chunk, ORDERS);
            chunk += format.grid(tensor).map_or(0, |grid| grid.chunks());
        }
        let submission = parts.finish(format)?;
        let object = tools::seal(act, &submission, act.budget)?;
        Ok(Some(Draft::new(object, Some(loss))))
    }
}
