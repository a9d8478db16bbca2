use std::borrow::Cow;

use futures_util::FutureExt;
use serde_json::json;
use wasm_encoder::{
    CodeSection, ConstExpr, CustomSection, Encode, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    GlobalType, MemorySection, MemoryType, Module, TypeSection, ValType,
};
use wasmtime::component::Linker;
use wasmtime::{Config, Store};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::{AbiVariant, WasmType};
use wit_parser::{PackageMetadata, Resolve, WorldItem};

use super::*;

/// A component of this WIT. Its functions give back the memory of their parameters, where these and the result are in memory, and
/// trap elsewhere. Made by what real toolchains use, and with its comments as `wit-docs-inject` adds them.
fn component(wit: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let package = resolve.push_str("test.wit", wit).unwrap();
    let world = resolve.select_world(&[package], None).unwrap();
    let mut module = module(&resolve, world);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).unwrap();
    let mut wasm = ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
    add_docs(&mut wasm, &PackageMetadata::extract(&resolve, package).encode().unwrap());
    wasm
}

fn add_docs(wasm: &mut Vec<u8>, docs: &[u8]) {
    wasm.push(0);
    CustomSection { name: "package-docs".into(), data: Cow::Borrowed(docs) }.encode(wasm);
}

fn module(resolve: &Resolve, world: wit_parser::WorldId) -> Vec<u8> {
    let (mut types, mut functions) = (TypeSection::new(), FunctionSection::new());
    let (mut exports, mut code) = (ExportSection::new(), CodeSection::new());
    let mut add = |name: &str, params: &[ValType], results: &[ValType], body: &dyn Fn(&mut Function)| {
        let index = types.len();
        types.ty().function(params.iter().copied(), results.iter().copied());
        functions.function(index);
        exports.export(name, ExportKind::Func, index);
        let mut function = Function::new([]);
        body(&mut function);
        function.instructions().end();
        code.function(&function);
    };
    // Memory is handed out from a pointer that moves, 16 bytes at a time.
    add("cabi_realloc", &[ValType::I32; 4], &[ValType::I32], &|function| {
        let mut code = function.instructions();
        code.global_get(0).global_get(0).local_get(3).i32_add().i32_const(15).i32_add().i32_const(-16).i32_and();
        code.global_set(0);
    });
    for (name, item) in &resolve.worlds[world].exports {
        let name = resolve.name_world_key(name);
        let mut export = |name: &str, function: &wit_parser::Function| {
            let signature = resolve.wasm_signature(AbiVariant::GuestExport, function);
            let wasm = |kinds: &[WasmType]| kinds.iter().map(|kind| value_type(*kind)).collect::<Vec<_>>();
            let is_memory = signature.indirect_params && signature.retptr;
            add(name, &wasm(&signature.params), &wasm(&signature.results), &|function| {
                let mut code = function.instructions();
                _ = if is_memory { code.local_get(0) } else { code.unreachable() };
            });
        };
        match item {
            WorldItem::Function(function) => export(&name, function),
            WorldItem::Interface { id, .. } => {
                for function in resolve.interfaces[*id].functions.values() {
                    export(&format!("{name}#{}", function.name), function);
                }
            }
            WorldItem::Type { .. } => {}
        }
    }
    let (mut memories, mut globals) = (MemorySection::new(), GlobalSection::new());
    memories.memory(MemoryType { minimum: 64, maximum: None, memory64: false, shared: false, page_size_log2: None });
    globals.global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }, &ConstExpr::i32_const(1024));
    exports.export("memory", ExportKind::Memory, 0);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&globals).section(&exports).section(&code);
    module.finish()
}

fn value_type(kind: WasmType) -> ValType {
    match kind {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => ValType::I32,
        WasmType::I64 | WasmType::PointerOrI64 => ValType::I64,
        WasmType::F32 => ValType::F32,
        WasmType::F64 => ValType::F64,
    }
}

fn engine() -> Engine {
    let mut config = Config::new();
    config.wasm_component_model_map(true);
    Engine::new(&config).unwrap()
}

fn tools(wasm: &[u8]) -> TypedTools {
    let engine = engine();
    TypedTools::of(&engine, &Component::new(&engine, wasm).unwrap(), wasm)
}

impl TypedTools {
    /// Bytes of the schemas, and of the reasons why functions are left out.
    fn sizes(&self) -> (usize, usize) {
        let schemas = self.tools.iter().flat_map(|tool| [&tool.input_schema, &tool.output_schema]);
        let schemas = schemas.map(|schema| serde_json::to_string(schema).unwrap().len()).sum();
        (schemas, self.unsupported.iter().map(|(_, why)| why.len()).sum())
    }
}

fn names_of(tools: &TypedTools) -> Vec<&str> {
    tools.tools.iter().map(|tool| tool.name.as_str()).collect()
}

/// What makes a function's parameters too many for anything but memory.
const PADDING: &str = "u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64";

/// An instance with a function for each type, that gives back what it gets.
struct Echo {
    tools: TypedTools,
    instance: wasmtime::component::Instance,
    store: Store<()>,
}

