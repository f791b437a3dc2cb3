//! `network …`.

use shoal_proto::pb;
use std::{
    io::{IsTerminal as _, Write as _},
    path::Path,
    time::Duration,
};

use super::{each, inspect_each, show};
use crate::{
    args::{
        container::{Connect, Disconnect, On},
        network::{Ls, Network, Prune},
    },
    client::{Client, request_id},
    failure::{Exit, Failure},
    out, spec,
    units::KeyValue,
    view::network::{Heard, inspected as shown, predefined, row},
};

/// After so long it is said what is waited for.
const SILENT: Duration = Duration::from_secs(1);
/// A host that takes longer is not waited for.
const CHECK_LIMIT: Duration = Duration::from_secs(5);

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
            inspect_each(
                i.format.format.as_ref(),
                &i.networks,
                |name| async move { inspected(client, &name, &i.on).await },
            )
            .await
        }
        Network::Rm(rm) => {
            each(&rm.networks, |name| async move {
                let request = pb::RemoveNetworkRequest { network: name.clone(), node: rm.on.node.clone() };
                let mut hosts = client.hosts();
                let waiting = async {
                    tokio::time::sleep(SILENT).await;
                    out::note(format!(
                        "network {name} is waited for: what is on it is ending, or no manager answers yet"
                    ));
                    std::future::pending().await
                };
                let removed = tokio::select! {
                    removed = hosts.remove_host_network(request) => removed,
                    never = waiting => never,
                };
                match removed {
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

pub(super) async fn inspected(client: &Client, name: &str, on: &On) -> Result<Vec<serde_json::Value>, Failure> {
    if let Some((name, driver)) = PREDEFINED.iter().find(|(known, _)| *known == name) {
        return Ok(vec![shown(&predefined(name, driver), &Heard::new())]);
    }
    let mut all = Vec::new();
    for network in list(client, &[name.to_owned()], on).await? {
        let heard = checked(client, &network).await;
        all.push(shown(&network, &heard));
    }
    Ok(all)
}

/// What each host of a network says of its kernel.
async fn checked(client: &Client, network: &pb::Network) -> Heard {
    let asked = network.hosts.iter().map(|host| async move {
        let request = pb::CheckNetworkRequest { network: network.id };
        let mut line = client.containers(Some(host.node));
        let said = match tokio::time::timeout(CHECK_LIMIT, line.check_network(request)).await {
            Ok(Ok(said)) => Ok(said.into_inner()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err(format!("no answer within {} s", CHECK_LIMIT.as_secs())),
        };
        (host.name.clone(), said)
    });
    futures::future::join_all(asked).await.into_iter().collect()
}

pub(super) async fn list(client: &Client, names: &[String], on: &On) -> Result<Vec<pb::Network>, Failure> {
    let request = pb::ListNetworksRequest { networks: names.to_vec(), node: on.node.clone() };
    Ok(client.hosts().list_host_networks(request).await?.into_inner().networks)
}

async fn ls(client: &Client, a: &Ls) -> Result<(), Failure> {
    a.rows.filter.iter().try_for_each(check)?;
    let mut networks = list(client, &[], &a.on).await?;
    networks.extend(PREDEFINED.map(|(name, driver)| predefined(name, driver)));
    for KeyValue { key, value } in &a.rows.filter {
        networks.retain(|n| fits(n, key, value));
    }
    let rows: Vec<_> = networks.iter().map(row).collect();
    let listing = &a.rows.listing;
    if listing.quiet {
        return rows.iter().filter(|n| !n.id.is_empty()).try_for_each(|n| out::line(&n.id));
    }
    show::rows(listing.format.as_ref(), "NETWORK ID", &rows, || {
        let cells = rows.iter().map(|n| {
            vec![n.id.clone(), n.name.clone(), n.driver.clone(), n.scope.clone(), n.subnets.replace(',', " ")]
        });
        out::table(&["NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNETS"], cells.collect())
    })
}

/// Known are only those that are let pass here.
fn check(filter: &KeyValue) -> Result<(), Failure> {
    let is_known = match filter.key.as_str() {
        "driver" | "name" | "id" | "label" => true,
        "scope" => ["swarm", "global", "local", "cluster"].contains(&filter.value.as_str()),
        "type" => ["builtin", "custom"].contains(&filter.value.as_str()),
        "dangling" => truth(&filter.value).is_some(),
        _ => false,
    };
    if is_known {
        return Ok(());
    }
    let known = "dangling=true|false, driver, id, label, name, scope=swarm|local and type=builtin|custom are known";
    Err(Failure::usage(format!("filter: \"{}={}\" is not accepted: {known}", filter.key, filter.value)))
}

fn fits(n: &pb::Network, key: &str, value: &str) -> bool {
    let row = row(n);
    match key {
        "driver" => row.driver == value,
        "name" => row.name.contains(value),
        "id" => row.id.starts_with(value),
        "scope" => row.scope == value || n.scope == value,
        "label" => n.spec.as_ref().is_some_and(|s| has_label(&s.labels, value)),
        "dangling" => truth(value) == Some(!is_predefined(n) && n.users.is_empty()),
        "type" => (value == "builtin") == is_predefined(n),
        _ => false,
    }
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn is_predefined(n: &pb::Network) -> bool {
    let is_default = |spec: &pb::NetworkSpec| spec.bridge.as_ref().is_some_and(|b| b.is_default);
    n.id == 0 || n.spec.as_ref().is_some_and(is_default)
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
    let request =
        pb::ConnectContainerRequest { container: Some(container), attachment: wish, request_id: request_id() };
    client.hosts().connect_container(request).await?;
    Ok(())
}

async fn disconnect(client: &Client, d: &Disconnect) -> Result<(), Failure> {
    let container = pb::ContainerRef { container: d.container.clone(), node: d.on.node.clone() };
    let request = pb::DisconnectContainerRequest {
        container: Some(container),
        network: d.network.clone(),
        request_id: request_id(),
    };
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
    let (mut failures, mut removed) = (Vec::new(), 0_usize);
    for network in list(client, &[], &on).await? {
        let spec = network.spec.clone().unwrap_or_default();
        let labelled = p.filter.iter().all(|f| has_label(&spec.labels, &f.value));
        if is_predefined(&network) || !network.users.is_empty() || !labelled {
            continue;
        }
        let request = pb::RemoveNetworkRequest { network: format!("net-{}", network.id), node: String::new() };
        match client.hosts().remove_host_network(request).await {
            Ok(_) => {
                if removed == 0 {
                    out::line("Deleted Networks:")?;
                }
                removed += 1;
                out::line(&spec.name)?;
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_a_value_that_something_could_have() {
        let filter = |key: &str, value: &str| KeyValue { key: key.into(), value: value.into() };
        for (key, value) in
            [("type", "builtin"), ("type", "custom"), ("scope", "swarm"), ("dangling", "0"), ("driver", "any")]
        {
            assert_eq!(check(&filter(key, value)), Ok(()), "{key}={value}");
        }
        for (key, value) in [("type", "zz"), ("scope", "zz"), ("dangling", "perhaps"), ("colour", "blue")] {
            let f = check(&filter(key, value)).expect_err(key);
            assert_eq!(f.exit, Exit::Usage);
            assert!(
                f.message.contains(&format!("\"{key}={value}\"")) && f.message.contains("type=builtin|custom"),
                "{f}"
            );
        }
    }
}
