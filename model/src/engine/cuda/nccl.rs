//! NCCL between GPUs, over the engine's buffers.

use gauntlet_gpu::driver::{Driver, Nccl};

use super::Cuda;
use super::memory::{Buffer, Precision};
use crate::engine::collective::Collective;
use crate::error::Result;

impl<P: Precision> Collective<Cuda<Driver, P>> for Nccl {
    fn name(&self) -> String {
        format!("NCCL {}", self.version())
    }

    fn all_reduce(&mut self, members: &mut [Member<'_, '_, P>], len: usize) -> Result<()> {
        let at = addresses(members, len)?;
        // SAFETY: every buffer holds `len` floats of its device.
        Ok(unsafe { self.sum(&at, len) }?)
    }

    fn broadcast(&mut self, members: &mut [Member<'_, '_, P>], len: usize) -> Result<()> {
        let at = addresses(members, len)?;
        // SAFETY: as above.
        Ok(unsafe { self.spread(&at, len) }?)
    }
}

/// A GPU and its buffer.
type Member<'a, 'b, P> = (&'a Cuda<Driver, P>, &'b mut Buffer<Driver, f32>);

/// Where the buffers begin, once everything queued before was accepted.
fn addresses<'a, P: Precision>(
    members: &'a [Member<'_, '_, P>],
    len: usize,
) -> Result<Vec<(&'a Driver, u64)>> {
    let mut all = Vec::with_capacity(members.len());
    for (cuda, buf) in members {
        cuda.check()?;
        all.push((cuda.gpu(), buf.at(cuda.gpu(), 0, len)?));
    }
    Ok(all)
}
