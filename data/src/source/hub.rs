//! Datasets of the Hugging Face Hub: `hf:owner/name[@revision][:path]`.
//!
//! The repository is listed once; its commit then names every download, so a moving branch cannot mix two
//! versions. Files are fetched when their turn comes and stay in the cache folder.

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use serde::Deserialize;

use super::input::{Format, Input, Place};
use super::{Source, SourceOptions};
use crate::error::{Error, Result};
use crate::progress::Progress;

/// Attempts to continue a broken download.
const RETRIES: usize = 5;

/// How often a download that says nothing looks whether it shall stop.
const STOP_WITHIN: Duration = Duration::from_millis(500);

/// The largest datasets list some ten thousand files, 100 bytes each.
const MAX_LISTING: u64 = 256 << 20;

/// How to reach the Hub.
#[derive(Clone)]
pub struct HubOptions {
    /// Address without a final slash, `https://huggingface.co` unless it is a mirror.
    pub endpoint: String,
    /// Token for gated or private datasets.
    pub token: Option<String>,
    /// Folder downloads are kept in, laid out as Hugging Face's own; by default in the working folder.
    pub cache: PathBuf,
    /// How long nothing may come before a request is given up.
    pub patience: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        let cache = PathBuf::from(".gauntlet/hub");
        let patience = Duration::from_secs(60);
        Self { endpoint: "https://huggingface.co".to_owned(), token: None, cache, patience }
    }
}

/// The token stays out of logs.
impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("token", &token)
            .field("cache", &self.cache)
            .field("patience", &self.patience)
            .finish()
    }
}

/// The Hub's description of a repository, as far as it is needed.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<ListedFile>,
}

#[derive(Deserialize)]
struct ListedFile {
    rfilename: String,
    size: Option<u64>,
}

/// A dataset repository at one commit.
pub(super) struct Repository {
    api: Api,
    cache: Cache,
    endpoint: String,
    id: String,
    commit: String,
    patience: Duration,
}

/// What a download says while it runs.
enum News {
    Bytes,
    Done(std::result::Result<PathBuf, ApiError>),
}

/// Tells that bytes came.
struct Pulse(mpsc::Sender<News>);

impl hf_hub::api::Progress for Pulse {
    fn init(&mut self, _size: usize, _file: &str) {}

    fn update(&mut self, _size: usize) {
        // Nobody listens any more once the download has been given up.
        let _ = self.0.send(News::Bytes);
    }

    fn finish(&mut self) {}
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{} at {}", self.id, self.commit, self.endpoint)
    }
}

impl Repository {
    pub(super) fn commit(&self) -> &str {
        &self.commit
    }

    /// The local copy of `input`, downloaded unless it is cached.
    ///
    /// # Errors
    /// [`Error::Hub`]: nothing came for too long, or not the bytes that were listed; [`Error::Stopped`].
    pub(super) fn fetch(&self, input: &Input, progress: &dyn Progress) -> Result<PathBuf> {
        let failed = |message: String| Error::Hub {
            what: format!("{} of dataset {}", input.name, self.id),
            endpoint: self.endpoint.clone(),
            message: format!("{message}; check network and access, then run again: finished files are kept"),
        };
        let cached = self.cache.repo(repo(&self.id, &self.commit)).get(&input.name);
        let path = match cached {
            Some(path) => path,
            None => self.download(&input.name, progress)?.map_err(failed)?,
        };
        // The client continues broken downloads without looking at what they add up to.
        let bytes = std::fs::metadata(&path).map_err(Error::io(&path, "read"))?.len();
        if input.bytes > 0 && bytes != input.bytes {
            let whole = path.canonicalize().map_err(Error::io(&path, "read"))?;
            for wrong in [&whole, &path] {
                // Whatever cannot be removed is found again next time.
                let _ = std::fs::remove_file(wrong);
            }
            return Err(failed(format!("{bytes} bytes came, {} are listed", input.bytes)));
        }
        Ok(path)
    }

    /// Downloads `file`; the inner error says what went wrong.
    ///
    /// The client itself waits for ever, and panics at some answers: it runs in a thread of its own, which is
    /// left behind when nothing comes for too long.
    fn download(&self, file: &str, progress: &dyn Progress) -> Result<std::result::Result<PathBuf, String>> {
        let (sender, news) = mpsc::channel();
        let (handle, name) = (handle(&self.api, &self.id, &self.commit), file.to_owned());
        std::thread::spawn(move || {
            let result = handle.download_with_progress(&name, Pulse(sender.clone()));
            let _ = sender.send(News::Done(result));
        });
        let slice = self.patience.min(STOP_WITHIN);
        let mut silence = Duration::ZERO;
        loop {
            if progress.stopped() {
                return Err(Error::Stopped);
            }
            match news.recv_timeout(slice) {
                Ok(News::Bytes) => silence = Duration::ZERO,
                Ok(News::Done(result)) => return Ok(result.map_err(|e| e.to_string())),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Ok(Err("an answer that cannot be read".to_owned()));
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    silence += slice;
                    if silence >= self.patience {
                        return Ok(Err(format!("nothing came for {:?}", self.patience)));
                    }
                }
            }
        }
    }
}

