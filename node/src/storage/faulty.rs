//! Trouble on purpose, for tests: drops, lost replies, server errors, delays, flipped and missing bytes. A plan decides by
//! what is asked for and how often it was asked, never by time, so that a test does the same each time.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use object_store::client::{HttpError, HttpErrorKind};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::Storage;

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Put,
    Get,
    Head,
    Delete,
}

/// A request as a plan sees it.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "what the plans of tests look at")]
pub(crate) struct Request<'a> {
    pub(crate) action: Action,
    pub(crate) key: &'a str,
    /// How often the same was asked before.
    pub(crate) nth: u64,
}

/// What happens instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "tests make all of it")]
pub(crate) enum Trouble {
    /// The request never arrives.
    Drop,
    /// It is done, and the reply is lost.
    LoseReply,
    /// The server answers with this status and does nothing.
    Status(u16),
    /// It is done later.
    Delay(Duration),
    /// One byte of a download differs.
    Flip(usize),
    /// A download ends after so many bytes.
    Short(usize),
}

type Plan = Box<dyn Fn(&Request<'_>) -> Option<Trouble> + Send + Sync>;

impl Storage {
    /// The same place, with the trouble that `plan` makes; through other handles it stays whole.
    pub(crate) fn with_trouble(
        &self,
        plan: impl Fn(&Request<'_>) -> Option<Trouble> + Send + Sync + 'static,
    ) -> Self {
        let faults = Arc::new(Faults { plan: Box::new(plan), seen: Mutex::default() });
        self.wrapped(|store| Arc::new(Faulty { store, faults }))
    }
}

struct Faulty {
    store: Arc<dyn ObjectStore>,
    faults: Arc<Faults>,
}

struct Faults {
    plan: Plan,
    seen: Mutex<HashMap<(Action, String), u64>>,
}

impl Faults {
    /// Counts the request, asks the plan, and lets happen what comes before the request.
    async fn before(&self, action: Action, path: &Path) -> Result<Option<Trouble>> {
        let key = path.as_ref();
        let nth = {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let count = seen.entry((action, key.to_owned())).or_default();
            *count += 1;
            *count - 1
        };
        let trouble = (self.plan)(&Request { action, key, nth });
        match trouble {
            Some(Trouble::Drop) => Err(broken()),
            Some(Trouble::Status(status)) => Err(replied(status)),
            Some(Trouble::Delay(time)) => {
                tokio::time::sleep(time).await;
                Ok(trouble)
            }
            _ => Ok(trouble),
        }
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let trouble = self.faults.before(Action::Put, path).await?;
        let done = self.store.put_opts(path, payload, options).await?;
        if trouble == Some(Trouble::LoseReply) { Err(broken()) } else { Ok(done) }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let action = if options.head { Action::Head } else { Action::Get };
        let trouble = self.faults.before(action, path).await?;
        let found = self.store.get_opts(path, options).await?;
        match trouble {
            Some(Trouble::LoseReply) => Err(broken()),
            Some(trouble @ (Trouble::Flip(_) | Trouble::Short(_))) => spoilt(found, trouble).await,
            _ => Ok(found),
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (store, faults) = (Arc::clone(&self.store), Arc::clone(&self.faults));
        let delete = move |path: Result<Path>| {
            let (store, faults) = (Arc::clone(&store), Arc::clone(&faults));
            async move {
                let path = path?;
                let trouble = faults.before(Action::Delete, &path).await?;
                store.delete(&path).await?;
                if trouble == Some(Trouble::LoseReply) { Err(broken()) } else { Ok(path) }
            }
        };
        paths.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

async fn spoilt(found: GetResult, trouble: Trouble) -> Result<GetResult> {
    let (meta, range, attributes) = (found.meta.clone(), found.range.clone(), found.attributes.clone());
    let parts: Vec<Bytes> = found.into_stream().try_collect().await?;
    let mut bytes = parts.concat();
    match trouble {
        Trouble::Flip(at) => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1),
        Trouble::Short(length) => bytes.truncate(length),
        _ => {}
    }
    let payload = GetResultPayload::Stream(stream::once(async { Ok(Bytes::from(bytes)) }).boxed());
    Ok(GetResult { payload, meta, range, attributes, extensions: Default::default() })
}

fn broken() -> Error {
    let why = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    Error::Generic { store: "faulty", source: Box::new(HttpError::new(HttpErrorKind::Interrupted, why)) }
}

/// Worded as the S3 client words it.
fn replied(status: u16) -> Error {
    if status == 404 {
        return Error::NotFound { path: String::new(), source: "404".into() };
    }
    let text = format!("Server returned non-2xx status code: {status}");
    Error::Generic { store: "faulty", source: text.into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.store)
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
