//! Nodes: looking at them, changing them, letting them go.

use shoal_common::{
    Invalid,
    node::{Availability, Role},
};
use shoal_proto::{Call, convert::enumerated_unless_unspecified, pb};
use shoal_state::Command;

use super::{
    find,
    status::Refusal,
    view,
    write::{By, request, write},
};
use crate::Manager;

pub(super) async fn list(manager: &Manager, asked: pb::ListNodesRequest) -> Result<pb::ListNodesReply, Refusal> {
    let state = manager.consensus.read().await?;
    let leadership = manager.consensus.leadership().borrow().clone();
    let nodes = find::each_or_all(&asked.nodes, state.nodes.values(), |name| find::node(&state, name))?;
    let faults = manager.consensus.faults();
    let links = state.overlapped_links();
    let shown = nodes.into_iter().map(|n| view::node(&state, n, &leadership, faults.get(&n.id), manager.node));
    let nodes = shown.map(|n| pb::Node { overlapped: view::overlapped(&links, n.id), ..n }).collect();
    Ok(pb::ListNodesReply { nodes })
}

pub(super) async fn update(manager: &Manager, asked: pb::UpdateNodeRequest) -> Result<pb::UpdateNodeReply, Refusal> {
    let availability =
        enumerated_unless_unspecified::<pb::Availability, Availability>("availability", asked.availability)?;
    let role = enumerated_unless_unspecified::<pb::Role, Role>("role", asked.role)?;
    if let Some(value) = asked.labels_add.get("") {
        return Err(Invalid::new("labels_add", format!("={value}"), "labels that have a key").into());
    }
    let request = request(&asked.request_id, By::Managers, Call::ControlUpdateNode, &asked)?;
    let node = find::node(&*manager.consensus.read().await?, &asked.node)?.id;
    let command = Command::UpdateNode {
        node,
        availability,
        role,
        labels_add: asked.labels_add,
        labels_remove: asked.labels_remove,
    };
    write(manager, request, command).await?;
    Ok(pb::UpdateNodeReply {})
}

pub(super) async fn remove(manager: &Manager, asked: pb::RemoveNodeRequest) -> Result<pb::RemoveNodeReply, Refusal> {
    let request = request(&asked.request_id, By::Managers, Call::ControlRemoveNode, &asked)?;
    let node = find::node(&*manager.consensus.read().await?, &asked.node)?.id;
    write(manager, request, Command::RemoveNode { node, force: asked.force }).await?;
    Ok(pb::RemoveNodeReply {})
}
