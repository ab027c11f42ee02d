//! What behaviours put into their objects, against what an honest peer with the same key would have sent.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use gauntlet::submission::{Object, PutTime};
use gauntlet_demo::submission::EMPTY;
use gauntlet_demo::{Codebook, Submission, Values};

use super::*;
use crate::run::manifest::demo_layout;
use crate::run::reader::{self, Phase};
use crate::run::tests::{Small, identity};

/// Sequences of every machine here.
const BUDGET: u32 = 2;

fn of(kind: &str) -> Vec<Box<dyn Behaviour>> {
    let entry: crate::simulate::spec::Entry = kind.parse().unwrap();
    make(&entry.kind, entry.count)
}

/// Has `behaviour` act as miner `n` in the window that the height stands in.
fn acting<T>(
    small: &mut Small,
    n: u8,
    window: u64,
    behaviour: &mut dyn Behaviour,
    act: impl FnOnce(&mut dyn Behaviour, &mut Act<'_, '_>) -> T,
) -> T {
    let mut peer = small.peer(n);
    let mut world = small.world();
    act(behaviour, &mut Act { peer: &mut peer, world: &mut world, window, budget: BUDGET })
}

fn drafted(small: &mut Small, n: u8, window: u64, behaviour: &mut dyn Behaviour) -> Option<Draft> {
    acting(small, n, window, behaviour, |behaviour, act| behaviour.draft(act).unwrap())
}

fn opened(small: &Small, object: Vec<u8>) -> Submission {
    reader::decode(&small.run, object, PutTime::InTime).decoded.expect("it decodes").1
}

/// What `kind` sends as miner `n` in window 0.
fn sent(small: &mut Small, n: u8, kind: &str) -> Submission {
    let draft = drafted(small, n, 0, of(kind)[0].as_mut()).unwrap();
    opened(small, draft.object)
}

fn levels(submission: &Submission) -> &[i8] {
    let Values::Levels(levels) = submission.values() else { panic!("levels are sent") };
    levels
}

/// First chunk of each tensor.
fn firsts(small: &Small) -> BTreeSet<usize> {
    let format = &small.run.format;
    let counts = (0..format.layout().tensors().len()).map(|t| format.grid(t).map_or(0, |grid| grid.chunks()));
    counts.scan(0, |next, count| Some(std::mem::replace(next, *next + count))).collect()
}

#[test]
fn concentrate_raises_the_first_chunk_of_every_tensor() {
    let mut small = Small::new(1);
    let (honest, raised) = (sent(&mut small, 1, "honest"), sent(&mut small, 1, "concentrate"));
    assert_eq!((honest.indices(), honest.values()), (raised.indices(), raised.values()));
    let firsts = firsts(&small);
    assert!(firsts.len() > 10 && honest.exponents().len() > 2 * firsts.len());
    let mut higher = 0;
    for (chunk, (before, after)) in honest.exponents().iter().zip(raised.exponents()).enumerate() {
        let raise = if firsts.contains(&chunk) && *before != EMPTY { 12 } else { 0 };
        assert_eq!(i32::from(*after) - i32::from(*before), raise, "chunk {chunk}");
        higher += usize::from(raise > 0);
    }
    assert!(higher > 10, "{higher}");
}

/// A run whose submissions have codes of so many bits.
fn with_bits(bits: u32) -> Small {
    let mut small = Small::new(1);
    small.run.demo.codebook = Codebook::with_bits(bits).unwrap();
    small.run.format = small.run.demo.format(demo_layout(&small.run.layout).unwrap()).unwrap();
    small
}

#[test]
fn interleaved_identities_share_out_one_momentum() {
    for bits in [1, 3] {
        let mut small = with_bits(bits);
        let honest = sent(&mut small, 1, "honest");
        let mut identities = of("sybil:2:interleave");
        let parts: Vec<Submission> = [1, 2]
            .into_iter()
            .zip(&mut identities)
            .map(|(n, identity)| {
                let draft = drafted(&mut small, n, 0, identity.as_mut()).unwrap();
                opened(&small, draft.object)
            })
            .collect();
        for (chunk, entries) in tools::chunks(&small.run.format).into_iter().enumerate() {
            for entry in entries {
                let shares = [0, 1].map(|i| levels(&parts[i])[entry]);
                // One bit has no code for 0: chunks are shared out.
                let place = if bits == 1 { chunk } else { entry } % 2;
                let mut expected = [0, 0];
                expected[place] = levels(&honest)[entry];
                assert_eq!(shares, expected, "{bits} bits, entry {entry}");
                for (part, level) in parts.iter().zip(shares).filter(|(_, level)| *level != 0) {
                    assert_eq!(
                        part.indices()[entry],
                        honest.indices()[entry],
                        "entry {entry}, level {level}"
                    );
                }
            }
        }
        assert_eq!(parts[0].sent() + parts[1].sent(), honest.sent());
    }
}

#[test]
fn identities_of_the_other_form_all_send_the_same() {
    let mut small = Small::new(1);
    let honest = sent(&mut small, 1, "honest");
    let mut same = of("sybil:2:same");
    for (n, identity) in [1, 2].into_iter().zip(&mut same) {
        let draft = drafted(&mut small, n, 0, identity.as_mut()).unwrap();
        assert_eq!(opened(&small, draft.object), honest, "identity {n}");
    }
}

