//! `{hotkey}.commit`: the signed hash of the object its owner is about to reveal (PROTOCOL 8).
//!
//! Magic `GNTC`, version u16 little-endian, run 32, window u64 little-endian, hotkey 32, BLAKE3 of the object 32, signature
//! 64 over BLAKE3 of all before.

use gauntlet::{Digest, Hotkey, Signature};

use super::identity::{Identity, verify};

const MAGIC: [u8; 4] = *b"GNTC";
const VERSION: u16 = 1;
const SIGNED: usize = 4 + 2 + 32 + 8 + 32 + 32;
/// Bytes of a commitment.
pub(crate) const LEN: usize = SIGNED + 64;

/// The commitment of `identity` to the object with hash `content`.
pub(crate) fn seal(identity: &Identity, run: &Digest, window: u64, content: &Digest) -> Vec<u8> {
    let mut bytes = head(run, window, &identity.hotkey());
    bytes.extend(content.0);
    let signature = identity.sign(&bytes);
    bytes.extend(signature.0);
    bytes
}

/// The hash committed to; `None` for bytes that are no commitment of `hotkey` to `window` of `run`.
pub(crate) fn open(bytes: &[u8], run: &Digest, window: u64, hotkey: &Hotkey) -> Option<Digest> {
    if bytes.len() != LEN {
        return None;
    }
    let (signed, signature) = bytes.split_at(SIGNED);
    let content = signed.strip_prefix(head(run, window, hotkey).as_slice())?;
    let signature = Signature(signature.try_into().ok()?);
    verify(hotkey, signed, &signature).then_some(Digest(content.try_into().ok()?))
}

fn head(run: &Digest, window: u64, hotkey: &Hotkey) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), &run.0, &window.to_le_bytes(), &hotkey.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owners_for_this_window_and_run_opens() {
        let (me, other) = (Identity::from_seed(&[1; 32]).unwrap(), Identity::from_seed(&[2; 32]).unwrap());
        let (run, content) = (Digest([3; 32]), Digest([4; 32]));
        let bytes = seal(&me, &run, 7, &content);
        let key = me.hotkey();
        assert_eq!(open(&bytes, &run, 7, &key), Some(content));
        assert_eq!(open(&bytes, &run, 8, &key), None);
        assert_eq!(open(&bytes, &content, 7, &key), None);
        assert_eq!(open(&bytes, &run, 7, &other.hotkey()), None);
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            assert_eq!(open(&changed, &run, 7, &key), None, "byte {i}");
            assert_eq!(open(&bytes[..i], &run, 7, &key), None);
        }
    }
}
