//! Questions about other people's names, put to the servers that know them.
//!
//! Each question goes out under an id and from a port of its own, both random, and only what fits both, the
//! server's address and the question itself is taken for the answer (RFC 5452). So a forger has to guess 32 bits
//! in the time of one round trip.

use futures::{FutureExt as _, future::BoxFuture};
use hickory_proto::{
    op::{Header, MessageType, Query, ResponseCode},
    serialize::binary::{BinDecodable, BinDecoder},
};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{TcpStream, UdpSocket},
    sync::watch,
    time::timeout,
};

use crate::{
    answer::Transport,
    query::{Parsed, parse},
    reply::server_failure,
    share::Share,
    tcp::{read_frame, write_frame},
};

/// How long one server may think. With [`ATTEMPTS`] of them all is said before the 5 s of libc (resolv.conf(5)) are
/// over, so that its next attempt does not come on top of ours.
const ATTEMPT_TIMEOUT: Duration = Duration::from_millis(1500);

/// So many servers are tried, or the same ones again where there are fewer. As many as libc looks at.
const ATTEMPTS: usize = 3;

/// The address that containers have their resolver at. A server there would be ourselves.
pub const RESOLVER_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11));

/// The largest UDP payload there can be, in bytes.
const DATAGRAM_BYTES: usize = 65_535;

/// By which network namespace a server is asked.
pub trait Way: fmt::Debug + Send + Sync {
    /// A socket that is bound there.
    fn udp(&self, local: SocketAddr) -> BoxFuture<'_, io::Result<UdpSocket>>;
    fn tcp(&self, server: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>>;
}

/// By that of this process.
#[derive(Debug, Clone, Copy, Default)]
pub struct OwnWay;

impl Way for OwnWay {
    fn udp(&self, local: SocketAddr) -> BoxFuture<'_, io::Result<UdpSocket>> {
        UdpSocket::bind(local).boxed()
    }

    fn tcp(&self, server: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        TcpStream::connect(server).boxed()
    }
}

/// Who is asked about what is not ours.
#[derive(Debug, Clone)]
pub struct Servers {
    pub addresses: watch::Receiver<Vec<SocketAddr>>,
    pub way: Arc<dyn Way>,
}

/// Asks the servers one after the other, within the container's `share`. The reply is theirs, under the id that the
/// query came with, or `SERVFAIL` when none was to be had; `None` if what was to be forwarded is no query.
pub(crate) async fn forward(
    query: &[u8],
    transport: Transport,
    servers: &[SocketAddr],
    way: &dyn Way,
    share: &Share,
) -> Option<Vec<u8>> {
    let Parsed::Asked(asked) = parse(query) else { return None };
    let failure = || server_failure(&asked.metadata, &asked.question, asked.edns.as_ref());
    let Some(_permit) = share.forward() else {
        tracing::debug!("too many questions of a container to upstream servers are under way: one is refused");
        return failure();
    };
    let servers: Vec<SocketAddr> = servers.iter().copied().filter(|s| !is_ourselves(*s)).collect();
    let mut poor = None;
    for server in servers.iter().cycle().take(ATTEMPTS) {
        let exchange = Exchange::new(query, &asked.question);
        let attempt = async {
            match transport {
                Transport::Udp => exchange.by_udp(*server, way).await,
                Transport::Tcp => exchange.by_tcp(*server, way).await,
            }
        };
        match timeout(ATTEMPT_TIMEOUT, attempt).await {
            Ok(Ok((code, mut reply))) => {
                reply[..2].copy_from_slice(&query[..2]);
                if is_final(code) {
                    return Some(reply);
                }
                poor = Some(reply);
            }
            Ok(Err(error)) => tracing::debug!(%server, %error, "an upstream server could not be asked"),
            Err(_) => tracing::debug!(%server, "an upstream server did not answer in time"),
        }
        if poor.is_some() && servers.len() == 1 {
            // It was there and would not; asking again would not help.
            break;
        }
    }
    poor.or_else(failure)
}

fn is_ourselves(server: SocketAddr) -> bool {
    server.ip().to_canonical() == RESOLVER_ADDRESS
}

/// Whether the next server could not do better (as libc sees it).
fn is_final(code: ResponseCode) -> bool {
    !matches!(code, ResponseCode::ServFail | ResponseCode::NotImp | ResponseCode::Refused)
}

/// One question to one server.
struct Exchange<'a> {
    id: u16,
    question: &'a Query,
    query: Vec<u8>,
}

impl<'a> Exchange<'a> {
    fn new(query: &[u8], question: &'a Query) -> Self {
        let id: u16 = rand::random();
        let mut query = query.to_vec();
        query[..2].copy_from_slice(&id.to_be_bytes());
        Self { id, question, query }
    }

    async fn by_udp(&self, server: SocketAddr, way: &dyn Way) -> io::Result<(ResponseCode, Vec<u8>)> {
        let any: IpAddr = match server {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        // Port 0: the kernel draws one by chance. Connected: it passes on what comes from the server only, and
        // says at once when nobody listens there.
        let socket = way.udp(SocketAddr::new(any, 0)).await?;
        socket.connect(server).await?;
        socket.send(&self.query).await?;
        // Not filled with zeros: of the pages only those that the reply needs are touched.
        let mut reply = Vec::with_capacity(DATAGRAM_BYTES);
        loop {
            reply.clear();
            socket.recv_buf(&mut reply).await?;
            // Anything else may be a forger's attempt, and the true answer still on its way.
            if let Some(code) = self.answered_by(&reply) {
                return Ok((code, reply));
            }
        }
    }

    async fn by_tcp(&self, server: SocketAddr, way: &dyn Way) -> io::Result<(ResponseCode, Vec<u8>)> {
        let mut stream = way.tcp(server).await?;
        stream.set_nodelay(true)?;
        write_frame(&mut stream, &self.query).await?;
        loop {
            let Some(reply) = read_frame(&mut stream).await? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            };
            if let Some(code) = self.answered_by(&reply) {
                return Ok((code, reply));
            }
        }
    }

    fn answered_by(&self, reply: &[u8]) -> Option<ResponseCode> {
        let mut decoder = BinDecoder::new(reply);
        let Header { metadata, counts } = Header::read(&mut decoder).ok()?;
        if metadata.id != self.id || metadata.message_type != MessageType::Response || counts.queries != 1 {
            return None;
        }
        let question = Query::read(&mut decoder).ok()?;
        (question == *self.question).then_some(metadata.response_code)
    }
}

#[cfg(test)]
mod tests;
