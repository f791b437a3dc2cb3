//! The output of this host's containers, for managers: they are asked by whoever runs `shoal service logs`.

use futures::{StreamExt, stream::BoxStream};
use shoal_common::{TaskId, node::Role};
use shoal_proto::pb::{self, node_logs_server};
use shoal_rt::Peer;
use shoal_runtime::{LogOptions, LogStream};
use tonic::{Request, Response, Status};

use crate::{Host, chain, containers};

/// Serves `NodeLogs`, to peers whose certificate says that they are managers.
pub fn logs_service(host: Host) -> node_logs_server::NodeLogsServer<Logs> {
    node_logs_server::NodeLogsServer::new(Logs { host })
}

#[derive(Debug)]
pub struct Logs {
    host: Host,
}

#[tonic::async_trait]
impl node_logs_server::NodeLogs for Logs {
    type TaskLogsStream = BoxStream<'static, Result<pb::TaskLogsReply, Status>>;

    async fn task_logs(&self, request: Request<pb::TaskLogsRequest>) -> Result<Response<Self::TaskLogsStream>, Status> {
        managers_only(&request)?;
        read(&self.host, request.into_inner()).map(Response::new)
    }
}

/// What a container wrote, and writes if that is asked for.
pub(crate) fn read(
    host: &Host,
    asked: pb::TaskLogsRequest,
) -> Result<BoxStream<'static, Result<pb::TaskLogsReply, Status>>, Status> {
    {
        let task = TaskId(asked.task);
        let options = LogOptions {
            tail: asked.tail.map(|n| usize::try_from(n).unwrap_or(usize::MAX)),
            follow: asked.follow,
            since_ms: (asked.since_ms > 0).then_some(asked.since_ms),
        };
        let lines = match host.runtime().logs(&containers::id(task), options) {
            Ok(lines) => lines,
            Err(shoal_runtime::Error::NoSuchContainer(_)) => {
                return Err(Status::not_found(format!("{task} has no container on this host")));
            }
            Err(error) => return Err(Status::internal(chain(&error))),
        };
        let replies = lines.map(|line| match line {
            Ok(line) => Ok(pb::TaskLogsReply {
                time_ms: line.time_ms,
                stderr: line.stream == LogStream::Stderr,
                line: line.text.into_bytes(),
            }),
            Err(error) => Err(Status::internal(chain(&error))),
        });
        Ok(replies.boxed())
    }
}

fn managers_only<T>(request: &Request<T>) -> Result<(), Status> {
    match request.extensions().get::<Peer>().and_then(|p| p.identity) {
        Some(peer) if peer.role == Role::Manager => Ok(()),
        Some(peer) => Err(Status::permission_denied(format!("{} is no manager", peer.node))),
        None => Err(Status::unauthenticated("show the certificate of a manager")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::NodeId;
    use shoal_rt::PeerIdentity;
    use tonic::Code;

    #[test]
    fn only_managers_read_logs() {
        let asked_by = |identity: Option<Role>| {
            let mut request = Request::new(());
            let identity = identity.map(|role| PeerIdentity { node: NodeId(2), role });
            request.extensions_mut().insert(Peer { addr: "192.0.2.2:1".parse().unwrap(), identity });
            managers_only(&request).map_err(|status| status.code())
        };
        assert_eq!(asked_by(Some(Role::Manager)), Ok(()));
        assert_eq!(asked_by(Some(Role::Worker)), Err(Code::PermissionDenied));
        assert_eq!(asked_by(None), Err(Code::Unauthenticated));
        assert_eq!(managers_only(&Request::new(())).map_err(|s| s.code()), Err(Code::Unauthenticated));
    }
}
