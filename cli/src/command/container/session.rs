//! At a process: what is typed goes in, what it writes comes out, and it ends as it ends.

use futures::StreamExt as _;
use shoal_proto::pb;
use std::{io::IsTerminal as _, process::ExitCode};
use tokio::{io::AsyncReadExt as _, sync::mpsc, task::JoinHandle};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::terminal::{Keys, Pressed, Raw, size, sizes};
use crate::{
    client::Client,
    failure::{Exit, Failure},
    out,
};

/// What was typed and has not been sent yet, in pieces.
const UNSENT: usize = 16;
/// Typed, in one piece.
const PIECE_BYTES: usize = 32 << 10;

/// What goes in.
#[derive(Debug, Clone, Default)]
pub(super) struct Input {
    pub(super) stdin: bool,
    /// The process has a terminal.
    pub(super) tty: bool,
    pub(super) detach: Keys,
}

pub(super) struct Session {
    output: Streaming<pb::ProcessOutput>,
    input: Input,
    typed: mpsc::Sender<pb::AttachInput>,
}

/// The process is heard from now on.
pub(super) async fn attach(client: &Client, of: &pb::Container, input: Input) -> Result<Session, Failure> {
    input.check()?;
    let (typed, messages) = mpsc::channel(UNSENT);
    let first = pb::AttachInput { container: of.id, ..Default::default() };
    let all = tokio_stream::once(first).chain(ReceiverStream::new(messages));
    let output = client.containers(Some(of.node)).attach(all).await?.into_inner();
    Session { output, input, typed }.ready().await
}

pub(super) async fn exec(client: &Client, node: u64, start: pb::ExecStart, input: Input) -> Result<Session, Failure> {
    input.check()?;
    let (typed, messages) = mpsc::channel(UNSENT);
    let first = pb::ExecInput { start: Some(start), ..Default::default() };
    let as_exec = |i: pb::AttachInput| pb::ExecInput {
        start: None,
        stdin: i.stdin,
        stdin_closed: i.stdin_closed,
        resize: i.resize,
    };
    let all = tokio_stream::once(first).chain(ReceiverStream::new(messages).map(as_exec));
    let output = client.containers(Some(node)).exec(all.boxed()).await?.into_inner();
    Session { output, input, typed }.ready().await
}

impl Input {
    /// Before anything is made for it.
    pub(super) fn check(&self) -> Result<(), Failure> {
        if self.tty && self.stdin && !std::io::stdin().is_terminal() {
            return Err(Failure::usage("the input device is not a TTY: leave out -t"));
        }
        Ok(())
    }
}

impl Session {
    async fn ready(mut self) -> Result<Self, Failure> {
        match self.output.message().await? {
            Some(first) if first.ready => Ok(self),
            Some(_) | None => Err(Failure::new(Exit::General, "the daemon does not say that it listens")),
        }
    }

    /// To the end of the process, or until the keys are pressed that leave it.
    pub(super) async fn follow(self) -> Result<ExitCode, Failure> {
        let Session { mut output, input, typed } = self;
        let raw = if input.tty && input.stdin { Some(Raw::enter()?) } else { None };
        let sizing = input.tty.then(|| tokio::spawn(resize(typed.clone())));
        let (left, mut leaves) = mpsc::channel(1);
        let typing = input.stdin.then(|| tokio::spawn(type_in(typed, input.detach, left)));
        let ended = loop {
            let message = tokio::select! {
                message = output.message() => message,
                Some(()) = leaves.recv() => break Ok(ExitCode::SUCCESS),
            };
            match message {
                Ok(Some(message)) => {
                    if !message.stdout.is_empty() {
                        out::flushed(&message.stdout)?;
                    }
                    if !message.stderr.is_empty() {
                        out::bytes_aside(&message.stderr)?;
                    }
                    if let Some(code) = message.exit_code {
                        break Ok(ExitCode::from(u8::try_from(code.rem_euclid(256)).unwrap_or(u8::MAX)));
                    }
                }
                Ok(None) => {
                    break Err(Failure::new(Exit::General, "the daemon broke off before the process had ended"));
                }
                Err(status) => break Err(status.into()),
            }
        };
        for task in [sizing, typing].into_iter().flatten() {
            task.abort();
        }
        drop(raw);
        ended
    }

    /// For a process that has not been started yet.
    pub(super) fn follow_in_background(self) -> JoinHandle<Result<ExitCode, Failure>> {
        tokio::spawn(self.follow())
    }
}

async fn resize(to: mpsc::Sender<pb::AttachInput>) {
    let mut changes = sizes();
    loop {
        if let Some((rows, columns)) = size() {
            let resize = Some(pb::WindowSize { rows: rows.into(), columns: columns.into() });
            if to.send(pb::AttachInput { resize, ..Default::default() }).await.is_err() {
                return;
            }
        }
        match &mut changes {
            Some(changes) => drop(changes.recv().await),
            None => std::future::pending().await,
        }
    }
}

async fn type_in(to: mpsc::Sender<pb::AttachInput>, mut keys: Keys, left: mpsc::Sender<()>) {
    let mut stdin = tokio::io::stdin();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = stdin.read(&mut piece).await.unwrap_or(0);
        let mut message = pb::AttachInput { stdin_closed: read == 0, ..Default::default() };
        let pressed = keys.press(&piece[..read]);
        let (Pressed::Through(bytes) | Pressed::Leave(bytes)) = &pressed;
        message.stdin.clone_from(bytes);
        let sent = to.send(message).await;
        if matches!(pressed, Pressed::Leave(_)) {
            let _ = left.send(()).await;
            return;
        }
        if read == 0 || sent.is_err() {
            // The process may go on without input; the stream lasts as long as this.
            std::future::pending::<()>().await;
        }
    }
}
