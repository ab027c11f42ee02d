//! Checkpoints of a run: any validator publishes them, nobody has to trust it (PROTOCOL 9).
//!
//! `checkpoints/w…/` holds safetensors and a manifest with the BLAKE3 of each. A joiner takes only a θ whose hash stands in
//! a record that an anchored record leads back to; it reads all records from the beginning, which are small, and so
//! knows the number of steps and the gather sets without believing anyone.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use gauntlet::record::SignedRecord;
use gauntlet::record::chain::RecordChain;
use gauntlet::record::succession;
use gauntlet::{Digest, Hotkey};
use gauntlet_model::weights;
use serde::{Deserialize, Serialize};

use super::World;
use super::compute::upload;
use super::context::Run;
use super::follower::Follower;
use super::identity::verify;
use super::records::{Proofs, Standing, anchored, named};
use super::theta::{Shared, Theta};
use crate::storage::Storage;

/// Name of the manifest under a checkpoint's key.
const MANIFEST: &str = "manifest.json";
/// A manifest names a few files.
const MANIFEST_BYTES: u64 = 1 << 20;

/// Files of a checkpoint at most.
const MOST_FILES: usize = 1000;

/// What a checkpoint holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) run: Digest,
    /// The window θ belongs to: its record comes next.
    pub(crate) window: u64,
    pub(crate) theta: Digest,
    pub(crate) files: Vec<Part>,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) size: u64,
    pub(crate) hash: Digest,
}

/// Reads a manifest; `None` for bytes that are none.
pub(crate) fn read(bytes: &[u8]) -> Option<Manifest> {
    serde_json::from_slice(bytes).ok()
}

/// Publishes θ of `follower` in `bucket`; the manifest last, so that it names only what is there.
pub(crate) fn publish(world: &World<'_>, follower: &Follower, bucket: &Storage) -> Result<()> {
    let folder = tempfile::tempdir().context("no temporary folder for a checkpoint")?;
    let (run, window) = (world.run, follower.window());
    weights::write(folder.path(), &run.layout, &follower.theta().values, weights::SHARD_BYTES)?;
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder.path())? {
        let path = entry?.path();
        let name = path
            .file_name()
            .and_then(|n| n.to_str())
            .context("a file of the weights has no name")?
            .to_owned();
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let key = run.keys.checkpoint(window, &name);
        bucket.put(&key, &bytes).with_context(|| format!("cannot put {key}"))?;
        files.push(Part { name, size: bytes.len() as u64, hash: Digest::of(&bytes) });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let manifest = Manifest { run: run.id, window, theta: follower.theta().hash, files };
    let bytes = serde_json::to_vec_pretty(&manifest)?;
    let key = run.keys.checkpoint(window, MANIFEST);
    bucket.put(&key, &bytes).with_context(|| format!("cannot put {key}"))
}

/// Takes back the checkpoint of `window`; one that is not there is no error.
pub(crate) fn withdraw(run: &Run, window: u64, bucket: &Storage) -> Result<()> {
    let key = run.keys.checkpoint(window, MANIFEST);
    let bytes = match bucket.get(&key, MANIFEST_BYTES) {
        Ok(bytes) => bytes,
        Err(fault) if fault.unknown().is_some() => return Err(fault.into()),
        Err(_) => return Ok(()),
    };
    let Some(manifest) = read(&bytes) else { return Ok(()) };
    let files: Vec<String> =
        manifest.files.iter().map(|part| run.keys.checkpoint(window, &part.name)).collect();
    // The manifest last: what is left of a deletion that broke off can still be found.
    bucket.delete(&files)?;
    Ok(bucket.delete(&[key])?)
}

/// A node at the newest checkpoint that an anchor vouches for; `None` where there is none.
pub(crate) fn join(world: &World<'_>, me: Hotkey, shared: Shared) -> Result<Option<Follower>> {
    let mut barred = RecordChain::new(world.run.id, 0);
    Proofs::default().bar(world, &mut [&mut barred])?;
    let anchors = anchored(world, barred.barred(), 0)?;
    for (window, record) in anchors.into_iter().rev() {
        let Some(records) = chain_to(world, &me, window, record)? else { continue };
        if let Some(joined) = join_at(world, me, &shared, &records)? {
            return Ok(Some(joined));
        }
    }
    Ok(None)
}

