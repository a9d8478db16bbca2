//! The notes server as a program of its own: built for wasm, it is `sandbox/dist/notes.wasm`.

fn main() -> Result<(), String> {
    rhaiway_guest_stdio::serve(rhaiway_notes_server::Notes::new("/notes"))
}
