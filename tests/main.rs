//! The integration tests: one binary, a module per capability. `cargo test -- NAME` runs those with NAME in their names.
//!
//! Tests that need Node.js or Python fetch pinned servers into `target/tmp/servers` by themselves. Where that can't be done they
//! are ignored with the reason, unless `RHAIWAY_REQUIRE_FIXTURES` is set, which makes it a failure.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]
#![allow(unreachable_pub, clippy::too_many_lines, clippy::duration_suboptimal_units, clippy::needless_pass_by_value)]
#![allow(clippy::disallowed_methods, reason = "tests read the environment that they run in")]

mod answers;
mod arguments;
mod authorization;
mod certificates;
mod client;
mod command;
mod configurations;
mod conformance;
mod endings;
mod fake_server;
mod fault_server;
mod faults;
mod field;
mod fixtures;
mod guide;
mod hostile;
mod http;
mod lateness;
mod limits;
#[expect(deprecated, reason = "logging goes in a later revision; today's servers use it")]
mod middleware;
mod parallel;
mod processes;
#[allow(
    deprecated,
    clippy::wildcard_imports,
    reason = "it is about all of the model, and parts of that go in a later revision"
)]
mod protocol;
mod real_servers;
mod repository;
mod sandbox;
mod sandboxed_servers;
mod scripts;
mod serving;
mod starting;
mod support;
mod typed_components;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The binary is also a server for its own tests, and a process that is watched.
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(fake_server::ARGUMENT) => {
            fake_server::main(arguments.next().as_deref().unwrap_or_default());
            return ExitCode::SUCCESS;
        }
        Some(configurations::ARGUMENT) => {
            configurations::main(&arguments.collect::<Vec<_>>());
            return ExitCode::SUCCESS;
        }
        Some(hostile::ARGUMENT) => {
            hostile::main(arguments.next().as_deref().unwrap_or_default());
            return ExitCode::SUCCESS;
        }
        Some(fault_server::ARGUMENT) => {
            fault_server::main(arguments.next().as_deref().unwrap_or_default());
            return ExitCode::SUCCESS;
        }
        Some(field::ARGUMENT) => {
            field::main(arguments.next().as_deref().unwrap_or_default());
            return ExitCode::SUCCESS;
        }
        Some(sandbox::ARGUMENT) => {
            sandbox::main(&std::env::args().skip(1).collect::<Vec<_>>());
            return ExitCode::SUCCESS;
        }
        Some(typed_components::ARGUMENT) => {
            typed_components::main(arguments);
            return ExitCode::SUCCESS;
        }
        Some(sandbox::HOSTS) => return sandbox::hosts(arguments),
        Some(conformance::ARGUMENT) => return conformance::main(),
        _ => {}
    }
    let trials = [
        answers::tests(),
        arguments::tests(),
        authorization::tests(),
        certificates::tests(),
        client::tests(),
        command::tests(),
        configurations::tests(),
        conformance::tests(),
        endings::tests(),
        faults::tests(),
        field::tests(),
        guide::tests(),
        hostile::tests(),
        http::tests(),
        limits::tests(),
        middleware::tests(),
        parallel::tests(),
        protocol::tests(),
        real_servers::tests(),
        repository::tests(),
        sandbox::tests(),
        sandboxed_servers::tests(),
        scripts::tests(),
        serving::tests(),
        starting::tests(),
        typed_components::tests(),
    ];
    libtest_mimic::run(&libtest_mimic::Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}
