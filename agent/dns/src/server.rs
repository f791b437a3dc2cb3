//! The sockets of one container, served.

use futures::FutureExt as _;
use std::{
    io,
    net::SocketAddr,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    net::UdpSocket,
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::sleep_until,
};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{Outcome, Transport, answer},
    scope::Scope,
    share::{Pool, Share},
    tcp,
    upstream::{self, Servers},
    zone::Zone,
};

/// The largest query that is read by UDP, in bytes. Queries have one question and few options.
const QUERY_BYTES: usize = 4096;

/// Datagrams answered in a row before other containers have their turn.
const BATCH: usize = 64;

/// Queries of one container by UDP on their way to upstream servers. More are dropped, and their client asks again.
/// Fewer while others need the room: [`Share`].
const FORWARDS_PER_CONTAINER: usize = 128;

/// After a panic, so that one that comes back at once does not take a whole processor.
const BEGIN_AGAIN: Duration = Duration::from_millis(100);

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
    pool: Pool,
}

/// A container, and the servers that are asked for it about what is not ours.
#[derive(Debug, Clone)]
pub struct Asker {
    pub scope: Scope,
    pub servers: Servers,
}

/// What answers are made from.
pub(crate) struct Views {
    asker: watch::Receiver<Arc<Asker>>,
    zone: watch::Receiver<Arc<Zone>>,
    share: Share,
}

impl Views {
    /// The zone is read again for each query: an answer is never older than what the host knows.
    pub(crate) fn answer(&self, query: &[u8], transport: Transport) -> Outcome {
        let (asker, zone) = (self.asker.borrow().clone(), self.zone.borrow().clone());
        // A defect that one query finds costs that query, not the names of the whole host.
        let answered =
            panic::catch_unwind(AssertUnwindSafe(|| answer(query, transport, &asker.scope, &zone, rand::random())));
        answered.unwrap_or_else(|_| {
            tracing::error!("the answer to a DNS query broke");
            Outcome::Drop
        })
    }

    pub(crate) async fn forward(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let asker = self.asker.borrow().clone();
        let servers = asker.servers.addresses.borrow().clone();
        upstream::forward(query, transport, &servers, &*asker.servers.way, &self.share).await
    }

    /// Waits if the container has had more answers than its rate allows.
    pub(crate) async fn pace(&self, answers: usize) {
        let answers = u32::try_from(answers).unwrap_or(u32::MAX);
        if let Some(until) = self.share.answered(answers, Instant::now()) {
            sleep_until(until.into()).await;
        }
    }
}

impl Resolver {
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves one container until `shutdown`. The sockets were opened in the container's network namespace and
    /// answer there. When the task ends, so has everything that it began.
    pub fn serve(
        &self,
        udp: std::net::UdpSocket,
        listener: std::net::TcpListener,
        asker: watch::Receiver<Arc<Asker>>,
        zone: watch::Receiver<Arc<Zone>>,
        shutdown: CancellationToken,
    ) -> Result<JoinHandle<()>, ServeError> {
        udp.set_nonblocking(true).map_err(ServeError::Udp)?;
        let udp = UdpSocket::from_std(udp).map_err(ServeError::Udp)?;
        listener.set_nonblocking(true).map_err(ServeError::Tcp)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Tcp)?;
        let views = Arc::new(Views { asker, zone, share: Share::of(&self.pool) });
        let udp = Arc::new(udp);
        let serving = async move {
            served_on(|| async {
                tokio::select! {
                    () = serve_udp(&udp, &views) => {}
                    () = tcp::serve(&listener, &views) => {}
                }
            })
            .await;
        };
        Ok(tokio::spawn(async move { shutdown.run_until_cancelled(serving).await.unwrap_or(()) }))
    }
}

/// Begins again after a panic: nobody looks after one container's names until its resolver is another process.
async fn served_on<F: Future<Output = ()>>(serve: impl Fn() -> F) {
    // The panic hook has logged where it happened.
    while AssertUnwindSafe(serve()).catch_unwind().await.is_err() {
        tracing::error!("a defect of shoal: answering a container's queries has panicked; it is begun again");
        tokio::time::sleep(BEGIN_AGAIN).await;
    }
}

async fn serve_udp(socket: &Arc<UdpSocket>, views: &Arc<Views>) {
    let mut forwards = JoinSet::new();
    loop {
        tokio::select! {
            ready = socket.readable() => {
                if let Err(error) = ready {
                    // Only when the runtime shuts down.
                    tracing::debug!(%error, "a container's DNS socket ended");
                    return;
                }
                let answered = answer_batch(socket, views, &mut forwards);
                if answered == BATCH {
                    tokio::task::yield_now().await;
                }
                views.pace(answered).await;
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
