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
