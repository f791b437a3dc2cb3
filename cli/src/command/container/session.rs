//! At a process: what is typed goes in, what it writes comes out, and it ends as it ends.

use futures::StreamExt as _;
use shoal_proto::pb;
use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};
use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::timeout,
};
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
/// For the daemon to hear that we leave.
const LEAVES_WITHIN: Duration = Duration::from_secs(2);

/// What goes in.
#[derive(Debug, Clone, Default)]
pub(super) struct Input {
    pub(super) stdin: bool,
    /// The process has a terminal.
    pub(super) tty: bool,
    pub(super) detach: Keys,
    /// What the process has drawn was seen by somebody else, or by nobody: it shall draw it again.
    pub(super) redraw: bool,
}

/// How a session was over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    pub(super) code: ExitCode,
    /// And not left alone by us.
    pub(super) has_ended: bool,
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
    let first = pb::AttachInput { container: of.id, resize: input.size(), ..Default::default() };
    let all = tokio_stream::once(first).chain(ReceiverStream::new(messages));
    let output = client.containers(Some(of.node)).attach(all).await?.into_inner();
    Session { output, input, typed }.ready().await
}

pub(super) async fn exec(client: &Client, node: u64, start: pb::ExecStart, input: Input) -> Result<Session, Failure> {
    input.check()?;
    let (typed, messages) = mpsc::channel(UNSENT);
    let first = pb::ExecInput { start: Some(start), resize: input.size(), ..Default::default() };
    let as_exec = |i: pb::AttachInput| pb::ExecInput {
        start: None,
        stdin: i.stdin,
        stdin_closed: i.stdin_closed,
        resize: i.resize,
        leave: i.leave,
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

    /// Of the terminal that the process is seen in.
    fn size(&self) -> Option<pb::WindowSize> {
        let (rows, columns) = size().filter(|_| self.tty)?;
        Some(pb::WindowSize { rows: rows.into(), columns: columns.into() })
    }
}

impl Session {
    async fn ready(mut self) -> Result<Self, Failure> {
        match self.output.message().await? {
            Some(first) if first.ready => Ok(self),
            Some(pb::ProcessOutput { exit_code, unstarted, .. }) if !unstarted.is_empty() => {
                Err(Failure::new(Exit::of_unstarted(exit_code), unstarted))
            }
            Some(_) | None => Err(Failure::new(Exit::General, "the daemon does not say that it listens")),
        }
    }

    /// To the end of the process, or until the keys are pressed that leave it.
    pub(super) async fn follow(self) -> Result<Over, Failure> {
        let left_alone = |code| Ok(Over { code, has_ended: false });
        let Session { mut output, input, typed } = self;
        let mut raw = if input.tty && input.stdin { Some((Raw::enter()?, Killed::listen()?)) } else { None };
        let sizing = input.tty.then(|| tokio::spawn(resize(typed.clone(), input.redraw)));
        let (left, mut leaves) = mpsc::channel(1);
        // Without a terminal there are no keys, but bytes.
        let keys = input.tty.then_some(input.detach);
        let typing = input.stdin.then(|| tokio::spawn(type_in(typed, keys, left)));
        let ended = loop {
            let message = tokio::select! {
                // That we leave is known before the stream ends for it.
                biased;
                Some(()) = leaves.recv() => {
                    // It says no more than that it has heard so.
                    let heard = async { while let Ok(Some(_)) = output.message().await {} };
                    let _ = timeout(LEAVES_WITHIN, heard).await;
                    break left_alone(ExitCode::SUCCESS);
                }
                code = killed(&mut raw) => break left_alone(ExitCode::from(code)),
                message = output.message() => message,
            };
            match message {
                Ok(Some(message)) => {
                    match out::both(&message.stdout, &message.stderr) {
                        // Nobody reads it: nothing is left to be done here.
                        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => break left_alone(ExitCode::SUCCESS),
                        Err(e) => break Err(e.into()),
                        Ok(()) => {}
                    }
                    if let Some(code) = message.exit_code {
                        let code = ExitCode::from(u8::try_from(code.rem_euclid(256)).unwrap_or(u8::MAX));
                        break Ok(Over { code, has_ended: true });
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
    pub(super) fn follow_in_background(self) -> JoinHandle<Result<Over, Failure>> {
        tokio::spawn(self.follow())
    }
}

/// To the end; what we are told to do by signals is the container's to do, if `pass_on`.
pub(super) async fn pass_signals(
    client: &Client,
    of: &pb::Container,
    mut following: JoinHandle<Result<Over, Failure>>,
    pass_on: bool,
) -> Result<Over, Failure> {
    let ended = |ended: Result<Result<Over, Failure>, _>| {
        ended.map_err(|e: tokio::task::JoinError| Failure::new(Exit::General, e.to_string()))?
    };
    if !pass_on {
        return ended(following.await);
    }
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (mut hang_up, mut quit) = (signal(SignalKind::hangup())?, signal(SignalKind::quit())?);
    loop {
        let name = tokio::select! {
            done = &mut following => return ended(done),
            _ = interrupt.recv() => "INT",
            _ = terminate.recv() => "TERM",
            _ = hang_up.recv() => "HUP",
            _ = quit.recv() => "QUIT",
        };
        let request = pb::SignalRequest { container: of.id, signal: name.to_owned() };
        // It may have ended this moment.
        let _ = client.containers(Some(of.node)).signal(request).await;
    }
}

/// Those by which we would end with our terminal left as the process needs it.
struct Killed {
    terminate: Signal,
    hang_up: Signal,
    interrupt: Signal,
    quit: Signal,
}

impl Killed {
    fn listen() -> Result<Self, Failure> {
        let [terminate, hang_up, interrupt, quit] =
            [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt(), SignalKind::quit()].map(signal);
        Ok(Self { terminate: terminate?, hang_up: hang_up?, interrupt: interrupt?, quit: quit? })
    }
}

/// What we end with then, as a shell would tell it. Never without a terminal in our hands.
async fn killed(raw: &mut Option<(Raw, Killed)>) -> u8 {
    let Some((_, signals)) = raw else { return std::future::pending().await };
    let number = tokio::select! {
        _ = signals.terminate.recv() => nix::libc::SIGTERM,
        _ = signals.hang_up.recv() => nix::libc::SIGHUP,
        _ = signals.interrupt.recv() => nix::libc::SIGINT,
        _ = signals.quit.recv() => nix::libc::SIGQUIT,
    };
    u8::try_from(128 + number).unwrap_or(u8::MAX)
}

async fn resize(to: mpsc::Sender<pb::AttachInput>, redraw: bool) {
    let mut changes = sizes();
    if let Some((rows, columns)) = size().filter(|_| redraw) {
        // A size that is the same is no news to the process.
        let resize = Some(pb::WindowSize { rows: u32::from(rows) + 1, columns: u32::from(columns) + 1 });
        let _ = to.send(pb::AttachInput { resize, ..Default::default() }).await;
    }
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

async fn type_in(to: mpsc::Sender<pb::AttachInput>, mut keys: Option<Keys>, left: mpsc::Sender<()>) {
    let mut stdin = tokio::io::stdin();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = stdin.read(&mut piece).await.unwrap_or(0);
        let mut message = pb::AttachInput { stdin_closed: read == 0, ..Default::default() };
        let pressed = match &mut keys {
            Some(keys) => keys.press(&piece[..read]),
            None => Pressed::Through(piece[..read].to_vec()),
        };
        let (Pressed::Through(bytes) | Pressed::Leave(bytes)) = &pressed;
        message.stdin.clone_from(bytes);
        message.leave = matches!(pressed, Pressed::Leave(_));
        let leaves = message.leave;
        if leaves {
            let _ = left.send(()).await;
        }
        let sent = to.send(message).await;
        if leaves {
            return;
        }
        if read == 0 || sent.is_err() {
            // The process may go on without input; the stream lasts as long as this.
            std::future::pending::<()>().await;
        }
    }
}
