//! Where the command keeps tokens: in the system's keyring, or where there is none, in a file that only this user can read. A file for
//! each server says where they are, so that the keyring is asked for nothing but what is in it.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcetera::BaseStrategy;
use rhaiway::{TokenKey, TokenLock, TokenStore};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// `never` keeps tokens in files even where there is a keyring.
pub(super) const VARIABLE: &str = "RHAIWAY_KEYRING";
/// How long the keyring may take. Where a person has to unlock it first, the next command finds it unlocked.
const KEYRING: Duration = Duration::from_secs(5);
/// How often to look whether a lock can be had.
const LOOK: Duration = Duration::from_millis(50);
/// Under which the keyring has them.
const SERVICE: &str = "rhaiway";

/// Keeps tokens for this user.
#[derive(Clone)]
pub(super) struct Tokens {
    folder: Arc<Path>,
    keyring: bool,
}

/// What a server's file holds.
#[derive(Serialize, Deserialize)]
struct Entry {
    /// For people who look into the folder.
    server: String,
    /// None where the keyring has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<String>,
    /// The keyring has older ones, which are to be forgotten with these.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    also_in_keyring: bool,
}

impl Entry {
    fn in_keyring(&self) -> bool {
        self.tokens.is_none() || self.also_in_keyring
    }
}

impl Tokens {
    /// `None` where this user has no folders.
    pub(super) fn of_this_user() -> Option<Self> {
        let folders = etcetera::choose_base_strategy().ok()?;
        let folder = folders.state_dir().unwrap_or_else(|| folders.data_dir()).join("rhaiway").join("tokens");
        let keyring = std::env::var_os(VARIABLE).is_none_or(|value| value != "never");
        Some(Self { folder: folder.into(), keyring })
    }

    /// A name for a server and its address, which are not told by it.
    fn name(key: &TokenKey) -> String {
        let digest = Sha256::new().chain_update(key.server()).chain_update([0]).chain_update(key.url()).finalize();
        format!("{digest:x}")
    }

    fn file(&self, key: &TokenKey) -> PathBuf {
        self.folder.join(format!("{}.json", Self::name(key)))
    }

    fn entry(&self, key: &TokenKey) -> io::Result<Option<Entry>> {
        match std::fs::read(self.file(key)) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn write(&self, key: &TokenKey, tokens: Option<&str>, also_in_keyring: bool) -> io::Result<()> {
        private_folder(&self.folder)?;
        // A temporary file can be read by its owner only, and stays so.
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        let entry = Entry { server: key.server().into(), tokens: tokens.map(String::from), also_in_keyring };
        serde_json::to_writer(&mut file, &entry)?;
        file.as_file().sync_all()?;
        file.persist(self.file(key))?;
        Ok(())
    }

    /// Where the tokens of a server are, for people.
    pub(super) fn place(&self, key: &TokenKey) -> String {
        match self.entry(key) {
            Ok(Some(Entry { tokens: None, .. })) => "the system's keyring".into(),
            _ => self.file(key).display().to_string(),
        }
    }
}

#[async_trait::async_trait]
impl TokenStore for Tokens {
    async fn load(&self, key: &TokenKey) -> io::Result<Option<String>> {
        match self.entry(key)? {
            None => Ok(None),
            Some(Entry { tokens: Some(tokens), .. }) => Ok(Some(tokens)),
            Some(Entry { tokens: None, .. }) => match in_keyring(key, keyring::Entry::get_password).await {
                Ok(tokens) => Ok(Some(tokens)),
                Err(Some(keyring::Error::NoEntry)) => Ok(None),
                Err(error) => Err(explain(error)),
            },
        }
    }

    async fn save(&self, key: &TokenKey, tokens: &str) -> io::Result<()> {
        if self.keyring {
            let secret = tokens.to_string();
            match in_keyring(key, move |entry| entry.set_password(&secret)).await {
                Ok(()) => return self.write(key, None, false),
                Err(error) => {
                    let error = explain(error);
                    tracing::debug!(%error, "tokens are kept in a file");
                }
            }
        }
        let also_in_keyring = self.entry(key)?.is_some_and(|entry| entry.in_keyring());
        self.write(key, Some(tokens), also_in_keyring)
    }

    async fn remove(&self, key: &TokenKey) -> io::Result<()> {
        if let Some(entry) = self.entry(key)?.filter(Entry::in_keyring) {
            match in_keyring(key, keyring::Entry::delete_credential).await {
                Ok(()) | Err(Some(keyring::Error::NoEntry)) => {}
                Err(error) => {
                    if entry.tokens.is_some() {
                        self.write(key, None, false)?;
                    }
                    return Err(explain(error));
                }
            }
        }
        match std::fs::remove_file(self.file(key)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The system ends the lock on a file with the process that has it. The file is one of its own, which stays: that of the tokens is
    /// replaced and removed while others wait.
    async fn lock(&self, key: &TokenKey) -> io::Result<TokenLock> {
        let folder = self.folder.with_file_name("locks");
        private_folder(&folder)?;
        let file = File::options().write(true).create(true).truncate(false).open(folder.join(Self::name(key)))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(TokenLock::new(file)),
                // Not in a thread that waits, as that would wait on where this is given up.
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK).await,
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
    }
}

/// Makes a folder that only this user can look into.
pub(super) fn private_folder(path: &Path) -> io::Result<()> {
    let mut folder = std::fs::DirBuilder::new();
    folder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        folder.mode(0o700).create(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
    }
    #[cfg(not(unix))]
    folder.create(path)
}

/// Asks the keyring, in a thread of its own, as it may never answer. `Err(None)` if it did not.
async fn in_keyring<T: Send + 'static>(
    key: &TokenKey,
    work: impl FnOnce(&keyring::Entry) -> keyring::Result<T> + Send + 'static,
) -> Result<T, Option<keyring::Error>> {
    let (name, (send, receive)) = (Tokens::name(key), tokio::sync::oneshot::channel());
    std::thread::spawn(move || {
        let _ = send.send(keyring::Entry::new(SERVICE, &name).and_then(|entry| work(&entry)));
    });
    match tokio::time::timeout(KEYRING, receive).await {
        Ok(Ok(done)) => done.map_err(Some),
        Ok(Err(_)) | Err(_) => Err(None),
    }
}

fn explain(error: Option<keyring::Error>) -> io::Error {
    match error {
        Some(error) => io::Error::other(format!("the keyring: {error}")),
        None => io::Error::new(io::ErrorKind::TimedOut, "the keyring does not answer"),
    }
}
