//! Reading what a peer put: bytes from a bucket to facts, with *unknown* kept apart from *failed* (PROTOCOL 7.1).

use std::collections::BTreeMap;
use std::time::Instant;

use gauntlet::submission::{Commitment, Header, Object, PutTime, Signed, committed_in_time, put_time};
use gauntlet::{Digest, Hotkey};
use gauntlet_demo::object::{self, KIND_DEMO};
use gauntlet_demo::{Error, Submission};

use super::context::Run;
use super::{World, commitment};
use crate::storage::{Fault, Found, Patience, Storage};

/// An object that decodes, and what it is checked by.
pub(crate) struct Read {
    pub(crate) object: Object,
    /// Bytes and contents, where it decodes.
    pub(crate) decoded: Option<(Vec<u8>, Submission)>,
}

/// A part of a window in which something is put, in milliseconds of chain time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Phase {
    pub(crate) opens_ms: u64,
    pub(crate) length_ms: u64,
}

impl Phase {
    /// Any time will do.
    pub(crate) const ANY: Self = Self { opens_ms: 0, length_ms: u64::MAX };

    fn of(self, modified: u64) -> PutTime {
        put_time(modified, self.opens_ms, self.length_ms)
    }

    fn is_over(self, modified: u64) -> bool {
        !committed_in_time(modified, self.opens_ms, self.length_ms)
    }
}

/// Reads one object of each owner, many at a time, all before one deadline; an owner without a bucket has none.
pub(crate) fn fetch_all(
    world: &World<'_>,
    me: &Hotkey,
    owners: impl IntoIterator<Item = Hotkey>,
    key: impl Fn(&Hotkey) -> String,
    limit: u64,
    deadline: Instant,
) -> BTreeMap<Hotkey, Found> {
    let mut found = BTreeMap::new();
    let (mut asked, mut wanted) = (Vec::new(), Vec::new());
    for owner in owners {
        match world.buckets.of(me, &owner) {
            Some(bucket) => {
                wanted.push((bucket, key(&owner), limit));
                asked.push(owner);
            }
            None => {
                found.insert(owner, Err(Fault::Absent));
            }
        }
    }
    let results = Storage::fetch_many(&wanted, deadline);
    found.extend(asked.into_iter().zip(results));
    found
}

/// Commitments of `peers` to window `w`, read at the deadline or later, which makes no difference: what is stamped with the
/// second of the deadline is late, for objects can be read in it. One that is early harms nobody but its owner.
pub(crate) fn commitments(
    world: &World<'_>,
    me: &Hotkey,
    peers: impl IntoIterator<Item = Hotkey>,
    w: u64,
    phase: Phase,
) -> BTreeMap<Hotkey, Commitment> {
    let run = world.run;
    let limit = commitment::LEN as u64;
    let deadline = Patience::default().deadline(limit);
    let found = fetch_all(world, me, peers, |hotkey| run.keys.commitment(w, hotkey), limit, deadline);
    let judge = |(hotkey, found): (Hotkey, Found)| {
        let commitment = match found {
            Ok(found) => match commitment::open(&found.bytes, &run.id, w, &hotkey) {
                Some(_) if phase.is_over(found.meta.last_modified) => Commitment::Late,
                Some(content) => Commitment::InTime(content),
                // Bytes that are no commitment commit to nothing.
                None => Commitment::Absent,
            },
            Err(fault) => fault.unknown().map_or(Commitment::Absent, Commitment::Unknown),
        };
        (hotkey, commitment)
    };
    found.into_iter().map(judge).collect()
}

/// Objects of `peers` for window `w`, put in `phase`.
pub(crate) fn objects(
    world: &World<'_>,
    me: &Hotkey,
    peers: impl IntoIterator<Item = Hotkey>,
    w: u64,
    phase: Phase,
) -> BTreeMap<Hotkey, Read> {
    let run = world.run;
    let limit = run.max_object();
    let deadline = Patience::default().deadline(limit);
    let found = fetch_all(world, me, peers, |hotkey| run.keys.submission(w, hotkey), limit, deadline);
    let read = |(hotkey, found): (Hotkey, Found)| {
        let read = match found {
            Ok(found) => decode(run, found.bytes, phase.of(found.meta.last_modified)),
            Err(fault) => Read { object: Object::from(&fault), decoded: None },
        };
        (hotkey, read)
    };
    found.into_iter().map(read).collect()
}

/// Bytes of an object to facts.
pub(crate) fn decode(run: &Run, bytes: Vec<u8>, put: PutTime) -> Read {
    let none = |object| Read { object, decoded: None };
    let content = Digest::of(&bytes);
    let (object, signature) = match object::parse(&bytes) {
        Ok(parsed) => parsed,
        Err(Error::Version { .. }) => return none(Object::OtherVersion),
        Err(_) => return none(Object::Undecodable),
    };
    let (header, payload) = (object.header, object.payload);
    let signed = match object::verify(&header.hotkey, &object.hash, &signature) {
        Ok(()) => Signed::Valid,
        Err(_) => Signed::Invalid,
    };
    if header.kind != KIND_DEMO {
        return none(Object::Undecodable);
    }
    let Ok(submission) = Submission::decode(&run.format, payload) else { return none(Object::Undecodable) };
    let facts = Header {
        content,
        size: bytes.len() as u64,
        put,
        run: Digest(header.run),
        window: header.window,
        hotkey: Hotkey(header.hotkey),
        signed,
        state_tag: Digest(header.state_tag),
        count: header.count,
    };
    Read { object: Object::Read(facts), decoded: Some((bytes, submission)) }
}
