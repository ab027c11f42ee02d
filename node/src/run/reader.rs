//! Reading what a peer put: bytes from a bucket to facts, with *unknown* kept apart from *failed* (PROTOCOL 7.1).

use gauntlet::submission::{Commitment, Header, Object, PutTime, Signed};
use gauntlet::{Digest, Hotkey};
use gauntlet_demo::Submission;
use gauntlet_demo::object::{self, KIND_DEMO};

use super::commitment;
use super::context::Run;
use crate::storage::{Fault, Storage};

/// An object that decodes, and what it is checked by.
pub(crate) struct Read {
    pub(crate) object: Object,
    /// Bytes and contents, where it decodes.
    pub(crate) decoded: Option<(Vec<u8>, Submission)>,
}

/// The commitment of `hotkey`, read at the deadline.
pub(crate) fn commitment(run: &Run, bucket: Option<&Storage>, window: u64, hotkey: &Hotkey) -> Commitment {
    let Some(bucket) = bucket else { return Commitment::Absent };
    match bucket.get(&run.keys.commitment(window, hotkey), commitment::LEN as u64) {
        // Bytes that are no commitment commit to nothing.
        Ok(bytes) => {
            commitment::open(&bytes, &run.id, window, hotkey).map_or(Commitment::Absent, Commitment::InTime)
        }
        Err(fault) => fault.unknown().map_or(Commitment::Absent, Commitment::Unknown),
    }
}

/// The object of `hotkey`, read after the reveal deadline.
pub(crate) fn object(run: &Run, bucket: Option<&Storage>, window: u64, hotkey: &Hotkey) -> Read {
    let none = |object| Read { object, decoded: None };
    let Some(bucket) = bucket else { return none(Object::Absent) };
    match bucket.get(&run.keys.submission(window, hotkey), run.max_object()) {
        Ok(bytes) => decode(run, bytes),
        Err(Fault::TooLarge { .. }) => none(Object::TooLarge),
        Err(fault) => none(fault.unknown().map_or(Object::Absent, Object::Unknown)),
    }
}

/// Bytes of an object to facts.
pub(crate) fn decode(run: &Run, bytes: Vec<u8>) -> Read {
    let none = |object| Read { object, decoded: None };
    let content = Digest::of(&bytes);
    let Ok((object, signature)) = object::parse(&bytes) else { return none(Object::Undecodable) };
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
        put: PutTime::InTime,
        run: Digest(header.run),
        window: header.window,
        hotkey: Hotkey(header.hotkey),
        signed,
        state_tag: Digest(header.state_tag),
        count: header.count,
    };
    Read { object: Object::Read(facts), decoded: Some((bytes, submission)) }
}
