//! A miner as it runs: trains while its window is open, commits, reveals, follows.

use anyhow::Result;
use gauntlet::Digest;

use super::World;
use super::conduct::{Act, Behaviour, Draft};
use super::identity::Identity;
use super::node::{Course, Happened, Node, Part, Reports};
use super::peer::Peer;
use super::persist::Disk;
use super::theta::Shared;

/// A miner with all it needs to run.
pub(crate) struct MinerNode {
    pub(crate) peer: Peer,
    behaviour: Box<dyn Behaviour>,
    /// Sequences a window.
    budget: u32,
    /// What it made for the newest window it trained in.
    work: Option<Work>,
    course: Course,
    /// Where it keeps its state, if anywhere, and where it stood when it did so.
    disk: Option<Disk>,
    kept: (u64, Digest),
}

struct Work {
    window: u64,
    /// θ hash where it stood when it made the draft.
    theta: Digest,
    /// None: it sends nothing.
    draft: Option<Draft>,
    done: Done,
    /// Whether everybody can read values of the state that it was made on.
    published: bool,
}

/// What was done with a draft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Done {
    Nothing,
    Committed,
    Revealed,
    /// The put window is over.
    Overdue,
    /// Validators have looked.
    Seen,
}

impl MinerNode {
    /// A new one; with a disk it keeps where it begins. Errors: another node works with its hotkey.
    pub(crate) fn new(
        world: &mut World<'_>,
        peer: Peer,
        behaviour: Box<dyn Behaviour>,
        budget: u32,
        disk: Option<Disk>,
    ) -> Result<Self> {
        let course = Course::new(world, peer.hotkey(), disk.as_ref())?;
        let kept = peer.follower.position();
        let mut node = Self { peer, behaviour, budget, work: None, course, disk, kept };
        node.save(world)?;
        Ok(node)
    }

    /// Goes on from what it kept. Errors: as [`Disk::miner`] and [`Self::new`].
    pub(crate) fn restore(
        world: &mut World<'_>,
        identity: Identity,
        behaviour: Box<dyn Behaviour>,
        budget: u32,
        disk: Disk,
        shared: Shared,
    ) -> Result<Self> {
        let (peer, sealed) = disk.miner(world, identity, shared)?;
        let theta = peer.follower.theta().hash;
        let work = sealed.map(|(window, object)| Work {
            window,
            theta,
            draft: Some(Draft::new(object, None)),
            done: Done::Nothing,
            published: false,
        });
        let (course, kept) = (Course::new(world, peer.hotkey(), Some(&disk))?, peer.follower.position());
        let disk = Some(disk);
        Ok(Self { peer, behaviour, budget, work, course, disk, kept })
    }

    /// All that is left of it when it is killed.
    pub(crate) fn killed(self) -> Option<Disk> {
        self.disk
    }

    /// Whether it made an object for window `w`: copies are made when others can be read.
    pub(crate) fn made(&self, w: u64) -> bool {
        let work = self.work.as_ref().filter(|work| work.window == w);
        work.and_then(|work| work.draft.as_ref()).is_some_and(|draft| !draft.object.is_empty())
    }

    /// Keeps where it stands, and what it made last.
    fn save(&mut self, world: &World<'_>) -> Result<()> {
        self.kept = self.peer.follower.position();
        let Some(disk) = &self.disk else { return Ok(()) };
        let sealed =
            self.work.as_ref().and_then(|work| Some((work.window, work.draft.as_ref()?.object.clone())));
        disk.save_miner(world.run.id, &self.peer, sealed)
    }

    /// Does `what` with its draft, once, if that was not done yet; later parts count as done with it.
    fn once(
        &mut self,
        world: &mut World<'_>,
        done: Done,
        what: impl FnOnce(&mut dyn Behaviour, &mut Act<'_, '_>, &Draft) -> Result<()>,
    ) -> Result<()> {
        let Some(work) = self.work.as_mut().filter(|work| work.done < done) else { return Ok(()) };
        if let Some(draft) = &work.draft {
            let mut act = Act { peer: &mut self.peer, world, window: work.window, budget: self.budget };
            what(self.behaviour.as_mut(), &mut act, draft)?;
        }
        work.done = done;
        Ok(())
    }

    fn commit(&mut self, world: &mut World<'_>, block: u64, happened: &mut Vec<Happened>) -> Result<()> {
        let (Some(work), rules) = (&self.work, &world.run.manifest.window) else { return Ok(()) };
        let phase = rules.opens(work.window.saturating_add(1))..rules.commit_deadline(work.window);
        if !phase.contains(&block) {
            return Ok(());
        }
        // Values pay nothing: where the store does not take them, the commitment must not be late because of it.
        let published = self.publish_values(world);
        self.course.excuse(published, self.peer.follower.window(), happened)?;
        self.once(world, Done::Committed, |behaviour, act, draft| behaviour.commit(act, draft))
    }

