//! The official MCP conformance suites for clients, one test a scenario: `examples/conformance_client.rs` against the suite's servers.

use libtest_mimic::{Completion, Failed, Trial};

use crate::fixtures::{self, Fixture};
use crate::support::{Ignored, need};

#[path = "../examples/conformance_client.rs"]
mod conformance_client;

/// First argument of the test binary that makes it the suite's client.
pub const ARGUMENT: &str = "conformance-client";

pub fn main() -> std::process::ExitCode {
    conformance_client::main()
}

/// The client scenarios of the suite 0.1.16, all of them.
const OLD: &[&str] = &[
    "initialize",
    "tools_call",
    "elicitation-sep1034-client-defaults",
    "sse-retry",
    "auth/metadata-default",
    "auth/metadata-var1",
    "auth/metadata-var2",
    "auth/metadata-var3",
    "auth/basic-cimd",
    "auth/scope-from-www-authenticate",
    "auth/scope-from-scopes-supported",
    "auth/scope-omitted-when-undefined",
    "auth/scope-step-up",
    "auth/scope-retry-limit",
    "auth/token-endpoint-auth-basic",
    "auth/token-endpoint-auth-post",
    "auth/token-endpoint-auth-none",
    "auth/pre-registration",
    "auth/2025-03-26-oauth-metadata-backcompat",
    "auth/2025-03-26-oauth-endpoint-fallback",
    "auth/resource-mismatch",
    "auth/offline-access-scope",
    "auth/offline-access-not-supported",
    "auth/client-credentials-jwt",
    "auth/client-credentials-basic",
    "auth/cross-app-access-complete-flow",
];

/// Those that the suite 0.2.0-alpha.12 requires of every revision that it knows, with its extensions.
const BOTH: &[&str] = &[
    "tools_call",
    "auth/metadata-default",
    "auth/metadata-var1",
    "auth/metadata-var2",
    "auth/metadata-var3",
    "auth/basic-cimd",
    "auth/scope-from-www-authenticate",
    "auth/scope-from-scopes-supported",
    "auth/scope-omitted-when-undefined",
    "auth/scope-step-up",
    "auth/scope-retry-limit",
    "auth/token-endpoint-auth-basic",
    "auth/token-endpoint-auth-post",
    "auth/token-endpoint-auth-none",
    "auth/pre-registration",
    "auth/client-credentials-jwt",
    "auth/client-credentials-basic",
    "auth/enterprise-managed-authorization",
    "auth/dpop",
    "auth/dpop-nonce",
    "auth/wif-jwt-bearer",
    "json-schema-2020-12-preservation",
];

/// Those that it requires of 2025-11-25 beside these.
const ONLY_2025_11_25: &[&str] = &["initialize", "elicitation-sep1034-client-defaults", "sse-retry"];

/// Those that it requires of 2026-07-28 beside these.
const ONLY_2026_07_28: &[&str] = &[
    "request-metadata",
    "auth/resource-mismatch",
    "auth/offline-access-scope",
    "auth/offline-access-not-supported",
    "auth/authorization-server-migration",
    "auth/iss-supported",
    "auth/iss-not-advertised",
    "auth/iss-supported-missing",
    "auth/iss-wrong-issuer",
    "auth/iss-unexpected",
    "auth/iss-normalized",
    "auth/metadata-issuer-mismatch",
    "sep-2322-client-request-state",
    "http-standard-headers",
    "http-custom-headers",
    "http-invalid-tool-headers",
    "json-schema-ref-no-deref",
];

/// Scenarios that are known to fail, and why. One that passes is an error here, so that this list does not grow old.
const FAILING: &[(&str, &str)] = &[];

pub fn tests() -> Vec<Trial> {
    let suites = [
        ("0.1.16", "", fixtures::old_conformance as fn() -> &'static Fixture, [OLD, &[]]),
        ("2025-11-25", "2025-11-25", fixtures::conformance, [BOTH, ONLY_2025_11_25]),
        ("2026-07-28", "2026-07-28", fixtures::conformance, [BOTH, ONLY_2026_07_28]),
    ];
    let mut tests = Vec::new();
    for (suite, revision, fixture, scenarios) in suites {
        for scenario in scenarios.into_iter().flatten() {
            let name = format!("{suite}::{scenario}");
            let failing = FAILING.iter().find(|(failing, _)| *failing == name).map(|(_, reason)| *reason);
            tests.push(Trial::ignorable_test(format!("conformance::{name}"), move || {
                let suite = match need(fixture()) {
                    Ok(suite) => suite,
                    Err(Ignored(reason)) => return Ok(Completion::ignored_with(reason)),
                };
                let output = run(suite, scenario, revision)?;
                match (output, failing) {
                    (Ok(()), None) | (Err(_), Some(_)) => Ok(Completion::Completed),
                    (Ok(()), Some(reason)) => {
                        Err(Failed::from(format!("it passes now, so strike it from FAILING ({reason})")))
                    }
                    (Err(output), None) => Err(Failed::from(output)),
                }
            }));
        }
    }
    tests
}

/// Runs one scenario with this very program as its client: what the suite printed, if it failed.
fn run(suite: &fixtures::Command, scenario: &str, revision: &str) -> std::io::Result<Result<(), String>> {
    let client = format!("\"{}\" {ARGUMENT}", std::env::current_exe()?.display());
    let mut command = std::process::Command::new(&suite.program);
    command.args(&suite.args).args(["client", "--timeout", "60000", "--scenario", scenario, "--command", &client]);
    if !revision.is_empty() {
        command.args(["--spec-version", revision, "--force"]);
    }
    let output = command.stdin(std::process::Stdio::null()).output()?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    Ok(Err(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))))
}
