//! From an address to a storage: `memory:`, a path or `file:PATH`, `s3://bucket[/prefix][?endpoint=…&region=…&key=…&secret=…]`.
//!
//! An address that a peer published is another matter than one's own: requests to it are never signed with our keys, go
//! over TLS only, and never reach into this machine, except in a network that runs on one machine.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{Certificate, ClientOptions, ObjectStore, RetryConfig};

use super::stamps::Stamps;
use super::{Patience, Storage};

/// What an S3 address leaves out. Without keys requests are not signed, which reads public buckets.
#[derive(Clone, Default)]
pub(crate) struct StoreOptions {
    /// Of a server other than Amazon's, with `http://` or `https://`.
    pub(crate) endpoint: Option<String>,
    /// `auto` where not said.
    pub(crate) region: Option<String>,
    pub(crate) access_key: Option<String>,
    pub(crate) secret_key: Option<String>,
    pub(crate) session_token: Option<String>,
}

/// Which addresses of others are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "for nodes in processes of their own")]
pub(crate) enum Reach {
    /// S3 over TLS.
    Internet,
    /// Directories and plain HTTP too: a network on one machine.
    Machine,
}

impl StoreOptions {
    /// From `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, `AWS_REGION` or `AWS_DEFAULT_REGION`, `AWS_ACCESS_KEY_ID`,
    /// `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`; empty ones count as not set.
    #[allow(dead_code, reason = "for nodes in processes of their own")]
    pub(crate) fn from_env() -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            endpoint: get("AWS_ENDPOINT_URL_S3").or_else(|| get("AWS_ENDPOINT_URL")),
            region: get("AWS_REGION").or_else(|| get("AWS_DEFAULT_REGION")),
            access_key: get("AWS_ACCESS_KEY_ID"),
            secret_key: get("AWS_SECRET_ACCESS_KEY"),
            session_token: get("AWS_SESSION_TOKEN"),
        }
    }
}

impl Storage {
    /// Opens a place of one's own. A directory is made where there is none. Errors name the address and its fault.
    pub(crate) fn open(url: &str, options: &StoreOptions) -> Result<Self> {
        match Address::parse(url)? {
            Address::Memory => Ok(Self::memory()),
            Address::Folder(path) => {
                std::fs::create_dir_all(path).with_context(|| format!("cannot make the folder {path}"))?;
                Self::folder(path)
            }
            Address::S3(address) => Self::s3(&address, options, Plain::Allowed),
        }
    }

    /// Opens a place that somebody else published. Nothing is made, and only what stands in the address is used.
    #[allow(dead_code, reason = "for nodes in processes of their own")]
    pub(crate) fn published(url: &str, reach: Reach) -> Result<Self> {
        match (Address::parse(url)?, reach) {
            (Address::S3(address), Reach::Internet) => {
                Self::s3(&address, &StoreOptions::default(), Plain::Refused)
            }
            (Address::S3(address), Reach::Machine) => {
                Self::s3(&address, &StoreOptions::default(), Plain::Allowed)
            }
            (Address::Folder(path), Reach::Machine) => Self::folder(path),
            _ => bail!("{} is no address that other machines can read; publish s3://…", shown(url)),
        }
    }

    /// An empty place in memory.
    pub(crate) fn memory() -> Self {
        Self::new(Arc::new(InMemory::new()), "memory:".to_owned())
    }

    /// The same place, with the times of what is put through it by a clock in milliseconds, as a simulation keeps it.
    pub(crate) fn with_clock(&self, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { stamps: Some(Arc::new(Stamps::new(Box::new(now_ms)))), ..self.clone() }
    }

    fn folder(path: &str) -> Result<Self> {
        let store = LocalFileSystem::new_with_prefix(Path::new(path))
            .with_context(|| format!("cannot use {path} as a folder for objects"))?;
        ensure!(Path::new(path).is_dir(), "{path} is not a folder");
        Ok(Self::new(Arc::new(store.with_automatic_cleanup(true)), format!("file:{path}")))
    }

