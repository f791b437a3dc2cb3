//! What the runtime is told to start, out of what the managers want.

use shoal_common::{TaskId, assignment::TaskAssignment, name::Labels};
use shoal_dns::RESOLVER_ADDRESS;
use shoal_runtime::ContainerConfig;
use std::path::PathBuf;

use crate::containers;

pub(crate) fn container(id: TaskId, task: &TaskAssignment, netns: PathBuf, host_resolv_conf: &str) -> ContainerConfig {
    let hostname = task.container.hostname.clone().unwrap_or_else(|| task.name.clone());
    ContainerConfig {
        id: containers::id(id),
        hosts: hosts(task, &hostname),
        resolv_conf: if task.endpoints.is_empty() { String::new() } else { resolv_conf(host_resolv_conf) },
        labels: labels(id, task),
        spec: task.container.clone(),
        resources: task.resources,
        netns,
        hostname,
    }
}

/// Containers tell by these whose they are.
fn labels(id: TaskId, task: &TaskAssignment) -> Labels {
    let mut labels = task.container.labels.clone();
    labels.extend([
        ("shoal.task".to_owned(), id.to_string()),
        ("shoal.task.name".to_owned(), task.name.clone()),
        ("shoal.service".to_owned(), task.service.to_string()),
        ("shoal.service.name".to_owned(), task.service_name.to_string()),
    ]);
    labels
}

/// The container under its own name, on each of its addresses: as Docker, the whole name first.
fn hosts(task: &TaskAssignment, hostname: &str) -> Vec<String> {
    let names = match hostname.split_once('.') {
        // A task's default name, `web.1`, has a dot and is no domain name.
        Some((short, _)) if task.container.hostname.is_some() => format!("{hostname} {short}"),
        Some(_) | None => hostname.to_owned(),
    };
    task.endpoints.iter().flat_map(|e| e.addresses()).map(|ip| format!("{ip}\t{names}")).collect()
}

/// Our resolver, and the host's search list.
fn resolv_conf(host: &str) -> String {
    let search = host.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        // resolv.conf(5): of several such lines the last one counts.
        matches!(words.next(), Some("search" | "domain")).then(|| words.collect::<Vec<_>>().join(" "))
    });
    let search = search.filter(|s| !s.is_empty() && s != ".").map(|s| format!("search {s}\n")).unwrap_or_default();
    format!("nameserver {RESOLVER_ADDRESS}\n{search}options ndots:0\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_container_knows_itself_by_its_tasks_name_or_the_hostname_given() {
        let mut task = fixture::task(1);
        let config = container(TaskId(1), &task, "/ns".into(), "");
        assert_eq!((config.id.as_str(), config.hostname.as_str()), ("task-1", "web.1"));
        assert_eq!(config.hosts, ["10.0.1.11\tweb.1"]);
        assert_eq!(config.labels.get("shoal.service.name").map(String::as_str), Some("web"));

        task.container.hostname = Some("db.example.com".to_owned());
        let config = container(TaskId(1), &task, "/ns".into(), "");
        assert_eq!(config.hostname, "db.example.com");
        assert_eq!(config.hosts, ["10.0.1.11\tdb.example.com db"]);
    }

    #[test]
    fn a_container_asks_our_resolver_and_searches_where_its_host_does() {
        assert_eq!(resolv_conf("nameserver 10.0.0.2\n"), "nameserver 127.0.0.11\noptions ndots:0\n");
        let host = "domain old.example\nsearch a.example b.example\nnameserver 10.0.0.2\n";
        assert_eq!(resolv_conf(host), "nameserver 127.0.0.11\nsearch a.example b.example\noptions ndots:0\n");
        assert_eq!(resolv_conf("search .\n"), "nameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn a_container_on_no_network_has_no_resolver() {
        let task = shoal_common::assignment::TaskAssignment { endpoints: vec![], ..fixture::task(1) };
        let config = container(TaskId(1), &task, "/ns".into(), "search a.example\n");
        assert_eq!((config.resolv_conf.as_str(), config.hosts.len()), ("", 0));
    }
}
