//! What daemon and resolver say to each other: a question, an answer, over a unix socket. Each is a length (32 bits,
//! big endian) and MessagePack.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shoal_common::{TaskId, assignment::Assignment};
use shoal_dns::Scope;
use shoal_plan::Listener;
use std::{collections::BTreeSet, io, net::SocketAddr};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Both ends are of one build, or the older resolver is ended.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The largest message: an assignment.
const MAX_BYTES: u32 = 256 << 20;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    Hello,
    /// From now on every answer is made from this.
    Tell(Box<Assignment>),
    /// Listens in the task's network namespace when it is answered. Said again it changes nothing.
    Serve {
        task: TaskId,
        scope: Scope,
    },
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
    /// Those that cannot be listened at, and why.
    Held(Vec<(Listener, String)>),
    Failed(String),
}

pub(super) async fn write<T: Serialize>(to: &mut (impl AsyncWrite + Unpin), message: &T) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    rmp_serde::encode::write_named(&mut bytes, message).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    to.write_all(&bytes).await
}

/// `None` when the other end has gone.
pub(super) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<T>> {
    let length = match from.read_u32().await {
        Ok(length) if length <= MAX_BYTES => length,
        Ok(length) => return Err(io::Error::other(format!("a message of {length} bytes is too long"))),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(e) => return Err(e),
    };
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes).await?;
    rmp_serde::from_slice(&bytes).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[tokio::test]
    async fn what_is_said_is_heard_and_an_end_is_no_error() {
        let (mut here, mut there) = tokio::io::duplex(1 << 20);
        write(&mut here, &Ask::Tell(Box::new(fixture::assignment(3, &[1, 2])))).await.unwrap();
        write(&mut here, &Answer::Failed("no".to_owned())).await.unwrap();
        match read::<Ask>(&mut there).await.unwrap() {
            Some(Ask::Tell(heard)) => assert_eq!(*heard, fixture::assignment(3, &[1, 2])),
            other => panic!("{other:?}"),
        }
        assert_eq!(read::<Answer>(&mut there).await.unwrap(), Some(Answer::Failed("no".to_owned())));
        here.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert!(read::<Answer>(&mut there).await.is_err());
        drop(here);
        assert!(read::<Answer>(&mut there).await.unwrap().is_none());
    }
}
