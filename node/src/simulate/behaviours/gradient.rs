//! Another gradient than the one of the assigned data.

use anyhow::Result;

use super::{Act, Behaviour, Draft, tools};

/// Computes one gradient and sends it again in every window.
#[derive(Default)]
pub(super) struct Idle(Option<Vec<f32>>);

impl Behaviour for Idle {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let grads = match &self.0 {
            Some(grads) => grads,
            None => {
                let ids = act.peer.assigned(act.world, act.window, act.budget)?;
                self.0.insert(tools::gradient(act, &ids)?.0)
            }
        };
        tools::send_gradient(act, grads, None).map(Some)
    }
}

/// Noise in place of a gradient.
pub(super) struct Random;

impl Behaviour for Random {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let noise = tools::normal(act, act.world.run.layout.total());
        tools::send_gradient(act, &noise, None).map(Some)
    }
}

/// Nothing at all, signed.
pub(super) struct Zero;

impl Behaviour for Zero {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        tools::send_gradient(act, &vec![0.0; act.world.run.layout.total()], None).map(Some)
    }
}

/// The honest gradient, turned around.
pub(super) struct SignFlip;

impl Behaviour for SignFlip {
    fn draft(&mut self, act: &mut Act<'_, '_>) -> Result<Option<Draft>> {
        let ids = act.peer.assigned(act.world, act.window, act.budget)?;
        let (mut grads, loss) = tools::gradient(act, &ids)?;
        grads.iter_mut().for_each(|g| *g = -*g);
        tools::send_gradient(act, &grads, Some(loss)).map(Some)
    }
}

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
