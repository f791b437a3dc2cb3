//! DNS over TCP: messages after their length (RFC 1035 §4.2.2, RFC 7766).

use std::{io, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};

use crate::{
    answer::{Outcome, Transport},
    server::Views,
};

/// Connections of one container at a time. Further ones wait in the listener's backlog.
pub(crate) const CONNECTIONS: usize = 64;

/// A connection on which nothing comes for so long is closed, as is one whose client does not read.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Before another try, when no connection can be accepted: the daemon has run out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves a container's connections until it is dropped, and they with it.
pub(crate) async fn serve(listener: &TcpListener, views: &Arc<Views>) {
    let limit = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let permit = Arc::clone(&limit).acquire_owned().await.expect("the semaphore is never closed");
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) => {
                let views = Arc::clone(views);
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &views).await {
                        tracing::debug!(%error, "a container's DNS connection broke");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a container's DNS connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the queries of one connection, in their order.
async fn converse(mut stream: TcpStream, views: &Views) -> io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let Ok(read) = timeout(IDLE_TIMEOUT, read_frame(&mut stream)).await else { return Ok(()) };
        let Some(query) = read? else { return Ok(()) };
        views.pace(1).await;
        let reply = match views.answer(&query, Transport::Tcp) {
            Outcome::Reply(reply) => Some(reply),
            Outcome::Forward => views.forward(&query, Transport::Tcp).await,
            Outcome::Drop => None,
        };
        // Who sends what is no query has nothing to wait for.
        let Some(reply) = reply else { return Ok(()) };
        let Ok(written) = timeout(IDLE_TIMEOUT, write_frame(&mut stream, &reply)).await else { return Ok(()) };
        written?;
    }
}

/// `None` at the end of the stream.
pub(crate) async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => length,
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

pub(crate) async fn write_frame(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a DNS message has at most 65535 bytes"))?;
    // In one write, so that no client sees the length alone.
    let mut frame = Vec::with_capacity(2 + message.len());
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(message);
    stream.write_all(&frame).await
}
