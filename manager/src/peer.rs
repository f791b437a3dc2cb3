//! Who is asking, by the certificate that TLS has verified.

use shoal_common::node::Role;
use shoal_rt::{Peer, PeerIdentity};
use std::net::SocketAddr;
use tonic::{Request, Status};

pub(crate) fn node<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    let identity = request.extensions().get::<Peer>().and_then(|p| p.identity);
    identity.ok_or_else(|| Status::unauthenticated("a node's certificate is needed for this"))
}

/// Where the other end is.
pub(crate) fn address<T>(request: &Request<T>) -> Result<SocketAddr, Status> {
    let peer = request.extensions().get::<Peer>();
    peer.map(|p| p.addr).ok_or_else(|| Status::internal("the server does not know who is connected"))
}

pub(crate) fn manager<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    let identity = node(request)?;
    match identity.role {
        Role::Manager => Ok(identity),
        Role::Worker => Err(Status::permission_denied("only managers may ask for this")),
    }
}
