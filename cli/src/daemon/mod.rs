//! `shoal daemon`: always an agent, a manager too where the cluster wants it.

mod cluster;
mod config;
mod elsewhere;
mod joined;
mod joining;
mod local;
mod role;

use anyhow::{Context, bail};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use shoal_agent::{Host, HostConfig};
use shoal_proto::pb::local_node_server::LocalNodeServer;
use shoal_rt::{Fatal, Tasks};
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::{fs::PermissionsExt, net::UnixStream as StdUnixStream},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
};
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::Server;

use crate::{
    args::daemon::Daemon,
    failure::{Exit, Failure},
};
use cluster::Cluster;
use config::Config;
use elsewhere::Elsewhere;

/// A piece of an image, or a list of every task of a large cluster.
const MAX_MESSAGE_BYTES: usize = 256 << 20;
/// How long calls that are under way may go on after the daemon was asked to end.
const STREAMS_END: Duration = Duration::from_millis(300);

/// Runs until SIGTERM or SIGINT.
pub(crate) fn run(args: &Daemon, socket: &Path) -> Result<(), Failure> {
    shoal_rt::telemetry::init();
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let done = runtime.block_on(async {
        let config = Config::read(args, socket)?;
        serve(config).await
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    done.map_err(|error| Failure::new(Exit::General, format!("{error:#}")))
}

/// The most open files that the daemon asks for; the kernel's own default for a hard limit (`fs.nr_open`). Containers
/// inherit it, and some programs close every descriptor up to their limit one by one.
const OPEN_FILES: u64 = 1 << 20;

/// A shell's soft limit of open files is 1024, and each network namespace of a container takes five.
fn raise_open_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(OPEN_FILES);
        if soft < wanted { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the limit of open files: this host has room for few containers");
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    for dir in [&config.data_dir, &config.run_dir] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    fs::set_permissions(&config.data_dir, Permissions::from_mode(0o700))
        .with_context(|| format!("cannot protect {}", config.data_dir.display()))?;
    let _lock = lock(&config.data_dir)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let host = Host::open(HostConfig {
        data_dir: config.data_dir.clone(),
        run_dir: config.run_dir.clone(),
        cgroup_parent: config.cgroup_parent.clone(),
        // This program, also after its file was replaced by a newer one.
        supervisor: "/proc/self/exe".into(),
        host_ns: None,
        resolv_conf: "/etc/resolv.conf".into(),
    })
    .await?;
    if let Some(bridge) = &config.default_bridge {
        host.may_have_bridge(bridge).await?;
    }
    let tasks = Tasks::new(Fatal::default());
    let cluster = Arc::new(Cluster::new(config.clone(), host, tasks.fatal().clone()));
    let role = cluster.resume().await?;

    let listener = listen(&config.socket)?;
    let beyond: shoal_manager::api::Beyond = {
        let cluster = Arc::clone(&cluster);
        Arc::new(move || {
            let cluster = Arc::clone(&cluster);
            Box::pin(async move { cluster.to_a_manager().await })
        })
    };
    let own: shoal_manager::api::Own = {
        let cluster = Arc::clone(&cluster);
        Arc::new(move || {
            let cluster = Arc::clone(&cluster);
            Box::pin(async move { cluster.own_containers().await })
        })
    };
    let server = Server::builder()
        .add_service(shoal_manager::api::service(cluster.seats()))
        .add_service(shoal_manager::api::local(cluster.seats(), beyond, own))
        .add_service(Elsewhere::new(
            shoal_agent::local_containers_service(cluster.host().clone()),
            Arc::clone(&cluster),
        ))
        .add_service(
            LocalNodeServer::new(local::Local(Arc::clone(&cluster)))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES),
        )
        .serve_with_incoming_shutdown(UnixListenerStream::new(listener), tasks.shutdown().cancelled_owned());
    // Before the log is read, which may take long: this host can say how it is, and let one into its containers.
    tasks.forever("server of the local socket", server);
    cluster.settle(role).await;
    tracing::info!(socket = %config.socket.display(), "ready");
    // Under systemd only; elsewhere it does nothing.
    let _ = sd_notify::notify(true, &[sd_notify::NotifyState::Ready]);

    let failure = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        why = tasks.fatal().reported() => Some(why),
        why = cluster.host().runtime().failed() => Some(why),
        // What the disk holds now, only a daemon that reads it again can know.
        why = shoal_rt::durable::failed() => Some(why),
    };
    tracing::info!("ending; containers and their networks stay");
    tasks.ask_to_end();
    cluster.end().await;
    // What still streams to a client is cut.
    tasks.end(STREAMS_END).await;
    remove_socket(&config.socket);
    match failure {
        Some(why) => bail!("this daemon cannot go on: {why}"),
        None => Ok(()),
    }
}

/// Two daemons on one data directory would undo each other's work.
fn lock(data_dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = data_dir.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| {
        anyhow::anyhow!("{} is locked ({e}): another shoal daemon uses this data directory", path.display())
    })
}

fn listen(socket: &Path) -> anyhow::Result<UnixListener> {
    if let Some(dir) = socket.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    if StdUnixStream::connect(socket).is_ok() {
        bail!("another daemon answers at {}", socket.display());
    }
    remove_socket(socket);
    let listener = UnixListener::bind(socket).with_context(|| format!("cannot listen at {}", socket.display()))?;
    // Whoever may speak here is root on every host of the cluster.
    fs::set_permissions(socket, Permissions::from_mode(0o600))
        .with_context(|| format!("cannot protect {}", socket.display()))?;
    Ok(listener)
}

fn remove_socket(socket: &Path) {
    if let Err(error) = fs::remove_file(socket)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, socket = %socket.display(), "cannot remove the socket");
    }
}
