//! A node in its own process or in a simulation: what it does in a block, of its own accord and by its own view of chain
//! and buckets. Here is what miners and validators do alike; [`super::miner_node`] and [`super::validator_node`] add theirs.
//!
//! All of it can be done any number of times in a block: what was done is not done again.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Context, Result};
use gauntlet::record::SignedRecord;
use gauntlet::record::succession;
use gauntlet::{Hotkey, State};
use serde::{Deserialize, Serialize};

use super::follower::{Followed, Follower};
use super::lease::Lease;
use super::persist::Disk;
use super::theta::{Shared, Theta};
use super::validator::{Judged, Stated};
use super::{World, checkpoint};
use crate::storage::{Fault, ss58};

/// The parts of a block, in the order in which a node takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Reads proofs and anchors off the chain, and follows what others closed without it.
    CatchUp,
    /// A miner commits to its object.
    Commit,
    /// A validator reads the commitments.
    Read,
    /// A miner shows its object.
    Reveal,
    /// A validator judges the window.
    Judge,
    /// A validator whose turn it is publishes its record.
    Publish,
    /// The other validators say what they think of it.
    State,
    /// Who sees two records of one leader reports it.
    Report,
    /// Everybody follows the record of whose turn it is.
    Follow,
    /// Everybody settles a window that was closed.
    Settle,
    /// A miner trains.
    Train,
}

impl Part {
    pub(crate) const ALL: [Self; 11] = [
        Self::CatchUp,
        Self::Commit,
        Self::Read,
        Self::Reveal,
        Self::Judge,
        Self::Publish,
        Self::State,
        Self::Report,
        Self::Follow,
        Self::Settle,
        Self::Train,
    ];
}

/// Names of parts, as typed.
const PARTS: [&str; 11] = [
    "catch-up", "commit", "read", "reveal", "judge", "publish", "state", "report", "follow", "settle",
    "train",
];

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PARTS[*self as usize])
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = PARTS.iter().zip(Self::ALL).find(|(name, _)| **name == text);
        let unknown = || format!("'{text}' is no part of a block; known are {}", PARTS.join(", "));
        found.map(|(_, part)| part).ok_or_else(unknown)
    }
}

/// What a node did, for whoever keeps a log.
pub(crate) enum Happened {
    /// A miner made its submission, or makes none; mean loss where it trained.
    Trained { loss: Option<f64> },
    /// A validator judged a window.
    Judged(Box<Judged>),
    /// A leader published a record.
    Published(Box<SignedRecord>),
    /// A validator said what it thinks of a record.
    Stated { window: u64, leader: Hotkey, stated: Stated },
    /// A proof against a leader went on chain while `window` was open.
    Reported { window: u64, leader: Hotkey },
    /// The record of `window` was applied in its leader's turn; none: later, or another's.
    Followed { window: u64, leader: Option<Hotkey> },
    /// A validator's state after a window.
    Settled(Box<State>),
    /// A validator set weights after `window`; the call goes into `block`.
    Weighed { window: u64, block: u64, weights: Vec<(u16, u16)> },
    /// Something could not be done; the node stands at `window`.
    Trouble { window: u64, what: String },
}

/// A node.
pub(crate) trait Node {
    /// Does what is due in one part of `block`, the newest one sealed.
    fn do_part(
        &mut self,
        world: &mut World<'_>,
        block: u64,
        part: Part,
        happened: &mut Vec<Happened>,
    ) -> Result<()>;

    /// Its course, and the window it stands at.
    fn course(&mut self) -> (&mut Course, u64);

    /// Takes one part of `block`; what a store refuses is told, and left for the next block.
    fn take(
        &mut self,
        world: &mut World<'_>,
        block: u64,
        part: Part,
        happened: &mut Vec<Happened>,
    ) -> Result<()> {
        let done = self.do_part(world, block, part, happened);
        let (course, window) = self.course();
        course.excuse(done, window, happened)
    }

    /// Takes all parts of a block.
    #[allow(
        dead_code,
        reason = "for nodes in processes of their own; a simulation orders nodes within a part"
    )]
    fn at_block(&mut self, world: &mut World<'_>, block: u64, happened: &mut Vec<Happened>) -> Result<()> {
        Part::ALL.into_iter().try_for_each(|part| self.take(world, block, part, happened))
    }
}

/// Where a node begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// At the initial weights.
    Beginning,
    /// At the newest checkpoint that an anchor vouches for, else at the initial weights.
    Checkpoint,
}

/// The place at which a new node begins; it follows the records from there.
pub(crate) fn start(
    world: &World<'_>,
    me: Hotkey,
    initial: &Arc<Theta>,
    shared: Shared,
    start: Start,
) -> Result<Follower> {
    if start == Start::Checkpoint
        && let Some(joined) = checkpoint::join(world, me, shared.clone())?
    {
        return Ok(joined);
    }
    Ok(Follower::new(me, world.run.id, Arc::clone(initial), shared))
}

/// A turn in the closing of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(crate) window: u64,
    pub(crate) leader: Hotkey,
    /// First block of the turn.
    pub(crate) from: u64,
}

impl Turn {
    /// Whose turn it is in `block` to publish the record that comes next for `follower`.
    pub(crate) fn of(world: &World<'_>, follower: &Follower, block: u64) -> Result<Option<Self>> {
        let (window, rules) = (follower.window(), &world.run.manifest.window);
        let opens = rules.record_opens(window);
        let Some(since) = block.checked_sub(opens) else { return Ok(None) };
        let order = follower.leaders(world, window)?;
        let leader = succession::leader(&order, opens, rules.record, block);
        let from = block - since % rules.record.max(1);
        Ok(leader.map(|leader| Self { window, leader, from }))
    }
}

