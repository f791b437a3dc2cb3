//! One session with a process, between the runtime and the wire.

use futures::{StreamExt, stream::BoxStream};
use shoal_proto::pb;
use shoal_runtime::{Error, LogStream, Session, Size, Stdin, Terminal};
use tokio::{io::AsyncWriteExt, sync::mpsc};
use tonic::Status;

use crate::chain;

/// Messages that whoever listens has not taken yet. While it is full the process is not read; the runtime decides
/// what becomes of one that is slow.
const UNREAD: usize = 16;

/// What comes in: the same of a process that is added and of one that is attached to.
#[derive(Debug, Default)]
pub(super) struct Input {
    stdin: Vec<u8>,
    stdin_closed: bool,
    resize: Option<pb::WindowSize>,
    leave: bool,
}

impl From<pb::ExecInput> for Input {
    fn from(i: pb::ExecInput) -> Self {
        Self { stdin: i.stdin, stdin_closed: i.stdin_closed, resize: i.resize, leave: i.leave }
    }
}

impl From<pb::AttachInput> for Input {
    fn from(i: pb::AttachInput) -> Self {
        Self { stdin: i.stdin, stdin_closed: i.stdin_closed, resize: i.resize, leave: i.leave }
    }
}

/// What is written from now on is told.
pub(super) fn ready() -> pb::ProcessOutput {
    pb::ProcessOutput { ready: true, ..pb::ProcessOutput::default() }
}

/// All that is said of a process that could not be started.
pub(super) fn unstarted(error: &Error) -> pb::ProcessOutput {
    let exit_code = Some(error.fault().exit_code());
    pb::ProcessOutput { exit_code, unstarted: chain(error), ..pb::ProcessOutput::default() }
}

pub(super) fn as_size(size: pb::WindowSize) -> Size {
    let lines = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Size { rows: lines(size.rows), columns: lines(size.columns) }
}

/// Serves a session that is there, or will be when the process starts.
pub(super) fn serve(
    session: impl Future<Output = Result<Session, Status>> + Send + 'static,
    inputs: BoxStream<'static, Result<Input, Status>>,
) -> super::Output {
    let (tx, rx) = mpsc::channel(UNREAD);
    tokio::spawn(async move {
        if tx.send(Ok(ready())).await.is_err() {
            return;
        }
        let session = tokio::select! {
            session = session => session,
            () = tx.closed() => return,
        };
        match session {
            Ok(session) => pump(session, inputs, tx).await,
            // Whoever hung up needs no reason.
            Err(status) => drop(tx.send(Err(status)).await),
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(rx).boxed()
}

async fn pump(
    session: Session,
    inputs: BoxStream<'static, Result<Input, Status>>,
    to: mpsc::Sender<Result<pb::ProcessOutput, Status>>,
) {
    let Session { stdin, mut output, terminal, exit } = session;
    let telling = async {
        while let Some((stream, bytes)) = output.next().await {
            let mut message = pb::ProcessOutput::default();
            match stream {
                LogStream::Stdout => message.stdout = bytes.to_vec(),
                LogStream::Stderr => message.stderr = bytes.to_vec(),
            }
            if to.send(Ok(message)).await.is_err() {
                return;
            }
        }
        let last = match exit.await {
            Ok(code) => Ok(pb::ProcessOutput { exit_code: Some(code), ..pb::ProcessOutput::default() }),
            Err(error) => Err(Status::aborted(chain(&error))),
        };
        let _ = to.send(last).await;
    };
    // Beside the output: each may have to wait for the process.
    tokio::select! {
        () = telling => {}
        () = to.closed() => {}
        () = feed(inputs, stdin, terminal) => {}
    }
}

/// Until whoever is there leaves. What the process does not read any more is dropped.
async fn feed(mut inputs: BoxStream<'static, Result<Input, Status>>, mut stdin: Stdin, terminal: Terminal) {
    while let Some(Ok(input)) = inputs.next().await {
        if let Some(size) = input.resize {
            let Size { rows, columns } = as_size(size);
            terminal.resize(rows, columns).await;
        }
        if !input.stdin.is_empty() {
            let _ = stdin.write_all(&input.stdin).await;
        }
        if input.stdin_closed {
            let _ = stdin.shutdown().await;
        }
        if input.leave {
            terminal.leave().await;
            return;
        }
    }
    // The input stays open while the session lasts: dropped, it would end.
    std::future::pending::<()>().await;
}
