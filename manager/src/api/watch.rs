//! A service and its tasks, as they change.

use futures::{StreamExt, stream, stream::BoxStream};
use shoal_common::ServiceId;
use shoal_proto::pb;
use shoal_state::State;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::Status;

use super::{find, status::Refusal, view};
use crate::Manager;

pub(super) type Changes = BoxStream<'static, Result<pb::WatchServiceReply, Status>>;

pub(super) async fn service(manager: &Manager, asked: pb::WatchServiceRequest) -> Result<Changes, Refusal> {
    let state = manager.consensus.read().await?;
    let id = find::service(&state, &asked.service)?.id;
    Ok(changes(id, manager.consensus.state()))
}

/// Where a watch is.
struct Watch {
    states: watch::Receiver<Arc<State>>,
    /// What was told last.
    told: Option<Arc<State>>,
    /// Its last word was said.
    ended: bool,
}

fn changes(id: ServiceId, states: watch::Receiver<Arc<State>>) -> Changes {
    let watch = Watch { states, told: None, ended: false };
    stream::unfold(watch, move |mut watch| async move {
        if watch.ended {
            return None;
        }
        let state = match watch.next(id).await {
            Ok(state) => state,
            Err(stopped) => {
                watch.ended = true;
                return Some((Err(stopped), watch));
            }
        };
        watch.ended = !state.services.contains_key(&id);
        let reply = reply(&state, id);
        watch.told = Some(state);
        Some((Ok(reply), watch))
    })
    .boxed()
}

impl Watch {
    /// The next state that differs in this service.
    async fn next(&mut self, id: ServiceId) -> Result<Arc<State>, Status> {
        loop {
            let state = self.states.borrow_and_update().clone();
            if self.told.as_ref().is_none_or(|told| differs(told, &state, id)) {
                return Ok(state);
            }
            self.states.changed().await.map_err(|_| Status::unavailable("this host is no manager any more"))?;
        }
    }
}

fn differs(told: &State, now: &State, id: ServiceId) -> bool {
    told.services.get(&id) != now.services.get(&id) || !told.tasks_of_service(id).eq(now.tasks_of_service(id))
}

/// Without the service once it was removed; with those of its tasks that are still there.
fn reply(state: &State, id: ServiceId) -> pb::WatchServiceReply {
    pb::WatchServiceReply {
        service: state.services.get(&id).map(|s| view::service(state, s)),
        tasks: view::tasks(state, state.tasks_of_service(id)),
        index: state.applied.0,
    }
}
