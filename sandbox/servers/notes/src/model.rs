//! What goes in and out of the tools: the doc comments here are the descriptions in their schemas.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadNote {
    /// The name of the note, such as `shopping`.
    pub(crate) name: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WriteNote {
    /// The name of the note, such as `shopping`: letters, digits, spaces, `-` and `_`.
    pub(crate) name: String,
    /// The text, in Markdown.
    pub(crate) text: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchNotes {
    /// The text to look for, within one line.
    pub(crate) query: String,
    /// The most lines to return; `total` counts them all.
    #[serde(default = "default_limit")]
    pub(crate) limit: usize,
}

fn default_limit() -> usize {
    50
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeleteNote {
    /// The name of the note.
    pub(crate) name: String,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Note {
    /// The name of the note.
    pub(crate) name: String,
    /// The text, in Markdown.
    pub(crate) text: String,
}

impl Note {
    pub(crate) fn summary(self) -> NoteSummary {
        let first_line = self.text.lines().next().unwrap_or_default().into();
        NoteSummary { name: self.name, size: self.text.len(), first_line }
    }
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct NoteSummary {
    /// The name to read the note by.
    name: String,
    /// How many bytes the text has.
    size: usize,
    /// How the text begins.
    first_line: String,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct NoteList {
    /// All notes, by name.
    pub(crate) notes: Vec<NoteSummary>,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Changed {
    /// The name of the note.
    pub(crate) name: String,
    /// How many bytes its text now has.
    pub(crate) size: usize,
    /// Whether there was no such note before.
    pub(crate) created: bool,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Found {
    /// The lines, by the name of the note and from top to bottom.
    pub(crate) matches: Vec<Match>,
    /// How many lines matched, even if fewer are returned.
    pub(crate) total: usize,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Match {
    /// The name of the note.
    pub(crate) name: String,
    /// The number of the line; the first is 1.
    pub(crate) line: usize,
    /// The whole line.
    pub(crate) text: String,
}

#[derive(Serialize, JsonSchema)]
pub(crate) struct Deleted {
    /// The name of the note that is gone.
    pub(crate) name: String,
    /// How many notes are left.
    pub(crate) remaining: usize,
}
