//! The host's published ports, listened at: so that nobody else of the host has them, and for what the kernel does not
//! lead to a container by itself ([`shoal_plan::listen`]).

mod holder;
mod relay;

use shoal_plan::{Listener, nft::Transport};
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket as StdUdpSocket},
};
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Mutex, watch},
    task::JoinHandle,
};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 128;
/// IANA's number of SCTP, as socket(2) wants it.
const SCTP: i32 = 132;

#[derive(Debug, Default)]
pub(super) struct Ports {
    open: Mutex<BTreeMap<Listener, Open>>,
}

#[derive(Debug)]
struct Open {
    to: watch::Sender<Vec<SocketAddr>>,
    listening: JoinHandle<()>,
}

impl Ports {
    pub(super) async fn is_empty(&self) -> bool {
        self.open.lock().await.is_empty()
    }

    /// From now on these are listened at, and no others. Of those that cannot be: why. What has been accepted goes on.
    pub(super) async fn hold(&self, wanted: BTreeMap<Listener, Vec<SocketAddr>>) -> BTreeMap<Listener, String> {
        let mut open = self.open.lock().await;
        let surplus: Vec<Listener> = open.keys().filter(|listener| !wanted.contains_key(listener)).copied().collect();
        for listener in surplus {
            if let Some(Open { listening, .. }) = open.remove(&listener) {
                listening.abort();
                // Until its socket is closed: the next may be at the same port.
                let _ = listening.await;
            }
        }
        // One that has ended (it never does by itself) listens no more.
        open.retain(|_, open| !open.listening.is_finished());
        let (mut closed, mut taken) = (BTreeMap::new(), Vec::new());
        for (listener, to) in wanted {
            if let Some(open) = open.get(&listener) {
                open.to.send_replace(to);
                continue;
            }
            match listen(listener, to) {
                Ok(opened) => drop(open.insert(listener, opened)),
                Err(error) => match Refusal::of(listener, &error) {
                    Refusal::Taken => taken.push(listener),
                    Refusal::Because(why) => drop(closed.insert(listener, why)),
                    Refusal::None => tracing::debug!(%listener, %error, "not listened at"),
                },
            }
        }
        if !taken.is_empty() {
            let holders = tokio::task::spawn_blocking(move || holder::of(&taken)).await.unwrap_or_default();
            closed.extend(holders.into_iter().map(|(listener, holder)| {
                (listener, format!("{listener} is in use by {holder}; stop that, or publish another port"))
            }));
        }
        closed
    }
}

fn listen(listener: Listener, to: Vec<SocketAddr>) -> io::Result<Open> {
    let socket = socket(listener)?;
    let (to, leads) = watch::channel(to);
    let listening = match listener.transport {
        Transport::Tcp => {
            let socket = TcpListener::from_std(StdTcpListener::from(socket))?;
            tokio::spawn(relay::tcp(socket, leads))
        }
        Transport::Udp => {
            let socket = UdpSocket::from_std(StdUdpSocket::from(socket))?;
            tokio::spawn(relay::udp(socket, leads))
        }
        // Held only: nothing here speaks it.
        Transport::Sctp => tokio::spawn(async move {
            let _held = socket;
            std::future::pending::<()>().await;
        }),
    };
    Ok(Open { to, listening })
}

fn socket(Listener { transport, at }: Listener) -> io::Result<Socket> {
    let (kind, protocol) = match transport {
        Transport::Tcp => (Type::STREAM, Protocol::TCP),
        Transport::Udp => (Type::DGRAM, Protocol::UDP),
        Transport::Sctp => (Type::STREAM, Protocol::from(SCTP)),
    };
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    if at.is_ipv6() {
        // IPv4 has a listener of its own.
        socket.set_only_v6(true)?;
    }
    if transport == Transport::Tcp {
        // Connections of a server that has ended are no reason to refuse the port.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&at.into())?;
    if transport != Transport::Udp {
        socket.listen(BACKLOG)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The reason to refuse a port that cannot be listened at, if there is one.
enum Refusal {
    /// By a server, unless it is a connection that was made by chance from this port: that is soon gone.
    Taken,
    Because(String),
    /// No IPv6 here, no SCTP, no more files: nobody else can listen either, or nothing is known of it.
    None,
}

impl Refusal {
    fn of(listener: Listener, error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::AddrInUse => Self::Taken,
            io::ErrorKind::AddrNotAvailable if !listener.at.ip().is_loopback() => {
                let ip = listener.at.ip();
                Self::Because(format!("this host has no address {ip}; publish at one that it has"))
            }
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests;
