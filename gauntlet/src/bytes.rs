//! Fixed byte strings that name things: hotkeys, digests, signatures.
//!
//! Text form: lower-case hex without prefix (the node shows SS58 to people). Binary form: the bare bytes, no length.
//! Order is the order of the bytes, so every `BTreeMap` keyed by them is walked alike on every machine.

use crate::Error;
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;

macro_rules! bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// Number of bytes.
            pub const LEN: usize = $len;

            /// Reads the lower- or upper-case hex form. Errors: [`Error::Hex`] for a wrong length or digit.
            pub fn from_hex(text: &str) -> Result<Self, Error> {
                let mut bytes = [0; $len];
                hex_into(text, &mut bytes).ok_or_else(|| Error::Hex { len: $len, text: text.to_owned() })?;
                Ok(Self(bytes))
            }
        }

        impl Ord for $name {
            /// The order of the bytes. The first eight decide nearly always, as one number: maps compare keys a lot.
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                head(&self.0).cmp(&head(&other.0)).then_with(|| self.0.cmp(&other.0))
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    return serializer.collect_str(self);
                }
                let mut tuple = serializer.serialize_tuple($len)?;
                self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
                tuple.end()
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
                    return Self::from_hex(&text).map_err(D::Error::custom);
                }
                deserializer.deserialize_tuple($len, ByteVisitor::<$len>).map(Self)
            }
        }
    };
}

bytes! {
    /// A node's signing key; all state is keyed by it, never by uid (R§6.7).
    Hotkey, 32
}
bytes! {
    /// A BLAKE3 hash: of an object, a record, a state, a block.
    Digest, 32
}
bytes! {
    /// A signature (sr25519 in the node); this crate only carries it.
    Signature, 64
}

impl Digest {
    /// BLAKE3 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).into())
    }
}

struct ByteVisitor<const N: usize>;

impl<'de, const N: usize> Visitor<'de> for ByteVisitor<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; N], A::Error> {
        let mut bytes = [0; N];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(i, &self))?;
        }
        Ok(bytes)
    }
}

fn head(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |head| u64::from_be_bytes(*head))
}

fn hex_into(text: &str, out: &mut [u8]) -> Option<()> {
    let text = text.as_bytes();
    if text.len() != 2 * out.len() {
        return None;
    }
    for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_binary_forms_come_back() {
        let key = Hotkey(std::array::from_fn(|i| u8::try_from(i * 7 % 256).unwrap()));
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, format!("\"{key}\""));
        assert_eq!(serde_json::from_str::<Hotkey>(&json).unwrap(), key);
        let binary = postcard::to_allocvec(&Signature([9; 64])).unwrap();
        assert_eq!(binary, vec![9; 64]);
        assert_eq!(postcard::from_bytes::<Signature>(&binary).unwrap(), Signature([9; 64]));
    }

    #[test]
    fn order_is_that_of_the_bytes() {
        for (a, b) in [(0, 0), (0, 1), (7, 8), (8, 7), (31, 30)] {
            let key = |at: usize, value| {
                let mut bytes = [9; 32];
                bytes[at] = value;
                bytes
            };
            let (x, y) = (key(a, 200), key(b, 3));
            assert_eq!(Hotkey(x).cmp(&Hotkey(y)), x.cmp(&y));
        }
    }

    #[test]
    fn bad_hex_is_refused() {
        for text in ["", "00", &"0".repeat(63), &"g".repeat(64), &"é".repeat(32)] {
            assert!(Hotkey::from_hex(text).is_err(), "{text}");
        }
    }
}
