//! The digest of a tool's or server's own name that stands behind its name in scripts, where that would not be its own alone: `list_files_444c4831`.

/// Its digits in base 16, and those where two digests are alike.
pub(crate) const DIGEST: usize = 8;
pub(crate) const LONG_DIGEST: usize = 64;

/// All digits of the digest of an own name.
pub(crate) fn digest_of(name: &str) -> String {
    blake3::hash(name.as_bytes()).to_hex().to_string()
}

/// What may be the digest at the end of a name in scripts.
pub(crate) fn digest_at_end(name: &str) -> Option<&str> {
    let (_, end) = name.rsplit_once('_')?;
    let is_digest =
        matches!(end.len(), DIGEST | LONG_DIGEST) && end.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    is_digest.then_some(end)
}
