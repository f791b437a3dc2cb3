//! Channels to other hosts.

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use shoal_common::NodeId;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

use crate::{Credentials, peer, tls, token::CaDigest};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// An idle connection whose other end vanished is noticed after this and [`KEEPALIVE_TIMEOUT`].
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Whom we mean to reach. Another node's certificate does not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Node(NodeId),
    AnyManager,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Setup(#[from] tls::SetupError),
    #[error("cannot reach {addr}")]
    Connect {
        addr: SocketAddr,
        #[source]
        source: tonic::transport::Error,
    },
}

/// Connects now. The channel connects again where its connection has reached its age, with the certificate that is in
/// force then: one from its first connection may have expired by that time.
pub async fn connect(addr: SocketAddr, expect: Expect, credentials: &Credentials) -> Result<Channel, Error> {
    let credentials = credentials.clone();
    channel(addr, expect, move || tls::client(&credentials.current())).await
}

/// A joiner's channel to a manager whose CA has this digest.
pub async fn connect_joiner(addr: SocketAddr, ca: CaDigest) -> Result<Channel, Error> {
    channel(addr, Expect::AnyManager, move || tls::joiner(ca)).await
}

async fn channel<C>(addr: SocketAddr, expect: Expect, config: C) -> Result<Channel, Error>
where
    C: Fn() -> Result<Arc<ClientConfig>, tls::SetupError> + Send + Sync + 'static,
{
    // A certificate of no use is told as what it is.
    config()?;
    let config = Arc::new(config);
    let name = peer::server_name(match expect {
        Expect::Node(node) => peer::node_name(node),
        Expect::AnyManager => peer::MANAGER_NAME.to_owned(),
    });
    let connector = tower::service_fn(move |_| {
        let (config, name) = (Arc::clone(&config), name.clone());
        async move {
            let tls = TlsConnector::from(config().map_err(io::Error::other)?);
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            tls.connect(name, stream).await.map(TokioIo::new)
        }
    });
    // The scheme is tonic's business only; the connector above always speaks TLS.
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).map_err(|source| Error::Connect { addr, source })?;
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(|source| Error::Connect { addr, source })
}

/// The innermost cause of an error, for people: tonic's own text is "transport error".
pub fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
