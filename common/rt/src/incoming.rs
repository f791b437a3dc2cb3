//! Connections from other hosts, after their TLS handshake, as tonic's server takes them.

use futures::Stream;
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
    sync::{Semaphore, mpsc},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;

use crate::{Credentials, Peer, PeerIdentity, tls};

/// A handshake that takes longer is cut off (slowloris).
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes under way at once; further connections wait in the kernel's backlog.
const HANDSHAKES: usize = 256;
/// Connections that are ready and not yet taken.
const READY: usize = 64;

/// A stream of authenticated connections.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<io::Result<Connection>>);

impl Incoming {
    /// Accepts on `listener` until `shutdown`. Each handshake uses the certificate that is in force then.
    pub fn new(listener: TcpListener, credentials: Credentials, shutdown: CancellationToken) -> Self {
        let (tx, rx) = mpsc::channel(READY);
        tokio::spawn(async move {
            tokio::select! {
                () = accept(listener, credentials, tx) => {}
                () = shutdown.cancelled() => {}
            }
        });
        Self(rx)
    }
}

async fn accept(listener: TcpListener, credentials: Credentials, tx: mpsc::Sender<io::Result<Connection>>) {
    let mut identity = credentials.current();
    let mut acceptor = tls::server(&identity).map(TlsAcceptor::from);
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
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
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            let shaken = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
            drop(permit);
            match shaken {
                Ok(Ok(stream)) => {
                    let identity = peer_identity(&stream);
                    // The server is gone: so is the connection.
                    let _ = tx.send(Ok(Connection { stream, peer: Peer { addr, identity } })).await;
                }
                Ok(Err(error)) => tracing::debug!(%addr, %error, "TLS handshake failed"),
                Err(_) => tracing::debug!(%addr, "TLS handshake timed out"),
            }
        });
    }
}

fn peer_identity(stream: &TlsStream<TcpStream>) -> Option<PeerIdentity> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    match PeerIdentity::of_certificate(certificate) {
        Ok((identity, _)) => Some(identity),
        Err(error) => {
            tracing::warn!(%error, "a certificate of our CA is none of a node");
            None
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

/// One TLS connection and who is at its other end.
#[derive(Debug)]
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
}

impl Connected for Connection {
    type ConnectInfo = Peer;
    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
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
