//! What a host is follows its certificate, and the certificate follows what the cluster wants it to be.

use anyhow::Context;
use shoal_agent::Agent;
use shoal_common::{LogIndex, NodeId, Timestamp, node::Role};
use shoal_manager::{Fault, Heard, Manager, OpenError, Seat, bootstrap, ca, checkpoint, leader};
use shoal_proto::pb::{self, certificate_authority_client::CertificateAuthorityClient};
use shoal_rt::{Backoff, Credentials, Expect, Identity, Tasks, clock, durable};
use std::{net::SocketAddr, time::Duration};
use tokio::sync::{mpsc, watch};

use super::{config::Config, joined::Joined};

const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// How often the certificate's age is looked at.
const AGE_CHECK: Duration = Duration::from_secs(60);
const RENEW_LIMIT: Duration = Duration::from_secs(10);
/// How long the leader's tasks may take to end before they are dropped.
const END_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Become a manager: open the member of the Raft group.
    Seat,
    /// Cease to be one, and forget the log.
    Unseat,
    Renew,
    Rest,
}

/// What to do next. Only a manager grants a certificate, and it grants a worker's only to a node that has left Raft.
/// `faulty`: the seat was tried, and cannot be taken. Being demoted is the way out of that.
fn next(wanted: Option<Role>, certified: Role, seated: bool, faulty: bool, old: bool, removed: bool) -> Step {
    match (certified, seated) {
        // Its log is nobody's, and nobody renews its certificate.
        (_, true) if removed => Step::Unseat,
        _ if removed => Step::Rest,
        (Role::Manager, false) if faulty && wanted == Some(Role::Worker) => Step::Renew,
        (Role::Manager, false) => Step::Seat,
        (Role::Worker, true) => Step::Unseat,
        _ if old || wanted.is_some_and(|w| w != certified) => Step::Renew,
        _ => Step::Rest,
    }
}

/// Half of its life is over.
fn is_old(identity: &Identity, now: Timestamp) -> bool {
    now.0 > identity.issued.0 + identity.expires.0.saturating_sub(identity.issued.0) / 2
}

/// The other managers hold another state than this one did.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Diverged(String);

pub(crate) struct Keeper {
    pub(crate) config: Config,
    pub(crate) credentials: Credentials,
    pub(crate) agent: Agent,
    pub(crate) seat: watch::Sender<Option<Manager>>,
    pub(crate) seats: Seat,
    pub(crate) heard: Heard,
    pub(crate) tasks: Tasks,
}

