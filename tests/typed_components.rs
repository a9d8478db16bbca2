//! Components with typed functions as servers: what their answers may cost, and values of all types. They are made here, as toolchains
//! do it, but with functions that give any number of items.

use std::time::Duration;

use libtest_mimic::Trial;
use rhaiway::{CallOptions, Client, Error, Lifetime, SandboxConfig, Session, ToolAnswer};
use serde_json::{Map, Value, json};
use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, ExportKind, ExportSection, Function, FunctionSection, GlobalSection, GlobalType,
    MemArg, MemorySection, MemoryType, Module, TypeSection, ValType,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{Resolve, WorldItem};

use crate::lateness;
use crate::support::{Ignored, builder, run, test, value};

/// First argument of the test binary that makes it a process for one call, whose size is measured. A function and its parameter follow.
pub const ARGUMENT: &str = "typed-peak";

pub fn tests() -> Vec<Trial> {
    vec![
        test("typed_components::integers_of_64_bits", integers),
        test("typed_components::maps_and_large_arguments", maps),
        test("typed_components::limits", limits),
        test("typed_components::closing_ends_what_runs", closing),
        test("typed_components::large_answers", large_answers),
        test("typed_components::answers_that_are_too_large_fail_their_call", too_large),
        test("typed_components::what_answers_take_on_the_host", peaks),
    ]
}

/// What a function does. Its result is at 16 in the memory, where it is there.
enum Gives {
    /// What it is told to, the same in wasm.
    Same,
    Constant(u64),
    /// Never, as it computes.
    Never,
    /// Never, as it needs more and more memory.
    Memory,
    /// Never, as it calls itself.
    Itself,
    /// Its list, text or map.
    Back,
    /// As many items as its parameter says, so many bytes each, and all of them this one.
    Items {
        bytes: i32,
        filled: i32,
    },
    /// The same, as a `result`'s error.
    Error {
        bytes: i32,
        filled: i32,
    },
}

const RESULT: i32 = 16;
const ITEMS: i32 = 1024;

/// A component of the world `w` of this WIT; all of its functions are of the world itself.
fn component(wit: &str, functions: &[(&str, Gives)]) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("test.wit", &format!("package a:b; world w {{ {wit} }}")).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let (mut types, mut declared) = (TypeSection::new(), FunctionSection::new());
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    let mut add = |name: &str, params: &[ValType], results: &[ValType], body: &dyn Fn(&mut Function, u32)| {
        let index = types.len();
        types.ty().function(params.iter().copied(), results.iter().copied());
        declared.function(index);
        exports.export(name, ExportKind::Func, index);
        let mut function = Function::new([]);
        body(&mut function, index);
        function.instructions().end();
        code.function(&function);
    };
    // Memory is handed out from a pointer that moves, 16 bytes at a time.
    add("cabi_realloc", &[ValType::I32; 4], &[ValType::I32], &|function, _| {
        let mut code = function.instructions();
        code.global_get(0).global_get(0).local_get(3).i32_add().i32_const(15).i32_add().i32_const(-16).i32_and();
        code.global_set(0);
    });
    for (key, item) in &resolve.worlds[world].exports {
        let (name, WorldItem::Function(function)) = (resolve.name_world_key(key), item) else { continue };
        let signature = resolve.wasm_signature(AbiVariant::GuestExport, function);
        let wasm = |kinds: &[WasmType]| kinds.iter().map(|kind| value_type(*kind)).collect::<Vec<_>>();
        let (_, gives) = functions.iter().find(|(given, _)| *given == name).unwrap();
        add(&name, &wasm(&signature.params), &wasm(&signature.results), &|function, index| {
            give(function, index, gives);
        });
    }
    let (mut memories, mut globals) = (MemorySection::new(), GlobalSection::new());
    memories.memory(MemoryType { minimum: 960, maximum: None, memory64: false, shared: false, page_size_log2: None });
    globals.global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }, &ConstExpr::i32_const(ITEMS));
    exports.export("memory", ExportKind::Memory, 0);
    let mut module = Module::new();
    module.section(&types).section(&declared).section(&memories).section(&globals).section(&exports).section(&code);
    let mut module = module.finish();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}

fn value_type(kind: WasmType) -> ValType {
    match kind {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => ValType::I32,
        WasmType::I64 | WasmType::PointerOrI64 => ValType::I64,
        WasmType::F32 => ValType::F32,
        WasmType::F64 => ValType::F64,
    }
}

