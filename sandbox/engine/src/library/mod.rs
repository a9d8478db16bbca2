//! The standard library of scripts: what an agent needs to handle results. Scripts are hostile, so that nothing in it panics, takes
//! more than linear time (or a sort's), or makes a text beyond bounds; a wrong argument is an error that says what to write.

mod dates;
mod encoding;
mod functions;
mod javascript;
mod lists;
mod maps;
mod numbers;
mod patterns;
mod text;
mod values;

use rhai::{Dynamic, Engine, EvalAltResult, FuncRegistration, RhaiNativeFunc, Variant};

pub(crate) use dates::text_of as date_text;
pub(crate) use values::kind;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// How many elements a function makes of a few numbers.
const MAX_ITEMS: usize = 1_000_000;

pub(crate) fn register(engine: &mut Engine) {
    values::register(engine);
    lists::register(engine);
    maps::register(engine);
    text::register(engine);
    patterns::register(engine);
    numbers::register(engine);
    dates::register(engine);
    encoding::register(engine);
    javascript::register(engine);
}

/// What a name means that is neither a variable nor a server.
pub(crate) fn variable(name: &str) -> Option<Dynamic> {
    javascript::variable(name)
}

/// Registers a function that changes its first argument, which can't be a constant then.
fn register_change<A: 'static, const N: usize, const X: bool, R: Variant + Clone, const F: bool>(
    engine: &mut Engine,
    name: &str,
    function: impl RhaiNativeFunc<A, N, X, R, F> + 'static,
) {
    FuncRegistration::new(name).with_purity(false).register_into_engine(engine, function);
}

#[cfg(test)]
mod tests;
