//! Containers.

use shoal_common::{Invalid, NodeId, TaskId, container::Attachment, node::Role};
use shoal_proto::{
    convert::{attachment, run_spec},
    pb,
};
use shoal_state::{Command, Container, Reply, RequestId, State};
use std::time::Duration;

use super::Asker;
use crate::{
    Manager,
    api::{
        find,
        status::Refusal,
        view,
        write::{new_request, request, reused, write},
    },
};

/// Containers that a host which is no manager may have created. Each is kept in the memory of every manager.
const CONTAINERS: usize = 2000;

pub(super) async fn create(
    manager: &Manager,
    asker: Asker,
    asked: pb::CreateContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let request = request(&asked.request_id)?;
    let state = manager.consensus.read().await?;
    let node = asker.node(&state, &asked.node)?;
    if asker.role == Role::Worker && state.containers_of_node(node).count() >= CONTAINERS {
        return Err(Refusal::TooMuch(format!(
            "{node} has {CONTAINERS} containers already, and may create no more itself"
        )));
    }
    let spec = asked.spec.ok_or_else(|| Invalid::new("spec", "", "the container that is to be"))?;
    let spec = Box::new(run_spec(spec, |name| find::network(&state, name, node).map(|n| n.id))?);
    reply(manager, request, Command::CreateContainer { node, spec }).await
}

pub(super) async fn start(
    manager: &Manager,
    asker: Asker,
    asked: pb::StartContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let container = named(manager, asker, asked.container).await?.0;
    reply(manager, new_request(), Command::StartContainer { container, again: asked.again }).await
}

pub(super) async fn stop(
    manager: &Manager,
    asker: Asker,
    asked: pb::StopContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let container = named(manager, asker, asked.container).await?.0;
    let grace = asked.grace_ms.map(Duration::from_millis);
    reply(manager, new_request(), Command::StopContainer { container, grace }).await
}

pub(super) async fn remove(
    manager: &Manager,
    asker: Asker,
    asked: pb::RemoveContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let container = named(manager, asker, asked.container).await?.0;
    let (force, volumes) = (asked.force, asked.volumes);
    reply(manager, new_request(), Command::RemoveContainer { container, force, volumes }).await
}

pub(super) async fn rename(
    manager: &Manager,
    asker: Asker,
    asked: pb::RenameContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let container = named(manager, asker, asked.container).await?.0;
    let name = asked.name.parse().map_err(|e: Invalid| e.at("name"))?;
    reply(manager, new_request(), Command::RenameContainer { container, name }).await
}

pub(super) async fn connect(
    manager: &Manager,
    asker: Asker,
    asked: pb::ConnectContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let (container, node) = named(manager, asker, asked.container).await?;
    let wish = asked.attachment.ok_or_else(|| Invalid::new("attachment", "", "the network to connect to"))?;
    find::refuse_stack(&wish.network, Refusal::StackJoined)?;
    let state = manager.consensus.read().await?;
    let attachment: Attachment = attachment(wish, |name| find::network(&state, name, node).map(|n| n.id))?;
    reply(manager, new_request(), Command::ConnectContainer { container, attachment }).await
}

pub(super) async fn disconnect(
    manager: &Manager,
    asker: Asker,
    asked: pb::DisconnectContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let (container, node) = named(manager, asker, asked.container).await?;
    find::refuse_stack(&asked.network, Refusal::StackLeft)?;
    let network = find::network(&*manager.consensus.read().await?, &asked.network, node)?.id;
    reply(manager, new_request(), Command::DisconnectContainer { container, network }).await
}

pub(super) async fn list(
    manager: &Manager,
    asker: Asker,
    asked: pb::ListContainersRequest,
) -> Result<pb::ListContainersReply, Refusal> {
    let state = manager.consensus.read().await?;
    let node = asker.node(&state, &asked.node)?;
    let found: Vec<&Container> = if !asked.containers.is_empty() {
        let found = asked.containers.iter().map(|name| find::container(&state, name, node));
        found.collect::<Result<_, _>>()?
    } else if asked.all_nodes {
        state.containers.values().map(AsRef::as_ref).collect()
    } else {
        state.containers_of_node(node).collect()
    };
    for container in &found {
        asker.may(container.node)?;
    }
    Ok(pb::ListContainersReply {
        containers: found.into_iter().map(|c| view::container(&state, c)).collect(),
        known_by: String::new(),
    })
}

/// The container that is meant, and its host.
async fn named(manager: &Manager, asker: Asker, asked: Option<pb::ContainerRef>) -> Result<(TaskId, NodeId), Refusal> {
    let asked = asked.ok_or_else(|| Invalid::new("container", "", "the name or id of a container"))?;
    let state: std::sync::Arc<State> = manager.consensus.read().await?;
    let node = asker.node(&state, &asked.node)?;
    let container = find::container(&state, &asked.container, node)?;
    asker.may(container.node)?;
    Ok((container.id, container.node))
}

async fn reply(manager: &Manager, request: RequestId, command: Command) -> Result<pb::ContainerReply, Refusal> {
    match write(manager, request, command).await? {
        Reply::Container(id, start) => Ok(pb::ContainerReply { id: id.0, start }),
        Reply::Done | Reply::Node(_) | Reply::Network(_) | Reply::Service(..) | Reply::Made(_) => Err(reused(request)),
    }
}
