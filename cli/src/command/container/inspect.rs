//! `inspect`: whatever bears the name.

use serde_json::Value;
use shoal_proto::pb;
use std::path::Path;

use crate::{
    args::container::Inspect,
    client::Client,
    command::{inspect_each, network::inspected},
    failure::{Exit, Failure},
    view,
};

pub(in crate::command) async fn run(host: &Path, a: &Inspect) -> Result<(), Failure> {
    let client = Client::connect(host).await?;
    let client = &client;
    inspect_each(a.format.format.as_ref(), &a.names, |name| async move {
        find(client, a, &name).await.map(|found| vec![found])
    })
    .await
}

async fn find(client: &Client, a: &Inspect, name: &str) -> Result<Value, Failure> {
    let mut missing = None;
    for kind in ["container", "network", "service", "node", "task"] {
        if a.kind.as_deref().is_some_and(|wanted| wanted != kind) {
            continue;
        }
        match of_kind(client, a, kind, name).await {
            Ok(found) => return Ok(found),
            // A host that is no manager knows containers and networks only.
            Err(f) if matches!(f.exit, Exit::NotFound | Exit::Conflict | Exit::Usage) && a.kind.is_none() => {
                missing.get_or_insert(f);
            }
            Err(f) => return Err(f),
        }
    }
    Err(match missing {
        Some(_) => {
            Failure::new(Exit::NotFound, format!("there is no container, network, service, node or task {name}"))
        }
        None => Failure::new(Exit::NotFound, format!("there is no {name}")),
    })
}

/// What its host says of one that runs.
async fn running(client: &Client, found: &pb::Container) -> Option<pb::ContainerStats> {
    if super::phase(found) != "running" || found.host_down {
        return None;
    }
    let request = pb::StatsRequest { containers: vec![found.id] };
    let stats = client.containers(Some(found.node)).stats(request).await.ok()?.into_inner();
    stats.containers.into_iter().next()
}

async fn of_kind(client: &Client, a: &Inspect, kind: &str, name: &str) -> Result<Value, Failure> {
    let none = || Failure::new(Exit::NotFound, format!("there is no {kind} {name}"));
    let names = vec![name.to_owned()];
    match kind {
        "container" => {
            let found = super::one(client, name, &a.on.node).await?;
            let (described, running) = tokio::join!(super::described(client, &found), running(client, &found));
            Ok(view::container::inspected(&found, described.as_ref(), running.as_ref()))
        }
        "network" => inspected(client, name, &a.on).await?.into_iter().next().ok_or_else(none),
        "service" => {
            let request = pb::ListServicesRequest { services: names };
            let found = client.control().list_services(request).await?.into_inner().services;
            found.first().map(view::service::inspected).ok_or_else(none)
        }
        "node" => {
            let request = pb::ListNodesRequest { nodes: names };
            let found = client.control().list_nodes(request).await?.into_inner().nodes;
            found.first().map(view::node::inspected).ok_or_else(none)
        }
        _ => {
            let found = client.control().list_tasks(pb::ListTasksRequest::default()).await?.into_inner().tasks;
            let task = found.iter().find(|t| t.name == name || format!("task-{}", t.id) == name);
            task.map(view::task::inspected).ok_or_else(none)
        }
    }
}
