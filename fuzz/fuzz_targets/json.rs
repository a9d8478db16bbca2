//! Any text as a tool's answer: what a script reads from it is what it says, and comes out again the same, as the script's value and
//! as arguments.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use rhaiway_fuzz::{Echo, Worker, run};
use serde_json::Value;

/// How deep values may nest on their way out.
const DEPTH: usize = 100;

static WORKER: LazyLock<Worker> = LazyLock::new(|| Worker::start(|input| round_trip(&String::from_utf8_lossy(input))));

fuzz_target!(|input: &[u8]| WORKER.run(input));

fn round_trip(text: &str) {
    let reference = serde_json::from_str::<Value>(text);
    let first = run(&Echo::new(text.into()), "github.answer()");
    let (first, reference) = match (first, reference) {
        (Ok(first), Ok(reference)) => (first, reference),
        (Err(fault), Ok(reference)) => {
            assert!(depth(&reference) > DEPTH, "not read: {fault:?}");
            return;
        }
        (Ok(first), Err(error)) => panic!("read as {first}, but {error}"),
        (Err(_), Err(_)) => return,
    };
    let value: Value = serde_json::from_str(&first).unwrap();
    assert!(is_same(&value, &reference), "read as {first}");

    if depth(&value) < DEPTH {
        let host = Echo::new(first.clone());
        let again = run(&host, "parse_json(to_json(#{v: github.answer()})).v");
        assert_eq!(again.as_ref(), Ok(&first), "the second time");
        let echoed = run(&host, "github.echo(#{v: github.answer()}).arguments.v");
        assert_eq!(echoed.as_ref(), Ok(&first), "as an argument");
        assert_eq!(*host.arguments.borrow(), format!("{{\"v\":{first}}}"));
    }
}

/// Levels of arrays and objects.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// Integers that fit no `i64` are texts with the same digits.
fn is_same(value: &Value, reference: &Value) -> bool {
    match (value, reference) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| is_same(a, b)))
        }
        (Value::String(digits), Value::Number(number)) => {
            !number.is_i64() && serde_json::from_str::<Value>(digits).is_ok_and(|read| read == *reference)
        }
        (Value::Number(a), Value::Number(b)) => a.is_i64() == b.is_i64() && a.as_f64() == b.as_f64(),
        (a, b) => a == b,
    }
}