impl Keeper {
    /// `opened`: a manager that is there already, from `init`.
    pub(crate) async fn run(self, opened: Option<Manager>) {
        let shutdown = self.tasks.shutdown();
        let (full, mut filled) = mpsc::channel(1);
        let mut leading: Option<Tasks> = opened.map(|manager| self.sit(manager, &full));
        let mut assigned = self.agent.node();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let wanted = assigned.borrow_and_update().as_ref().map(|n| n.role);
            let identity = self.credentials.current();
            // A worker with a log is one whose demotion was cut short.
            let faulty = self.seats.fault().is_some();
            let left = identity.role == Role::Worker && (faulty || self.config.raft_dir().exists());
            let seated = leading.is_some() || left;
            let removed = self.agent.status().removed;
            let step = next(wanted, identity.role, seated, faulty, is_old(&identity, clock::now()), removed);
            let done = match step {
                Step::Rest => Ok(()),
                Step::Seat => match self.open().await {
                    Ok(manager) => {
                        self.seats.set_fault(None);
                        leading = Some(self.sit(manager, &full));
                        Ok(())
                    }
                    Err(error) => self.fault(error, identity.node),
                },
                Step::Unseat => {
                    if let Some(leading) = leading.take() {
                        leading.end(END_LIMIT).await;
                    }
                    self.stand_up().await
                }
                Step::Renew => self.renew().await,
            };
            let pause = match (step, done) {
                (Step::Rest, _) => AGE_CHECK,
                (_, Ok(())) => {
                    backoff.reset();
                    continue;
                }
                // A fault was told when it was found.
                (Step::Seat, Err(_)) => backoff.delay(),
                (_, Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), ?step, "this host's role is not settled yet");
                    backoff.delay()
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                changed = assigned.changed() => if changed.is_err() { break },
                () = self.agent.removed(), if !removed => {}
                Some(why) = filled.recv() => {
                    if let Some(leading) = leading.take() {
                        leading.end(END_LIMIT).await;
                    }
                    self.seat_lost(why).await;
                }
                () = tokio::time::sleep(pause) => {}
            }
        }
        if let Some(leading) = leading {
            leading.end(END_LIMIT).await;
            let manager = self.seat.send_replace(None);
            if let Some(manager) = manager {
                manager.consensus.shutdown().await;
            }
        }
    }

    async fn open(&self) -> anyhow::Result<Manager> {
        if let Some(why) = durable::read(&self.config.diverged())? {
            return Err(Diverged(String::from_utf8_lossy(&why).into_owned()).into());
        }
        // What this host has acted on was committed, so whoever leads has it.
        let seen = LogIndex(self.agent.status().generation.0);
        let (dir, path) = (self.config.raft_dir(), self.config.joined());
        let mut joined = Joined::load(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let incarnation = match &joined.seated {
            Some(incarnation) => incarnation.clone(),
            None => {
                let created = bootstrap::create(&dir, &self.credentials, bootstrap::new_incarnation()).await?;
                joined.seated = Some(created.clone());
                // Before the first vote.
                joined.store(&path).with_context(|| format!("cannot write {}", path.display()))?;
                created
            }
        };
        Ok(bootstrap::open(&dir, self.credentials.clone(), incarnation, seen).await?)
    }

    /// Notes why the seat cannot be taken, for users and for the other managers.
    fn fault(&self, error: anyhow::Error, node: NodeId) -> anyhow::Result<()> {
        let lasting = match error.downcast_ref::<bootstrap::Error>() {
            Some(bootstrap::Error::Open(OpenError::Refused { .. })) => true,
            Some(bootstrap::Error::Open(OpenError::Failed(_))) => {
                // Only a process that has not seen the files yet may read them.
                self.tasks.fatal().report(format!("{error:#}"));
                true
            }
            Some(_) | None => false,
        };
        let diverged = error.is::<Diverged>();
        let why = if diverged {
            // It says the way back.
            format!("{error:#}")
        } else if lasting {
            format!(
                "{error:#}. This host takes no part in elections, for it could undo what was acknowledged. Way back: demote it and \
                 promote it again (shoal node demote {node} && shoal node promote {node}, on another manager), or restore {}",
                self.config.raft_dir().display()
            )
        } else {
            format!("{error:#}; it is tried again every {} s", RETRY.1.as_secs())
        };
        let fault = Fault { why, lasting: lasting || diverged };
        if self.seats.fault().as_ref() != Some(&fault) {
            tracing::error!(why = fault.why, "this host should be a manager, and cannot be one");
            self.seats.set_fault(Some(fault));
        }
        Err(error)
    }

    /// The host is a manager from here on. Returns the tasks that end when it ceases to be one. `full` is told if the
    /// manager ends because its disk is full; any other end is the daemon's.
    fn sit(&self, manager: Manager, full: &mpsc::Sender<String>) -> Tasks {
        let leading = self.tasks.part();
        leading.forever("leader", leader::run(manager.clone(), self.heard.clone(), leading.clone()));
        let (member, fatal, ended) = (manager.consensus.clone(), leading.fatal().clone(), leading.shutdown());
        let full = full.clone();
        leading.forever("watch over Raft", async move {
            if let Some(why) = ended.run_until_cancelled(member.fatal()).await {
                if member.ended_for_space(&why) {
                    // One at a time: the keeper takes it, or is ending.
                    let _ = full.send(why).await;
                } else {
                    fatal.report(format!("this manager cannot go on: {why}"));
                }
                ended.cancelled().await;
            }
        });
        let (fatal, ended) = (leading.fatal().clone(), leading.shutdown());
        let (checking, diverged) = (checkpoint::run(manager.clone()), self.config.diverged());
        leading.forever("checkpoints", async move {
            let Some(why) = ended.run_until_cancelled(checking).await else { return };
            // Without this a restart would make it a manager again.
            if let Err(error) = durable::replace(&diverged, why.as_bytes()) {
                tracing::error!(%error, "cannot note that this manager may not serve again");
            }
            fatal.report(why);
            ended.cancelled().await;
        });
        self.seat.send_replace(Some(manager));
        tracing::info!("this host is a manager");
        leading
    }

    /// The manager has ended for want of space. The host goes on, and is a manager again when there is some.
    async fn seat_lost(&self, why: String) {
        let why = format!("E-DISK-FULL: {why}; it is tried again every {} s", RETRY.1.as_secs());
        tracing::error!(why, "this host cannot be a manager at the moment");
        self.seats.set_fault(Some(Fault { why, lasting: false }));
        if let Some(manager) = self.seat.send_replace(None) {
            manager.consensus.shutdown().await;
        }
    }

    async fn stand_up(&self) -> anyhow::Result<()> {
        let manager = self.seat.send_replace(None);
        // First: whoever is promoted later, after a crash in between, begins with a new log.
        let path = self.config.joined();
        if let Some(joined) = Joined::find(&path)?.filter(|joined| joined.seated.is_some()) {
            Joined { seated: None, ..joined }.store(&path).context("cannot forget the log")?;
        }
        let dir = self.config.raft_dir();
        match manager {
            Some(manager) => {
                manager.consensus.shutdown().await;
                remove_dir(&dir)?;
            }
            // It was not opened here: it may be one that could not be read.
            None if dir.exists() => {
                let aside = durable::set_aside(&dir).map_err(durable::Error::into_io)?;
                tracing::warn!(kept = %aside.display(), "the log of this host could not be used, and is kept aside");
            }
            None => {}
        }
        self.seats.set_fault(None);
        tracing::info!("this host is not a manager any more");
        Ok(())
    }

    async fn renew(&self) -> anyhow::Result<()> {
        let mut last = anyhow::anyhow!("no manager is known");
        for (node, addr) in self.agent.managers() {
            match tokio::time::timeout(RENEW_LIMIT, self.renew_at(node, addr)).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => last = error,
                Err(_) => last = anyhow::anyhow!("{node} does not answer"),
            }
        }
        Err(last.context("cannot get a new certificate"))
    }

    async fn renew_at(&self, node: NodeId, addr: SocketAddr) -> anyhow::Result<()> {
        let channel = shoal_rt::connect(addr, Expect::Node(node), &self.credentials).await?;
        let (key, request) = ca::signing_request()?;
        let request = pb::RenewRequest { signing_request_der: request };
        let reply = CertificateAuthorityClient::new(channel)
            .renew(request)
            .await
            .map_err(|status| anyhow::anyhow!("{node}: {}", status.message()))?
            .into_inner();
        let identity = Identity::new(key, reply.certificate_der, reply.ca_der)?;
        let present = self.credentials.current();
        anyhow::ensure!(identity.node == present.node, "{node} sent the certificate of {}", identity.node);
        anyhow::ensure!(identity.ca == present.ca, "{node} sent the certificate of another CA");
        identity.store(&self.config.identity()).context("cannot keep the new certificate")?;
        tracing::info!(role = %identity.role, "this host has a new certificate");
        self.credentials.replace(identity);
        Ok(())
    }
}

