//! The local daemon, by its socket.

use hyper_util::rt::TokioIo;
use shoal_proto::pb::{
    self, control_client::ControlClient, host_control_client::HostControlClient, local_node_client::LocalNodeClient,
    node_containers_client::NodeContainersClient,
};
use std::{io, path::Path, sync::Once};
use tokio::net::UnixStream;
use tonic::{
    Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint, Uri},
};

use crate::{
    failure::{Exit, Failure},
    out,
};

/// An answer may list every task of a large cluster.
const MAX_ANSWER_BYTES: usize = 256 << 20;

#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
}

impl Client {
    pub(crate) async fn connect(socket: &Path) -> Result<Self, Failure> {
        // The first connection is made here, so that what is wrong with the socket is told as it is.
        let first = UnixStream::connect(socket).await.map_err(|e| unreachable(socket, &e))?;
        let mut first = Some(first);
        let path = socket.to_owned();
        let channel = Endpoint::from_static("http://shoal.local")
            .connect_with_connector(tower::service_fn(move |_: Uri| {
                let (first, path) = (first.take(), path.clone());
                async move {
                    let stream = match first {
                        Some(stream) => stream,
                        None => UnixStream::connect(path).await?,
                    };
                    Ok::<_, io::Error>(TokioIo::new(stream))
                }
            }))
            .await
            .map_err(|e| {
                Failure::new(
                    Exit::NoManager,
                    format!("what listens at {} does not speak as a shoal daemon: {e}", socket.display()),
                )
            })?;
        Ok(Self { channel })
    }

    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    pub(crate) fn hosts(&self) -> HostControlClient<Channel> {
        HostControlClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    /// Containers as the managers have them; while none answers as their host has them, and that is said once.
    pub(crate) async fn list_containers(
        &self,
        asked: pb::ListContainersRequest,
    ) -> Result<Vec<pb::Container>, Failure> {
        static SAID: Once = Once::new();
        let reply = self.hosts().list_containers(asked).await?.into_inner();
        if !reply.known_by.is_empty() {
            SAID.call_once(|| {
                out::note(format!("no manager answers: this is what host {} knows itself", reply.known_by));
            });
        }
        Ok(reply.containers)
    }

    /// Those of the asked host, or of the named node.
    pub(crate) fn containers(&self, node: Option<u64>) -> NodeContainersClient<InterceptedService<Channel, OnNode>> {
        NodeContainersClient::with_interceptor(self.channel.clone(), OnNode(node))
    }

    pub(crate) fn local(&self) -> LocalNodeClient<Channel> {
        LocalNodeClient::new(self.channel.clone()).max_decoding_message_size(MAX_ANSWER_BYTES)
    }
}

fn unreachable(socket: &Path, e: &io::Error) -> Failure {
    let path = socket.display();
    match e.kind() {
        io::ErrorKind::PermissionDenied => {
            Failure::new(Exit::NotAllowed, format!("{path} is not open to this user: run the command as root"))
        }
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Failure::new(
            Exit::NoManager,
            format!("no shoal daemon answers at {path}: start one with 'shoal daemon' (or set SHOAL_HOST)"),
        ),
        _ => Failure::new(Exit::NoManager, format!("no shoal daemon answers at {path}: {e}")),
    }
}

/// In calls to a host's containers: the number of the node whose they are, if not the asked host's.
pub(crate) const ON_NODE: &str = "shoal-on-node";

/// Says so in each call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OnNode(Option<u64>);

impl Interceptor for OnNode {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(node) = self.0 {
            request.metadata_mut().insert(ON_NODE, node.into());
        }
        Ok(request)
    }
}

/// Drawn once per intent, so that a repeated request is known to be the same.
pub(crate) fn request_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_missing_daemon_is_said_with_its_mend() {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("no.sock");
        let f = Client::connect(&socket).await.expect_err("nobody listens");
        assert_eq!(f.exit, Exit::NoManager);
        let want = format!(
            "no shoal daemon answers at {}: start one with 'shoal daemon' (or set SHOAL_HOST)",
            socket.display()
        );
        assert_eq!(f.message, want);
    }

    #[test]
    fn a_request_id_is_32_hex_digits_and_never_the_same() {
        let (a, b) = (request_id(), request_id());
        assert!(a.len() == 32 && a.chars().all(|c| c.is_ascii_hexdigit()) && a != b);
    }
}
