//! The demo server as a program of its own: built for wasm, it is `sandbox/dist/demo.wasm`.

fn main() -> Result<(), String> {
    rhaiway_guest_stdio::serve(rhaiway_demo_server::IssueTracker::default())
}
