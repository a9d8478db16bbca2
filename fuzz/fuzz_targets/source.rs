//! Any text as a script: it ends, without a panic, with JSON or a fault that is the script's own.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rhaiway_fuzz::{Echo, Worker, run};

static WORKER: LazyLock<Worker> = LazyLock::new(|| {
    Worker::start(|input| {
        let _ = run(&Echo::new("[1, 2.5, {\"a\": null}]".into()), &String::from_utf8_lossy(input));
    })
});

fuzz_target!(|input: &[u8]| WORKER.run(input));
