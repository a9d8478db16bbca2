//! Compiled guests on disk. Loading one runs what is in it, so only files that we wrote ourselves, into a folder that is ours alone,
//! are loaded; everything else is compiled again and replaced.

use std::hash::Hash;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use blake3::Hasher;
use cap_std::ambient_authority;
use cap_std::fs::{Dir, OpenOptions};
use wasmtime::component::Component;
use wasmtime::{Engine, Module, Result};

/// Part of the key, so that a change of the format makes all files old.
const FORMAT: &[u8] = b"rhaiway compiled code 2, wasmtime 48";

/// A component or a module, compiled.
pub(crate) trait Compiled: Sized {
    fn compile(engine: &Engine, wasm: &[u8]) -> Result<Self>;
    fn precompile(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>>;
    /// # Safety
    /// It must be what `precompile` made.
    #[allow(unsafe_code, reason = "the same as of the functions that it stands for")]
    unsafe fn deserialize(engine: &Engine, code: &[u8]) -> Result<Self>;
    /// # Safety
    /// The file must hold what `precompile` made, and stay as it is.
    #[allow(unsafe_code, reason = "the same as of the functions that it stands for")]
    unsafe fn deserialize_file(engine: &Engine, path: &Path) -> Result<Self>;
}

macro_rules! compiled {
    ($kind:ident, $precompile:ident) => {
        impl Compiled for $kind {
            fn compile(engine: &Engine, wasm: &[u8]) -> Result<Self> {
                Self::new(engine, wasm)
            }

            fn precompile(engine: &Engine, wasm: &[u8]) -> Result<Vec<u8>> {
                engine.$precompile(wasm)
            }

            #[allow(unsafe_code, reason = "the caller's promise is the same")]
            unsafe fn deserialize(engine: &Engine, code: &[u8]) -> Result<Self> {
                unsafe { Self::deserialize(engine, code) }
            }

            #[allow(unsafe_code, reason = "the caller's promise is the same")]
            unsafe fn deserialize_file(engine: &Engine, path: &Path) -> Result<Self> {
                unsafe { Self::deserialize_file(engine, path) }
            }
        }
    };
}

compiled!(Component, precompile_component);
compiled!(Module, precompile_module);

pub(super) fn load<C: Compiled>(
    engine: &Engine,
    wasm: &[u8],
    folder: Option<&Path>,
    on_compile: &dyn Fn(),
) -> Result<C> {
    let Some(path) = folder else {
        on_compile();
        return C::compile(engine, wasm);
    };
    let folder = match private_folder(path) {
        Ok(folder) => folder,
        Err(error) => {
            tracing::warn!(folder = %path.display(), %error, "compiled code is not cached");
            on_compile();
            return C::compile(engine, wasm);
        }
    };
    let name = format!("{}.cwasm", key(engine, wasm));
    if is_intact(&folder, &name) {
        // SAFETY: the file was written by this function (its checksum stands beside it) in a folder that only this user can write
        // to, under a key made of the content, wasmtime's version and its settings.
        #[allow(unsafe_code, reason = "loading compiled code from our own cache")]
        match unsafe { C::deserialize_file(engine, &path.join(&name)) } {
            Ok(code) => return Ok(code),
            Err(error) => tracing::warn!(file = name, %error, "compiled again: the cached code does not load"),
        }
    }
    on_compile();
    let compiled = C::precompile(engine, wasm)?;
    if let Err(error) = write(&folder, &name, &compiled) {
        tracing::warn!(folder = %path.display(), %error, "compiled code is not cached");
    }
    // SAFETY: compiled by this engine two lines above.
    #[allow(unsafe_code, reason = "loading what was just compiled")]
    unsafe {
        C::deserialize(engine, &compiled)
    }
}

/// Opens the folder, made if need be, and makes sure that nobody else can write to it.
fn private_folder(path: &Path) -> std::io::Result<Dir> {
    std::fs::create_dir_all(path)?;
    let folder = Dir::open_ambient_dir(path, ambient_authority())?;
    #[cfg(unix)]
    {
        use cap_std::fs::{MetadataExt, Permissions, PermissionsExt};
        if folder.dir_metadata()?.uid() != rustix::process::geteuid().as_raw() {
            return Err(std::io::Error::other("the folder belongs to another user"));
        }
        folder.set_permissions(".", Permissions::from_mode(0o700))?;
    }
    Ok(folder)
}

fn key(engine: &Engine, wasm: &[u8]) -> String {
    struct Key(Hasher);
    impl std::hash::Hasher for Key {
        fn write(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }
        fn finish(&self) -> u64 {
            0
        }
    }
    let mut key = Key(Hasher::new());
    key.0.update(FORMAT);
    engine.precompile_compatibility_hash().hash(&mut key);
    key.0.update(wasm).finalize().to_string()
}

fn checksum_name(name: &str) -> String {
    format!("{name}.blake3")
}

fn is_intact(folder: &Dir, name: &str) -> bool {
    let check = || {
        let metadata = folder.symlink_metadata(name)?;
        #[cfg(unix)]
        let ours = cap_std::fs::MetadataExt::uid(&metadata) == rustix::process::geteuid().as_raw();
        #[cfg(not(unix))]
        let ours = true;
        if !metadata.is_file() || !ours {
            return Ok(false);
        }
        let expected = folder.read_to_string(checksum_name(name))?;
        let found = Hasher::new().update_reader(folder.open(name)?)?.finalize();
        std::io::Result::Ok(found.to_string() == expected)
    };
    check().unwrap_or(false)
}

fn write(folder: &Dir, name: &str, code: &[u8]) -> std::io::Result<()> {
    // The code first: a checksum without its code, or beside another one, only means that it is compiled again.
    replace(folder, name, code)?;
    replace(folder, &checksum_name(name), blake3::hash(code).to_string().as_bytes())
}

/// Writes through a temporary name, so that no other process sees half a file.
fn replace(folder: &Dir, name: &str, content: &[u8]) -> std::io::Result<()> {
    // Of its own, as several servers of this process may write the same.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let temporary = format!("{name}.{}-{number}.new", std::process::id());
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    cap_std::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = folder.open_with(&temporary, &options)?;
    file.write_all(content)?;
    file.sync_all()?;
    folder.rename(&temporary, folder, name)
}
