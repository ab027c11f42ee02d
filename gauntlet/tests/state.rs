//! The stored state: old formats are read for ever, damage is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::network::{among_honest, hotkey};
use gauntlet::rating::Rating;
use gauntlet::state::{LAST_WINDOW, PeerState, STATE_VERSION, State, v1};
use gauntlet::{Digest, Error, Hotkey, Rules, replay};
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

/// A history as its stored form, which may be none that a round leaves.
fn history(bits: u32, len: u32) -> gauntlet::history::History {
    postcard::from_bytes(&postcard::to_allocvec(&(bits, len)).unwrap()).unwrap()
}

#[test]
fn values_that_would_overflow_a_round_are_refused() {
    let good = among_honest(Rules::default(), 1, 4, Vec::new()).run(20).state;
    type Spoil = fn(&mut PeerState);
    let spoils: [Spoil; 12] = [
        |p| p.first_seen = 20,
        |p| p.last_seen = Some(u64::MAX),
        |p| p.last_checked = Some(20),
        |p| p.last_evaluated = Some(20),
        |p| p.commitments = u64::MAX,
        |p| p.absent_streak = u64::MAX,
        |p| p.evaluations = u32::MAX,
        |p| p.positive = p.evaluations + 1,
        |p| p.misses = history(0, 33),
        |p| p.negatives = history(0b100, 2),
        |p| p.rating.sigma = f64::INFINITY,
        |p| p.sync = 1.5,
    ];
    for (i, spoil) in spoils.iter().enumerate() {
        let mut state = good.clone();
        spoil(state.peers.get_mut(&hotkey(2)).unwrap());
        assert!(
            matches!(State::from_bytes(&state.to_bytes().unwrap()), Err(Error::State { .. })),
            "value {i}"
        );
    }
    let mut far = good.clone();
    far.selection.as_mut().unwrap().window = 23;
    assert!(matches!(State::from_bytes(&far.to_bytes().unwrap()), Err(Error::State { .. })));
    let end = State { next_window: u64::MAX, ..good };
    assert!(matches!(State::from_bytes(&end.to_bytes().unwrap()), Err(Error::State { .. })));
}

#[test]
fn counters_at_their_end_stay_there() {
    let silent: common::network::Script = Box::new(|_, _| common::network::Act::Silent);
    let unreadable: common::network::Script =
        Box::new(|_, _| common::network::Act::Unknown(gauntlet::fast_check::UnknownCause::TimeOut));
    let network = among_honest(Rules::default(), 1, 4, vec![silent, unreadable]);
    let mut state = network.run(20).state;
    for peer in state.peers.values_mut() {
        (peer.commitments, peer.absent_streak) = (u64::MAX, u64::MAX);
        (peer.unknown_debt, peer.miss_streak, peer.negative_streak) = (u32::MAX, u32::MAX, u32::MAX);
        (peer.evaluations, peer.positive, peer.banned) = (u32::MAX, u32::MAX, u32::MAX);
        (peer.misses, peer.negatives) = (history(0, u32::MAX), history(0, u32::MAX));
    }
    let after = network.run_from(state, 20, 1).state;
    assert_eq!(after.peers[&hotkey(4)].absent_streak, u64::MAX);
    assert_eq!(after.peers[&hotkey(0)].commitments, u64::MAX);
}

#[test]
fn windows_end_where_the_keys_do() {
    let network = among_honest(Rules::default(), 1, 4, Vec::new());
    let mut facts = network.run(1).facts.remove(0);
    facts.losses.clear();
    facts.window.window = LAST_WINDOW;
    let last = replay(&network.rules, State::default(), &facts).unwrap().state;
    assert_eq!(State::from_bytes(&last.to_bytes().unwrap()), Ok(last));
    facts.window.window = LAST_WINDOW + 1;
    let error = Error::WindowLimit { window: LAST_WINDOW + 1, last: LAST_WINDOW };
    assert_eq!(replay(&network.rules, State::default(), &facts), Err(error));
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
            prop_assert_eq!(State::from_bytes(&state.to_bytes().unwrap()).unwrap(), state.clone());
            // What is taken can be judged on: the next round ends in a state that is taken too.
            let window = state.next_window.min(LAST_WINDOW - 1);
            let state = State { next_window: window, ..state };
            let next = among_honest(Rules::default(), 1, 4, Vec::new()).run_from(state, window, 1).state;
            prop_assert!(window == LAST_WINDOW - 1 || State::from_bytes(&next.to_bytes().unwrap()).is_ok());
        }
    }
}