/// Lists the dataset of `spec` (`location` without `hf:`).
pub(super) fn list(location: &str, spec: &str, options: &SourceOptions) -> Result<Source> {
    let spec = Spec::parse(location, spec)?;
    let HubOptions { endpoint, token, cache, patience } = &options.hub;
    let endpoint = endpoint.trim_end_matches('/').to_owned();
    let failed = |message: String| Error::Hub {
        what: format!("listing of dataset {}", spec.id),
        endpoint: endpoint.clone(),
        message: format!("{message}; check the name, the revision, network and access"),
    };
    let cache = Cache::new(cache.clone());
    let api = ApiBuilder::from_cache(cache.clone())
        .with_endpoint(endpoint.clone())
        .with_token(token.clone())
        .with_progress(false)
        .with_retries(RETRIES)
        .build()
        .map_err(|e| failed(e.to_string()))?;
    let request = handle(&api, &spec.id, &spec.revision).info_request().query("blobs", "true");
    let request = request
        .config()
        .timeout_connect(Some(*patience))
        .timeout_recv_response(Some(*patience))
        .timeout_recv_body(Some(10 * *patience))
        .build();
    let mut response = request.call().map_err(|e| failed(e.to_string()))?;
    let body = response.body_mut().with_config().limit(MAX_LISTING);
    let info: Listing = body.read_json().map_err(|e| failed(e.to_string()))?;
    // The commit becomes part of paths in the cache.
    if info.sha.is_empty() || !info.sha.chars().all(|c| c.is_ascii_alphanumeric()) {
        return Err(failed(format!("the Hub names commit `{}`, which is none", info.sha)));
    }
    let repo = Arc::new(Repository {
        api,
        cache,
        endpoint: endpoint.clone(),
        id: spec.id.clone(),
        commit: info.sha,
        patience: *patience,
    });
    let (inputs, skipped) = inputs(&repo, info.siblings, &spec.prefix);
    let path = if spec.prefix.is_empty() { String::new() } else { format!(":{}", spec.prefix) };
    Source::new(format!("hf:{}@{}{path}", spec.id, repo.commit), inputs, skipped, options)
}

/// Readable files below `prefix`, and the number of others.
fn inputs(repo: &Arc<Repository>, files: Vec<ListedFile>, prefix: &str) -> (Vec<Input>, u64) {
    let (mut inputs, mut skipped) = (Vec::new(), 0);
    for ListedFile { rfilename: name, size } in files {
        let below = prefix.is_empty() || name == prefix || {
            let rest = name.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.starts_with('/'))
        };
        // Cards and licences are Markdown and text too, but not data.
        let card = !name.contains('/') && (name.ends_with(".md") || name.eq_ignore_ascii_case("license.txt"));
        match Format::of(&name) {
            Some(format) if below && !card && is_relative(&name) => {
                let place = Place::Hub(Arc::clone(repo));
                inputs.push(Input { name, format, bytes: size.unwrap_or(0), place });
            }
            _ => skipped += 1,
        }
    }
    (inputs, skipped)
}

fn handle(api: &Api, id: &str, revision: &str) -> ApiRepo {
    api.repo(repo(id, revision))
}

fn repo(id: &str, revision: &str) -> Repo {
    Repo::with_revision(id.to_owned(), RepoType::Dataset, revision.to_owned())
}

/// The name stays inside the cache folder whatever a server says.
fn is_relative(name: &str) -> bool {
    !name.contains('\\') && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// The parts of `owner/name[@revision][:path]`.
#[derive(Debug, PartialEq, Eq)]
struct Spec {
    id: String,
    revision: String,
    prefix: String,
}

impl Spec {
    fn parse(location: &str, spec: &str) -> Result<Self> {
        let bad = |message| Error::HubSpec { spec: location.to_owned(), message };
        let (rest, prefix) = spec.split_once(':').unwrap_or((spec, ""));
        let (id, revision) = rest.split_once('@').unwrap_or((rest, "main"));
        let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let parts: Vec<&str> = id.split('/').collect();
        let named = |part: &&str| !part.is_empty() && part.chars().all(legal) && !part.contains("..");
        if parts.len() != 2 || !parts.iter().all(named) {
            return Err(bad("give the dataset as owner/name"));
        }
        if revision.is_empty() || !is_relative(revision) {
            return Err(bad("the revision is a branch, a tag or a commit"));
        }
        if !prefix.is_empty() && !is_relative(prefix.trim_end_matches('/')) {
            return Err(bad("the path is relative, without `..`"));
        }
        Ok(Self { id: id.to_owned(), revision: revision.to_owned(), prefix: prefix.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs() {
        let spec = |s: &str| Spec::parse(s, s);
        let full = spec("HuggingFaceFW/fineweb-edu@refs/convert/parquet:sample/10BT").unwrap();
        assert_eq!(full.id, "HuggingFaceFW/fineweb-edu");
        assert_eq!(full.revision, "refs/convert/parquet");
        assert_eq!(full.prefix, "sample/10BT");
        assert_eq!(spec("a/b").unwrap().revision, "main");
        for wrong in ["", "a", "a/b/c", "a/b@", "a/b:../c", "a/b:/c", "../b", "a/b@../x", "a b/c"] {
            assert!(matches!(spec(wrong), Err(Error::HubSpec { .. })), "{wrong}");
        }
    }

    #[test]
    fn the_token_is_not_printed() {
        let options = HubOptions { token: Some("secret".to_owned()), ..HubOptions::default() };
        assert!(!format!("{options:?}").contains("secret"));
    }
}
