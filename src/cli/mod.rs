//! Arguments, exit codes and signals of the command. Only this module prints or reads the environment.

#![allow(clippy::disallowed_methods, reason = "this is where the command looks at its surroundings")]

mod ask;
mod auth;
mod render;
mod tokens;
mod trust;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use etcetera::BaseStrategy;
use rhaiway::{
    Client, ClientBuilder, Config, Description, Detail, DiagnosticKind, Error, ExecuteOptions, Execution, FailureKind,
    Isolation, SandboxConfig, SearchResults, ServerStatus,
};
use serde_json::json;

/// The script failed.
const SCRIPT_FAILED: u8 = 1;
/// Wrong arguments, or a wrong configuration.
const USAGE: u8 = 2;
/// Of the servers that were needed, none could be reached.
const UNREACHABLE: u8 = 3;

/// The demo: an issue tracker that can touch nothing. `sandbox/build.sh` makes it.
const DEMO: &[u8] = include_bytes!("../../sandbox/dist/demo.wasm");
/// How a script's error begins that names a server which is none.
const NO_SUCH_SERVER: &str = "there is no variable or server ";
/// Longest configuration.
const CONFIG_BYTES: u64 = 16 << 20;
/// Configuration files that are looked for in this folder, in order.
const CONFIG_FILES: [&str; 2] = ["rhaiway.json", "mcp.json"];

/// Runs Rhai scripts that call the tools of MCP servers.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 ok, 1 the script failed, 2 usage or configuration, 3 no server could be reached."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a script: its logs go to stderr, its value to stdout.
    Run(RunArguments),
    /// List the tools that scripts can call, or search them.
    Tools(ToolsArguments),
    /// Serve code mode as an MCP server on stdin and stdout: the tools `execute_code` and `search_tools`.
    Serve(ServeArguments),
    /// Print what every server may do: isolation, files, network, environment, limits. Starts nothing.
    Permissions(PermissionsArguments),
    /// Let the configuration in this folder, or FILE, start its servers without `--config`, for as long as it stays as it is.
    Trust(trust::TrustArguments),
    /// Log in to servers that want it, and out again.
    Auth(auth::AuthArguments),
    /// Print the guide to the language and the library of scripts, for a model's prompt.
    Guide,
    /// A small issue tracker as an MCP server on stdin and stdout, to try things with.
    DemoServer,
}

#[derive(Args)]
struct ServerArguments {
    /// Configuration with `mcpServers`; without it `rhaiway.json` or `mcp.json` in this folder, or else the built-in demo.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Use only this server; may be given several times.
    #[arg(long = "allow-server", value_name = "NAME")]
    allow_server: Vec<String>,
    /// Use the configuration in this folder without asking, this time.
    #[arg(long)]
    trust: bool,
    /// How long connecting to a server may take: seconds, or with a unit, such as `500ms`.
    #[arg(long, value_name = "DURATION", default_value = "30", value_parser = rhaiway::parse_duration)]
    connect_timeout: Duration,
}

#[derive(Args)]
struct ScriptArguments {
    /// How long a script may take: seconds, or with a unit, such as `2m`: the limit `wall_time`, 30 s where nothing sets it.
    #[arg(long, value_name = "DURATION", value_parser = rhaiway::parse_duration)]
    timeout: Option<Duration>,
    /// Set a limit, such as `tool_calls=1000` or `memory_bytes=128MiB`; may be given several times. The README lists them.
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = limit)]
    limits: Vec<(String, String)>,
    /// Where scripts run.
    #[arg(long, value_enum, default_value_t = IsolationArgument::Sandbox)]
    isolation: IsolationArgument,
}

