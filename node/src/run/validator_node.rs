//! A validator as it runs: reads, judges, leads in its turn or answers who leads, follows, sets weights.

use anyhow::Result;
use gauntlet::Digest;
use serde::{Deserialize, Serialize};

use super::World;
use super::conduct::{Conduct, Lead};
use super::identity::Identity;
use super::node::{Course, Happened, Node, Part, Reports, Turn};
use super::persist::Disk;
use super::theta::Shared;
use super::validator::Validator;

/// A validator with all it needs to run.
pub(crate) struct ValidatorNode {
    pub(crate) validator: Validator,
    conduct: Box<dyn Conduct>,
    course: Course,
    progress: Progress,
    /// Where it keeps its state, if anywhere, and where it stood when it did so.
    disk: Option<Disk>,
    kept: (u64, Digest),
    /// The window of a checkpoint that its store did not take.
    owed: Option<u64>,
}

/// What it has done, so that it is not done again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Progress {
    /// The newest turns in which it published, and in which it said what it thinks.
    published: Option<Turn>,
    stated: Option<Turn>,
    /// Windows before it are closed and done with.
    closed: u64,
}

impl ValidatorNode {
    /// A new one; with a disk it keeps where it begins. Errors: another node works with its hotkey.
    pub(crate) fn new(
        world: &mut World<'_>,
        validator: Validator,
        conduct: Box<dyn Conduct>,
        disk: Option<Disk>,
    ) -> Result<Self> {
        let closed = validator.follower.window();
        let mut node =
            Self::with(world, validator, Progress { closed, ..Progress::default() }, conduct, disk)?;
        node.save(world)?;
        Ok(node)
    }

    /// Goes on from what it kept. Errors: as [`Disk::validator`] and [`Self::new`].
    pub(crate) fn restore(
        world: &mut World<'_>,
        identity: Identity,
        conduct: Box<dyn Conduct>,
        disk: Disk,
        shared: Shared,
    ) -> Result<Self> {
        let (validator, progress) = disk.validator(world, identity, shared)?;
        Self::with(world, validator, progress, conduct, Some(disk))
    }

    fn with(
        world: &mut World<'_>,
        validator: Validator,
        progress: Progress,
        conduct: Box<dyn Conduct>,
        disk: Option<Disk>,
    ) -> Result<Self> {
        let course = Course::new(world, validator.hotkey(), disk.as_ref())?;
        let kept = validator.follower.position();
        Ok(Self { validator, conduct, course, progress, disk, kept, owed: None })
    }

    /// All that is left of it when it is killed.
    pub(crate) fn killed(&mut self) -> Option<Disk> {
        self.disk.take()
    }

    fn save(&mut self, world: &World<'_>) -> Result<()> {
        self.kept = self.validator.follower.position();
        match &self.disk {
            Some(disk) => disk.save_validator(world.run.id, &self.validator, &self.progress),
            None => Ok(()),
        }
    }

    /// Keeps that it moved on, if it did.
    fn save_place(&mut self, world: &World<'_>) -> Result<()> {
        if self.validator.follower.position() == self.kept { Ok(()) } else { self.save(world) }
    }

    /// Reads the commitments to the window it stands at, once their deadline is over.
    fn read(&mut self, world: &World<'_>, block: u64) -> Result<()> {
        let window = self.validator.follower.window();
        if block < world.run.manifest.window.commit_deadline(window)
            || !self.validator.read_commitments(world, window)?
        {
            return Ok(());
        }
        self.save(world)
    }

    fn judge(&mut self, world: &mut World<'_>, block: u64, happened: &mut Vec<Happened>) -> Result<()> {
        let window = self.validator.follower.window();
        if block < world.run.manifest.window.record_opens(window) {
            return Ok(());
        }
        self.conduct.before_judging(&mut self.validator, window);
        if let Some(judged) = self.validator.judge(world, window)? {
            happened.push(Happened::Judged(Box::new(judged)));
            self.save(world)?;
        }
        self.validator.announce(world)
    }

    /// Publishes its record if it is its turn.
    fn publish(&mut self, world: &mut World<'_>, block: u64, happened: &mut Vec<Happened>) -> Result<()> {
        let Some(turn) = Turn::of(world, &self.validator.follower, block)? else { return Ok(()) };
        if turn.leader != self.validator.hotkey() || self.progress.published == Some(turn) {
            return Ok(());
        }
        let window = turn.window;
        let Some((signed, bundle)) = self.validator.record(world, window)? else { return Ok(()) };
        // Two records of one window would be a proof against it, so this one is kept before anybody sees it.
        self.save(world)?;
        let mut lead = Lead { validator: &self.validator, world, window };
        match self.conduct.publish(&mut lead, signed, bundle) {
            Ok(shown) => {
                self.progress.published = Some(turn);
                happened.extend(shown.map(|signed| Happened::Published(Box::new(signed))));
                self.save(world)?;
            }
            // What a store refuses now it may take the next time.
            Err(error) => {
                let what = format!("record not published: {error:#}");
                happened.push(Happened::Trouble { window, what });
            }
        }
        Ok(())
    }

