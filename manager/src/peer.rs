//! Who is asking, by the certificate that TLS has verified.

use shoal_common::node::Role;
use shoal_rt::{Peer, PeerIdentity};
use tonic::{Request, Status};

pub(crate) fn node<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    let identity = request.extensions().get::<Peer>().and_then(|p| p.identity);
    identity.ok_or_else(|| Status::unauthenticated("a node's certificate is needed for this"))
}

pub(crate) fn manager<T>(request: &Request<T>) -> Result<PeerIdentity, Status> {
    let identity = node(request)?;
    match identity.role {
        Role::Manager => Ok(identity),
        Role::Worker => Err(Status::permission_denied("only managers may ask for this")),
    }
}
