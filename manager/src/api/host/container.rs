//! Containers.

use shoal_common::{Invalid, Name, NodeId, TaskId, container::Attachment, node::Role};
use shoal_proto::{
    Call,
    convert::{attachment, run_spec},
    pb,
};
use shoal_state::{Command, Container, Rejection, Reply, RequestId, State, Task};
use std::time::Duration;

use super::{Asker, task};
use crate::{
    Manager,
    api::{
        find,
        status::Refusal,
        view,
        write::{request, reused, write},
    },
};

/// Containers that a host which is no manager may have created. Each is kept in the memory of every manager.
const CONTAINERS: usize = 2000;

pub(super) async fn create(
    manager: &Manager,
    asker: Asker,
    asked: pb::CreateContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let request = request(&asked.request_id, asker.by(), Call::HostControlCreateContainer, &asked)?;
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
    let request = request(&asked.request_id, asker.by(), Call::HostControlStartContainer, &asked)?;
    let container = by_hand(manager, asker, asked.container, "start").await?.0;
    reply(manager, request, Command::StartContainer { container, again: asked.again }).await
}

pub(super) async fn stop(
    manager: &Manager,
    asker: Asker,
    asked: pb::StopContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let request = request(&asked.request_id, asker.by(), Call::HostControlStopContainer, &asked)?;
    let container = match (named(manager, asker, asked.container).await?, asked.grace_ms) {
        (Named::Container(id, _), _) => id,
        (Named::Task(id, _), None) => return task::stop(manager, id).await,
        (Named::Task(task, service), Some(_)) => {
            return Err(Refusal::TaskOfService { task, service, what: "stop it within another time than its own" });
        }
    };
    let grace = asked.grace_ms.map(Duration::from_millis);
    reply(manager, request, Command::StopContainer { container, grace }).await
}

pub(super) async fn remove(
    manager: &Manager,
    asker: Asker,
    asked: pb::RemoveContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let request = request(&asked.request_id, asker.by(), Call::HostControlRemoveContainer, &asked)?;
    let container = match named(manager, asker, asked.container).await? {
        Named::Container(id, _) => id,
        Named::Task(id, _) => return task::remove(manager, id, asked.force).await,
    };
    let (force, volumes) = (asked.force, asked.volumes);
    reply(manager, request, Command::RemoveContainer { container, force, volumes }).await
}

pub(super) async fn rename(
    manager: &Manager,
    asker: Asker,
    asked: pb::RenameContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let request = request(&asked.request_id, asker.by(), Call::HostControlRenameContainer, &asked)?;
    let container = by_hand(manager, asker, asked.container, "rename it").await?.0;
    let name = asked.name.parse().map_err(|e: Invalid| e.at("name"))?;
    reply(manager, request, Command::RenameContainer { container, name }).await
}

pub(super) async fn connect(
    manager: &Manager,
    asker: Asker,
    asked: pb::ConnectContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let request = request(&asked.request_id, asker.by(), Call::HostControlConnectContainer, &asked)?;
    let (container, node) = by_hand(manager, asker, asked.container, "connect it to a network").await?;
    let wish = asked.attachment.ok_or_else(|| Invalid::new("attachment", "", "the network to connect to"))?;
    find::refuse_stack(&wish.network, Refusal::StackJoined)?;
    let state = manager.consensus.read().await?;
    let attachment: Attachment = attachment(wish, |name| find::network(&state, name, node).map(|n| n.id))?;
    reply(manager, request, Command::ConnectContainer { container, attachment }).await
}

pub(super) async fn disconnect(
    manager: &Manager,
    asker: Asker,
    asked: pb::DisconnectContainerRequest,
) -> Result<pb::ContainerReply, Refusal> {
    let request = request(&asked.request_id, asker.by(), Call::HostControlDisconnectContainer, &asked)?;
    let (container, node) = by_hand(manager, asker, asked.container, "leave a network").await?;
    find::refuse_stack(&asked.network, Refusal::StackLeft)?;
    let network = find::network(&*manager.consensus.read().await?, &asked.network, node)?.id;
    reply(manager, request, Command::DisconnectContainer { container, network }).await
}

