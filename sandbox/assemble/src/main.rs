//! Makes the engine component: `rhaiway-assemble CORE.wasm OUT.wasm` wraps the core module that Cargo built as a component and
//! runs its `init` once, so that the built Rhai engine is part of every fresh instance. Called by `sandbox/build.sh`.

use anyhow::{Context, Result, ensure};
use wasmtime::component::{Component, Linker};
use wasmtime::{Engine, Store};
use wasmtime_wizer::Wizer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, core, out] = arguments.as_slice() else { anyhow::bail!("usage: rhaiway-assemble CORE.wasm OUT.wasm") };
    let core = std::fs::read(core).with_context(|| format!("read {core}"))?;
    let component = wit_component::ComponentEncoder::default().validate(true).module(&core)?.encode()?;

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
    std::fs::write(out, &snapshot).with_context(|| format!("write {out}"))?;
    Ok(())
}