#[test]
fn the_shuffler_takes_each_chunk_from_somebody() {
    let mut small = Small::of(1, &[4]);
    let mut sources = Vec::new();
    for n in [1, 2] {
        let object = drafted(&mut small, n, 0, of("honest")[0].as_mut()).unwrap().object;
        small.peer(n).reveal(&small.world(), 0, &object).unwrap();
        sources.push(opened(&small, object));
    }
    let nothing = drafted(&mut small, 4, 0, of("shuffler")[0].as_mut());
    assert!(nothing.is_none(), "before window 0 nobody sent anything");
    small.height.store(small.run.manifest.window.opens(1), Ordering::Release);
    let draft = drafted(&mut small, 4, 1, of("shuffler")[0].as_mut()).unwrap();
    let shuffled = opened(&small, draft.object);
    let mut taken = [0, 0];
    for (chunk, entries) in tools::chunks(&small.run.format).into_iter().enumerate() {
        let part = |s: &Submission| {
            (s.exponents()[chunk], s.indices()[entries.clone()].to_vec(), levels(s)[entries.clone()].to_vec())
        };
        let from: Vec<usize> = (0..2).filter(|i| part(&sources[*i]) == part(&shuffled)).collect();
        assert!(!from.is_empty(), "chunk {chunk} is nobody's");
        if let [only] = from[..] {
            taken[only] += 1;
        }
    }
    assert!(taken[0] > 10 && taken[1] > 10, "{taken:?}");
}

#[test]
fn noise_stands_to_the_gradient_as_asked() {
    let mut small = Small::new(1);
    let (grads, noise) = acting(&mut small, 1, 0, of("honest")[0].as_mut(), |_, act| {
        let (grads, _) = tools::gradient(act, &[1, 2]).unwrap();
        let noise = tools::normal(act, grads.len());
        (grads, noise)
    });
    let rms = |values: &[f32]| {
        (values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    };
    let mean = noise.iter().map(|v| f64::from(*v)).sum::<f64>() / noise.len() as f64;
    // A million draws: five standard errors.
    assert!(mean.abs() < 5e-3 && (rms(&noise) - 1.0).abs() < 5e-3, "{mean}, {}", rms(&noise));
    for x in [0.5, 2.0] {
        let mut noisy = grads.clone();
        noise::add_noise(&mut noisy, &noise, x);
        let added: Vec<f32> = noisy.iter().zip(&grads).map(|(noisy, g)| noisy - g).collect();
        let ratio = rms(&added) / rms(&grads);
        assert!((ratio / f64::from(x) - 1.0).abs() < 5e-3, "{x}: {ratio}");
    }
    let honest = sent(&mut small, 1, "honest");
    assert_eq!(sent(&mut small, 1, "noise:0"), honest);
    let [little, much] =
        ["noise:0.1", "noise:4"].map(|kind| sent(&mut small, 1, kind).overlap(&honest).unwrap());
    assert!(0.5 * little > much && little > 0.5, "{little}, {much}");
}

#[test]
fn gradients_that_were_never_computed() {
    let mut small = Small::new(1);
    let honest = sent(&mut small, 1, "honest");
    let flipped = sent(&mut small, 1, "signflip");
    assert_eq!((flipped.exponents(), flipped.indices()), (honest.exponents(), honest.indices()));
    assert!(levels(&flipped).iter().zip(levels(&honest)).all(|(a, b)| i32::from(*a) == -i32::from(*b)));
    assert_eq!(sent(&mut small, 1, "zero").sent(), 0);
    assert!(honest.sent() > 1000);
    let random = ["random", "lazy"].map(|kind| sent(&mut small, 1, kind));
    assert!(random.iter().all(|sent| sent.overlap(&honest).unwrap() < 0.9 && sent.sent() > 1000));
    let object = drafted(&mut small, 1, 0, of("malformed")[0].as_mut()).unwrap().object;
    assert_eq!(reader::decode(&small.run, object, PutTime::InTime).object, Object::Undecodable);
}

#[test]
fn copycats_show_anothers_work_as_their_own() {
    let mut small = Small::of(1, &[4, 5]);
    let window = small.run.manifest.window.clone();
    let object = drafted(&mut small, 1, 0, of("honest")[0].as_mut()).unwrap().object;
    let (mut early, mut late) = (of("copycat"), of("late-copycat"));
    let draft = Draft::new(Vec::new(), None);
    small.height.store(window.opens(1), Ordering::Release);
    small.peer(1).commit(&small.world(), 0, &object).unwrap();
    acting(&mut small, 4, 0, early[0].as_mut(), |b, act| b.commit(act, &draft).unwrap());
    acting(&mut small, 5, 0, late[0].as_mut(), |b, act| b.commit(act, &draft).unwrap());
    small.height.store(window.commit_deadline(0), Ordering::Release);
    small.peer(1).reveal(&small.world(), 0, &object).unwrap();
    acting(&mut small, 4, 0, early[0].as_mut(), |b, act| b.reveal(act, &draft).unwrap());
    acting(&mut small, 5, 0, late[0].as_mut(), |b, act| b.reveal(act, &draft).unwrap());
    let [owner, early, late] = [1, 4, 5].map(|n| identity(n).hotkey());
    let world = small.world();
    let shown = reader::objects(&world, &owner, [owner, early, late], 0, Phase::ANY);
    let work = |hotkey| &shown[&hotkey].decoded.as_ref().unwrap().1;
    assert!(work(early) == work(owner) && work(late) == work(owner));
    let content = |hotkey| gauntlet::Digest::of(&shown[&hotkey].decoded.as_ref().unwrap().0);
    assert_eq!(BTreeSet::from([owner, early, late].map(content)).len(), 3, "each under its own name");
    use gauntlet::submission::Commitment::{InTime, Late};
    let promised =
        reader::commitments(&world, &owner, [owner, early, late], 0, world.commit_phase(0).unwrap());
    assert_eq!((promised[&owner], promised[&early]), (InTime(content(owner)), InTime(content(owner))));
    assert_eq!(promised[&late], Late, "by the store's clock, whenever it is read");
}
