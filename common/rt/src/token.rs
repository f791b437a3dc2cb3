//! Join tokens: `SHOAL-1-<digest of the CA>-<secret>`, both base32 (RFC 4648 §6), lower case, unpadded.
//!
//! The digest lets the joiner recognise the cluster before it says anything; the secret lets the cluster recognise
//! the joiner, and tells the role.

use data_encoding::BASE32_NOPAD;
use sha2::{Digest, Sha256};
use shoal_common::Invalid;
use std::{fmt, str::FromStr};

/// SHA-256 of a CA certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CaDigest(pub [u8; 32]);

impl CaDigest {
    pub fn of(ca_der: &[u8]) -> Self {
        Self(Sha256::digest(ca_der).into())
    }
}

impl fmt::Display for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&base32(&self.0))
    }
}

impl fmt::Debug for CaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    pub ca: CaDigest,
    /// 128 random bits, as text.
    pub secret: String,
}

impl JoinToken {
    pub fn new_secret() -> String {
        base32(&rand::random::<[u8; 16]>())
    }
}

fn base32(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHOAL-1-{}-{}", self.ca, self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHOAL-1-{}-(secret)", self.ca)
    }
}

impl FromStr for JoinToken {
    type Err = Invalid;
    fn from_str(s: &str) -> Result<Self, Invalid> {
        // The value is not repeated: it may be nearly right, and logs are read by many.
        let bad =
            || Invalid::new("token", "(not shown)", "SHOAL-1-…-… as printed by 'shoal join-token worker|manager'");
        let rest = s.trim().strip_prefix("SHOAL-1-").ok_or_else(bad)?;
        let (digest, secret) = rest.split_once('-').ok_or_else(bad)?;
        let digest = BASE32_NOPAD.decode(digest.to_ascii_uppercase().as_bytes()).map_err(|_| bad())?;
        let ca = CaDigest(digest.try_into().map_err(|_| bad())?);
        let fits = secret.len() == 26 && secret.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if fits { Ok(Self { ca, secret: secret.to_owned() }) } else { Err(bad()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_what_it_prints_and_debug_hides_the_secret() {
        let token = JoinToken { ca: CaDigest::of(b"ca"), secret: JoinToken::new_secret() };
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert!(!format!("{token:?}").contains(&token.secret));
        for bad in ["", "SHOAL-1-", "SHOAL-1-abc-def", "SWMTKN-1-x-y", &token.to_string()[..40]] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad}");
        }
    }
}
