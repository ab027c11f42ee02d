//! The signed object around a payload: who sends what for which window of which run (PROTOCOL 5).
//!
//! Little-endian: magic `GNTL`, protocol version u16, kind u8, run id 32, window u64, hotkey 32, count u32, state tag
//! 32, payload length u64; the payload; BLAKE3 of all before (32); sr25519 signature over that hash by the hotkey (64).
//! The signing context is Substrate's, so a Bittensor hotkey signs as it is. Nonces come from the key and the hash
//! alone: the same submission gives the same bytes.

use crate::error::{Error, Result};
use schnorrkel::{Keypair, PublicKey, Signature, context::attach_rng, signing_context};

/// Version of the formats in this crate.
pub const VERSION: u16 = 1;
/// Kind of a DeMo submission.
pub const KIND_DEMO: u8 = 1;
/// Kind of a dense gradient.
pub const KIND_DENSE: u8 = 2;
/// Bytes before the payload.
pub const HEADER: usize = 4 + 2 + 1 + 32 + 8 + 32 + 4 + 32 + 8;
/// Bytes after the payload.
pub const TRAILER: usize = 32 + 64;
const MAGIC: [u8; 4] = *b"GNTL";
const CONTEXT: &[u8] = b"substrate";

/// What an object says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// [`KIND_DEMO`] or [`KIND_DENSE`].
    pub kind: u8,
    /// BLAKE3 of the run's manifest.
    pub run: [u8; 32],
    /// Window it was made in.
    pub window: u64,
    /// Public key of its owner.
    pub hotkey: [u8; 32],
    /// Sequences trained on.
    pub count: u32,
    /// [`crate::state_tag`] of θ before the window.
    pub state_tag: [u8; 32],
}

/// An object whose lengths, hash and signature hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object<'a> {
    /// Its header.
    pub header: Header,
    /// The scheme's bytes; not yet looked at.
    pub payload: &'a [u8],
    /// BLAKE3 of everything before the trailer, as signed.
    pub hash: [u8; 32],
}

/// Writes and signs an object. `header.hotkey` is replaced by the key's.
pub fn seal(header: &Header, payload: &[u8], key: &Keypair) -> Vec<u8> {
    let header = Header { hotkey: key.public.to_bytes(), ..*header };
    seal_with(&header, payload, |hash| sign(key, hash))
}

/// Writes an object; `sign` makes the sr25519 signature of the hash in Substrate's context.
pub fn seal_with(header: &Header, payload: &[u8], sign: impl FnOnce(&[u8; 32]) -> [u8; 64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + payload.len() + TRAILER);
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.push(header.kind);
    out.extend(header.run);
    out.extend(header.window.to_le_bytes());
    out.extend(header.hotkey);
    out.extend(header.count.to_le_bytes());
    out.extend(header.state_tag);
    out.extend((payload.len() as u64).to_le_bytes());
    out.extend(payload);
    let hash = *blake3::hash(&out).as_bytes();
    out.extend(hash);
    out.extend(sign(&hash));
    out
}

/// Reads an object and checks everything that needs no context: lengths, magic, version, hash, signature.
pub fn open(bytes: &[u8]) -> Result<Object<'_>> {
    let (object, signature) = parse(bytes)?;
    verify(&object.header.hotkey, &object.hash, &signature)?;
    Ok(object)
}

/// As [`open`], with the signature not yet verified.
pub fn parse(bytes: &[u8]) -> Result<(Object<'_>, [u8; 64])> {
    let short = || Error::ObjectLength { needed: HEADER + TRAILER, found: bytes.len() };
    if bytes.len() < HEADER + TRAILER {
        return Err(short());
    }
    let (signed, trailer) = bytes.split_at(bytes.len() - TRAILER);
    let mut fields = Fields(signed);
    if fields.take::<4>().ok_or_else(short)? != MAGIC {
        return Err(Error::Magic);
    }
    let found = u16::from_le_bytes(fields.take().ok_or_else(short)?);
    if found != VERSION {
        return Err(Error::Version { found, supported: VERSION });
    }
    let header = Header {
        kind: u8::from_le_bytes(fields.take().ok_or_else(short)?),
        run: fields.take().ok_or_else(short)?,
        window: u64::from_le_bytes(fields.take().ok_or_else(short)?),
        hotkey: fields.take().ok_or_else(short)?,
        count: u32::from_le_bytes(fields.take().ok_or_else(short)?),
        state_tag: fields.take().ok_or_else(short)?,
    };
    let stated = u64::from_le_bytes(fields.take().ok_or_else(short)?);
    let payload = fields.0;
    if stated != payload.len() as u64 {
        return Err(Error::PayloadLength { stated, found: payload.len() as u64 });
    }
    let mut trailer = Fields(trailer);
    let hash: [u8; 32] = trailer.take().ok_or_else(short)?;
    let signature: [u8; 64] = trailer.take().ok_or_else(short)?;
    if blake3::hash(signed) != blake3::Hash::from_bytes(hash) {
        return Err(Error::Hash);
    }
    Ok((Object { header, payload, hash }, signature))
}

impl Header {
    /// Refuses an object of another kind, run, window or hotkey than the one asked for.
    pub fn check(&self, kind: u8, run: &[u8; 32], window: u64, hotkey: &[u8; 32]) -> Result<()> {
        if self.kind != kind {
            return Err(Error::Kind { found: self.kind, expected: kind });
        }
        if self.run != *run {
            return Err(Error::Run);
        }
        if self.window != window {
            return Err(Error::Window { found: self.window, expected: window });
        }
        if self.hotkey != *hotkey {
            return Err(Error::Hotkey);
        }
        Ok(())
    }
}

