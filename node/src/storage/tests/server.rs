use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Mutex;

/// What the server does with a request, in order; the last is repeated.
#[derive(Clone)]
enum Reply {
    /// Status line, headers, body.
    Whole(&'static str, String, Vec<u8>),
    /// Announces so many bytes more than it sends, and closes.
    Short(usize),
    /// Announces so many bytes more than it sends, and says no more.
    Drip(usize),
    /// Takes the request and says nothing.
    Silent,
    /// Closes at once.
    Hang,
}

fn ok(body: &[u8]) -> Reply {
    let headers = format!(
        "Content-Length: {}\r\nETag: \"e\"\r\nLast-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n",
        body.len()
    );
    Reply::Whole("200 OK", headers, body.to_vec())
}

fn status(line: &'static str) -> Reply {
    Reply::Whole(line, "Content-Length: 0\r\n".to_owned(), Vec::new())
}

/// Request lines as they came, and a storage on the server.
fn serve(replies: Vec<Reply>, query: &str) -> (Storage, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    std::thread::spawn(move || {
        let mut silent = Vec::new();
        for (n, stream) in listener.incoming().enumerate() {
            let Ok(stream) = stream else { return };
            let reply = replies[n.min(replies.len() - 1)].clone();
            silent.extend(answer(stream, &reply, &log));
        }
    });
    let url = format!("s3://bucket/peer?endpoint=http://{address}&region=auto{query}");
    (Storage::open(&url, &StoreOptions::default()).unwrap().with_patience(hasty()), seen)
}

fn answer(mut stream: TcpStream, reply: &Reply, log: &Mutex<Vec<String>>) -> Option<TcpStream> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut head, mut line, mut length) = (String::new(), String::new(), 0);
    while reader.read_line(&mut line).is_ok_and(|n| n > 2) {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
        line.clear();
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    log.lock().unwrap().push(head.clone());
    let bodiless = head.starts_with("HEAD");
    let mut send = |line: &str, headers: &str, body: &[u8]| {
        let _ = write!(stream, "HTTP/1.1 {line}\r\nConnection: close\r\n{headers}\r\n");
        let _ = stream.write_all(if bodiless { b"" } else { body });
    };
    match reply {
        Reply::Whole(line, headers, body) => send(line, headers, body),
        Reply::Short(missing) | Reply::Drip(missing) => {
            send("200 OK", &format!("Content-Length: {}\r\nETag: \"e\"\r\n", 3 + missing), b"abc");
            if matches!(reply, Reply::Drip(_)) {
                return Some(stream);
            }
        }
        Reply::Silent => return Some(stream),
        Reply::Hang => {}
    }
    None
}

#[test]
fn replies_become_faults() {
    let slow_down = b"<Error><Code>SlowDown</Code></Error>".to_vec();
    let slow_headers = format!("Content-Length: {}\r\n", slow_down.len());
    let cases = [
        (status("404 Not Found"), Fault::Absent, 1),
        (status("403 Forbidden"), Fault::Denied, 1),
        (status("401 Unauthorized"), Fault::Denied, 1),
        (status("500 Internal Server Error"), Fault::Unknown(Cause::Server), 3),
        (status("503 Service Unavailable"), Fault::Unknown(Cause::Server), 3),
        (Reply::Whole("503 Slow Down", slow_headers, slow_down), Fault::Unknown(Cause::RateLimited), 3),
        (status("429 Too Many Requests"), Fault::Unknown(Cause::RateLimited), 3),
        (Reply::Hang, Fault::Unknown(Cause::Connection), 3),
        (Reply::Silent, Fault::Unknown(Cause::TimeOut), 3),
        (Reply::Short(5), Fault::Unknown(Cause::Connection), 3),
        (ok(b"too long for the limit"), Fault::TooLarge { size: 22 }, 1),
    ];
    for (reply, fault, tries) in cases {
        let silent = matches!(reply, Reply::Silent);
        let (storage, seen) = serve(vec![reply], "");
        let storage = if silent { storage.with_patience(impatient()) } else { storage };
        assert_eq!(storage.get("k", 10), Err(fault.clone()));
        assert_eq!(seen.lock().unwrap().len(), tries, "requests for {fault:?}");
    }
    let (storage, _) = serve(vec![status("400 Bad Request")], "");
    assert!(matches!(storage.get("k", 10), Err(Fault::Unknown(Cause::Other(why))) if why.contains("400")));
}

