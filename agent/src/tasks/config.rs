//! What the runtime is told to start, out of what the managers want.

use shoal_common::{
    Name, TaskId,
    assignment::{ContainerAssignment, TaskAssignment},
    container::Networking,
    name::Labels,
    service::{ContainerSpec, Dns, HostAddress, Mount, MountSource},
    task::Endpoint,
};
use shoal_dns::RESOLVER_ADDRESS;
use shoal_runtime::{ContainerConfig, Options, image::RunConfig};
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, slice};

use super::links;
use crate::containers;

/// Of a service's task.
pub(crate) fn task(id: TaskId, task: &TaskAssignment, netns: PathBuf, host_resolv_conf: &str) -> ContainerConfig {
    let hostname = task.container.hostname.clone().unwrap_or_else(|| default_hostname(&task.name));
    ContainerConfig {
        id: containers::id(id),
        hosts: hosts(&task.container, &task.endpoints, &[], &hostname),
        resolv_conf: match task.endpoints.is_empty() {
            true => String::new(),
            false => resolv_conf(host_resolv_conf, &task.container.dns),
        },
        labels: labels(id, task),
        spec: task.container.clone(),
        resources: task.resources,
        netns,
        hostname,
        options: options(&task.container),
    }
}

/// A task's name as one label: `web-1` of `web.1`. A host name with a dot has a domain, and small C libraries search that
/// for every bare word: from `web.1`, busybox's `nslookup db` asks for `db.1`. A long service's name is cut, so that the
/// label has room for the slot (RFC 1035 §2.3.4; `sethostname` takes 64 bytes).
fn default_hostname(task_name: &str) -> String {
    let (service, slot) = task_name.split_once('.').unwrap_or((task_name, ""));
    let slot = if slot.is_empty() { String::new() } else { format!("-{}", slot.replace('.', "-")) };
    let room = Name::MAX_BYTES.saturating_sub(slot.len());
    let service = service.get(..room).map_or(service, |cut| cut.trim_end_matches(['-', '_']));
    format!("{service}{slot}")
}

/// Of a container that was run by hand.
pub(crate) fn by_hand(
    id: TaskId,
    container: &ContainerAssignment,
    netns: PathBuf,
    host: &HostFiles,
) -> ContainerConfig {
    let hostname = match (&container.spec.networking, &container.spec.container.hostname) {
        (_, Some(given)) => given.clone(),
        (Networking::Host, None) => host.hostname.clone(),
        (Networking::Own(_) | Networking::None, None) => container.spec.name.to_string(),
    };
    let mut spec = container.spec.container.clone();
    for link in &container.links {
        for (name, value) in links::env(&container.spec.name, link, host.images.get(&link.image)) {
            spec.env.entry(name).or_insert(value);
        }
    }
    let mut labels = spec.labels.clone();
    labels.extend([
        ("shoal.container.name".to_owned(), container.spec.name.to_string()),
        (containers::START_LABEL.to_owned(), container.start.to_string()),
    ]);
    ContainerConfig {
        id: containers::id(id),
        hosts: hosts_by_hand(container, &hostname),
        resolv_conf: match container.spec.networking {
            Networking::Own(_) => resolv_conf(&host.resolv_conf, &spec.dns),
            // Nobody is asked for them on its behalf.
            Networking::Host if spec.dns == Dns::default() => host.resolv_conf.clone(),
            Networking::Host => own_resolv_conf(&spec.dns),
            Networking::None => String::new(),
        },
        labels,
        resources: container.spec.resources,
        netns,
        hostname,
        options: Options {
            durable: true,
            host_network: container.spec.networking == Networking::Host,
            ..options(&spec)
        },
        spec,
    }
}

/// Its lines of `/etc/hosts`, as long as it is on these networks.
pub(crate) fn hosts_by_hand(container: &ContainerAssignment, hostname: &str) -> Vec<String> {
    let own = hosts(&container.spec.container, &container.endpoints, &container.gateways, hostname);
    own.into_iter().chain(container.links.iter().flat_map(links::hosts)).collect()
}

/// What a container has of its host's.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostFiles {
    pub(crate) hostname: String,
    pub(crate) resolv_conf: String,
    /// Of the containers that it is linked to, as far as they are here.
    pub(crate) images: BTreeMap<String, RunConfig>,
}

