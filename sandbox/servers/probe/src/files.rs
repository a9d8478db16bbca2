//! Tools that attempt things with files.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::json;

use crate::{Arguments, Outcome, Tool};

pub(crate) const TOOLS: &[Tool] = &[
    ("read", |arguments| Ok(String::from_utf8_lossy(&fs::read(arguments.text("path")?)?).into_owned())),
    ("write", |arguments| {
        fs::write(arguments.text("path")?, arguments.text("text")?)?;
        Ok("written".into())
    }),
    ("append", |arguments| {
        let mut file = File::options().append(true).open(arguments.text("path")?)?;
        file.write_all(arguments.text("text")?.as_bytes())?;
        Ok("appended".into())
    }),
    ("truncate", |arguments| {
        File::options().write(true).open(arguments.text("path")?)?.set_len(0)?;
        Ok("truncated".into())
    }),
    ("list", |arguments| {
        let entries = fs::read_dir(arguments.text("path")?)?;
        let mut names = entries
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>, _>>()?;
        names.sort();
        Ok(json!(names).to_string())
    }),
    ("stat", |arguments| {
        let metadata = fs::metadata(arguments.text("path")?)?;
        let kind = if metadata.is_dir() { "folder" } else { "file" };
        Ok(json!({"kind": kind, "size": metadata.len()}).to_string())
    }),
    ("remove", |arguments| {
        let path = arguments.text("path")?;
        if fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            fs::remove_dir(path)?;
        } else {
            fs::remove_file(path)?;
        }
        Ok("removed".into())
    }),
    ("make_dir", |arguments| {
        fs::create_dir(arguments.text("path")?)?;
        Ok("made".into())
    }),
    ("symlink", symlink),
    ("hard_link", |arguments| {
        fs::hard_link(arguments.text("from")?, arguments.text("to")?)?;
        Ok("linked".into())
    }),
    ("rename", |arguments| {
        fs::rename(arguments.text("from")?, arguments.text("to")?)?;
        Ok("renamed".into())
    }),
    ("set_times", |arguments| {
        let path = arguments.text("path")?;
        File::open(path)?.set_modified(SystemTime::UNIX_EPOCH)?;
        Ok("set".into())
    }),
    ("open_many", |arguments| {
        let (path, count) = (arguments.text("path")?, arguments.number::<usize>("count")?);
        for opened in 0..count {
            // Never closed.
            std::mem::forget(File::open(path).map_err(|error| format!("after {opened}: {error}"))?);
        }
        Ok(count.to_string())
    }),
    ("read_loop", |arguments| {
        let (path, times) = (arguments.text("path")?, arguments.number::<u32>("times")?);
        let seen: BTreeSet<String> = (0..times).filter_map(|_| fs::read_to_string(path).ok()).collect();
        Ok(json!(seen).to_string())
    }),
    ("write_loop", |arguments| {
        let (path, text) = (arguments.text("path")?, arguments.text("text")?);
        let times = arguments.number::<u32>("times")?;
        Ok((0..times).filter(|_| fs::write(path, text).is_ok()).count().to_string())
    }),
];

/// By the C library, as std makes links to paths outside of a WASI mount only on unstable Rust.
#[cfg(any(target_family = "wasm", target_os = "linux"))]
fn symlink(arguments: Arguments<'_>) -> Outcome {
    let (target, link) = (CString::new(arguments.text("target")?)?, CString::new(arguments.text("link")?)?);
    #[allow(unsafe_code, reason = "both are C strings that outlive the call")]
    let failed = unsafe { libc::symlink(target.as_ptr(), link.as_ptr()) } != 0;
    if failed { Err(io::Error::last_os_error().into()) } else { Ok("linked".into()) }
}

#[cfg(not(any(target_family = "wasm", target_os = "linux")))]
fn symlink(_: Arguments<'_>) -> Outcome {
    Err(io::Error::from(io::ErrorKind::Unsupported).into())
}
