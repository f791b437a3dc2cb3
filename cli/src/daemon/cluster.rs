//! This host's place in a cluster: none, or one. `init`, `join` and `leave` change it, one at a time.

use anyhow::Context;
use futures::{StreamExt as _, stream::FuturesUnordered};
use shoal_agent::{Agent, Host, Membership};
use shoal_common::{
    Invalid, LogIndex, NodeId, Timestamp,
    node::{Availability, NodeDescription, Role},
};
use shoal_manager::{Fault, Heard, Level, Manager, Seat, access, authority, bootstrap, dispatcher};
use shoal_proto::pb::{
    self, certificate_authority_client::CertificateAuthorityClient, dispatcher_client::DispatcherClient,
};
use shoal_rt::{
    Credentials, Expect, Fatal, Identity, Incoming, JoinToken, Tasks, connect::root_cause, durable, incoming,
    token::CaDigest,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Mutex, watch},
};
use tonic::{Status, transport::Channel};

use super::{
    config::Config,
    joined::{Joined, Stage},
    joining,
    role::{Keeper, remove_dir},
};

/// How long parts that end may take to do so.
const END_LIMIT: Duration = Duration::from_secs(5);
/// One manager's turn, when any of them will do.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
/// Of one manager over the next.
const HEAD_START: Duration = Duration::from_millis(250);
/// Joining takes a round of Raft on the other side.
const JOIN_LIMIT: Duration = Duration::from_secs(15);

/// For the leader to reach a new manager, over an election if there is one.
const REACHED_LIMIT: Duration = Duration::from_secs(15);

/// What a manager is given to open its log before its users hear that it is none.
const SEAT_LIMIT: Duration = Duration::from_secs(10);

/// What the managers are given to write that a host leaves.
const DEPART_LIMIT: Duration = Duration::from_secs(3);
/// For the others to let go of a manager that leaves.
const STEP_DOWN_LIMIT: Duration = Duration::from_secs(15);
/// What the tasks of a host that leaves are given to end.
const MOVE_LIMIT: Duration = Duration::from_secs(30);
/// To whoever asks a host that is in no cluster any more.
pub(crate) const REMOVED: &str = "this host was removed from its cluster: run shoal leave";

pub(crate) struct Cluster {
    config: Config,
    host: Host,
    seat: watch::Sender<Option<Manager>>,
    seats: Seat,
    heard: Heard,
    fatal: Fatal,
    active: Mutex<Option<Active>>,
}

/// In a cluster.
struct Active {
    credentials: Credentials,
    control_addr: SocketAddr,
    agent: Agent,
    tasks: Tasks,
}

/// `shoal init`, parsed.
pub(crate) struct Init {
    pub(crate) advertise_addr: String,
    pub(crate) address_pools: Vec<ipnet::Ipv4Net>,
    pub(crate) subnet_prefix_len: u8,
    pub(crate) data_path_port: Option<u16>,
    pub(crate) availability: Availability,
}

pub(crate) struct Initialised {
    pub(crate) node: NodeId,
    pub(crate) worker_token: JoinToken,
    pub(crate) manager_token: JoinToken,
    pub(crate) control_addr: SocketAddr,
}

/// What `shoal info` says of the cluster side.
pub(crate) struct Standing {
    pub(crate) node: NodeId,
    pub(crate) role: Role,
    pub(crate) control_addr: SocketAddr,
    pub(crate) expires: Timestamp,
    pub(crate) agent: shoal_agent::AgentStatus,
}

impl Cluster {
    pub(crate) fn new(config: Config, host: Host, fatal: Fatal) -> Self {
        let (seat, seats) = shoal_manager::seat();
        Self { config, host, seat, seats, heard: Heard::default(), fatal, active: Mutex::new(None) }
    }

    pub(crate) fn seats(&self) -> Seat {
        self.seats.clone()
    }

    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Until a host of this role has read its log, which may be long. Whoever asks meanwhile for what only a manager
    /// answers waits, too.
    pub(crate) async fn settle(&self, role: Option<Role>) {
        if role == Some(Role::Manager) {
            let _ = tokio::time::timeout(SEAT_LIMIT, self.seats.settled()).await;
        }
        self.seats.set_known();
    }

