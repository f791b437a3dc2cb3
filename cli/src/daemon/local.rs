//! What the local socket offers beside the cluster's API: this host's own matters.

use futures::{Stream, StreamExt as _};
use ipnet::Ipv4Net;
use shoal_common::{Invalid, node::Availability};
use shoal_proto::pb::{self, local_node_server::LocalNode};
use shoal_rt::JoinToken;
use shoal_runtime::{ContainerState, Error, Image, Images};
use std::{io, pin::Pin, sync::Arc};
use tokio_util::io::{StreamReader, SyncIoBridge};
use tonic::{Code, Request, Response, Status, Streaming};

use super::cluster::{Cluster, Init};

pub(crate) struct Local(pub(crate) Arc<Cluster>);

impl Local {
    fn images(&self) -> &Images {
        self.0.host().runtime().images()
    }
}

fn invalid(field: &'static str, value: impl std::fmt::Display, expected: &'static str) -> Status {
    Status::invalid_argument(Invalid::new(field, value, expected).to_string())
}

fn availability(text: &str) -> Result<Availability, Status> {
    if text.is_empty() {
        return Ok(Availability::Active);
    }
    text.parse().map_err(|e: Invalid| Status::invalid_argument(e.to_string()))
}

#[tonic::async_trait]
impl LocalNode for Local {
    async fn init(&self, request: Request<pb::InitRequest>) -> Result<Response<pb::InitReply>, Status> {
        let r = request.into_inner();
        let mut address_pools = Vec::new();
        for pool in &r.default_addr_pools {
            let pool: Ipv4Net =
                pool.parse().map_err(|_| invalid("default-addr-pool", pool, "an IPv4 subnet, like 10.0.0.0/8"))?;
            address_pools.push(pool);
        }
        if address_pools.is_empty() {
            address_pools.push(Ipv4Net::new_assert([10, 0, 0, 0].into(), 8));
        }
        let subnet_prefix_len = match r.default_addr_pool_mask_length {
            0 => 24,
            n => u8::try_from(n).map_err(|_| invalid("default-addr-pool-mask-length", n, "8 to 29"))?,
        };
        let data_path_port = match r.data_path_port {
            0 => None,
            n => Some(u16::try_from(n).map_err(|_| invalid("data-path-port", n, "1024 to 49151"))?),
        };
        let init = Init {
            advertise_addr: r.advertise_addr,
            address_pools,
            subnet_prefix_len,
            data_path_port,
            availability: availability(&r.availability)?,
        };
        let done = self.0.init(init).await?;
        Ok(Response::new(pb::InitReply {
            node: done.node.0,
            worker_token: done.worker_token.to_string(),
            manager_token: done.manager_token.to_string(),
            manager_addr: done.control_addr.to_string(),
        }))
    }

    async fn join_cluster(
        &self,
        request: Request<pb::JoinClusterRequest>,
    ) -> Result<Response<pb::JoinClusterReply>, Status> {
        let r = request.into_inner();
        let token: JoinToken = r.token.parse().map_err(|e: Invalid| Status::invalid_argument(e.to_string()))?;
        let wanted = availability(&r.availability)?;
        let (node, role) = self.0.join(&token, &r.remote, &r.advertise_addr, wanted).await?;
        Ok(Response::new(pb::JoinClusterReply { node: node.0, role: pb::Role::from(role).into() }))
    }

    async fn leave(&self, request: Request<pb::LeaveRequest>) -> Result<Response<pb::LeaveReply>, Status> {
        self.0.leave(request.into_inner().force).await?;
        Ok(Response::new(pb::LeaveReply {}))
    }

