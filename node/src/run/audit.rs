//! Audits: every validator judges the others' windows again, from what they published, and so sees whether a leader's
//! choice of the gather set follows from its own facts, and these from a past that it did not make up (PROTOCOL 7.8).
//!
//! Of each judgement are compared: the window, the seed and who took part with what stake with the chain; and the state
//! before with the one that its validator's judgement of before ended in, back to the empty state at its first. A leader's
//! must also have the record's gather set, step, commitments and accepted submissions. What a leader does not show counts
//! as a contradiction: it could hide anything. Losses, overlaps and checks of peers that are not listed are its word.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use gauntlet::facts::{Role, WindowFacts};
use gauntlet::record::Record;
use gauntlet::selection::Selection;
use gauntlet::submission::Commitment;
use gauntlet::{Digest, Finished, Hotkey, State, replay};
use serde::{Deserialize, Serialize};

use super::judgement::{Judgement, limit, usual};
use super::{World, reader};
use crate::storage::{Patience, Storage};

/// Windows after which a judgement that nobody saw in its time is not looked for any more.
const LOOK_BACK: u64 = 64;

/// What a validator knows of the judgements of the others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Audits {
    /// Where auditing began, at the start or after a long absence: what others remembered then is taken as given.
    from: u64,
    /// Of each validator the newest window whose judgement was audited and holds, and the hash of the state it ended in.
    known: BTreeMap<Hotkey, (u64, Digest)>,
}

/// What a leader's judgement came to when it was judged again.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Audit {
    /// The selection that follows from it.
    Follows(Selection),
    /// It is not to be had, or contradicts what everybody can see.
    Contradicts(&'static str),
}

/// What a leader's judgement is compared with.
pub(crate) struct Public<'a> {
    pub(crate) record: &'a Record,
    pub(crate) gather: &'a [Hotkey],
    /// Outer steps before the window, and its learning rate.
    pub(crate) step: u64,
    pub(crate) learning_rate: f64,
}

/// Something, or where a judgement contradicts.
type Verdict<T> = Result<T, &'static str>;

/// For `?` where a check contradicts inside a function that can also fail itself.
macro_rules! holds {
    ($verdict:expr) => {
        match $verdict {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        }
    };
}

impl Audits {
    /// Takes up what the other validators published of the window before `w`; call once they had time to. `since` is the
    /// window after the last one that this validator judged itself. Errors: those of the chain.
    pub(crate) fn follow(&mut self, world: &World<'_>, me: &Hotkey, w: u64, since: u64) -> Result<()> {
        if since.saturating_add(look_back(world)) < w {
            *self = Self { from: w, known: BTreeMap::new() };
        }
        let Some(before) = w.checked_sub(1) else { return Ok(()) };
        let others = world.stakes(before)?.into_keys().filter(|validator| validator != me);
        let (key, limit) = (|validator: &Hotkey| world.run.keys.judgement(before, validator), limit(world));
        let deadline = Patience::default().soon(usual(world));
        for (validator, found) in reader::fetch_all(world, me, others, key, limit, deadline) {
            let mut wait = Wait::new(world);
            // Who showed nothing need not have judged; who leads later must show where it comes from.
            if let Ok(found) = found
                && let Some(judgement) = Judgement::from_bytes(&found.bytes)
                && let Ok(finished) = self.again(world, me, &validator, before, &judgement, &mut wait)?
                && let Ok(after) = finished.state.to_bytes()
            {
                self.known.insert(validator, (before, Digest::of(&after)));
            }
        }
        Ok(())
    }

    /// Judges a leader's window again. Errors: those of the chain.
    pub(crate) fn leader(&self, world: &World<'_>, me: &Hotkey, public: &Public<'_>) -> Result<Audit> {
        Ok(match self.selection(world, me, public)? {
            Ok(selection) => Audit::Follows(selection),
            Err(why) => Audit::Contradicts(why),
        })
    }

    fn selection(&self, world: &World<'_>, me: &Hotkey, public: &Public<'_>) -> Result<Verdict<Selection>> {
        let (record, mut wait) = (public.record, Wait::new(world));
        let judgement = holds!(read(world, me, &record.leader, record.window, &mut wait));
        holds!(same_window(&judgement.facts.window, public));
        let finished = holds!(self.again(world, me, &record.leader, record.window, &judgement, &mut wait)?);
        let accepted: Vec<Hotkey> = record.accepted.iter().map(|a| a.hotkey).collect();
        if finished.outcome.accepted != accepted {
            return Ok(Err("it accepts others than the record"));
        }
        Ok(Ok(finished.outcome.selection))
    }