/// The bytes not yet read.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }
}

/// sr25519 signature of a hash in Substrate's context.
pub fn sign(key: &Keypair, hash: &[u8; 32]) -> [u8; 64] {
    key.sign(attach_rng(signing_context(CONTEXT).bytes(hash), NoRandomness)).to_bytes()
}

/// Refuses a hash that `hotkey` did not sign.
pub fn verify(hotkey: &[u8; 32], hash: &[u8; 32], signature: &[u8; 64]) -> Result<()> {
    let key = PublicKey::from_bytes(hotkey).map_err(|_| Error::PublicKey)?;
    let signature = Signature::from_bytes(signature).map_err(|_| Error::Signature)?;
    key.verify(signing_context(CONTEXT).bytes(hash), &signature).map_err(|_| Error::Signature)
}

/// Leaves a nonce to the key's secret nonce seed and the signed bytes, as ed25519 does.
struct NoRandomness;

impl rand_core::CryptoRng for NoRandomness {}

impl rand_core::RngCore for NoRandomness {
    fn next_u32(&mut self) -> u32 {
        0
    }

    fn next_u64(&mut self) -> u64 {
        0
    }

    fn fill_bytes(&mut self, dest: &mut [u8]) {
        dest.fill(0);
    }

    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> std::result::Result<(), rand_core::Error> {
        dest.fill(0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use schnorrkel::{ExpansionMode, MiniSecretKey};

    fn key() -> Keypair {
        MiniSecretKey::from_bytes(&[7; 32]).unwrap().expand_to_keypair(ExpansionMode::Ed25519)
    }

    fn header() -> Header {
        Header {
            kind: KIND_DEMO,
            run: [1; 32],
            window: 9,
            hotkey: key().public.to_bytes(),
            count: 16,
            state_tag: [2; 32],
        }
    }

    #[test]
    fn opens_what_was_sealed_and_always_writes_the_same_bytes() {
        let bytes = seal(&header(), b"payload", &key());
        assert_eq!(bytes.len(), HEADER + 7 + TRAILER);
        assert_eq!(bytes, seal(&header(), b"payload", &key()));
        let object = open(&bytes).unwrap();
        assert_eq!((object.header, object.payload), (header(), &b"payload"[..]));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_a_typed_error() {
        let bytes = seal(&header(), b"payload", &key());
        for len in 0..bytes.len() {
            assert!(matches!(
                open(&bytes[..len]),
                Err(Error::ObjectLength { .. } | Error::PayloadLength { .. })
            ));
        }
        for bit in 0..8 * bytes.len() {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let error = open(&bad).unwrap_err();
            let expected = match bit / 8 {
                0..4 => matches!(error, Error::Magic),
                4..6 => matches!(error, Error::Version { .. }),
                115..123 => matches!(error, Error::PayloadLength { .. }),
                n if n < bytes.len() - 64 => matches!(error, Error::Hash),
                _ => matches!(error, Error::Signature),
            };
            assert!(expected, "bit {bit}: {error}");
        }
    }

    #[test]
    fn a_repaired_hash_does_not_replace_the_signature() {
        let forged = seal_with(&header(), b"other", |_| sign(&key(), &[0; 32]));
        assert_eq!(open(&forged), Err(Error::Signature));
        let nobody = seal_with(&Header { hotkey: [0xff; 32], ..header() }, b"", |hash| sign(&key(), hash));
        assert_eq!(open(&nobody), Err(Error::PublicKey));
    }

    #[test]
    fn an_independent_implementation_signs_the_same() {
        // From tests/peers/sr25519.mjs. The key is that of Substrate's development account Alice.
        let (seed, public, signature): ([u8; 32], [u8; 32], [u8; 64]) = (
            bytes("e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a"),
            bytes("d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"),
            bytes(
                "a422b244132728bd4e1a27272d44541f6f3319a55b9beb8cba7d6cea45033b16\
                 49113a55ec86c6432ac52c547a3f4f8e8ed3efed3f91bdac08175a58ad8f8881",
            ),
        );
        let hash = std::array::from_fn(|i| i as u8);
        assert_eq!(verify(&public, &hash, &signature), Ok(()));
        let key = MiniSecretKey::from_bytes(&seed[..]).unwrap().expand_to_keypair(ExpansionMode::Ed25519);
        assert_eq!(key.public.to_bytes(), public);
        assert_eq!(sign(&key, &hash), signature);
    }

    /// Bytes from hexadecimal.
    fn bytes<const N: usize>(text: &str) -> [u8; N] {
        assert_eq!(text.len(), 2 * N);
        std::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
    }

    #[test]
    fn the_context_of_an_object_is_checked() {
        let header = header();
        let check = |kind, run, window, hotkey| header.check(kind, &[run; 32], window, &hotkey).unwrap_err();
        assert!(header.check(KIND_DEMO, &[1; 32], 9, &header.hotkey).is_ok());
        assert_eq!(check(KIND_DENSE, 1, 9, header.hotkey), Error::Kind { found: 1, expected: 2 });
        assert_eq!(check(KIND_DEMO, 0, 9, header.hotkey), Error::Run);
        assert_eq!(check(KIND_DEMO, 1, 8, header.hotkey), Error::Window { found: 9, expected: 8 });
        assert_eq!(check(KIND_DEMO, 1, 9, [0; 32]), Error::Hotkey);
    }
}
