//! Whether a validator reaches the others: one that does not must leave its turn to who does, for all it could say is that
//! nothing is known of anybody.
//!
//! Buckets of others that fail must not look like that: neither identities that cost next to nothing nor another validator
//! whose bucket is down may keep a validator from judging. So validators count by their stake, and only those that have
//! published where their bucket is; miners count beside them; and where nobody judged a window in its time, or there is
//! nobody else to leave the turn to, whoever reaches anybody judges.

use std::collections::BTreeMap;

use anyhow::Result;
use gauntlet::Hotkey;
use gauntlet::facts::Reach;
use gauntlet::submission::Commitment;

use super::records::record_limit;
use super::validator::Validator;
use super::{World, reader};
use crate::storage::{Found, Patience};

/// How much of a group answers, by stake or by heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answers {
    answering: u128,
    of: u128,
}

impl FromIterator<(u64, bool)> for Answers {
    fn from_iter<I: IntoIterator<Item = (u64, bool)>>(group: I) -> Self {
        group.into_iter().fold(Self::default(), |sum, (weight, answers)| Self {
            answering: sum.answering + if answers { u128::from(weight) } else { 0 },
            of: sum.of + u128::from(weight),
        })
    }
}

impl Answers {
    fn is_half(self) -> bool {
        self.of > 0 && 2 * self.answering >= self.of
    }
}

/// Whether others can still be expected to close the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    InTime,
    Overdue,
}

/// Whether a network works in which so many of the other validators and of the miners answer.
fn works(validators: Answers, miners: Answers, time: Time) -> bool {
    let nobody_there = validators.of == 0 && miners.of == 0;
    let anybody = validators.answering > 0 || miners.answering > 0;
    let no_other = validators.of == 0 || time == Time::Overdue;
    nobody_there || validators.is_half() || miners.is_half() || (anybody && no_other)
}

impl Validator {
    /// Whether its own network works, as far as it can tell from its own bucket, the other validators' buckets, and the
    /// commitments to window `w` as it read them.
    pub(super) fn reaches_others(
        &self,
        world: &World<'_>,
        commitments: &BTreeMap<Hotkey, Commitment>,
        w: u64,
    ) -> Result<bool> {
        if self.own_storage(world, w) == Reach::Unreachable {
            return Ok(false);
        }
        let me = self.hotkey();
        let has_bucket = |hotkey: &Hotkey| world.buckets.of(&me, hotkey).is_some();
        let mut stakes = world.stakes(w)?;
        stakes.retain(|validator, _| *validator != me && has_bucket(validator));
        let (key, limit) = (|_: &Hotkey| world.run.keys.record(w), record_limit(world));
        let deadline = Patience::default().soon(limit);
        let found = reader::fetch_all(world, &me, stakes.keys().copied(), key, limit, deadline);
        let answers = |found: &Found| !matches!(found, Err(fault) if fault.unknown().is_some());
        let validators =
            stakes.iter().filter_map(|(hotkey, stake)| Some((*stake, answers(found.get(hotkey)?))));
        let known = |c: &Commitment| !matches!(c, Commitment::Unknown(_));
        let miners = commitments.iter().filter(|(miner, _)| has_bucket(miner)).map(|(_, c)| (1, known(c)));
        let overdue = world.chain.head()?.number >= world.run.manifest.window.opens(w.saturating_add(2));
        let time = if overdue { Time::Overdue } else { Time::InTime };
        Ok(works(validators.collect(), miners.collect(), time))
    }

    /// Whether it reaches its own bucket: where it does not, it knows nothing of others either.
    pub(super) fn own_storage(&self, world: &World<'_>, w: u64) -> Reach {
        let me = self.hotkey();
        let found = world.buckets.of(&me, &me).map(|bucket| bucket.head(&world.run.keys.record(w)));
        match found {
            Some(Err(fault)) if fault.unknown().is_some() => Reach::Unreachable,
            Some(_) => Reach::Reached,
            None => Reach::Unreachable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(of: &[(u64, bool)]) -> Answers {
        of.iter().copied().collect()
    }

    #[test]
    fn stake_counts_and_not_heads() {
        let dust = [(1, false); 50];
        let (none, one) = (Answers::default(), group(&[(1, true), (1, false), (1, false)]));
        assert!(works(group(&[&[(100, true)][..], &dust].concat()), none, Time::InTime));
        assert!(!works(group(&[(100, false), (99, true)]), one, Time::InTime));
        assert!(works(group(&[(u64::MAX, true), (u64::MAX, false)]), none, Time::InTime), "half is enough");
    }

    #[test]
    fn a_validator_whose_only_peer_is_down_goes_on_with_the_miners() {
        let down = group(&[(2, false)]);
        assert!(works(down, group(&[(1, true), (1, false)]), Time::InTime));
        assert!(!works(down, group(&[(1, false), (1, false)]), Time::InTime));
        assert!(!works(down, Answers::default(), Time::Overdue), "it reaches nobody");
        // Most miners are down too: the other one may be better off, until the window is over.
        let few = group(&[(1, true), (1, false), (1, false)]);
        assert!(!works(down, few, Time::InTime) && works(down, few, Time::Overdue));
    }

    #[test]
    fn who_is_alone_needs_one_answer() {
        let alone = Answers::default();
        assert!(works(alone, group(&[(1, false), (1, false), (1, true)]), Time::InTime));
        assert!(!works(alone, group(&[(1, false)]), Time::Overdue));
        assert!(works(alone, Answers::default(), Time::InTime), "there is nobody to reach");
    }
}