#[test]
fn a_server_that_recovers_is_read() {
    let (storage, seen) = serve(vec![status("503 Service Unavailable"), Reply::Short(5), ok(b"abc")], "");
    let found = storage.fetch("k", 10).unwrap();
    assert_eq!((found.bytes.as_slice(), found.meta.last_modified), (b"abc".as_slice(), 1_445_412_480));
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|head| head.starts_with("GET /bucket/peer/k ")), "{seen:?}");
    assert!(!seen.iter().any(|head| head.to_lowercase().contains("authorization")), "no keys, no signature");
}

#[test]
fn an_endless_object_is_not_taken() {
    // 10 GB announced: refused on its headers.
    let headers = "Content-Length: 10000000000\r\nETag: \"e\"\r\n".to_owned();
    let (storage, _) = serve(vec![Reply::Whole("200 OK", headers, vec![7; 4096])], "");
    assert_eq!(storage.get("k", 1 << 20), Err(Fault::TooLarge { size: 10_000_000_000 }));
    // No length at all: not read.
    let headers = "Transfer-Encoding: chunked\r\nETag: \"e\"\r\n".to_owned();
    let (storage, _) = serve(vec![Reply::Whole("200 OK", headers, b"5\r\nhello\r\n0\r\n\r\n".to_vec())], "");
    assert!(matches!(storage.get("k", 1 << 20), Err(Fault::Unknown(_))));
}

#[test]
fn who_announces_much_and_sends_little_is_not_waited_for_that_long() {
    let (storage, seen) = serve(vec![Reply::Drip(1 << 30)], "");
    // What is announced would take 34 years.
    let storage = storage.with_patience(Patience { rate: 1, ..impatient() });
    assert_eq!(storage.get("k", 1 << 31), Err(Fault::Unknown(Cause::TimeOut)));
    assert_eq!(seen.lock().unwrap().len(), 3, "it was tried again");
}

#[test]
fn puts_are_signed_and_conditional() {
    let keys = "&key=GK1&secret=hush";
    let (storage, seen) = serve(vec![status("503 Service Unavailable"), ok(b"")], keys);
    storage.put("k", b"abc").unwrap();
    {
        let seen = seen.lock().unwrap();
        assert!(seen.iter().all(|head| head.starts_with("PUT /bucket/peer/k ")), "{seen:?}");
        assert!(seen[1].contains("AWS4-HMAC-SHA256"), "{seen:?}");
    }
    let (storage, seen) = serve(vec![status("404 Not Found"), ok(b"")], keys);
    storage.put_new("k", b"abc").unwrap();
    assert!(seen.lock().unwrap()[1].to_lowercase().contains("if-none-match: *"));
    // Somebody else was first; then our own put whose reply was lost.
    for (there, result) in [(b"abd", Err(Fault::Exists)), (b"abc", Ok(()))] {
        let replies = vec![status("404 Not Found"), status("412 Precondition Failed"), ok(there)];
        assert_eq!(serve(replies, keys).0.put_new("k", b"abc"), result);
    }
    let (storage, _) = serve(vec![status("400 Bad Request")], keys);
    assert!(matches!(storage.put("k", b"abc"), Err(Fault::Unknown(Cause::Other(_)))));
    let (storage, _) = serve(vec![status("403 Forbidden")], keys);
    assert_eq!(storage.put("k", b"abc"), Err(Fault::Denied));
    assert_eq!(storage.delete(&["k".to_owned()]), Err(Fault::Denied));
    let (storage, _) = serve(vec![status("404 Not Found")], keys);
    for put in [storage.put("k", b"abc"), storage.put_new("k", b"abc")] {
        assert!(put.unwrap_err().to_string().contains("s3://bucket/peer"), "no such bucket");
    }
}