fn give(function: &mut Function, index: u32, gives: &Gives) {
    let at = |offset: u64| MemArg { offset, align: 2, memory_index: 0 };
    let mut code = function.instructions();
    let mut items = |bytes: i32, filled: i32, place: u64| {
        code.i32_const(ITEMS).i32_const(filled).local_get(0).i32_const(bytes).i32_mul().memory_fill(0);
        code.i32_const(RESULT).i32_const(ITEMS).i32_store(at(place));
        code.i32_const(RESULT).local_get(0).i32_store(at(place + 4));
    };
    match *gives {
        Gives::Same => {
            code.local_get(0);
            return;
        }
        Gives::Constant(value) => {
            code.i64_const(value.cast_signed());
            return;
        }
        Gives::Never => {
            code.loop_(BlockType::Empty).br(0).end().unreachable();
            return;
        }
        Gives::Memory => {
            code.loop_(BlockType::Empty).i32_const(16).memory_grow(0).drop().br(0).end().unreachable();
            return;
        }
        Gives::Itself => {
            code.call(index).call(index);
            return;
        }
        Gives::Back => {
            code.i32_const(RESULT).local_get(0).i32_store(at(0));
            code.i32_const(RESULT).local_get(1).i32_store(at(4));
        }
        Gives::Items { bytes, filled } => items(bytes, filled, 0),
        Gives::Error { bytes, filled } => {
            items(bytes, filled, 4);
            code.i32_const(RESULT).i32_const(1).i32_store(at(0));
        }
    }
    code.i32_const(RESULT);
}

/// The component as the server `it` of a client.
fn serving(wasm: Vec<u8>, sandbox: SandboxConfig) -> Client {
    builder(json!({})).wasm_server("it", wasm, sandbox).build().unwrap()
}

