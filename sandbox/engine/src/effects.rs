//! What a script does to the world, and what it learns from it, under its place in the script.

use rhai::EvalAltResult;

use crate::current::with_host;

type Result<T> = std::result::Result<T, Box<EvalAltResult>>;

/// Microseconds since 1970, recorded.
pub(crate) fn now() -> Result<i64> {
    Ok(with_host(|host| host.now()))
}

/// 64 random bits, recorded.
pub(crate) fn random() -> Result<u64> {
    Ok(with_host(|host| host.random()))
}

/// Whether a branch of `parallel` runs, which works on copies of the variables outside.
pub(crate) fn in_branch() -> bool {
    false
}
