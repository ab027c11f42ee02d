//! Writing: single puts, so that an object's time is that of its arrival (a multipart upload is stamped with its start).

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use gauntlet::Hotkey;
use object_store::path::Path;
use object_store::{Error, ObjectStore, PutMode, PutOptions, PutPayload};

use super::patience::within;
use super::{Cause, Fault, Keys, Storage, path};

impl Storage {
    /// Puts an object, over an older one if there is one.
    pub(crate) fn put(&self, key: &str, bytes: &[u8]) -> Result<(), Fault> {
        let (path, payload) = (path(key)?, Bytes::copy_from_slice(bytes));
        let put = || self.put_once(&path, &payload, PutMode::Overwrite);
        let deadline = self.patience.deadline(bytes.len() as u64);
        match self.wait(self.patience.insist(deadline, put)) {
            // The reply may be lost though the object is there.
            Err(fault) if fault.is_passing() && self.holds(key, bytes) == Ok(true) => self.stamp(key),
            Ok(()) => self.stamp(key),
            // The bucket itself is missing.
            Err(Fault::Absent) => Err(Fault::Unknown(Cause::Other(format!("{self} does not exist")))),
            Err(fault) => Err(fault),
        }
    }

    /// Puts an object where there is none; the same object again is fine. Errors: [`Fault::Exists`] for another one.
    /// Some stores ignore the condition, so two writers at the same moment may both succeed: nothing may rest on it
    /// but a writer's own care not to contradict itself.
    pub(crate) fn put_new(&self, key: &str, bytes: &[u8]) -> Result<(), Fault> {
        let (path, payload) = (path(key)?, Bytes::copy_from_slice(bytes));
        for left in (0..self.patience.tries.max(1)).rev() {
            match self.holds(key, bytes) {
                Ok(true) => return Ok(()),
                Ok(false) => return Err(Fault::Exists),
                Err(Fault::Absent) => {}
                Err(fault) => return Err(fault),
            }
            let put = self.put_once(&path, &payload, PutMode::Create);
            match self.wait(put) {
                Ok(()) => return self.stamp(key),
                // Ours, if a reply was lost; another writer's, if not. The next turn looks.
                Err(fault) if left > 0 && (fault.is_passing() || fault == Fault::Exists) => {
                    self.wait(async { Ok(tokio::time::sleep(self.patience.pause).await) })?;
                }
                Err(fault) => return Err(fault),
            }
        }
        Err(Fault::Unknown(Cause::TimeOut))
    }

    /// Deletes objects; those that are not there are no error. What could be deleted is, though others fail.
    pub(crate) fn delete(&self, keys: &[String]) -> Result<(), Fault> {
        let paths = keys.iter().map(|key| path(key)).collect::<Result<Vec<_>, _>>()?;
        if let Some(stamps) = &self.stamps {
            keys.iter().for_each(|key| stamps.remove(key));
        }
        let request = || async {
            let locations = stream::iter(paths.clone()).map(Ok).boxed();
            let done = async { Ok(self.store.delete_stream(locations).collect::<Vec<_>>().await) };
            let done = within(self.patience.base * (1 + paths.len() as u32 / 20), done).await?;
            let fault = |e: &Error| Some(Fault::of(e)).filter(|fault| *fault != Fault::Absent);
            done.iter().filter_map(|one| fault(one.as_ref().err()?)).next().map_or(Ok(()), Err)
        };
        let deadline = self.patience.deadline(self.patience.rate.saturating_mul(keys.len() as u64));
        self.wait(self.patience.insist(deadline, request))
    }

    /// Deletes all that `hotkey` may have put here in `windows`, by derived keys.
    pub(crate) fn forget(&self, keys: &Keys, hotkey: &Hotkey, windows: Range<u64>) -> Result<(), Fault> {
        windows.into_iter().try_for_each(|window| self.delete(&keys.own(window, hotkey)))
    }

    /// Whether exactly this object is there.
    fn holds(&self, key: &str, bytes: &[u8]) -> Result<bool, Fault> {
        match self.get(key, bytes.len() as u64) {
            Ok(found) => Ok(found == bytes),
            Err(Fault::TooLarge { .. }) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn put_once(&self, path: &Path, bytes: &Bytes, mode: PutMode) -> Result<(), Fault> {
        let put = |mode| async {
            let payload = PutPayload::from(bytes.clone());
            self.store.put_opts(path, payload, PutOptions { mode, ..Default::default() }).await
        };
        let done = async {
            match put(mode).await {
                Err(Error::NotImplemented { .. }) => put(PutMode::Overwrite).await,
                done => done,
            }
        };
        let limit = self.patience.request(bytes.len() as u64);
        within(limit, async { done.await.map(|_| ()).map_err(|e| Fault::of(&e)) }).await
    }

    fn stamp(&self, key: &str) -> Result<(), Fault> {
        if let Some(stamps) = &self.stamps {
            stamps.set(key);
        }
        Ok(())
    }
}
