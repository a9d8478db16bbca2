//! The folder with the notes: which names are good, and what is wrong when something is.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use crate::model::Note;

const LONGEST_NAME: usize = 100;

#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) folder: PathBuf,
}

impl Store {
    pub(crate) fn names(&self) -> Result<Vec<String>, String> {
        let listed = || -> io::Result<Vec<String>> {
            let entries = fs::read_dir(&self.folder)?.collect::<io::Result<Vec<_>>>()?;
            // A link leads elsewhere, and is none of the notes.
            let files = entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()));
            let files = files.filter_map(|entry| entry.file_name().into_string().ok());
            let names = files.filter_map(|file| file.strip_suffix(".md").map(String::from));
            Ok(names.filter(|name| check(name).is_ok()).collect())
        };
        let mut names = listed().map_err(|error| self.explain(&error))?;
        names.sort();
        Ok(names)
    }

    pub(crate) fn read(&self, name: &str) -> Result<Note, String> {
        let bytes = fs::read(self.path(name)?).map_err(|error| match error.kind() {
            ErrorKind::NotFound => self.explain_for(name, &error),
            _ if self.folder.is_dir() => format!("the note `{name}` can't be read: {error}"),
            _ => self.explain(&error),
        })?;
        Ok(Note { name: name.into(), text: String::from_utf8_lossy(&bytes).into_owned() })
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> Result<(), String> {
        fs::write(self.path(name)?, text).map_err(|error| self.explain(&error))
    }

    pub(crate) fn delete(&self, name: &str) -> Result<(), String> {
        fs::remove_file(self.path(name)?).map_err(|error| self.explain_for(name, &error))
    }

    fn path(&self, name: &str) -> Result<PathBuf, String> {
        check(name)?;
        Ok(self.folder.join(format!("{name}.md")))
    }

    fn explain_for(&self, name: &str, error: &io::Error) -> String {
        match self.names() {
            Ok(names) if error.kind() == ErrorKind::NotFound => unknown(name, &names),
            _ => self.explain(error),
        }
    }

    fn explain(&self, error: &io::Error) -> String {
        explain(&self.folder, self.folder.is_dir(), error)
    }
}

fn explain(folder: &Path, mounted: bool, error: &io::Error) -> String {
    let folder = folder.display();
    if !mounted {
        return format!(
            r#"there is no folder `{folder}`: add `"mounts": [{{"host": "./notes", "guest": "{folder}", "access": "rw"}}]` to this server in the configuration"#
        );
    }
    match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            format!(r#"the folder `{folder}` can only be read: its mount needs `"access": "rw"` for notes to change"#)
        }
        _ => format!("the folder `{folder}`: {error}"),
    }
}

/// A name is one of a file in the folder, whatever is done with it.
fn check(name: &str) -> Result<(), String> {
    let wrong = if name.is_empty() {
        "is empty".into()
    } else if name.len() > LONGEST_NAME {
        format!("is longer than {LONGEST_NAME} bytes")
    } else if let Some(stem) = name.strip_suffix(".md") {
        format!("is given without `.md`: `{stem}`")
    } else if name.trim() != name {
        format!("`{name}` begins or ends with a space")
    } else if let Some(wrong) = name.chars().find(|c| !(c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))) {
        format!("`{name}` has a {wrong:?}, but can only have letters, digits, spaces, `-` and `_`")
    } else {
        return Ok(());
    };
    Err(format!("the name of a note {wrong}"))
}

fn unknown(name: &str, names: &[String]) -> String {
    let likeness = |other: &String| strsim::jaro_winkler(&other.to_lowercase(), &name.to_lowercase());
    let mut near: Vec<_> = names.iter().filter(|other| likeness(other) > 0.75).collect();
    near.sort_by(|one, other| likeness(other).total_cmp(&likeness(one)));
    let quoted: Vec<_> = near.iter().take(3).map(|name| format!("`{name}`")).collect();
    let hint = match (quoted.is_empty(), names.len()) {
        (false, _) => format!("did you mean {}?", quoted.join(" or ")),
        (true, 0) => "there are no notes yet".into(),
        (true, count) => format!("`list_notes` lists the {count} that there are"),
    };
    format!("there is no note `{name}`; {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_can_only_be_read_is_named_with_its_remedy() {
        let denied = io::Error::from(ErrorKind::PermissionDenied);
        let said = explain(Path::new("/notes"), true, &denied);
        assert_eq!(
            said,
            r#"the folder `/notes` can only be read: its mount needs `"access": "rw"` for notes to change"#
        );
    }

    #[test]
    fn names_lead_nowhere_else() {
        for name in ["", ".", "..", "../a", "a/b", "a\\b", "/a", "a.b", ".a", "a.md", " a", "a ", "a\n", "a\0", "C:a"] {
            assert!(check(name).is_err(), "{name:?}");
        }
        for name in ["a", "shopping list", "2026-03-20", "Füße_7"] {
            assert_eq!(check(name), Ok(()), "{name:?}");
        }
    }
}
