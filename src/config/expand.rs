//! `${…}` in the strings of a configuration: variables, defaults, places, inputs. Looks nothing up by itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// How deep defaults may stand in each other: `${A:-${B:-x}}` is two.
const LEVELS: usize = 16;

/// What an entry's strings are expanded with, beside variables: where its file is, and what the user can be asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Surroundings {
    /// Folder of the file; `None` for a configuration that was never one.
    pub(crate) folder: Option<PathBuf>,
    /// What `${workspaceFolder}` is.
    pub(crate) workspace: Option<PathBuf>,
    /// Whether `{env:NAME}` is a variable too, as opencode has it.
    pub(crate) braces: bool,
    /// The `inputs` that occur in the entry.
    pub(crate) inputs: Vec<Input>,
}

/// Something that the user is asked for when a server is connected: an item of `inputs`, as VS Code has them.
///
/// Made by [`Config`](crate::Config); [`ClientBuilder::on_input`](crate::ClientBuilder::on_input) is asked for it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Input {
    /// The name in `${input:NAME}` (`id`).
    pub id: String,
    /// What to ask (`description`).
    pub description: Option<String>,
    /// Whether it is not to be seen (`password`).
    pub is_password: bool,
    /// What it is where nobody can be asked, or where the answer is empty (`default`).
    pub default: Option<String>,
    /// What it can be (`options`); anything where this is empty.
    pub options: Vec<String>,
}

impl Input {
    /// The variable that gives it where nobody can be asked: `RHAIWAY_INPUT_API_KEY` for `api-key`.
    #[must_use]
    pub fn variable(&self) -> String {
        variable_of(&self.id)
    }
}

fn variable_of(id: &str) -> String {
    let letter = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("RHAIWAY_INPUT_{}", id.chars().map(letter).collect::<String>())
}

/// What the names in `${…}` stand for.
pub(crate) struct Expansion<'a> {
    pub(crate) variables: &'a (dyn Fn(&str) -> Option<String> + Send + Sync),
    pub(crate) surroundings: &'a Surroundings,
    /// What the user answered, by `id`.
    pub(crate) answers: &'a BTreeMap<String, String>,
}

