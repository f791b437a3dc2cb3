//! A handle on one network namespace, for code that opens sockets there and needs nothing else of the kernel's
//! networking: no netlink socket, no subscription.

use nix::sys::stat::fstat;
use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use crate::{kernel::blocking, netns};

/// One descriptor. The namespace lives at least until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct NetNs(Arc<OwnedFd>);

impl From<OwnedFd> for NetNs {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl NetNs {
    /// Device and inode of nsfs: equal for two handles exactly if they are on the same namespace.
    pub fn identity(&self) -> io::Result<(u64, u64)> {
        let found = fstat(&self.0)?;
        Ok((found.st_dev, found.st_ino))
    }

    /// A UDP socket and a TCP listener at one address of the namespace.
    pub async fn sockets(&self, at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
        self.enter(move || Ok((UdpSocket::bind(at)?, TcpListener::bind(at)?))).await
    }

    pub async fn udp_socket(&self, local: SocketAddr) -> io::Result<UdpSocket> {
        self.enter(move || UdpSocket::bind(local)).await
    }

    /// A TCP connection out of the namespace.
    pub async fn tcp_stream(&self, server: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        self.enter(move || TcpStream::connect_timeout(&server, limit)).await
    }

    async fn enter<T: Send + 'static>(&self, f: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let fd = Arc::clone(&self.0);
        blocking(move || netns::enter(fd.as_fd(), f).and_then(|done| done)).await
    }
}
