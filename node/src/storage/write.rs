//! Writing: single puts, so that an object's time is that of its arrival (a multipart upload is stamped with its start).

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
        let done = match self.wait(self.patience.insist(deadline, put)) {
            // The reply may be lost though the object is there.
            Err(fault) if fault.is_passing() => match self.wait(self.holds(key, bytes)) {
                Ok(true) => Ok(()),
                _ => Err(fault),
            },
            done => done,
        };
        if done.is_ok() {
            self.stamp(key);
        }
        done
    }

    /// Puts an object where there is none; the same object again is fine. Errors: [`Fault::Exists`] for another one.
    /// Some stores ignore the condition, so two writers at the same moment may both succeed: nothing may rest on it
    /// but a writer's own care not to contradict itself.
    #[allow(dead_code, reason = "for nodes in processes of their own")]
    pub(crate) fn put_new(&self, key: &str, bytes: &[u8]) -> Result<(), Fault> {
        let (path, payload) = (path(key)?, Bytes::copy_from_slice(bytes));
        self.wait(self.create(key, &path, bytes, &payload))
    }

    #[allow(dead_code, reason = "see put_new")]
    async fn create(&self, key: &str, path: &Path, bytes: &[u8], payload: &Bytes) -> Result<(), Fault> {
        let mut last = Fault::Absent;
        for _ in 0..self.patience.tries.max(1) {
            match self.holds(key, bytes).await {
                Err(Fault::Absent) => {}
                found => return judge(found),
            }
            match self.put_once(path, payload, PutMode::Create).await {
                Ok(()) => {
                    self.stamp(key);
                    return Ok(());
                }
                // Ours, if a reply was lost; another writer's, if not: the next turn looks.
                Err(fault) if fault.is_passing() || fault == Fault::Exists => last = fault,
                Err(fault) => return Err(fault),
            }
            tokio::time::sleep(self.patience.pause).await;
        }
        match self.holds(key, bytes).await {
            Err(Fault::Absent) => Err(last),
            found => judge(found),
        }
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

    /// Deletes what `hotkey` may have put here in `window`, but for the record, by derived keys.
    pub(crate) fn forget(&self, keys: &Keys, hotkey: &Hotkey, window: u64) -> Result<(), Fault> {
        self.delete(&keys.passing(window, hotkey))
    }

    /// Whether exactly this object is there.
    async fn holds(&self, key: &str, bytes: &[u8]) -> Result<bool, Fault> {
        let size = bytes.len() as u64;
        match self.read(key, size, self.patience.deadline(size)).await {
            Ok(found) => Ok(found.bytes == bytes),
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
        let fault = |e: Error| match Fault::of(&e) {
            // The bucket itself is missing.
            Fault::Absent => Fault::Unknown(Cause::Other(format!("{self} does not exist"))),
            fault => fault,
        };
        within(limit, async { done.await.map(|_| ()).map_err(fault) }).await
    }

    fn stamp(&self, key: &str) {
        if let Some(stamps) = &self.stamps {
            stamps.set(key);
        }
    }
}

/// What a create-only put comes to when something is found under its key.
#[allow(dead_code, reason = "see put_new")]
fn judge(found: Result<bool, Fault>) -> Result<(), Fault> {
    if found? { Ok(()) } else { Err(Fault::Exists) }
}
