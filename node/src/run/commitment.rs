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

/// A commitment as read; its signature holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Commitment {
    pub(crate) run: Digest,
    pub(crate) window: u64,
    pub(crate) hotkey: Hotkey,
    /// BLAKE3 of the object to come.
    pub(crate) content: Digest,
}

/// Reads a commitment; `None` for bytes that are none, or that its hotkey did not sign.
pub(crate) fn read(bytes: &[u8]) -> Option<Commitment> {
    let (signed, signature) = bytes.split_at_checked(SIGNED)?;
    let rest = signed.strip_prefix(&MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    let (run, rest) = rest.split_first_chunk::<32>()?;
    let (window, rest) = rest.split_first_chunk::<8>()?;
    let (hotkey, content) = rest.split_first_chunk::<32>()?;
    let hotkey = Hotkey(*hotkey);
    let content = Digest(content.try_into().ok()?);
    let signature = Signature(signature.try_into().ok()?);
    let window = u64::from_le_bytes(*window);
    verify(&hotkey, signed, &signature).then_some(Commitment { run: Digest(*run), window, hotkey, content })
}

/// The hash committed to; `None` for bytes that are no commitment of `hotkey` to `window` of `run`.
pub(crate) fn open(bytes: &[u8], run: &Digest, window: u64, hotkey: &Hotkey) -> Option<Digest> {
    let found = read(bytes)?;
    (found == Commitment { run: *run, window, hotkey: *hotkey, ..found }).then_some(found.content)
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
