use super::*;
use gauntlet::Digest;

/// A short life of a ledger; gives all its block hashes.
fn life(seed: u64, stake: u64) -> Vec<Digest> {
    let (mut ledger, height) = simulated(&LedgerRules::default(), seed);
    ledger.register(key(1), key(1)).unwrap();
    pass(&height, 3);
    ledger.add_stake(key(1), stake).unwrap();
    pass(&height, 30);
    assert_eq!(ledger.head().unwrap().number, 33);
    (0..=33).map(|n| ledger.block(n).unwrap().hash).collect()
}

#[test]
fn a_simulated_chain_is_a_function_of_seed_and_calls() {
    let (first, again, other_seed, other_call) = (life(1, 5), life(1, 5), life(2, 5), life(1, 6));
    assert_eq!(first, again);
    assert!(first.iter().zip(&other_seed).all(|(a, b)| a != b));
    assert_eq!(first[..4], other_call[..4]);
    assert!(first[4..].iter().zip(&other_call[4..]).all(|(a, b)| a != b), "the call is in block 4");
    let distinct: std::collections::BTreeSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), first.len());
}

#[test]
fn hashes_do_not_depend_on_who_looks_when() {
    let (often, height) = simulated(&LedgerRules::default(), 4);
    for _ in 0..50 {
        pass(&height, 1);
        often.head().unwrap();
    }
    let (once, height) = simulated(&LedgerRules::default(), 4);
    pass(&height, 50);
    assert_eq!(often.head().unwrap(), once.head().unwrap());
    assert_eq!(often.metagraph().unwrap(), once.metagraph().unwrap());
}

#[test]
fn calls_show_when_their_block_is_sealed() {
    let (mut ledger, height) = simulated(&LedgerRules::default(), 1);
    pass(&height, 9);
    let anchor = Anchor { window: 4, record: Digest([7; 32]) };
    ledger.register(key(1), key(2)).unwrap();
    ledger.publish_bucket(key(1), "file:/tmp/one").unwrap();
    ledger.anchor(key(1), anchor).unwrap();
    ledger.anchor(key(1), Anchor { record: Digest([8; 32]), ..anchor }).unwrap();
    ledger.report_equivocation(key(1), b"proof").unwrap();
    assert!(ledger.metagraph().unwrap().neurons.is_empty());
    assert!(ledger.anchors(0, 9).unwrap().is_empty() && ledger.equivocations(0).unwrap().is_empty());
    pass(&height, 1);
    let graph = ledger.metagraph().unwrap();
    assert_eq!((graph.block, graph.neurons[0].registered_at), (10, 10));
    assert_eq!(graph.neuron(&key(1)).unwrap().bucket.as_deref(), Some("file:/tmp/one"));
    assert_eq!(graph.neuron(&key(9)), None);
    assert_eq!(ledger.anchors(4, 4).unwrap(), [(10, key(1), anchor)], "its first of the window");
    assert!(ledger.anchors(5, 9).unwrap().is_empty() && ledger.anchors(0, 3).unwrap().is_empty());
    assert_eq!(ledger.equivocations(0).unwrap(), [(10, key(1), b"proof".to_vec())]);
}

#[test]
fn stake_may_come_before_registration() {
    let (mut ledger, height) = simulated(&LedgerRules::default(), 1);
    ledger.add_stake(key(1), 5).unwrap();
    ledger.add_stake(key(1), 6).unwrap();
    ledger.register(key(1), key(1)).unwrap();
    assert!(ledger.add_stake(key(1), u64::MAX).unwrap_err().to_string().contains("amount"));
    pass(&height, 1);
    assert_eq!(ledger.metagraph().unwrap().neurons[0].stake, 11);
}

#[test]
fn who_took_part_is_known_for_every_block() {
    let (mut ledger, height) = simulated(&LedgerRules::default(), 1);
    ledger.register(key(1), key(1)).unwrap();
    ledger.add_stake(key(1), 5).unwrap();
    pass(&height, 3);
    ledger.register(key(2), key(2)).unwrap();
    assert!(matches!(ledger.roster(4), Err(ChainError::NoBlock { number: 4, head: 3 })));
    pass(&height, 60);
    ledger.add_stake(key(1), 6).unwrap();
    ledger.add_stake(key(2), 1).unwrap();
    pass(&height, 1);
    let members = |block| {
        let members = ledger.roster(block).unwrap().members;
        members.into_iter().map(|m| (m.uid, m.hotkey, m.stake)).collect::<Vec<_>>()
    };
    assert_eq!(members(0), []);
    for block in [1, 3] {
        assert_eq!(members(block), [(0, key(1), 5)]);
    }
    for block in [4, 63] {
        assert_eq!(members(block), [(0, key(1), 5), (1, key(2), 0)]);
    }
    assert_eq!(members(64), [(0, key(1), 11), (1, key(2), 1)]);
    let roster = ledger.roster(63).unwrap();
    assert_eq!(roster.stakes().into_iter().collect::<Vec<_>>(), [(key(1), 5)]);
    assert_eq!(roster.miners().collect::<Vec<_>>(), [key(2)]);
    assert_eq!(roster.hotkeys().len(), 2);
}

