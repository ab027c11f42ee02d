//! Batches read ahead on a thread of their own, so that reading overlaps computing.
//!
//! Which sequences a batch holds is decided by [`Batches`] and the batch's number alone: reading ahead changes neither order
//! nor tokens.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use gauntlet_data::{Batches, Dataset};

/// Batches read before they are asked for.
const AHEAD: usize = 2;

/// Token ids of a batch and those that follow them, `[B, T]` each.
#[derive(Debug)]
pub(crate) struct Ids {
    pub(crate) tokens: Vec<u32>,
    pub(crate) targets: Vec<u32>,
}

/// The batches of a run, in order.
pub(crate) struct Loader {
    ready: Receiver<gauntlet_data::Result<Ids>>,
    /// Where room for further batches goes; without it the reader ends.
    room: Option<Sender<Ids>>,
    reader: Option<JoinHandle<()>>,
}

impl Loader {
    /// Begins to read from batch `first` on.
    ///
    /// # Errors
    /// When the system starts no thread.
    pub(crate) fn new(data: Arc<Dataset>, batches: Batches, first: u64) -> Result<Self> {
        let ((room, empty), (filled, ready)) = (channel::<Ids>(), channel());
        let n = batches.tokens_per_step();
        for _ in 0..AHEAD {
            // The receiver lives: it is moved into the thread below.
            let _ = room.send(Ids { tokens: vec![0; n], targets: vec![0; n] });
        }
        let read = move || {
            for index in first.. {
                let Ok(Ids { mut tokens, mut targets }) = empty.recv() else { return };
                let read = batches.fill(&data, index, &mut tokens, &mut targets);
                let last = read.is_err();
                if filled.send(read.map(|()| Ids { tokens, targets })).is_err() || last {
                    return;
                }
            }
        };
        let reader = thread::Builder::new().name("batches".into()).spawn(read);
        let reader = reader.context("cannot start a thread that reads batches")?;
        Ok(Self { ready, room: Some(room), reader: Some(reader) })
    }

    /// The next batch.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn take(&mut self) -> Result<Ids> {
        Ok(self.ready.recv().context("the thread that reads batches has ended")??)
    }

    /// Gives a batch's memory back for another.
    pub(crate) fn give_back(&self, ids: Ids) {
        if let Some(room) = &self.room {
            // A reader that ended has said why, or nothing more is wanted.
            let _ = room.send(ids);
        }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.room = None;
        if let Some(reader) = self.reader.take() {
            // It panicked: what it read for is over either way.
            let _ = reader.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Arc<Dataset> {
        Arc::new(Dataset::from_tokens("counting", (0..101).collect(), 101).unwrap())
    }

    #[test]
    fn batches_come_in_order_from_any_beginning() {
        let data = data();
        let batches = Batches::new(&data, 5, 3, 7).unwrap();
        for first in [0, 17] {
            let mut loader = Loader::new(Arc::clone(&data), batches.clone(), first).unwrap();
            for index in first..first + 40 {
                let ids = loader.take().unwrap();
                let mut read = (vec![0; 21], vec![0; 21]);
                batches.fill(&data, index, &mut read.0, &mut read.1).unwrap();
                assert_eq!((&ids.tokens, &ids.targets), (&read.0, &read.1), "batch {index}");
                loader.give_back(ids);
            }
        }
    }

    #[test]
    fn no_more_is_read_than_there_is_room_for() {
        let data = data();
        let batches = Batches::new(&data, 5, 3, 7).unwrap();
        let mut loader = Loader::new(Arc::clone(&data), batches, 0).unwrap();
        let taken: Vec<Ids> = (0..AHEAD).map(|_| loader.take().unwrap()).collect();
        assert!(loader.ready.try_recv().is_err(), "all room is in use");
        taken.into_iter().for_each(|ids| loader.give_back(ids));
        loader.take().unwrap();
        drop(loader);
        assert_eq!(Arc::strong_count(&data), 1, "the reader has ended");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_of_its_batch() {
        let data = data();
        // Of a longer text than the one it reads.
        let longer = Dataset::from_tokens("longer", (0..100).cycle().take(10_000).collect(), 101).unwrap();
        let batches = Batches::new(&longer, 5, 3, 7).unwrap();
        let mut loader = Loader::new(data, batches, 0).unwrap();
        let refused = (0..20).find_map(|_| match loader.take() {
            Ok(ids) => {
                loader.give_back(ids);
                None
            }
            Err(error) => Some(error.to_string()),
        });
        assert!(refused.unwrap().contains("14"), "the text has 14 sequences");
        assert!(loader.take().unwrap_err().to_string().contains("has ended"));
    }
}
