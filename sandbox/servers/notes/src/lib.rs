//! Notes as Markdown files in a folder, as an MCP server: what a wasm server with a mount looks like.

mod model;
mod store;

use std::path::PathBuf;

use rmcp::handler::server::wrapper::Parameters;
use rmcp::{Json, ServerHandler, tool, tool_handler, tool_router};

use model::{Changed, DeleteNote, Deleted, Found, Match, Note, NoteList, ReadNote, SearchNotes, WriteNote};
use store::Store;

/// The notes in one folder, a `.md` file each.
#[derive(Clone)]
pub struct Notes {
    store: Store,
}

impl Notes {
    /// The notes in this folder. Whether it is there and can be changed is seen when it is used.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { store: Store { folder: folder.into() } }
    }
}

#[tool_router]
impl Notes {
    /// Lists all notes by name, each with its size and first line.
    #[tool(title = "List notes", annotations(read_only_hint = true, open_world_hint = false))]
    fn list_notes(&self) -> Result<Json<NoteList>, String> {
        let names = self.store.names()?;
        let notes =
            names.into_iter().map(|name| Ok(self.store.read(&name)?.summary())).collect::<Result<_, String>>()?;
        Ok(Json(NoteList { notes }))
    }

    /// Reads one note.
    #[tool(title = "Read a note", annotations(read_only_hint = true, open_world_hint = false))]
    fn read_note(&self, Parameters(ReadNote { name }): Parameters<ReadNote>) -> Result<Json<Note>, String> {
        self.store.read(&name).map(Json)
    }

    /// Writes a note: a new one, or in place of the one with this name. To keep what it says, use `append_to_note`.
    #[tool(
        title = "Write a note",
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = true, open_world_hint = false)
    )]
    fn write_note(&self, Parameters(WriteNote { name, text }): Parameters<WriteNote>) -> Result<Json<Changed>, String> {
        let created = !self.store.names()?.contains(&name);
        self.store.write(&name, &text)?;
        Ok(Json(Changed { name, size: text.len(), created }))
    }

    /// Adds text at the end of a note that exists, on a line of its own.
    #[tool(
        title = "Append to a note",
        annotations(
            read_only_hint = false,
            destructive_hint = false,
            idempotent_hint = false,
            open_world_hint = false
        )
    )]
    fn append_to_note(
        &self,
        Parameters(WriteNote { name, text: added }): Parameters<WriteNote>,
    ) -> Result<Json<Changed>, String> {
        let mut text = self.store.read(&name)?.text;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(&added);
        self.store.write(&name, &text)?;
        Ok(Json(Changed { name, size: text.len(), created: false }))
    }

    /// Finds the lines that contain a text, in upper or lower case, in all notes.
    #[tool(title = "Search notes", annotations(read_only_hint = true, open_world_hint = false))]
    fn search_notes(
        &self,
        Parameters(SearchNotes { query, limit }): Parameters<SearchNotes>,
    ) -> Result<Json<Found>, String> {
        if query.trim().is_empty() {
            return Err("`query` is empty".into());
        }
        let query = query.to_lowercase();
        let mut matches = Vec::new();
        for name in self.store.names()? {
            let note = self.store.read(&name)?;
            let lines = note.text.lines().zip(1..).filter(|(line, _)| line.to_lowercase().contains(&query));
            matches.extend(lines.map(|(text, line)| Match { name: name.clone(), line, text: text.into() }));
        }
        let total = matches.len();
        matches.truncate(limit);
        Ok(Json(Found { matches, total }))
    }

    /// Deletes a note for good.
    #[tool(
        title = "Delete a note",
        annotations(read_only_hint = false, destructive_hint = true, idempotent_hint = false, open_world_hint = false)
    )]
    fn delete_note(&self, Parameters(DeleteNote { name }): Parameters<DeleteNote>) -> Result<Json<Deleted>, String> {
        self.store.delete(&name)?;
        Ok(Json(Deleted { remaining: self.store.names()?.len(), name }))
    }
}

#[tool_handler(
    name = "rhaiway-notes",
    instructions = "Notes in Markdown, each a file in a folder. A note is called by its name, without `.md`."
)]
impl ServerHandler for Notes {}
