//! Cost of judging: 256 peers, 20 evaluated a window, 1,000 windows, one core.
//!
//! `cargo bench -p gauntlet --bench round`. Facts are made beforehand; a run opens, checks, evaluates, finishes and
//! keeps the events of every window. The gather set has 15 peers and all its pairs of overlaps.

#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use criterion::{Criterion, criterion_group, criterion_main};
use gauntlet::draw::Draw;
use gauntlet::explain::explain;
use gauntlet::facts::{CheckFacts, PeerFacts, Reach, Role, WindowFacts};
use gauntlet::fast_check::Check;
use gauntlet::loss_score::Losses;
use gauntlet::overlap::Overlap;
use gauntlet::submission::Commitment;
use gauntlet::{Digest, Event, Hotkey, Round, Rules, State};
use std::hint::black_box;

const PEERS: u64 = 256;
const WINDOWS: u64 = 1_000;

fn hotkey(peer: u64) -> Hotkey {
    Hotkey(Digest::of(&peer.to_le_bytes()).0)
}

fn window_facts(window: u64) -> WindowFacts {
    let commitment = Commitment::InTime(Digest([1; 32]));
    let peer = |uid: u64| PeerFacts { uid: uid as u16, stake: 0, role: Role::Miner, commitment };
    WindowFacts {
        run: Digest([7; 32]),
        window,
        step: window,
        learning_rate: 4e-4,
        validator: Hotkey([255; 32]),
        reveal_block: Digest::of(&window.to_le_bytes()),
        own_storage: Reach::Reached,
        gather: (0..15).map(hotkey).collect(),
        peers: (0..PEERS).map(|p| (hotkey(p), peer(p))).collect(),
    }
}

fn overlaps(window: u64) -> Vec<Overlap> {
    let pair = |a, b| Overlap { hotkey: hotkey(a), other: hotkey(b), window, fraction: 0.02 };
    (0..15).flat_map(|a| (0..a).map(move |b| pair(a, b))).collect()
}

/// One window of facts into the state; losses are drawn as the plan asks for them.
fn judge(
    rules: &Rules,
    state: State,
    facts: WindowFacts,
    overlaps: Vec<Overlap>,
    events: &mut Vec<Event>,
) -> State {
    let mut draw = Draw::new(facts.reveal_block, "losses");
    let mut round = Round::open(rules, state, facts).unwrap();
    let plan = round.plan();
    let checks = plan.fast.iter().map(|key| (*key, Check::Passed { count: 8 })).collect();
    let checked = round.fast(&CheckFacts { checks, overlaps, ..CheckFacts::default() }).unwrap();
    let mut gain = || 1e-3 * (draw.bits() >> 11) as f64 / (1_u64 << 53) as f64;
    let mut losses = || {
        let (own, random) = (gain() * 1.5, gain());
        Losses {
            own_before: 4.0,
            own_after: 4.0 - own,
            random_before: 4.0,
            random_after: 4.0 - random,
            marginal: None,
        }
    };
    round.primary(&checked.evaluate.iter().map(|key| (*key, losses())).collect()).unwrap();
    let finished = round.finish().unwrap();
    events.extend(finished.events);
    finished.state
}

fn run(rules: &Rules, facts: &[(WindowFacts, Vec<Overlap>)]) -> (State, Vec<Event>) {
    let mut events = Vec::new();
    let state = facts.iter().fold(State::default(), |state, (window, overlaps)| {
        judge(rules, state, window.clone(), overlaps.clone(), &mut events)
    });
    (state, events)
}

fn rounds(c: &mut Criterion) {
    let mut rules = Rules::default();
    rules.sample.peers = 20;
    let facts: Vec<_> = (0..WINDOWS).map(|w| (window_facts(w), overlaps(w))).collect();
    let mut group = c.benchmark_group("round");
    group.sample_size(10);
    group.bench_function("256 peers, 20 evaluated, 1000 windows", |b| {
        b.iter(|| black_box(run(&rules, &facts)))
    });
    let (state, events) = run(&rules, &facts);
    group.bench_function("write and read the state of 256 peers", |b| {
        b.iter(|| State::from_bytes(&black_box(&state).to_bytes().unwrap()).unwrap())
    });
    println!("{} events", events.len());
    group.bench_function("explain one peer after 1000 windows", |b| {
        b.iter(|| explain(&rules, black_box(&events), hotkey(3), WINDOWS - 1))
    });
    group.finish();
}

criterion_group!(benches, rounds);
criterion_main!(benches);