pub(crate) fn remove_dir(dir: &std::path::Path) -> anyhow::Result<()> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Role::{Manager, Worker};

    #[test]
    fn the_certificate_follows_the_cluster_and_the_seat_follows_the_certificate() {
        for (certified, seated, step) in [
            (Manager, true, Step::Unseat),
            (Manager, false, Step::Rest),
            (Worker, true, Step::Unseat),
            (Worker, false, Step::Rest),
        ] {
            assert_eq!(
                next(Some(Manager), certified, seated, false, true, true),
                step,
                "{certified:?} {seated}, removed"
            );
        }
        for (wanted, certified, seated, old, step) in [
            (None, Worker, false, false, Step::Rest),
            (Some(Worker), Worker, false, false, Step::Rest),
            (Some(Manager), Manager, true, false, Step::Rest),
            // Promoted: first the certificate, then the seat.
            (Some(Manager), Worker, false, false, Step::Renew),
            (Some(Manager), Manager, false, false, Step::Seat),
            // Demoted: it serves until it has a worker's certificate.
            (Some(Worker), Manager, true, false, Step::Renew),
            (Some(Worker), Worker, true, false, Step::Unseat),
            // A manager that was restarted, and knows nothing else.
            (None, Manager, false, false, Step::Seat),
            (None, Worker, false, true, Step::Renew),
            (Some(Manager), Manager, true, true, Step::Renew),
        ] {
            assert_eq!(
                next(wanted, certified, seated, false, old, false),
                step,
                "{wanted:?} {certified:?} {seated} {old}"
            );
        }
        // Its log cannot be used: it tries until it is demoted, and then leaves the seat that it never took.
        assert_eq!(next(Some(Manager), Manager, false, true, true, false), Step::Seat);
        assert_eq!(next(Some(Worker), Manager, false, true, false, false), Step::Renew);
    }
}