/// What a node remembers from block to block of following and reporting.
pub(crate) struct Course {
    lease: Lease,
    /// A leader of two records that the chain does not know yet.
    suspect: Option<Suspect>,
    /// The newest window at which it looked for a checkpoint.
    sought: Option<u64>,
    /// The newest trouble, which is said once.
    trouble: Option<String>,
    /// What its own store refused in the newest window; said once too.
    refused: (u64, BTreeSet<String>),
}

struct Suspect {
    leader: Hotkey,
    first_seen: u64,
    last_seen: u64,
    reported: bool,
}

/// Who reports what it sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reports {
    AtOnce,
    /// Where nobody else did in a block.
    IfNobodyElse,
    Never,
}

impl Course {
    /// Of a node that starts. Errors: another one works with its hotkey.
    pub(super) fn new(world: &mut World<'_>, hotkey: Hotkey, disk: Option<&Disk>) -> Result<Self> {
        let lease = Lease::take(world, hotkey, disk)?;
        Ok(Self { lease, suspect: None, sought: None, trouble: None, refused: Default::default() })
    }

    /// What a store refuses now it may take in the next block: the step is not done, and the node goes on. Other errors,
    /// those of its own disk and of the chain, stay.
    pub(super) fn excuse(
        &mut self,
        result: Result<()>,
        window: u64,
        happened: &mut Vec<Happened>,
    ) -> Result<()> {
        let Err(error) = result else { return Ok(()) };
        if error.downcast_ref::<Fault>().is_none() {
            return Err(error);
        }
        if self.refused.0 != window {
            self.refused = (window, BTreeSet::new());
        }
        let what = format!("its store: {error:#}");
        if self.refused.1.insert(what.clone()) {
            happened.push(Happened::Trouble { window, what });
        }
        Ok(())
    }

    /// Reads the chain, and follows what was closed without this node; from a checkpoint where the objects are gone.
    pub(super) fn catch_up(
        &mut self,
        world: &mut World<'_>,
        follower: &mut Follower,
        block: u64,
        happened: &mut Vec<Happened>,
    ) -> Result<()> {
        self.lease.renew(world, block)?;
        follower.read_proofs(world)?;
        follower.read_anchors(world)?;
        let rules = &world.run.manifest.window;
        let Some(closing) = rules.closing(block) else { return Ok(()) };
        let from = follower.window();
        let mut result = follower.catch_up(world, closing)?;
        let far_behind = rules.keep > 0 && follower.window().saturating_add(rules.keep) <= closing;
        if far_behind && self.sought.replace(closing) != Some(closing) && follower.rejoin(world)? {
            result = follower.catch_up(world, closing)?;
        }
        self.tell(follower, result, happened);
        let followed = (from..follower.window()).map(|window| Happened::Followed { window, leader: None });
        happened.extend(followed);
        follower.recall(world)
    }

    /// Reports two records of one leader. Until the chain knows of it, no record is followed.
    pub(super) fn report(
        &mut self,
        world: &mut World<'_>,
        follower: &mut Follower,
        block: u64,
        reports: Reports,
        happened: &mut Vec<Happened>,
    ) -> Result<()> {
        let Some(proof) = follower.equivocation(world)? else {
            self.suspect = None;
            return Ok(());
        };
        let leader = proof.first.record.leader;
        let new = Suspect { leader, first_seen: block, last_seen: block, reported: false };
        let mut suspect = self.suspect.take().filter(|s| s.leader == leader).unwrap_or(new);
        suspect.last_seen = block;
        let due = match reports {
            Reports::AtOnce => true,
            Reports::IfNobodyElse => suspect.first_seen < block,
            Reports::Never => false,
        };
        if due && !suspect.reported {
            let bytes = postcard::to_allocvec(&proof).context("a proof has no stored form")?;
            let window = follower.window();
            match world.chain.report_equivocation(follower.hotkey(), &bytes) {
                Ok(()) => {
                    suspect.reported = true;
                    happened.push(Happened::Reported { window, leader });
                }
                // Tried again in the next block, for nothing is followed until the chain has it.
                Err(error) => self.say(window, format!("proof not reported: {error}"), happened),
            }
        }
        self.suspect = Some(suspect);
        Ok(())
    }

    /// Follows the record of whose turn it is.
    pub(super) fn follow(
        &mut self,
        world: &World<'_>,
        follower: &mut Follower,
        block: u64,
        happened: &mut Vec<Happened>,
    ) -> Result<()> {
        if self.suspect.as_ref().is_some_and(|suspect| suspect.last_seen == block) {
            return Ok(());
        }
        let Some(Turn { window, leader, .. }) = Turn::of(world, follower, block)? else { return Ok(()) };
        let result = follower.follow(world, window, Some(leader))?;
        if follower.window() > window {
            happened.push(Happened::Followed { window, leader: Some(leader) });
        }
        self.tell(follower, result, happened);
        Ok(())
    }

    /// Says why a record could not be followed, unless that was the last it said.
    fn tell(&mut self, follower: &Follower, result: Followed, happened: &mut Vec<Happened>) {
        let what = match result {
            Followed::Applied => {
                self.trouble = None;
                return;
            }
            Followed::Nothing => return,
            Followed::Missing(peers) => {
                let peers: Vec<String> = peers.iter().map(ss58::encode).collect();
                format!("objects missing: {}", peers.join(", "))
            }
            Followed::Refused(why) => format!("record refused: {why}"),
        };
        self.say(follower.window(), what, happened);
    }

    /// Says what the trouble is, unless that was the last it said.
    fn say(&mut self, window: u64, what: String, happened: &mut Vec<Happened>) {
        if self.trouble.as_ref() != Some(&what) {
            happened.push(Happened::Trouble { window, what: what.clone() });
            self.trouble = Some(what);
        }
    }
}
