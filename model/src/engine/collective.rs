//! Sums over several devices that train one model together: each holds the whole of it and computes the gradient of its
//! share of a batch.
//!
//! Invariant: afterwards every member holds the same bits, and the same members with the same values give the same bits
//! again.

use super::backend::{Backend, View, ViewMut};
use crate::error::Result;

/// Elements that [`HostSum`] has on the host at a time.
const BLOCK: usize = 1 << 20;

/// Devices that exchange values. `members` are all of them, each with its buffer, in the order they were joined.
pub trait Collective<B: Backend>: Send {
    /// How it sums, in words.
    fn name(&self) -> String;

    /// Replaces the first `len` values of every buffer by their sum over the members.
    ///
    /// # Errors
    /// When a device or the way between them fails; what the buffers hold then is not known.
    fn all_reduce(&mut self, members: &mut [(&B, &mut B::Buf)], len: usize) -> Result<()>;

    /// Replaces the first `len` values of every buffer by those of the first member.
    ///
    /// # Errors
    /// As [`Collective::all_reduce`].
    fn broadcast(&mut self, members: &mut [(&B, &mut B::Buf)], len: usize) -> Result<()>;
}

/// Sums on the host, member after member: any devices of one process, at the host's speed.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostSum;

impl<B: Backend> Collective<B> for HostSum {
    fn name(&self) -> String {
        "the host".into()
    }

    fn all_reduce(&mut self, members: &mut [(&B, &mut B::Buf)], len: usize) -> Result<()> {
        through_host(members, len, |members, start, sum| {
            let mut values = vec![0.0; sum.len()];
            for (i, (backend, buf)) in members.iter().enumerate() {
                let from = View { buf: &**buf, start, len: sum.len() };
                if i == 0 {
                    backend.download(from, sum)?;
                    continue;
                }
                backend.download(from, &mut values)?;
                sum.iter_mut().zip(&values).for_each(|(sum, value)| *sum += value);
            }
            Ok(())
        })
    }

    fn broadcast(&mut self, members: &mut [(&B, &mut B::Buf)], len: usize) -> Result<()> {
        through_host(members, len, |members, start, values| {
            let Some((backend, buf)) = members.first() else { return Ok(()) };
            backend.download(View { buf: &**buf, start, len: values.len() }, values)
        })
    }
}

/// Block by block: `read` gives what every member shall hold from `start` on.
fn through_host<B: Backend>(
    members: &mut [(&B, &mut B::Buf)],
    len: usize,
    read: impl Fn(&[(&B, &mut B::Buf)], usize, &mut [f32]) -> Result<()>,
) -> Result<()> {
    let mut block = vec![0.0; BLOCK.min(len)];
    for start in (0..len).step_by(BLOCK) {
        let values = &mut block[..BLOCK.min(len - start)];
        read(members, start, values)?;
        for (backend, buf) in members.iter_mut() {
            backend.upload(values, ViewMut { buf: &mut **buf, start, len: values.len() })?;
        }
    }
    Ok(())
}
