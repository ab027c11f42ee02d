//! The folder of a run: nobody else's while a process works in it.
//!
//! A folder of the next free number is made, not looked for, and every folder is locked: of two processes that begin together
//! each has its own or an error. The system gives a lock back whose process is gone, and nothing is left in the folder. Some
//! network drives lock no folders; there the number alone must do.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where folders without a name are made.
const ROOT: &str = "runs";

/// What happens to what was put into a folder whose run came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leftovers {
    /// It goes too.
    Remove,
    /// It stays, and so does the folder: prepared text is found there the next time.
    Keep,
}

/// A folder that is this process's. Until [`Claim::keep`] it goes again when this is dropped, if it was made for this.
pub(crate) struct Claim {
    folder: PathBuf,
    leftovers: Leftovers,
    /// Folders that were not there before, those within first.
    made: Vec<PathBuf>,
    /// What goes with all that is in it, where the folder itself was there before.
    prepared: Option<PathBuf>,
    _lock: File,
}

impl Claim {
    /// The folder that was named, or the next free `runs/NAME-001`. Errors: another process has it; it cannot be made.
    pub(crate) fn new(named: Option<&Path>, name: &str, leftovers: Leftovers) -> Result<Self> {
        match named {
            Some(folder) => Self::named(folder, leftovers),
            None => Self::numbered(Path::new(ROOT), name, leftovers),
        }
    }

    fn named(folder: &Path, leftovers: Leftovers) -> Result<Self> {
        let missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
        let made = folder.ancestors().take_while(missing).map(Path::to_path_buf).collect();
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        Self::locked(folder, leftovers, made)
    }

    fn numbered(root: &Path, name: &str, leftovers: Leftovers) -> Result<Self> {
        let parent = (!root.exists()).then(|| root.to_path_buf());
        std::fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
        for i in 1..10_000 {
            let folder = root.join(format!("{name}-{i:03}"));
            match std::fs::create_dir(&folder) {
                Ok(()) => {
                    let made = std::iter::once(folder.clone()).chain(parent).collect();
                    return Self::locked(&folder, leftovers, made);
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot create {}", folder.display()));
                }
            }
        }
        bail!("{}: full; name a folder with --out", root.display())
    }

    fn locked(folder: &Path, leftovers: Leftovers, made: Vec<PathBuf>) -> Result<Self> {
        let lock = File::open(folder).with_context(|| format!("cannot open {}", folder.display()))?;
        if matches!(lock.try_lock(), Err(TryLockError::WouldBlock)) {
            bail!("{}: another process works in it; name another --out", folder.display());
        }
        let data = folder.join("data");
        let prepared = (leftovers == Leftovers::Remove && !data.exists()).then_some(data);
        Ok(Self { folder: folder.to_path_buf(), leftovers, made, prepared, _lock: lock })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// From now on all of it stays.
    pub(crate) fn keep(&mut self) {
        self.made.clear();
        self.prepared = None;
    }
}

impl Drop for Claim {
    /// What cannot be removed stays: the error that led here says more.
    fn drop(&mut self) {
        if let Some(prepared) = &self.prepared {
            _ = std::fs::remove_dir_all(prepared);
        }
        for folder in &self.made {
            if self.leftovers == Leftovers::Remove && *folder == self.folder {
                _ = std::fs::remove_dir_all(folder);
            } else {
                // Succeeds only where nothing is left in it.
                _ = std::fs::remove_dir(folder);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_begin_together_have_a_folder_each() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path();
        let claim = || Claim::numbered(root, "simulate", Leftovers::Remove).unwrap();
        let claims: Vec<Claim> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(claim)).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let mut names: Vec<&Path> = claims.iter().map(Claim::folder).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 8);
        assert_eq!(names[7], root.join("simulate-008"));
        drop(claims);
        assert_eq!(std::fs::read_dir(root).unwrap().count(), 0, "nothing came of them");
        let runs = root.join("runs");
        drop(Claim::numbered(&runs, "train", Leftovers::Keep).unwrap());
        assert!(!runs.exists());
    }

    #[test]
    fn a_folder_that_is_anothers_is_refused_and_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("a/run");
        let mut first = Claim::named(&out, Leftovers::Remove).unwrap();
        std::fs::write(out.join("events.jsonl"), "").unwrap();
        let refused = Claim::named(&out, Leftovers::Remove).err().unwrap().to_string();
        assert!(refused.contains("a/run: another process works in it"), "{refused}");
        assert!(out.join("events.jsonl").exists());
        first.keep();
        drop(first);
        assert!(out.join("events.jsonl").exists());
        drop(Claim::named(&out, Leftovers::Remove).unwrap());
        assert!(out.join("events.jsonl").exists(), "it was there before");
    }

    #[test]
    fn a_setup_that_fails_leaves_what_was_there() {
        let place = tempfile::tempdir().unwrap();
        let (above, out) = (place.path().join("a"), place.path().join("a/run"));
        let prepare = || std::fs::create_dir_all(out.join("data/train")).unwrap();
        for (leftovers, stays) in [(Leftovers::Remove, false), (Leftovers::Keep, true)] {
            let claim = Claim::named(&out, leftovers).unwrap();
            prepare();
            drop(claim);
            assert_eq!((out.join("data/train").exists(), above.exists()), (stays, stays), "{leftovers:?}");
            _ = std::fs::remove_dir_all(&above);
            drop(Claim::named(&out, leftovers).unwrap());
            assert!(!above.exists(), "{leftovers:?}");
        }
        std::fs::create_dir_all(&out).unwrap();
        let claim = Claim::named(&out, Leftovers::Remove).unwrap();
        prepare();
        drop(claim);
        assert!(out.exists() && !out.join("data").exists());
        prepare();
        drop(Claim::named(&out, Leftovers::Remove).unwrap());
        assert!(out.join("data/train").exists(), "another run's");
    }
}
