//! Who is at the other end: read from the certificate that TLS has verified.
//!
//! Subject: `CN=node-3`, `OU=manager|worker`, `O=<cluster id>`. DNS names: `node-3.shoal`, and `manager.shoal` for
//! managers, so that a client can demand one node, or any manager.

use rustls::pki_types::ServerName;
use shoal_common::{NodeId, Timestamp, node::Role};
use std::net::SocketAddr;
use x509_parser::prelude::{FromDer, X509Certificate, X509Name};

/// Any manager of the cluster.
pub const MANAGER_NAME: &str = "manager.shoal";

/// The DNS name of one node.
pub fn node_name(node: NodeId) -> String {
    format!("{node}.shoal")
}

pub(crate) fn server_name(name: String) -> ServerName<'static> {
    ServerName::try_from(name).expect("node names are DNS names")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerIdentity {
    pub node: NodeId,
    pub role: Role,
}

/// The other end of a connection, as handlers find it in a request's extensions.
#[derive(Debug, Clone)]
pub struct Peer {
    pub addr: SocketAddr,
    /// `None`: it showed no certificate. Only `Join` may be called so.
    pub identity: Option<PeerIdentity>,
}

#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("it is no X.509 certificate: {0}")]
    Der(String),
    #[error("its subject lacks {0}")]
    Subject(&'static str),
}

impl PeerIdentity {
    /// Who, and from when to when.
    pub fn of_certificate(der: &[u8]) -> Result<(Self, (Timestamp, Timestamp)), Unreadable> {
        let (_, cert) = X509Certificate::from_der(der).map_err(|e| Unreadable::Der(e.to_string()))?;
        let subject: &X509Name<'_> = cert.subject();
        let cn = subject.iter_common_name().next().and_then(|a| a.as_str().ok());
        let ou = subject.iter_organizational_unit().next().and_then(|a| a.as_str().ok());
        let node = cn.and_then(|s| s.parse().ok()).ok_or(Unreadable::Subject("CN=node-…"))?;
        let role = ou.and_then(|s| s.parse().ok()).ok_or(Unreadable::Subject("OU=worker|manager"))?;
        let ms = |t: i64| Timestamp(u64::try_from(t).unwrap_or(0) * 1000);
        let validity = cert.validity();
        Ok((Self { node, role }, (ms(validity.not_before.timestamp()), ms(validity.not_after.timestamp()))))
    }
}
