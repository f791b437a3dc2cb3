//! The agent's line to the managers: one at a time, any of them, and the next one when that one fails.

use rand::seq::SliceRandom;
use shoal_common::{
    Mtu, NodeId,
    assignment::{Assignment, AssignmentDelta, NodeAssignment},
    node::NodeDescription,
};
use shoal_proto::pb::{self, dispatcher_client::DispatcherClient};
use shoal_rt::{Backoff, Credentials, Expect, Removed};
use std::{collections::BTreeMap, future::Future, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};

use crate::{chain, memory::Memory, reconcile::Converged, report::Reports};

/// A manager that takes longer to connect is passed over: hosts of one cluster are near each other, and the node
/// timeout runs meanwhile.
const CONNECT_PATIENCE: Duration = Duration::from_secs(1);
/// Until a manager has said something else.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);
/// What a manager may say.
const HEARTBEAT_PERIODS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(60));
/// A write of the managers: durable on a majority, over an election if there is one.
const REPORT_PATIENCE: Duration = Duration::from_secs(10);
/// So many failures in a row, and the reports are brought to another manager.
const REPORT_ATTEMPTS: usize = 4;
/// Reports that come within this time of each other travel together.
const REPORT_WINDOW: Duration = Duration::from_millis(10);
/// How often the managers' record is compared with what we know.
const COMPARE_AGAIN: Duration = Duration::from_secs(10);
/// After a full round of managers, none of which would do.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LIMIT: Duration = Duration::from_secs(3);
/// For a host that was removed from its cluster and was not told to leave.
const REMOVED_RETRY: Duration = Duration::from_secs(10);
/// How long the word of a minority of the known managers that this host was removed is doubted.
const ONE_WORD: Duration = Duration::from_secs(60);
/// A session that did not last so long was none.
const SETTLED: Duration = Duration::from_secs(2);
/// The largest assignment, in bytes on the wire: some 200,000 endpoints.
const ASSIGNMENT_BYTES: usize = 64 << 20;

/// After this a session begins again, with a handshake and the certificates of then; a little earlier by chance, so that
/// agents that connected together do not come back together. Shorter than managers let a connection grow.
const SESSION_AGE: Duration = Duration::from_secs(50 * 60);

/// How the line is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) connected: bool,
    /// The managers say that this host is none of theirs.
    pub(crate) removed: bool,
}

pub(crate) struct Session {
    pub(crate) credentials: Credentials,
    pub(crate) description: NodeDescription,
    /// As it is now.
    pub(crate) underlay_mtu: watch::Receiver<Mtu>,
    /// Where managers were when this host joined.
    pub(crate) first_managers: BTreeMap<NodeId, SocketAddr>,
    pub(crate) memory: Memory,
    pub(crate) assignment: watch::Sender<Arc<Assignment>>,
    pub(crate) node: watch::Sender<Option<NodeAssignment>>,
    pub(crate) line: watch::Sender<Line>,
    pub(crate) converged: watch::Receiver<Converged>,
    pub(crate) reports: Reports,
}

/// Why a session ended.
#[derive(Debug)]
enum End {
    Shutdown,
    /// The next session begins with a handshake: this host has a new certificate or other things to say of itself, or this
    /// session has come to its age.
    Renewed,
    /// The manager says that this host was removed from the cluster.
    Removed(String),
    Lost(String),
}

impl End {
    fn of(own: NodeId, doing: &str, status: &Status) -> Self {
        let told = format!(
            "{doing}: {}",
            if status.message().is_empty() { chain(status) } else { status.message().to_owned() }
        );
        // Said of another node it would be an answer that went astray, and no reason to end what runs here.
        match Removed::in_status(status) {
            Some(removed) if removed.node == own => End::Removed(told),
            Some(_) | None => End::Lost(told),
        }
    }
}

