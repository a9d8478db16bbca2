//! Runs one script: Rhai with a namespace object per MCP server, behind the [`Host`] trait.
//! Built as a wasm component it is the guest of the sandbox; as a library it runs in the process and in its own tests.
//! It knows the names of the servers and nothing else: tools, limits and time are the host's.

#![allow(clippy::unnecessary_box_returns, reason = "Rhai's results hold a boxed error")]
#![allow(clippy::result_large_err, reason = "a run has one fault at most, and its shape is public")]

mod current;
mod effects;
mod error;
#[cfg(target_family = "wasm")]
mod guest;
mod hints;
mod json;
mod library;
mod namespace;
mod reader;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use rhai::packages::{Package, StandardPackage};
use rhai::{Dynamic, Engine, ImmutableString, Map, OptimizationLevel, Scope};

pub use error::{Fault, Frame};

/// 1-based place in a script's source, counted in lines and characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Character in the line, from 1.
    pub column: u32,
}

/// One call of a tool, as the script wrote it.
#[derive(Debug, Clone, Copy)]
pub struct ToolCall<'a> {
    /// Script name of the server: one of those given to [`run`].
    pub server: &'a str,
    /// The word after the dot, or any tool name where `by_name` is set.
    pub tool: &'a str,
    /// The script named the tool in a string: `server.call_tool("any-name", #{})`.
    pub by_name: bool,
    /// A JSON object.
    pub arguments: &'a str,
    /// Where the tool's name stands; not known where a variable holds the server.
    pub position: Option<Position>,
}

/// Why the host gives no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The call failed: JSON of `{kind, server, tool, message}`, which the script can catch.
    Failed(String),
    /// The script must end now; no `try` gets past this.
    Stop,
}

/// Names something that was started and is not over yet.
pub type Ticket = u32;

/// What a script can reach outside its own memory.
pub trait Host {
    /// Calls a tool: JSON of its answer.
    ///
    /// # Errors
    /// [`Refusal`] says why there is none.
    fn call_tool(&self, call: ToolCall<'_>) -> Result<String, Refusal>;

    /// Starts a call and goes on; `None` where as many are under way as may be: wait for one of them first.
    ///
    /// # Errors
    /// [`Refusal::Stop`] only: a failure is heard of by waiting.
    fn start_call(&self, call: ToolCall<'_>) -> Result<Option<Ticket>, Refusal>;

    /// Starts a clock that is over after so many seconds, like a call that answers `null`.
    ///
    /// # Errors
    /// [`Refusal::Stop`] only.
    fn start_clock(&self, seconds: f64) -> Result<Ticket, Refusal>;

    /// Waits until one of what was started is over: which, and its answer as of [`Host::call_tool`].
    ///
    /// # Errors
    /// [`Refusal::Stop`] only; also where nothing is under way.
    fn wait_any(&self) -> Result<(Ticket, Result<String, String>), Refusal>;

    /// Ends what was started; it is not heard of again.
    fn cancel(&self, ticket: Ticket);

    /// Finds tools: JSON of `{meta, results}`.
    ///
    /// # Errors
    /// The message says what is wrong with the arguments.
    fn search_tools(&self, query: &str, detail_level: &str) -> Result<String, String>;

    /// Microseconds since 1970, UTC.
    fn now(&self) -> i64;

    /// 64 random bits.
    fn random(&self) -> u64;

    /// Takes one line that the script printed.
    fn log(&self, line: &str);

    /// Whether the script has to stop; asked now and then outside wasm, where nothing else can interrupt it.
    fn interrupted(&self) -> bool {
        false
    }
}

/// Deepest that script functions can call each other on the stack there is.
const CALL_DEPTH: u32 = 100;
/// How deep expressions may nest at the top level of a script, and in a function.
const EXPRESSION_DEPTH: (usize, usize) = (64, 48);
/// Operations between two questions to [`Host::interrupted`].
const OPERATIONS_PER_CHECK: u64 = 256;

thread_local! {
    // Building it takes 0.5 ms: the guest does it once, at build time; a thread of the process once.
    static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) };
}