#[derive(Args)]
struct RunArguments {
    /// The script; `-` reads it from stdin.
    #[arg(required_unless_present = "code", conflicts_with = "code")]
    file: Option<PathBuf>,
    /// The script itself.
    #[arg(short = 'e', long = "eval", value_name = "CODE")]
    code: Option<String>,
    /// Print one JSON object: `result`, `logs`, `error`, `execution_time`, `calls`, `usage`.
    #[arg(long)]
    json: bool,
    /// Log how far calls are, where their servers say so.
    #[arg(long)]
    log_progress: bool,
    /// Log what servers log while a call to them is in flight, from warnings on.
    #[arg(long)]
    server_logs: bool,
    #[command(flatten)]
    script: ScriptArguments,
    #[command(flatten)]
    servers: ServerArguments,
}

#[derive(Args)]
struct ToolsArguments {
    /// Words to look for; all tools without them.
    query: Vec<String>,
    /// How much to tell about each tool.
    #[arg(long, value_enum, default_value_t = DetailArgument::Descriptions)]
    detail: DetailArgument,
    /// Print one JSON object: meta and results.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    servers: ServerArguments,
}

#[derive(Args)]
struct PermissionsArguments {
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    servers: ServerArguments,
}

#[derive(Args)]
struct ServeArguments {
    /// How much the description of `execute_code` says: the tool `read_guide` gives the whole guide anyway.
    #[arg(long, value_enum, default_value_t = DescriptionArgument::Short)]
    description: DescriptionArgument,
    #[command(flatten)]
    script: ScriptArguments,
    #[command(flatten)]
    servers: ServerArguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum IsolationArgument {
    /// In a wasm instance with hard limits.
    Sandbox,
    /// In this process; only for scripts that you trust.
    InProcess,
}

#[derive(Clone, Copy, ValueEnum)]
enum DetailArgument {
    /// Only the names.
    Names,
    /// Names and descriptions.
    Descriptions,
    /// Names, descriptions and schemas.
    Full,
}

#[derive(Clone, Copy, ValueEnum)]
enum DescriptionArgument {
    /// What a model needs most, in at most 1,024 characters.
    Short,
    /// The whole guide, for clients that cut nothing.
    Guide,
}

fn limit(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE, such as `tool_calls=1000`")?;
    // Checked here, so that the message comes with the argument that it is about.
    rhaiway::Limits::default().set(name, value)?;
    Ok((name.into(), value.into()))
}

/// Why the command ends without having done its work.
struct Failure {
    code: u8,
    kind: &'static str,
    message: String,
}

impl Failure {
    fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, kind: "usage", message: message.into() }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self { code: SCRIPT_FAILED, kind: "output", message: format!("can't write to stdout: {error}") }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (code, kind) = match &error {
            error if error.is_config() => (USAGE, "config"),
            Error::File { .. } | Error::Tokens { .. } => (USAGE, "config"),
            error if error.is_connection() => (UNREACHABLE, "connection"),
            Error::Authorization { .. } => (SCRIPT_FAILED, "authorization"),
            _ => (SCRIPT_FAILED, "internal"),
        };
        Self { code, kind, message: error.with_causes() }
    }
}

pub(crate) fn main() -> ExitCode {
    let Arguments { command } = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            if error.use_stderr() && std::env::args().any(|argument| argument == "--json") {
                render::data(&not_begun("usage", error.to_string().trim())).unwrap_or_default();
            }
            error.exit();
        }
    };
    let filter = std::env::var("RHAIWAY_LOG").unwrap_or_else(|_| "rhaiway=warn".into());
    let colours = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(colours)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
    // Often back to the timers and sockets: with the default of 61 tasks, busy scripts hold others back by 200 ms.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().event_interval(2).build();
    let code = match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(dispatch(command));
            // A read of stdin that is still going on must not keep the process.
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            fail(&Failure { code: SCRIPT_FAILED, kind: "internal", message: format!("can't start: {error}") }, false)
        }
    };
    ExitCode::from(code)
}