impl Session {
    /// Talks to managers until `shutdown`.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LIMIT);
        let mut last = None;
        let mut said = String::new();
        // In every round since then a manager has said that this host was removed, and none took it.
        let mut said_since: Option<Instant> = None;
        'rounds: loop {
            let mut removed_by = 0;
            let managers = self.managers(last);
            let known = managers.len();
            for (node, addr) in managers {
                let begun = Instant::now();
                let end = self.with(node, addr, &shutdown).await;
                self.line.send_if_modified(|line| std::mem::take(&mut line.connected));
                last = Some(node);
                match end {
                    End::Shutdown => return,
                    End::Renewed => continue 'rounds,
                    End::Removed(told) => {
                        removed_by += 1;
                        say(&mut said, format!("manager {node} at {addr} refuses this host: {told}"));
                    }
                    End::Lost(told) => {
                        say(&mut said, format!("no session with manager {node} at {addr}: {told}"));
                        if begun.elapsed() > SETTLED {
                            said_since = None;
                            backoff.reset();
                            continue 'rounds;
                        }
                    }
                }
            }
            // A single manager that is wrong, or hostile, does not end what runs on every host whose other managers are
            // out of reach for a moment. Where the others are gone for good, its word counts after a while.
            said_since = (removed_by > 0).then(|| said_since.unwrap_or_else(Instant::now));
            let removed = said_since.is_some_and(|since| 2 * removed_by > known || since.elapsed() >= ONE_WORD);
            if removed {
                self.let_go().await;
                self.line.send_if_modified(|line| !std::mem::replace(&mut line.removed, true));
            }
            let delay = if removed { REMOVED_RETRY } else { backoff.delay() };
            let mut renewed = self.credentials.changes();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(delay) => {}
                _ = renewed.changed() => {}
            }
        }
    }

    fn own(&self) -> NodeId {
        self.credentials.current().node
    }

    /// All known managers in chance order, so that a thousand agents spread; the one that failed us last at the end.
    fn managers(&self, last: Option<NodeId>) -> Vec<(NodeId, SocketAddr)> {
        let told = self.assignment.borrow().node.as_ref().map(|n| n.managers.clone()).filter(|m| !m.is_empty());
        let mut managers: Vec<_> = told.unwrap_or_else(|| self.first_managers.clone()).into_iter().collect();
        managers.shuffle(&mut rand::rng());
        managers.sort_by_key(|(node, _)| Some(*node) == last);
        managers
    }

    /// One session, from connecting to its end.
    async fn with(&self, node: NodeId, addr: SocketAddr, shutdown: &CancellationToken) -> End {
        let (mut renewed, mut underlay) = (self.credentials.changes(), self.underlay_mtu.clone());
        underlay.mark_unchanged();
        let session = async {
            let connecting = shoal_rt::connect(addr, Expect::Node(node), &self.credentials);
            let channel = match timeout(CONNECT_PATIENCE, connecting).await {
                Ok(Ok(channel)) => channel,
                Ok(Err(error)) => return End::Lost(chain(&error)),
                Err(_) => return End::Lost(format!("it does not answer within {} s", CONNECT_PATIENCE.as_secs())),
            };
            let client = DispatcherClient::new(channel).max_decoding_message_size(ASSIGNMENT_BYTES);
            // Whichever ends first ends the session.
            tokio::select! {
                end = self.assignments(client.clone()) => end,
                end = self.heartbeats(client.clone()) => end,
                end = self.report(client) => end,
            }
        };
        let age = SESSION_AGE.mul_f64(rand::random_range(0.75..1.0));
        tokio::select! {
            () = shutdown.cancelled() => End::Shutdown,
            _ = renewed.changed() => End::Renewed,
            () = sleep(age) => End::Renewed,
            // What a host says of itself it says when a session begins.
            Ok(()) = underlay.changed() => End::Renewed,
            end = session => end,
        }
    }

    async fn assignments(&self, mut client: DispatcherClient<Channel>) -> End {
        let underlay_mtu = *self.underlay_mtu.borrow();
        let description = NodeDescription { underlay_mtu, ..self.description.clone() };
        let request = pb::AssignmentsRequest {
            description: Some(description.into()),
            have_generation: self.assignment.borrow().generation.0,
        };
        let mut stream = match client.assignments(request).await {
            Ok(reply) => reply.into_inner(),
            Err(status) => return End::of(self.own(), "cannot ask for assignments", &status),
        };
        loop {
            let message = match stream.message().await {
                Ok(Some(message)) => message,
                Ok(None) => return End::Lost("it closed the stream of assignments".to_owned()),
                Err(status) => return End::of(self.own(), "the stream of assignments broke", &status),
            };
            if let Err(told) = self.take(message).await {
                return End::Lost(told);
            }
            self.line.send_if_modified(|line| {
                let now = Line { connected: true, removed: false };
                std::mem::replace(line, now) != now
            });
        }
    }

    /// Folds a message into the assignment, remembers that and makes it known.
    async fn take(&self, message: pb::AssignmentsReply) -> Result<(), String> {
        use pb::assignments_reply::Kind;
        let before = self.assignment.borrow().clone();
        let mut next = Assignment::clone(&before);
        let (delta, whole) = match message.kind.ok_or("it sent an empty assignment")? {
            Kind::Complete(whole) => {
                let whole = Assignment::try_from(whole).map_err(|e| format!("its assignment is of no use: {e}"))?;
                let delta = AssignmentDelta::between(&before, &whole);
                // What a host let go of that was called removed is no other assignment: it was never sent one.
                if self.line.borrow().removed && whole.generation >= next.generation {
                    next = whole;
                } else {
                    next.replace(whole).map_err(|e| e.to_string())?;
                }
                (delta, true)
            }
            Kind::Incremental(delta) => {
                let delta = AssignmentDelta::try_from(delta).map_err(|e| format!("its change is of no use: {e}"))?;
                next.fold(delta.clone()).map_err(|e| e.to_string())?;
                (delta, false)
            }
        };
        if next.node.as_ref().is_none_or(|n| n.id != self.credentials.current().node) {
            return Err("it sent the assignment of another node".to_owned());
        }
        let next = Arc::new(next);
        // Also if nothing in it is new: the managers' log is known to have come so far.
        if next.generation > before.generation || !delta.changes_nothing(&before) {
            self.remember(next.clone(), delta).await?;
        }
        if whole {
            self.reports.compare(&next);
        }
        self.node.send_if_modified(|node| {
            let news = *node != next.node;
            node.clone_from(&next.node);
            news
        });
        self.assignment.send_replace(next);
        Ok(())
    }

    /// Nothing of the cluster's runs on a host that is none of its own any more: it would be there twice.
    async fn let_go(&self) {
        let present = self.assignment.borrow().clone();
        let empty = Assignment { generation: present.generation, node: present.node.clone(), ..Assignment::default() };
        if empty == *present {
            return;
        }
        let delta = AssignmentDelta::between(&present, &empty);
        let empty = Arc::new(empty);
        if let Err(error) = self.remember(empty.clone(), delta).await {
            tracing::error!(error, "after a restart this host would run again what it ends now");
        }
        self.assignment.send_replace(empty);
    }

    /// Before anybody acts on it: after a restart this host would take less than that from a manager that is behind. A
    /// disk that is full does not keep a host from serving.
    async fn remember(&self, assignment: Arc<Assignment>, delta: AssignmentDelta) -> Result<(), String> {
        let memory = self.memory.clone();
        match tokio::task::spawn_blocking(move || memory.store(&assignment, &delta)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                Err(format!("what it sent cannot be remembered, so it is not acted on: {}", chain(&error)))
            }
            Err(error) => Err(format!("what it sent cannot be remembered, so it is not acted on: {error}")),
        }
    }

    async fn heartbeats(&self, mut client: DispatcherClient<Channel>) -> End {
        let mut period = HEARTBEAT_PERIOD;
        loop {
            let begun = Instant::now();
            let request = {
                let converged = self.converged.borrow();
                pb::HeartbeatRequest {
                    converged_generation: converged.generation.0,
                    failed_operations: converged.failed_operations,
                }
            };
            // A busy manager may take a while; a dead one must be left well within the node timeout (5 periods).
            match deadline(period * 2, client.heartbeat(request)).await {
                Ok(reply) => {
                    let asked = Duration::from_millis(reply.into_inner().period_ms);
                    let (least, most) = HEARTBEAT_PERIODS;
                    period = if asked.is_zero() { HEARTBEAT_PERIOD } else { asked.clamp(least, most) };
                }
                Err(status) => return End::of(self.own(), "it takes no heartbeat", &status),
            }
            tokio::time::sleep_until(begun + period).await;
        }
    }

    async fn report(&self, mut client: DispatcherClient<Channel>) -> End {
        let mut compare = interval(COMPARE_AGAIN);
        compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick comes at once, and there is nothing to compare yet.
        compare.tick().await;
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_LIMIT);
        let mut failures = 0;
        loop {
            tokio::select! {
                _ = self.reports.batch() => {}
                _ = compare.tick() => {
                    self.reports.compare(&self.assignment.borrow().clone());
                    continue;
                }
            }
            sleep(REPORT_WINDOW).await;
            let batch = self.reports.batch().await;
            let request = pb::ReportStatusRequest {
                reports: batch.tasks.iter().cloned().map(Into::into).collect(),
                containers: batch.containers.iter().cloned().map(Into::into).collect(),
            };
            match deadline(REPORT_PATIENCE, client.report_status(request)).await {
                Ok(_) => {
                    self.reports.acknowledged(&batch);
                    backoff.reset();
                    failures = 0;
                }
                Err(status) if status.code() == Code::InvalidArgument => {
                    // Sent again it would be refused again. What the managers lack then is compared later.
                    tracing::error!(told = status.message(), "a manager cannot read a report");
                    self.reports.acknowledged(&batch);
                }
                // During an election, say: the stream of assignments may well go on meanwhile.
                Err(status) if failures + 1 < REPORT_ATTEMPTS && Removed::in_status(&status).is_none() => {
                    tracing::debug!(told = status.message(), "a manager takes no report");
                    failures += 1;
                    sleep(backoff.delay()).await;
                }
                Err(status) => return End::of(self.own(), "it takes no report", &status),
            }
        }
    }
}

/// Once for each thing that goes wrong, not for each time.
fn say(said: &mut String, told: String) {
    if *said == told {
        tracing::debug!("{told}");
    } else {
        tracing::warn!("{told}");
        *said = told;
    }
}

async fn deadline<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match timeout(limit, call).await {
        Ok(result) => result,
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} ms", limit.as_millis()))),
    }
}
