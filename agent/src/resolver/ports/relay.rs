//! What comes to a port of this host, passed on. Only the host's own processes come by here.

use socket2::SockRef;
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};

/// Connections of one port that are passed on at a time; the next ones wait.
const CONNECTIONS: usize = 4096;
/// Clients of one UDP port that are remembered at a time; what others send meanwhile is dropped.
const CLIENTS: usize = 4096;
/// A host that has lost its power does not answer: the next is asked.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// As the kernel forgets a UDP flow of one question and one answer (`nf_conntrack_udp_timeout`).
const IDLE: Duration = Duration::from_secs(30);
/// After an accept that failed: there are no files left, say.
const PAUSE: Duration = Duration::from_millis(100);
/// The largest datagram.
const DATAGRAM: usize = 65_535;

/// Each in turn is the first to be asked.
#[derive(Debug)]
struct Turns {
    to: watch::Receiver<Vec<SocketAddr>>,
    taken: usize,
}

impl Turns {
    fn next(&mut self) -> Vec<SocketAddr> {
        let mut to = self.to.borrow().clone();
        self.taken = self.taken.wrapping_add(1);
        let first = self.taken.checked_rem(to.len()).unwrap_or(0);
        to.rotate_left(first);
        to
    }

    fn lead_to(&self, server: &UdpSocket) -> bool {
        server.peer_addr().is_ok_and(|at| self.to.borrow().contains(&at))
    }
}

pub(super) async fn tcp(listener: TcpListener, to: watch::Receiver<Vec<SocketAddr>>) {
    let mut turns = Turns { to, taken: 0 };
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let to = turns.next();
                // It outlives the listener: who is connected finishes what he has.
                tokio::spawn(async move {
                    let _place = place;
                    pass(client, &to).await;
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn pass(mut client: TcpStream, to: &[SocketAddr]) {
    for to in to {
        match timeout(CONNECT_LIMIT, TcpStream::connect(to)).await {
            Ok(Ok(mut server)) => {
                let passed = copy_bidirectional(&mut client, &mut server).await;
                tracing::trace!(%to, ?passed, "a connection was passed on");
                return;
            }
            Ok(Err(error)) => tracing::debug!(%to, %error, "cannot pass a connection on"),
            Err(_) => tracing::debug!(%to, "cannot pass a connection on: no answer"),
        }
    }
    // As where nobody listens.
    let _ = SockRef::from(&client).set_linger(Some(Duration::ZERO));
}

type Clients = Arc<Mutex<BTreeMap<SocketAddr, Arc<UdpSocket>>>>;

pub(super) async fn udp(socket: UdpSocket, to: watch::Receiver<Vec<SocketAddr>>) {
    let socket = Arc::new(socket);
    let clients = Clients::default();
    let mut turns = Turns { to, taken: 0 };
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let (length, client) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            // What was sent before could not be delivered.
            Err(error) => {
                tracing::trace!(%error, "cannot receive a datagram");
                continue;
            }
        };
        // One that is no longer led to is asked no more.
        let known = lock(&clients).get(&client).filter(|server| turns.lead_to(server)).cloned();
        let server = match known {
            Some(server) => server,
            None => match turns.next().first() {
                Some(to) if lock(&clients).len() < CLIENTS => match connected(*to).await {
                    Ok(server) => {
                        let server = Arc::new(server);
                        lock(&clients).insert(client, Arc::clone(&server));
                        let answers =
                            answers(Arc::downgrade(&socket), Arc::clone(&server), client, Arc::clone(&clients));
                        tokio::spawn(answers);
                        server
                    }
                    Err(error) => {
                        tracing::debug!(%to, %error, "cannot pass a datagram on");
                        continue;
                    }
                },
                Some(_) | None => continue,
            },
        };
        if let Err(error) = server.send(&datagram[..length]).await {
            tracing::trace!(%error, "cannot pass a datagram on");
            lock(&clients).remove(&client);
        }
    }
}

async fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(to).await?;
    Ok(socket)
}

/// What the server answers, until it has been silent for a while. Does not keep the port: the next may be at the same.
async fn answers(socket: Weak<UdpSocket>, server: Arc<UdpSocket>, client: SocketAddr, clients: Clients) {
    let mut datagram = vec![0; DATAGRAM];
    while let Ok(Ok(length)) = timeout(IDLE, server.recv(&mut datagram)).await {
        let Some(socket) = socket.upgrade() else { return };
        if let Err(error) = socket.send_to(&datagram[..length], client).await {
            tracing::trace!(%client, %error, "cannot pass an answer on");
        }
    }
    let mut clients = lock(&clients);
    // It may have another by now.
    if clients.get(&client).is_some_and(|current| Arc::ptr_eq(current, &server)) {
        clients.remove(&client);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