#[test]
fn a_refused_call_leaves_nothing() {
    let (mut ledger, height) = simulated(&LedgerRules::default(), 1);
    let anchor = Anchor { window: 1, record: Digest([1; 32]) };
    for refused in [
        ledger.anchor(key(1), anchor),
        ledger.publish_bucket(key(1), "s3://x"),
        ledger.report_equivocation(key(1), b"p"),
        ledger.set_weights(key(1), &[0], &[1], 0),
    ] {
        assert!(matches!(refused, Err(ChainError::Refused { .. })), "{refused:?}");
    }
    ledger.register(key(1), key(1)).unwrap();
    let long = "x".repeat(513);
    for (field, refused) in [
        ("bucket", ledger.publish_bucket(key(1), &long)),
        ("bucket", ledger.publish_bucket(key(1), "a\nb")),
        ("proof", ledger.report_equivocation(key(1), &vec![0; (1 << 18) + 160 * 256 + 1])),
        ("window", ledger.anchor(key(1), Anchor { window: u64::MAX, ..anchor })),
        ("until", ledger.claim(key(1), [1; 16], u64::MAX)),
    ] {
        assert!(refused.unwrap_err().to_string().starts_with(field), "{field}");
    }
    pass(&height, 1);
    assert!(ledger.anchors(0, 9).unwrap().is_empty());
}

#[test]
fn blocks_that_are_not_there_are_said_to_be() {
    let (ledger, height) = simulated(&LedgerRules::default(), 1);
    assert!(matches!(ledger.block(1), Err(ChainError::NoBlock { number: 1, head: 0 })));
    pass(&height, 1);
    assert_eq!(ledger.block(1).unwrap().time_ms, 1_000);
    pass(&height, 1 << 40);
    assert!(ledger.head().unwrap_err().to_string().contains("clock"));
}

#[test]
fn one_process_per_hotkey() {
    let (mut ledger, height) = simulated(&LedgerRules::default(), 1);
    ledger.claim(key(1), [1; 16], 10).unwrap();
    ledger.claim(key(2), [2; 16], 10).unwrap();
    let held = ledger.claim(key(1), [2; 16], 10).unwrap_err();
    assert!(matches!(held, ChainError::Leased { until: 10, .. }));
    assert!(held.to_string().contains(&key(1).to_string()));
    pass(&height, 9);
    ledger.claim(key(1), [1; 16], 20).unwrap();
    assert!(ledger.claim(key(1), [2; 16], 30).is_err(), "renewed");
    pass(&height, 11);
    ledger.claim(key(1), [2; 16], 30).unwrap();
    assert!(ledger.claim(key(1), [1; 16], 40).is_err(), "the lease ran out and has a new holder");
}

#[test]
fn wall_clock_blocks_have_fresh_hashes_and_chain_time() {
    let now = Arc::new(AtomicU64::new(1_700_000_000_000));
    let open = || Ledger::open(Path::new(":memory:"), &LedgerRules::default(), wall(&now)).unwrap();
    let (a, b) = (open(), open());
    now.fetch_add(5_999, Ordering::Release);
    let (a, b) = (a.head().unwrap(), b.head().unwrap());
    assert_eq!((a.number, b.number), (5, 5));
    assert_eq!(a.time_ms, 1_700_000_005_000);
    assert_ne!(a.hash, b.hash);
}

#[test]
fn blocks_of_a_wall_clock_begin_on_whole_seconds() {
    // Stores stamp whole seconds: a commit phase of one block would last a millisecond otherwise.
    let now = Arc::new(AtomicU64::new(1_700_000_000_999));
    let ledger = Ledger::open(Path::new(":memory:"), &LedgerRules::default(), wall(&now)).unwrap();
    assert_eq!(ledger.block(0).unwrap().time_ms, 1_700_000_001_000);
    now.store(1_700_000_001_999, Ordering::Release);
    assert_eq!(ledger.head().unwrap().number, 0);
    now.store(1_700_000_002_000, Ordering::Release);
    assert_eq!(ledger.head().unwrap().number, 1);
    let commit = (ledger.block(0).unwrap().time_ms, 1_000);
    let in_time = |put_ms: u64| gauntlet::submission::committed_in_time(put_ms / 1000, commit.0, commit.1);
    assert!(in_time(1_700_000_001_000) && in_time(1_700_000_001_999) && !in_time(1_700_000_002_000));
}
