//! An error as the user reads it: one line, each cause once, and what to do; and the exit code.

use std::io::ErrorKind;

use anyhow::Error;
use gauntlet_model::ModelError;

use crate::cli::Usage;

/// The error and its causes in one line. A cause that the message before it tells already is left out, and what the
/// system refused gets a remedy unless a message around it has one.
pub(crate) fn line(error: &Error) -> String {
    let mut line = String::new();
    let mut bare = None;
    for cause in error.chain() {
        let text = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if !line.is_empty() && line.contains(&text) {
            continue;
        }
        line = if line.is_empty() { text } else { format!("{line}: {text}") };
        bare = cause.downcast_ref::<std::io::Error>();
    }
    match bare.map(|io| remedy(io.kind())) {
        Some(remedy) if !line.contains(remedy) => format!("{line}; {remedy}"),
        _ => line,
    }
}

fn remedy(kind: ErrorKind) -> &'static str {
    use ErrorKind::{
        AlreadyExists, FileTooLarge, IsADirectory, NotADirectory, NotFound, PermissionDenied, QuotaExceeded,
        ReadOnlyFilesystem, StorageFull,
    };
    match kind {
        NotFound | IsADirectory | NotADirectory | AlreadyExists => "check the path",
        PermissionDenied | ReadOnlyFilesystem => "check who may read and write there",
        StorageFull | QuotaExceeded | FileTooLarge => "free disk space",
        _ => "try again",
    }
}

/// Whether the command line was wrong, rather than the world.
pub(crate) fn is_usage(error: &Error) -> bool {
    use gauntlet_data::Error::{HubSpec, Part, ShardLimit, ThreadLimit, Validation, VocabSize};
    let shape = matches!(
        error.downcast_ref(),
        Some(ModelError::UnknownPreset { .. } | ModelError::Threads { .. } | ModelError::Batch(_))
    );
    let text = matches!(
        error.downcast_ref(),
        Some(
            HubSpec { .. }
                | Part { .. }
                | ShardLimit
                | ThreadLimit { .. }
                | Validation { .. }
                | VocabSize { .. }
        )
    );
    shape || text || error.is::<Usage>()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use anyhow::Context;

    use super::*;

    #[test]
    fn every_cause_once_and_a_remedy() {
        let full = || io::Error::from(ErrorKind::StorageFull);
        let (text, path) = (full().to_string(), PathBuf::from("a"));
        let bare = Err::<(), _>(full()).context("cannot write a").unwrap_err();
        assert_eq!(line(&bare), format!("cannot write a: {text}; free disk space"));
        let library = Error::from(ModelError::Io { path, source: full() }).context("no checkpoint");
        assert_eq!(
            line(&library),
            format!("no checkpoint: a: {text}; check path, permissions and free disk space")
        );
        assert_eq!(line(&anyhow::anyhow!("two\n  lines")), "two lines");
    }
}
