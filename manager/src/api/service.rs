//! Services.

use shoal_common::{Invalid, LogIndex, NodeId, service::ServiceSpec};
use shoal_proto::{Call, convert::service_spec, pb};
use shoal_state::{Command, Rejection, Reply, RequestId, State};

use super::{
    find,
    status::Refusal,
    view,
    write::{By, request, reused, write},
};
use crate::Manager;

/// Tries of an update that names no version while others change the service.
const ANY_VERSION_TRIES: u32 = 5;

pub(super) async fn create(
    manager: &Manager,
    asked: pb::CreateServiceRequest,
) -> Result<pb::CreateServiceReply, Refusal> {
    let request = request(&asked.request_id, By::Managers, Call::ControlCreateService, &asked)?;
    let state = manager.consensus.read().await?;
    let command = Command::CreateService { spec: Box::new(spec(&state, asked.spec, manager.node)?) };
    match write(manager, request, command).await? {
        Reply::Service(id, version) => Ok(pb::CreateServiceReply { id: id.0, version: version.0 }),
        Reply::Done | Reply::Node(_) | Reply::Network(_) | Reply::Container(..) | Reply::Made(_) => {
            Err(reused(request))
        }
    }
}

pub(super) async fn update(
    manager: &Manager,
    asked: pb::UpdateServiceRequest,
) -> Result<pb::UpdateServiceReply, Refusal> {
    let first = request(&asked.request_id, By::Managers, Call::ControlUpdateService, &asked)?;
    let mut tries = if asked.version == 0 { 0..ANY_VERSION_TRIES } else { 0..1 };
    loop {
        let request = nth_try(first, tries.next().unwrap_or(0));
        let state = manager.consensus.read().await?;
        let service = find::service(&state, &asked.service)?;
        let version = if asked.version == 0 { service.version } else { LogIndex(asked.version) };
        let spec = Box::new(spec(&state, asked.spec.clone(), manager.node)?);
        let command = Command::UpdateService { service: service.id, version, spec };
        match write(manager, request, command).await {
            Ok(Reply::Service(id, version)) => return Ok(pb::UpdateServiceReply { id: id.0, version: version.0 }),
            Ok(Reply::Done | Reply::Node(_) | Reply::Network(_) | Reply::Container(..) | Reply::Made(_)) => {
                return Err(reused(request));
            }
            Err(Refusal::Rejected(Rejection::VersionConflict { .. })) if !tries.is_empty() => {}
            Err(refusal) => return Err(refusal),
        }
    }
}

/// A conflict is remembered as the answer to its request, so each try is a request of its own. A client that repeats
/// the whole call goes through the same ids, up to the one that was answered.
fn nth_try(first: RequestId, n: u32) -> RequestId {
    RequestId(first.0.wrapping_add(n.into()))
}

pub(super) async fn list(manager: &Manager, asked: pb::ListServicesRequest) -> Result<pb::ListServicesReply, Refusal> {
    let state = manager.consensus.read().await?;
    let services = find::each_or_all(&asked.services, state.services.values(), |name| find::service(&state, name))?;
    Ok(pb::ListServicesReply { services: services.into_iter().map(|s| view::service(&state, s)).collect() })
}

pub(super) async fn remove(
    manager: &Manager,
    asked: pb::RemoveServiceRequest,
) -> Result<pb::RemoveServiceReply, Refusal> {
    let request = request(&asked.request_id, By::Managers, Call::ControlRemoveService, &asked)?;
    let service = find::service(&*manager.consensus.read().await?, &asked.service)?.id;
    write(manager, request, Command::RemoveService { service }).await?;
    Ok(pb::RemoveServiceReply { id: service.0 })
}

/// With its networks' names resolved.
fn spec(state: &State, asked: Option<pb::ServiceSpec>, on: NodeId) -> Result<ServiceSpec, Rejection> {
    let spec = asked.ok_or_else(|| Invalid::new("spec", "", "the service that is to be"))?;
    service_spec(spec, |name| find::network(state, name, on).map(|n| n.id))
}