impl Expansion<'_> {
    /// `text` with all that is in `${…}` replaced, where it is a name. `$${` is a `${` that stays. `Err` says what is missing, and
    /// holds no value.
    pub(crate) fn expand(&self, text: &str) -> Result<String, String> {
        if !(text.contains("${") || self.surroundings.braces && text.contains('{')) {
            return Ok(text.into());
        }
        self.expand_within(text, LEVELS)
    }

    fn expand_within(&self, text: &str, levels: usize) -> Result<String, String> {
        let ends = ends(text);
        let mut out = String::new();
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            if rest.starts_with("$${") {
                out.push_str("${");
                at += 3;
                continue;
            }
            if let Some(end) = ends.get(&at)
                && let Some(inside) = text.get(at + 2..*end)
            {
                match self.value(inside, levels)? {
                    Some(value) => out.push_str(&value),
                    None => out.push_str(&text[at..=*end]),
                }
                at = end + 1;
                continue;
            }
            if self.surroundings.braces
                && let Some((name, after)) = rest.strip_prefix("{env:").and_then(|rest| rest.split_once('}'))
            {
                out.push_str(&(self.variables)(name).unwrap_or_default());
                at = text.len() - after.len();
                continue;
            }
            let next = rest.chars().next().map_or(1, char::len_utf8);
            out.push_str(&rest[..next]);
            at += next;
        }
        Ok(out)
    }

    /// What stands for the inside of `${…}`; `None` where that is no name, so that it stays as it is.
    fn value(&self, inside: &str, levels: usize) -> Result<Option<String>, String> {
        let (name, default) = inside.split_once(":-").map_or((inside, None), |(name, default)| (name, Some(default)));
        let found = match name.split_once(':') {
            Some(("env", name)) if !name.is_empty() && !name.contains(['$', '{', '=']) => {
                self.variable(name, default.is_some())
            }
            Some(("input", id)) if !id.is_empty() && !id.contains('$') => {
                return self.input(id).map(Some);
            }
            Some(("workspaceFolder", _)) => self.place("workspaceFolder"),
            None if name == "/" || name == "pathSeparator" => Ok(std::path::MAIN_SEPARATOR.to_string()),
            None if matches!(name, "workspaceFolder" | "workspaceFolderBasename" | "userHome") => self.place(name),
            None if is_name(name) => self.variable(name, default.is_some()),
            _ => return Ok(None),
        };
        match (found, default) {
            (Ok(value), _) => Ok(Some(value)),
            (Err(_), Some(_)) if levels == 0 => {
                Err(format!("its defaults stand more than {LEVELS} levels deep in each other"))
            }
            (Err(_), Some(default)) => self.expand_within(default, levels - 1).map(Some),
            (Err(missing), None) => Err(missing),
        }
    }

    fn variable(&self, name: &str, has_default: bool) -> Result<String, String> {
        // As in a shell, `:-` also replaces an empty value.
        let value = (self.variables)(name).filter(|value| !has_default || !value.is_empty());
        value.ok_or_else(|| format!("it needs the variable `{name}`, which is not set"))
    }

    fn place(&self, name: &str) -> Result<String, String> {
        let workspace = || self.surroundings.workspace.as_deref();
        let found = match name {
            "userHome" => home(self.variables),
            "workspaceFolderBasename" => {
                workspace().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned())
            }
            _ => workspace().map(|folder| folder.display().to_string()),
        };
        found.or_else(|| (self.variables)(name)).ok_or_else(|| match name {
            "userHome" => "it needs the home folder (`${userHome}`), and the variable `HOME` is not set".into(),
            name => format!("`${{{name}}}` is known only in a configuration that is read from a file"),
        })
    }

    fn input(&self, id: &str) -> Result<String, String> {
        let variable = variable_of(id);
        if let Some(value) = self.answers.get(id).cloned().or_else(|| (self.variables)(&variable)) {
            return Ok(value);
        }
        let known = self.surroundings.inputs.iter().find(|input| input.id == id);
        match known {
            Some(Input { default: Some(default), .. }) => Ok(default.clone()),
            Some(_) => Err(format!(
                "it needs the input `{id}` (see `inputs`), and there is nobody to ask: set the variable `{variable}`, or run the command at \
                 a terminal"
            )),
            None => Err(format!(
                "it needs the input `{id}`, and `inputs` has none of that `id`: add it there, or set the variable `{variable}`"
            )),
        }
    }

    /// A path: expanded, with `~` for the home folder, and from the configuration's folder where it is relative.
    pub(crate) fn path(&self, text: &str) -> Result<PathBuf, String> {
        let expanded = self.home_expanded(self.expand(text)?)?;
        Ok(match &self.surroundings.folder {
            Some(folder) => tidy(&folder.join(expanded)),
            None => expanded.into(),
        })
    }

    /// A program: a path where it has a separator, else a name to be looked up.
    pub(crate) fn program(&self, text: &str) -> Result<String, String> {
        let expanded = self.expand(text)?;
        let is_path = |text: &str| text.contains(std::path::is_separator);
        let is_file_here = Path::new(&expanded).extension().is_some_and(|end| end.eq_ignore_ascii_case("wasm"));
        if !is_path(&expanded) && !is_file_here {
            return Ok(expanded);
        }
        let expanded = self.home_expanded(expanded)?;
        Ok(match &self.surroundings.folder {
            Some(folder) => tidy(&folder.join(expanded)).display().to_string(),
            None => expanded,
        })
    }

    fn home_expanded(&self, path: String) -> Result<String, String> {
        let rest = path.strip_prefix('~').filter(|rest| rest.is_empty() || rest.starts_with(std::path::is_separator));
        match rest {
            None => Ok(path),
            Some(rest) => {
                let home = home(self.variables);
                let home = home.ok_or("it needs the home folder (`~`), and the variable `HOME` is not set")?;
                Ok(format!("{home}{rest}"))
            }
        }
    }
}

/// Without the `.` in `folder/./file`.
fn tidy(path: &Path) -> PathBuf {
    path.components().collect()
}

fn home(variables: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    ["HOME", "USERPROFILE"].into_iter().find_map(variables).filter(|home| !home.is_empty())
}

/// What a variable can be called; anything else in braces is a shell's own, and stays.
fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Where each `${` that is closed ends: the place of its `}`. In one pass, however they stand in each other.
fn ends(text: &str) -> BTreeMap<usize, usize> {
    let bytes = text.as_bytes();
    let (mut open, mut ends) = (Vec::new(), BTreeMap::new());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'$' if bytes[at..].starts_with(b"$${") => at += 2,
            b'$' if bytes[at..].starts_with(b"${") => {
                open.push(at);
                at += 1;
            }
            b'}' => {
                if let Some(start) = open.pop() {
                    ends.insert(start, at);
                }
            }
            _ => {}
        }
        at += 1;
    }
    ends
}

