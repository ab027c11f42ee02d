//! Honest work whose strength is not where it should be.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

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
