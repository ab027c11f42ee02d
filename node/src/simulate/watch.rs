//! How far a window is, for whoever watches.

use anyhow::Result;

/// A place in a window: `done` of `of` parts of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) window: u64,
    pub(crate) phase: &'static str,
    pub(crate) done: usize,
    pub(crate) of: usize,
}

/// Who watches, if anybody does.
#[derive(Default)]
pub(crate) struct Watch(Option<Box<dyn FnMut(Moment) -> Result<()>>>);

impl Watch {
    pub(crate) fn by(watcher: impl FnMut(Moment) -> Result<()> + 'static) -> Self {
        Self(Some(Box::new(watcher)))
    }

    /// Tells the watcher. Errors are its own.
    pub(super) fn at(&mut self, window: u64, phase: &'static str, (done, of): (usize, usize)) -> Result<()> {
        self.0.as_mut().map_or(Ok(()), |watcher| watcher(Moment { window, phase, done, of }))
    }
}
