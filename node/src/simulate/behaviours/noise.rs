//! Honest work, spoilt.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// The honest gradient with noise of x times its root mean square.
pub(super) struct Noise(pub(super) f32);

impl Behaviour for Noise {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let ids = act.peer.assigned(act.world, act.window, act.budget)?;
        let (mut grads, loss) = tools::gradient(act, &ids)?;
        let noise = tools::normal(act, grads.len());
        add_noise(&mut grads, &noise, self.0);
        tools::send_gradient(act, &grads, Some(loss)).map(Some)
    }
}

/// Adds `noise`, of variance 1, at x times the root mean square of `grads`.
pub(super) fn add_noise(grads: &mut [f32], noise: &[f32], x: f32) {
    let squares: f64 = grads.iter().map(|g| f64::from(*g) * f64::from(*g)).sum();
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // a scale
    let scale = x * (squares / grads.len() as f64).sqrt() as f32;
    grads.iter_mut().zip(noise).for_each(|(g, n)| *g += scale * n);
}
