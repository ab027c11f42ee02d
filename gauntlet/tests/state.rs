//! The stored state: old formats are read for ever, damage is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::network::{among_honest, hotkey};
use gauntlet::rating::Rating;
use gauntlet::state::{PeerState, STATE_VERSION, State, v1};
use gauntlet::{Digest, Error, Hotkey, Rules};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A state of version 1, assembled byte by byte from that layout and not by this code: two peers, one of them never
/// seen. Never regenerate it.
const V1: &[u8] = include_bytes!("fixtures/state_v1.bin");

fn v1_state() -> v1::State {
    let seasoned = v1::Peer {
        first_seen: 3,
        last_seen: Some(1_000),
        last_checked: Some(999),
        last_evaluated: Some(997),
        submissions: 990,
        evaluations: 301,
        positive: 280,
        unknown_debt: 1,
        proof: 0.8125,
        mu: 31.25,
        sigma: 6.5,
    };
    let silent = v1::Peer {
        first_seen: 900,
        last_seen: None,
        last_checked: None,
        last_evaluated: None,
        submissions: 0,
        evaluations: 0,
        positive: 0,
        unknown_debt: 0,
        proof: 0.0,
        mu: 25.0,
        sigma: 25.0 / 3.0,
    };
    let peers = BTreeMap::from([(Hotkey([0x11; 32]), seasoned), (Hotkey([0xee; 32]), silent)]);
    v1::State { next_window: 1_001, peers }
}

#[test]
fn version_1_is_read() {
    let state = State::from_bytes(V1).unwrap();
    assert_eq!(state, State::from(v1_state()));
    let rules = Rules::default();
    let peer = &state.peers[&Hotkey([0x11; 32])];
    assert_eq!((state.next_window, peer.evaluations, peer.proof), (1_001, 301, 0.8125));
    assert_eq!(peer.rating, Rating { mu: 31.25, sigma: 6.5 });
    assert_eq!(
        (peer.sync, peer.banned, peer.red_card),
        (1.0, 0, false),
        "what version 1 did not know is neutral"
    );
    assert_eq!(state.peers[&Hotkey([0xee; 32])], PeerState::new(&rules.rating, 900));
}

#[test]
fn a_migrated_state_goes_on() {
    let network = among_honest(Rules::default(), 1, 4, Vec::new());
    let state = State::from_bytes(V1).unwrap();
    let history = network.run_from(state.clone(), 1_001, 5);
    assert_eq!(history.state.next_window, 1_006);
    assert_eq!(history.state.peers[&Hotkey([0x11; 32])], state.peers[&Hotkey([0x11; 32])]);
    let bytes = history.state.to_bytes().unwrap();
    assert_eq!(bytes[4..6], STATE_VERSION.to_le_bytes(), "written in the version of today");
    assert_eq!(State::from_bytes(&bytes).unwrap(), history.state);
}

#[test]
fn damage_and_the_future_are_refused() {
    let state = among_honest(Rules::default(), 1, 4, Vec::new()).run(20).state;
    let bytes = state.to_bytes().unwrap();
    for at in [0, 4, 40, bytes.len() - 1] {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(matches!(State::from_bytes(&bad), Err(Error::State { .. })), "byte {at}");
    }
    assert!(State::from_bytes(&bytes[..bytes.len() - 1]).is_err());
    let mut later = bytes[..bytes.len() - 32].to_vec();
    later[4] = 3;
    later.extend(Digest::of(&later).0);
    assert_eq!(State::from_bytes(&later), Err(Error::StateVersion { version: 3, known: STATE_VERSION }));
}

#[test]
fn impossible_values_are_refused() {
    let mut state = among_honest(Rules::default(), 1, 4, Vec::new()).run(20).state;
    for mu in [f64::NAN, f64::NEG_INFINITY, 1e300, -1e300] {
        state.peers.get_mut(&hotkey(2)).unwrap().rating.mu = mu;
        assert!(matches!(State::from_bytes(&state.to_bytes().unwrap()), Err(Error::State { .. })), "μ {mu}");
    }
}

fn sealed(version: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [&b"GNTS"[..], &version.to_le_bytes(), payload].concat();
    bytes.extend(Digest::of(&bytes).0);
    bytes
}

#[test]
fn what_follows_a_state_is_refused() {
    for bytes in [V1.to_vec(), State::default().to_bytes().unwrap()] {
        let (version, payload) = (u16::from_le_bytes([bytes[4], bytes[5]]), &bytes[6..bytes.len() - 32]);
        assert_eq!(sealed(version, payload), bytes);
        let longer = [payload, &[0]].concat();
        assert!(matches!(State::from_bytes(&sealed(version, &longer)), Err(Error::State { .. })));
    }
}

#[test]
fn a_length_that_the_bytes_do_not_hold_is_refused() {
    // next_window 0, then a map of 2⁶⁴ − 1 peers.
    let payload = [&[0][..], &[0xff; 9], &[0x01]].concat();
    for version in [1, STATE_VERSION] {
        assert!(matches!(State::from_bytes(&sealed(version, &payload)), Err(Error::State { .. })));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Behind a right magic, version and hash, so that it is the decoder that judges.
    #[test]
    fn any_payload_gives_a_state_or_an_error(
        version in 1..=STATE_VERSION, payload in prop::collection::vec(any::<u8>(), 0..300)
    ) {
        if let Ok(state) = State::from_bytes(&sealed(version, &payload)) {
            prop_assert_eq!(State::from_bytes(&state.to_bytes().unwrap()).unwrap(), state);
        }
    }

    #[test]
    fn a_spoiled_payload_gives_a_state_or_an_error(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)
    ) {
        let good = among_honest(Rules::default(), 1, 4, Vec::new()).run(10).state.to_bytes().unwrap();
        let mut payload = good[6..good.len() - 32].to_vec();
        for (at, byte) in edits {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Ok(state) = State::from_bytes(&sealed(STATE_VERSION, &payload)) {
            prop_assert_eq!(State::from_bytes(&state.to_bytes().unwrap()).unwrap(), state);
        }
    }
}
