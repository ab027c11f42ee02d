use super::*;
use gauntlet::ChainFault;

/// A number below `n` from a seed and a counter.
fn draw(seed: u64, at: &mut u64, n: u64) -> u64 {
    *at += 1;
    let digest = gauntlet::Digest::of(&[seed.to_le_bytes(), at.to_le_bytes()].concat());
    u64::from_le_bytes(*digest.0.first_chunk().unwrap()) % n
}

fn check_sums(ledger: &Ledger, keys: u8) {
    let graph = ledger.metagraph().unwrap();
    let balances: u64 = (0..keys).map(|n| ledger.balance(key(n)).unwrap()).sum();
    assert_eq!(balances + graph.burned, graph.issuance);
    assert_eq!(graph.issuance, graph.last_epoch * ledger.rules.emission_per_block, "all blocks are paid");
    let history = ledger.history(0).unwrap();
    assert_eq!(history.len() as u64, graph.epoch);
    let mut earned = vec![0; usize::from(keys)];
    for epoch in &history {
        let paid: u64 = epoch.pay.iter().map(Pay::emission).sum();
        assert_eq!(paid + epoch.owner + epoch.burned, epoch.emission);
        epoch.pay.iter().for_each(|p| earned[usize::from(p.hotkey.0[0])] += p.emission());
        if let Some(owner) = ledger.rules.owner {
            earned[usize::from(owner.0[0])] += epoch.owner;
        }
    }
    for n in 0..keys {
        assert_eq!(ledger.balance(key(n)).unwrap(), earned[usize::from(n)], "history explains {n}");
    }
}

/// Registrations, replacements, stakes, weights and epochs at random: nothing is lost or made.
#[test]
fn balances_owner_and_burned_are_the_emission() {
    for seed in 0..6 {
        let mut rules = LedgerRules { emission_per_block: 999_999_937 + seed, ..Default::default() };
        rules.owner = (seed % 2 == 0).then_some(key(3));
        rules.subnet.tempo = 7;
        rules.subnet.registry.max_uids = 5;
        rules.subnet.yuma.max_validators = 3;
        let (mut ledger, height) = simulated(&rules, seed);
        let mut at = 0;
        for _ in 0..120 {
            let hotkey = key(draw(seed, &mut at, 8) as u8);
            let done = match draw(seed, &mut at, 4) {
                0 => ledger.register(hotkey, key(99)).map(|_| ()),
                1 => ledger.add_stake(hotkey, draw(seed, &mut at, 1 << 40)),
                _ => {
                    let values: Vec<u16> = (0..5).map(|_| draw(seed, &mut at, 65_536) as u16).collect();
                    ledger.set_weights(hotkey, &[0, 1, 2, 3, 4], &values, 0)
                }
            };
            assert!(matches!(done, Ok(()) | Err(ChainError::Refused { .. })), "{done:?}");
            pass(&height, draw(seed, &mut at, 5));
        }
        check_sums(&ledger, 8);
        assert!(ledger.metagraph().unwrap().epoch > 20);
    }
}

#[test]
fn weights_pay_servers_and_validators() {
    let (mut ledger, height) = simulated(&LedgerRules::default(), 1);
    for n in 0..4 {
        assert_eq!(ledger.register(key(n), key(50 + n)).unwrap(), u16::from(n));
    }
    ledger.add_stake(key(0), 1_000).unwrap();
    let refused = ledger.set_weights(key(0), &[1, 2], &[1, 3], 0).unwrap_err();
    assert!(matches!(refused, ChainError::Refused { fault: ChainFault::NoPermit, .. }));
    assert!(refused.to_string().contains(&key(0).to_string()), "{refused}");
    pass(&height, 20);
    assert!(ledger.metagraph().unwrap().neurons[0].permit, "the first epoch gives permits");
    ledger.set_weights(key(0), &[1, 2], &[1, 3], 0).unwrap();
    pass(&height, 20);
    let graph = ledger.metagraph().unwrap();
    let incentive: Vec<f64> = graph.neurons.iter().map(|n| n.incentive).collect();
    assert!((incentive[1] - 0.25).abs() < 1e-4 && (incentive[2] - 0.75).abs() < 1e-4, "{incentive:?}");
    assert_eq!(graph.neurons[0].dividend, 1.0);
    assert!((graph.neurons[2].consensus - 0.75).abs() < 1e-4);
    assert_eq!(graph.neurons[3].balance, 0);
    assert_eq!(graph.neurons[2].balance, graph.neurons[2].emission);
    assert_eq!(graph.neurons[2].weights, []);
    assert_eq!(graph.neurons[0].weights, [(1, 21_845), (2, 65_535)]);
    assert_eq!(graph.neurons[2].coldkey, key(52));
    check_sums(&ledger, 4);
}