    /// Says what it thinks of the record of whose turn it is.
    fn state(&mut self, world: &World<'_>, block: u64, happened: &mut Vec<Happened>) -> Result<()> {
        let Some(turn) = Turn::of(world, &self.validator.follower, block)? else { return Ok(()) };
        let Turn { window, leader, .. } = turn;
        if leader == self.validator.hotkey() || self.progress.stated == Some(turn) {
            return Ok(());
        }
        let Some(signed) = self.validator.follower.record_of(world, window, &leader)? else { return Ok(()) };
        if let Some(stated) = self.validator.state_view(world, &signed)? {
            self.progress.stated = Some(turn);
            happened.push(Happened::Stated { window, leader, stated });
            self.save(world)?;
        }
        Ok(())
    }

    /// Settles the windows that were closed: the state, and where it moved on, weights, anchor and checkpoint; and takes
    /// back what is old.
    fn settle(&mut self, world: &mut World<'_>, happened: &mut Vec<Happened>) -> Result<()> {
        if let Some(state) = self.validator.settle() {
            happened.push(Happened::Settled(Box::new(state)));
        }
        // A store that refuses one of them may take the others.
        let steps =
            [self.show_checkpoint(world), self.close(world, happened), self.validator.follower.forget(world)];
        let window = self.validator.follower.window();
        steps.into_iter().try_for_each(|step| self.course.excuse(step, window, happened))
    }

    /// Once for a window that was closed: weights, anchor and checkpoint.
    fn close(&mut self, world: &mut World<'_>, happened: &mut Vec<Happened>) -> Result<()> {
        let next = self.validator.follower.window();
        if next <= self.progress.closed {
            return Ok(());
        }
        // Several, where it caught up.
        let closed = self.progress.closed..next;
        let after = self.validator.afterwards(world, closed.clone())?;
        if let Some((window, weights)) = after.weights {
            // A call goes into the block that is open.
            let block = world.chain.head()?.number + 1;
            happened.push(Happened::Weighed { window, block, weights });
        }
        let trouble = |(window, what)| Happened::Trouble { window, what };
        happened.extend(after.refused.into_iter().map(trouble));
        // θ of an earlier window is gone; who did not have to catch up published it.
        let every = world.run.manifest.window.checkpoint_every;
        self.owed = Some(next).filter(|next| next.is_multiple_of(every));
        for window in closed {
            self.conduct.afterwards(&mut Lead { validator: &self.validator, world, window })?;
        }
        let shown = self.show_checkpoint(world);
        self.progress.closed = next;
        self.save(world)?;
        shown
    }

    /// Publishes the checkpoint that is owed, as long as it stands there.
    fn show_checkpoint(&mut self, world: &World<'_>) -> Result<()> {
        if self.owed == Some(self.validator.follower.window()) {
            self.validator.checkpoint(world)?;
        }
        self.owed = None;
        Ok(())
    }
}

impl Node for ValidatorNode {
    fn do_part(
        &mut self,
        world: &mut World<'_>,
        block: u64,
        part: Part,
        happened: &mut Vec<Happened>,
    ) -> Result<()> {
        match part {
            Part::CatchUp => {
                self.course.catch_up(world, &mut self.validator.follower, block, happened)?;
                self.save_place(world)
            }
            Part::Read => self.read(world, block),
            Part::Judge => self.judge(world, block, happened),
            Part::Publish => self.publish(world, block, happened),
            Part::State => self.state(world, block, happened),
            Part::Report => {
                let reports = if self.conduct.reports() { Reports::AtOnce } else { Reports::Never };
                self.course.report(world, &mut self.validator.follower, block, reports, happened)
            }
            Part::Follow => {
                self.course.follow(world, &mut self.validator.follower, block, happened)?;
                self.save_place(world)
            }
            Part::Settle => self.settle(world, happened),
            Part::Commit | Part::Reveal | Part::Train => Ok(()),
        }
    }

    fn course(&mut self) -> (&mut Course, u64) {
        (&mut self.course, self.validator.follower.window())
    }
}