    /// Judges window `w` of `validator` again, with its past; `wait` is how long it may take to read that.
    fn again(
        &self,
        world: &World<'_>,
        me: &Hotkey,
        validator: &Hotkey,
        w: u64,
        judgement: &Judgement,
        wait: &mut Wait,
    ) -> Result<Verdict<Finished>> {
        let finished = holds!(judged_again(world, validator, w, judgement)?);
        let (mut at, mut before) = (w, judgement.before.clone());
        loop {
            let start = Digest::of(&before);
            let next = holds!(State::from_bytes(&before).map_err(|_| "its state is damaged")).next_window;
            let (last, known) = self.starts(validator, next)?;
            if next <= last {
                let same = known.is_none_or(|known| known == start);
                return Ok(same.then_some(finished).ok_or("it starts from another state than it ended in"));
            }
            // It says that it judged a window since: then it shows that.
            at = holds!(next.checked_sub(1).filter(|earlier| *earlier < at).ok_or("its facts are no round"));
            if at.saturating_add(look_back(world)) < w {
                return Ok(Err("it starts from a judgement that nobody saw in its time"));
            }
            let Ok(earlier) = read(world, me, validator, at, wait) else {
                return Ok(Err("it starts from a judgement that it does not show"));
            };
            let ended = holds!(judged_again(world, validator, at, &earlier)?);
            if Digest::of(&ended.state.to_bytes()?) != start {
                return Ok(Err("it starts from another state than it ended in"));
            }
            before = earlier.before;
        }
    }

    /// The first window that `validator` has not been audited in, and the state that it must start from where it says that
    /// window `next` comes next; any where that is not known.
    fn starts(&self, validator: &Hotkey, next: u64) -> Result<(u64, Option<Digest>)> {
        if let Some((window, after)) = self.known.get(validator) {
            return Ok((window.saturating_add(1), Some(*after)));
        }
        let empty = || Ok::<_, gauntlet::Error>(Digest::of(&State::default().to_bytes()?));
        Ok((self.from, if next == 0 { Some(empty()?) } else { None }))
    }
}

/// Windows in which a judgement is looked for: no more than they are kept.
fn look_back(world: &World<'_>) -> u64 {
    match world.run.manifest.window.keep {
        0 => LOOK_BACK,
        keep => keep.min(LOOK_BACK),
    }
}

/// Time that is left to wait for the judgements of one validator. Who shows a long past and takes its time with each window of
/// it must not keep others from judging; what it takes to judge again does not count.
struct Wait(Duration);

impl Wait {
    /// As long as one judgement may take.
    fn new(world: &World<'_>) -> Self {
        Self(Patience::default().soon(usual(world)).saturating_duration_since(Instant::now()))
    }
}

/// What `validator` published of window `w`.
fn read(world: &World<'_>, me: &Hotkey, validator: &Hotkey, w: u64, wait: &mut Wait) -> Verdict<Judgement> {
    let bucket = world.buckets.of(me, validator).ok_or("it has no bucket")?;
    let (begun, wanted) = (Instant::now(), (bucket, world.run.keys.judgement(w, validator), limit(world)));
    let found = Storage::fetch_many(&[wanted], begun + wait.0).pop();
    wait.0 = wait.0.saturating_sub(begun.elapsed());
    let found = found.and_then(Result::ok).ok_or("its judgement cannot be read")?;
    Judgement::from_bytes(&found.bytes).ok_or("it is no signed judgement")
}

/// What follows from a judgement that agrees with the chain.
fn judged_again(
    world: &World<'_>,
    validator: &Hotkey,
    w: u64,
    judgement: &Judgement,
) -> Result<Verdict<Finished>> {
    let facts = &judgement.facts.window;
    let who: BTreeMap<Hotkey, (u16, u64, Role)> = world
        .roster(w)?
        .members
        .iter()
        .map(|m| (m.hotkey, (m.uid, m.stake, if m.is_validator() { Role::Validator } else { Role::Miner })))
        .collect();
    let named: BTreeMap<Hotkey, (u16, u64, Role)> =
        facts.peers.iter().map(|(hotkey, p)| (*hotkey, (p.uid, p.stake, p.role))).collect();
    let reveal_block = world.block(world.run.manifest.window.record_opens(w))?;
    let rules = [
        (facts.run != world.run.id || facts.window != w, "it is of another window"),
        (facts.validator != *validator, "it is another validator's"),
        (facts.reveal_block != reveal_block, "its seed is another block"),
        (named != who, "its peers are not those registered"),
    ];
    if let Some((_, why)) = rules.into_iter().find(|(wrong, _)| *wrong) {
        return Ok(Err(why));
    }
    let Ok(before) = State::from_bytes(&judgement.before) else { return Ok(Err("its state is damaged")) };
    let finished = replay(&world.run.manifest.gauntlet, before, &judgement.facts);
    Ok(finished.map_err(|_| "its facts are no round"))
}

/// Where a leader's facts say other than its record and the records before.
fn same_window(facts: &WindowFacts, public: &Public<'_>) -> Verdict<()> {
    let committed = facts.peers.iter().filter_map(|(hotkey, p)| match p.commitment {
        Commitment::InTime(content) => Some((*hotkey, content)),
        _ => None,
    });
    let rules = [
        (facts.gather != public.gather, "its gather set is another"),
        (facts.step != public.step || facts.learning_rate != public.learning_rate, "its step is another"),
        (!committed.eq(public.record.commitments.iter().copied()), "its commitments are not the record's"),
    ];
    rules.into_iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, why)| Err(why))
}
