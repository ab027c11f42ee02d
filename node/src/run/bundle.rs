//! The bundle of a window: exactly the objects its record lists, in the record's order, as one file.
//!
//! Magic `GNTB`, version u16, number of objects u32, then each object behind its length u64; all little-endian. The
//! record holds BLAKE3 of the whole and of each object, so a bundle from anybody serves.

use gauntlet::Digest;
use gauntlet::record::{Accepted, Record};

const MAGIC: [u8; 4] = *b"GNTB";
const VERSION: u16 = 1;
const HEAD: usize = 4 + 2 + 4;

/// Bytes that no bundle of `objects` objects of at most `bytes` bytes exceeds.
pub(crate) fn limit(objects: usize, bytes: u64) -> u64 {
    HEAD as u64 + (objects as u64).saturating_mul(bytes.saturating_add(8))
}

/// Writes a bundle.
pub(crate) fn seal<'a>(objects: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(u32::try_from(objects.len()).unwrap_or(u32::MAX).to_le_bytes());
    for object in objects {
        bytes.extend((object.len() as u64).to_le_bytes());
        bytes.extend(object);
    }
    bytes
}

/// The objects in a bundle, unchecked; `None` for bytes that are no bundle.
pub(crate) fn read(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = bytes.strip_prefix(&MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    let count = u32::from_le_bytes(take(&mut rest, 4)?.try_into().ok()?);
    let mut objects = Vec::new();
    for _ in 0..count {
        let len = u64::from_le_bytes(take(&mut rest, 8)?.try_into().ok()?);
        objects.push(take(&mut rest, usize::try_from(len).ok()?)?);
    }
    rest.is_empty().then_some(objects)
}

/// The objects of `record`, each checked by its hash; `None` where the bytes are not that bundle.
pub(crate) fn open<'a>(bytes: &'a [u8], record: &Record) -> Option<Vec<&'a [u8]>> {
    if Digest::of(bytes) != record.bundle {
        return None;
    }
    let objects = read(bytes)?;
    let same = |(object, accepted): (&&[u8], &Accepted)| {
        object.len() as u64 == accepted.size && Digest::of(object) == accepted.content
    };
    let whole = objects.len() == record.accepted.len();
    (whole && objects.iter().zip(&record.accepted).all(same)).then_some(objects)
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(len)?;
    *rest = tail;
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gauntlet::Hotkey;
    use gauntlet::record::PROTOCOL_VERSION;
    use gauntlet::selection::Selection;

    fn record(bundle: &[u8], objects: &[&[u8]]) -> Record {
        let accepted = |(i, object): (usize, &&[u8])| Accepted {
            hotkey: Hotkey([i as u8; 32]),
            content: Digest::of(object),
            size: object.len() as u64,
        };
        Record {
            protocol: PROTOCOL_VERSION,
            run: Digest([0; 32]),
            window: 3,
            previous: Digest([0; 32]),
            state_before: Digest([0; 32]),
            accepted: objects.iter().enumerate().map(accepted).collect(),
            bundle: Digest::of(bundle),
            commitments: Vec::new(),
            selection: Selection::default(),
            published: 0,
            leader: Hotkey([0; 32]),
        }
    }

    #[test]
    fn what_is_sealed_opens_and_nothing_else_does() {
        let objects: [&[u8]; 3] = [b"one", b"", b"three"];
        let bytes = seal(objects.iter().copied());
        assert!(bytes.len() as u64 <= limit(3, 5));
        assert_eq!(open(&bytes, &record(&bytes, &objects)).unwrap(), objects);
        let empty = seal([].into_iter());
        assert_eq!(open(&empty, &record(&empty, &[])).unwrap(), Vec::<&[u8]>::new());
        assert_eq!(open(&bytes, &record(&bytes, &objects[..2])), None);
        assert_eq!(open(&bytes, &record(&bytes, &[b"one", b"x", b"three"])), None);
        for cut in 0..bytes.len() {
            assert_eq!(open(&bytes[..cut], &record(&bytes, &objects)), None);
            assert_eq!(open(&bytes[..cut], &record(&bytes[..cut], &objects)), None, "also with its hash");
        }
        let long = [&bytes[..], b"x"].concat();
        assert_eq!(open(&long, &record(&long, &objects)), None);
    }
}
