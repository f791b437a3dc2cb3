//! One who is attached to a process in a container, as the daemon has it: what comes out, what goes in, and the end.

use bytes::{Bytes, BytesMut};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
};

use crate::{
    Error, LogStream,
    frame::{Frame, PAYLOAD_MAX_BYTES},
};

/// Input under way to the process.
const INPUT_BYTES: usize = PAYLOAD_MAX_BYTES;
/// Pieces of output read ahead of a consumer that is slower than the process.
const OUTPUT_PIECES: usize = 16;
/// Changes of size under way: only the last one matters.
const SIZES: usize = 4;

/// An attachment to a process. All parts may be moved apart. It lasts while `output` or `exit` is held; the process
/// of an attachment goes on without it, and so does one that was added, but for its terminal, which hangs up.
pub struct Session {
    pub stdin: Stdin,
    /// In pieces as they come; of a terminal all is standard output. To be read or dropped: the exit comes after it.
    pub output: BoxStream<'static, (LogStream, Bytes)>,
    pub terminal: Terminal,
    /// The exit code, once the process has ended.
    pub exit: BoxFuture<'static, Result<i32, Error>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

/// What goes to the process's standard input. To shut it down ends that for all; to drop it does not.
#[derive(Debug)]
pub struct Stdin {
    pipe: DuplexStream,
    ended: Arc<AtomicBool>,
}

/// Tells the size of the terminal that the process is seen in.
#[derive(Debug, Clone)]
pub struct Terminal(mpsc::Sender<Frame>);

impl Terminal {
    /// Nothing happens where the process has no terminal, or has ended.
    pub async fn resize(&self, rows: u16, columns: u16) {
        let _ = self.0.send(Frame::Resize { rows, columns }).await;
    }

    /// Whoever is there goes, and a process that was added goes on without anybody: its terminal does not hang up.
    pub async fn leave(&self) {
        let _ = self.0.send(Frame::Leave).await;
    }
}

impl AsyncWrite for Stdin {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended.store(true, Ordering::Release);
        Pin::new(&mut self.pipe).poll_shutdown(cx)
    }
}

impl Session {
    /// Over the socket to a supervisor. `exit` is asked for the end with what the supervisor told
    /// of it, which is nothing if it went without a word.
    pub(crate) fn over<E>(
        socket: UnixStream,
        read: BytesMut,
        exit: impl FnOnce(Option<i32>) -> E + Send + 'static,
    ) -> Self
    where
        E: Future<Output = Result<i32, Error>> + Send + 'static,
    {
        let (from, to) = socket.into_split();
        let (stdin, pipe) = tokio::io::duplex(INPUT_BYTES);
        let (resize, sizes) = mpsc::channel(SIZES);
        let (output_to, output) = mpsc::channel(OUTPUT_PIECES);
        let (told_to, told) = oneshot::channel();
        let ended = Arc::new(AtomicBool::new(false));
        // Both end with the session or with the supervisor.
        tokio::spawn(hear(from, read, output_to, told_to));
        tokio::spawn(tell(to, pipe, Arc::clone(&ended), sizes));
        let output =
            futures::stream::unfold(
                output,
                |mut output| async move { output.recv().await.map(|piece| (piece, output)) },
            );
        let exit = async move { exit(told.await.ok()).await };
        Session {
            stdin: Stdin { pipe: stdin, ended },
            output: output.boxed(),
            terminal: Terminal(resize),
            exit: exit.boxed(),
        }
    }
}

/// The next frame; `None` if the supervisor is gone or speaks nonsense.
pub(crate) async fn next(from: &mut (impl tokio::io::AsyncRead + Unpin), read: &mut BytesMut) -> Option<Frame> {
    loop {
        match Frame::decode(read) {
            Ok(Some(frame)) => return Some(frame),
            Ok(None) => {}
            Err(_) => return None,
        }
        match from.read_buf(read).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

async fn hear(
    mut from: OwnedReadHalf,
    mut read: BytesMut,
    output: mpsc::Sender<(LogStream, Bytes)>,
    mut exit: oneshot::Sender<i32>,
) {
    loop {
        let frame = tokio::select! {
            frame = next(&mut from, &mut read) => frame,
            () = async { tokio::join!(output.closed(), exit.closed()); } => return,
        };
        match frame {
            // Who dropped the output may still wait for the exit.
            Some(Frame::Output(stream, bytes)) => drop(output.send((stream, bytes)).await),
            Some(Frame::Exit(code)) => {
                let _ = exit.send(code);
                return;
            }
            Some(
                Frame::Running
                | Frame::Failed(..)
                | Frame::Input(_)
                | Frame::EndOfInput
                | Frame::Leave
                | Frame::Resize { .. },
            ) => {}
            None => return,
        }
    }
}

async fn tell(
    mut to: OwnedWriteHalf,
    mut pipe: DuplexStream,
    ended: Arc<AtomicBool>,
    mut sizes: mpsc::Receiver<Frame>,
) {
    let mut bytes = BytesMut::with_capacity(INPUT_BYTES);
    let (mut pipe_open, mut sizes_open) = (true, true);
    while pipe_open || sizes_open {
        let frame = tokio::select! {
            // What was typed after a change of size comes after it.
            biased;
            size = sizes.recv(), if sizes_open => {
                sizes_open = size.is_some();
                size
            }
            read = pipe.read_buf(&mut bytes), if pipe_open => match read {
                Ok(n) if n > 0 => Some(Frame::Input(bytes.split().freeze())),
                Ok(_) | Err(_) => {
                    pipe_open = false;
                    ended.load(Ordering::Acquire).then_some(Frame::EndOfInput)
                }
            },
        };
        if let Some(frame) = frame {
            let mut encoded = BytesMut::new();
            frame.encode(&mut encoded);
            if to.write_all(&encoded).await.is_err() {
                break;
            }
        }
        bytes.reserve(INPUT_BYTES);
    }
    // The other half goes on listening.
    to.forget();
}
