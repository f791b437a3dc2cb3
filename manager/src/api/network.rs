//! Networks.

use shoal_common::{Invalid, NetworkId, network::NetworkSpec, node::Role, task::Endpoint};
use shoal_proto::{Call, convert::network_spec, pb};
use shoal_state::{Command, Rejection, Reply, State};
use std::{collections::BTreeSet, time::Duration};
use tokio::time::timeout;

use super::{
    find,
    host::Asker,
    status::Refusal,
    view,
    write::{new_request, request, reused, write},
};
use crate::Manager;

/// Networks of its own that a host which is no manager may have created. Each is kept in the memory of every manager.
const NETWORKS: usize = 500;
/// What users of a network are given to end before its removal is refused: a stop's grace, and some.
const ENDING_LIMIT: Duration = Duration::from_secs(20);

pub(super) async fn create(
    manager: &Manager,
    asker: Asker,
    asked: pb::CreateNetworkRequest,
) -> Result<pb::CreateNetworkReply, Refusal> {
    let request = request(&asked.request_id, asker.by(), Call::ControlCreateNetwork, &asked)?;
    let spec = asked.spec.ok_or_else(|| Invalid::new("spec", "", "the network that is to be"))?;
    let state = manager.consensus.read().await?;
    let spec: NetworkSpec = network_spec(spec, |name| asker.node(&state, name))?;
    match spec.driver.node() {
        Some(node) => asker.may(node)?,
        None if asker.role == Role::Manager => {}
        None => return Err(Refusal::ManagersOnly(format!("a network of driver {}", spec.driver))),
    }
    let own = state.networks.values().filter(|n| n.spec.driver.node() == Some(asker.node)).count();
    if asker.role == Role::Worker && own >= NETWORKS {
        let node = asker.node;
        return Err(Refusal::TooMuch(format!("{node} has {NETWORKS} networks already, and may create no more itself")));
    }
    match write(manager, request, Command::CreateNetwork { spec }).await? {
        Reply::Network(id) => Ok(pb::CreateNetworkReply { id: id.0 }),
        Reply::Done | Reply::Node(_) | Reply::Service(..) | Reply::Container(..) | Reply::Made(_) => {
            Err(reused(request))
        }
    }
}

pub(super) async fn list(
    manager: &Manager,
    asker: Asker,
    asked: pb::ListNetworksRequest,
) -> Result<pb::ListNetworksReply, Refusal> {
    let state = manager.consensus.read().await?;
    let node = asker.node(&state, &asked.node)?;
    let here = state.networks.values().filter(|n| n.spec.driver.node().is_none_or(|on| on == node));
    let networks = find::each_or_all(&asked.networks, here, |name| find::network(&state, name, node))?;
    let ids: BTreeSet<_> = networks.iter().map(|n| n.id).filter(|id| sees_users(&state, asker, *id)).collect();
    let users = view::users(&state, &ids);
    let networks =
        networks.into_iter().map(|n| view::network(&state, n, users.get(&n.id).cloned().unwrap_or_default())).collect();
    Ok(pb::ListNetworksReply { networks })
}

/// Names and addresses of what is on a network are for managers, and for the hosts that take part in it, which are told
/// them anyway. A worker that takes part in none learns no more than which networks there are.
fn sees_users(state: &State, asker: Asker, network: NetworkId) -> bool {
    let is_here = |endpoints: &[Endpoint]| endpoints.iter().any(|e| e.network == network);
    match asker.role {
        Role::Manager => true,
        Role::Worker => {
            state.tasks_of_node(asker.node).any(|t| is_here(&t.endpoints))
                || state.containers_of_node(asker.node).any(|c| is_here(&c.endpoints))
        }
    }
}

pub(super) async fn remove(
    manager: &Manager,
    asker: Asker,
    asked: pb::RemoveNetworkRequest,
) -> Result<pb::RemoveNetworkReply, Refusal> {
    find::refuse_stack(&asked.network, |network| Rejection::PredefinedNetwork { network }.into())?;
    let network = {
        let state = manager.consensus.read().await?;
        let network = find::network(&state, &asked.network, asker.node(&state, &asked.node)?)?;
        match network.spec.driver.node() {
            Some(node) => asker.may(node)?,
            None if asker.role == Role::Manager => {}
            None => return Err(Refusal::ManagersOnly(format!("network {}", network.name()))),
        }
        network.id
    };
    // `service rm web && network rm blue` does what it says. What ends too late is named in the refusal.
    let mut states = manager.consensus.state();
    let _ = timeout(ENDING_LIMIT, states.wait_for(|state| !state.is_only_ended_on(network))).await;
    write(manager, new_request(), Command::RemoveNetwork { network }).await?;
    Ok(pb::RemoveNetworkReply { id: network.0 })
}
