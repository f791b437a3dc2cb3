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
use shoal_rt::clock;
use shoal_state::{Cluster, Command, Proposal, Reply, State};
use std::collections::BTreeMap;
use tonic::{Request, Response, Status};

use crate::{
    Manager, Seat,
    ca::{self, Ca},
    peer, refused, removed,
};

#[derive(Debug)]
pub struct Authority(Seat);

pub fn service(seat: Seat) -> CertificateAuthorityServer<Authority> {
    CertificateAuthorityServer::new(Authority(seat))
}

#[tonic::async_trait]
impl CertificateAuthority for Authority {
    async fn join(&self, request: Request<pb::JoinRequest>) -> Result<Response<pb::Certificate>, Status> {
        let manager = self.0.manager()?;
        let r = request.into_inner();
        let description: NodeDescription = r
            .description
            .ok_or_else(|| Status::invalid_argument("description: it is missing"))?
            .try_into()
            .map_err(refused)?;
        let availability =
            enumerated_unless_unspecified::<pb::Availability, Availability>("availability", r.availability)
                .map_err(refused)?;
        let public_key_sha256 = ca::public_key_sha256(&r.signing_request_der).map_err(unusable)?;
        let state = manager.consensus.read().await.map_err(refused)?;
        let role = role_of(&r.secret, cluster(&state)?).ok_or_else(|| {
            Status::unauthenticated("the join token is not valid (any more): see 'shoal join-token' on a manager")
        })?;

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
        let known = state.nodes.get(&node).ok_or_else(|| removed(node))?;
        certificate(&state, node, known.role, &r.signing_request_der)
    }

    async fn renew(&self, request: Request<pb::RenewRequest>) -> Result<Response<pb::Certificate>, Status> {
        let manager = self.0.manager()?;
        let node = peer::node(&request)?.node;
        let state = manager.consensus.read().await.map_err(refused)?;
        let known = state.nodes.get(&node).ok_or_else(|| removed(node))?;
        if known.role == Role::Worker {
            let leadership = manager.consensus.leadership();
            let leadership = leadership.borrow();
            // Until it has left Raft it must go on voting.
            if leadership.voters.contains(&node) || leadership.learners.contains(&node) {
                return Err(Status::failed_precondition(format!("{node} is still leaving the managers: try again")));
            }
        }
        certificate(&state, node, known.role, &request.get_ref().signing_request_der)
    }
}

async fn propose(manager: &Manager, command: Command) -> Result<Reply, Status> {
    let proposal = Proposal { at: clock::now(), request: None, command };
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
