//! Reading, within a size and a time.

use std::time::{Duration, Instant};

use futures_util::stream::FuturesUnordered;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{GetResult, ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::patience::within;
use super::{Cause, Fault, Meta, Storage, path};

/// Downloads at a time in [`Storage::fetch_many`]: more than a subnet has slots, so that peers that stall hold nobody up,
/// and fewer than the files a process may open.
const AT_ONCE: usize = 512;
/// Bytes of a small object; a larger one takes the place of so many: they share a line, on which each must come in time.
const SMALL: u64 = 1 << 16;
const PLACES_OF_LARGE: u32 = 16;
/// Longer than any deadline.
const NEVER: Duration = Duration::from_secs(1 << 30);
/// Most objects that a listing gives: a bucket of others may list for ever.
#[allow(dead_code, reason = "for tools")]
const MAX_LISTED: usize = 1_000_000;

/// An object with what the store said of it in the same reply; two requests could be answered differently.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) meta: Meta,
}

/// An object to read: where it lies, its key, and how many bytes it has at most.
pub(crate) type Wanted = (Storage, String, u64);

/// What came of reading one.
pub(crate) type Found = Result<Fetched, Fault>;

/// What a reader makes of an object that came, or did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    Good,
    /// It must be had elsewhere.
    Bad,
    /// No other is needed any more.
    Enough,
}

/// Reads one of many, and gives its place with it. It owns what it reads, so that futures of it can stand side by side.
fn read_one(
    (at, wanted): (usize, &Wanted),
    deadline: Instant,
) -> impl Future<Output = (usize, Found)> + use<> {
    let (storage, key, limit) = wanted.clone();
    async move { (at, storage.read(&key, limit, deadline).await) }
}

impl Storage {
    /// Reads an object of at most `limit` bytes. The size is looked at before the content is taken.
    pub(crate) fn get(&self, key: &str, limit: u64) -> Result<Vec<u8>, Fault> {
        self.fetch(key, limit).map(|found| found.bytes)
    }

    /// [`Self::get`] with size and time.
    pub(crate) fn fetch(&self, key: &str, limit: u64) -> Result<Fetched, Fault> {
        self.wait(self.read(key, limit, self.patience.deadline(limit)))
    }

    /// Reads many objects at once. Results stand in the order of `wanted`; what is not there by `deadline` is unknown.
    pub(crate) fn fetch_many(wanted: &[Wanted], deadline: Instant) -> Vec<Found> {
        let mut results = vec![Err(Fault::Unknown(Cause::TimeOut)); wanted.len()];
        let room = Semaphore::new(AT_ONCE);
        let read = |wanted: (usize, &Wanted)| {
            let (at, places) = (wanted.0, if wanted.1.2 > SMALL { PLACES_OF_LARGE } else { 1 });
            let (read, room) = (read_one(wanted, deadline), &room);
            async move {
                let waiting = deadline.saturating_duration_since(Instant::now());
                match timeout(waiting, room.acquire_many(places)).await {
                    Ok(Ok(_held)) => read.await,
                    _ => (at, Err(Fault::Unknown(Cause::TimeOut))),
                }
            }
        };
        // Unordered: a slow one at the front must not keep those behind it from starting.
        let reads = stream::iter(wanted.iter().enumerate().map(read)).buffer_unordered(AT_ONCE);
        match super::runtime() {
            Ok(runtime) => {
                let found: Vec<_> = runtime.block_on(reads.collect());
                found.into_iter().for_each(|(at, result)| results[at] = result);
            }
            Err(fault) => results.fill(Err(fault)),
        }
        results
    }

