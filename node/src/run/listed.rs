//! The bytes of what a record lists, wherever they can be had: from their owners, from any validator's bundle (PROTOCOL 6.0).
//! All are named by hash, so it makes no difference where they come from.

use anyhow::Result;
use gauntlet::record::SignedRecord;
use gauntlet::{Digest, Hotkey};

use super::{World, bundle};
use crate::storage::{Found, Heard, Patience, Storage, Wanted};

/// Exactly the bytes that a record lists, in its order; else the owners of those that nobody has.
///
/// Owners are asked at once. Where one has not got its object, or keeps us waiting, bundles are tried beside them, the
/// leader's first: a peer that takes connections and never answers holds nobody up whom a bundle can serve.
pub(super) fn fetch(
    world: &World<'_>,
    me: &Hotkey,
    signed: &SignedRecord,
) -> Result<Result<Vec<Vec<u8>>, Vec<Hotkey>>> {
    let (record, keys) = (&signed.record, &world.run.keys);
    let w = record.window;
    let (mut wanted, mut places) = (Vec::new(), Vec::new());
    for (place, accepted) in record.accepted.iter().enumerate() {
        if let Some(bucket) = world.buckets.of(me, &accepted.hotkey) {
            wanted.push((bucket, keys.submission(w, &accepted.hotkey), accepted.size));
            places.push(place);
        }
    }
    let instead = bundles(world, me, signed)?;
    let mut found: Vec<Option<Vec<u8>>> = vec![None; record.accepted.len()];
    let hear = |at: usize, heard: Found| {
        let Ok(heard) = heard else { return Heard::Bad };
        let Some(place) = places.get(at) else {
            let Some(objects) = bundle::open(&heard.bytes, record) else { return Heard::Bad };
            found = objects.into_iter().map(|object| Some(object.to_vec())).collect();
            return Heard::Enough;
        };
        let named = record.accepted.get(*place).map(|accepted| accepted.content);
        if named != Some(Digest::of(&heard.bytes)) {
            return Heard::Bad;
        }
        if let Some(found) = found.get_mut(*place) {
            *found = Some(heard.bytes);
        }
        if found.iter().all(Option::is_some) { Heard::Enough } else { Heard::Good }
    };
    if !record.accepted.is_empty() {
        let deadline =
            Patience::default().deadline(bundle::limit(record.accepted.len(), world.run.max_object()));
        // What cannot be asked for is missing.
        let _ = Storage::fetch_either(&wanted, &instead, deadline, hear);
    }
    let missing = record.accepted.iter().zip(&found).filter(|(_, bytes)| bytes.is_none());
    let missing: Vec<Hotkey> = missing.map(|(accepted, _)| accepted.hotkey).collect();
    Ok(if missing.is_empty() { Ok(found.into_iter().flatten().collect()) } else { Err(missing) })
}

/// Where bundles may lie: at the leader's, then at the others'.
fn bundles(world: &World<'_>, me: &Hotkey, signed: &SignedRecord) -> Result<Vec<Wanted>> {
    let record = &signed.record;
    let limit = bundle::limit(record.accepted.len(), world.run.max_object());
    let holders = world.stakes(record.window)?.into_keys().filter(|holder| *holder != record.leader);
    let wanted =
        |holder: Hotkey| Some((world.buckets.of(me, &holder)?, world.run.keys.bundle(record.window), limit));
    Ok(std::iter::once(record.leader).chain(holders).filter_map(wanted).collect())
}
