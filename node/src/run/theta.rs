//! θ of a window and what leads to it, shared by all nodes of a process that agree.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use gauntlet::submission::{Object, PutTime};
use gauntlet::{Digest, Hotkey};
use gauntlet_demo::Submission;
use gauntlet_model::engine::Backend;
use gauntlet_model::engine::cpu::{Buf, Cpu};
use gauntlet_model::{hash::theta_hash, init};

use super::compute::Compute;
use super::context::Run;
use super::reader;

/// Results of outer steps kept for others that make the same one.
const KEPT: usize = 4;
/// Objects kept: those of the last few windows.
const OBJECTS: usize = 256;

/// θ and how it came about.
pub(crate) struct Theta {
    pub(crate) values: Buf,
    /// θ hash (PROTOCOL 3).
    pub(crate) hash: Digest,
    /// Outer steps applied.
    pub(crate) steps: u64,
}

impl Theta {
    /// The initial weights of a run.
    pub(crate) fn initial(run: &Run, cpu: &Cpu) -> Result<Self> {
        let mut values = cpu.alloc(run.layout.total())?;
        init::init(&run.layout, run.manifest.model.seed, &mut values);
        Ok(Self::new(run, values, 0))
    }

    /// Takes values as they are.
    pub(crate) fn new(run: &Run, values: Buf, steps: u64) -> Self {
        let hash = Digest(*theta_hash(&run.layout, &values).as_bytes());
        Self { values, hash, steps }
    }
}

/// What nodes of one process need not do twice: a node that diverges gets its own.
#[derive(Clone, Default)]
pub(crate) struct Shared {
    steps: Arc<Mutex<VecDeque<Step>>>,
    objects: Arc<Mutex<VecDeque<(Digest, Decoded)>>>,
}

/// What an object says and, where it decodes, its submission.
pub(crate) type Decoded = (Object, Option<Arc<Submission>>);

struct Step {
    before: (Digest, u64),
    accepted: Vec<Digest>,
    after: Arc<Theta>,
}

impl Shared {
    /// Reads an object once, whoever asks.
    pub(crate) fn decode(&self, run: &Run, bytes: &[u8]) -> Decoded {
        let content = Digest::of(bytes);
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, decoded)) = objects.iter().find(|(known, _)| *known == content) {
            return decoded.clone();
        }
        // A record decided that it came in time.
        let read = reader::decode(run, bytes.to_vec(), PutTime::InTime);
        let decoded = (read.object, read.decoded.map(|(_, submission)| Arc::new(submission)));
        objects.push_back((content, decoded.clone()));
        if objects.len() > OBJECTS {
            objects.pop_front();
        }
        decoded
    }

    /// θ after the outer step over `accepted` (each with its object's hash), from `before`.
    pub(crate) fn apply(
        &self,
        run: &Run,
        compute: &Compute,
        before: &Arc<Theta>,
        accepted: &[(Hotkey, Digest, Arc<Submission>)],
    ) -> Result<Arc<Theta>> {
        let contents: Vec<Digest> = accepted.iter().map(|(_, content, _)| *content).collect();
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        // The number of steps decides the rate, and the hash does not cover it.
        let place = (before.hash, before.steps);
        let same = |s: &&Step| s.before == place && s.accepted == contents;
        if let Some(step) = steps.iter().find(same) {
            return Ok(Arc::clone(&step.after));
        }
        let listed: Vec<(Hotkey, &Submission)> =
            accepted.iter().map(|(key, _, sent)| (*key, &**sent)).collect();
        let after = Arc::new(compute.outer_step(run, before, &listed)?);
        steps.push_back(Step { before: place, accepted: contents, after: Arc::clone(&after) });
        if steps.len() > KEPT {
            steps.pop_front();
        }
        Ok(after)
    }
}
