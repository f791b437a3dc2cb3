//! Connections from other hosts, after their TLS handshake, as tonic's server takes them.

use futures::Stream;
use shoal_common::Timestamp;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::{Server, server::Connected};

use crate::{
    Credentials, Peer, PeerIdentity,
    connections::{Connections, Counted},
    tls,
};

/// A handshake that takes longer is cut off (slowloris). A whole one is two round trips and some 2 ms of work.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections that are ready and not yet taken.
const READY: usize = 64;
/// How often certificates are looked at for their expiry.
const EXPIRY_CHECK: Duration = Duration::from_secs(1);

/// After this a connection takes no new call, so that the next one begins with a handshake, and with the certificates
/// of then. Calls that are under way go on.
pub const CONNECTION_AGE: Duration = Duration::from_secs(3600);
/// Calls at once on one connection; HTTP/2 makes further ones wait. A manager follows the logs of all tasks of a host
/// on one connection.
const STREAMS: u32 = 1024;
/// Of the headers of one call. Ours are below 1 KiB.
const HEADER_BYTES: u32 = 16 << 10;
/// A connection whose other end vanished is noticed after this, twice.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// What a server for other hosts is built with: the limits of each connection.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_connection_age(CONNECTION_AGE)
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADER_BYTES)
}

/// A stream of authenticated connections.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<io::Result<Connection>>,
    connections: Connections,
}

impl Incoming {
    /// Accepts on `listener` until `shutdown`. Each handshake uses the certificate that is in force then.
    pub fn new(listener: TcpListener, credentials: Credentials, shutdown: CancellationToken) -> Self {
        let (tx, ready) = mpsc::channel(READY);
        let connections = Connections::default();
        let all = connections.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, credentials, all.clone(), tx) => {}
                () = expire(all) => {}
                () = shutdown.cancelled() => {}
            }
        });
        Self { ready, connections }
    }

    /// All that came this way and are open.
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }
}

async fn expire(connections: Connections) {
    let mut check = interval(EXPIRY_CHECK);
    check.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        check.tick().await;
        connections.close_expired();
    }
}

async fn accept(
    listener: TcpListener,
    credentials: Credentials,
    connections: Connections,
    tx: mpsc::Sender<io::Result<Connection>>,
) {
    let mut identity = credentials.current();
    let mut acceptor = tls::server(&identity).map(TlsAcceptor::from);
    loop {
        let (stream, addr) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, or a connection that was reset in the backlog: the listener itself is fine.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let current = credentials.current();
        if !Arc::ptr_eq(&current, &identity) {
            acceptor = tls::server(&current).map(TlsAcceptor::from);
            identity = current;
        }
        let acceptor = match &acceptor {
            Ok(acceptor) => acceptor.clone(),
            Err(error) => {
                tracing::error!(%error, "cannot serve other hosts");
                continue;
            }
        };
        let tx = tx.clone();
        let (connections, handshake) = (connections.clone(), connections.handshake(addr.ip()));
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let shaking = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
            let shaken = tokio::select! {
                shaken = shaking => shaken,
                () = handshake.cancelled.cancelled() => return,
            };
            drop(handshake);
            let stream = match shaken {
                Ok(Ok(stream)) => stream,
                Ok(Err(error)) => return tracing::debug!(%addr, %error, "TLS handshake failed"),
                Err(_) => return tracing::debug!(%addr, "TLS handshake timed out"),
            };
            let (identity, expires) = peer_identity(&stream).unzip();
            let peer = Peer { addr, identity };
            let Some(counted) = connections.open(peer.clone(), expires) else { return };
            // A server that has ended takes none, and the connection ends with it.
            let _ = tx.send(Ok(Connection::new(stream, peer, counted))).await;
        });
    }
}

/// Who is at the other end, and until when its certificate says so.
fn peer_identity(stream: &TlsStream<TcpStream>) -> Option<(PeerIdentity, Timestamp)> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    match PeerIdentity::of_certificate(certificate) {
        Ok((identity, (_, expires))) => Some((identity, expires)),
        Err(error) => {
            tracing::warn!(%error, "a certificate of our CA is none of a node");
            None
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(cx)
    }
}

/// One TLS connection and who is at its other end.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    _counted: Counted,
}

impl Connection {
    fn new(stream: TlsStream<TcpStream>, peer: Peer, counted: Counted) -> Self {
        let closed = Box::pin(counted.closed.clone().cancelled_owned());
        Self { stream, peer, closed, _counted: counted }
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        // An HTTP/2 connection always waits to read, so it notices this at once, and ends every call with it.
        if self.closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Only for the bind address in messages.
pub async fn listen(addr: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(addr).await.map_err(|source| ListenError { addr, source })
}

#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}")]
pub struct ListenError {
    pub addr: SocketAddr,
    #[source]
    pub source: io::Error,
}
