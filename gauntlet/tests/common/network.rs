//! A small network of scripted peers: score traces without training.
//!
//! The trace model. An honest submission lowers the loss on D_rand by `GAIN`·(1 + `NOISE`·z) and on its own D_p by
//! `GAIN`·(1 + `ADVANTAGE` + `NOISE`·z′), z and z′ standard normal and new for every peer and window. With the values
//! below the own data win in 88 % of the evaluations. Everything is drawn from seeds, so a run is a function.

use gauntlet::draw::Draw;
use gauntlet::facts::{CheckFacts, PeerFacts, Reach, Role, RoundFacts, WindowFacts};
use gauntlet::fast_check::{Check, FailReason, UnknownCause};
use gauntlet::loss_score::Losses;
use gauntlet::overlap::Overlap;
use gauntlet::selection::Selection;
use gauntlet::submission::Commitment;
use gauntlet::{Digest, Event, Finished, Hotkey, Outcome, Round, Rules, State};
use std::collections::BTreeMap;

/// Fall in loss of an honest trial step, in nats.
pub const GAIN: f64 = 1e-3;
/// What the assigned data gain more, relative to `GAIN`.
pub const ADVANTAGE: f64 = 0.5;
/// Standard deviation of either gain, relative to `GAIN`.
pub const NOISE: f64 = 0.3;
/// Sequences of an honest submission.
pub const COUNT: u32 = 8;
const LOSS: f64 = 4.0;

/// Seeded numbers; most peers of a window need none, so the stream is made at the first.
pub struct Dice {
    of: (u64, u64, usize),
    draw: Option<Draw>,
}

impl Dice {
    pub fn new(seed: u64, window: u64, peer: usize) -> Self {
        Self { of: (seed, window, peer), draw: None }
    }

    /// Uniform in 0..1.
    pub fn uniform(&mut self) -> f64 {
        let (seed, window, peer) = self.of;
        let new = || Draw::new(Digest::of(format!("{seed} {window} {peer}").as_bytes()), "dice");
        (self.draw.get_or_insert_with(new).bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal (Box–Muller).
    pub fn normal(&mut self) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        (-2.0 * libm::log(u)).sqrt() * libm::cos(2.0 * std::f64::consts::PI * v)
    }
}

/// Falls in loss, in units of `GAIN`, without the noise.
#[derive(Clone, Copy)]
pub struct Gain {
    pub own: f64,
    pub random: f64,
}

pub const HONEST: Gain = Gain { own: 1.0 + ADVANTAGE, random: 1.0 };

/// What a peer does in a window.
#[derive(Clone, Copy)]
pub enum Act {
    /// An object that passes the checks, with these gains.
    Submit(Gain),
    /// As `Submit`, trained on so many sequences instead of `COUNT`.
    Part(Gain, u32),
    /// As `Submit`, with NaN losses.
    Nan,
    /// Commits, and the check of the object fails.
    Fails(FailReason),
    /// Commits, and the object cannot be read.
    Unknown(UnknownCause),
    /// No commitment.
    Silent,
    /// Not registered in this window.
    Gone,
}

/// A peer's script: what it does in a window.
pub type Script = Box<dyn Fn(u64, &mut Dice) -> Act>;

/// A measured overlap: peer, other peer, windows back, fraction.
pub type Pair = (usize, usize, u64, f64);

pub struct Network {
    pub rules: Rules,
    pub seed: u64,
    /// Standard deviation of the gains, relative to `GAIN`.
    pub noise: f64,
    pub scripts: Vec<Script>,
    pub overlaps: Box<dyn Fn(u64) -> Vec<Pair>>,
}

/// What came of a run.
pub struct History {
    /// Share of each peer in each window.
    pub shares: Vec<Vec<f64>>,
    pub state: State,
    pub events: Vec<Event>,
    pub facts: Vec<RoundFacts>,
    /// The newest outcome.
    pub last: Outcome,
}

impl History {
    /// Income of a peer over `windows`: the sum of its shares.
    pub fn income(&self, peer: usize, windows: std::ops::Range<usize>) -> f64 {
        self.shares[windows].iter().map(|shares| shares[peer]).sum()
    }

    /// Mean income of `peers`.
    pub fn mean(&self, peers: std::ops::Range<usize>, windows: std::ops::Range<usize>) -> f64 {
        let n = peers.len() as f64;
        peers.map(|peer| self.income(peer, windows.clone())).sum::<f64>() / n
    }
}

pub fn honest() -> Script {
    Box::new(|_, _| Act::Submit(HONEST))
}

/// `n` honest peers, then the others.
pub fn among_honest(rules: Rules, seed: u64, n: usize, others: Vec<Script>) -> Network {
    among_honest_with_noise(rules, seed, n, others, NOISE)
}

/// The same with another noise of the gains.
pub fn among_honest_with_noise(
    rules: Rules,
    seed: u64,
    n: usize,
    others: Vec<Script>,
    noise: f64,
) -> Network {
    let scripts = (0..n).map(|_| honest()).chain(others).collect();
    Network { rules, seed, noise, scripts, overlaps: Box::new(|_| Vec::new()) }
}

pub fn hotkey(peer: usize) -> Hotkey {
    Hotkey(Digest::of(format!("peer {peer}").as_bytes()).0)
}

impl Network {
    /// Runs `windows` windows.
    pub fn run(&self, windows: u64) -> History {
        self.run_from(State::default(), 0, windows)
    }

