//! `ps` and `stats`: rows of containers.

use futures::future::join_all;
use serde_json::{Value, json};
use shoal_proto::pb;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::timeout;

use crate::{
    args::container::Ps,
    client::Client,
    command::{network::has_label, show},
    failure::Failure,
    out,
    progress::follow::now,
    units::KeyValue,
    view::{
        Form,
        container::{Row, row},
    },
};

pub(super) async fn ps(client: &Client, a: &Ps) -> Result<(), Failure> {
    a.rows.filter.iter().try_for_each(check)?;
    let request = pb::ListContainersRequest { containers: Vec::new(), node: a.on.node.clone(), all_nodes: a.all_nodes };
    let mut found = client.list_containers(request).await?;
    let described = descriptions(client, &found).await;
    // The newest first, as Docker.
    found.sort_by_key(|c| std::cmp::Reverse(c.id));
    let now = now().0;
    let last = a.last.or(a.latest.then_some(1));
    let asked_for_status = a.rows.filter.iter().any(|f| f.key == "status");
    let mut shown = Vec::new();
    for container in &found {
        let row = row(container, described.get(&container.id), now);
        let is_up = matches!(row.state.as_str(), "running" | "restarting");
        let mut wanted = a.all || last.is_some() || asked_for_status || is_up;
        for filter in &a.rows.filter {
            wanted &= fits(&row, &filter.key, &filter.value);
        }
        if wanted {
            shown.push(row);
        }
    }
    shown.truncate(last.unwrap_or(usize::MAX));
    let listing = &a.rows.listing;
    if listing.quiet {
        return shown.iter().try_for_each(|row| out::line(&row.id));
    }
    show::rows(listing.format.as_ref(), "CONTAINER ID", &shown, || {
        let mut header = vec!["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
        if a.all_nodes {
            header.push("NODE");
        }
        let cells = |row: &Row| {
            let mut cells =
                vec![&row.id, &row.image, &row.command, &row.running_for, &row.status, &row.ports, &row.names];
            if a.all_nodes {
                cells.push(&row.node);
            }
            cells.into_iter().cloned().collect()
        };
        out::table(&header, shown.iter().map(cells).collect())
    })
}

/// The rest of a list does not wait for one host.
const HOST_PATIENCE: Duration = Duration::from_secs(2);

/// What hosts say of their containers: those that can be asked, all at once.
pub(super) async fn descriptions(client: &Client, of: &[pb::Container]) -> BTreeMap<u64, pb::Description> {
    let mut by_node: BTreeMap<u64, Vec<pb::Asked>> = BTreeMap::new();
    for container in of.iter().filter(|c| !c.host_down) {
        let image = container.spec.clone().and_then(|s| s.container).unwrap_or_default().image;
        by_node.entry(container.node).or_default().push(pb::Asked { container: container.id, image });
    }
    let asked = by_node.into_iter().map(|(node, containers)| async move {
        let request = pb::DescribeContainersRequest { containers };
        timeout(HOST_PATIENCE, client.containers(Some(node)).describe_containers(request)).await
    });
    // Of a host that does not answer is shown what the managers know.
    let answers = join_all(asked).await.into_iter().flatten().flatten();
    answers.flat_map(|a| a.into_inner().containers).map(|d| (d.container, d)).collect()
}

/// Docker's: of paused and dead ones there are none here.
const STATUSES: [&str; 7] = ["created", "restarting", "running", "removing", "paused", "exited", "dead"];
const HEALTHS: [&str; 4] = ["starting", "healthy", "unhealthy", "none"];

/// Known are only those that are let pass here.
fn check(filter: &KeyValue) -> Result<(), Failure> {
    let KeyValue { key, value } = filter;
    let bad = |known: &str| Err(Failure::usage(format!("filter: \"{key}={value}\" is not accepted: {known}")));
    match key.as_str() {
        "name" | "id" | "network" | "ancestor" | "label" | "node" => Ok(()),
        "status" if STATUSES.contains(&value.as_str()) => Ok(()),
        "status" => bad(&format!("a status is one of {}", STATUSES.join(", "))),
        "health" if HEALTHS.contains(&value.as_str()) => Ok(()),
        "health" => bad(&format!("health is one of {}", HEALTHS.join(", "))),
        _ => bad("ancestor, health, id, label, name, network, node and status are known"),
    }
}

fn fits(row: &Row, key: &str, value: &str) -> bool {
    match key {
        "name" => row.names.contains(value),
        "id" => row.id == value,
        "status" => row.state == value,
        "health" => row.health == value,
        "network" => row.networks.split(',').any(|n| n == value),
        "ancestor" => row.image == value,
        "label" => has_label(&row.labels, value),
        "node" => row.node == value,
        _ => false,
    }
}

/// The containers of the asked host, and whether each runs.
pub(super) async fn of_host(
    client: &Client,
    names: &[String],
    node: &str,
) -> Result<Vec<(pb::Container, bool)>, Failure> {
    let request = pb::ListContainersRequest { containers: names.to_vec(), node: node.to_owned(), all_nodes: false };
    let found = client.list_containers(request).await?;
    let runs = |c: &pb::Container| c.status.as_ref().is_some_and(|s| s.phase == "running");
    Ok(found.into_iter().map(|c| (c.clone(), runs(&c))).filter(|(_, runs)| *runs || !names.is_empty()).collect())
}

pub(super) fn show_stats(
    known: &[(pb::Container, bool)],
    before: Option<&pb::StatsReply>,
    now: &pb::StatsReply,
    format: Option<&Form>,
) -> Result<(), Failure> {
    let values = known.iter().map(|(c, _)| {
        let used = |reply: &pb::StatsReply| reply.containers.iter().find(|s| s.container == c.id).cloned();
        let (then, stats) = (before.and_then(used), used(now).unwrap_or_default());
        let elapsed = before.map_or(0, |b| now.at_nanos.saturating_sub(b.at_nanos));
        let busy = then.map_or(0, |then| stats.cpu_nanos.saturating_sub(then.cpu_nanos));
        #[allow(clippy::cast_precision_loss, reason = "a percentage for people")]
        let percent = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
        let limit = match stats.memory_limit_bytes {
            0 => "-".to_owned(),
            bytes => mebibytes(bytes),
        };
        json!({
            "ID": format!("task-{}", c.id),
            "Name": c.spec.clone().unwrap_or_default().name,
            "CPUPerc": format!("{:.2}%", percent(busy, elapsed)),
            "MemUsage": format!("{} / {limit}", mebibytes(stats.memory_bytes)),
            "MemPerc": format!("{:.2}%", percent(stats.memory_bytes, stats.memory_limit_bytes)),
            "PIDs": stats.pids.to_string(),
        })
    });
    let values: Vec<Value> = values.collect();
    show::rows(format, "CONTAINER ID", &values, || {
        let key = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let keys = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "PIDs"];
        let header = ["CONTAINER ID", "NAME", "CPU %", "MEM USAGE / LIMIT", "MEM %", "PIDS"];
        out::table(&header, values.iter().map(|value| keys.map(|k| key(value, k)).to_vec()).collect())
    })
}

fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    format!("{}.{}MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_has_a_value_that_a_container_could_have() {
        let filter = |key: &str, value: &str| check(&KeyValue { key: key.into(), value: value.into() });
        for (key, value) in [("status", "running"), ("status", "paused"), ("health", "none"), ("ancestor", "web")] {
            assert_eq!(filter(key, value), Ok(()), "{key}={value}");
        }
        for (key, value, known) in [
            ("status", "foo", "created, restarting, running"),
            ("health", "foo", "unhealthy"),
            ("colour", "blue", "ancestor"),
        ] {
            let f = filter(key, value).expect_err(key);
            assert!(f.message.contains(&format!("\"{key}={value}\"")) && f.message.contains(known), "{f}");
        }
    }
}
