//! `{hotkey}.values`: a few values of θ that every peer publishes at common positions, so that SyncScore can say how far
//! off a peer is whose state tag differs (PROTOCOL 7.2). It pays nothing by the paper's profile.
//!
//! Magic `GNTV`, version u16, run 32, window u64, hotkey 32, the values as f32, signature 64 over BLAKE3 of all before; all
//! little-endian. Positions follow from the run and the hash of the block that opened the window, so nobody could prepare
//! them.

use gauntlet::{Digest, Hotkey, Signature};

use super::identity::{Identity, verify};

const MAGIC: [u8; 4] = *b"GNTV";
const VERSION: u16 = 1;
const HEAD: usize = 4 + 2 + 32 + 8 + 32;
/// Values published: enough to say how far off a state is; whether it is off, the state tag says exactly.
const COUNT: usize = 32;
/// Bytes of the object.
pub(crate) const LEN: usize = HEAD + 4 * COUNT + 64;

/// Values of `theta` at the window's positions.
pub(crate) fn of(theta: &[f32], run: &Digest, opening: &Digest) -> Vec<f32> {
    let mut hasher = blake3::Hasher::new_derive_key("gauntlet v1 positions of published values");
    let mut positions = hasher.update(&run.0).update(&opening.0).finalize_xof();
    let mut word = [0; 8];
    let mut next = || {
        positions.fill(&mut word);
        // ⌊u·d / 2⁶⁴⌋, below d.
        let at = (u128::from(u64::from_le_bytes(word)) * theta.len() as u128) >> 64;
        usize::try_from(at).ok().and_then(|at| theta.get(at)).copied().unwrap_or_default()
    };
    (0..COUNT).map(|_| next()).collect()
}

/// The signed object.
pub(crate) fn seal(identity: &Identity, run: &Digest, window: u64, values: &[f32]) -> Vec<u8> {
    let mut bytes = head(run, window, &identity.hotkey());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let signature = identity.sign(&bytes);
    bytes.extend(signature.0);
    bytes
}

/// Published values as read; their signature holds.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Values {
    pub(crate) run: Digest,
    pub(crate) window: u64,
    pub(crate) hotkey: Hotkey,
    pub(crate) values: Vec<f32>,
}

/// Reads values; `None` for bytes that are none, that are not finite, or that their hotkey did not sign.
pub(crate) fn read(bytes: &[u8]) -> Option<Values> {
    if bytes.len() != LEN {
        return None;
    }
    let (signed, signature) = bytes.split_at_checked(LEN - 64)?;
    let rest = signed.strip_prefix(&MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    let (run, rest) = rest.split_first_chunk::<32>()?;
    let (window, rest) = rest.split_first_chunk::<8>()?;
    let (hotkey, values) = rest.split_first_chunk::<32>()?;
    let (window, hotkey) = (u64::from_le_bytes(*window), Hotkey(*hotkey));
    let signature = Signature(signature.try_into().ok()?);
    let values: Vec<f32> = values.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect();
    let good = values.iter().all(|value| value.is_finite()) && verify(&hotkey, signed, &signature);
    good.then_some(Values { run: Digest(*run), window, hotkey, values })
}

/// The values; `None` for bytes that are no values of `hotkey` for `window` of `run`.
pub(crate) fn open(bytes: &[u8], run: &Digest, window: u64, hotkey: &Hotkey) -> Option<Vec<f32>> {
    let found = read(bytes)?;
    ((found.run, found.window, found.hotkey) == (*run, window, *hotkey)).then_some(found.values)
}

fn head(run: &Digest, window: u64, hotkey: &Hotkey) -> Vec<u8> {
    [&MAGIC[..], &VERSION.to_le_bytes(), &run.0, &window.to_le_bytes(), &hotkey.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_belong_to_one_peer_window_and_run() {
        let (me, other) = (Identity::from_seed(&[1; 32]).unwrap(), Identity::from_seed(&[2; 32]).unwrap());
        let (run, block) = (Digest([3; 32]), Digest([4; 32]));
        let theta: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
        let values = of(&theta, &run, &block);
        assert_eq!(values, of(&theta, &run, &block));
        assert_ne!(values, of(&theta, &run, &run), "another block, other positions");
        assert!(values.iter().any(|v| *v > 9_000.0) && values.iter().any(|v| *v < 1_000.0));
        let bytes = seal(&me, &run, 5, &values);
        assert_eq!(open(&bytes, &run, 5, &me.hotkey()), Some(values));
        assert_eq!(open(&bytes, &run, 6, &me.hotkey()), None);
        assert_eq!(open(&bytes, &block, 5, &me.hotkey()), None);
        assert_eq!(open(&bytes, &run, 5, &other.hotkey()), None);
        for i in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[i] ^= 1;
            assert_eq!(open(&changed, &run, 5, &me.hotkey()), None, "byte {i}");
        }
        assert_eq!(open(&bytes[..LEN - 1], &run, 5, &me.hotkey()), None);
        let nan = seal(&me, &run, 5, &[f32::NAN; COUNT]);
        assert_eq!(open(&nan, &run, 5, &me.hotkey()), None);
        assert!(of(&[], &run, &block).iter().all(|v| *v == 0.0));
    }
}
