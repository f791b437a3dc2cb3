//! What daemon and resolver say to each other: a question, an answer, over a unix socket. Each is a length (32 bits,
//! big endian) and MessagePack; descriptors come with the first bytes (`SCM_RIGHTS`, unix(7)).

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shoal_common::{TaskId, assignment::Assignment};
use shoal_dns::Scope;
use shoal_plan::Listener;
use std::{
    collections::BTreeSet,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};
use tokio::{io::Interest, net::UnixStream};

/// Which build this is (see `build.rs`). Both ends are of one build, or the older process is replaced: an assignment of
/// another build may not decode, or may mean something else.
pub(super) const BUILD: &str = env!("SHOAL_AGENT_BUILD");
/// The largest message: an assignment.
const MAX_BYTES: u32 = 256 << 20;
/// The most descriptors that come with one message: two sockets and a network namespace.
const MAX_FDS: usize = 3;

/// `Hello` and `Quit`, and the answers to them, stay as they are: they are understood by every build.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    Hello,
    /// Answered at once, whatever else goes on.
    Ping,
    /// From now on every answer is made from this.
    Tell(Arc<Assignment>),
    /// Answers names in a container's network namespace, of this identity. Said again it changes nothing. Without
    /// descriptors it is answered by [`Answer::Unsocketed`], unless it has the sockets already: with a UDP socket and
    /// a TCP listener that were opened there, and the namespace itself if the container has servers of its own.
    Serve {
        task: TaskId,
        scope: Scope,
        netns: (u64, u64),
    },
    /// Everything of the task is closed when it is answered.
    Stop {
        task: TaskId,
    },
    /// At these ports of the host it listens when it is answered, and at no others; each with where that leads.
    Hold(Vec<(Listener, Vec<SocketAddr>)>),
    Quit,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Hello {
        version: String,
        serving: BTreeSet<TaskId>,
    },
    Done,
    /// [`Ask::Serve`] is to be sent with its descriptors.
    Unsocketed,
    /// Those that cannot be listened at, and why.
    Held(Vec<(Listener, String)>),
    Failed(String),
}

/// One end of the conversation.
#[derive(Debug)]
pub(super) struct Line(UnixStream);

/// One message as it came.
#[derive(Debug, Default)]
pub(super) struct Frame {
    bytes: Vec<u8>,
    pub(super) fds: Vec<OwnedFd>,
    /// The kernel could not install all of them here: there are too many open files.
    pub(super) fds_lost: bool,
}

impl Frame {
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn decode<T: DeserializeOwned>(&self) -> io::Result<T> {
        rmp_serde::from_slice(&self.bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

/// A message with its length, ready to be sent.
pub(super) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    rmp_serde::encode::write_named(&mut bytes, message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(bytes)
}

impl From<UnixStream> for Line {
    fn from(stream: UnixStream) -> Self {
        Self(stream)
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Line {
    pub(super) async fn connect(socket: &Path) -> io::Result<Self> {
        UnixStream::connect(socket).await.map(Self)
    }

    /// Returns when the other end has gone, or says what nobody asked for. `UnixStream::readable` does not do: it also
    /// returns for what has been read since.
    pub(super) async fn ends(&self) {
        let read = || receive(&self.0, &mut [0], &mut Frame::default());
        let _: io::Result<usize> = self.0.async_io(Interest::READABLE, read).await;
    }

    pub(super) async fn send(&self, message: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Descriptors go with the first part alone.
        let mut sent = self.0.async_io(Interest::WRITABLE, || send(&self.0, message, fds)).await?;
        while sent < message.len() {
            sent += self.0.async_io(Interest::WRITABLE, || send(&self.0, &message[sent..], &[])).await?;
        }
        Ok(())
    }

    /// `None` when the other end has gone.
    pub(super) async fn receive(&self) -> io::Result<Option<Frame>> {
        let mut frame = Frame::default();
        let mut length = [0; 4];
        match self.fill(&mut length, &mut frame).await? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        let length = u32::from_be_bytes(length);
        if length > MAX_BYTES {
            return Err(io::Error::other(format!("a message of {length} bytes is longer than {MAX_BYTES}")));
        }
        let mut bytes = vec![0; length as usize];
        if self.fill(&mut bytes, &mut frame).await? < bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        frame.bytes = bytes;
        Ok(Some(frame))
    }

    /// Reads until the buffer is full or the other end has gone.
    async fn fill(&self, to: &mut [u8], frame: &mut Frame) -> io::Result<usize> {
        let mut done = 0;
        while done < to.len() {
            let got = self.0.async_io(Interest::READABLE, || receive(&self.0, &mut to[done..], frame)).await?;
            if got == 0 {
                break;
            }
            done += got;
        }
        Ok(done)
    }
}

fn send(stream: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::other(format!("{} descriptors are more than {MAX_FDS}", fds.len())));
    }
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?)
}

fn receive(stream: &UnixStream, to: &mut [u8], frame: &mut Frame) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let got = recvmsg(stream, &mut [IoSliceMut::new(to)], &mut control, flags)?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            frame.fds.extend(fds);
        }
    }
    frame.fds_lost |= got.flags.contains(ReturnFlags::CTRUNC);
    Ok(got.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use std::net::UdpSocket;
    use tokio::io::AsyncWriteExt;

    async fn heard<T: DeserializeOwned>(line: &Line) -> T {
        line.receive().await.unwrap().unwrap().decode().unwrap()
    }

    #[tokio::test]
    async fn what_is_said_is_heard_and_an_end_is_no_error() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut here, there) = (Line(here), Line(there));
        let big = Arc::new(fixture::assignment(3, &(1..=200).collect::<Vec<u64>>()));
        let tell = encode(&Ask::Tell(Arc::clone(&big))).unwrap();
        let failed = encode(&Answer::Failed("no".to_owned())).unwrap();
        let said = async {
            here.send(&tell, &[]).await.unwrap();
            here.send(&failed, &[]).await.unwrap();
        };
        let ((), told) = tokio::join!(said, heard::<Ask>(&there));
        match told {
            Ask::Tell(told) => assert_eq!(told, big),
            other => panic!("{other:?}"),
        }
        assert_eq!(heard::<Answer>(&there).await, Answer::Failed("no".to_owned()));
        here.0.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert!(there.receive().await.is_err());
        drop(here);
        assert!(there.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn descriptors_come_with_the_message_that_they_were_sent_with() {
        let (here, there) = UnixStream::pair().unwrap();
        let (here, there) = (Line(here), Line(there));
        let sockets = [(); MAX_FDS].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let fds: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        here.send(&encode(&Answer::Done).unwrap(), &[]).await.unwrap();
        here.send(&encode(&Answer::Unsocketed).unwrap(), &fds).await.unwrap();
        here.send(&encode(&Answer::Done).unwrap(), &[]).await.unwrap();
        let came = [(); 3].map(|()| there.receive());
        let came: Vec<Frame> = futures::future::try_join_all(came).await.unwrap().into_iter().flatten().collect();
        assert_eq!(came.iter().map(|frame| frame.fds.len()).collect::<Vec<_>>(), [0, MAX_FDS, 0]);
        let mut there = came.into_iter().flat_map(|frame| frame.fds).map(UdpSocket::from);
        assert!(sockets.iter().all(|here| {
            let there = there.next().unwrap();
            here.local_addr().unwrap() == there.local_addr().unwrap()
        }));
    }
}
