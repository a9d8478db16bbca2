//! A component that is no MCP server but exports functions, as a set of tools: what they are called, what they take and give as JSON
//! Schema, and values from JSON and back. It describes and converts; whoever holds the instance calls.
//!
//! Parameters and fields of records have the names of the WIT with `_` for `-`, so that scripts can write `answer.line_count`; no two
//! are the same then, as WIT has no `_` in names. Cases and flags are values, and stay as they are.

mod docs;
mod schema;
mod shape;
#[cfg(test)]
mod tests;
mod value;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};
use wasmtime::Engine;
use wasmtime::component::types::{ComponentFunc, ComponentItem};
use wasmtime::component::{Component, ComponentExportIndex, Val};

use docs::Docs;
use shape::{Kind, Reader, Shape, Signature};

/// One exported function as a tool.
pub(crate) struct TypedTool {
    pub(crate) name: String,
    pub(crate) description: Option<String>,
    pub(crate) input_schema: Map<String, Value>,
    pub(crate) output_schema: Map<String, Value>,
    export: ComponentExportIndex,
    signature: Signature,
}

/// The functions of a component.
pub(crate) struct TypedTools {
    /// In the order in which they are exported.
    pub(crate) tools: Vec<TypedTool>,
    /// Functions that can't be tools, and why.
    pub(crate) unsupported: Vec<(String, String)>,
}

/// Why a function says that it failed.
#[derive(Debug, PartialEq)]
pub(crate) struct TypedFailure {
    pub(crate) message: String,
    pub(crate) data: Value,
}

impl TypedTools {
    /// Reads what a component exports; `wasm` is what it was compiled from, for the comments in it.
    pub(crate) fn of(engine: &Engine, component: &Component, wasm: &[u8]) -> Self {
        let docs = Docs::of(wasm);
        let mut reader = Reader::new(&docs);
        let (mut functions, mut unsupported) = (Vec::new(), Vec::new());
        for function in exported(engine, component) {
            match reader.signature(function.interface.as_deref(), &function.name, &function.kind) {
                Ok(signature) => functions.push((function, signature)),
                Err(why) => unsupported.push((function.path(), why)),
            }
        }
        let names = names(functions.iter().map(|(function, _)| function));
        let tools = functions.into_iter().zip(names);
        let tools = tools.map(|((function, signature), name)| TypedTool::new(name, &docs, &function, signature));
        Self { tools: tools.collect(), unsupported }
    }
}

impl TypedTool {
    fn new(name: String, docs: &Docs, function: &Exported, signature: Signature) -> Self {
        Self {
            name,
            description: docs.function(function.interface.as_deref(), &function.name).map(String::from),
            input_schema: schema::parameters(&signature.parameters),
            output_schema: schema::answer(signature.answer()),
            export: function.export,
            signature,
        }
    }

    /// Where the function is in the component.
    pub(crate) fn export(&self) -> &ComponentExportIndex {
        &self.export
    }

    /// The arguments of a call, in order. The error says where, what was expected and what was found.
    pub(crate) fn arguments(&self, arguments: &Map<String, Value>) -> Result<Vec<Val>, String> {
        value::parameters(&self.signature.parameters, arguments)
    }

    /// How many values a call gives.
    pub(crate) fn result_count(&self) -> usize {
        usize::from(self.signature.result.is_some())
    }

    /// What a call gave, as the structured content of a tool's answer. The function's own `err` is the tool's failure.
    pub(crate) fn answer(&self, results: &[Val]) -> Result<Map<String, Value>, TypedFailure> {
        match (&self.signature.result, results) {
            (None, []) => Ok(Map::new()),
            (Some(Shape { kind: Kind::Result(ok, error), .. }), [Val::Result(result)]) => match result {
                Ok(value) => wrapped(ok.as_deref(), value.as_deref()),
                Err(value) => Err(failure(error.as_deref(), value.as_deref())),
            },
            (Some(shape), [value]) => wrapped(Some(shape), Some(value)),
            _ => Err(not_its_type()),
        }
    }
}

