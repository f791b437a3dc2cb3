//! Who this host is: its key, its certificate and the cluster's CA, in one file that is replaced as one.

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use shoal_common::{NodeId, Timestamp, node::Role};
use std::{path::Path, sync::Arc};
use tokio::sync::watch;

use crate::{
    durable,
    peer::{self, PeerIdentity},
};

/// A node's certificate with its key, and the CA that signed it.
pub struct Identity {
    pub node: NodeId,
    pub role: Role,
    pub expires: Timestamp,
    pub issued: Timestamp,
    pub certificate: CertificateDer<'static>,
    pub ca: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("node", &self.node).field("role", &self.role).finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    File(durable::Error),
    #[error(
        "the identity file {path} is damaged ({what}); leave the cluster with 'shoal leave --force' and join again"
    )]
    Damaged { path: String, what: String },
    #[error("the certificate is not one of a Shoal node")]
    NotANode(#[source] peer::Unreadable),
}

/// Sections of the file: a tag, a length (big endian), the bytes.
const SECTIONS: [&[u8; 4]; 3] = [b"key ", b"cert", b"ca  "];

impl Identity {
    pub fn new(key: Vec<u8>, certificate: Vec<u8>, ca: Vec<u8>) -> Result<Self, Error> {
        let (who, validity) = PeerIdentity::of_certificate(&certificate).map_err(Error::NotANode)?;
        Ok(Self {
            node: who.node,
            role: who.role,
            issued: validity.0,
            expires: validity.1,
            certificate: certificate.into(),
            ca: ca.into(),
            key: key.into(),
        })
    }

    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }

    pub fn key_der(&self) -> &[u8] {
        self.key.secret_pkcs8_der()
    }

    /// `None` if there is no file: the host is in no cluster.
    pub fn load(path: &Path) -> Result<Option<Self>, Error> {
        let Some(bytes) = durable::read(path).map_err(Error::File)? else { return Ok(None) };
        let damaged = |what: &str| Error::Damaged { path: path.display().to_string(), what: what.to_owned() };
        let mut rest = bytes.as_slice();
        let mut parts = Vec::with_capacity(SECTIONS.len());
        for tag in SECTIONS {
            let (head, tail) = rest.split_at_checked(8).ok_or_else(|| damaged("it is cut short"))?;
            if &head[..4] != tag {
                return Err(damaged("a section is missing"));
            }
            let len = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let (body, tail) = tail.split_at_checked(len).ok_or_else(|| damaged("it is cut short"))?;
            parts.push(body.to_vec());
            rest = tail;
        }
        let [key, certificate, ca] = <[Vec<u8>; 3]>::try_from(parts).map_err(|_| damaged("a section is missing"))?;
        Self::new(key, certificate, ca).map(Some)
    }

    /// Durable before it returns; a reader sees the old file or the new one.
    pub fn store(&self, path: &Path) -> Result<(), Error> {
        let mut bytes = Vec::new();
        for (tag, body) in SECTIONS.iter().zip([self.key_der(), self.certificate.as_ref(), self.ca.as_ref()]) {
            bytes.extend_from_slice(*tag);
            bytes.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
            bytes.extend_from_slice(body);
        }
        durable::replace(path, &bytes).map_err(Error::File)
    }
}

/// The identity in force, for everyone who needs it, also after it was renewed.
#[derive(Debug, Clone)]
pub struct Credentials(watch::Sender<Arc<Identity>>);

impl Credentials {
    pub fn new(identity: Identity) -> Self {
        Self(watch::Sender::new(Arc::new(identity)))
    }

    pub fn current(&self) -> Arc<Identity> {
        self.0.borrow().clone()
    }

    pub fn replace(&self, identity: Identity) {
        self.0.send_replace(Arc::new(identity));
    }

    pub fn changes(&self) -> watch::Receiver<Arc<Identity>> {
        self.0.subscribe()
    }
}