fn options(spec: &ContainerSpec) -> Options {
    let mount = |m: &Mount| shoal_runtime::Mount {
        source: match &m.source {
            MountSource::Bind(path) => shoal_runtime::MountSource::Bind(path.into()),
            MountSource::Volume(name) | MountSource::Anonymous(name) => {
                shoal_runtime::MountSource::Volume(name.to_string())
            }
            MountSource::Tmpfs => shoal_runtime::MountSource::Tmpfs { size: None },
        },
        target: (&m.target).into(),
        read_only: m.read_only,
    };
    Options {
        tty: spec.terminal.tty,
        stdin: spec.terminal.stdin,
        mounts: spec.mounts.iter().map(mount).collect(),
        cap_add: spec.privileges.cap_add.clone(),
        cap_drop: spec.privileges.cap_drop.clone(),
        privileged: spec.privileges.privileged,
        read_only: spec.privileges.read_only,
        stop_signal: spec.stop_signal.clone(),
        ..Options::default()
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
fn hosts(spec: &ContainerSpec, endpoints: &[Endpoint], gateways: &[IpAddr], hostname: &str) -> Vec<String> {
    let names = match hostname.split_once('.') {
        Some((short, _)) => format!("{hostname} {short}"),
        None => hostname.to_owned(),
    };
    let extra = spec.extra_hosts.iter().flat_map(|(name, at)| {
        let ips = match at {
            HostAddress::At(ip) => slice::from_ref(ip),
            HostAddress::Gateway => gateways,
        };
        ips.iter().map(move |ip| format!("{ip}\t{name}"))
    });
    extra.chain(endpoints.iter().flat_map(|e| e.addresses()).map(|ip| format!("{ip}\t{names}"))).collect()
}

/// Our resolver, and the host's search list unless the container has one of its own. Servers of its own are asked by
/// our resolver.
fn resolv_conf(host: &str, dns: &Dns) -> String {
    let options = if dns.options.is_empty() { "ndots:0".to_owned() } else { dns.options.join(" ") };
    if !dns.search.is_empty() {
        return format!("nameserver {RESOLVER_ADDRESS}\n{}options {options}\n", search_line(&dns.search));
    }
    let search = host.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        // resolv.conf(5): of several such lines the last one counts.
        matches!(words.next(), Some("search" | "domain")).then(|| words.collect::<Vec<_>>().join(" "))
    });
    let search = search.filter(|s| !s.is_empty() && s != ".").map(|s| format!("search {s}\n")).unwrap_or_default();
    format!("nameserver {RESOLVER_ADDRESS}\n{search}options {options}\n")
}

/// `--dns-search .` means none.
fn search_line(domains: &[String]) -> String {
    if domains == ["."] { String::new() } else { format!("search {}\n", domains.join(" ")) }
}

/// For a container in the host's network: nobody stands between it and its servers.
fn own_resolv_conf(dns: &Dns) -> String {
    let servers: String = dns.servers.iter().map(|ip| format!("nameserver {ip}\n")).collect();
    let search = if dns.search.is_empty() { String::new() } else { search_line(&dns.search) };
    let options = if dns.options.is_empty() { String::new() } else { format!("options {}\n", dns.options.join(" ")) };
    servers + &search + &options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_task_is_called_by_one_label_that_the_kernel_takes() {
        let long = "a".repeat(60) + "-bc";
        for (task, hostname) in [
            ("web.1", "web-1".to_owned()),
            ("shop_web.12", "shop_web-12".to_owned()),
            ("web.node-7", "web-node-7".to_owned()),
            (&format!("{long}.7"), "a".repeat(60) + "-7"),
            (&format!("{long}.node-123"), "a".repeat(54) + "-node-123"),
        ] {
            assert_eq!(default_hostname(task), hostname);
            assert!(hostname.len() <= 63 && !hostname.contains('.'));
        }
    }

    #[test]
    fn a_container_knows_itself_by_its_tasks_name_or_the_hostname_given() {
        let mut task = fixture::task(1);
        let config = super::task(TaskId(1), &task, "/ns".into(), "");
        assert_eq!((config.id.as_str(), config.hostname.as_str()), ("task-1", "web-1"));
        assert_eq!(config.hosts, ["10.0.1.11\tweb-1"]);
        assert_eq!(config.labels.get("shoal.service.name").map(String::as_str), Some("web"));

        task.container.hostname = Some("db.example.com".to_owned());
        let config = super::task(TaskId(1), &task, "/ns".into(), "");
        assert_eq!(config.hostname, "db.example.com");
        assert_eq!(config.hosts, ["10.0.1.11\tdb.example.com db"]);
    }

    #[test]
    fn a_container_finds_its_host_where_its_default_bridge_is() {
        let mut container = fixture::container(1);
        let nas: IpAddr = [192, 0, 2, 9].into();
        container.spec.container.extra_hosts =
            vec![("up".to_owned(), HostAddress::Gateway), ("nas".to_owned(), HostAddress::At(nas))];
        let lines = hosts_by_hand(&container, "db");
        assert_eq!(lines, ["172.17.0.1\tup", "192.0.2.9\tnas", "10.0.1.11\tdb"]);
    }

    #[test]
    fn a_container_asks_our_resolver_and_searches_where_its_host_does() {
        let resolv_conf = |host: &str| resolv_conf(host, &Dns::default());
        assert_eq!(resolv_conf("nameserver 10.0.0.2\n"), "nameserver 127.0.0.11\noptions ndots:0\n");
        let host = "domain old.example\nsearch a.example b.example\nnameserver 10.0.0.2\n";
        assert_eq!(resolv_conf(host), "nameserver 127.0.0.11\nsearch a.example b.example\noptions ndots:0\n");
        assert_eq!(resolv_conf("search .\n"), "nameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn a_container_on_no_network_has_no_resolver() {
        let task = shoal_common::assignment::TaskAssignment { endpoints: vec![], ..fixture::task(1) };
        let config = super::task(TaskId(1), &task, "/ns".into(), "search a.example\n");
        assert_eq!((config.resolv_conf.as_str(), config.hosts.len()), ("", 0));
    }
}