impl Echo {
    fn new(definitions: &str, types: &[&str]) -> Self {
        let functions = types.iter().enumerate().map(|(index, kind)| {
            format!("export f{index}: func(value: tuple<{kind}, u64>, pad: tuple<{PADDING}>) -> tuple<{kind}, u64>;\n")
        });
        let wit = format!("package a:b; world w {{ {definitions}\n{} }}", functions.collect::<String>());
        let wasm = component(&wit);
        let engine = engine();
        let component = Component::new(&engine, &wasm).unwrap();
        let tools = TypedTools::of(&engine, &component, &wasm);
        assert_eq!(tools.unsupported, []);
        let mut store = Store::new(&engine, ());
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        Self { tools, instance, store }
    }

    fn call(&mut self, tool: usize, arguments: &[Val]) -> Vec<Val> {
        let tool = &self.tools.tools[tool];
        let function = self.instance.get_func(&mut self.store, tool.export()).unwrap();
        let mut results = vec![Val::Bool(false); tool.result_count()];
        function.call(&mut self.store, arguments, &mut results).unwrap();
        results
    }

    fn echo(&mut self, tool: usize, value: &Value) -> Result<Value, String> {
        let arguments = json!({"value": [value, 7], "pad": vec![0; 16]});
        let values = arguments_of(&self.tools.tools[tool], &arguments)?;
        let results = self.call(tool, &values);
        let mut answer = answer_of(&self.tools.tools[tool], &results).unwrap();
        assert_eq!(answer["result"][1], 7);
        Ok(answer["result"][0].take())
    }
}

fn arguments_of(tool: &TypedTool, arguments: &Value) -> Result<Vec<Val>, String> {
    super::value::parameters(&tool.signature.parameters, arguments.as_object().unwrap())
}

/// Also that the text is the same.
fn answer_of(tool: &TypedTool, results: &[Val]) -> Result<Value, Unanswered> {
    let Answer { value, text } = tool.signature.read(results, 1 << 20)?;
    let value = Value::Object(value);
    assert_eq!(value.to_string(), text);
    Ok(value)
}

/// That values come back as they are, and these others as what is given beside them.
#[track_caller]
fn check_echo(definitions: &str, kind: &str, same: &[Value], others: &[(Value, Value)]) {
    let mut echo = Echo::new(definitions, &[kind]);
    for (value, expected) in same.iter().map(|value| (value, value)).chain(others.iter().map(|(a, b)| (a, b))) {
        let echoed = echo.echo(0, value).unwrap();
        assert_eq!(echoed.to_string(), expected.to_string());
    }
}

/// That values are refused, and in which words; the value itself is at `value[0]`.
#[track_caller]
fn check_refused(definitions: &str, kind: &str, refused: &[(Value, &str)]) {
    let mut echo = Echo::new(definitions, &[kind]);
    for (value, error) in refused {
        assert_eq!(echo.echo(0, value), Err((*error).to_string()), "{value}");
    }
}

const TYPES: &str = "
    record point { x-axis: f64, y: option<u8> }
    variant figure { circle(f64), named(option<string>), dot }
    enum color { red, dark-green, blue }
    flags access { read, write, run-it }
    type alias = list<point>;
";

#[test]
fn integers_are_exact() {
    check_echo("", "s8", &[json!(-128), json!(127)], &[(json!(3.0), json!(3)), (json!(-0.0), json!(0))]);
    check_echo("", "u8", &[json!(0), json!(255)], &[]);
    check_echo("", "s16", &[json!(i16::MIN), json!(i16::MAX)], &[]);
    check_echo("", "u16", &[json!(0), json!(u16::MAX)], &[]);
    check_echo("", "s32", &[json!(i32::MIN), json!(i32::MAX)], &[]);
    check_echo("", "u32", &[json!(0), json!(u32::MAX)], &[]);
    let text = i64::MIN.to_string();
    check_echo("", "s64", &[json!(i64::MIN), json!(i64::MAX)], &[(json!(text), json!(i64::MIN))]);
    let text = u64::MAX.to_string();
    check_echo("", "u64", &[json!(0), json!((1_u64 << 53) + 1), json!(u64::MAX)], &[(json!(text), json!(u64::MAX))]);
}

