//! What users ask of managers: the `Control` service. One noun a file; what is refused, and with which status, is in
//! `status`.

mod cluster;
mod find;
pub(crate) mod host;
mod logs;
mod network;
mod node;
mod service;
pub(crate) mod status;
mod task;
#[cfg(test)]
mod tests;
mod view;
mod watch;
mod write;

use shoal_common::node::Role;
use shoal_proto::pb::{self, control_server};
use tonic::{Request, Response, Status};

use crate::{Manager, Seat};
use host::Asker;

pub use host::{Beyond, Own, for_hosts, local};

/// The largest message either way, as the command line accepts it. A list of all tasks is one message, of about 400
/// bytes each.
const MAX_MESSAGE_BYTES: usize = 256 << 20;

/// Served on the local socket of every host; a host that is no manager says so.
pub fn service(seat: Seat) -> control_server::ControlServer<Control> {
    control_server::ControlServer::new(Control { seat })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

#[derive(Debug)]
pub struct Control {
    seat: Seat,
}

macro_rules! answer {
    ($self:ident, $call:path) => {
        Ok(Response::new($call(&$self.seat.manager_once_known().await?).await?))
    };
    ($self:ident, $call:path, $request:ident) => {
        Ok(Response::new($call(&$self.seat.manager_once_known().await?, $request.into_inner()).await?))
    };
}

fn users_of(manager: &Manager) -> Asker {
    Asker { node: manager.node, role: Role::Manager }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl control_server::Control for Control {
    type WatchServiceStream = watch::Changes;
    type ServiceLogsStream = logs::Lines;

    async fn get_cluster(&self, _: Request<pb::GetClusterRequest>) -> Answer<pb::GetClusterReply> {
        answer!(self, cluster::get)
    }

    async fn get_join_token(&self, r: Request<pb::GetJoinTokenRequest>) -> Answer<pb::GetJoinTokenReply> {
        answer!(self, cluster::join_token, r)
    }

    async fn list_nodes(&self, r: Request<pb::ListNodesRequest>) -> Answer<pb::ListNodesReply> {
        answer!(self, node::list, r)
    }

    async fn update_node(&self, r: Request<pb::UpdateNodeRequest>) -> Answer<pb::UpdateNodeReply> {
        answer!(self, node::update, r)
    }

    async fn remove_node(&self, r: Request<pb::RemoveNodeRequest>) -> Answer<pb::RemoveNodeReply> {
        answer!(self, node::remove, r)
    }

    async fn create_network(&self, r: Request<pb::CreateNetworkRequest>) -> Answer<pb::CreateNetworkReply> {
        let manager = self.seat.manager_once_known().await?;
        Ok(Response::new(network::create(&manager, users_of(&manager), r.into_inner()).await?))
    }

    async fn list_networks(&self, r: Request<pb::ListNetworksRequest>) -> Answer<pb::ListNetworksReply> {
        let manager = self.seat.manager_once_known().await?;
        Ok(Response::new(network::list(&manager, users_of(&manager), r.into_inner()).await?))
    }

    async fn remove_network(&self, r: Request<pb::RemoveNetworkRequest>) -> Answer<pb::RemoveNetworkReply> {
        let manager = self.seat.manager_once_known().await?;
        Ok(Response::new(network::remove(&manager, users_of(&manager), r.into_inner()).await?))
    }

    async fn create_service(&self, r: Request<pb::CreateServiceRequest>) -> Answer<pb::CreateServiceReply> {
        answer!(self, service::create, r)
    }

    async fn update_service(&self, r: Request<pb::UpdateServiceRequest>) -> Answer<pb::UpdateServiceReply> {
        answer!(self, service::update, r)
    }

    async fn list_services(&self, r: Request<pb::ListServicesRequest>) -> Answer<pb::ListServicesReply> {
        answer!(self, service::list, r)
    }

    async fn remove_service(&self, r: Request<pb::RemoveServiceRequest>) -> Answer<pb::RemoveServiceReply> {
        answer!(self, service::remove, r)
    }

    async fn watch_service(&self, r: Request<pb::WatchServiceRequest>) -> Answer<watch::Changes> {
        answer!(self, watch::service, r)
    }

    async fn list_tasks(&self, r: Request<pb::ListTasksRequest>) -> Answer<pb::ListTasksReply> {
        answer!(self, task::list, r)
    }

    async fn service_logs(&self, r: Request<pb::ServiceLogsRequest>) -> Answer<logs::Lines> {
        answer!(self, logs::service, r)
    }
}