async fn dispatch(command: Command) -> u8 {
    match command {
        Command::Run(arguments) => {
            let json = arguments.json;
            run(arguments).await.unwrap_or_else(|failure| fail(&failure, json))
        }
        Command::Tools(arguments) => tools(arguments).await.unwrap_or_else(|failure| fail(&failure, false)),
        Command::Serve(arguments) => serve(arguments).await.unwrap_or_else(|failure| fail(&failure, false)),
        Command::Permissions(arguments) => permissions(&arguments).unwrap_or_else(|failure| fail(&failure, false)),
        Command::Trust(arguments) => trust::trust(arguments).unwrap_or_else(|failure| fail(&failure, false)),
        Command::Auth(arguments) => auth::auth(arguments).await.unwrap_or_else(|failure| fail(&failure, false)),
        Command::Guide => match render::data(rhaiway::CODE_MODE_PROMPT.trim_end()) {
            Ok(()) => 0,
            Err(error) => fail(&error.into(), false),
        },
        Command::DemoServer => demo_server().await.unwrap_or_else(|failure| fail(&failure, false)),
    }
}

/// The JSON of a script that was not run.
fn not_begun(kind: &str, message: &str) -> String {
    let (error, usage) = (json!({"kind": kind, "message": message}), rhaiway::Usage::default());
    json!({"result": null, "logs": [], "error": error, "execution_time": 0.0, "calls": [], "usage": usage}).to_string()
}

/// Says why on stderr and, where JSON is wanted, as an execution that never began.
fn fail(failure: &Failure, json: bool) -> u8 {
    if json {
        render::data(&not_begun(failure.kind, &failure.message)).unwrap_or_default();
    }
    render::note(&format!("error: {}", failure.message));
    failure.code
}

async fn run(arguments: RunArguments) -> Result<u8, Failure> {
    let RunArguments { file, code, json, log_progress, server_logs, script, servers } = arguments;
    let source = match (code, file) {
        (Some(code), _) => code,
        (None, Some(file)) => read_script(&file)?,
        (None, None) => return Err(Failure::usage("a script is missing: give a FILE, `-`, or -e 'CODE'")),
    };
    let client = for_scripts(&servers, &script)?.build()?;
    let mut options = ExecuteOptions::default().log_progress(log_progress).server_logs(server_logs);
    if !json {
        options = options.on_log(render::note);
    }
    let execution = until_signal(&client, client.execute_code(&source, options)).await?;
    let status = client.server_status().await;
    client.close_all_sessions().await;
    let execution = execution?;
    let said = execution.error.as_ref().map(ToString::to_string).unwrap_or_default();
    let names_none = execution.error.as_ref().is_some_and(|error| error.message.starts_with(NO_SUCH_SERVER));
    warn_of_failed(&status, &said);
    if json {
        let text = serde_json::to_string(&execution).map_err(|error| Failure::usage(error.to_string()))?;
        render::data(&text)?;
    }
    let Execution { result, error, .. } = execution;
    let Some(error) = error else {
        if !json {
            render::value(&result)?;
        }
        return Ok(0);
    };
    if !json {
        render::note(&format!("error: {said}"));
        if names_none {
            render::note(&format!("note: {}", trust::servers_there_are(&status)));
        }
    }
    let unreachable = error.kind == DiagnosticKind::Call(FailureKind::Connection);
    Ok(none_reached(&status).filter(|_| unreachable).unwrap_or(SCRIPT_FAILED))
}

async fn tools(arguments: ToolsArguments) -> Result<u8, Failure> {
    let ToolsArguments { query, detail, json, servers } = arguments;
    let detail = match detail {
        DetailArgument::Names => Detail::Names,
        DetailArgument::Descriptions => Detail::Descriptions,
        DetailArgument::Full => Detail::Full,
    };
    let client = builder(&servers, config(&servers)?).build()?;
    let found = until_signal(&client, client.search_all_tools(&query.join(" "), detail)).await?;
    let status = client.server_status().await;
    client.close_all_sessions().await;
    warn_of_failed(&status, "");
    warn_of_unlisted(&found, &status);
    if json {
        render::data(&serde_json::to_string(&found).map_err(|error| Failure::usage(error.to_string()))?)?;
    } else {
        render::tools(&found)?;
    }
    let unlisted = !found.meta.unreachable.is_empty() && found.meta.unreachable.len() == found.meta.namespaces.len();
    Ok(none_reached(&status).or(unlisted.then_some(UNREACHABLE)).unwrap_or(0))
}