#[test]
fn integers_out_of_range_are_refused() {
    let byte = |found: &str| format!("`value[0]`: expected an integer from 0 to 255, found `{found}`");
    check_refused(
        "",
        "u8",
        &[
            (json!(256), &byte("256")),
            (json!(-1), &byte("-1")),
            (json!(1.5), &byte("1.5")),
            (json!(1e300), &byte("1e+300")),
            (json!("1"), &byte(r#""1""#)),
            (json!(null), &byte("null")),
        ],
    );
    let long = |found: &str| {
        format!("`value[0]`: expected an integer from -9223372036854775808 to 9223372036854775807, found `{found}`")
    };
    check_refused(
        "",
        "s64",
        &[
            (json!(1_u64 << 63), &long("9223372036854775808")),
            (json!(1e16), &long("1e+16")),
            (json!("+1"), &long(r#""+1""#)),
            (json!(""), &long(r#""""#)),
            (json!("-"), &long(r#""-""#)),
            (json!("1".repeat(100)), &long(&format!("\"{}…", "1".repeat(59)))),
        ],
    );
}

#[test]
fn floats_are_numbers_or_names() {
    let not_finite = [json!("NaN"), json!("Infinity"), json!("-Infinity")];
    check_echo("", "f64", &not_finite, &[(json!(1), json!(1.0))]);
    check_echo("", "f64", &[json!(-0.0), json!(0.1), json!(5e-324), json!(f64::MAX)], &[]);
    check_echo("", "f32", &not_finite, &[(json!(16_777_217), json!(16_777_216.0))]);
    check_echo("", "f32", &[json!(0.1), json!(3.402_823_5e38), json!(1e-45)], &[]);
    check_refused("", "f32", &[(json!(1e39), "`value[0]`: expected a number of 32 bits, found `1e+39`")]);
    check_refused("", "f64", &[(json!("nan"), "`value[0]`: expected a number, found `\"nan\"`")]);
}

#[test]
fn texts_and_truth() {
    check_echo("", "bool", &[json!(true), json!(false)], &[]);
    check_echo("", "char", &[json!("a"), json!("é"), json!("🦀")], &[]);
    check_echo("", "string", &[json!(""), json!("a \"quoted\" é\n\u{0}")], &[]);
    check_refused("", "bool", &[(json!(1), "`value[0]`: expected `true` or `false`, found `1`")]);
    check_refused("", "string", &[(json!(["a"]), "`value[0]`: expected a string, found `[\"a\"]`")]);
    check_refused(
        "",
        "char",
        &[
            (json!(""), "`value[0]`: expected one character, found `\"\"`"),
            (json!("ab"), "`value[0]`: expected one character, found `\"ab\"`"),
        ],
    );
}

#[test]
fn lists_tuples_and_maps() {
    check_echo("", "list<string>", &[json!([]), json!(["a", "b"])], &[]);
    check_echo("", "list<u8>", &[json!([0, 255])], &[]);
    check_echo("", "tuple<u8, string, tuple<bool>>", &[json!([1, "a", [true]])], &[]);
    check_echo("", "map<string, u32>", &[json!({}), json!({"z": 1, "a b": 2})], &[]);
    check_echo("", "map<u8, list<string>>", &[json!([[1, ["a"]], [2, []]])], &[]);
    check_refused(
        "",
        "list<u8>",
        &[(json!([1, 300]), "`value[0][1]`: expected an integer from 0 to 255, found `300`")],
    );
    check_refused("", "tuple<u8, u8>", &[(json!([1]), "`value[0]`: expected an array of 2, found `[1]`")]);
    check_refused(
        "",
        "map<string, bool>",
        &[(json!({"a b": 1}), "`value[0][\"a b\"]`: expected `true` or `false`, found `1`")],
    );
    check_refused(
        "",
        "map<u8, bool>",
        &[
            (json!({}), "`value[0]`: expected an array of pairs, found `{}`"),
            (json!([[1]]), "`value[0][0]`: expected an array of 2, found `[1]`"),
            (json!([["a", true]]), "`value[0][0][0]`: expected an integer from 0 to 255, found `\"a\"`"),
        ],
    );
}

#[test]
fn records_have_their_fields() {
    let missing_is_null = (json!({"x_axis": 1.5}), json!({"x_axis": 1.5, "y": null}));
    check_echo(TYPES, "point", &[json!({"x_axis": 1.5, "y": 2})], &[missing_is_null]);
    check_echo(TYPES, "alias", &[json!([{"x_axis": 1.5, "y": null}])], &[]);
    check_refused(
        TYPES,
        "point",
        &[
            (json!({}), "`value[0].x_axis`: missing, expected a number"),
            (json!({"x-axis": 1}), "`value[0]`: has no field `x-axis`; it has `x_axis`, `y`"),
            (json!({"x_axis": 1, "z": 2}), "`value[0]`: has no field `z`; it has `x_axis`, `y`"),
            (json!({"x_axis": 1, "y": "a"}), "`value[0].y`: expected an integer from 0 to 255, found `\"a\"`"),
            (json!([1, 2]), "`value[0]`: expected an object, found `[1,2]`"),
        ],
    );
}

#[test]
fn cases_and_flags() {
    check_echo(TYPES, "color", &[json!("dark-green")], &[]);
    check_echo(
        TYPES,
        "access",
        &[json!([]), json!(["read", "run-it"])],
        &[(json!(["write", "read"]), json!(["read", "write"]))],
    );
    let missing_is_null = (json!({"tag": "named"}), json!({"tag": "named", "value": null}));
    let figures = [json!({"tag": "circle", "value": 1.5}), json!({"tag": "dot"})];
    check_echo(TYPES, "figure", &figures, &[missing_is_null]);
    check_refused(
        TYPES,
        "color",
        &[(json!("pink"), "`value[0]`: expected one of `red`, `dark-green`, `blue`, found `\"pink\"`")],
    );
    check_refused(
        TYPES,
        "access",
        &[
            (json!("read"), "`value[0]`: expected an array of names, found `\"read\"`"),
            (json!(["read", 1]), "`value[0][1]`: expected one of `read`, `write`, `run-it`, found `1`"),
            (json!(["read", "read"]), "`value[0][1]`: `read` is given twice"),
        ],
    );
    check_refused(
        TYPES,
        "figure",
        &[
            (
                json!("dot"),
                "`value[0]`: expected an object whose `tag` is one of `circle`, `named`, `dot`, found `\"dot\"`",
            ),
            (json!({}), "`value[0].tag`: missing, expected one of `circle`, `named`, `dot`"),
            (json!({"tag": "x"}), "`value[0].tag`: expected one of `circle`, `named`, `dot`, found `\"x\"`"),
            (json!({"tag": "circle"}), "`value[0].value`: missing, expected a number"),
            (json!({"tag": "dot", "value": 1}), "`value[0]`: has no field `value`; it has `tag`"),
        ],
    );
}

#[test]
fn options_and_results() {
    check_echo("", "option<u8>", &[json!(null), json!(1)], &[]);
    check_echo("", "option<option<u8>>", &[json!(null), json!({"value": null}), json!({"value": 1})], &[]);
    check_echo("", "result<u8, string>", &[json!({"ok": 1}), json!({"error": "no"})], &[]);
    check_echo("", "result<_, string>", &[json!({"ok": null}), json!({"error": "no"})], &[]);
    check_echo("", "result", &[json!({"ok": null}), json!({"error": null})], &[]);
    check_refused(
        "",
        "option<option<u8>>",
        &[
            (json!(1), "`value[0]`: expected an object with a `value`, or null, found `1`"),
            (json!({}), "`value[0].value`: missing, expected an integer from 0 to 255, or null"),
        ],
    );
    check_refused(
        "",
        "result<u8, string>",
        &[
            (json!({}), "`value[0]`: expected an object with either `ok` or `error`, found `{}`"),
            (
                json!({"ok": 1, "error": "a"}),
                "`value[0]`: expected an object with either `ok` or `error`, found `{\"ok\":1,\"error\":\"a\"}`",
            ),
            (json!({"error": 1}), "`value[0].error`: expected a string, found `1`"),
        ],
    );
    check_refused("", "result", &[(json!({"ok": 1}), "`value[0].ok`: expected null, found `1`")]);
}

#[test]
fn errors_are_short_and_of_parameters() {
    let echo = Echo::new("", &["list<u8>"]);
    let error = |arguments: &Value| arguments_of(&echo.tools.tools[0], arguments).unwrap_err();
    assert_eq!(error(&json!({})), "`value`: missing, expected an array of 2");
    assert_eq!(error(&json!({"vale": []})), "has no parameter `vale`; it has `value`, `pad`");
    let mut deep = json!([]);
    for _ in 0..300 {
        deep = Value::Array(vec![deep]);
    }
    let told = error(&json!({"value": [deep, 1]}));
    assert_eq!(told, format!("`value[0][0]`: expected an integer from 0 to 255, found `{}…`", "[".repeat(60)));
    let many = |n| (0..n).map(|i| format!("a{i}")).collect::<Vec<_>>().join(", ");
    let mut echo = Echo::new(&format!("enum many {{ {} }}", many(14)), &["many"]);
    let told = echo.echo(0, &json!("é".repeat(100))).unwrap_err();
    let names = (0..12).map(|i| format!("`a{i}`")).collect::<Vec<_>>().join(", ");
    assert_eq!(told, format!("`value[0]`: expected one of {names} and 2 more, found `\"{}…`", "é".repeat(59)));
}

const UNITS: &str = r"
package docs:units@1.0.0;

/// What measures are.
interface types {
    /// A unit of length.
    enum unit {
        /// The SI's.
        meter,
        foot,
    }

    /// How far something is.
    type distance = f32;

    /// A length.
    record measure {
        /// How many.
        amount: distance,
        /// Of what.
        unit: unit,
        note: option<string>,
    }
}

interface convert {
    use types.{measure, unit, distance};

    /// Why a conversion failed.
    variant problem {
        /// It is less than nothing.
        negative(distance),
        unknown,
    }

    /// What to round.
    flags rounding {
        /// Towards nothing.
        down,
        even,
    }

    /// Converts lengths.
    ///
    /// All to one unit.
    convert-all: func(measures: list<measure>, to: unit, limit: option<distance>, rounding: rounding)
        -> result<list<tuple<distance, unit>>, problem>;
    first: func() -> measure;
    reset: func();
    check: func(bytes: list<u8>) -> result<_, string>;
    fail: func() -> result<u8>;
}

world units {
    export convert;
    /// Of the world.
    export greet: func(who: string) -> string;
    /// An interface of the world.
    export inline: interface {
        /// How loud.
        type volume = u8;
        /// Shouts.
        shout: func(volume: volume);
    }
}
";

fn tool<'a>(tools: &'a TypedTools, name: &str) -> &'a TypedTool {
    tools.tools.iter().find(|tool| tool.name == name).unwrap()
}

#[test]
fn schemas_say_all() {
    let tools = tools(&component(UNITS));
    assert_eq!(names_of(&tools), ["greet", "convert_all", "first", "reset", "check", "fail", "shout"]);
    let convert = tool(&tools, "convert_all");
    assert_eq!(convert.description.as_deref(), Some("Converts lengths.\n\nAll to one unit."));
    let distance = json!({
        "anyOf": [
            {"type": "number", "minimum": f64::from(f32::MIN), "maximum": f64::from(f32::MAX)},
            {"enum": ["NaN", "Infinity", "-Infinity"]}
        ],
        "description": "How far something is."
    });
    let unit = json!({
        "type": "string", "enum": ["meter", "foot"], "description": "A unit of length.\n\n- `meter`: The SI's."
    });
    let mut amount = distance.clone();
    amount["description"] = json!("How many.\n\nHow far something is.");
    let mut of_what = unit.clone();
    of_what["description"] = json!("Of what.\n\nA unit of length.\n\n- `meter`: The SI's.");
    let measure = json!({
        "type": "object",
        "properties": {
            "amount": amount,
            "unit": of_what,
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}
        },
        "required": ["amount", "unit"],
        "additionalProperties": false,
        "description": "A length."
    });
    let input = json!({
        "type": "object",
        "properties": {
            "measures": {"type": "array", "items": measure},
            "to": unit,
            "limit": {"anyOf": [distance, {"type": "null"}]},
            "rounding": {
                "type": "array",
                "items": {"type": "string", "enum": ["down", "even"]},
                "uniqueItems": true,
                "description": "What to round.\n\n- `down`: Towards nothing."
            }
        },
        "required": ["measures", "to", "rounding"],
        "additionalProperties": false
    });
    assert_eq!(json!(convert.input_schema), input);
    let output = json!({
        "type": "object",
        "properties": {"result": {"type": "array", "items": {
            "type": "array", "prefixItems": [distance, unit], "items": false, "minItems": 2, "maxItems": 2
        }}},
        "required": ["result"],
        "additionalProperties": false
    });
    assert_eq!(json!(convert.output_schema), output);
    assert_eq!(json!(tool(&tools, "first").output_schema), measure);
    let nothing = json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false});
    assert_eq!(json!(tool(&tools, "reset").input_schema), nothing);
    assert_eq!(json!(tool(&tools, "reset").output_schema), nothing);
    assert_eq!(tool(&tools, "greet").description.as_deref(), Some("Of the world."));
    let shout = tool(&tools, "shout");
    assert_eq!(shout.description.as_deref(), Some("Shouts."));
    let volume = json!({"type": "integer", "minimum": 0, "maximum": 255, "description": "How loud."});
    assert_eq!(shout.input_schema["properties"]["volume"], volume);
}

#[test]
fn schemas_of_the_other_types() {
    let types = [
        "figure",
        "result<u8, string>",
        "result",
        "option<option<u8>>",
        "char",
        "map<string, u8>",
        "map<u8, bool>",
        "s64",
        "u64",
    ];
    let echo = Echo::new(TYPES, &types);
    let number = json!({"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]});
    let text = json!({"anyOf": [{"type": "string"}, {"type": "null"}]});
    let byte = json!({"type": "integer", "minimum": 0, "maximum": 255});
    let byte_or_null = json!({"anyOf": [byte, {"type": "null"}]});
    let none = json!({"type": "null"});
    let digits = json!({"type": "string", "pattern": "^-?[0-9]+$"});
    let expected = [
        json!({"oneOf": [
            object_of(&json!({"tag": {"const": "circle"}, "value": number}), &["tag", "value"]),
            object_of(&json!({"tag": {"const": "named"}, "value": text}), &["tag"]),
            object_of(&json!({"tag": {"const": "dot"}}), &["tag"]),
        ]}),
        json!({"oneOf": [
            object_of(&json!({"ok": byte}), &["ok"]),
            object_of(&json!({"error": {"type": "string"}}), &["error"]),
        ]}),
        json!({"oneOf": [object_of(&json!({"ok": none}), &["ok"]), object_of(&json!({"error": none}), &["error"])]}),
        json!({"anyOf": [object_of(&json!({"value": byte_or_null}), &["value"]), none]}),
        json!({"type": "string", "minLength": 1, "maxLength": 1}),
        json!({"type": "object", "additionalProperties": byte}),
        json!({"type": "array", "items": {
            "type": "array",
            "prefixItems": [byte, {"type": "boolean"}],
            "items": false, "minItems": 2, "maxItems": 2,
        }}),
        json!({"anyOf": [{"type": "integer", "minimum": i64::MIN, "maximum": i64::MAX}, digits]}),
        json!({"anyOf": [{"type": "integer", "minimum": 0, "maximum": u64::MAX}, digits]}),
    ];
    for (tool, expected) in echo.tools.tools.iter().zip(expected) {
        assert_eq!(tool.input_schema["properties"]["value"]["prefixItems"][0], expected);
    }
}

fn object_of(properties: &Value, required: &[&str]) -> Value {
    json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false})
}

#[test]
fn cases_of_variants_are_described() {
    let wit =
        "package a:b; interface i { variant v { /// Nothing.\n none, some(u8) } f: func(v: v); } world w { export i; }";
    let tools = tools(&component(wit));
    let cases = &tools.tools[0].input_schema["properties"]["v"]["oneOf"];
    assert_eq!(cases[0]["description"], "Nothing.");
    assert_eq!(cases[1].get("description"), None);
}

#[test]
fn answers_are_objects() {
    let tools = tools(&component(UNITS));
    let answer = |name: &str, results: &[Val]| answer_of(tool(&tools, name), results);
    let failed = |message: &str, data: Value| Err(Unanswered::Failed { message: message.into(), data });
    let some = |value: Val| Some(Box::new(value));
    assert_eq!(answer("greet", &[Val::String("a".into())]), Ok(json!({"result": "a"})));
    assert_eq!(answer("reset", &[]), Ok(json!({})));
    assert_eq!(tool(&tools, "reset").result_count(), 0);
    let measure = Val::Record(vec![
        ("amount".into(), Val::Float32(0.1)),
        ("unit".into(), Val::Enum("foot".into())),
        ("note".into(), Val::Option(None)),
    ]);
    assert_eq!(answer("first", &[measure]), Ok(json!({"amount": 0.1, "unit": "foot", "note": null})));
    assert_eq!(answer("check", &[Val::Result(Ok(None))]), Ok(json!({})));
    assert_eq!(answer("check", &[Val::Result(Err(some(Val::String("no".into()))))]), failed("no", json!("no")));
    assert_eq!(answer("convert_all", &[Val::Result(Ok(some(Val::List(vec![]))))]), Ok(json!({"result": []})));
    let problem = Val::Variant("negative".into(), some(Val::Float32(-1.0)));
    assert_eq!(
        answer("convert_all", &[Val::Result(Err(some(problem)))]),
        failed(r#"{"tag":"negative","value":-1.0}"#, json!({"tag": "negative", "value": -1.0}))
    );
    assert_eq!(answer("fail", &[Val::Result(Err(None))]), failed("the tool failed and did not say why", Value::Null));
    for odd in [&[][..], &[Val::Bool(true)], &[Val::Result(Ok(None))], &[Val::Result(Err(None))]] {
        assert_eq!(answer("convert_all", odd), failed("what the function gave is not of its type", Value::Null));
    }
}

#[tokio::test]
async fn large_values_are_converted_beside_other_tasks() {
    let tools = tools(&component(
        "package a:b; world w { export f: func(a: list<u8>) -> list<string>; export g: func() -> result<_, string>; }",
    ));
    let texts = |count: usize| vec![Val::List(vec![Val::String("é".repeat(10)); count])];
    let (f, g) = (tool(&tools, "f"), tool(&tools, "g"));
    assert!(f.answer(texts(100), 1 << 20).now_or_never().unwrap().is_ok());
    let mut large = Box::pin(f.answer(texts(1000), 1 << 20));
    assert!((&mut large).now_or_never().is_none());
    assert_eq!(large.await.unwrap().value["result"].as_array().unwrap().len(), 1000);
    let numbers = |count: usize| json!({"a": vec![1; count]}).as_object().unwrap().clone();
    assert!(f.arguments(numbers(100)).now_or_never().unwrap().is_ok());
    let mut large = Box::pin(f.arguments(numbers(10_000)));
    assert!((&mut large).now_or_never().is_none());
    assert_eq!(large.await, Ok(vec![Val::List(vec![Val::U8(1); 10_000])]));
    // `{"result":["éééééééééé"]}` has 35 bytes.
    assert!(f.answer(texts(1), 35).await.is_ok());
    assert_eq!(f.answer(texts(1), 34).await, Err(Unanswered::TooLong));
    let failed = || vec![Val::Result(Err(Some(Box::new(Val::String("no".into())))))];
    assert_eq!(g.answer(failed(), 3).await, Err(Unanswered::TooLong));
    assert_ne!(g.answer(failed(), 4).await, Err(Unanswered::TooLong));
}

#[test]
fn without_comments_there_are_no_descriptions() {
    let documented = component(UNITS);
    let expected = tools(&documented);
    let section = documented.windows(12).rposition(|bytes| bytes == b"package-docs").unwrap();
    let mut odd = documented.clone();
    odd[section + 12] = 9;
    let bare = super::docs::without_docs(&documented);
    let mut broken = bare.clone();
    add_docs(&mut broken, b"\x01{");
    for wasm in [&bare, &odd, &broken] {
        let found = tools(wasm);
        assert_eq!(names_of(&found), names_of(&expected));
        assert!(found.tools.iter().all(|tool| tool.description.is_none()));
        assert_eq!(
            tool(&found, "convert_all").input_schema["properties"]["to"],
            json!({"type": "string", "enum": ["meter", "foot"]})
        );
    }
    // What was there before the first version has texts alone, and what is unknown does not matter.
    let mut old = bare;
    add_docs(&mut old, b"\0{\"interfaces\":{\"convert\":{\"funcs\":{\"reset\":\"Old.\",\"no-such\":null},\"new\":1}}}");
    assert_eq!(tool(&tools(&old), "reset").description.as_deref(), Some("Old."));
}

#[test]
fn long_comments_are_cut() {
    let wit = format!("package a:b; world w {{ /// {}\n export f: func(); }}", "é".repeat(3000));
    let description = tools(&component(&wit)).tools[0].description.clone().unwrap();
    assert_eq!(description, format!("{}… (cut, 6000 bytes in all)", "é".repeat(2000)));
}

#[test]
fn what_can_not_be_a_tool_is_named() {
    let nested = |levels: usize| format!("{}u8{}", "result<".repeat(levels), ">".repeat(levels));
    let wit = format!(
        "package a:b@1.2.3;
        interface things {{
            resource thing {{ constructor(); name: func() -> string; count-all: static func() -> u32; }}
            lend: func(x: u8, thing: borrow<thing>);
            many: func() -> list<option<thing>>;
            plain: func();
        }}
        world w {{
            export things;
            export deep: func(a: {}) -> u8;
            export less-deep: func(a: {}) -> u8;
        }}",
        nested(24),
        nested(23)
    );
    let tools = tools(&component(&wit));
    assert_eq!(names_of(&tools), ["less_deep", "thing_count_all", "plain"]);
    // As deep as readers of JSON go, in the message that it is in.
    let message = json!({"result": {"tools": [{"inputSchema": tools.tools[0].input_schema}]}}).to_string();
    assert!(serde_json::from_str::<Value>(&message).is_ok());
    let unsupported: Vec<(&str, &str)> =
        tools.unsupported.iter().map(|(function, why)| (function.as_str(), why.as_str())).collect();
    assert_eq!(
        unsupported,
        [
            ("deep", "its parameter `a` has types in each other, more than 24 levels deep"),
            ("a:b/things@1.2.3#[constructor]thing", "its result has a resource"),
            ("a:b/things@1.2.3#[method]thing.name", "its parameter `self` has a resource"),
            ("a:b/things@1.2.3#lend", "its parameter `thing` has a resource"),
            ("a:b/things@1.2.3#many", "its result has a resource"),
        ]
    );
}

#[test]
fn what_the_engine_does_not_know_does_not_compile() {
    let functions = [
        ("async func()", "async component functions require"),
        ("func(a: stream<u8>)", "`stream` requires"),
        ("func() -> future<u8>", "`future` requires"),
        ("func(a: error-context)", "`error-context` requires"),
        ("func(a: list<u8, 3>)", "Fixed-length lists require"),
    ];
    for (function, expected) in functions {
        let wasm = component(&format!("package a:b; world w {{ export f: {function}; }}"));
        let error = format!("{:#}", Component::new(&engine(), &wasm).err().unwrap());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn types_that_are_too_many_are_refused() {
    // Each level is ten of the one before it: 111,111 parts.
    let levels = (1..6).map(|n| {
        let before = vec![format!("t{}", n - 1); 10].join(", ");
        format!("type t{n} = tuple<{before}>;")
    });
    let wit = format!(
        "package a:b; world w {{ type t0 = u8; {} export small: func(); export big: func(a: list<t5>); export other: func(); }}",
        levels.collect::<String>()
    );
    let tools = tools(&component(&wit));
    assert_eq!(names_of(&tools), ["small", "other"]);
    let why = "its parameter `a` has more parts, or longer names, than there is room for";
    assert_eq!(tools.unsupported, [("big".to_string(), why.to_string())]);
}

#[test]
fn names_that_are_too_long_are_refused() {
    let name = "x".repeat(90_000);
    let many = |kind: &str, count: usize| vec![kind; count].join(", ");
    let wit = format!(
        "package a:b; interface i {{
            record r {{ {name}: u8 }}
            type t = tuple<{}>;
            once: func(a: r) -> enum-of;
            enum enum-of {{ {name} }}
            often: func(a: tuple<{}>);
            {}
        }}
        world w {{ export i; }}",
        many("r", 50),
        many("t", 100),
        (0..100).map(|n| format!("g{n}: func({name}: u8) -> r;")).collect::<Vec<_>>().concat(),
    );
    let tools = tools(&component(&wit));
    assert_eq!(names_of(&tools)[0], "once");
    let often = tools.unsupported.iter().find(|(function, _)| function == "a:b/i#often");
    assert_eq!(often.unwrap().1, "its parameter `a` has more parts, or longer names, than there is room for");
    let (size, told) = tools.sizes();
    assert!(size < 20_000_000 && told < 100_000, "{size}, {told}");
}

#[test]
fn names_are_unique() {
    let wit = "package x:y;
        package a:b@1.0.0 { interface conv-ert { add: func(); only: func(); sub: func(); } }
        package a:b@2.0.0 { interface conv-ert { add: func(); } }
        package wasi:cli@0.2.0 { interface run { run: func() -> result; } }
        interface other { add: func(); sub: func(); }
        world w {
            export a:b/conv-ert@1.0.0;
            export a:b/conv-ert@2.0.0;
            export wasi:cli/run@0.2.0;
            export other;
            export add: func();
            export other-sub: func();
        }";
    let tools = tools(&component(wit));
    assert_eq!(tools.unsupported, []);
    let mut names = names_of(&tools);
    names.sort_unstable();
    assert_eq!(
        names,
        ["add", "conv_ert_add", "conv_ert_add_2", "conv_ert_sub", "only", "other_add", "other_sub", "other_sub_2"]
    );
}

/// The next of a fixed series of numbers ([SplitMix64](https://prng.di.unimi.it/splitmix64.c)).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }

    fn character(&mut self) -> char {
        let limits = [0x80, 0x800, 0xd800, 0x10_ffff];
        let limit = limits[self.below(4)];
        char::from_u32(u32::try_from(self.below(limit)).unwrap()).unwrap_or('x')
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "any bits will do")]
    fn value(&mut self, shape: &Shape) -> Val {
        use super::shape::Integer as I;
        let bits = if self.below(4) == 0 { [0, 1, u64::MAX, 1 << 63][self.below(4)] } else { self.next() };
        match &shape.kind {
            Kind::Bool => Val::Bool(bits % 2 == 0),
            Kind::Integer(I::S8) => Val::S8(bits as i8),
            Kind::Integer(I::U8) => Val::U8(bits as u8),
            Kind::Integer(I::S16) => Val::S16(bits as i16),
            Kind::Integer(I::U16) => Val::U16(bits as u16),
            Kind::Integer(I::S32) => Val::S32(bits as i32),
            Kind::Integer(I::U32) => Val::U32(bits as u32),
            Kind::Integer(I::S64) => Val::S64(bits as i64),
            Kind::Integer(I::U64) => Val::U64(bits),
            Kind::Float32 => Val::Float32(f32::from_bits(bits as u32)),
            Kind::Float64 => Val::Float64(f64::from_bits(bits)),
            Kind::Char => Val::Char(self.character()),
            Kind::String => Val::String((0..self.below(5)).map(|_| self.character()).collect()),
            Kind::List(item) => Val::List((0..self.below(4)).map(|_| self.value(item)).collect()),
            // An object has no key twice.
            Kind::Map(key, item) => {
                let mut pairs: Vec<(Val, Val)> = Vec::new();
                for _ in 0..self.below(4) {
                    let (key, value) = (self.value(key), self.value(item));
                    if pairs.iter().all(|(other, _)| *other != key) {
                        pairs.push((key, value));
                    }
                }
                Val::Map(pairs)
            }
            Kind::Record(fields) => {
                Val::Record(fields.iter().map(|field| (field.name.clone(), self.value(&field.shape))).collect())
            }
            Kind::Tuple(items) => Val::Tuple(items.iter().map(|item| self.value(item)).collect()),
            Kind::Variant(cases) => {
                let case = &cases[self.below(cases.len())];
                Val::Variant(case.label.name.clone(), case.shape.as_ref().map(|shape| Box::new(self.value(shape))))
            }
            Kind::Enum(labels) => Val::Enum(labels[self.below(labels.len())].name.clone()),
            Kind::Flags(labels) => {
                Val::Flags(labels.iter().filter(|_| self.below(2) == 0).map(|label| label.name.clone()).collect())
            }
            Kind::Option(item) => Val::Option((bits % 2 == 0).then(|| Box::new(self.value(item)))),
            Kind::Result(ok, error) => {
                let mut side = |shape: &Option<Box<Shape>>| shape.as_ref().map(|shape| Box::new(self.value(shape)));
                Val::Result(if bits % 2 == 0 { Ok(side(ok)) } else { Err(side(error)) })
            }
        }
    }
}

#[test]
fn any_value_comes_back() {
    let types = [
        "tuple<bool, s8, u8, s16, u16, s32, u32, s64, u64, f32, f64, char, string>",
        "list<tuple<point, option<figure>, color, access>>",
        "result<option<option<option<f32>>>, list<result<_, result<color>>>>",
        "map<string, list<map<char, alias>>>",
        "map<s16, list<option<f32>>>",
        "option<result<option<result>, figure>>",
    ];
    let mut echo = Echo::new(TYPES, &types);
    let mut random = Random(1);
    for round in 0..600 {
        let index = round % types.len();
        let tool = &echo.tools.tools[index];
        let parameters = &tool.signature.parameters;
        let values: Vec<Val> = parameters.iter().map(|parameter| random.value(&parameter.shape)).collect();
        let json = parameters.iter().zip(&values);
        let json: Map<String, Value> = json
            .map(|(parameter, value)| (parameter.key.clone(), super::value::json(&parameter.shape, value).unwrap()))
            .collect();
        // Through text, as it goes over a wire.
        let json: Value = serde_json::from_str(&Value::Object(json).to_string()).unwrap();
        assert_eq!(arguments_of(tool, &json).as_ref(), Ok(&values), "{json:?}");
        let echoed = echo.call(index, &values);
        assert_eq!(echoed, values[..1]);
        let answer = answer_of(&echo.tools.tools[index], &echoed).unwrap();
        assert_eq!(answer["result"].to_string(), json["value"].to_string());
        // The memory that was handed out is never handed back.
        if round % 50 == 49 {
            echo = Echo::new(TYPES, &types);
        }
    }
}