    /// Goes on where the daemon stopped, as what the host is in its cluster; nothing to do for one in none.
    pub(crate) async fn resume(&self) -> anyhow::Result<Option<Role>> {
        let mut active = self.active.lock().await;
        let identity = Identity::load(&self.config.identity()).context("cannot read this host's identity")?;
        let path = self.config.joined();
        let joined = Joined::find(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let begun = joined.as_ref().is_some_and(|joined| joined.stage != Stage::Member);
        let (identity, joined) = match (identity, joined) {
            (Some(identity), Some(joined)) if joined.stage != Stage::Leaving => (identity, joined),
            (Some(_), Some(_)) => {
                self.clear().await.map_err(anyhow::Error::msg)?;
                return Ok(None);
            }
            (Some(_), None) => {
                anyhow::bail!("{} is missing, and this host has an identity: restore it", path.display())
            }
            // What a crash in the middle of `init`, `join` or `leave` has left is nobody's.
            (None, joined) if begun || (joined.is_none() && !self.config.raft_dir().exists()) => {
                if let Err(error) = self.clear().await {
                    tracing::warn!(error, "what an earlier cluster left on this host is not all gone");
                }
                return Ok(None);
            }
            (None, _) => {
                // A file system that is not mounted yet, or a file that somebody moved: what is here may be all that a
                // cluster has.
                let why = format!(
                    "E-IDENTITY-MISSING: {} is missing, and this host is in a cluster: {} or {} is there. Nothing was \
                     touched. Way back: restore the file and start the daemon again, or give this host up (shoal leave --force)",
                    self.config.identity().display(),
                    path.display(),
                    self.config.raft_dir().display(),
                );
                tracing::error!(why, "this host does not know who it is");
                self.seats.set_fault(Some(Fault { why, lasting: true }));
                return Ok(None);
            }
        };
        let listener = incoming::listen(self.config.listen_addr).await?;
        let description = self.describe(joined.control_addr).await?;
        let role = identity.role;
        *active = Some(self.activate(Credentials::new(identity), joined, description, listener, None));
        Ok(Some(role))
    }

    pub(crate) async fn standing(&self) -> Option<Standing> {
        self.active.lock().await.as_ref().map(|active| {
            let identity = active.credentials.current();
            Standing {
                node: identity.node,
                role: identity.role,
                control_addr: active.control_addr,
                expires: identity.expires,
                agent: active.agent.status(),
            }
        })
    }

    pub(crate) async fn init(&self, init: Init) -> Result<Initialised, Status> {
        let mut active = self.active.lock().await;
        self.not_yet_in(active.as_ref())?;
        let control_addr = self.control_addr(&init.advertise_addr).await?;
        let listener = self.listen().await?;
        let description = self.describe(control_addr).await.map_err(failed)?;

        remove_dir(&self.config.raft_dir()).map_err(failed)?;
        self.host.forget_memory().map_err(failed)?;
        let incarnation = bootstrap::new_incarnation();
        let mut joined = Joined {
            control_addr,
            managers: BTreeMap::from([(bootstrap::FIRST, control_addr)]),
            seated: Some(incarnation.clone()),
            stage: Stage::Entering,
        };
        joined.store(&self.config.joined()).map_err(failed)?;
        let founding = bootstrap::Founding {
            incarnation,
            description: description.clone(),
            address_pools: init.address_pools,
            subnet_prefix_len: init.subnet_prefix_len,
            data_path_port: init.data_path_port.unwrap_or(self.config.data_path_port),
            availability: init.availability,
        };
        let founded = bootstrap::found(&self.config.raft_dir(), founding).await.map_err(|error| {
            // Nothing is left of it.
            let _ = remove_dir(&self.config.raft_dir());
            let _ = durable::remove(&self.config.joined());
            Status::from(error)
        })?;
        let identity = founded.manager.credentials.current();
        let node = identity.node;
        // With the identity the cluster is there.
        identity.store(&self.config.identity()).map_err(failed)?;
        joined.stage = Stage::Member;
        joined.store(&self.config.joined()).map_err(failed)?;
        let credentials = founded.manager.credentials.clone();
        *active = Some(self.activate(credentials, joined, description, listener, Some(founded.manager)));
        Ok(Initialised { node, worker_token: founded.worker_token, manager_token: founded.manager_token, control_addr })
    }

    pub(crate) async fn join(
        &self,
        token: &JoinToken,
        remote: &str,
        advertise_addr: &str,
        wanted: Availability,
    ) -> Result<(NodeId, Role), Status> {
        let mut active = self.active.lock().await;
        self.not_yet_in(active.as_ref())?;
        let manager = resolve(remote).await?;
        let control_addr = self.control_addr(advertise_addr).await?;
        let listener = self.listen().await?;
        let description = self.describe(control_addr).await.map_err(failed)?;
        let (key, signing_request_der) = joining::key(&self.config.joining(), token).map_err(failed)?;
        let request = pb::JoinRequest {
            secret: token.secret.clone(),
            signing_request_der,
            description: Some(description.clone().into()),
            availability: pb::Availability::from(wanted).into(),
        };
        let asked = async {
            let channel = shoal_rt::connect::connect_joiner(manager, token.ca).await.map_err(|e| {
                let why = root_cause(&e);
                Status::unavailable(if why.contains(shoal_rt::tls::WRONG_CA) {
                    format!("{remote} is not a manager of the token's cluster: {}", shoal_rt::tls::WRONG_CA)
                } else {
                    format!("cannot reach a manager at {remote}: {why}")
                })
            })?;
            CertificateAuthorityClient::new(channel).join(request).await
        };
        let reply = tokio::time::timeout(JOIN_LIMIT, asked)
            .await
            .map_err(|_| Status::deadline_exceeded(format!("{remote} did not answer within {JOIN_LIMIT:?}")))?
            // It may say "this host", and means the other one.
            .map_err(|status| Status::new(status.code(), format!("{remote} refuses: {}", status.message())))?
            .into_inner();

        let managers = shoal_proto::convert::managers(&reply.managers)
            .map_err(|e| Status::internal(format!("{remote} answers what is not understood: {e}")))?;
        let identity = Identity::new(key, reply.certificate_der, reply.ca_der).map_err(failed)?;
        if CaDigest::of(&identity.ca) != token.ca {
            return Err(Status::unavailable(format!("{remote} answers with the certificate of another CA")));
        }
        let mut joined = Joined { control_addr, managers, seated: None, stage: Stage::Entering };
        self.host.forget_memory().map_err(failed)?;
        remove_dir(&self.config.raft_dir()).map_err(failed)?;
        joined.store(&self.config.joined()).map_err(failed)?;
        identity.store(&self.config.identity()).map_err(failed)?;
        joined.stage = Stage::Member;
        joined.store(&self.config.joined()).map_err(failed)?;
        joining::forget(&self.config.joining());
        let who = (identity.node, identity.role);
        let present = self.activate(Credentials::new(identity), joined, description, listener, None);
        if who.1 == Role::Manager && !self.is_heard().await {
            // Half a manager is worse than none: it would count among the managers, and never vote.
            withdraw(&present.credentials, &present.agent).await;
            present.end().await;
            self.clear().await.map_err(|why| failed(anyhow::Error::msg(why)))?;
            return Err(Status::unavailable(format!(
                "no manager has reached this host at {control_addr} within {} s, so it has left the cluster again: open \
                 that port to all managers, or name another address with --advertise-addr",
                REACHED_LIMIT.as_secs()
            )));
        }
        *active = Some(present);
        Ok(who)
    }

    pub(crate) async fn leave(&self, force: bool) -> Result<(), Status> {
        let (credentials, agent) = {
            let active = self.active.lock().await;
            let Some(present) = active.as_ref() else {
                return match self.seats.fault() {
                    None => Err(Status::failed_precondition("this host is in no cluster")),
                    Some(fault) if !force => Err(Status::failed_precondition(fault.why)),
                    Some(_) => self.give_up().await,
                };
            };
            (present.credentials.clone(), present.agent.clone())
        };
        let identity = credentials.current();
        let removed = agent.status().removed;
        if identity.role == Role::Manager && !force && !removed {
            return Err(Status::failed_precondition(format!(
                "this host is a manager: demote it first (shoal node demote {}), or leave with --force, which does so \
                 itself where there is a quorum",
                identity.node
            )));
        }
        if !removed {
            if identity.role == Role::Manager {
                self.step_down(&credentials).await;
            }
            depart(&credentials, &agent).await;
        }
        let mut active = self.active.lock().await;
        match active.take_if(|present| present.credentials.current().node == identity.node) {
            Some(present) => present.end().await,
            // Somebody else has led it out meanwhile.
            None => return Ok(()),
        }
        self.clear().await.map_err(|why| failed(anyhow::Error::msg(why)))
    }

    /// A manager that simply went would count as a voter for ever: of two, the other one could decide nothing any more.
    /// So it becomes a worker first, if there is a quorum to say so.
    async fn step_down(&self, credentials: &Credentials) {
        let stepped = async {
            self.seats.manager().map_err(|status| status.message().to_owned())?.step_down().await?;
            // Its certificate says so once the others have let it go.
            let mut now = credentials.changes();
            now.wait_for(|identity| identity.role == Role::Worker).await.map(drop).map_err(|e| e.to_string())
        };
        let why = match tokio::time::timeout(STEP_DOWN_LIMIT, stepped).await {
            Ok(Ok(())) => return,
            Ok(Err(why)) => why,
            Err(_) => format!("not within {STEP_DOWN_LIMIT:?}"),
        };
        tracing::warn!(why, "this manager leaves without having become a worker");
    }

    /// Takes everything apart that makes this host a member. A daemon that is cut off in between goes on with it.
    async fn clear(&self) -> Result<(), String> {
        let text = |e: &dyn std::fmt::Display| format!("{e:#}");
        if let Some(joined) = Joined::find(&self.config.joined()).map_err(|e| text(&e))? {
            let leaving = Joined { stage: Stage::Leaving, seated: None, ..joined };
            leaving.store(&self.config.joined()).map_err(|e| text(&e))?;
        }
        // Without it a crash leaves a host in no cluster, not a double.
        durable::remove(&self.config.identity()).map_err(|e| text(&e))?;
        remove_dir(&self.config.raft_dir()).map_err(|e| text(&e))?;
        self.host.clear().await.map_err(|e| text(&e))?;
        durable::remove(&self.config.joined()).map_err(|e| text(&e))
    }

    /// A host that does not know who it is leaves whatever it was in. Its log is kept aside.
    async fn give_up(&self) -> Result<(), Status> {
        let dir = self.config.raft_dir();
        if dir.exists() {
            let aside = durable::set_aside(&dir).map_err(failed)?;
            tracing::warn!(kept = %aside.display(), "the log of this host is kept aside");
        }
        self.clear().await.map_err(|why| failed(anyhow::Error::msg(why)))?;
        self.seats.set_fault(None);
        Ok(())
    }

    fn not_yet_in(&self, active: Option<&Active>) -> Result<(), Status> {
        match (active, self.seats.fault()) {
            (None, None) => Ok(()),
            (None, Some(fault)) => Err(Status::failed_precondition(fault.why)),
            (Some(active), _) => Err(Status::failed_precondition(format!(
                "this host is in a cluster already, as {}: run shoal leave first",
                active.credentials.current().node
            ))),
        }
    }

    /// Whether the leader has reached this new manager: its log has begun, and only the leader can have begun it.
    async fn is_heard(&self) -> bool {
        let heard = async {
            let mut seat = self.seat.subscribe();
            let seated = seat.wait_for(Option::is_some).await.ok().and_then(|seat| seat.clone());
            let Some(manager) = seated else { return };
            let mut states = manager.consensus.state();
            // An error: the member has ended, and will not be reached.
            if states.wait_for(|state| state.applied > LogIndex(0)).await.is_err() {
                std::future::pending().await
            }
        };
        tokio::time::timeout(REACHED_LIMIT, heard).await.is_ok()
    }

    /// A line to some manager, in this host's name.
    pub(crate) async fn to_a_manager(&self) -> Result<Channel, Status> {
        let (credentials, managers) = {
            let active = self.active.lock().await;
            let Some(active) = active.as_ref() else {
                return Err(Status::failed_precondition(
                    "this host is in no cluster: run shoal init, or shoal join, first",
                ));
            };
            if active.agent.status().removed {
                return Err(Status::failed_precondition(REMOVED));
            }
            (active.credentials.clone(), active.agent.managers())
        };
        line(&credentials, managers).await
    }

    /// Whether the managers' log has space on this host.
    pub(crate) fn space_warning(&self) -> String {
        let dir = self.config.raft_dir();
        match self.seats.manager().map(|manager| manager.consensus.space()) {
            Ok(Level::Low(percent)) => {
                format!("the disk of the managers' log is {percent} % full: free some space below {}", dir.display())
            }
            Ok(Level::Full) => format!(
                "E-DISK-FULL: the disk of the managers' log is full, and this manager does not lead: free some space below {}",
                dir.display()
            ),
            Ok(Level::Enough) | Err(_) => String::new(),
        }
    }

    /// What this host itself knows of its containers.
    pub(crate) async fn own_containers(&self) -> Option<pb::ListContainersReply> {
        self.active.lock().await.as_ref()?.agent.containers()
    }

    /// A line to that host, in this manager's name; none if it is this one.
    pub(crate) async fn to_node(&self, node: NodeId) -> Result<Option<Channel>, Status> {
        if self.standing().await.is_some_and(|standing| standing.node == node) {
            return Ok(None);
        }
        let manager = self.seats.manager()?;
        let addr = manager.consensus.state().borrow().nodes.get(&node).map(|n| n.description.control_addr);
        let addr = addr.ok_or_else(|| Status::not_found(format!("there is no {node}")))?;
        let why = |why| Status::unavailable(format!("{node} cannot be reached: {why}"));
        line_to(&manager.credentials, node, addr).await.map(Some).map_err(why)
    }

    /// SIGTERM: containers and data plane stay.
    pub(crate) async fn end(&self) {
        if let Some(active) = self.active.lock().await.take() {
            active.end().await;
        }
    }

    fn activate(
        &self,
        credentials: Credentials,
        joined: Joined,
        description: NodeDescription,
        listener: TcpListener,
        opened: Option<Manager>,
    ) -> Active {
        let tasks = Tasks::new(self.fatal.clone());
        let membership =
            Membership { credentials: credentials.clone(), description, managers: joined.managers.clone() };
        let agent = Agent::start(self.host.clone(), membership, &tasks);
        let (assigned, first) = (agent.node(), joined.managers);
        let is_manager = move |node: NodeId| match &*assigned.borrow() {
            Some(told) => told.managers.contains_key(&node),
            None => first.contains_key(&node),
        };
        let known = access::Known::new(self.seats.clone(), Arc::new(is_manager));
        let incoming = Incoming::new(listener, credentials.clone(), tasks.shutdown());
        let departed = access::close_departed(known.clone(), incoming.connections());
        let ended = tasks.shutdown();
        tasks.forever("closing of connections", async move {
            ended.run_until_cancelled(departed).await;
        });
        let server = incoming::server()
            .layer(access::Guard::new(known))
            .add_service(self.seats.raft_service())
            .add_service(dispatcher::service(self.seats.clone(), self.heard.clone(), &tasks))
            .add_service(authority::service(self.seats.clone()))
            .add_service(shoal_manager::api::for_hosts(self.seats.clone()))
            .add_service(shoal_agent::logs_service(self.host.clone()))
            .add_service(shoal_agent::containers_service(self.host.clone()))
            .serve_with_incoming_shutdown(incoming, tasks.shutdown().cancelled_owned());
        let ended = tasks.shutdown();
        tasks.forever("server for other hosts", async move {
            tokio::select! {
                done = server => done,
                // Streams that nobody reads any more do not keep the daemon.
                () = async { ended.cancelled().await; tokio::time::sleep(Duration::from_millis(300)).await } => Ok(()),
            }
        });
        let keeper = Keeper {
            config: self.config.clone(),
            credentials: credentials.clone(),
            agent: agent.clone(),
            seat: self.seat.clone(),
            seats: self.seats.clone(),
            heard: self.heard.clone(),
            tasks: tasks.clone(),
        };
        tasks.forever("keeper of the role", keeper.run(opened));
        Active { credentials, control_addr: joined.control_addr, agent, tasks }
    }

    async fn describe(&self, control_addr: SocketAddr) -> anyhow::Result<NodeDescription> {
        let hostname = nix::unistd::gethostname().context("cannot read the host's name")?;
        let described = self.host.describe(hostname.to_string_lossy().into_owned(), control_addr, control_addr.ip());
        Ok(NodeDescription { default_bridge: self.config.default_bridge.clone(), ..described.await? })
    }

    async fn listen(&self) -> Result<TcpListener, Status> {
        incoming::listen(self.config.listen_addr)
            .await
            .map_err(|e| Status::failed_precondition(format!("cannot listen on {}: {}", e.addr, e.source)))
    }

    /// From the command line, else from the configuration, else from the default route.
    async fn control_addr(&self, given: &str) -> Result<SocketAddr, Status> {
        let port = self.config.listen_addr.port();
        if !given.is_empty() {
            return given
                .parse::<SocketAddr>()
                .or_else(|_| given.parse::<IpAddr>().map(|ip| (ip, port).into()))
                .map_err(|_| {
                    let expected = "an IP address of this host, or IP:PORT";
                    Status::invalid_argument(Invalid::new("advertise-addr", given, expected).to_string())
                });
        }
        match self.config.advertise_addr {
            Some(ip) => Ok((ip, port).into()),
            None => {
                let ip = self.host.kernel().default_advertise_addr().await.map_err(failed)?;
                Ok((ip, port).into())
            }
        }
    }
}

impl Active {
    async fn end(self) {
        let late = self.tasks.end(END_LIMIT).await;
        if !late.is_empty() {
            tracing::warn!(?late, "not everything ended within {END_LIMIT:?}");
        }
    }
}

/// Has what runs here moved elsewhere before it ends, so that nobody is sent to what is gone. A host that reaches
/// no manager, or whose managers have no quorum, leaves all the same.
async fn depart(credentials: &Credentials, agent: &Agent) {
    let told = async |gone| {
        let mut last = Status::unavailable("no manager is known");
        // One that has just become or ceased to be a manager refuses; another may not.
        for (node, addr) in agent.managers() {
            let asked = async {
                let channel = line(credentials, BTreeMap::from([(node, addr)])).await?;
                DispatcherClient::new(channel).leave(pb::DepartureRequest { gone }).await
            };
            match tokio::time::timeout(DEPART_LIMIT, asked).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(status)) => last = status,
                Err(_) => last = Status::deadline_exceeded(format!("{node} does not answer")),
            }
        }
        Err(last)
    };
    if let Err(status) = told(false).await {
        tracing::warn!(told = status.message(), "no manager knows that this host leaves");
        return;
    }
    if tokio::time::timeout(MOVE_LIMIT, agent.without_tasks()).await.is_err() {
        tracing::warn!("what runs here has not ended within {MOVE_LIMIT:?}");
    }
    if let Err(status) = told(true).await {
        tracing::warn!(told = status.message(), "no manager knows that this host has left");
    }
}

