//! What behaviours are made of.

use std::ops::Range;
use std::sync::Arc;

use anyhow::Result;
use gauntlet::submission::{Commitment, Object};
use gauntlet::{Digest, Hotkey, draw::Draw};
use gauntlet_demo::submission::EMPTY;
use gauntlet_demo::{
    Aggregate, Format, MAX_PEERS, Momentum, StrengthCap, Submission, Subtract, Values, outer_step,
};
use gauntlet_model::engine::Backend;

use super::{Act, Draft};
use crate::run::reader::{self, Phase};

/// Another peer's submission, with the sequences it says it was made from.
pub(super) type Seen = (Hotkey, Submission, u32);

/// Trains on `ids` and seals what the momentum sends.
pub(super) fn train(act: &mut Act<'_, '_>, ids: &[u64]) -> Result<Draft> {
    let (submission, loss) = act.peer.train(act.world, ids)?;
    let count = u32::try_from(ids.len())?;
    Ok(Draft::new(seal(act, &submission, count)?, Some(loss)))
}

/// Mean gradient over `ids` at θ, and the mean loss.
pub(super) fn gradient(act: &mut Act<'_, '_>, ids: &[u64]) -> Result<(Vec<f32>, f64)> {
    let theta = Arc::clone(act.peer.follower.theta());
    let loss = act.world.compute.gradient(&act.world.run.corpus.train, &theta, ids)?;
    Ok((act.world.compute.host_gradient()?.to_vec(), loss))
}

/// Puts a gradient through the momentum and seals what it sends, as if it came from the whole budget.
pub(super) fn send_gradient(act: &mut Act<'_, '_>, grads: &[f32], loss: Option<f64>) -> Result<Draft> {
    act.world.compute.set_gradient(grads)?;
    let submission = act.peer.take_up(act.world)?;
    Ok(Draft::new(seal(act, &submission, act.budget)?, loss))
}

/// Signs a submission for this window, on this θ.
pub(super) fn seal(act: &Act<'_, '_>, submission: &Submission, count: u32) -> Result<Vec<u8>> {
    act.peer.seal(act.world, act.window, act.peer.follower.theta(), submission, count)
}

/// Sends the mean of what was seen, with or without one sequence of its own work.
pub(super) fn with_own(act: &mut Act<'_, '_>, seen: &[Seen], own: bool) -> Result<Option<Draft>> {
    if seen.is_empty() {
        return Ok(None);
    }
    let mut mean = mean(act, seen)?;
    let mut loss = None;
    if own {
        let ids = act.peer.assigned(act.world, act.window, 1)?;
        let (mut grads, own_loss) = gradient(act, &ids)?;
        normalise(&mut mean);
        normalise(&mut grads);
        mean.iter_mut().zip(grads).for_each(|(m, g)| *m += g);
        loss = Some(own_loss);
    }
    let submission = compress(act, &mean)?;
    let object = seal(act, &submission, act.budget)?;
    Ok(Some(Draft::new(object, loss)))
}

/// A digest of its own for each peer, window and purpose.
pub(super) fn seed(act: &Act<'_, '_>, purpose: &str) -> Digest {
    let mut hasher = blake3::Hasher::new_derive_key("gauntlet simulate v1 behaviour");
    hasher.update(&act.world.run.id.0).update(&act.peer.hotkey().0).update(&act.window.to_le_bytes());
    Digest(*hasher.update(purpose.as_bytes()).finalize().as_bytes())
}

