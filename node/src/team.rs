//! The devices besides the first that train one model: each holds the whole of it, takes its share of every batch on a
//! thread of its own, and makes the same step after gradients were summed over all.
//!
//! Invariant: all hold the same θ, bit for bit; the norm of the summed gradient, which every device computes, shows it.

use std::panic::resume_unwind;
use std::thread;

use anyhow::{Result, bail};
use gauntlet_model::LlamaConfig;
use gauntlet_model::engine::{AdamW, Batch, Collective, Engine, EngineOptions, LossSum, Write};

use crate::device::{Others, Place};

/// The devices besides the first.
pub(crate) struct Team<P: Place> {
    members: Vec<Member<P>>,
    collective: Box<dyn Collective<P>>,
}

/// A model on one device.
struct Member<P: Place> {
    engine: Engine<P>,
    theta: P::Buf,
    grads: P::Buf,
    /// AdamW's, where it is used.
    moments: Option<[P::Buf; 2]>,
}

/// What one device computes with.
pub(crate) struct Part<'a, P: Place> {
    pub(crate) engine: &'a mut Engine<P>,
    pub(crate) theta: &'a mut P::Buf,
    pub(crate) grads: &'a mut P::Buf,
    /// AdamW's, where it is used.
    pub(crate) moments: Option<&'a mut [P::Buf; 2]>,
}

impl<P: Place> Member<P> {
    fn new(place: P, config: &LlamaConfig, options: EngineOptions, adamw: bool) -> Result<Self> {
        let engine = Engine::new(place, config, options)?;
        let (theta, grads) = (engine.alloc_params()?, engine.alloc_params()?);
        let moments = if adamw { Some([engine.alloc_params()?, engine.alloc_params()?]) } else { None };
        Ok(Self { engine, theta, grads, moments })
    }

    fn part(&mut self) -> Part<'_, P> {
        let Self { engine, theta, grads, moments } = self;
        Part { engine, theta, grads, moments: moments.as_mut() }
    }
}

impl<P: Place> Team<P> {
    /// Members that begin where the first device stands.
    ///
    /// # Errors
    /// When memory is short, or the devices cannot exchange values.
    pub(crate) fn new(others: Others<P>, options: EngineOptions, first: Part<'_, P>) -> Result<Self> {
        let (config, adamw) = (first.engine.config().clone(), first.moments.is_some());
        let member = |place| Member::new(place, &config, options, adamw);
        let members = others.places.into_iter().map(member).collect::<Result<_>>()?;
        let mut team = Self { members, collective: others.collective };
        let (place, len) = (first.engine.backend(), first.engine.layout().total());
        team.spread((place, first.theta), len)?;
        for (i, buf) in first.moments.into_iter().flatten().enumerate() {
            let mut all = vec![(place, buf)];
            for Member { engine, moments, .. } in &mut team.members {
                let place = engine.backend();
                all.extend(moments.as_mut().and_then(|both| both.get_mut(i)).map(|buf| (place, buf)));
            }
            team.collective.broadcast(&mut all, len)?;
        }
        Ok(team)
    }

    /// How many devices there are with the first.
    pub(crate) fn devices(&self) -> usize {
        1 + self.members.len()
    }

    /// The members' devices and how all sum, in words.
    pub(crate) fn name(&self) -> String {
        let names = self.members.iter().map(|member| member.engine.backend().name());
        format!("{}; sums by {}", names.collect::<Vec<_>>().join("; "), self.collective.name())
    }

    /// Forward and backward of a batch, of which every device takes an even share of the sequences, in order. Each has
    /// the gradient of its own share afterwards.
    ///
    /// # Errors
    /// As [`Engine::loss_and_grad`].
    pub(crate) fn loss_and_grad(
        &mut self,
        first: Part<'_, P>,
        batch: Batch<'_>,
        (scale, write): (f32, Write),
    ) -> Result<LossSum> {
        let rows = batch.batch / self.devices();
        let len = rows * batch.seq;
        let share = |i: usize| i * len..(i + 1) * len;
        let losses = self.each(first, |i, Part { engine, theta, grads, .. }| {
            let tokens = batch.tokens.get(share(i)).unwrap_or_default();
            let targets = batch.targets.get(share(i)).unwrap_or_default();
            let part = Batch { tokens, targets, batch: rows, seq: batch.seq };
            Ok(engine.loss_and_grad(theta, grads, part, scale, write)?)
        })?;
        let mut sum = LossSum::default();
        losses.into_iter().for_each(|loss| sum += loss);
        Ok(sum)
    }

