//! Clients that create and remove networks, each request with an id of its own, while something goes wrong.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use rand::Rng as _;
use shoal_proto::pb::{self, control_client::ControlClient};
use tokio::{net::UnixStream, runtime::Runtime, task::JoinSet};
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint, Uri},
};

use super::history::{History, Life, Listed, Outcome};

/// One try at one manager. The manager itself gives up a write after 5 s.
const ONE_TRY: Duration = Duration::from_secs(6);
/// How long a client repeats a request whose fate it does not know.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two requests of a client, so that what is measured is the cluster and not this machine's two cores.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two tries of one request.
const RETRY: Duration = Duration::from_millis(25);
/// Of the largest entries.
const HEAVY_BYTES: usize = 24 << 10;
/// A list of every network.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Clients at work. Dropping it ends them; [`Load::stop`] also tells what they did.
#[derive(Debug)]
pub struct Load {
    runtime: Runtime,
    stopping: Arc<AtomicBool>,
    history: Arc<Mutex<History>>,
    clients: JoinSet<()>,
}

impl Load {
    /// `clients` clients, spread over the daemons that listen at `sockets`; each goes on to the next one when its own
    /// does not answer. `run` tells the names of one run from those of another.
    pub fn start(run: usize, clients: usize, sockets: &[PathBuf]) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (stopping, history) = (Arc::<AtomicBool>::default(), Arc::<Mutex<History>>::default());
        let sockets: Vec<Channel> = {
            let _inside = runtime.enter();
            sockets.iter().map(|socket| channel(socket)).collect()
        };
        let mut working = JoinSet::new();
        for client in 0..clients {
            let client = Client {
                names: format!("r{run}-c{client}"),
                managers: sockets.iter().cycle().skip(client).take(sockets.len()).cloned().collect(),
                stopping: Arc::clone(&stopping),
                history: Arc::clone(&history),
            };
            working.spawn_on(client.work(), runtime.handle());
        }
        Ok(Self { runtime, stopping, history, clients: working })
    }

    /// How many writes were acknowledged until now.
    pub fn acknowledged(&self) -> usize {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).acknowledged.len()
    }

    /// Has every client finish what it is at, and gives what they did.
    pub fn stop(mut self) -> anyhow::Result<History> {
        self.stopping.store(true, Ordering::Relaxed);
        self.runtime.block_on(async {
            while let Some(done) = self.clients.join_next().await {
                done.context("a client broke")?;
            }
            anyhow::Ok(())
        })?;
        Ok(std::mem::take(&mut *self.history.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// All overlay networks, as this daemon's linearizable read gives them.
pub(super) fn list(socket: &Path) -> anyhow::Result<Vec<Listed>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let reply = runtime.block_on(async {
        let mut control = client(&channel(socket));
        tokio::time::timeout(ONE_TRY, control.list_networks(pb::ListNetworksRequest::default())).await
    });
    let networks = reply.context("no answer")?.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
    let mut listed: Vec<Listed> = networks.into_inner().networks.into_iter().filter_map(overlay).collect();
    listed.sort();
    Ok(listed)
}

fn overlay(network: pb::Network) -> Option<Listed> {
    let spec = network.spec?;
    (spec.driver == "overlay").then(|| Listed {
        id: network.id,
        name: spec.name,
        vni: network.vni,
        subnets: network.subnets.into_iter().map(|s| s.subnet).collect(),
    })
}

struct Client {
    names: String,
    managers: Vec<Channel>,
    stopping: Arc<AtomicBool>,
    history: Arc<Mutex<History>>,
}

impl Client {
    async fn work(mut self) {
        let mut number = 0;
        while !self.stopping.load(Ordering::Relaxed) {
            let name = format!("{}-{number}", self.names);
            number += 1;
            let created = self.create(&name).await;
            // Most go again, so that a long run stays the size of a short one.
            let removed = match created {
                Outcome::Acknowledged(_) if number % 4 != 0 => Some(self.remove(&name).await),
                Outcome::Acknowledged(_) | Outcome::Refused | Outcome::Unknown => None,
            };
            self.history().lives.push(Life { name, created, removed });
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn create(&mut self, name: &str) -> Outcome<u64> {
        // Entries of all sizes: stores treat small values and large ones in different ways.
        let weight = if rand::rng().random_ratio(1, 3) { rand::rng().random_range(0..HEAVY_BYTES) } else { 0 };
        let labels = [("weight".to_owned(), "w".repeat(weight))].into();
        let driver = "overlay".to_owned();
        let spec = pb::NetworkSpec { name: name.to_owned(), driver, labels, ..Default::default() };
        let request_id = format!("{:032x}", rand::rng().random::<u128>());
        let request = pb::CreateNetworkRequest { spec: Some(spec), request_id };
        self.until_answered(|mut control, _| {
            let request = request.clone();
            async move { control.create_network(request).await.map(|reply| reply.into_inner().id) }
        })
        .await
    }

    async fn remove(&mut self, name: &str) -> Outcome<()> {
        let request = pb::RemoveNetworkRequest { network: name.to_owned(), node: String::new() };
        self.until_answered(|mut control, repeated| {
            let request = request.clone();
            async move {
                match control.remove_network(request).await {
                    // An earlier try did it. At the first one the network would have been lost.
                    Err(status) if repeated && status.code() == Code::NotFound => Ok(()),
                    done => done.map(drop),
                }
            }
        })
        .await
    }

    /// Asks one manager after the other until one knows the answer. `ask` is told whether it repeats a request.
    async fn until_answered<T, F>(&mut self, ask: impl Fn(ControlClient<Channel>, bool) -> F) -> Outcome<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let begin = Instant::now();
        let mut repeated = false;
        loop {
            let answer = tokio::time::timeout(ONE_TRY, ask(client(&self.managers[0]), repeated)).await;
            match answer {
                Ok(Ok(value)) => {
                    self.history().acknowledged.push(Instant::now());
                    return Outcome::Acknowledged(value);
                }
                Ok(Err(status)) if is_final(&status) => return Outcome::Refused,
                Ok(Err(_)) | Err(_) => {}
            }
            if begin.elapsed() > PATIENCE || self.stopping.load(Ordering::Relaxed) {
                return Outcome::Unknown;
            }
            repeated = true;
            self.managers.rotate_left(1);
            tokio::time::sleep(RETRY).await;
        }
    }

    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cluster's own answer, which no repetition changes.
fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::AlreadyExists | Code::InvalidArgument | Code::NotFound | Code::ResourceExhausted | Code::PermissionDenied
    )
}

fn client(channel: &Channel) -> ControlClient<Channel> {
    ControlClient::new(channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
}

fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    Endpoint::from_static("http://shoal.local").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    }))
}