#[test]
fn a_newcomer_inherits_nothing() {
    let mut rules = LedgerRules::default();
    rules.subnet.registry.max_uids = 2;
    let (mut ledger, height) = simulated(&rules, 1);
    ledger.register(key(0), key(0)).unwrap();
    ledger.add_stake(key(0), 5).unwrap();
    ledger.register(key(1), key(1)).unwrap();
    ledger.publish_bucket(key(1), "s3://one").unwrap();
    pass(&height, 20);
    ledger.set_weights(key(0), &[1], &[1], 0).unwrap();
    pass(&height, 20);
    let before = ledger.balance(key(1)).unwrap();
    assert!(before > 0);
    assert_eq!(
        ledger.register(key(1), key(1)).unwrap_err().to_string().matches("registered already").count(),
        1
    );
    // The owner of slot 0 earned more in the last epoch or as much; ties fall on the older.
    let uid = ledger.register(key(2), key(2)).unwrap();
    pass(&height, 1);
    let graph = ledger.metagraph().unwrap();
    let fresh = &graph.neurons[usize::from(uid)];
    assert_eq!((fresh.hotkey, fresh.emission, fresh.incentive, fresh.stake), (key(2), 0, 0.0, 0));
    assert_eq!((fresh.balance, &fresh.bucket), (0, &None));
    assert_eq!(ledger.balance(key(1)).unwrap(), before, "what was earned stays");
    pass(&height, 40);
    check_sums(&ledger, 3);
}

#[test]
fn the_supply_ends_without_an_overflow() {
    let rules = LedgerRules::default();
    let mut state = state::State::genesis(&rules);
    state.issuance = i64::MAX as u64 - 5 * UNITS;
    state.burned = state.issuance;
    let paid: Vec<u64> = [20, 40, 60].map(|block| epochs::run(&mut state, &rules, block).emission).to_vec();
    assert_eq!(paid, [5 * UNITS, 0, 0]);
    assert_eq!((state.issuance, state.burned), (i64::MAX as u64, i64::MAX as u64), "nobody was there");
}

#[test]
fn rules_that_mean_nothing_are_named() {
    let with = |change: fn(&mut LedgerRules)| {
        let mut rules = LedgerRules::default();
        change(&mut rules);
        rules.check().unwrap_err().to_string()
    };
    assert!(with(|r| r.block_time_ms = 0).contains("chain.block_time_ms"));
    assert!(with(|r| r.subnet.tempo = 0).contains("chain.subnet.tempo"));
    assert!(with(|r| r.emission_per_block = u64::MAX).contains("chain.emission_per_block"));
    let committed = with(|r| r.subnet.weights.setting = gauntlet::yuma::weights::WeightSetting::CommitReveal);
    assert!(committed.contains("chain.subnet.weights.setting"));
    LedgerRules::default().check().unwrap();
    let text = toml::to_string(&LedgerRules { owner: Some(key(1)), ..Default::default() }).unwrap();
    assert_eq!(toml::from_str::<LedgerRules>(&text).unwrap().owner, Some(key(1)));
    let text = toml::to_string(&LedgerRules::default()).unwrap();
    assert_eq!(toml::from_str::<LedgerRules>(&text).unwrap(), LedgerRules::default());
    assert!(toml::from_str::<LedgerRules>("tempo = 3").unwrap_err().to_string().contains("tempo"));
}