fn permissions(arguments: &PermissionsArguments) -> Result<u8, Failure> {
    let PermissionsArguments { json, servers } = arguments;
    let client = builder(servers, config(servers)?).build()?;
    let permissions = client.permissions();
    if *json {
        render::data(&serde_json::to_string(&permissions).map_err(|error| Failure::usage(error.to_string()))?)?;
    } else {
        render::permissions(&permissions)?;
        for server in &permissions {
            if let Some(problem) = &server.problem {
                render::note(&format!("warning: `{}` does not start: {problem}", server.server));
            }
        }
    }
    Ok(0)
}

async fn serve(arguments: ServeArguments) -> Result<u8, Failure> {
    let description = match arguments.description {
        DescriptionArgument::Short => Description::Short,
        DescriptionArgument::Guide => Description::Guide,
    };
    let client = for_scripts(&arguments.servers, &arguments.script)?.description(description).build()?;
    for problem in client.config().problems() {
        render::note(&format!("warning: {problem}"));
    }
    let served = until_signal(&client, Box::pin(client.serve_stdio())).await?;
    client.close_all_sessions().await;
    served?;
    Ok(0)
}

async fn demo_server() -> Result<u8, Failure> {
    rhaiway_demo_server::serve_stdio().await.map_err(|message| Failure {
        code: SCRIPT_FAILED,
        kind: "internal",
        message,
    })?;
    Ok(0)
}

/// Runs `work`, unless the command is told to end first; then the servers are closed.
async fn until_signal<T>(client: &Client, work: impl Future<Output = T>) -> Result<T, Failure> {
    tokio::select! {
        done = work => Ok(done),
        signal = signal() => {
            ask::leave_terminal();
            client.close_all_sessions().await;
            Err(Failure { code: 128 + signal, kind: "cancelled", message: "interrupted".into() })
        }
    }
}

/// Waits for a signal that ends the command, a closed terminal included: its number.
async fn signal() -> u8 {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (hangup, interrupt, terminate) =
            (signal(SignalKind::hangup()), signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(mut hangup), Ok(mut interrupt), Ok(mut terminate)) = (hangup, interrupt, terminate) else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = hangup.recv() => 1,
            _ = interrupt.recv() => 2,
            _ = terminate.recv() => 15,
        }
    }
    #[cfg(not(unix))]
    {
        let _ = tokio::signal::ctrl_c().await;
        2
    }
}

fn read_script(file: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::usage(format!("can't read the script `{}`: {error}", file.display()));
    let mut source = String::new();
    if file == Path::new("-") {
        std::io::stdin().read_to_string(&mut source).map_err(failed)?;
    } else {
        source = std::fs::read_to_string(file).map_err(failed)?;
    }
    let mut source = source.trim_start_matches('\u{feff}').to_string();
    if source.starts_with("#!") {
        source.replace_range(..2, "//"); // so that a script can be made executable
    }
    Ok(source)
}

/// Without a configuration, there is the demo.
fn builder(arguments: &ServerArguments, config: Option<Config>) -> ClientBuilder {
    let mut builder = Client::builder()
        .connect_timeout(arguments.connect_timeout)
        .variables(|name| std::env::var(name).ok())
        .on_compile(|what| render::note(&format!("compiling {what}, this once (a few seconds) …")));
    match config {
        Some(config) => {
            for warning in config.warnings() {
                render::note(&format!("warning: {warning}"));
            }
            builder = builder.config(config);
        }
        None => builder = builder.wasm_server("demo", DEMO, SandboxConfig::default()),
    }
    if ask::is_possible() {
        builder = builder.on_input(ask::input);
    }
    if let Ok(folders) = etcetera::choose_base_strategy() {
        builder = builder.cache_dir(folders.cache_dir().join("rhaiway"));
    }
    if let Some(tokens) = tokens::Tokens::of_this_user() {
        builder = builder.token_store(tokens);
    }
    if arguments.allow_server.is_empty() {
        builder
    } else {
        builder.allowed_servers(arguments.allow_server.iter().cloned())
    }
}