    async fn status(&self, _: Request<pb::StatusRequest>) -> Result<Response<pb::StatusReply>, Status> {
        let containers = self.0.host().runtime().list();
        let running = containers.iter().filter(|c| matches!(c.state, ContainerState::Running { .. })).count();
        let images = self.images().ls().await.map_err(refused)?.len();
        let hostname = nix::unistd::gethostname().map_or_else(|_| String::new(), |h| h.to_string_lossy().into_owned());
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let mut reply = pb::StatusReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname,
            state: "inactive".to_owned(),
            data_dir: self.0.config().data_dir.display().to_string(),
            containers_running: count(running),
            containers: count(containers.len()),
            images: count(images),
            ..pb::StatusReply::default()
        };
        if let Some(standing) = self.0.standing().await {
            let agent = standing.agent;
            let fault = self.0.seats().fault();
            (reply.state, reply.message) = if let Some(fault) = fault {
                ("active".to_owned(), fault.why)
            } else if agent.removed {
                ("error".to_owned(), super::cluster::REMOVED.to_owned())
            } else {
                ("active".to_owned(), agent.memory.unwrap_or_default())
            };
            reply.node = standing.node.0;
            reply.role = pb::Role::from(standing.role).into();
            reply.advertise_addr = standing.control_addr.to_string();
            reply.generation = agent.generation.0;
            reply.converged_generation = agent.converged_generation.0;
            reply.connected = agent.connected;
            reply.failed_operations = agent.failed_operations;
            reply.certificate_expires_ms = standing.expires.0;
            reply.warning = self.0.space_warning();
        } else if let Some(fault) = self.0.seats().fault() {
            (reply.state, reply.message) = ("error".to_owned(), fault.why);
        }
        Ok(Response::new(reply))
    }

    async fn pull_image(&self, request: Request<pb::PullImageRequest>) -> Result<Response<pb::ImageReply>, Status> {
        let reference = request.into_inner().reference;
        let image = self.images().pull(&reference).await.map_err(refused)?;
        Ok(Response::new(pb::ImageReply { image: Some(shown(&image, vec![reference])) }))
    }

    async fn load_image(
        &self,
        request: Request<Streaming<pb::ImageChunk>>,
    ) -> Result<Response<pb::ListImagesReply>, Status> {
        let archive = SyncIoBridge::new(StreamReader::new(pieces(request.into_inner(), None)));
        let loaded = self.images().load(archive).await.map_err(refused)?;
        let images = loaded.iter().map(|(name, image)| shown(image, vec![name.to_string()])).collect();
        Ok(Response::new(pb::ListImagesReply { images }))
    }

    async fn import_image(
        &self,
        request: Request<Streaming<pb::ImageChunk>>,
    ) -> Result<Response<pb::ImageReply>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.unwrap_or_default();
        let options = first.import.ok_or_else(|| invalid("import", "nothing", "options in the first piece"))?;
        let archive = SyncIoBridge::new(StreamReader::new(pieces(chunks, Some(first.data))));
        let reference = options.reference;
        let image = self.images().import(archive, &reference, options.changes).await.map_err(refused)?;
        Ok(Response::new(pb::ImageReply { image: Some(shown(&image, vec![reference])) }))
    }

    async fn list_images(&self, _: Request<pb::ListImagesRequest>) -> Result<Response<pb::ListImagesReply>, Status> {
        let images = self.images().ls().await.map_err(refused)?;
        let images = images
            .into_iter()
            .map(|i| pb::Image {
                id: i.id,
                references: vec![i.reference],
                size_bytes: i.size_bytes,
                created_ms: created_ms(i.created.as_deref()),
            })
            .collect();
        Ok(Response::new(pb::ListImagesReply { images }))
    }

    async fn remove_image(
        &self,
        request: Request<pb::RemoveImageRequest>,
    ) -> Result<Response<pb::RemoveImageReply>, Status> {
        self.0.host().runtime().remove_image(&request.into_inner().reference).await.map_err(refused)?;
        Ok(Response::new(pb::RemoveImageReply {}))
    }
}

type Bytes = tonic::codegen::Bytes;

/// The bytes of an archive that arrives in pieces.
fn pieces(
    chunks: Streaming<pb::ImageChunk>,
    first: Option<Vec<u8>>,
) -> Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>> {
    let first = futures::stream::iter(first.map(|data| Ok(Bytes::from(data))));
    let rest = chunks.map(|chunk| chunk.map(|c| Bytes::from(c.data)).map_err(io::Error::other));
    Box::pin(first.chain(rest))
}

fn shown(image: &Image, references: Vec<String>) -> pb::Image {
    pb::Image {
        id: image.id.clone(),
        references,
        size_bytes: 0,
        created_ms: created_ms(image.config.created.as_deref()),
    }
}

/// RFC 3339, as image configurations have it; 0 for what is none.
fn created_ms(created: Option<&str>) -> u64 {
    let parsed = created.and_then(|text| humantime::parse_rfc3339(text).ok());
    let since = parsed.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    since.map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

fn refused(error: Error) -> Status {
    let code = match &error {
        Error::Reference(_) => Code::InvalidArgument,
        Error::NoSuchImage(_) => Code::NotFound,
        _ => Code::FailedPrecondition,
    };
    Status::new(code, format!("{:#}", anyhow::Error::new(error)))
}
