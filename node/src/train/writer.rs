//! Checkpoints written while training goes on: what was copied from a device is written by a thread of its own, what lies on
//! the host at once. One is written at a time, in order.

use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow};

use super::checkpoint::{self, Parts};

/// Writes checkpoints of a run.
#[derive(Default)]
pub(crate) struct Writer {
    running: Option<JoinHandle<Result<PathBuf>>>,
    newest: Option<PathBuf>,
}

impl Writer {
    /// Writes a checkpoint under `run`, keeping the newest `keep`, once the one before is written.
    ///
    /// # Errors
    /// When this one, or the one before, cannot be written.
    pub(crate) fn save(&mut self, run: &Path, parts: Parts<'_>, keep: usize) -> Result<()> {
        self.wait()?;
        if !parts.copied() {
            self.newest = Some(checkpoint::save(run, &parts, keep)?);
            return Ok(());
        }
        let (run, parts) = (run.to_path_buf(), parts.into_owned());
        let write = move || checkpoint::save(&run, &parts, keep);
        let running = thread::Builder::new().name("checkpoint".into()).spawn(write);
        self.running = Some(running.context("cannot start a thread that writes checkpoints")?);
        Ok(())
    }

    /// Waits for the checkpoint that is being written.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn wait(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            let written = running.join().map_err(|_| anyhow!("writing a checkpoint ended unexpectedly"))?;
            self.newest = Some(written?);
        }
        Ok(())
    }

    /// Waits, and gives the newest checkpoint's folder.
    ///
    /// # Errors
    /// As [`Self::wait`], and when none was written.
    pub(crate) fn finish(&mut self) -> Result<PathBuf> {
        self.wait()?;
        self.newest.clone().context("no checkpoint was written")
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // A run that fails elsewhere still leaves its last checkpoint whole; the first error is the one that matters.
        let _ = self.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use crate::train::settings::Settings;
    use gauntlet_data::Tokenizer;
    use gauntlet_model::{Layout, LlamaConfig, preset};

    fn parts(values: Cow<'_, [f32]>, step: u64) -> Parts<'_> {
        let config = LlamaConfig { n_layers: 1, ..preset("byte-1m").unwrap() };
        let optimizer = vec![("m".to_owned(), values.clone())];
        let (layout, tokenizer, corpus) = (Layout::new(&config), Tokenizer::bytes(), "c".to_owned());
        let settings = Settings::default();
        Parts { step, config, layout, theta: values, optimizer, tokenizer, corpus, settings }
    }

    fn values() -> Vec<f32> {
        let config = LlamaConfig { n_layers: 1, ..preset("byte-1m").unwrap() };
        (0..Layout::new(&config).total()).map(|i| (i % 1000) as f32).collect()
    }

    #[test]
    fn a_thread_writes_the_same_files_in_order() {
        let (values, folder) = (values(), tempfile::tempdir().unwrap());
        let (now, later) = (folder.path().join("now"), folder.path().join("later"));
        let (mut here, mut there) = (Writer::default(), Writer::default());
        for step in [5, 6, 7] {
            here.save(&now, parts(Cow::Borrowed(&values), step), 2).unwrap();
            assert!(here.running.is_none(), "what is borrowed is written at once");
            there.save(&later, parts(Cow::Owned(values.clone()), step), 2).unwrap();
            assert!(there.running.is_some());
        }
        let (here, there) = (here.finish().unwrap(), there.finish().unwrap());
        assert!(there.ends_with("step-0000000007"));
        for file in ["config.json", "model.safetensors", "optimizer.m.bin", "state.json"] {
            assert!(
                std::fs::read(here.join(file)).unwrap() == std::fs::read(there.join(file)).unwrap(),
                "{file}"
            );
        }
        let left = |run: &Path| std::fs::read_dir(run.join("checkpoints")).unwrap().count();
        assert_eq!((left(&now), left(&later)), (2, 2));
    }

    #[test]
    fn what_cannot_be_written_is_said_at_the_next_turn() {
        let (values, folder) = (values(), tempfile::tempdir().unwrap());
        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let mut writer = Writer::default();
        writer.save(&file, parts(Cow::Owned(values.clone()), 1), 2).unwrap();
        let refused = writer.save(folder.path(), parts(Cow::Owned(values), 2), 2).unwrap_err();
        assert!(format!("{refused:#}").contains("cannot create"), "{refused:#}");
        assert!(writer.finish().unwrap_err().to_string().contains("no checkpoint"));
    }
}
