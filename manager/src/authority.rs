//! How a host gets its identity, and a new certificate later.

use sha2::{Digest, Sha256};
use shoal_common::{
    NodeId,
    node::{Availability, NodeDescription, Role},
};
use shoal_proto::{
    convert::enumerated_unless_unspecified,
    pb::{
        self,
        certificate_authority_server::{CertificateAuthority, CertificateAuthorityServer},
    },
};
use shoal_raft::Leadership;
use shoal_rt::{Buckets, Rate, clock};
use shoal_state::{Cluster, Command, Proposal, Reply, RequestId, State};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::net::TcpStream;
use tonic::{Request, Response, Status};

use crate::{
    Manager, Seat,
    ca::{self, Ca},
    claims, peer, refused, removed,
};

/// Wrong secrets from one address, before it has to wait. A secret has 128 bits; this keeps the log readable and the
/// managers' time for others. Who knows the secret is never kept waiting.
const WRONG: Rate = Rate { at_once: 10, period: Duration::from_secs(6) };
/// A secret that this manager does not know may be a newer one that has not reached it: it asks the leader, but not for
/// each guess.
const ASKED: Rate = Rate { at_once: 2, period: Duration::from_secs(1) };
/// For a host that joins to be connected to.
const REACH_LIMIT: Duration = Duration::from_secs(3);

#[derive(Debug)]
pub struct Authority {
    seat: Seat,
    wrong: Mutex<Buckets<IpAddr>>,
    asked: Mutex<Buckets<()>>,
}

pub fn service(seat: Seat) -> CertificateAuthorityServer<Authority> {
    let (wrong, asked) = (Mutex::new(Buckets::new(WRONG)), Mutex::new(Buckets::new(ASKED)));
    CertificateAuthorityServer::new(Authority { seat, wrong, asked })
}

impl Authority {
    /// What the secret stands for. It is the first thing that is looked at: a caller without it must not cost a
    /// signature check or a read of the log.
    async fn role(&self, manager: &Manager, from: IpAddr, secret: &str) -> Result<Role, Status> {
        let here = manager.consensus.state().borrow().clone();
        if let Some(role) = role_of(secret, cluster(&here)?) {
            return Ok(role);
        }
        let wait = lock(&self.wrong).take(from);
        if !wait.is_zero() {
            tracing::warn!(%from, "too many joins with a wrong token: refused without a look");
            let told = format!("too many joins with a wrong token from {from}: try again in {} s", wait.as_secs() + 1);
            return Err(Status::resource_exhausted(told));
        }
        if lock(&self.asked).wait(&()).is_zero() {
            let _ = lock(&self.asked).take(());
            let newest = manager.consensus.read().await.map_err(refused)?;
            if let Some(role) = role_of(secret, cluster(&newest)?) {
                return Ok(role);
            }
        }
        tracing::warn!(%from, "a join is refused: its token is not valid (any more)");
        Err(wrong_token())
    }
}

fn wrong_token() -> Status {
    Status::unauthenticated("the join token is not valid (any more): see 'shoal join-token' on a manager")
}

fn lock<T>(buckets: &Mutex<T>) -> MutexGuard<'_, T> {
    buckets.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tonic::async_trait]