    /// Replaces the gradient of every device by their sum.
    ///
    /// # Errors
    /// When the devices cannot exchange values.
    pub(crate) fn sum(&mut self, first: Part<'_, P>) -> Result<()> {
        let len = first.engine.layout().total();
        let mut all = vec![(first.engine.backend(), first.grads)];
        all.extend(self.members.iter_mut().map(|m| (m.engine.backend(), &mut m.grads)));
        Ok(self.collective.all_reduce(&mut all, len)?)
    }

    /// The same step on every device; gives the norm of the gradient.
    ///
    /// # Errors
    /// When a device fails, or they do not hold the same sum.
    pub(crate) fn adamw(&mut self, first: Part<'_, P>, step: AdamW, clip: Option<f32>) -> Result<f64> {
        let norms = self.each(first, |_, Part { engine, theta, grads, moments }| {
            let Some([m, v]) = moments else { bail!("a device has no moments for AdamW") };
            Ok(engine.adamw(step, clip, grads, theta, (m, v))?)
        })?;
        let norm = norms.first().copied().unwrap_or(f64::NAN);
        // NaN is refused by the caller, as on one device.
        if !norm.is_nan() && norms.iter().any(|other| other.to_bits() != norm.to_bits()) {
            bail!(
                "the devices hold different sums of the gradient, of norms {norms:?}: do not resume; report this"
            );
        }
        Ok(norm)
    }

    /// Gives every device the first's θ of `len` values.
    ///
    /// # Errors
    /// When the devices cannot exchange values.
    pub(crate) fn spread(&mut self, first: (&P, &mut P::Buf), len: usize) -> Result<()> {
        let mut all = vec![first];
        all.extend(self.members.iter_mut().map(|m| (m.engine.backend(), &mut m.theta)));
        Ok(self.collective.broadcast(&mut all, len)?)
    }

