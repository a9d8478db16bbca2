//! Files that a configuration names, read whole: nothing that would keep their reader waiting, and none that is larger than its bound.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::units::size;

/// The content of a file of at most `most` bytes. The error does not name the file.
pub(crate) fn read(path: &Path, most: usize) -> io::Result<Vec<u8>> {
    // Before it is opened, as opening a pipe waits for whoever writes to it.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(most as u64 + 1).read_to_end(&mut content)?;
    if content.len() > most {
        return Err(io::Error::other(format!("it is longer than {}", size(most))));
    }
    Ok(content)
}