    /// Reads all of `wanted` at once and, where one of them is not good or nothing comes for a while, of `instead` one
    /// after the other. `hear` is told what came of each, by its place, those of `instead` behind those of `wanted`. Ends
    /// when it has heard enough, when all have answered, or by `deadline`: what is slow and not needed holds nobody up.
    pub(crate) fn fetch_either(
        wanted: &[Wanted],
        instead: &[Wanted],
        deadline: Instant,
        mut hear: impl FnMut(usize, Found) -> Heard,
    ) -> Result<(), Fault> {
        let read = |wanted| read_one(wanted, deadline);
        let all = async {
            let mut running: FuturesUnordered<_> = wanted.iter().enumerate().map(&read).collect();
            let (mut held, mut trying) = (instead.iter(), 0_usize);
            loop {
                let after =
                    held.as_slice().first().map_or(NEVER, |(storage, ..)| storage.patience.while_waiting());
                let heard = match timeout(after, running.next()).await {
                    Ok(Some((at, found))) => {
                        trying = trying.saturating_sub(usize::from(at >= wanted.len()));
                        hear(at, found)
                    }
                    Ok(None) if held.len() == 0 => break,
                    Ok(None) | Err(_) => {
                        trying = 0;
                        Heard::Bad
                    }
                };
                match heard {
                    Heard::Enough => break,
                    Heard::Bad if trying == 0 => {
                        let at = wanted.len() + instead.len() - held.len();
                        if let Some(next) = held.next() {
                            trying += 1;
                            running.push(read((at, next)));
                        }
                    }
                    Heard::Good | Heard::Bad => {}
                }
            }
        };
        super::runtime()?.block_on(all);
        Ok(())
    }

    /// Size and time of an object.
    pub(crate) fn head(&self, key: &str) -> Result<Meta, Fault> {
        let path = path(key)?;
        let request = || async {
            let limit = self.patience.request(0);
            within(limit, async { self.store.head(&path).await.map_err(|e| Fault::of(&e)) }).await
        };
        let found = self.wait(self.patience.insist(self.patience.deadline(0), request))?;
        Ok(self.meta(&found))
    }

    /// All objects below `prefix` (whole segments), by key. For tools and retention: a run derives its keys.
    #[allow(dead_code, reason = "for tools")]
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<(String, Meta)>, Fault> {
        let path = path(prefix)?;
        let request = || async {
            let listed = self.store.list(Some(&path)).take(MAX_LISTED).try_collect::<Vec<_>>();
            within(self.patience.request(1 << 28), async { listed.await.map_err(|e| Fault::of(&e)) }).await
        };
        let found = self.wait(self.patience.insist(self.patience.deadline(1 << 28), request))?;
        let mut found: Vec<_> = found.iter().map(|o| (o.location.to_string(), self.meta(o))).collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(found)
    }

    pub(super) async fn read(&self, key: &str, limit: u64, deadline: Instant) -> Result<Fetched, Fault> {
        let path = path(key)?;
        self.patience.insist(deadline, || self.read_once(&path, limit)).await
    }

    async fn read_once(&self, path: &Path, limit: u64) -> Result<Fetched, Fault> {
        let opened = async { self.store.get(path).await.map_err(|e| Fault::of(&e)) };
        let found = within(self.patience.request(0), opened).await?;
        let size = found.meta.size;
        if size > limit {
            return Err(Fault::TooLarge { size });
        }
        let meta = self.meta(&found.meta);
        let bytes = self.collect(found, size).await?;
        Ok(Fetched { bytes, meta })
    }

    /// Takes exactly the `size` bytes that were announced. Each part must come in the time for what came before it: who
    /// announces much and sends little is not waited for as long as what was announced would take.
    async fn collect(&self, found: GetResult, size: u64) -> Result<Vec<u8>, Fault> {
        let size = usize::try_from(size).map_err(|_| Fault::TooLarge { size })?;
        let mut bytes = Vec::with_capacity(size);
        let mut parts = found.into_stream();
        let begun = Instant::now();
        loop {
            let allowed = self.patience.request(bytes.len() as u64).saturating_sub(begun.elapsed());
            let next = async { Ok(parts.next().await) };
            let Some(part) = within(allowed, next).await? else { break };
            let part = part.map_err(|e| Fault::of(&e))?;
            if bytes.len() + part.len() > size {
                return Err(Fault::Unknown(Cause::Other("more bytes came than were announced".to_owned())));
            }
            bytes.extend_from_slice(&part);
        }
        if bytes.len() < size {
            return Err(Fault::Unknown(Cause::Connection));
        }
        Ok(bytes)
    }
}
