//! Hotkeys as people and Bittensor write them: SS58, base58 of (42 ‖ key ‖ first two bytes of
//! BLAKE2b-512("SS58PRE" ‖ 42 ‖ key)).

use blake2::{Blake2b512, Digest as _};
use gauntlet::Hotkey;

/// Address format "generic Substrate", which Bittensor uses.
const PREFIX: u8 = 42;

/// Text that is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AddressError {
    #[error("{0:?} is not an SS58 address: {1}; it looks like 5GrwvaEF5z…")]
    Form(String, &'static str),
    #[error("address {0} belongs to network {1}, not {PREFIX}")]
    Network(String, u8),
    #[error("address {0} has a typing error: its checksum is wrong")]
    Checksum(String),
}

/// The address of a hotkey.
pub(crate) fn encode(hotkey: &Hotkey) -> String {
    let body = [&[PREFIX], &hotkey.0[..]].concat();
    let sum = checksum(&body);
    bs58::encode([&body[..], &sum].concat()).into_string()
}

/// The hotkey of an address.
pub(crate) fn decode(address: &str) -> Result<Hotkey, AddressError> {
    let form = |why| AddressError::Form(address.chars().take(60).collect(), why);
    if address.len() > 60 {
        return Err(form("too long"));
    }
    let bytes = bs58::decode(address).into_vec().map_err(|_| form("not base58"))?;
    let bytes: [u8; 35] = bytes.try_into().map_err(|_| form("another length"))?;
    let [prefix, middle @ .., a, b] = bytes;
    if prefix != PREFIX {
        return Err(AddressError::Network(address.to_owned(), prefix));
    }
    if checksum(&bytes[..33]) != [a, b] {
        return Err(AddressError::Checksum(address.to_owned()));
    }
    Ok(Hotkey(middle))
}

fn checksum(body: &[u8]) -> [u8; 2] {
    let hash = Blake2b512::new().chain_update(b"SS58PRE").chain_update(body).finalize();
    [hash[0], hash[1]]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Substrate's development accounts, as `subkey inspect //Alice` and `//Bob` print them.
    const KNOWN: [(&str, &str); 2] = [
        (
            "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
            "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d",
        ),
        (
            "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty",
            "8eaf04151687736326c9fea17e25fc5287613693c912909cb226aa4794f26a48",
        ),
    ];

    #[test]
    fn known_addresses() {
        for (address, key) in KNOWN {
            let key = Hotkey::from_hex(key).unwrap();
            assert_eq!(encode(&key), address);
            assert_eq!(decode(address), Ok(key));
        }
        for n in 0..=255 {
            let key = Hotkey([n; 32]);
            assert_eq!(decode(&encode(&key)), Ok(key));
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let (alice, _) = KNOWN[0];
        for at in 0..alice.len() {
            let mut typed: Vec<char> = alice.chars().collect();
            typed[at] = if typed[at] == 'x' { 'y' } else { 'x' };
            let typed: String = typed.into_iter().collect();
            assert!(decode(&typed).is_err(), "{typed}");
        }
        // Polkadot's form of Alice.
        let polkadot = decode("15oF4uVJwmo4TdGW7VfQxNLavjCXviqxT9S1MgbjMNHr6Sp5");
        assert!(matches!(polkadot, Err(AddressError::Network(_, 0))));
        for bad in ["", "0OIl", "5Grw", &"1".repeat(59), &"5".repeat(10_000), "é"] {
            assert!(matches!(decode(bad), Err(AddressError::Form(..))), "{bad}");
        }
    }
}