/// Normal values (Box–Muller).
pub(super) fn normal(act: &Act<'_, '_>, n: usize) -> Vec<f32> {
    let mut draw = Draw::new(seed(act, "normal"), "normal");
    #[allow(clippy::cast_precision_loss)] // 53 bits
    let mut uniform = || ((draw.bits() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let mut values = Vec::with_capacity(n + 1);
    while values.len() < n {
        let radius = libm::sqrt(-2.0 * libm::log(uniform()));
        let angle = std::f64::consts::TAU * uniform();
        #[allow(clippy::cast_possible_truncation)] // noise
        values.extend([(radius * libm::cos(angle)) as f32, (radius * libm::sin(angle)) as f32]);
    }
    values.truncate(n);
    values
}

/// Commitments of other peers to this window that can be read now, by hotkey.
pub(super) fn commitments(act: &Act<'_, '_>) -> Result<Vec<(Hotkey, Digest)>> {
    let found = reader::commitments(act.world, &act.peer.hotkey(), others(act)?, act.window, Phase::ANY);
    let readable = |(hotkey, commitment): (Hotkey, Commitment)| match commitment {
        Commitment::InTime(digest) => Some((hotkey, digest)),
        _ => None,
    };
    Ok(found.into_iter().filter_map(readable).collect())
}

/// Whole objects of other peers for window `w` that can be read now, by hotkey, whenever they were put.
pub(super) fn objects(act: &Act<'_, '_>, w: u64) -> Result<Vec<Seen>> {
    let found = reader::objects(act.world, &act.peer.hotkey(), others(act)?, w, Phase::ANY);
    let readable = |(hotkey, read): (Hotkey, reader::Read)| match (read.object, read.decoded) {
        (Object::Read(header), Some((_, submission))) => Some((hotkey, submission, header.count)),
        _ => None,
    };
    Ok(found.into_iter().filter_map(readable).collect())
}

fn others(act: &Act<'_, '_>) -> Result<Vec<Hotkey>> {
    let me = act.peer.hotkey();
    let mut miners: Vec<Hotkey> =
        act.world.roster(act.window)?.miners().filter(|hotkey| *hotkey != me).collect();
    miners.sort();
    Ok(miners)
}

/// What a gather of these submissions, or of the first that it holds, would decode to.
pub(super) fn mean(act: &Act<'_, '_>, seen: &[Seen]) -> Result<Vec<f32>> {
    let run = act.world.run;
    let mut out = vec![0.0; run.layout.total()];
    act.world.compute.cpu().scope(|| {
        let mut aggregate = Aggregate::new(Arc::clone(&run.format), StrengthCap::Off);
        for (hotkey, submission, _) in seen.iter().take(MAX_PEERS) {
            aggregate.add(hotkey.0, submission)?;
        }
        outer_step::decode(&aggregate, &mut out)
    })?;
    Ok(out)
}

/// A submission of any values, without momentum.
pub(super) fn compress(act: &Act<'_, '_>, values: &[f32]) -> Result<Submission> {
    let format = Arc::clone(&act.world.run.format);
    let mut momentum = Momentum::new(format, 0.0, u64::MAX, Subtract::Always)?;
    Ok(act.world.compute.cpu().scope(|| momentum.step(values, 1.0))?)
}

/// Scales to norm 1; zeros stay.
pub(super) fn normalise(values: &mut [f32]) {
    let squares: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
    #[allow(clippy::cast_possible_truncation)] // a scale
    let scale = if squares > 0.0 { (1.0 / squares.sqrt()) as f32 } else { 0.0 };
    values.iter_mut().for_each(|v| *v *= scale);
}

/// Entries of each chunk, in the order of a submission.
pub(super) fn chunks(format: &Format) -> Vec<Range<usize>> {
    let mut chunks = Vec::with_capacity(format.chunks());
    let mut next = 0;
    for tensor in 0..format.layout().tensors().len() {
        let Some(grid) = format.grid(tensor) else { continue };
        let k = format.topk().min(grid.chunk_len());
        for _ in 0..grid.chunks() {
            chunks.push(next..next + k);
            next += k;
        }
    }
    chunks
}

/// A submission taken apart.
pub(super) struct Parts {
    exponents: Vec<i16>,
    indices: Vec<u16>,
    values: Values,
}

impl Parts {
    pub(super) fn of(submission: &Submission) -> Self {
        Self {
            exponents: submission.exponents().to_vec(),
            indices: submission.indices().to_vec(),
            values: submission.values().clone(),
        }
    }

    pub(super) fn empty(format: &Arc<Format>) -> Self {
        Self::of(&Submission::empty(Arc::clone(format)))
    }

    /// Puts a chunk of another submission in place.
    pub(super) fn take(&mut self, chunk: usize, entries: Range<usize>, from: &Submission) {
        self.exponents[chunk] = from.exponents()[chunk];
        self.indices[entries.clone()].copy_from_slice(&from.indices()[entries.clone()]);
        match (&mut self.values, from.values()) {
            (Values::Levels(mine), Values::Levels(theirs)) => {
                mine[entries.clone()].copy_from_slice(&theirs[entries]);
            }
            (Values::Exact(mine), Values::Exact(theirs)) => {
                mine[entries.clone()].copy_from_slice(&theirs[entries]);
            }
            _ => {}
        }
    }

    /// Makes a chunk stronger by binary orders.
    pub(super) fn raise(&mut self, chunk: usize, orders: i16) {
        let exponent = &mut self.exponents[chunk];
        if *exponent != EMPTY {
            // The wire holds the exponent in a byte.
            *exponent = exponent.saturating_add(orders).min(127);
        }
    }

    /// Keeps what `wanted` wants, by chunk and by place in the submission. Without a code for 0 a chunk goes whole or
    /// not at all.
    pub(super) fn keep(&mut self, chunks: &[Range<usize>], wanted: impl Fn(usize, usize) -> bool) {
        for (chunk, entries) in chunks.iter().enumerate() {
            let mut left = false;
            for entry in entries.clone() {
                match &mut self.values {
                    Values::Levels(levels) => {
                        levels[entry] = if wanted(chunk, entry) { levels[entry] } else { 0 };
                        left |= levels[entry] != 0;
                    }
                    Values::Exact(values) => {
                        values[entry] = if wanted(chunk, entry) { values[entry] } else { 0.0 };
                        left |= values[entry] != 0.0;
                    }
                }
            }
            if !left {
                self.exponents[chunk] = EMPTY;
                self.indices[entries.clone()].fill(0);
            }
        }
    }

    pub(super) fn finish(self, format: &Arc<Format>) -> Result<Submission> {
        Ok(Submission::new(Arc::clone(format), self.exponents, self.indices, self.values)?)
    }
}
