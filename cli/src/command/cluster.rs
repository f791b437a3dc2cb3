//! `init`, `join`, `join-token`, `leave`, `info`, `version`.

use serde::Serialize;
use shoal_common::node::Role;
use shoal_proto::{convert::enumerated, pb};
use std::path::Path;

use super::show;
use crate::{
    args::{
        Format,
        cluster::{Init, Join, JoinToken, Leave},
    },
    client::Client,
    failure::{Exit, Failure},
    out, view,
};

pub(super) async fn init(client: &Client, a: &Init) -> Result<(), Failure> {
    let request = pb::InitRequest {
        advertise_addr: a.advertise_addr.clone(),
        default_addr_pools: a.default_addr_pool.iter().map(ToString::to_string).collect(),
        default_addr_pool_mask_length: a.default_addr_pool_mask_length,
        data_path_port: a.data_path_port,
        availability: a.availability.to_string(),
    };
    let r = client.local().init(request).await?.into_inner();
    out::line(format!(
        "Cluster initialized: this host (node-{}) is now a manager.\n\n\
         To add a worker, run on another host:\n\n    shoal join --token {} {addr}\n\n\
         To add a manager, run on another host:\n\n    shoal join --token {} {addr}\n",
        r.node,
        r.worker_token,
        r.manager_token,
        addr = r.manager_addr,
    ))
}

pub(super) async fn join(client: &Client, a: &Join) -> Result<(), Failure> {
    let request = pb::JoinClusterRequest {
        token: a.token.clone(),
        remote: a.remote.clone(),
        advertise_addr: a.advertise_addr.clone(),
        availability: a.availability.to_string(),
    };
    let r = client.local().join_cluster(request).await?.into_inner();
    let role: Role = enumerated::<pb::Role, _>("role", r.role)?;
    out::line(format!("This host joined the cluster as a {role} (node-{}).", r.node))
}

pub(super) async fn join_token(client: &Client, a: &JoinToken) -> Result<(), Failure> {
    let request = pb::GetJoinTokenRequest { role: pb::Role::from(a.role).into(), rotate: a.rotate };
    let r = client.control().get_join_token(request).await?.into_inner();
    if a.quiet {
        return out::line(r.token);
    }
    if a.rotate {
        out::line(format!("The {} token was rotated: the old one opens nothing any more.\n", a.role))?;
    }
    out::line(format!(
        "To add a {}, run on another host:\n\n    shoal join --token {} {}\n",
        a.role, r.token, r.manager_addr
    ))
}

pub(super) async fn leave(client: &Client, a: &Leave) -> Result<(), Failure> {
    client.local().leave(pb::LeaveRequest { force: a.force }).await?;
    out::line("This host left the cluster.")
}

pub(super) async fn info(client: &Client, format: &Format) -> Result<(), Failure> {
    let host = view::Host::from(client.local().status(pb::StatusRequest {}).await?.into_inner());
    let cluster = if host.role == "manager" && host.message.is_empty() {
        match client.control().get_cluster(pb::GetClusterRequest {}).await {
            Ok(reply) => Some(view::Cluster::from(reply.into_inner())),
            Err(status) => {
                // A manager without a quorum can still say what it is.
                out::error(&Failure::from(status).message);
                None
            }
        }
    } else {
        None
    };
    let info = view::Info { host, cluster };
    show::one(format.format.as_ref(), &info.shown(), || words(&info))
}

fn words(info: &view::Info) -> Result<(), Failure> {
    let (h, c) = (&info.host, &info.cluster);
    let mut lines: Vec<(&str, String)> = vec![
        ("Host", h.hostname.clone()),
        ("Version", h.version.clone()),
        ("Cluster", if h.message.is_empty() { h.state.clone() } else { format!("{}: {}", h.state, h.message) }),
    ];
    if !h.warning.is_empty() {
        lines.push(("Warning", h.warning.clone()));
    }
    if c.as_ref().is_some_and(|c| c.managers == 2) {
        let why = "of two managers none may fail, for a majority of two is both: promote a third one";
        lines.push(("Warning", why.to_owned()));
    }
    if !h.node.is_empty() {
        lines.push(("Node", h.node.clone()));
        lines.push(("Role", h.role.clone()));
        lines.push(("Address", h.advertise_addr.clone()));
        lines.push(("Managers reached", if h.connected { "yes" } else { "no" }.to_owned()));
        let (reached, known) = (h.converged_generation, h.generation);
        let failed = if h.failed_operations == 0 {
            String::new()
        } else {
            format!(", {} operations failed", h.failed_operations)
        };
        lines.push(("Data plane", format!("at {reached} of {known}{failed}")));
        lines.push(("Certificate expires", h.certificate_expires.clone()));
    }
    lines.push(("Containers", format!("{} ({} running)", h.containers, h.containers_running)));
    lines.push(("Images", h.images.to_string()));
    lines.push(("Data directory", h.data_dir.clone()));
    if let Some(c) = c {
        lines.push(("Cluster id", c.id.clone()));
        lines.push(("Nodes", format!("{} ({} managers)", c.nodes, c.managers)));
        let leader = if c.leader.is_empty() { "none: no quorum" } else { &c.leader };
        lines.push(("Leader", format!("{leader} (term {}, index {})", c.term, c.applied)));
        lines.push(("Voters", c.voters.join(" ")));
        lines.push(("Address pools", format!("{} cut into /{}", c.address_pools.join(" "), c.subnet_prefix_len)));
        lines.push(("IPv6 prefix", c.ula_prefix.clone()));
        lines.push(("VXLAN port", c.data_path_port.to_string()));
        lines.push(("CA digest", c.ca_sha256.clone()));
    }
    lines.into_iter().try_for_each(|(what, value)| out::line(format!("{what}: {value}").trim_end()))
}

/// Of `version`, in Docker's words.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Versions {
    client: Version,
    /// Absent: no daemon answers.
    server: Option<Version>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    version: String,
}

pub(super) async fn version(host: &Path, format: &Format) -> Result<(), Failure> {
    let client = Version { version: env!("CARGO_PKG_VERSION").to_owned() };
    let answer = async { Ok::<_, Failure>(Client::connect(host).await?.local().status(pb::StatusRequest {}).await?) };
    let (server, failed) = match answer.await {
        Ok(status) => (Some(Version { version: status.into_inner().version }), None),
        // As Docker: what is known is printed, and scripts see that no daemon answers.
        Err(f) => (None, Some(Failure { exit: Exit::General, ..f })),
    };
    let versions = Versions { client, server };
    show::one(format.format.as_ref(), &versions, || {
        out::line(format!("Client: {}", versions.client.version))?;
        versions.server.as_ref().map_or(Ok(()), |s| out::line(format!("Daemon: {}", s.version)))
    })?;
    failed.map_or(Ok(()), Err)
}

/// `self`, and nothing else, is looked up here: managers do not know which host is asking.
pub(super) async fn resolve_self(client: &Client, node: &str) -> Result<String, Failure> {
    if node != "self" {
        return Ok(node.to_owned());
    }
    match client.local().status(pb::StatusRequest {}).await?.into_inner().node {
        0 => Err(Failure::new(Exit::NotFound, "this host is in no cluster: see 'shoal init' and 'shoal join'")),
        n => Ok(format!("node-{n}")),
    }
}
