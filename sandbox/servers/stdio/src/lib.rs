//! Serves MCP over stdin and stdout: from a wasm guest, where one thread does everything, and from a native process.

#[cfg(target_family = "wasm")]
mod wasi;

use rmcp::{ServerHandler, ServiceExt};
use tokio::runtime::Builder;

#[cfg(not(target_family = "wasm"))]
pub use tokio::time::sleep;
#[cfg(target_family = "wasm")]
pub use wasi::sleep;

/// Serves until the client closes stdin. Calls are served at the same time; one that waits must do so with [`sleep()`].
///
/// # Errors
/// Says why the client could not be served.
pub fn serve(handler: impl ServerHandler) -> Result<(), String> {
    let mut runtime = Builder::new_current_thread();
    #[cfg(target_family = "wasm")]
    runtime.on_thread_park(wasi::wait);
    #[cfg(target_family = "wasm")]
    let transport = (wasi::Stdin, wasi::Stdout);
    #[cfg(not(target_family = "wasm"))]
    let transport = rmcp::transport::stdio();
    // rmcp has timeouts of its own.
    let runtime = runtime.enable_time().build().map_err(|error| error.to_string())?;
    runtime.block_on(async {
        let service = handler.serve(transport).await.map_err(|error| error.to_string())?;
        service.waiting().await.map(drop).map_err(|error| error.to_string())
    })
}
