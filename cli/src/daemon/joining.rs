//! The key of a join whose answer has not come: kept, so that a join that is tried again finds the node that the first
//! try may have made. With a new key each time a lost answer leaves a node behind that nobody is.

use anyhow::Context;
use serde::{Deserialize, Serialize};
use shoal_manager::ca;
use shoal_rt::{JoinToken, durable, token::CaDigest};
use std::path::Path;

#[derive(Serialize, Deserialize)]
struct Joining {
    /// A digest of the token: with another one the host wants to be something else.
    token: String,
    /// PKCS #8, DER.
    key: Vec<u8>,
}

/// The key and its signing request, DER. They are on disk when this returns.
pub(crate) fn key(path: &Path, token: &JoinToken) -> anyhow::Result<(Vec<u8>, Vec<u8>)> {
    let token = CaDigest::of(token.to_string().as_bytes()).to_string();
    // What cannot be read is of no more use than none.
    let kept = durable::read(path)?.and_then(|bytes| serde_json::from_slice::<Joining>(&bytes).ok());
    if let Some(kept) = kept.filter(|kept| kept.token == token)
        && let Ok(request) = ca::signing_request_of(&kept.key)
    {
        return Ok((kept.key, request));
    }
    let (key, request) = ca::signing_request()?;
    let joining = Joining { token, key: key.clone() };
    durable::replace(path, &serde_json::to_vec(&joining)?).context("cannot keep the key of this host")?;
    Ok((key, request))
}

/// The join was answered.
pub(crate) fn forget(path: &Path) {
    if let Err(error) = durable::remove(path) {
        tracing::warn!(%error, "the key of a join that is done stays on disk");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_that_is_tried_again_has_the_same_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("joining.json");
        let token = |secret: &str| JoinToken { ca: CaDigest::of(b"ca"), secret: secret.to_owned() };
        let (key, request) = key_of(&path, &token("worker"));
        let (again, request_again) = key_of(&path, &token("worker"));
        assert_eq!(again, key);
        let public = |request: &[u8]| ca::public_key_sha256(request).unwrap();
        assert_eq!(public(&request_again), public(&request));
        // Another token asks for another role.
        assert_ne!(key_of(&path, &token("manager")).0, key);
        let (key, _) = key_of(&path, &token("worker"));
        std::fs::write(&path, "{").unwrap();
        assert_ne!(key_of(&path, &token("worker")).0, key);
        forget(&path);
        assert!(!path.exists());
    }

    fn key_of(path: &Path, token: &JoinToken) -> (Vec<u8>, Vec<u8>) {
        super::key(path, token).unwrap()
    }
}
