//! A node's signing key.

use anyhow::{Result, anyhow};
use gauntlet::{Hotkey, Signature};
use gauntlet_demo::object;
use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey};

/// A hotkey with its secret.
#[derive(Clone)]
pub(crate) struct Identity {
    keypair: Keypair,
    hotkey: Hotkey,
}

impl Identity {
    /// The key that follows from 32 secret bytes, as a Substrate `sr25519` seed.
    pub(crate) fn from_seed(seed: &[u8; 32]) -> Result<Self> {
        let secret = MiniSecretKey::from_bytes(seed).map_err(|e| anyhow!("secret key: {e}"))?;
        let keypair = secret.expand_to_keypair(ExpansionMode::Ed25519);
        let hotkey = Hotkey(keypair.public.to_bytes());
        Ok(Self { keypair, hotkey })
    }

    /// The public key.
    pub(crate) fn hotkey(&self) -> Hotkey {
        self.hotkey
    }

    /// For sealing submissions.
    pub(crate) fn keypair(&self) -> &Keypair {
        &self.keypair
    }

    /// Signs BLAKE3(`message`).
    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        Signature(object::sign(&self.keypair, blake3::hash(message).as_bytes()))
    }
}

/// The secret stays out of logs.
impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.hotkey)
    }
}

/// Whether `signature` is the signer's over BLAKE3(`message`).
pub(crate) fn verify(signer: &Hotkey, message: &[u8], signature: &Signature) -> bool {
    object::verify(&signer.0, blake3::hash(message).as_bytes(), &signature.0).is_ok()
}
