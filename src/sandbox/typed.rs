//! A component that is no MCP server but exports functions, as a set of tools: what they are called, what they take and give as JSON
//! Schema, and values from JSON and back. It describes and converts; whoever holds the instance calls.
//!
//! Parameters and fields of records have the names of the WIT with `_` for `-`, so that scripts can write `answer.line_count`; no two
//! are the same then, as WIT has no `_` in names. Cases and flags are values, and stay as they are.

mod cost;
mod docs;
mod schema;
mod shape;
#[cfg(test)]
mod tests;
mod value;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

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
    signature: Arc<Signature>,
}

/// The functions of a component.
pub(crate) struct TypedTools {
    /// In the order in which they are exported.
    pub(crate) tools: Vec<TypedTool>,
    /// Functions that can't be tools, and why.
    pub(crate) unsupported: Vec<(String, String)>,
}

/// What is converted at once: values and bytes of text. It takes less than a millisecond; everything else is done beside other tasks.
const SMALL: usize = 8 << 10;

/// What a call gave.
#[derive(Debug, PartialEq)]
pub(crate) struct Answer {
    /// The structured content of a tool's answer.
    pub(crate) value: Map<String, Value>,
    /// The same as text.
    pub(crate) text: String,
}

/// Why there is no answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Unanswered {
    /// The function says so, or what it gave can't be read.
    Failed { message: String, data: Value },
    /// It has more bytes, as JSON, than it may have.
    TooLong,
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
            signature: Arc::new(signature),
        }
    }

    /// Where the function is in the component.
    pub(crate) fn export(&self) -> &ComponentExportIndex {
        &self.export
    }

    /// The arguments of a call, in order. The error says where, what was expected and what was found.
    pub(crate) async fn arguments(&self, arguments: Map<String, Value>) -> Result<Vec<Val>, String> {
        let signature = Arc::clone(&self.signature);
        let is_small = value::text(&arguments, SMALL).is_some();
        let values = beside(is_small, move || value::parameters(&signature.parameters, &arguments)).await;
        values.unwrap_or_else(Err)
    }

    /// How many values a call gives.
    pub(crate) fn result_count(&self) -> usize {
        usize::from(self.signature.result.is_some())
    }

    /// The fuel for wasmtime to read what a call gives, where its answer may have so many bytes.
    pub(crate) fn fuel(&self, max_output: usize) -> usize {
        cost::fuel(self.signature.result.as_ref(), max_output)
    }

    /// What a call gave, where it has at most so many bytes. The function's own `err` is the tool's failure.
    pub(crate) async fn answer(&self, results: Vec<Val>, max_output: usize) -> Result<Answer, Unanswered> {
        let signature = Arc::clone(&self.signature);
        let mut room = SMALL;
        let is_small = results.iter().all(|value| value::has_room(value, &mut room));
        let answer = beside(is_small, move || signature.read(&results, max_output)).await;
        answer.unwrap_or_else(|message| Err(Unanswered::Failed { message, data: Value::Null }))
    }
}

/// Whether that is why a call failed: [`TypedTool::fuel`] was used up.
pub(crate) fn is_out_of_fuel(error: &wasmtime::Error) -> bool {
    // It has no public type.
    error.root_cause().to_string().contains("fuel allocated for hostcalls has been exhausted")
}

/// Computes where it holds nobody up.
async fn beside<T: Send + 'static>(is_small: bool, compute: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    if is_small {
        return Ok(compute());
    }
    tokio::task::spawn_blocking(compute).await.map_err(|error| error.to_string())
}

impl Signature {
    fn read(&self, results: &[Val], max_output: usize) -> Result<Answer, Unanswered> {
        let value = match (&self.result, results) {
            (None, []) => Map::new(),
            (Some(Shape { kind: Kind::Result(ok, error), .. }), [Val::Result(result)]) => match result {
                Ok(value) => wrapped(ok.as_deref(), value.as_deref())?,
                Err(value) => return Err(failure(error.as_deref(), value.as_deref(), max_output)),
            },
            (Some(shape), [value]) => wrapped(Some(shape), Some(value))?,
            _ => return Err(not_its_type()),
        };
        let text = value::text(&value, max_output).ok_or(Unanswered::TooLong)?;
        Ok(Answer { value, text })
    }
}

/// An answer is an object: a record is one, and everything else becomes one.
fn wrapped(shape: Option<&Shape>, value: Option<&Val>) -> Result<Map<String, Value>, Unanswered> {
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

fn failure(shape: Option<&Shape>, value: Option<&Val>, max_output: usize) -> Unanswered {
    let data = match (shape, value) {
        (None, None) => {
            let message = "the tool failed and did not say why".into();
            return Unanswered::Failed { message, data: Value::Null };
        }
        (Some(shape), Some(value)) => value::json(shape, value),
        _ => None,
    };
    let Some(data) = data else { return not_its_type() };
    match (value::text(&data, max_output), &data) {
        (None, _) => Unanswered::TooLong,
        (Some(_), Value::String(message)) => Unanswered::Failed { message: message.clone(), data },
        (Some(message), _) => Unanswered::Failed { message, data },
    }
}

/// Does not happen with what the function itself gave, as wasmtime reads that by its type.
fn not_its_type() -> Unanswered {
    Unanswered::Failed { message: "what the function gave is not of its type".into(), data: Value::Null }
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
