//! Where the folders that a server was granted really are. A server that may write to a folder can put links there, or other folders, before
//! it is started again: what it is granted then must not be of its choosing.

use std::ffi::OsString;
use std::io;
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use cap_std::fs::Dir;

use crate::config::{Access, Mount};

/// Links on the way to a file, as the kernel has it.
const LINKS: usize = 40;

/// A folder that was granted, or a file.
pub(super) struct Granted {
    pub(super) host: PathBuf,
    pub(super) guest: Option<String>,
    pub(super) access: Access,
    /// Without links.
    pub(super) real: PathBuf,
}

impl Granted {
    /// Opens the folder, and gives a path to it that holds as long as it is open.
    pub(super) fn open(&self) -> io::Result<(Dir, PathBuf)> {
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
            let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
            match openat2(CWD, &self.real, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
                Ok(folder) => {
                    let place = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
                    let place = if place.exists() { place } else { self.real.clone() };
                    return Ok((Dir::from_std_file(folder.into()), place));
                }
                // An older system.
                Err(rustix::io::Errno::NOSYS) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok((Dir::open_ambient_dir(&self.real, cap_std::ambient_authority())?, self.real.clone()))
    }
}

/// Finds them all.
pub(super) fn find(mounts: &[Mount]) -> Result<Vec<Granted>, String> {
    let mut all: Vec<(Granted, Vec<PathBuf>)> = Vec::new();
    for Mount { host, guest, access } in mounts {
        let (real, links) = follow(host).map_err(|error| format!("can't mount `{}`: {error}", host.display()))?;
        all.push((Granted { host: host.clone(), guest: guest.clone(), access: *access, real }, links));
    }
    for (index, (granted, links)) in all.iter().enumerate() {
        let others = all.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, (other, _))| other);
        if let Some(place) = led_out(&granted.real, links, others) {
            return Err(format!(
                "can't mount `{}`: a link in `{}`, where the server may write, leads to `{}`; mount that instead, if it is meant",
                granted.host.display(),
                place.display(),
                granted.real.display()
            ));
        }
    }
    Ok(all.into_iter().map(|(granted, _)| granted).collect())
}

/// Where read-only folders are in others that can be written, through which they could be written, too.
pub(super) fn contradiction(all: &[Granted]) -> Option<String> {
    let inner = all.iter().filter(|granted| granted.access == Access::ReadOnly);
    let mut pairs = inner.filter_map(|inner| {
        let outer = all.iter().find(|outer| outer.access == Access::ReadWrite && inner.real.starts_with(&outer.real));
        Some((inner, outer?))
    });
    let (inner, outer) = pairs.next()?;
    Some(format!(
        "can't mount `{}` with `ro`: it could be written by way of `{}`, which is mounted with `rw`",
        inner.host.display(),
        outer.host.display()
    ))
}

/// Whether a path to `real` went out of a folder that can be written by a link in there: where that link is.
fn led_out<'a>(real: &Path, links: &'a [PathBuf], granted: impl Iterator<Item = &'a Granted>) -> Option<&'a PathBuf> {
    let writable: Vec<&Path> =
        granted.filter(|granted| granted.access == Access::ReadWrite).map(|granted| &*granted.real).collect();
    let leads_out = |link: &Path| writable.iter().any(|folder| link.starts_with(folder) && !real.starts_with(folder));
    links.iter().find(|link| leads_out(link))
}

/// The file itself, and the folders of the links on the way to it.
pub(super) fn follow(path: &Path) -> io::Result<(PathBuf, Vec<PathBuf>)> {
    let parts =
        |path: &Path| path.components().map(|part| part.as_os_str().to_owned()).rev().collect::<Vec<OsString>>();
    let mut rest = parts(&std::path::absolute(path)?);
    let (mut real, mut links) = (PathBuf::new(), Vec::new());
    while let Some(part) = rest.pop() {
        match Path::new(&part).components().next() {
            Some(Component::ParentDir) => {
                real.pop();
            }
            Some(Component::Normal(name)) => {
                let next = real.join(name);
                if !std::fs::symlink_metadata(&next)?.is_symlink() {
                    real = next;
                    continue;
                }
                if links.len() == LINKS {
                    return Err(io::Error::other("there are too many links on the way to it"));
                }
                rest.extend(parts(&std::fs::read_link(&next)?));
                links.push(real.clone());
            }
            Some(Component::CurDir) | None => {}
            Some(root) => real.push(root),
        }
    }
    Ok((real, links))
}
