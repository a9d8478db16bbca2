//! Makes components of the core modules that Cargo builds. Called by `sandbox/build.sh`.
//!
//! - `rhaiway-assemble engine CORE.wasm OUT.wasm` wraps the engine and runs its `init` once, so that the built Rhai engine is part
//!   of every fresh instance.
//! - `rhaiway-assemble typed CORE.wasm OUT.wasm WIT` wraps what imports nothing of WASI, and adds the comments of its WIT, which descriptions
//!   of tools are made of.
//! - `rhaiway-assemble command CORE.wasm OUT.wasm` wraps a program for WASI preview 1: it becomes one for preview 2.

use anyhow::{Context, Result, bail, ensure};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wasm_encoder::{CustomSection, Encode, Section};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};
use wasmtime_wizer::Wizer;
use wit_component::ComponentEncoder;
use wit_parser::{PackageMetadata, Resolve};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kind, core, out, more @ ..] = arguments.as_slice() else {
        bail!("usage: rhaiway-assemble engine|typed|command CORE.wasm OUT.wasm [WIT]")
    };
    let core = std::fs::read(core).with_context(|| format!("read {core}"))?;
    let component = match (kind.as_str(), more) {
        ("engine", []) => engine(&core).await?,
        ("typed", [wit]) => typed(&core, wit)?,
        ("command", []) => command(&core)?,
        _ => bail!("there is no kind `{kind}`"),
    };
    std::fs::write(out, component).with_context(|| format!("write {out}"))
}

async fn engine(core: &[u8]) -> Result<Vec<u8>> {
    let component = ComponentEncoder::default().validate(true).module(core)?.encode()?;
    let engine = Engine::default();
    let mut store = Store::new(&engine, ());
    let mut wizer = Wizer::new();
    wizer.init_func("init").keep_init_func(true);
    let (snapshot, _) = wizer
        .run_component(&mut store, &component, async |store, component| {
            let mut linker = Linker::new(store.engine());
            // Building the engine calls nothing outside; if it ever does, the build fails.
            linker.define_unknown_imports_as_traps(component)?;
            linker.instantiate_async(store, component).await
        })
        .await?;

    let component = Component::new(&engine, &snapshot)?;
    let imports: Vec<String> = component.component_type().imports(&engine).map(|(name, _)| name.to_string()).collect();
    ensure!(
        imports.iter().all(|name| name.starts_with("rhaiway:engine/")),
        "the engine must import its host interface and nothing else, but imports {imports:?}"
    );
    Ok(snapshot)
}

fn typed(core: &[u8], wit: &str) -> Result<Vec<u8>> {
    let mut resolve = Resolve::new();
    let (package, _) = resolve.push_dir(wit)?;
    let comments = PackageMetadata::extract(&resolve, package).encode()?;
    let mut component = ComponentEncoder::default().validate(true).module(core)?.encode()?;
    let section = CustomSection { name: PackageMetadata::SECTION_NAME.into(), data: comments.into() };
    component.push(section.id());
    section.encode(&mut component);
    Ok(component)
}

fn command(core: &[u8]) -> Result<Vec<u8>> {
    ComponentEncoder::default()
        .validate(true)
        .module(core)?
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)?
        .encode()
}
