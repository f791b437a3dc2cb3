//! The cluster as a whole, and how to join it.

use data_encoding::HEXLOWER;
use shoal_common::node::Role;
use shoal_proto::{convert::enumerated, pb};
use shoal_rt::{JoinToken, token::CaDigest};
use shoal_state::{ClusterSettings, Command, Rejection, State};

use super::{
    find,
    status::Refusal,
    view::count,
    write::{new_request, write},
};
use crate::Manager;

pub(super) async fn get(manager: &Manager) -> Result<pb::GetClusterReply, Refusal> {
    let state = manager.consensus.read().await?;
    let leadership = manager.consensus.leadership().borrow().clone();
    let cluster = state.cluster.as_ref().ok_or(Rejection::NotInitialised)?;
    let settings = &cluster.settings;
    Ok(pb::GetClusterReply {
        id: settings.id.clone(),
        created_ms: cluster.created.0,
        this_node: manager.node.0,
        leader: leadership.leader.map_or(0, |n| n.0),
        term: leadership.term,
        applied: state.applied.0,
        address_pools: settings.address_pools.iter().map(ToString::to_string).collect(),
        subnet_prefix_len: settings.subnet_prefix_len.into(),
        ula_prefix: settings.ula_prefix.to_string(),
        data_path_port: settings.data_path_port.into(),
        nodes: count(state.nodes.len()),
        managers: count(state.managers().count()),
        voters: leadership.voters.iter().map(|n| n.0).collect(),
        ca_sha256: HEXLOWER.encode(&ca_digest(settings)?.0),
    })
}

pub(super) async fn join_token(
    manager: &Manager,
    asked: pb::GetJoinTokenRequest,
) -> Result<pb::GetJoinTokenReply, Refusal> {
    let role = enumerated::<pb::Role, Role>("role", asked.role)?;
    if asked.rotate {
        let secret = JoinToken::new_secret();
        write(manager, new_request(), Command::RotateJoinToken { role, secret }).await?;
    }
    let state = manager.consensus.read().await?;
    let settings = settings(&state)?;
    let secret = match role {
        Role::Worker => settings.worker_join_secret.clone(),
        Role::Manager => settings.manager_join_secret.clone(),
    };
    let this = find::node(&state, &manager.node.to_string())?;
    Ok(pb::GetJoinTokenReply {
        token: JoinToken { ca: ca_digest(settings)?, secret }.to_string(),
        manager_addr: this.description.control_addr.to_string(),
    })
}

fn settings(state: &State) -> Result<&ClusterSettings, Rejection> {
    state.cluster.as_ref().map(|c| &c.settings).ok_or(Rejection::NotInitialised)
}

fn ca_digest(settings: &ClusterSettings) -> Result<CaDigest, Refusal> {
    let der = crate::ca::certificate_der(settings).map_err(|e| Refusal::BadCertificate(e.to_string()))?;
    Ok(CaDigest::of(&der))
}
