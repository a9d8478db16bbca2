//! The probe as a program of its own: built for wasm, it is `sandbox/dist/probe-p1.wasm` and `probe-p2.wasm`.

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    rhaiway_probe_server::main(&arguments);
}