async fn integers() -> Result<(), Ignored> {
    let wit = "export max: func() -> u64; export echo: func(x: u64) -> u64; export signed: func(x: s64) -> s64;";
    let client = serving(
        component(wit, &[("max", Gives::Constant(u64::MAX)), ("echo", Gives::Same), ("signed", Gives::Same)]),
        SandboxConfig::default(),
    );
    let script = r#"
        let x = it.max().result;
        [x, it.echo(#{x: x}).result, it.echo(#{x: 7}).result, it.signed(#{x: "-9223372036854775808"}).result]
    "#;
    let said = value(run(&client, script).await);
    assert_eq!(said, json!([u64::MAX.to_string(), u64::MAX.to_string(), 7, i64::MIN]));
    for odd in [r#""7a""#, r#""""#, "1.5", "true"] {
        let said = run(&client, &format!("it.echo(#{{x: {odd}}})")).await.error.unwrap().to_string();
        assert!(said.contains("`x`") && said.contains("integer"), "{odd}: {said}");
    }
    // What no schema says.
    let said = run(&client, r#"it.echo(#{x: "18446744073709551616"})"#).await.error.unwrap().to_string();
    assert!(said.contains("`x`: expected an integer from 0 to 18446744073709551615, found"), "{said}");
    client.close_all_sessions().await;
    Ok(())
}

fn endless() -> Vec<u8> {
    let wit = "export never: func(); export more: func(); export itself: func(); export one: func() -> u64;";
    let functions =
        [("never", Gives::Never), ("more", Gives::Memory), ("itself", Gives::Itself), ("one", Gives::Constant(1))];
    component(wit, &functions)
}

async fn limits() -> Result<(), Ignored> {
    for lifetime in [Lifetime::Call, Lifetime::Session] {
        let mut sandbox = SandboxConfig::default();
        sandbox.instance = lifetime;
        for (function, seconds, limit) in [
            ("never", 1, "it computed for longer than the 1 s that one request may take (`cpu_seconds`)"),
            ("more", 60, "it needs more memory than its 64 MiB (`memory_mb`)"),
            ("itself", 60, "its stack is full"),
        ] {
            sandbox.cpu_time = Duration::from_secs(seconds);
            let client = serving(endless(), sandbox.clone());
            let refused = run(&client, &format!("it.{function}()")).await.error.unwrap().to_string();
            assert!(refused.contains(limit), "{refused}");
            assert_eq!(value(run(&client, "it.one().result").await), json!(1));
            client.close_all_sessions().await;
        }
        // Waiting for others counts.
        sandbox.cpu_time = Duration::from_secs(60);
        sandbox.wall_time = Duration::from_millis(300);
        let client = serving(endless(), sandbox);
        let script = "parallel_settled([|| it.never(), || it.never(), || it.never()]).map(|one| one.error.message)";
        let Value::Array(errors) = value(run(&client, script).await) else { panic!("no list") };
        let late = "it did not answer within the 0.3 s that a request may take (`wall_seconds`)";
        assert!(errors.len() == 3 && errors.iter().all(|error| error.to_string().contains(late)), "{errors:?}");
        client.close_all_sessions().await;
    }
    Ok(())
}

/// A call that would take for long does not outlive its session, which closing would else wait for in vain.
async fn closing() -> Result<(), Ignored> {
    let mut sandbox = SandboxConfig::default();
    sandbox.cpu_time = Duration::from_mins(2);
    sandbox.wall_time = Duration::from_mins(2);
    let client = serving(endless(), sandbox);
    let session = client.create_session("it").await.unwrap();
    let called = session.call_tool("never", Map::new(), CallOptions::default());
    let mut called = std::pin::pin!(called);
    // The call is under way once one that was made later has its answer.
    tokio::select! {
        biased;
        answer = &mut called => panic!("{answer:?}"),
        answer = session.call_tool("one", Map::new(), CallOptions::default()) => assert!(!answer.unwrap().is_error()),
    }
    let closed = tokio::time::timeout(Duration::from_secs(6), client.close_all_sessions());
    let (failed, closed) = tokio::join!(called, closed);
    failed.unwrap_err();
    closed.unwrap();
    Ok(())
}

async fn maps() -> Result<(), Ignored> {
    let wit = "export named: func(all: map<string, u32>) -> map<string, u32>;
        export numbered: func(all: map<u8, string>) -> map<u8, string>;
        export bytes: func(all: list<u8>) -> list<u8>;";
    let wasm = component(wit, &[("named", Gives::Back), ("numbered", Gives::Back), ("bytes", Gives::Back)]);
    let client = serving(wasm, SandboxConfig::default());
    let script = r#"[it.named(#{all: #{a: 1, "b c": 2}}).result, it.numbered(#{all: [[1, "x"], [2, ""]]}).result]"#;
    let said = value(run(&client, script).await);
    assert_eq!(said, json!([{"a": 1, "b c": 2}, [[1, "x"], [2, ""]]]));
    let all = json!({"all": vec![7; 500_000]});
    let session = client.create_session("it").await.unwrap();
    let answer = session.call_tool("bytes", all.as_object().unwrap().clone(), CallOptions::default()).await.unwrap();
    assert_eq!(answer.structured().unwrap()["result"], all["all"]);
    client.close_all_sessions().await;
    Ok(())
}

/// Functions that give as many items as they are told to.
fn many() -> Vec<u8> {
    // As short as 32 names can be.
    let names = ('a'..='z').map(String::from).chain((0..6).map(|n| format!("a{n}"))).collect::<Vec<_>>().join(", ");
    let wit = format!(
        "flags every {{ {names} }}
        record entry {{ id: u32, name: string, open: bool }}
        export numbers: func(count: u32) -> list<u8>;
        export text: func(count: u32) -> string;
        export entries: func(count: u32) -> list<entry>;
        export every: func(count: u32) -> list<every>;
        export options: func(count: u32) -> list<option<option<option<u8>>>>;
        export results: func(count: u32) -> list<result>;
        export fail: func(count: u32) -> result<_, string>;
        export fail-oddly: func(count: u32) -> result<_, list<u8>>;"
    );
    let functions = [
        ("numbers", Gives::Items { bytes: 1, filled: 0 }),
        ("text", Gives::Items { bytes: 1, filled: 97 }),
        ("entries", Gives::Items { bytes: 16, filled: 0 }),
        ("every", Gives::Items { bytes: 4, filled: 255 }),
        ("options", Gives::Items { bytes: 4, filled: 1 }),
        ("results", Gives::Items { bytes: 1, filled: 0 }),
        ("fail", Gives::Error { bytes: 1, filled: 1 }),
        ("fail-oddly", Gives::Error { bytes: 1, filled: 1 }),
    ];
    component(&wit, &functions)
}

async fn try_call(session: &Session, function: &str, count: usize) -> Result<ToolAnswer, Error> {
    let arguments = json!({"count": count}).as_object().unwrap().clone();
    session.call_tool(function, arguments, CallOptions::default()).await
}

async fn call(session: &Session, function: &str, count: usize) -> ToolAnswer {
    try_call(session, function, count).await.unwrap()
}

/// Why a call failed, as the tool's own answer: the connection is still there.
async fn failure(session: &Session, function: &str, count: usize) -> String {
    let answer = call(session, function, count).await;
    assert!(answer.is_error());
    answer.content()[0]["text"].as_str().unwrap().into()
}

async fn large_answers() -> Result<(), Ignored> {
    let client = serving(many(), SandboxConfig::default());
    let session = client.create_session("it").await.unwrap();
    for (function, count) in [("numbers", 1_500_000), ("entries", 100_000), ("every", 20_000), ("options", 100_000)] {
        let answer = call(&session, function, count).await.structured().unwrap();
        assert_eq!(answer["result"].as_array().unwrap().len(), count, "{function}");
    }
    let answer = call(&session, "text", 15 << 20).await.structured().unwrap();
    assert_eq!(answer["result"].as_str().unwrap().len(), 15 << 20);
    // As much as a script takes.
    assert_eq!(value(run(&client, "it.text(#{count: 4_000_000}).result.len()").await), json!(4_000_000));
    client.close_all_sessions().await;
    Ok(())
}

async fn too_large() -> Result<(), Ignored> {
    let mut sandbox = SandboxConfig::default();
    sandbox.instance = Lifetime::Session;
    let client = serving(many(), sandbox.clone());
    let session = client.create_session("it").await.unwrap();
    let output = "it wrote more than the 16 MiB that it may write for one request (`max_output_mb`)";
    assert_eq!(failure(&session, "text", 17 << 20).await, output);
    assert_eq!(failure(&session, "fail", 4 << 20).await, output);
    assert_eq!(failure(&session, "fail_oddly", 10 << 20).await.split(':').next(), Some("the sandbox ended it"));
    let said = failure(&session, "every", 200_000).await;
    assert!(said.contains("its answer takes more memory than answers may (`max_output_mb`: 16 MiB)"), "{said}");
    assert!(!call(&session, "every", 10).await.is_error());
    client.close_all_sessions().await;
    // What a message can't hold fails the call, not the connection.
    sandbox.max_output = 100 << 20;
    let client = serving(many(), sandbox);
    let session = client.create_session("it").await.unwrap();
    for (function, count) in [("text", 33 << 20), ("fail", 6 << 20)] {
        let said = failure(&session, function, count).await;
        assert!(said.contains("message may have 32 MiB"), "{said}");
    }
    // Without the copy of it as text, it has room.
    assert_eq!(call(&session, "text", 30 << 20).await.content(), Vec::<Value>::new());
    client.close_all_sessions().await;
    Ok(())
}

/// Makes one call, and says by how many MiB the process grew at most, how late timers were, and what the call came to.
pub fn main(arguments: impl Iterator<Item = String>) {
    let [function, count] = &arguments.collect::<Vec<_>>()[..] else { panic!("it takes a function and its parameter") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = serving(many(), SandboxConfig::default());
        let session = client.create_session("it").await.unwrap();
        call(&session, function, 1).await;
        let before = peak();
        let start = std::time::Instant::now();
        let (answer, late) = lateness::watch(try_call(&session, function, count.parse().unwrap())).await;
        let grew = peak() - before;
        let bytes = answer.ok().and_then(|answer| answer.structured()).map_or(0, |answer| answer.to_string().len());
        let took = start.elapsed().as_millis();
        let latest = late.last().map_or(0, std::time::Duration::as_millis);
        println!("{}", json!({"grew": grew, "took": took, "late": latest, "bytes": bytes}));
        client.close_all_sessions().await;
    });
}

/// MiB that this process had at most, all in all.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default() >> 10
}

async fn peaks() -> Result<(), Ignored> {
    // What is refused, and about as much as is not.
    let calls =
        [("every", "200000"), ("every", "40000"), ("options", "120000"), ("results", "700000"), ("numbers", "2000000")];
    for (function, count) in calls {
        let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
        let output = command.args([ARGUMENT, function, count]).output().await.unwrap();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(said["grew"].as_u64().unwrap() < 320, "{function} {count}: {said}");
    }
    Ok(())
}
