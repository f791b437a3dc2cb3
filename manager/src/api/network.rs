//! Networks.

use shoal_common::{Invalid, network::NetworkSpec};
use shoal_proto::pb;
use shoal_state::{Command, Reply};
use std::collections::BTreeSet;

use super::{
    find,
    status::Refusal,
    view,
    write::{new_request, request, reused, write},
};
use crate::Manager;

pub(super) async fn create(
    manager: &Manager,
    asked: pb::CreateNetworkRequest,
) -> Result<pb::CreateNetworkReply, Refusal> {
    let request = request(&asked.request_id)?;
    let spec = asked.spec.ok_or_else(|| Invalid::new("spec", "", "the network that is to be"))?;
    let spec = NetworkSpec::try_from(spec)?;
    match write(manager, request, Command::CreateNetwork { spec }).await? {
        Reply::Network(id) => Ok(pb::CreateNetworkReply { id: id.0 }),
        Reply::Done | Reply::Node(_) | Reply::Service(..) | Reply::Made(_) => Err(reused(request)),
    }
}

pub(super) async fn list(manager: &Manager, asked: pb::ListNetworksRequest) -> Result<pb::ListNetworksReply, Refusal> {
    let state = manager.consensus.read().await?;
    let networks = find::each_or_all(&asked.networks, state.networks.values(), |name| find::network(&state, name))?;
    let ids: BTreeSet<_> = networks.iter().map(|n| n.id).collect();
    let users = view::users(&state, &ids);
    let networks =
        networks.into_iter().map(|n| view::network(n, users.get(&n.id).cloned().unwrap_or_default())).collect();
    Ok(pb::ListNetworksReply { networks })
}

pub(super) async fn remove(
    manager: &Manager,
    asked: pb::RemoveNetworkRequest,
) -> Result<pb::RemoveNetworkReply, Refusal> {
    let network = find::network(&*manager.consensus.read().await?, &asked.network)?.id;
    write(manager, new_request(), Command::RemoveNetwork { network }).await?;
    Ok(pb::RemoveNetworkReply { id: network.0 })
}