    /// Runs windows `first..first + windows` from a state.
    pub fn run_from(&self, mut state: State, first: u64, windows: u64) -> History {
        let keys: Vec<Hotkey> = (0..self.scripts.len()).map(hotkey).collect();
        let mut selections: BTreeMap<u64, Selection> = BTreeMap::new();
        let (mut shares, mut events, mut kept, mut last) = (Vec::new(), Vec::new(), Vec::new(), None);
        for window in first..first + windows {
            let (finished, facts) = self.window(&keys, state, window, selections.get(&window));
            let outcome = finished.outcome;
            selections.insert(outcome.selection.window, outcome.selection.clone());
            shares.push(keys.iter().map(|key| outcome.incentives.share(key)).collect());
            events.extend(finished.events);
            kept.push(facts);
            state = finished.state;
            last = Some(outcome);
        }
        History { shares, state, events, facts: kept, last: last.unwrap() }
    }

    fn window(
        &self,
        keys: &[Hotkey],
        state: State,
        window: u64,
        selection: Option<&Selection>,
    ) -> (Finished, RoundFacts) {
        let mut dice: Vec<Dice> = (0..self.scripts.len()).map(|i| Dice::new(self.seed, window, i)).collect();
        let acts: Vec<Act> =
            self.scripts.iter().zip(&mut dice).map(|(script, d)| script(window, d)).collect();
        let facts = self.open_facts(keys, window, &acts, selection);
        let mut round = Round::open(&self.rules, state, facts.clone()).unwrap();
        let plan = round.plan();
        let index = |key: &Hotkey| keys.iter().position(|k| k == key).unwrap();
        let check = |key: &Hotkey| {
            let check = match acts[index(key)] {
                Act::Submit(_) | Act::Nan => Check::Passed { count: COUNT },
                Act::Part(_, count) => Check::Passed { count },
                Act::Fails(reason) => Check::Failed(reason),
                Act::Unknown(cause) => Check::Unknown(cause),
                Act::Silent | Act::Gone => return None,
            };
            Some((*key, check))
        };
        let checks = CheckFacts {
            checks: plan.fast.iter().filter_map(check).collect(),
            overlaps: self.overlap_facts(keys, window),
            ..CheckFacts::default()
        };
        let to_score = round.fast(&checks).unwrap().evaluate;
        let mut losses = BTreeMap::new();
        for key in &to_score {
            let i = index(key);
            losses.insert(*key, self.measure(acts[i], &mut dice[i]));
        }
        round.primary(&losses).unwrap();
        (round.finish().unwrap(), RoundFacts { window: facts, checks, losses })
    }

    fn open_facts(
        &self,
        keys: &[Hotkey],
        window: u64,
        acts: &[Act],
        selection: Option<&Selection>,
    ) -> WindowFacts {
        let commitment = |act: &Act| match act {
            Act::Silent => Commitment::Absent,
            _ => Commitment::InTime(Digest([1; 32])),
        };
        let registered = acts.iter().enumerate().filter(|(_, act)| !matches!(act, Act::Gone));
        let peer = |(i, act): (usize, &Act)| {
            let facts = PeerFacts { uid: i as u16, stake: 0, role: Role::Miner, commitment: commitment(act) };
            (keys[i], facts)
        };
        WindowFacts {
            run: Digest([7; 32]),
            window,
            step: window,
            learning_rate: 4e-4,
            validator: Hotkey([255; 32]),
            reveal_block: Digest::of(format!("block {window} of {}", self.seed).as_bytes()),
            own_storage: Reach::Reached,
            gather: selection.map(|s| s.gather.clone()).unwrap_or_default(),
            peers: registered.map(peer).collect(),
        }
    }

    fn overlap_facts(&self, keys: &[Hotkey], window: u64) -> Vec<Overlap> {
        let fact = |(a, b, back, fraction): Pair| Overlap {
            hotkey: keys[a],
            other: keys[b],
            window: window.saturating_sub(back),
            fraction,
        };
        (self.overlaps)(window).into_iter().map(fact).collect()
    }

    fn measure(&self, act: Act, dice: &mut Dice) -> Losses {
        let (Act::Submit(gain) | Act::Part(gain, _)) = act else {
            return Losses {
                own_before: LOSS,
                own_after: f64::NAN,
                random_before: LOSS,
                random_after: f64::NAN,
                marginal: None,
            };
        };
        let (own, random) = (gain.own + self.noise * dice.normal(), gain.random + self.noise * dice.normal());
        Losses {
            own_before: LOSS,
            own_after: LOSS - GAIN * own,
            random_before: LOSS,
            random_after: LOSS - GAIN * random,
            marginal: None,
        }
    }
}