    /// Does `work` on every device at once, and gives what came of it in the devices' order.
    fn each<T: Send>(
        &mut self,
        first: Part<'_, P>,
        work: impl Fn(usize, Part<'_, P>) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let work = &work;
        thread::scope(|scope| {
            let mut running = Vec::new();
            for (member, i) in self.members.iter_mut().zip(1..) {
                running.push(scope.spawn(move || work(i, member.part())));
            }
            let mut done = vec![work(0, first)];
            done.extend(
                running.into_iter().map(|one| one.join().unwrap_or_else(|panic| resume_unwind(panic))),
            );
            done.into_iter().collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauntlet_model::engine::cpu::{Cpu, Path};
    use gauntlet_model::engine::{Backend, HostSum, Mode, View};
    use gauntlet_model::{Layout, init, preset};

    const SEQ: usize = 16;
    const BATCH: usize = 6;

    fn cpu() -> Cpu {
        Cpu::new(1, Path::Best).unwrap()
    }

    struct First {
        engine: Engine<Cpu>,
        theta: <Cpu as Backend>::Buf,
        grads: <Cpu as Backend>::Buf,
        moments: [<Cpu as Backend>::Buf; 2],
    }

    impl First {
        fn new(rows: usize) -> Self {
            let config = LlamaConfig { n_layers: 1, ..preset("byte-1m").unwrap() };
            let options = options(rows);
            let engine = Engine::new(cpu(), &config, options).unwrap();
            let mut theta = engine.alloc_params().unwrap();
            init::init(&Layout::new(&config), 5, &mut theta);
            let [grads, m, v] = [(); 3].map(|()| engine.alloc_params().unwrap());
            Self { engine, theta, grads, moments: [m, v] }
        }

        fn part(&mut self) -> Part<'_, Cpu> {
            let Self { engine, theta, grads, moments } = self;
            Part { engine, theta, grads, moments: Some(moments) }
        }
    }

    fn options(rows: usize) -> EngineOptions {
        EngineOptions { batch: rows, seq: SEQ, mode: Mode::Train }
    }

    fn ids(step: u32) -> Vec<u32> {
        (0..=u32::try_from(BATCH * SEQ).unwrap()).map(|i| (i * i + 31 * step) % 200).collect()
    }

    fn adamw(step: u64) -> AdamW {
        AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, step, grad_scale: 1.0 }
    }

    /// Losses, norms and θ after three steps of two accumulated batches on `devices` devices.
    fn train(devices: usize) -> (Vec<f64>, Vec<f64>, Vec<Vec<f32>>) {
        let mut first = First::new(BATCH / devices);
        let places = (1..devices).map(|_| cpu()).collect();
        let others = Others { places, collective: Box::new(HostSum) };
        let mut team = Team::new(others, options(BATCH / devices), first.part()).unwrap();
        assert_eq!(team.devices(), devices);
        let (mut losses, mut norms) = (Vec::new(), Vec::new());
        for step in 1..=3 {
            for (i, write) in [Write::Set, Write::Add].into_iter().enumerate() {
                let ids = ids(u32::try_from(2 * step + i).unwrap());
                let (tokens, targets) = (&ids[..BATCH * SEQ], &ids[1..]);
                let batch = Batch { tokens, targets, batch: BATCH, seq: SEQ };
                let scale = 1.0 / (2 * BATCH * SEQ) as f32;
                losses.push(team.loss_and_grad(first.part(), batch, (scale, write)).unwrap().mean());
            }
            team.sum(first.part()).unwrap();
            norms.push(team.adamw(first.part(), adamw(step as u64), Some(1.0)).unwrap());
        }
        let mut all = vec![first.theta.to_vec()];
        all.extend(team.members.iter().map(|member| member.theta.to_vec()));
        (losses, norms, all)
    }

    #[test]
    fn devices_that_share_batches_make_the_steps_of_one() {
        let (losses, norms, alone) = train(1);
        for devices in [2, 3] {
            let (shared_losses, shared_norms, all) = train(devices);
            assert_eq!(all.len(), devices);
            assert!(all.iter().all(|theta| *theta == all[0]), "every device holds the same bits");
            let pairs = losses.iter().zip(&shared_losses).chain(norms.iter().zip(&shared_norms));
            for (one, several) in pairs {
                assert!((one / several - 1.0).abs() < 1e-5, "{one} and {several}");
            }
            // Sums of another order differ in their last bits, and AdamW's first steps have the size of the rate.
            let close = all[0].iter().zip(&alone[0]).filter(|(a, b)| (**a - **b).abs() < 1e-5).count();
            assert!(close * 1000 > alone[0].len() * 995, "{close} of {}", alone[0].len());
            assert!(all[0] == train(devices).2[0], "the same devices give the same bits again");
        }
    }

    #[test]
    fn members_begin_where_the_first_stands_and_follow_it() {
        let mut first = First::new(2);
        first.moments[1].fill(0.5);
        let others = Others { places: vec![cpu()], collective: Box::new(HostSum) };
        let mut team = Team::new(others, options(2), first.part()).unwrap();
        let member = &team.members[0];
        assert!(member.theta == first.theta && member.moments.as_ref().unwrap()[1] == first.moments[1]);
        first.theta.fill(0.25);
        let len = first.theta.len();
        team.spread((first.engine.backend(), &mut first.theta), len).unwrap();
        let mut seen = vec![0.0; len];
        let theta = View { buf: &team.members[0].theta, start: 0, len };
        team.members[0].engine.backend().download(theta, &mut seen).unwrap();
        assert!(seen.iter().all(|value| *value == 0.25));
    }

    #[test]
    fn devices_that_do_not_agree_stop_the_run() {
        let mut first = First::new(2);
        let others = Others { places: vec![cpu()], collective: Box::new(HostSum) };
        let mut team = Team::new(others, options(2), first.part()).unwrap();
        first.grads.fill(1.0);
        let refused = team.adamw(first.part(), adamw(1), None).unwrap_err().to_string();
        assert!(refused.contains("different sums"), "{refused}");
    }
}