/// Tells the managers that a host which has just joined is none of them after all.
async fn withdraw(credentials: &Credentials, agent: &Agent) {
    let told = async {
        let channel = line(credentials, agent.managers()).await?;
        DispatcherClient::new(channel).leave(pb::DepartureRequest { gone: true }).await
    };
    match tokio::time::timeout(DEPART_LIMIT, told).await {
        Ok(Ok(_)) => {}
        Ok(Err(status)) => tracing::warn!(told = status.message(), "no manager knows that this host has left"),
        Err(_) => tracing::warn!("no manager knows that this host has left: none answers"),
    }
}

/// To the first manager that answers. Those that are silent keep nobody from the others.
async fn line(credentials: &Credentials, managers: BTreeMap<NodeId, SocketAddr>) -> Result<Channel, Status> {
    let mut last = "none is known".to_owned();
    let mut untried = managers.into_iter();
    let mut tried = FuturesUnordered::new();
    loop {
        match untried.next() {
            Some((node, addr)) => tried
                .push(async move { line_to(credentials, node, addr).await.map_err(|why| format!("{node}: {why}")) }),
            None if tried.is_empty() => {
                return Err(Status::unavailable(format!("no manager can be reached: {last}")));
            }
            None => {}
        }
        let patience = if untried.len() == 0 { CONNECT_LIMIT } else { HEAD_START };
        match tokio::time::timeout(patience, tried.next()).await {
            Ok(Some(Ok(channel))) => return Ok(channel),
            Ok(Some(Err(why))) => last = why,
            Ok(None) | Err(_) => {}
        }
    }
}