    fn s3(address: &S3, options: &StoreOptions, plain: Plain) -> Result<Self> {
        let store = client(address, options, plain).with_context(|| format!("address {}", address.name()))?;
        let store: Arc<dyn ObjectStore> = match address.prefix {
            "" => Arc::new(store),
            prefix => Arc::new(PrefixStore::new(store, prefix)),
        };
        Ok(Self::new(store, address.name()))
    }

    fn new(store: Arc<dyn ObjectStore>, name: String) -> Self {
        Self { store, name: name.into(), patience: Patience::default(), stamps: None }
    }

    /// The same place behind another store, which wraps its own.
    pub(super) fn wrapped(&self, wrap: impl FnOnce(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        Self { store: wrap(Arc::clone(&self.store)), ..self.clone() }
    }
}

/// Whether requests may go without TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    Allowed,
    #[allow(dead_code, reason = "for nodes in processes of their own")]
    Refused,
}

#[derive(Debug, PartialEq)]
enum Address<'a> {
    Memory,
    Folder(&'a str),
    S3(S3<'a>),
}

#[derive(Debug, Default, PartialEq)]
struct S3<'a> {
    bucket: &'a str,
    prefix: &'a str,
    endpoint: Option<&'a str>,
    region: Option<&'a str>,
    key: Option<&'a str>,
    secret: Option<&'a str>,
}

impl<'a> Address<'a> {
    fn parse(url: &'a str) -> Result<Self> {
        ensure!(!url.is_empty(), "the address of the storage is empty; give a folder, or s3://bucket");
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        if let Some(rest) = url.strip_prefix("s3://") {
            return S3::parse(rest).with_context(|| format!("address {}", shown(url))).map(Self::S3);
        }
        let path = url.strip_prefix("file://").or_else(|| url.strip_prefix("file:")).unwrap_or(url);
        ensure!(
            !path.contains("://"),
            "{}: known are memory:, a folder, file:PATH and s3://bucket",
            shown(url)
        );
        ensure!(!path.is_empty(), "{url} names no folder");
        Ok(Self::Folder(path))
    }
}

impl<'a> S3<'a> {
    /// Values of the query stand as they are; `+`, `/` and `=` of keys need no escape.
    fn parse(rest: &'a str) -> Result<Self> {
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
        ensure!(
            (3..=63).contains(&bucket.len()) && bucket.bytes().all(letters),
            "{bucket:?} is not the name of a bucket"
        );
        let prefix = prefix.trim_end_matches('/');
        ensure!(prefix.is_empty() || super::path(prefix).is_ok(), "{prefix:?} cannot begin a key");
        let mut found = Self { bucket, prefix, ..Self::default() };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match name {
                "endpoint" => &mut found.endpoint,
                "region" => &mut found.region,
                "key" => &mut found.key,
                "secret" => &mut found.secret,
                _ => bail!("{name:?} is not one of endpoint, region, key, secret"),
            };
            *slot = Some(value).filter(|value| !value.is_empty());
        }
        Ok(found)
    }

    /// Without keys.
    fn name(&self) -> String {
        let slash = if self.prefix.is_empty() { "" } else { "/" };
        let at = self.endpoint.map(|e| format!("?endpoint={e}")).unwrap_or_default();
        format!("s3://{}{slash}{}{at}", self.bucket, self.prefix)
    }
}

/// An address as messages show it: what follows the question mark may be a secret.
fn shown(url: &str) -> String {
    url.split('?').next().unwrap_or_default().chars().take(200).collect()
}

