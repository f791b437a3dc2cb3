//! The resolver's own process: it answers its daemons, and does what they say.

use nix::fcntl::{Flock, FlockArg};
use shoal_dns::upstream_servers;
use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::{
    ports::Ports,
    served::Served,
    wire::{self, Answer, Ask, BUILD, Frame, Line},
};

/// How often the host's resolv.conf is read again.
const RESOLV_CONF: Duration = Duration::from_secs(10);
/// With nobody to serve, no port and no daemon for so long, it is of no use: its daemon ended before it had begun.
const IDLE: Duration = Duration::from_secs(10);
/// A larger message is decoded on a thread of its own: it would keep a worker from answering names.
const LARGE_BYTES: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot {doing} {}: {source}", path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start: {0}")]
    Start(#[from] io::Error),
}

pub(super) fn run(run_dir: &Path, resolv_conf: &Path) -> Result<(), Error> {
    let failed = |doing, path: PathBuf| move |source| Error::File { doing, path, source };
    let path = super::lock(run_dir);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let Ok(_lock) = Flock::lock(file.map_err(failed("open", path))?, FlockArg::LockExclusiveNonblock) else {
        // Another one serves.
        return Ok(());
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let socket = super::socket(run_dir);
        match std::fs::remove_file(&socket) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", socket)(e)),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&socket).map_err(failed("listen at", socket.clone()))?;
        let mode = Permissions::from_mode(0o600);
        std::fs::set_permissions(&socket, mode).map_err(failed("protect", socket.clone()))?;
        let process = Arc::new(Process::default());
        tokio::select! {
            () = process.quit.cancelled() => {}
            () = process.follow(resolv_conf) => {}
            () = process.useless() => {}
            () = accept(listener, &process) => {}
        }
        let _ = std::fs::remove_file(&socket);
        Ok(())
    });
    runtime.shutdown_background();
    done
}

async fn accept(listener: UnixListener, process: &Arc<Process>) {
    loop {
        match listener.accept().await {
            Ok((daemon, _)) => {
                let process = Arc::clone(process);
                process.daemons.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(async move {
                    if let Err(error) = process.talk(daemon).await {
                        tracing::warn!(%error, "the resolver does not understand its daemon");
                    }
                    process.daemons.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the resolver cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

#[derive(Default)]
struct Process {
    served: Arc<Served>,
    ports: Ports,
    /// Connections of daemons.
    daemons: AtomicUsize,
    quit: CancellationToken,
}

impl Process {
    async fn talk(&self, daemon: UnixStream) -> io::Result<()> {
        let line = Line::from(daemon);
        while let Some(mut frame) = line.receive().await? {
            let (fds, fds_lost) = (std::mem::take(&mut frame.fds), frame.fds_lost);
            let answer = match decoded(frame).await? {
                Ask::Hello => Answer::Hello { version: BUILD.to_owned(), serving: self.served.tasks().await },
                Ask::Ping => Answer::Done,
                Ask::Tell(assignment) => {
                    let served = Arc::clone(&self.served);
                    on_a_thread(move || served.tell(&assignment)).await?;
                    Answer::Done
                }
                Ask::Serve { task, scope, netns } => self.served.serve(task, scope, netns, fds, fds_lost).await,
                Ask::Stop { task } => {
                    self.served.stop(task).await;
                    Answer::Done
                }
                Ask::Hold(ports) => {
                    let closed = self.ports.hold(ports.into_iter().collect()).await;
                    Answer::Held(closed.into_iter().collect())
                }
                Ask::Quit => {
                    let _ = line.send(&wire::encode(&Answer::Done)?, &[]).await;
                    self.quit.cancel();
                    return Ok(());
                }
            };
            if line.send(&wire::encode(&answer)?, &[]).await.is_err() {
                // The daemon has gone without waiting for it.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Returns when it has been so for a while.
    async fn useless(&self) {
        let mut before = false;
        loop {
            tokio::time::sleep(IDLE / 2).await;
            let nobody = self.served.tasks().await.is_empty() && self.ports.is_empty().await;
            let now = self.daemons.load(Ordering::Relaxed) == 0 && nobody;
            if before && now {
                return;
            }
            before = now;
        }
    }

    /// The servers in the host's resolv.conf, as they are now. A file that cannot be read changes nothing.
    async fn follow(&self, resolv_conf: &Path) {
        loop {
            match tokio::fs::read_to_string(resolv_conf).await {
                Ok(text) => {
                    let servers = upstream_servers(&text);
                    self.served.servers.send_if_modified(|before| {
                        let news = *before != servers;
                        *before = servers;
                        news
                    });
                }
                Err(error) => tracing::debug!(%error, path = %resolv_conf.display(), "cannot read resolv.conf"),
            }
            tokio::time::sleep(RESOLV_CONF).await;
        }
    }
}

async fn decoded(frame: Frame) -> io::Result<Ask> {
    if frame.len() <= LARGE_BYTES { frame.decode() } else { on_a_thread(move || frame.decode()).await? }
}

async fn on_a_thread<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(f).await.map_err(io::Error::other)
}