impl CertificateAuthority for Authority {
    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::Certificate>, Status> {
        let manager = self.seat.manager_soon().await.ok_or_else(|| {
            Status::failed_precondition("it is not a manager; 'shoal node ls' on a manager shows which hosts are")
        })?;
        let from = peer::address(&request)?;
        let r = request.into_inner();
        self.role(&manager, from.ip(), &r.secret).await?;
        let description: NodeDescription = r
            .description
            .ok_or_else(|| Status::invalid_argument("description: it is missing"))?
            .try_into()
            .map_err(refused)?;
        let availability =
            enumerated_unless_unspecified::<pb::Availability, Availability>("availability", r.availability)
                .map_err(refused)?;
        let public_key_sha256 = ca::public_key_sha256(&r.signing_request_der).map_err(unusable)?;
        // A manager that is behind knows secrets that were rotated since.
        let state = manager.consensus.read().await.map_err(refused)?;
        let role = role_of(&r.secret, cluster(&state)?).ok_or_else(wrong_token)?;

        // A join that is repeated finds the node that it became.
        let same = state.nodes.values().find(|n| n.public_key_sha256 == public_key_sha256).map(|n| n.id);
        claims::check(&state, same, from.ip(), &description).map_err(refused)?;

        let hostname = description.hostname.clone();
        if role == Role::Manager {
            reach(description.control_addr).await?;
        }
        let command = Command::RegisterNode { role, description, public_key_sha256 };
        let Reply::Node(node) = propose(&manager, command).await? else {
            return Err(Status::internal("a registration was answered with something else than a node"));
        };
        if let Some(wanted) = availability.filter(|a| *a != Availability::Active) {
            let command = Command::UpdateNode {
                node,
                availability: Some(wanted),
                role: None,
                labels_add: BTreeMap::new(),
                labels_remove: Vec::new(),
            };
            propose(&manager, command).await?;
        }
        let state = manager.consensus.read().await.map_err(refused)?;
        // A join that is repeated finds the node as it is now, whatever the token says.
        let granted = granted(&manager, &state, node, &r.signing_request_der)?;
        tracing::info!(%from, %node, hostname, token = %role, "a host has joined");
        Ok(granted)
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::Certificate>, Status> {
        let manager = self.seat.manager()?;
        let node = peer::node(&request)?.node;
        let state = manager.consensus.read().await.map_err(refused)?;
        granted(&manager, &state, node, &request.get_ref().signing_request_der)
    }
}

/// The certificate that a node is due now, however it asks for one.
fn granted(
    manager: &Manager,
    state: &State,
    node: NodeId,
    signing_request_der: &[u8],
) -> Result<Response<pb::Certificate>, Status> {
    let known = state.nodes.get(&node).ok_or_else(|| removed(node))?;
    still_votes(node, known.role, &manager.consensus.leadership().borrow())?;
    certificate(state, node, known.role, signing_request_der)
}

/// With a worker's certificate a node votes no more. Until it has left Raft it must, or the others may have no quorum.
fn still_votes(node: NodeId, role: Role, leadership: &Leadership) -> Result<(), Status> {
    let member = leadership.voters.contains(&node) || leadership.learners.contains(&node);
    if role == Role::Worker && member {
        return Err(Status::failed_precondition(format!("{node} is still leaving the managers: try again")));
    }
    Ok(())
}

/// A manager that the others cannot reach would never vote, and would stay half a member. The host listens already.
async fn reach(addr: SocketAddr) -> Result<(), Status> {
    let unreached = |why: String| {
        Status::failed_precondition(format!(
            "cannot reach the host back at {addr} ({why}): open that port to the managers, or name another address with \
             --advertise-addr; nothing was joined"
        ))
    };
    match tokio::time::timeout(REACH_LIMIT, TcpStream::connect(addr)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(unreached(error.to_string())),
        Err(_) => Err(unreached(format!("no answer within {} s", REACH_LIMIT.as_secs()))),
    }
}

async fn propose(manager: &Manager, command: Command) -> Result<Reply, Status> {
    let proposal = Proposal { at: clock::now(), request: Some(RequestId(rand::random())), command };
    let (_, outcome) = manager.consensus.propose(proposal).await.map_err(refused)?;
    outcome.map_err(refused)
}

fn cluster(state: &State) -> Result<&Cluster, Status> {
    state.cluster.as_ref().ok_or_else(|| Status::unavailable("this manager does not know its cluster yet"))
}

/// Digests are compared, so that the time it takes tells nothing of the secret.
fn role_of(secret: &str, cluster: &Cluster) -> Option<Role> {
    let given = Sha256::digest(secret.as_bytes());
    let is = |known: &str| given == Sha256::digest(known.as_bytes());
    if is(&cluster.settings.worker_join_secret) {
        Some(Role::Worker)
    } else if is(&cluster.settings.manager_join_secret) {
        Some(Role::Manager)
    } else {
        None
    }
}

fn certificate(
    state: &State,
    node: NodeId,
    role: Role,
    signing_request_der: &[u8],
) -> Result<Response<pb::Certificate>, Status> {
    let ca = Ca::from_settings(&cluster(state)?.settings).map_err(unusable)?;
    let certificate_der = ca.sign(signing_request_der, node, role, clock::now()).map_err(unusable)?;
    Ok(Response::new(pb::Certificate {
        node: node.0,
        role: pb::Role::from(role).into(),
        certificate_der,
        ca_der: ca.certificate_der().to_vec(),
        managers: state.managers().map(|m| (m.id.0, m.description.control_addr.to_string())).collect(),
    }))
}

fn unusable(error: ca::Error) -> Status {
    match error {
        ca::Error::Request(_) => Status::invalid_argument(error.to_string()),
        ca::Error::Authority(_) | ca::Error::Make(_) => Status::internal(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demoted_manager_is_a_worker_once_it_has_left_raft_however_it_asks() {
        let node = NodeId(2);
        let votes = Leadership { voters: [NodeId(1), node].into(), ..Leadership::default() };
        let learns = Leadership { voters: [NodeId(1)].into(), learners: [node].into(), ..Leadership::default() };
        let left = Leadership { voters: [NodeId(1)].into(), ..Leadership::default() };
        for (role, leadership, granted) in [
            (Role::Manager, &votes, true),
            (Role::Worker, &votes, false),
            (Role::Worker, &learns, false),
            (Role::Worker, &left, true),
        ] {
            assert_eq!(still_votes(node, role, leadership).is_ok(), granted, "{role} {leadership:?}");
        }
    }
}
