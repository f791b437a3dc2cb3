//! `node …`.

use shoal_proto::pb;
use std::{collections::BTreeMap, path::Path};

use super::{cluster::resolve_self, each, inspect_each, show, tasks};
use crate::{
    args::{Listing, node::Node, node::Update},
    client::{Client, request_id},
    failure::Failure,
    out,
    view::node::{inspected, row},
};

pub(super) async fn run(host: &Path, verb: &Node) -> Result<(), Failure> {
    let client = &Client::connect(host).await?;
    match verb {
        Node::Ls(listing) => ls(client, listing).await,
        Node::Inspect(i) => {
            inspect_each(i.format.format.as_ref(), &i.names.nodes, |node| async move {
                Ok(list(client, &[node]).await?.iter().map(inspected).collect())
            })
            .await
        }
        Node::Promote(n) => set_role(client, &n.nodes, pb::Role::Manager).await,
        Node::Demote(n) => set_role(client, &n.nodes, pb::Role::Worker).await,
        Node::Update(u) => update(client, u).await,
        Node::Rm(rm) => {
            each(&rm.names.nodes, |name| async move {
                let node = resolve_self(client, &name).await?;
                client
                    .control()
                    .remove_node(pb::RemoveNodeRequest { node, force: rm.force, request_id: request_id() })
                    .await?;
                Ok(name)
            })
            .await
        }
        Node::Ps(ps) => {
            let own = vec!["self".to_owned()];
            let mut all = Vec::new();
            for node in if ps.nodes.is_empty() { &own } else { &ps.nodes } {
                let node = resolve_self(client, node).await?;
                let request = pb::ListTasksRequest { node, ..Default::default() };
                all.extend(client.control().list_tasks(request).await?.into_inner().tasks);
            }
            tasks::print(all, &ps.listing)
        }
    }
}

async fn list(client: &Client, names: &[String]) -> Result<Vec<pb::Node>, Failure> {
    let mut nodes = Vec::new();
    for name in names {
        nodes.push(resolve_self(client, name).await?);
    }
    Ok(client.control().list_nodes(pb::ListNodesRequest { nodes }).await?.into_inner().nodes)
}

async fn ls(client: &Client, listing: &Listing) -> Result<(), Failure> {
    let rows: Vec<_> = list(client, &[]).await?.iter().map(row).collect();
    if listing.quiet {
        return rows.iter().try_for_each(|n| out::line(&n.id));
    }
    show::rows(listing.format.as_ref(), "ID", &rows, || {
        let cells = rows.iter().map(|n| {
            let id = if n.is_self { format!("{} *", n.id) } else { n.id.clone() };
            let (status, availability) = (n.status.clone(), n.availability.clone());
            vec![id, n.hostname.clone(), status, availability, n.manager_status.clone(), n.engine_version.clone()]
        });
        out::table(&["ID", "HOSTNAME", "STATUS", "AVAILABILITY", "MANAGER STATUS", "VERSION"], cells.collect())
    })
}

async fn set_role(client: &Client, names: &[String], role: pb::Role) -> Result<(), Failure> {
    each(names, |name| async move {
        let node = resolve_self(client, &name).await?;
        let request = pb::UpdateNodeRequest { node, role: role.into(), request_id: request_id(), ..Default::default() };
        client.control().update_node(request).await?;
        Ok(match role {
            pb::Role::Manager => format!("Node {name} becomes a manager."),
            pb::Role::Worker | pb::Role::Unspecified => format!("Node {name} becomes a worker."),
        })
    })
    .await
}

async fn update(client: &Client, u: &Update) -> Result<(), Failure> {
    if u.availability.is_none() && u.role.is_none() && u.label_add.is_empty() && u.label_rm.is_empty() {
        return Err(Failure::usage("nothing to change: give --availability, --role, --label-add or --label-rm"));
    }
    let request = pb::UpdateNodeRequest {
        request_id: request_id(),
        node: resolve_self(client, &u.node).await?,
        availability: u.availability.map_or(0, |a| pb::Availability::from(a).into()),
        role: u.role.map_or(0, |r| pb::Role::from(r).into()),
        labels_add: u.label_add.iter().map(|l| (l.key.clone(), l.value.clone())).collect::<BTreeMap<_, _>>(),
        labels_remove: u.label_rm.clone(),
    };
    client.control().update_node(request).await?;
    out::line(&u.node)
}