    fn publish_values(&mut self, world: &World<'_>) -> Result<()> {
        let Some(work) = self.work.as_mut().filter(|work| !work.published) else { return Ok(()) };
        if let Some(draft) = &work.draft {
            let theta = draft.state.as_ref().unwrap_or(self.peer.follower.theta());
            self.peer.publish_values(world, work.window, theta)?;
        }
        work.published = true;
        Ok(())
    }

    fn reveal(&mut self, world: &mut World<'_>, block: u64) -> Result<()> {
        let (Some(work), rules) = (&self.work, &world.run.manifest.window) else { return Ok(()) };
        let w = work.window;
        if (rules.commit_deadline(w)..rules.record_opens(w)).contains(&block) {
            self.once(world, Done::Revealed, |behaviour, act, draft| behaviour.reveal(act, draft))
        } else if block >= rules.record_opens(w) {
            self.once(world, Done::Overdue, |behaviour, act, draft| behaviour.overdue(act, draft))
        } else {
            Ok(())
        }
    }

    /// Tells the momentum what the record said of the last submission, and keeps that and where it moved to.
    fn settle(&mut self, world: &World<'_>) -> Result<()> {
        let moved = self.peer.follower.position() != self.kept;
        if moved {
            self.drop_stray();
        }
        if self.peer.settle(world)? || moved { self.save(world) } else { Ok(()) }
    }

    /// After a roll-back: a draft made on another θ would fail for its state. While its window is open it makes another.
    fn drop_stray(&mut self) {
        let (window, theta) = (self.peer.follower.window(), self.peer.follower.theta().hash);
        let stray = |work: &mut Work| work.window >= window && work.theta != theta;
        self.work.take_if(|work| work.done == Done::Nothing && stray(work));
    }

    fn train(&mut self, world: &mut World<'_>, block: u64, happened: &mut Vec<Happened>) -> Result<()> {
        let (window, rules) = (self.peer.follower.window(), &world.run.manifest.window);
        let open = rules.opens(window)..rules.opens(window.saturating_add(1));
        if !open.contains(&block) || self.work.as_ref().is_some_and(|work| work.window == window) {
            return Ok(());
        }
        let mut act = Act { peer: &mut self.peer, world, window, budget: self.budget };
        let draft = match self.behaviour.draft(&mut act) {
            // It sends nothing in this window.
            Err(error) if is_not_finite(&error) => {
                happened.push(Happened::Trouble { window, what: format!("{error:#}") });
                None
            }
            draft => draft?,
        };
        happened.push(Happened::Trained { loss: draft.as_ref().and_then(|draft| draft.loss) });
        let theta = self.peer.follower.theta().hash;
        self.work = Some(Work { window, theta, draft, done: Done::Nothing, published: false });
        // A restart must not make another object: it is kept before it is committed to.
        self.save(world)
    }
}

impl Node for MinerNode {
    fn do_part(
        &mut self,
        world: &mut World<'_>,
        block: u64,
        part: Part,
        happened: &mut Vec<Happened>,
    ) -> Result<()> {
        match part {
            Part::CatchUp => {
                self.course.catch_up(world, &mut self.peer.follower, block, happened)?;
                self.settle(world)
            }
            Part::Commit => self.commit(world, block, happened),
            Part::Reveal => self.reveal(world, block),
            Part::Judge => {
                let judged = |work: &Work| block >= world.run.manifest.window.record_opens(work.window);
                if !self.work.as_ref().is_some_and(judged) {
                    return Ok(());
                }
                self.once(world, Done::Seen, |behaviour, act, _| behaviour.afterwards(act))
            }
            Part::Report => {
                let reports = Reports::IfNobodyElse;
                self.course.report(world, &mut self.peer.follower, block, reports, happened)
            }
            Part::Follow => {
                self.course.follow(world, &mut self.peer.follower, block, happened)?;
                self.settle(world)
            }
            Part::Settle => self.peer.follower.forget(world),
            Part::Train => self.train(world, block, happened),
            Part::Read | Part::Publish | Part::State => Ok(()),
        }
    }

    fn course(&mut self) -> (&mut Course, u64) {
        (&mut self.course, self.peer.follower.window())
    }
}

/// Whether a gradient was no number.
fn is_not_finite(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(gauntlet_demo::Error::NonFinite { .. }))
}
