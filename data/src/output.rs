//! Files that appear whole or not at all: written under a temporary name, flushed to the disk, renamed.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Ending of files that are being written; left behind only by a killed process, and never read.
pub(crate) const TEMPORARY: &str = ".tmp";

/// Where files are created: the file system, or in tests one that fails.
pub(crate) trait Disk: Sync {
    /// Creates or replaces `path`.
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>>;
}

/// A file being written.
pub(crate) trait Sink: Write + Send {
    /// Everything written is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// The file system.
pub(crate) struct FileSystem;

impl Disk for FileSystem {
    fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
        Ok(Box::new(File::create(path)?))
    }
}

impl Sink for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// A file that gets its name in [`Pending::commit`]; dropped before, it disappears.
pub(crate) struct Pending {
    sink: Box<dyn Sink>,
    temporary: PathBuf,
    path: PathBuf,
    committed: bool,
}

impl Pending {
    /// Begins `path`. `owner` keeps the temporary names of processes apart that may write the same file.
    pub(crate) fn create(disk: &dyn Disk, path: &Path, owner: &str) -> Result<Self> {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(owner);
        name.push(TEMPORARY);
        let temporary = path.with_file_name(name);
        let sink = disk.create(&temporary).map_err(Error::io(&temporary, "create"))?;
        Ok(Self { sink, temporary, path: path.to_path_buf(), committed: false })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.sink.write_all(bytes).map_err(Error::io(&self.path, "write"))
    }

    /// Flushes to the disk and gives the file its name.
    pub(crate) fn commit(mut self) -> Result<()> {
        self.sink.sync().map_err(Error::io(&self.path, "write"))?;
        std::fs::rename(&self.temporary, &self.path).map_err(Error::io(&self.path, "rename into place"))?;
        self.committed = true;
        sync_folder(&self.path)
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if !self.committed {
            // Best effort: the name alone says that the file is not complete.
            let _ = std::fs::remove_file(&self.temporary);
        }
    }
}

/// Writes `bytes` to `path`, whole or not at all.
pub(crate) fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_on(&FileSystem, path, bytes)
}

/// [`write_atomic`] on a chosen disk.
pub(crate) fn write_atomic_on(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = Pending::create(disk, path, &format!(".{}", std::process::id()))?;
    file.write(bytes)?;
    file.commit()
}

/// The rename itself survives a power cut only once the folder is on the disk.
fn sync_folder(path: &Path) -> Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if cfg!(unix) {
        let handle = File::open(folder).map_err(Error::io(folder, "open"))?;
        handle.sync_all().map_err(Error::io(folder, "write"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::prepare_on;
    use crate::{PrepareOptions, Silent, TokenizerChoice};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A disk with room for so many bytes.
    struct Small(Arc<AtomicU64>);

    struct SmallFile(File, Arc<AtomicU64>);

    impl Disk for Small {
        fn create(&self, path: &Path) -> io::Result<Box<dyn Sink>> {
            Ok(Box::new(SmallFile(File::create(path)?, Arc::clone(&self.0))))
        }
    }

    impl Write for SmallFile {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let room = self.1.load(Ordering::Relaxed);
            let count = bytes.len().min(usize::try_from(room).unwrap());
            if count == 0 && !bytes.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.1.fetch_sub(count as u64, Ordering::Relaxed);
            self.0.write(&bytes[..count])
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    impl Sink for SmallFile {
        fn sync(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_leaves_nothing_half_written() {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("in");
        std::fs::create_dir(&source).unwrap();
        for name in ["a.txt", "b.txt", "c.txt"] {
            std::fs::write(source.join(name), format!("{name} aa ab abc ").repeat(300)).unwrap();
        }
        let options = |out: &str| PrepareOptions {
            tokenizer: TokenizerChoice::Train { vocab_size: 260 },
            max_tokens_per_shard: 1000,
            threads: 2,
            ..PrepareOptions::new(Some(source.display().to_string()), folder.path().join(out))
        };
        let files = |out: &str| -> Vec<(String, Vec<u8>)> {
            // Where nothing of use was written, the folder is gone.
            let Ok(entries) = std::fs::read_dir(folder.path().join(out)) else { return Vec::new() };
            let mut files: Vec<_> = entries
                .map(|entry| entry.unwrap())
                .map(|e| (e.file_name().into_string().unwrap(), std::fs::read(e.path()).unwrap()))
                .collect();
            files.sort();
            files
        };
        prepare_on(&FileSystem, &options("whole"), &Silent).unwrap();
        let whole = files("whole");
        let total: u64 = whole.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        for room in (0..total).step_by(usize::try_from(total / 23).unwrap()) {
            let out = format!("out-{room}");
            let error = prepare_on(&Small(Arc::new(room.into())), &options(&out), &Silent).unwrap_err();
            let Error::Io { source, path, .. } = &error else { panic!("{error}") };
            assert_eq!(source.kind(), io::ErrorKind::StorageFull);
            assert!(path.starts_with(folder.path().join(&out)));
            // What is there is whole, byte for byte, and the manifest is not there.
            for (name, bytes) in files(&out) {
                let same = whole.iter().any(|(other, whole)| *other == name && *whole == bytes);
                assert!(same && name != "manifest.json", "{name} with room for {room} bytes");
            }
            // With room again, the same command ends as if nothing had happened.
            prepare_on(&FileSystem, &options(&out), &Silent).unwrap();
            assert_eq!(files(&out), whole);
        }
    }
}