pub(super) async fn list(
    manager: &Manager,
    asker: Asker,
    asked: pb::ListContainersRequest,
) -> Result<pb::ListContainersReply, Refusal> {
    let state = manager.consensus.read().await?;
    let node = asker.node(&state, &asked.node)?;
    let found: Vec<Found> = if !asked.containers.is_empty() {
        asked.containers.iter().map(|name| either(&state, name, node)).collect::<Result<_, _>>()?
    } else if asked.all_nodes {
        let tasks = state.tasks.values().filter(|task| task.node.is_some());
        let containers = state.containers.values().map(|c| Found::Container(c.as_ref()));
        containers.chain(tasks.map(|task| Found::Task(task.as_ref()))).collect()
    } else {
        let containers = state.containers_of_node(node).map(Found::Container);
        containers.chain(state.tasks_of_node(node).map(Found::Task)).collect()
    };
    for one in &found {
        asker.may(one.node())?;
    }
    Ok(pb::ListContainersReply {
        containers: found.into_iter().map(|one| one.shown(&state)).collect(),
        known_by: String::new(),
    })
}

/// What bears the name or id of a container.
enum Found<'a> {
    Container(&'a Container),
    Task(&'a Task),
}

impl Found<'_> {
    /// A task without a node has no container, and nobody's host is asked about it.
    fn node(&self) -> NodeId {
        match self {
            Found::Container(container) => container.node,
            Found::Task(task) => task.node.unwrap_or(NodeId(0)),
        }
    }

    fn shown(&self, state: &State) -> pb::Container {
        match self {
            Found::Container(container) => view::container(state, container),
            Found::Task(task) => task::shown(state, task),
        }
    }
}

/// Those that were run by hand have the older right to a name.
fn either<'a>(state: &'a State, name: &str, on: NodeId) -> Result<Found<'a>, Rejection> {
    match (state.find_container(name, on), task::find(state, name, on)) {
        (Some(container), _) => Ok(Found::Container(container)),
        (None, Some(task)) => Ok(Found::Task(task)),
        (None, None) => Err(find::unknown("container", name)),
    }
}

/// What is meant, and on which host it is or of which service.
enum Named {
    Container(TaskId, NodeId),
    Task(TaskId, Name),
}

async fn named(manager: &Manager, asker: Asker, asked: Option<pb::ContainerRef>) -> Result<Named, Refusal> {
    let asked = asked.ok_or_else(|| Invalid::new("container", "", "the name or id of a container"))?;
    let state: std::sync::Arc<State> = manager.consensus.read().await?;
    let node = asker.node(&state, &asked.node)?;
    let found = either(&state, &asked.container, node)?;
    asker.may(found.node())?;
    Ok(match found {
        Found::Container(container) => Named::Container(container.id, container.node),
        Found::Task(task) => Named::Task(task.id, task.service_name.clone()),
    })
}

/// As [`named`], for what is not done to a task of a service.
async fn by_hand(
    manager: &Manager,
    asker: Asker,
    asked: Option<pb::ContainerRef>,
    what: &'static str,
) -> Result<(TaskId, NodeId), Refusal> {
    match named(manager, asker, asked).await? {
        Named::Container(id, node) => Ok((id, node)),
        Named::Task(task, service) => Err(Refusal::TaskOfService { task, service, what }),
    }
}

async fn reply(manager: &Manager, request: RequestId, command: Command) -> Result<pb::ContainerReply, Refusal> {
    match write(manager, request, command).await? {
        Reply::Container(id, start) => Ok(pb::ContainerReply { id: id.0, start }),
        Reply::Done | Reply::Node(_) | Reply::Network(_) | Reply::Service(..) | Reply::Made(_) => Err(reused(request)),
    }
}
