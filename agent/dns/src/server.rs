//! The sockets of one container, served.

use std::{io, net::SocketAddr, sync::Arc};
use tokio::{
    net::UdpSocket,
    sync::watch,
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{Outcome, Transport, answer},
    scope::Scope,
    tcp,
    upstream::{Servers, Upstream},
    zone::Zone,
};

/// The largest query that is read by UDP, in bytes. Queries have one question and few options.
const QUERY_BYTES: usize = 4096;

/// Datagrams answered in a row before other containers have their turn.
const BATCH: usize = 64;

/// Queries of one container on their way to upstream servers. So one container leaves room for the others; more
/// are dropped, and their client asks again.
const FORWARDS_PER_CONTAINER: usize = 128;

/// A container's sockets that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("cannot serve DNS by UDP for a container")]
    Udp(#[source] io::Error),
    #[error("cannot serve DNS by TCP for a container")]
    Tcp(#[source] io::Error),
}

/// The resolver of one host, for all of its containers. Clones share their limits.
#[derive(Debug, Clone, Default)]
pub struct Resolver {
    upstream: Upstream,
}

/// What answers are made from.
pub(crate) struct Views {
    scope: Arc<Scope>,
    zone: watch::Receiver<Arc<Zone>>,
    servers: Servers,
    upstream: Upstream,
}

impl Views {
    /// The zone is looked at anew for each query: an answer is never older than what the host knows.
    pub(crate) fn answer(&self, query: &[u8], transport: Transport) -> Outcome {
        let zone = self.zone.borrow();
        answer(query, transport, &self.scope, &zone, rand::random())
    }

    pub(crate) async fn forward(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let servers = self.servers.addresses.borrow().clone();
        self.upstream.forward(query, transport, &servers, &*self.servers.way).await
    }
}

impl Resolver {
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves one container until `shutdown`. The sockets were opened in the container's network namespace and
    /// answer there; `servers` are asked about what is not ours. When the task ends, so has
    /// everything that it began.
    pub fn serve(
        &self,
        udp: std::net::UdpSocket,
        listener: std::net::TcpListener,
        scope: Arc<Scope>,
        zone: watch::Receiver<Arc<Zone>>,
        servers: Servers,
        shutdown: CancellationToken,
    ) -> Result<JoinHandle<()>, ServeError> {
        udp.set_nonblocking(true).map_err(ServeError::Udp)?;
        let udp = UdpSocket::from_std(udp).map_err(ServeError::Udp)?;
        listener.set_nonblocking(true).map_err(ServeError::Tcp)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Tcp)?;
        let views = Arc::new(Views { scope, zone, servers, upstream: self.upstream.clone() });
        Ok(tokio::spawn(async move {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = serve_udp(Arc::new(udp), Arc::clone(&views)) => {}
                () = tcp::serve(listener, views) => {}
            }
        }))
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, views: Arc<Views>) {
    let mut forwards = JoinSet::new();
    loop {
        tokio::select! {
            ready = socket.readable() => {
                if let Err(error) = ready {
                    // Only when the runtime shuts down.
                    tracing::debug!(%error, "a container's DNS socket ended");
                    return;
                }
                if answer_batch(&socket, &views, &mut forwards) == BATCH {
                    tokio::task::yield_now().await;
                }
            }
            Some(ended) = forwards.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "the forwarding of a DNS query broke");
                }
            }
        }
    }
}

/// Answers what has come, and returns how many datagrams that were. Here, not in a task, for the names of ours: the
/// answer takes less time than a task. The buffer is on the stack, so that an idle container costs none.
fn answer_batch(socket: &Arc<UdpSocket>, views: &Arc<Views>, forwards: &mut JoinSet<()>) -> usize {
    let mut buffer = [0; QUERY_BYTES];
    for done in 0..BATCH {
        let (length, client) = match socket.try_recv_from(&mut buffer) {
            Ok(received) => received,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return done,
            // An error that an earlier reply met on its way (its client is gone); it says nothing of this socket.
            Err(error) => {
                tracing::debug!(%error, "a DNS reply did not arrive");
                continue;
            }
        };
        let query = &buffer[..length];
        match views.answer(query, Transport::Udp) {
            Outcome::Reply(reply) => send(socket, &reply, client),
            Outcome::Forward if forwards.len() < FORWARDS_PER_CONTAINER => {
                let (socket, views, query) = (Arc::clone(socket), Arc::clone(views), query.to_vec());
                forwards.spawn(async move {
                    if let Some(reply) = views.forward(&query, Transport::Udp).await {
                        send(&socket, &reply, client);
                    }
                });
            }
            Outcome::Forward => tracing::debug!(%client, "too many forwarded DNS queries: one is dropped"),
            Outcome::Drop => {}
        }
    }
    BATCH
}

fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    // A full buffer loses a datagram, as a full network would; the client asks again.
    if let Err(error) = socket.try_send_to(reply, client) {
        tracing::debug!(%error, %client, "a DNS reply could not be sent");
    }
}

#[cfg(test)]
mod tests;