fn for_scripts(servers: &ServerArguments, script: &ScriptArguments) -> Result<ClientBuilder, Failure> {
    let config = config(servers)?;
    let mut limits = config.as_ref().map(Config::limits).transpose()?.unwrap_or_default();
    for (name, value) in &script.limits {
        limits.set(name, value).map_err(Failure::usage)?;
    }
    limits.wall_time = script.timeout.unwrap_or(limits.wall_time);
    let builder = builder(servers, config).code_mode(true).limits(limits).isolation(match script.isolation {
        IsolationArgument::Sandbox => Isolation::Sandbox,
        IsolationArgument::InProcess => Isolation::InProcess,
    });
    Ok(builder)
}

/// The configuration that was named, or is there and trusted.
fn config(arguments: &ServerArguments) -> Result<Option<Config>, Failure> {
    if let Some(file) = &arguments.config {
        return Ok(Some(Config::from_file(file)?));
    }
    let Some(file) = found_config() else {
        let files = CONFIG_FILES.join(" or ");
        render::note(&format!("no configuration found ({files} in this folder, or --config): using the built-in demo"));
        return Ok(None);
    };
    // Read once, so that what is trusted is what is used.
    let text = read_config(&file)?;
    let config = Config::from_text(&text, &file)?;
    if !arguments.trust {
        trust::check(&file, &text, &config)?;
    }
    Ok(Some(config))
}

/// The configuration in this folder.
fn found_config() -> Option<PathBuf> {
    let may_be = |file: &PathBuf| match file.metadata() {
        // A pipe is no file, and would keep us waiting.
        Ok(data) => data.is_file(),
        // A link that leads nowhere is a mistake to be told, not a reason for the demo.
        Err(_) => file.symlink_metadata().is_ok(),
    };
    CONFIG_FILES.iter().map(PathBuf::from).find(may_be)
}

fn read_config(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(CONFIG_BYTES + 1).read_to_string(&mut text));
    let too_long = |length: usize| length as u64 > CONFIG_BYTES;
    match read {
        Ok(length) if too_long(length) => Err(Failure::usage(format!("`{}` is longer than 16 MiB", file.display()))),
        Ok(_) => Ok(text),
        Err(error) => {
            Err(Failure { kind: "config", ..Failure::usage(format!("can't read `{}`: {error}", file.display())) })
        }
    }
}

/// Says which servers failed, malformed entries included, but for what the script's error says already.
fn warn_of_failed(status: &BTreeMap<String, ServerStatus>, said: &str) {
    for status in status.values() {
        if let ServerStatus::Failed(error) = status {
            let message = error.to_string();
            if !said.contains(&message) {
                render::note(&format!("warning: {message}"));
            }
        }
    }
}

/// Says which servers are connected, and did not list their tools.
fn warn_of_unlisted(found: &SearchResults, status: &BTreeMap<String, ServerStatus>) {
    let is_told = |reason: &String| {
        status.values().any(|status| matches!(status, ServerStatus::Failed(error) if error.to_string() == *reason))
    };
    for reason in found.meta.unreachable.values().filter(|reason| !is_told(reason)) {
        render::note(&format!("warning: {reason}"));
    }
}

/// The exit code where servers failed and not one is connected.
fn none_reached(status: &BTreeMap<String, ServerStatus>) -> Option<u8> {
    let mut config_only = true;
    let mut failed = false;
    for status in status.values() {
        match status {
            ServerStatus::Connected => return None,
            ServerStatus::Failed(error) => {
                failed = true;
                config_only &= error.is_config();
            }
            _ => {}
        }
    }
    failed.then_some(if config_only { USAGE } else { UNREACHABLE })
}