/// Names in `${input:NAME}`, in a text.
pub(super) fn input_ids(text: &str) -> impl Iterator<Item = &str> {
    text.split("${input:").skip(1).filter_map(|rest| rest.split_once('}')).map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".into()),
            "EMPTY" => Some(String::new()),
            "HOME" => Some("/home/me".into()),
            "TRICKY" => Some("${A}".into()),
            "RHAIWAY_INPUT_FROM_OUTSIDE" => Some("outside".into()),
            _ => None,
        }
    }

    fn surroundings() -> Surroundings {
        let input = |id: &str, default: Option<&str>| Input {
            id: id.into(),
            default: default.map(String::from),
            ..Input::default()
        };
        Surroundings {
            folder: Some("/work/project/.vscode".into()),
            workspace: Some("/work/project".into()),
            braces: false,
            inputs: vec![input("asked", None), input("unasked", None), input("easy", Some("default"))],
        }
    }

    fn expand(text: &str) -> Result<String, String> {
        let answers = BTreeMap::from([("asked".to_string(), "answer".to_string())]);
        let surroundings = surroundings();
        Expansion { variables: &variables, surroundings: &surroundings, answers: &answers }.expand(text)
    }

    #[test]
    fn names_are_replaced_and_the_rest_stays() {
        for (text, expanded) in [
            ("${A}-${env:A}", "a-a"),
            ("${NONE:-x}${EMPTY:-y}${EMPTY}", "xy"),
            ("${NONE:-${OTHER:-${A}}}!", "a!"),
            ("${NONE:-{\"a\": {}}}", "{\"a\": {}}"),
            ("$${A} $$${A} $$", "${A} $${A} $$"),
            ("${NONE:-$${A}}", "${A}"),
            (
                "${d%/} ${#x} ${x//a/b} ${1} ${} ${a b} ${config:x}",
                "${d%/} ${#x} ${x//a/b} ${1} ${} ${a b} ${config:x}",
            ),
            ("${A ${A}", "${A a"),
            ("${", "${"),
            ("$A $(x) {env:A}", "$A $(x) {env:A}"),
            // What a variable holds is not read again.
            ("${TRICKY}", "${A}"),
            ("${workspaceFolder}/x ${workspaceFolderBasename} ${userHome}", "/work/project/x project /home/me"),
            ("a${/}b${pathSeparator}c", "a/b/c"),
            ("${input:asked} ${input:easy} ${input:from-outside}", "answer default outside"),
            ("ü${A}ü", "üaü"),
        ] {
            let expected = if cfg!(windows) { expanded.replace("a/b/c", "a\\b\\c") } else { expanded.into() };
            assert_eq!(expand(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        for (text, message) in [
            ("${NONE}", "it needs the variable `NONE`, which is not set"),
            ("${NONE:-${OTHER}}", "it needs the variable `OTHER`, which is not set"),
            ("${input:unasked}", "set the variable `RHAIWAY_INPUT_UNASKED`"),
            ("${input:a-b}", "`inputs` has none of that `id`: add it there, or set the variable `RHAIWAY_INPUT_A_B`"),
        ] {
            let error = expand(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
        let deep = format!("{}x{}", "${N:-".repeat(LEVELS + 2), "}".repeat(LEVELS + 2));
        assert_eq!(expand(&deep), Err("its defaults stand more than 16 levels deep in each other".into()));
        let deep = format!("{}x{}", "${N:-".repeat(LEVELS), "}".repeat(LEVELS));
        assert_eq!(expand(&deep), Ok("x".into()));
    }

    #[test]
    fn much_that_is_never_closed_takes_no_time() {
        let text = "${A:-".repeat(200_000);
        assert_eq!(expand(&text), Ok(text.clone()));
    }

    #[cfg(unix)]
    #[test]
    fn paths_start_in_the_folder_of_the_configuration() {
        let (answers, surroundings) = (BTreeMap::new(), surroundings());
        let expansion = Expansion { variables: &variables, surroundings: &surroundings, answers: &answers };
        for (text, path) in [
            ("data", "/work/project/.vscode/data"),
            ("./data/${A}", "/work/project/.vscode/data/a"),
            ("/data", "/data"),
            ("~/data", "/home/me/data"),
            ("~", "/home/me"),
            ("~you/data", "/work/project/.vscode/~you/data"),
        ] {
            assert_eq!(expansion.path(text), Ok(path.into()), "{text}");
        }
        for (text, program) in [
            ("node", "node"),
            ("./run", "/work/project/.vscode/run"),
            ("~/bin/x", "/home/me/bin/x"),
            ("a.wasm", "/work/project/.vscode/a.wasm"),
        ] {
            assert_eq!(expansion.program(text), Ok(program.into()), "{text}");
        }
    }
}