fn client(address: &S3<'_>, options: &StoreOptions, plain: Plain) -> Result<AmazonS3> {
    // Fails where a provider is installed already, which then is this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let endpoint = address.endpoint.or(options.endpoint.as_deref());
    let secure = |e: &str| e.starts_with("https://");
    if let Some(endpoint) = endpoint {
        ensure!(
            secure(endpoint) || (plain == Plain::Allowed && endpoint.starts_with("http://")),
            "endpoint {endpoint:?} must begin with https://"
        );
    }
    // Times are limited by `Patience`, request by request, and so are tries: a retry inside would hide what happened.
    let mut http = ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(Duration::from_secs(5))
        .with_allow_http(endpoint.is_some_and(|e| !secure(e)));
    // Beside the system's own.
    for root in webpki_root_certs::TLS_SERVER_ROOT_CERTS {
        http = http.with_root_certificate(Certificate::from_der(root)?);
    }
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(address.bucket)
        .with_region(address.region.or(options.region.as_deref()).unwrap_or("auto"))
        // Some servers have no bulk delete, and a refusal in it has no type.
        .with_disable_bulk_delete(true)
        .with_retry(retry)
        .with_client_options(http);
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    let own = (options.access_key.as_deref(), options.secret_key.as_deref());
    let (keys, token) = match (address.key, address.secret) {
        (None, None) => (own, options.session_token.as_deref()),
        given => (given, None),
    };
    builder = match keys {
        (Some(key), Some(secret)) => builder.with_access_key_id(key).with_secret_access_key(secret),
        (None, None) => builder.with_skip_signature(true),
        (Some(_), None) => bail!("there is an access key but no secret; set AWS_SECRET_ACCESS_KEY"),
        (None, Some(_)) => bail!("there is a secret but no access key; set AWS_ACCESS_KEY_ID"),
    };
    if let Some(token) = token.filter(|_| keys.0.is_some()) {
        builder = builder.with_token(token);
    }
    Ok(builder.build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        assert_eq!(Address::parse("memory:").unwrap(), Address::Memory);
        for (url, path) in
            [("a/b", "a/b"), ("file:a", "a"), ("file:///tmp/x", "/tmp/x"), ("/tmp/x y", "/tmp/x y")]
        {
            assert_eq!(Address::parse(url).unwrap(), Address::Folder(path));
        }
        let full =
            "s3://peer-1/some/where?endpoint=http://127.0.0.1:3900&region=garage&key=GK1&secret=a/b+c=";
        let Address::S3(s3) = Address::parse(full).unwrap() else { panic!("not S3") };
        assert_eq!((s3.bucket, s3.prefix, s3.region), ("peer-1", "some/where", Some("garage")));
        assert_eq!((s3.key, s3.secret), (Some("GK1"), Some("a/b+c=")));
        let storage = Storage::open(full, &StoreOptions::default()).unwrap();
        assert_eq!(storage.to_string(), "s3://peer-1/some/where?endpoint=http://127.0.0.1:3900");
    }

    #[test]
    fn bad_addresses_are_named_without_secrets() {
        let options = StoreOptions::default();
        for (url, says) in [
            ("", "empty"),
            ("gs://bucket", "gs://bucket"),
            ("s3://", "bucket"),
            ("s3://Up", "\"Up\""),
            ("s3://bucket/../x", "\"../x\""),
            ("s3://bucket?secret=hush", "access key"),
            ("s3://bucket?key=hush", "AWS_SECRET_ACCESS_KEY"),
            ("s3://bucket?hush=hush1&colour=red", "endpoint, region"),
            ("s3://bucket?endpoint=ftp://x", "https://"),
            ("file:", "no folder"),
        ] {
            let error = format!("{:#}", Storage::open(url, &options).unwrap_err());
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains("hush1"), "{error}");
        }
    }

    #[test]
    fn what_others_publish_is_followed_with_care() {
        let folder = tempfile::tempdir().unwrap();
        let here = folder.path().to_str().unwrap();
        assert!(Storage::published(here, Reach::Internet).is_err());
        assert!(Storage::published("memory:", Reach::Machine).is_err());
        assert!(Storage::published("s3://abc?endpoint=http://127.0.0.1:1", Reach::Internet).is_err());
        Storage::published("s3://abc?endpoint=https://127.0.0.1:1", Reach::Internet).unwrap();
        Storage::published("s3://abc?endpoint=http://127.0.0.1:1", Reach::Machine).unwrap();
        Storage::published(here, Reach::Machine).unwrap();
        let absent = folder.path().join("not-there");
        assert!(Storage::published(absent.to_str().unwrap(), Reach::Machine).is_err());
        assert!(!absent.exists(), "a reader makes no folders");
    }
}
