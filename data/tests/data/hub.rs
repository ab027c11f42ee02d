//! Datasets of the Hub, from a local server that speaks the part of its protocol that is used.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use gauntlet_data::{
    Error, HubOptions, PrepareOptions, Progress, Result, Silent, Source, SourceOptions, Split, prepare,
};
use tempfile::tempdir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A Hub with one dataset, `owner/data`.
struct Hub {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    files: BTreeMap<&'static str, Vec<u8>>,
    token: Option<&'static str>,
    requests: Mutex<Vec<String>>,
    /// The next download breaks off in the middle.
    cut: AtomicBool,
    /// Sizes are listed one byte too large.
    misstated: AtomicBool,
    /// Requests for paths that begin so are never answered.
    silent: Mutex<Option<&'static str>>,
    /// Connections that are held open without an answer.
    held: Mutex<Vec<TcpStream>>,
    closed: AtomicBool,
}

impl Hub {
    fn open(files: &[(&'static str, &str)], token: Option<&'static str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let files = files.iter().map(|(name, text)| (*name, text.as_bytes().to_vec())).collect();
        let shared = Arc::new(Shared {
            files,
            token,
            requests: Mutex::default(),
            cut: AtomicBool::new(false),
            misstated: AtomicBool::new(false),
            silent: Mutex::default(),
            held: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if own.closed.load(Ordering::SeqCst) {
                    return;
                }
                // A client that hangs up is its own business.
                let _ = own.answer(stream.unwrap());
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    fn options(&self, cache: &std::path::Path) -> SourceOptions {
        let endpoint = format!("http://{}", self.address);
        let token = self.shared.token.map(str::to_owned);
        let hub = HubOptions { endpoint, token, cache: cache.into(), ..HubOptions::default() };
        SourceOptions { hub, ..SourceOptions::default() }
    }

    /// Paths asked for since the last call.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.requests.lock().unwrap())
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        self.thread.take().unwrap().join().unwrap();
    }
}

impl Shared {
    /// Answers one request and closes the connection.
    fn answer(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let address = stream.local_addr()?;
        let mut lines = BufReader::new(stream.try_clone()?).lines();
        let request = lines.next().unwrap_or(Ok(String::new()))?;
        let path = request.split(' ').nth(1).unwrap_or("").to_owned();
        let (mut range, mut token) = (None, None);
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "range" => range = Some(value.trim_start_matches("bytes=").to_owned()),
                "authorization" => token = Some(value.trim_start_matches("Bearer ").to_owned()),
                _ => {}
            }
        }
        self.requests.lock().unwrap().push(path.clone());
        if self.silent.lock().unwrap().is_some_and(|start| path.starts_with(start)) {
            self.held.lock().unwrap().push(stream);
            return Ok(());
        }
        let (status, headers, body) = if token.as_deref() != self.token && !path.starts_with("/store/") {
            ("401 Unauthorized", String::new(), Vec::new())
        } else {
            self.respond(&path, range.as_deref(), address)
        };
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n"
        )?;
        let cut = length > 1 && self.cut.swap(false, Ordering::SeqCst);
        stream.write_all(if cut { &body[..length / 2] } else { &body })
    }

    /// Status, headers and body for a path.
    fn respond(
        &self,
        path: &str,
        range: Option<&str>,
        address: SocketAddr,
    ) -> (&'static str, String, Vec<u8>) {
        let missing = ("404 Not Found", String::new(), Vec::new());
        if path == "/api/datasets/owner/data/revision/main?blobs=true" {
            let more = usize::from(self.misstated.load(Ordering::SeqCst));
            let file = |(name, bytes): (&&str, &Vec<u8>)| serde_json::json!({"rfilename": name, "size": bytes.len() + more});
            let siblings: Vec<_> = self.files.iter().map(file).collect();
            let body = serde_json::json!({"id": "owner/data", "sha": COMMIT, "siblings": siblings});
            return ("200 OK", "content-type: application/json\r\n".into(), body.to_string().into_bytes());
        }
        let resolve = format!("/datasets/owner/data/resolve/{COMMIT}/");
        if let Some(name) = path.strip_prefix(&resolve) {
            // As the real one does for large files: the description here, the bytes elsewhere.
            let headers = format!(
                "x-repo-commit: {COMMIT}\r\nx-linked-etag: \"{}\"\r\nlocation: http://{address}/store/{name}\r\n",
                blake3::hash(name.as_bytes()).to_hex()
            );
            return ("302 Found", headers, Vec::new());
        }
        let Some(bytes) = path.strip_prefix("/store/").and_then(|name| self.files.get(name)) else {
            return missing;
        };
        let Some((start, end)) = range.and_then(|range| range.split_once('-')) else { return missing };
        let start: usize = start.parse().unwrap();
        let end = end.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
        let header = format!("content-range: bytes {start}-{end}/{}\r\n", bytes.len());
        ("206 Partial Content", header, bytes[start..=end].to_vec())
    }
}

const FILES: [(&str, &str); 6] = [
    ("README.md", "# card"),
    ("data/b.jsonl", "{\"text\":\"two\"}\n{\"text\":\"three\"}\n"),
    ("data/a.txt", "one"),
    ("data/index.json", "{}"),
    ("other/c.txt", "four"),
    ("../escape.txt", "no"),
];

fn texts(source: &Source) -> Result<Vec<(String, Vec<String>)>> {
    let documents =
        |input| source.documents(input, &Silent)?.map(|d| d.map(Option::unwrap)).collect::<Result<Vec<_>>>();
    source.inputs().iter().map(|input| Ok((input.name().to_owned(), documents(input)?))).collect()
}

#[test]
fn lists_downloads_and_caches() {
    let (hub, cache) = (Hub::open(&FILES, Some("key")), tempdir().unwrap());
    let source = Source::open("hf:owner/data:data", &hub.options(cache.path())).unwrap();
    assert_eq!(source.description(), format!("hf:owner/data@{COMMIT}:data"));
    assert_eq!(source.skipped(), 4);
    let expected = [
        ("data/a.txt".to_owned(), vec!["one".to_owned()]),
        ("data/b.jsonl".to_owned(), vec!["two".into(), "three".into()]),
    ];
    assert_eq!(hub.requests().len(), 1, "files are not fetched before their turn");
    assert_eq!(texts(&source).unwrap(), expected);
    assert!(!hub.requests().is_empty());
    assert_eq!(texts(&source).unwrap(), expected);
    assert_eq!(hub.requests(), Vec::<String>::new(), "the second time comes from the cache");
}

#[test]
fn a_broken_download_is_continued() {
    let (hub, cache) = (Hub::open(&FILES, None), tempdir().unwrap());
    let source = Source::open("hf:owner/data:other", &hub.options(cache.path())).unwrap();
    hub.shared.cut.store(true, Ordering::SeqCst);
    assert_eq!(texts(&source).unwrap()[0].1, ["four"]);
    assert!(!hub.shared.cut.load(Ordering::SeqCst));
}

#[test]
fn a_hub_that_says_nothing_is_given_up() {
    let (hub, cache) = (Hub::open(&FILES, None), tempdir().unwrap());
    let mut options = hub.options(cache.path());
    options.hub.patience = Duration::from_secs(2);
    for start in ["/datasets/", "/store/"] {
        *hub.shared.silent.lock().unwrap() = None;
        let source = Source::open("hf:owner/data:other", &options).unwrap();
        *hub.shared.silent.lock().unwrap() = Some(start);
        let error = texts(&source).unwrap_err().to_string();
        assert!(error.contains("other/c.txt") && error.contains("nothing came for 2s"), "{error}");
    }
    *hub.shared.silent.lock().unwrap() = Some("/api/");
    let error = Source::open("hf:owner/data:other", &options).unwrap_err().to_string();
    assert!(error.contains("timeout") && error.contains("check the name"), "{error}");
}

#[test]
fn a_file_of_another_size_than_listed_is_not_read() {
    let (hub, cache) = (Hub::open(&FILES, None), tempdir().unwrap());
    let open = || Source::open("hf:owner/data:other", &hub.options(cache.path())).unwrap();
    hub.shared.misstated.store(true, Ordering::SeqCst);
    let error = texts(&open()).unwrap_err().to_string();
    assert!(error.contains("other/c.txt") && error.contains("4 bytes came, 5 are listed"), "{error}");
    hub.shared.misstated.store(false, Ordering::SeqCst);
    hub.requests();
    assert_eq!(texts(&open()).unwrap()[0].1, ["four"]);
    assert!(hub.requests().len() > 1, "what was wrong is downloaded again");
}

/// Stops at once.
struct Stop;

impl Progress for Stop {
    fn stopped(&self) -> bool {
        true
    }
}

#[test]
fn a_download_can_be_stopped() {
    let (hub, cache) = (Hub::open(&FILES, None), tempdir().unwrap());
    let source = Source::open("hf:owner/data:other", &hub.options(cache.path())).unwrap();
    *hub.shared.silent.lock().unwrap() = Some("/datasets/");
    assert!(matches!(source.documents(&source.inputs()[0], &Stop), Err(Error::Stopped)));
}

#[test]
fn prepares_like_local_files() {
    let (hub, folder) = (Hub::open(&FILES, None), tempdir().unwrap());
    let out = folder.path().join("out");
    let mut options = PrepareOptions::new(Some("hf:owner/data".to_owned()), out);
    options.source = hub.options(&folder.path().join("cache"));
    let summary = prepare(&options, &Silent).unwrap();
    assert_eq!(summary.splits[&Split::Train].documents, 4);
    assert_eq!(summary.splits[&Split::Train].bytes, 15);
}

#[test]
fn errors_name_dataset_and_endpoint() {
    let (hub, cache) = (Hub::open(&FILES, Some("key")), tempdir().unwrap());
    let mut options = hub.options(cache.path());
    for wrong in ["hf:owner/none", "hf:owner/data@v2"] {
        let error = Source::open(wrong, &options).unwrap_err();
        assert!(
            matches!(&error, Error::Hub { endpoint, .. } if *endpoint == options.hub.endpoint),
            "{error}"
        );
    }
    let error = Source::open("hf:owner/data:nothing", &options).unwrap_err();
    assert!(matches!(error, Error::EmptySource { .. }), "{error}");
    options.hub.token = None;
    let error = Source::open("hf:owner/data", &options).unwrap_err();
    assert!(error.to_string().contains("401"), "{error}");
}
