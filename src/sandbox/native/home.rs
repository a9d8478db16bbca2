//! The home of a native server: a temporary folder, which is removed after it, and after a process that was killed by the next one that needs
//! such a folder.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use tempfile::TempDir;

const PREFIX: &str = "rhaiway-home-";
/// Folders that are looked at for each start, and homes of killed processes that are removed. The rest is for the next one.
const LOOKED_AT: usize = 10_000;
const CLEARED: usize = 64;
/// How often another folder is made where somebody takes the new one for one that was left behind.
const TRIES: usize = 10;

/// The home of one server. As long as this process lives, it holds a lock on the folder, by which others know that it is needed.
pub(super) struct Home {
    folder: TempDir,
    _lock: File,
}

impl Home {
    pub(super) fn new() -> io::Result<Self> {
        for _ in 0..TRIES {
            let folder = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
            if let Some(lock) = lock(folder.path()) {
                return Ok(Self { folder, _lock: lock });
            }
        }
        Err(io::Error::other("others remove it"))
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Removes it with what its server has left in it. Blocks.
    pub(super) fn clear(self) {
        let path = self.folder.path().to_path_buf();
        let Err(first) = self.folder.close() else { return };
        if remove(&path).is_err() {
            tracing::warn!(folder = %path.display(), error = %first, "what a sandboxed server left behind can't be removed");
        }
    }
}

/// Removes the homes that processes of this user have left behind which were killed. Blocks; where it is under way already, nothing is done.
pub(crate) fn clear_abandoned() {
    static UNDER_WAY: AtomicBool = AtomicBool::new(false);
    if UNDER_WAY.swap(true, Ordering::AcqRel) {
        return;
    }
    let folders = std::fs::read_dir(tempfile::env::temp_dir()).into_iter().flatten().take(LOOKED_AT).flatten();
    let homes = folders.filter(|folder| folder.file_name().to_string_lossy().starts_with(PREFIX));
    let paths: Vec<PathBuf> = homes.map(|folder| folder.path()).collect();
    let abandoned = paths.into_iter().filter_map(|path| Some((lock(&path)?, path)));
    for (_lock, path) in abandoned.take(CLEARED) {
        let removed = remove(&path);
        tracing::debug!(folder = %path.display(), ?removed, "the home of a server whose process was killed");
    }
    UNDER_WAY.store(false, Ordering::Release);
}

/// The lock on a folder of this user that nobody holds, if it is still there.
fn lock(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = rustix::fs::openat(CWD, path, flags, Mode::empty()).ok()?;
    rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive).ok()?;
    // Whoever had the lock before may have removed it.
    let (opened, there) = (rustix::fs::fstat(&folder).ok()?, rustix::fs::lstat(path).ok()?);
    let is_it = (opened.st_dev, opened.st_ino) == (there.st_dev, there.st_ino);
    (is_it && opened.st_uid == rustix::process::geteuid().as_raw()).then(|| folder.into())
}

fn remove(path: &Path) -> io::Result<()> {
    std::fs::remove_dir_all(path).or_else(|_| {
        // Folders that it closed to itself are closed to us, too, unless we are root.
        open_up(path);
        std::fs::remove_dir_all(path)
    })
}

/// Makes all folders below accessible to us.
fn open_up(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let _ = std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).for_each(|entry| open_up(&entry.path()));
}