/// An answer is an object: a record is one, and everything else becomes one.
fn wrapped(shape: Option<&Shape>, value: Option<&Val>) -> Result<Map<String, Value>, TypedFailure> {
    let (shape, value) = match (shape, value) {
        (Some(shape), Some(value)) => (shape, value),
        (None, None) => return Ok(Map::new()),
        _ => return Err(not_its_type()),
    };
    match (&shape.kind, value::json(shape, value)) {
        (Kind::Record(_), Some(Value::Object(record))) => Ok(record),
        (_, Some(value)) => Ok(Map::from_iter([("result".to_string(), value)])),
        (_, None) => Err(not_its_type()),
    }
}

fn failure(shape: Option<&Shape>, value: Option<&Val>) -> TypedFailure {
    match (shape, value) {
        (None, None) => TypedFailure { message: "the tool failed and did not say why".into(), data: Value::Null },
        (Some(shape), Some(value)) => match value::json(shape, value) {
            Some(Value::String(text)) => TypedFailure { message: text.clone(), data: Value::String(text) },
            Some(data) => TypedFailure { message: data.to_string(), data },
            None => not_its_type(),
        },
        _ => not_its_type(),
    }
}

/// Does not happen with what the function itself gave, as wasmtime reads that by its type.
fn not_its_type() -> TypedFailure {
    TypedFailure { message: "what the function gave is not of its type".into(), data: Value::Null }
}

/// An exported function, by the names in its WIT.
struct Exported {
    /// As it is exported: `docs:units/convert@1.0.0`; none for a function of the world itself.
    interface: Option<String>,
    name: String,
    kind: ComponentFunc,
    export: ComponentExportIndex,
}

impl Exported {
    /// Its name among all functions of the component: `docs:units/convert@1.0.0#length`.
    fn path(&self) -> String {
        docs::path(self.interface.as_deref(), &self.name)
    }

    /// `[static]list.of-names` is `list_of_names`.
    fn short_name(&self) -> String {
        let name = self.name.rsplit_once(']').map_or(self.name.as_str(), |(_, name)| name);
        name.replace(['-', '.'], "_")
    }

    /// `convert_length`, for functions of an interface.
    fn long_name(&self) -> String {
        let short = self.short_name();
        match self.interface.as_deref().map(docs::interface_name) {
            Some(interface) => format!("{}_{short}", interface.replace('-', "_")),
            None => short,
        }
    }
}

/// All functions, but for those of WASI, which toolchains add. What else they add (`cabi_realloc`, `_initialize`) is exported by the
/// modules inside, not by the component.
fn exported(engine: &Engine, component: &Component) -> Vec<Exported> {
    let mut functions = Vec::new();
    let kind = component.component_type();
    for (name, item) in kind.exports(engine).filter(|(name, _)| !name.starts_with("wasi:")) {
        let Some(export) = component.get_export_index(None, name) else { continue };
        match item.ty {
            ComponentItem::ComponentFunc(kind) => {
                functions.push(Exported { interface: None, name: name.into(), kind, export });
            }
            ComponentItem::ComponentInstance(interface) => {
                functions.extend(interface.exports(engine).filter_map(|(function, item)| {
                    let ComponentItem::ComponentFunc(kind) = item.ty else { return None };
                    let export = component.get_export_index(Some(&export), function)?;
                    Some(Exported { interface: Some(name.into()), name: function.into(), kind, export })
                }));
            }
            _ => {}
        }
    }
    functions
}

/// A name for each function, no two the same: those that share one get their interface's in front, and what is the same then, a number.
fn names<'a>(functions: impl Iterator<Item = &'a Exported> + Clone) -> Vec<String> {
    let mut uses: HashMap<String, usize> = HashMap::new();
    for function in functions.clone() {
        *uses.entry(function.short_name()).or_default() += 1;
    }
    let is_shared = |name: &str| uses.get(name).is_some_and(|uses| *uses > 1);
    // Nobody's name changes because of what another one's becomes.
    let mut taken: HashSet<String> = uses.keys().filter(|name| !is_shared(name)).cloned().collect();
    let mut next_number: HashMap<String, usize> = HashMap::new();
    let mut unique = |function: &Exported| {
        let short = function.short_name();
        if !is_shared(&short) {
            return short;
        }
        let long = function.long_name();
        let number = next_number.entry(long.clone()).or_insert(1);
        loop {
            let name = if *number == 1 { long.clone() } else { format!("{long}_{number}") };
            *number += 1;
            if taken.insert(name.clone()) {
                return name;
            }
        }
    };
    functions.map(&mut unique).collect()
}
