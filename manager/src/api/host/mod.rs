//! What a host's users ask about its containers and networks: the `HostControl` service.
//!
//! A manager answers, its own users and other hosts alike; a host that is none passes the call on to one, in its own
//! name. A worker's name stands for what is its own only. What a host itself knows of its containers it says itself while
//! no manager answers.

mod container;
mod own;
mod task;
mod wait;

use futures::future::BoxFuture;
use shoal_common::{NodeId, node::Role};
use shoal_proto::pb::{
    self,
    host_control_client::HostControlClient,
    host_control_server::{self, HostControlServer},
};
use shoal_rt::connect::root_cause;
use shoal_state::State;
use std::{
    error::Error as _,
    sync::{Arc, atomic::AtomicBool},
};
use tonic::{Request, Response, Status, transport::Channel};

use super::{find, status::Refusal, write::By};
use crate::{Manager, Seat, peer};

pub use own::Own;

/// A line to some manager, for a host that is none.
pub type Beyond = Arc<dyn Fn() -> BoxFuture<'static, Result<Channel, Status>> + Send + Sync>;

/// For a host's own users.
pub fn local(seat: Seat, beyond: Beyond, own: Own) -> HostControlServer<HostControl> {
    sized(HostControl { seat, local: Some(Local { beyond, own, silent: AtomicBool::new(false) }) })
}

/// For other hosts, known by their certificates.
pub fn for_hosts(seat: Seat) -> HostControlServer<HostControl> {
    sized(HostControl { seat, local: None })
}

fn sized(service: HostControl) -> HostControlServer<HostControl> {
    HostControlServer::new(service)
        .max_decoding_message_size(super::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(super::MAX_MESSAGE_BYTES)
}

pub struct HostControl {
    seat: Seat,
    /// For the host's own users.
    local: Option<Local>,
}

struct Local {
    beyond: Beyond,
    own: Own,
    /// No manager answered when one was asked last.
    silent: AtomicBool,
}

impl std::fmt::Debug for HostControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostControl").finish_non_exhaustive()
    }
}

/// On whose behalf something is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) node: NodeId,
    /// A manager's users may speak of every host.
    pub(crate) role: Role,
}

impl Asker {
    /// The host that a request names, or the asker's own.
    pub(crate) fn node(self, state: &State, named: &str) -> Result<NodeId, Refusal> {
        if named.is_empty() {
            return Ok(self.node);
        }
        let node = find::node(state, named)?.id;
        self.may(node).map(|()| node)
    }

    /// Whose ids of requests its own are.
    pub(in crate::api) fn by(self) -> By {
        if self.role == Role::Manager { By::Managers } else { By::Host(self.node) }
    }

    pub(crate) fn may(self, node: NodeId) -> Result<(), Refusal> {
        if self.role == Role::Manager || self.node == node {
            Ok(())
        } else {
            Err(Refusal::NotYours { asker: self.node, node })
        }
    }
}

/// Who answers.
enum Place {
    Here(Manager, Asker),
    Beyond(HostControlClient<Channel>),
}

impl HostControl {
    async fn place<T>(&self, request: &Request<T>) -> Result<Place, Status> {
        let seated = match &self.local {
            Some(_) => self.seat.manager_once_known().await,
            None => self.seat.manager(),
        };
        match (seated, &self.local) {
            (Ok(manager), Some(_)) => {
                let asker = Asker { node: manager.node, role: Role::Manager };
                Ok(Place::Here(manager, asker))
            }
            (Ok(manager), None) => {
                let identity = peer::node(request)?;
                // The certificate may be older than what the node is now.
                let role = match manager.consensus.state().borrow().is_manager(identity.node) {
                    true => identity.role,
                    false => Role::Worker,
                };
                Ok(Place::Here(manager, Asker { node: identity.node, role }))
            }
            (Err(_), Some(local)) => {
                let client = HostControlClient::new((local.beyond)().await?)
                    .max_decoding_message_size(super::MAX_MESSAGE_BYTES)
                    .max_encoding_message_size(super::MAX_MESSAGE_BYTES);
                Ok(Place::Beyond(client))
            }
            (Err(status), None) => Err(status),
        }
    }
}

macro_rules! answer {
    ($self:ident, $request:ident, $method:ident, $call:path) => {
        match $self.place(&$request).await? {
            Place::Here(manager, asker) => Ok(Response::new($call(&manager, asker, $request.into_inner()).await?)),
            Place::Beyond(mut client) => client.$method($request.into_inner()).await.map_err(passed_on),
        }
    };
}

/// Without what belongs to the other connection. One that broke is no answer.
fn passed_on(status: Status) -> Status {
    match status.source() {
        None => Status::new(status.code(), status.message()),
        Some(cause) => Status::unavailable(format!("the manager that was asked was lost: {}", root_cause(cause))),
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl host_control_server::HostControl for HostControl {
    async fn create_container(&self, r: Request<pb::CreateContainerRequest>) -> Answer<pb::ContainerReply> {
        answer!(self, r, create_container, container::create)
    }

    async fn start_container(&self, r: Request<pb::StartContainerRequest>) -> Answer<pb::ContainerReply> {
        answer!(self, r, start_container, container::start)
    }

    async fn stop_container(&self, r: Request<pb::StopContainerRequest>) -> Answer<pb::ContainerReply> {
        answer!(self, r, stop_container, container::stop)
    }

    async fn remove_container(&self, r: Request<pb::RemoveContainerRequest>) -> Answer<pb::ContainerReply> {
        answer!(self, r, remove_container, container::remove)
    }

    async fn rename_container(&self, r: Request<pb::RenameContainerRequest>) -> Answer<pb::ContainerReply> {
        answer!(self, r, rename_container, container::rename)
    }

    async fn connect_container(&self, r: Request<pb::ConnectContainerRequest>) -> Answer<pb::ContainerReply> {
        answer!(self, r, connect_container, container::connect)
    }

    async fn disconnect_container(&self, r: Request<pb::DisconnectContainerRequest>) -> Answer<pb::ContainerReply> {
        answer!(self, r, disconnect_container, container::disconnect)
    }

    async fn list_containers(&self, r: Request<pb::ListContainersRequest>) -> Answer<pb::ListContainersReply> {
        let asked = r.get_ref().clone();
        let answer = async { answer!(self, r, list_containers, container::list) };
        match &self.local {
            Some(local) => own::unless_answered(answer, &asked, &local.own, &local.silent).await,
            None => answer.await,
        }
    }

    async fn await_container(&self, r: Request<pb::AwaitContainerRequest>) -> Answer<pb::AwaitContainerReply> {
        answer!(self, r, await_container, wait::until)
    }

    async fn create_host_network(&self, r: Request<pb::CreateNetworkRequest>) -> Answer<pb::CreateNetworkReply> {
        answer!(self, r, create_host_network, super::network::create)
    }

    async fn list_host_networks(&self, r: Request<pb::ListNetworksRequest>) -> Answer<pb::ListNetworksReply> {
        answer!(self, r, list_host_networks, super::network::list)
    }

    async fn remove_host_network(&self, r: Request<pb::RemoveNetworkRequest>) -> Answer<pb::RemoveNetworkReply> {
        answer!(self, r, remove_host_network, super::network::remove)
    }
}
