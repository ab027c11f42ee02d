//! One place in front of another: what is put lies in the first, and what is not there is read from the second. Simulations
//! make of it the second face of who shows some readers something else.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::Storage;

impl Storage {
    /// This place in front of `behind`, with the times of both.
    pub(crate) fn in_front_of(&self, behind: &Self) -> Self {
        let below = Arc::clone(&behind.store);
        let front = self.wrapped(|store| Arc::new(Layered { front: store, behind: below }));
        Self { stamps: behind.stamps.clone(), ..front }
    }
}

struct Layered {
    front: Arc<dyn ObjectStore>,
    behind: Arc<dyn ObjectStore>,
}

#[async_trait]
impl ObjectStore for Layered {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.front.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.front.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        match self.front.get_opts(path, options.clone()).await {
            Err(Error::NotFound { .. }) => self.behind.get_opts(path, options).await,
            found => found,
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.front.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.front.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.front.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.front.copy_opts(from, to, options).await
    }
}

impl fmt::Display for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Layered({}, {})", self.front, self.behind)
    }
}

impl fmt::Debug for Layered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
