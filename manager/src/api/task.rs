//! Tasks, which users only look at.

use shoal_common::Invalid;
use shoal_proto::pb;

use super::{find, status::Refusal, view};
use crate::Manager;

pub(super) async fn list(manager: &Manager, asked: pb::ListTasksRequest) -> Result<pb::ListTasksReply, Refusal> {
    let state = manager.consensus.read().await?;
    let tasks = match (asked.service.as_str(), asked.node.as_str()) {
        ("", "") => view::tasks(&state, state.tasks.values().map(AsRef::as_ref)),
        (service, "") => view::tasks(&state, state.tasks_of_service(find::service(&state, service)?.id)),
        ("", node) => view::tasks(&state, state.tasks_of_node(find::node(&state, node)?.id)),
        (_, node) => return Err(Invalid::new("node", node, "nothing where a service is given").into()),
    };
    Ok(pb::ListTasksReply { tasks })
}
