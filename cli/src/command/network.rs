//! `network …`.

use shoal_proto::pb;
use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
};

use super::each;
use crate::{
    args::{
        container::{Connect, Disconnect, On},
        network::{Ls, Network, Prune},
    },
    client::{Client, request_id},
    failure::{Exit, Failure},
    out, spec,
    view::{self, template::Template},
};

/// What every host has besides its bridge, by name and driver: they hold nothing, so no manager knows of them.
const PREDEFINED: [(&str, &str); 2] = [("host", "host"), ("none", "null")];

pub(super) async fn run(host: &Path, verb: &Network) -> Result<(), Failure> {
    // What is wrong with the arguments is told whether or not a daemon answers.
    let created = match verb {
        Network::Create(c) => Some(spec::network::spec(c)?),
        _ => None,
    };
    let connected = match verb {
        Network::Connect(c) => Some(spec::run::connected(c)?),
        _ => None,
    };
    let client = &Client::connect(host).await?;
    match verb {
        Network::Create(_) => {
            let request = pb::CreateNetworkRequest { spec: created, request_id: request_id() };
            let id = client.hosts().create_host_network(request).await?.into_inner().id;
            out::line(format!("net-{id}"))
        }
        Network::Ls(a) => ls(client, a).await,
        Network::Inspect(i) => {
            let networks = inspected(client, &i.networks, &i.on).await?;
            show(&networks, i.format.as_deref())
        }
        Network::Rm(rm) => {
            each(&rm.networks, |name| async move {
                let request = pb::RemoveNetworkRequest { network: name.clone(), node: rm.on.node.clone() };
                match client.hosts().remove_host_network(request).await {
                    Ok(_) => Ok(name),
                    Err(s) if rm.force && s.code() == tonic::Code::NotFound => Ok(name),
                    Err(s) => Err(s.into()),
                }
            })
            .await
        }
        Network::Connect(c) => connect(client, c, connected).await,
        Network::Disconnect(d) => disconnect(client, d).await,
        Network::Prune(p) => prune(client, p).await,
    }
}

/// What `inspect` prints: by a template, or as an array.
pub(super) fn show(values: &[serde_json::Value], format: Option<&str>) -> Result<(), Failure> {
    match format {
        None => out::json_array(values),
        Some("json") => values.iter().try_for_each(out::json),
        Some(template) => {
            let template = Template::parse(template)?;
            values.iter().try_for_each(|value| out::line(template.render(value)?))
        }
    }
}

pub(super) async fn inspected(client: &Client, names: &[String], on: &On) -> Result<Vec<serde_json::Value>, Failure> {
    let mut all = Vec::new();
    for name in names {
        match PREDEFINED.iter().find(|(known, _)| known == name) {
            Some((name, driver)) => all.push(view::Network::predefined(name, driver).fields()),
            None => all.extend(list(client, std::slice::from_ref(name), on).await?.iter().map(view::Network::fields)),
        }
    }
    Ok(all)
}

pub(super) async fn list(client: &Client, names: &[String], on: &On) -> Result<Vec<view::Network>, Failure> {
    let request = pb::ListNetworksRequest { networks: names.to_vec(), node: on.node.clone() };
    let reply = client.hosts().list_host_networks(request).await?.into_inner();
    Ok(reply.networks.into_iter().map(Into::into).collect())
}

async fn ls(client: &Client, a: &Ls) -> Result<(), Failure> {
    let mut networks = list(client, &[], &a.on).await?;
    networks.extend(PREDEFINED.map(|(name, driver)| view::Network::predefined(name, driver)));
    for filter in &a.rows.filter {
        let wanted = |n: &view::Network| match filter.key.as_str() {
            "driver" => Some(n.driver == filter.value),
            "name" => Some(n.name.contains(&filter.value)),
            "id" => Some(n.id.starts_with(&filter.value)),
            "scope" => Some(n.scope == filter.value || (filter.value == "swarm" && n.scope == "cluster")),
            "label" => Some(has_label(&n.labels, &filter.value)),
            "type" => Some((filter.value == "builtin") == is_predefined(n)),
            _ => None,
        };
        if networks.first().is_some_and(|n| wanted(n).is_none()) {
            let known = "driver, id, label, name, scope and type are known";
            return Err(Failure::usage(format!("filter: {:?} is not accepted: {known}", filter.key)));
        }
        networks.retain(|n| wanted(n).unwrap_or(true));
    }
    if a.rows.quiet {
        return networks.iter().filter(|n| !n.id.is_empty()).try_for_each(|n| out::line(&n.id));
    }
    match a.rows.format.as_deref() {
        Some("json") => networks.iter().try_for_each(out::json),
        Some(template) => super::rows(template, networks.iter().map(view::Network::fields)),
        None => {
            let rows = networks.iter().map(|n| {
                let subnets: Vec<&str> = n.subnets.iter().map(|s| s.subnet.as_str()).collect();
                vec![n.id.clone(), n.name.clone(), n.driver.clone(), n.scope.clone(), subnets.join(" ")]
            });
            out::table(&["NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNETS"], rows.collect())
        }
    }
}

fn is_predefined(n: &view::Network) -> bool {
    n.id.is_empty() || n.options.contains_key("com.docker.network.bridge.default_bridge")
}

/// `KEY` or `KEY=VALUE`.
pub(super) fn has_label(labels: &std::collections::BTreeMap<String, String>, wanted: &str) -> bool {
    match wanted.split_once('=') {
        Some((key, value)) => labels.get(key).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

async fn connect(client: &Client, c: &Connect, wish: Option<pb::Attachment>) -> Result<(), Failure> {
    let container = pb::ContainerRef { container: c.container.clone(), node: c.on.node.clone() };
    let request = pb::ConnectContainerRequest { container: Some(container), attachment: wish };
    client.hosts().connect_container(request).await?;
    Ok(())
}

async fn disconnect(client: &Client, d: &Disconnect) -> Result<(), Failure> {
    let container = pb::ContainerRef { container: d.container.clone(), node: d.on.node.clone() };
    let request = pb::DisconnectContainerRequest { container: Some(container), network: d.network.clone() };
    client.hosts().disconnect_container(request).await?;
    Ok(())
}

async fn prune(client: &Client, p: &Prune) -> Result<(), Failure> {
    for filter in &p.filter {
        if filter.key != "label" {
            return Err(Failure::usage(format!("filter: {:?} is not accepted: label is known", filter.key)));
        }
    }
    if !p.force {
        if !std::io::stdin().is_terminal() {
            return Err(Failure::usage("prune removes all networks that nobody uses: pass --force if that is meant"));
        }
        out::note("This removes all networks that nobody uses. Go on? [y/N]");
        std::io::stderr().flush()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
    }
    let on = On::default();
    let mut failures = Vec::new();
    for network in list(client, &[], &on).await? {
        let labelled = p.filter.iter().all(|f| has_label(&network.labels, &f.value));
        if is_predefined(&network) || !network.users.is_empty() || !labelled {
            continue;
        }
        let request = pb::RemoveNetworkRequest { network: network.id.clone(), node: String::new() };
        match client.hosts().remove_host_network(request).await {
            Ok(_) => out::line(&network.name)?,
            // A service without tasks uses it.
            Err(s) if s.code() == tonic::Code::FailedPrecondition => {}
            // What is the cluster's is a manager's to remove.
            Err(s) if s.code() == tonic::Code::PermissionDenied => {}
            Err(s) => failures.push(Failure::from(s)),
        }
    }
    match failures.into_iter().next() {
        None => Ok(()),
        Some(first) => Err(Failure::new(Exit::General, first.message)),
    }
}