/// A node at the newest checkpoint among `records`.
fn join_at(
    world: &World<'_>,
    me: Hotkey,
    shared: &Shared,
    records: &[SignedRecord],
) -> Result<Option<Follower>> {
    let every = world.run.manifest.window.checkpoint_every;
    let windows = (0..records.len() as u64).rev().filter(|w| *w > 0 && w.is_multiple_of(every));
    for window in windows {
        // Most stake first: who has next to none may keep a joiner waiting.
        for holder in succession::order(&world.stakes(window)?, &BTreeMap::new(), window) {
            let Some(bucket) = world.buckets.of(&me, &holder) else { continue };
            if let Some(theta) = download(world, &bucket, window, records)? {
                let Ok(chain) = extend(world, &records[..usize::try_from(window)?]) else { continue };
                return Ok(Some(Follower::at(me, chain, Arc::new(theta), shared.clone())));
            }
        }
    }
    Ok(None)
}

/// All records from window 0 to the one with hash `wanted`, linked by their hashes.
fn chain_to(
    world: &World<'_>,
    me: &Hotkey,
    last: u64,
    mut wanted: Digest,
) -> Result<Option<Vec<SignedRecord>>> {
    let mut records = Vec::new();
    for window in (0..=last).rev() {
        let Some(signed) = named(world, me, window, wanted)? else { return Ok(None) };
        wanted = signed.record.previous;
        records.push(signed);
    }
    records.reverse();
    Ok((wanted == world.run.id).then_some(records))
}

/// The chain of records that are already known to be the run's.
fn extend(world: &World<'_>, records: &[SignedRecord]) -> Result<RecordChain> {
    let mut chain = RecordChain::new(world.run.id, 0);
    Proofs::default().bar(world, &mut [&mut chain])?;
    let limits = world.run.record_limits();
    for signed in records {
        let standing = Standing::new(world, &chain, signed.record.window)?;
        chain.extend(signed, &standing.here(world, signed.record.state_before)?, &limits, &verify)?;
    }
    Ok(chain)
}

/// θ before `window` from one bucket; `None` where it is not there, or is not that θ.
fn download(
    world: &World<'_>,
    bucket: &Storage,
    window: u64,
    records: &[SignedRecord],
) -> Result<Option<Theta>> {
    let run = world.run;
    let Some(next) = usize::try_from(window).ok().and_then(|w| records.get(w)) else { return Ok(None) };
    let Ok(bytes) = bucket.get(&run.keys.checkpoint(window, MANIFEST), MANIFEST_BYTES) else {
        return Ok(None);
    };
    let Some(manifest) = read(&bytes) else { return Ok(None) };
    let room = 8 * run.layout.total() as u64 + (1 << 20);
    if manifest.files.len() > MOST_FILES
        || manifest.run != run.id
        || manifest.window != window
        || manifest.theta != next.record.state_before
        || manifest.files.iter().map(|part| part.size).fold(0, u64::saturating_add) > room
    {
        return Ok(None);
    }
    let folder = tempfile::tempdir().context("no temporary folder for a checkpoint")?;
    for part in &manifest.files {
        let Ok(bytes) = bucket.get(&run.keys.checkpoint(window, &part.name), part.size) else {
            return Ok(None);
        };
        let plain =
            std::path::Path::new(&part.name).file_name().is_some_and(|name| name == part.name.as_str());
        if Digest::of(&bytes) != part.hash || !plain {
            return Ok(None);
        }
        std::fs::write(folder.path().join(&part.name), bytes).context("cannot keep a checkpoint's file")?;
    }
    let Ok(values) = weights::load(folder.path(), &run.layout) else { return Ok(None) };
    let applied = |signed: &&SignedRecord| signed.record.accepted.len() >= run.demo.min_gather;
    let steps = records.iter().take(usize::try_from(window)?).filter(applied).count() as u64;
    let theta = Theta::new(run, upload(world.compute.cpu(), &values)?, steps);
    Ok((theta.hash == manifest.theta).then_some(theta))
}
