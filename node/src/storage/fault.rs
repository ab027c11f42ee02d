//! What a request can find instead of the object. *Unknown is not failure* (PROTOCOL 7.1): what the reader's own network or
//! a busy server may have caused says nothing about the peer, and is told apart from what the peer did.

use std::error::Error as _;
use std::io::ErrorKind;

use gauntlet::fast_check::UnknownCause;
use gauntlet::submission::Object;
use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};

/// Why there is no object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// The store says it is not there.
    #[error("there is no such object")]
    Absent,
    /// It is larger than the reader allows; nothing was read.
    #[error("the object has {size} bytes, more than allowed")]
    TooLarge { size: u64 },
    /// The store refuses this reader or writer. S3 also says so of absent objects where listing is not allowed.
    #[error("access is denied; check the keys and the rights on the bucket or folder")]
    Denied,
    /// A create-only put found another object under the key.
    #[error("another object is there already")]
    Exists,
    /// Not a key that any object has.
    #[error("{0:?} is not a key: segments of letters, digits, dash, underscore and dot, up to 512 bytes")]
    Key(String),
    /// Nothing is known of the object.
    #[error("no answer: {0}")]
    Unknown(Cause),
}

/// Why nothing is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    #[error("it took too long")]
    TimeOut,
    #[error("no connection, or it broke")]
    Connection,
    /// 5xx.
    #[error("the server failed")]
    Server,
    /// 429, or S3's SlowDown.
    #[error("the server asks for fewer requests")]
    RateLimited,
    #[error("{0}")]
    Other(String),
}

impl Fault {
    /// What the fast evaluation is told, for a fault that says nothing about the peer.
    pub(crate) fn unknown(&self) -> Option<UnknownCause> {
        match self {
            Self::Unknown(Cause::TimeOut) => Some(UnknownCause::TimeOut),
            Self::Unknown(Cause::Connection) => Some(UnknownCause::Connection),
            Self::Unknown(Cause::RateLimited) => Some(UnknownCause::RateLimited),
            Self::Unknown(Cause::Server | Cause::Other(_)) => Some(UnknownCause::ServerError),
            _ => None,
        }
    }

    /// Whether the same request may go better.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self, Self::Unknown(Cause::TimeOut | Cause::Connection | Cause::Server | Cause::RateLimited))
    }

    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::NotFound { .. } => Self::Absent,
            Error::AlreadyExists { .. } | Error::Precondition { .. } => Self::Exists,
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Denied,
            Error::InvalidPath { source } => Self::Key(source.to_string()),
            _ => from_sources(error),
        }
    }
}

/// For a peer's object as read. A reader who is denied has no object, and it is the peer who grants access.
impl From<&Fault> for Object {
    fn from(fault: &Fault) -> Self {
        match (fault.unknown(), fault) {
            (Some(cause), _) => Self::Unknown(cause),
            (None, Fault::TooLarge { .. }) => Self::TooLarge,
            _ => Self::Absent,
        }
    }
}

fn from_sources(error: &Error) -> Fault {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(http) = inner.downcast_ref::<HttpError>() {
            return Fault::Unknown(match http.kind() {
                HttpErrorKind::Timeout => Cause::TimeOut,
                _ => Cause::Connection,
            });
        }
        if let Some(fault) = inner.downcast_ref::<std::io::Error>().and_then(|e| from_io(e.kind())) {
            return fault;
        }
        source = inner.source();
    }
    from_text(&error.to_string())
}

fn from_io(kind: ErrorKind) -> Option<Fault> {
    match kind {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => Some(Fault::Denied),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory => Some(Fault::Absent),
        ErrorKind::TimedOut => Some(Fault::Unknown(Cause::TimeOut)),
        _ => None,
    }
}

/// The library keeps the status in a type that it does not export; its text is all there is. A test holds this.
fn from_text(text: &str) -> Fault {
    let status = text.split("status code: ").nth(1).and_then(|rest| rest.get(..3)?.parse::<u16>().ok());
    let replied_error = text.contains("Server returned error response");
    Fault::Unknown(match status {
        Some(429) => Cause::RateLimited,
        Some(503) if text.contains("SlowDown") => Cause::RateLimited,
        Some(408) => Cause::TimeOut,
        Some(500..=599) => Cause::Server,
        _ if replied_error && text.contains("SlowDown") => Cause::RateLimited,
        _ if replied_error => Cause::Server,
        _ => Cause::Other(text.chars().take(300).collect()),
    })
}