async fn line_to(credentials: &Credentials, node: NodeId, addr: SocketAddr) -> Result<Channel, String> {
    let connecting = shoal_rt::connect(addr, Expect::Node(node), credentials);
    match tokio::time::timeout(CONNECT_LIMIT, connecting).await {
        Ok(connected) => connected.map_err(|error| root_cause(&error)),
        Err(_) => Err(format!("it does not answer at {addr}")),
    }
}

async fn resolve(remote: &str) -> Result<SocketAddr, Status> {
    let expected = "HOST:PORT of a manager, as printed by 'shoal join-token'";
    let with_port = match remote.rsplit_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok() => remote.to_owned(),
        Some(_) => return Err(Status::invalid_argument(Invalid::new("remote", remote, expected).to_string())),
        None => format!("{remote}:{}", super::config::DEFAULT_PORT),
    };
    let found = tokio::net::lookup_host(&with_port).await;
    let found =
        found.map_err(|e| Status::unavailable(format!("cannot find {remote:?}, HOST:PORT of a manager: {e}")))?;
    let none = || Status::unavailable(format!("cannot find {remote:?}, HOST:PORT of a manager: it has no address"));
    found.into_iter().next().ok_or_else(none)
}

/// Something on this host is not as it must be; the sentence says what, with its causes.
pub(crate) fn failed(error: impl Into<anyhow::Error>) -> Status {
    Status::failed_precondition(format!("{:#}", error.into()))
}
