//! Where objects are kept and read: memory, a directory, or S3 (PROTOCOL sections 5, 6.0 and 8).
//!
//! Keys are derived ([`keys`]), so nothing is listed while a run goes on. A read never holds more than its limit, ends by
//! its deadline, and says whether the object is bad or nothing is known of it ([`Fault`]). What is read is *not* trusted:
//! stores do not notice a flipped bit, so whoever reads compares the hash.
//!
//! The calls are synchronous and drive a runtime of this module's own; async code must call them from a blocking thread.

mod fault;
mod faulty;
pub(crate) mod keys;
mod layered;
mod open;
mod patience;
mod read;
pub(crate) mod ss58;
mod stamps;
#[cfg(test)]
mod tests;
mod write;

pub(crate) use fault::{Cause, Fault};
pub(crate) use faulty::Trouble;
pub(crate) use keys::Keys;
pub(crate) use open::StoreOptions;
pub(crate) use patience::Patience;
pub(crate) use read::{Found, Heard, Wanted};

use std::sync::{Arc, OnceLock};

use object_store::ObjectStore;
use object_store::path::Path;
use tokio::runtime::{Builder, Runtime};

use stamps::Stamps;

/// A place for objects; clones are the same place.
#[derive(Clone)]
pub(crate) struct Storage {
    store: Arc<dyn ObjectStore>,
    /// Without secrets.
    name: Arc<str>,
    patience: Patience,
    stamps: Option<Arc<Stamps>>,
}

/// What is known of an object without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Bytes.
    pub(crate) size: u64,
    /// By the store's clock, in whole seconds since 1970, truncated (PROTOCOL section 8).
    pub(crate) last_modified: u64,
}

impl Storage {
    /// The same place with other patience.
    pub(crate) fn with_patience(&self, patience: Patience) -> Self {
        Self { patience, ..self.clone() }
    }

    /// Finishes a request on the shared runtime.
    fn wait<T>(&self, request: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        runtime()?.block_on(request)
    }

    fn meta(&self, found: &object_store::ObjectMeta) -> Meta {
        let stamp = self.stamps.as_ref().and_then(|stamps| stamps.get(found.location.as_ref()));
        let seconds = || u64::try_from(found.last_modified.timestamp()).unwrap_or(0);
        Meta { size: found.size, last_modified: stamp.unwrap_or_else(seconds) }
    }
}

impl std::fmt::Display for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Storage({self})")
    }
}

/// Longest key, in bytes; S3 takes 1,024 with the prefix.
const MAX_KEY: usize = 512;

/// Checks a key and turns it into a path. The alphabet is what every store and file system keeps as it is; a segment of
/// dots would leave the place.
fn path(key: &str) -> Result<Path, Fault> {
    let plain = |segment: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        !segment.is_empty() && segment.bytes().all(inside) && !segment.bytes().all(|b| b == b'.')
    };
    let bad = || Fault::Key(key.chars().take(100).collect());
    if key.len() > MAX_KEY || !key.split('/').all(plain) {
        return Err(bad());
    }
    Path::parse(key).map_err(|_| bad())
}

/// Requests of all storages share these threads: they wait, they do not compute.
fn runtime() -> Result<&'static Runtime, Fault> {
    static RUNTIME: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let build = || Builder::new_multi_thread().worker_threads(2).thread_name("storage").enable_all().build();
    let failed = |e: &std::io::Error| Fault::Unknown(Cause::Other(format!("no threads for requests: {e}")));
    RUNTIME.get_or_init(build).as_ref().map_err(failed)
}