/// Builds this thread's engine ahead of the first run.
pub fn init() {
    ENGINE.with_borrow_mut(|engine| *engine = Some(build()));
}

/// Runs `source` and returns its value as JSON text; a script without a value gives `null`.
///
/// `servers` are the script names of the servers, each a namespace in the script. Functions may call each other `call_depth` levels
/// deep, at most 100.
///
/// # Errors
/// The [`Fault`] that ended the script.
pub fn run(host: Rc<dyn Host>, source: &str, servers: Vec<String>, call_depth: u32) -> Result<String, Fault> {
    let servers: Rc<Vec<ImmutableString>> = Rc::new(servers.into_iter().map(Into::into).collect());
    let mut reading = reader::read(source, &servers);
    let (replacements, text) = reading.replacements();
    let call_depth = call_depth.min(CALL_DEPTH) as usize;
    ENGINE.with_borrow_mut(|engine| {
        engine.get_or_insert_with(build).set_max_call_levels(call_depth);
    });
    let _run = current::enter(host, source, servers, replacements, std::mem::take(&mut reading.caught), call_depth);
    ENGINE.with_borrow(|engine| {
        let Some(engine) = engine else { return Err(Fault::new("internal", "there is no engine")) };
        let compiled = engine.compile(&*text);
        if let Some(fault) = hints::syntax(&reading, compiled.as_ref().err()) {
            return Err(fault);
        }
        let ast = compiled.map_err(|error| Fault::new("syntax", error.to_string()))?;
        let value = engine
            .eval_ast_with_scope::<Dynamic>(&mut Scope::new(), &ast)
            .map_err(|error| Fault::from_eval(*error, &reading))?;
        json::to_text(&value)
            .map_err(|message| Fault::new("runtime", format!("the result can't be returned: {message}")))
    })
}

fn build() -> Engine {
    // Not `Engine::new`, whose module resolver reads files.
    let mut engine = Engine::new_raw();
    StandardPackage::new().register_into_engine(&mut engine);
    library::register(&mut engine);
    engine
        .disable_symbol("eval")
        // Rhai's optimiser drops statements that only read, and with them the error that a name is unknown.
        .set_optimization_level(OptimizationLevel::None)
        .set_max_expr_depths(EXPRESSION_DEPTH.0, EXPRESSION_DEPTH.1);
    engine.on_print(effects::log);
    engine.on_debug(|line, _, position| effects::log(&format!("[{position:?}] {line}")));
    // Counted here: for each function that a native calls, Rhai begins again where the native did.
    let operations = Cell::new(0_u64);
    engine.on_progress(move |_| {
        let interrupted = || {
            operations.set(operations.get().wrapping_add(1));
            operations.get().is_multiple_of(OPERATIONS_PER_CHECK) && current::with_host(|host| host.interrupted())
        };
        // In wasm, the host interrupts.
        (effects::is_leaving() || !cfg!(target_family = "wasm") && interrupted()).then_some(Dynamic::UNIT)
    });
    // `await x` is `x`: every call is awaited anyway.
    #[allow(clippy::expect_used, reason = "a constant syntax, and every test runs it")]
    engine
        .register_custom_syntax(["await", "$expr$"], false, |context, inputs| context.eval_expression_tree(&inputs[0]))
        .expect("`await` is no keyword of Rhai");
    register_functions(&mut engine);
    effects::register(&mut engine);
    namespace::register(&mut engine);
    engine
}

fn register_functions(engine: &mut Engine) {
    engine
        .register_fn("search_tools", || effects::search("", "full"))
        .register_fn("search_tools", |query: &str| effects::search(query, "full"))
        .register_fn("search_tools", effects::search)
        // `copy(x).items.map(|i| …)`: the closure may change `x`.
        .register_fn("copy", |value: Dynamic| value.flatten())
        // `throw new Error("…")`, whose `new` the reader drops.
        .register_fn("Error", |message: Dynamic| Map::from([("message".into(), message)]));
}

#[cfg(test)]
mod tests;
