//! `--link`, as Docker's legacy links were: a line in `/etc/hosts`, and variables that tell of the other's ports and
//! environment (`DB_NAME`, `DB_PORT_5432_TCP_ADDR`, `DB_ENV_PGDATA`).

use shoal_common::{Name, assignment::LinkAssignment, container::PublishedPort};

/// Under its alias, its hostname and its name.
pub(crate) fn hosts(link: &LinkAssignment) -> Vec<String> {
    let mut names = vec![link.alias.to_string()];
    for name in link.hostname.iter().cloned().chain([link.name.to_string()]) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let addresses = link.v4.map(|ip| ip.to_string()).into_iter().chain(link.v6.map(|ip| ip.to_string()));
    addresses.map(|ip| format!("{ip}\t{}", names.join(" "))).collect()
}

/// `of`: the container that has the link.
pub(crate) fn env(of: &Name, link: &LinkAssignment) -> Vec<(String, String)> {
    let alias = link.alias.as_str().to_ascii_uppercase().replace('-', "_");
    let mut env = vec![(format!("{alias}_NAME"), format!("/{of}/{}", link.alias))];
    if let Some(ip) = link.v4 {
        let mut ports: Vec<&PublishedPort> = link.ports.iter().collect();
        ports.sort_by_key(|p| (p.container_port, p.protocol));
        ports.dedup_by_key(|p| (p.container_port, p.protocol));
        if let Some(first) = ports.first() {
            env.push((format!("{alias}_PORT"), format!("{}://{ip}:{}", first.protocol, first.container_port)));
        }
        for port in ports {
            let (number, protocol) = (port.container_port, port.protocol);
            let prefix = format!("{alias}_PORT_{number}_{}", protocol.to_string().to_ascii_uppercase());
            env.push((prefix.clone(), format!("{protocol}://{ip}:{number}")));
            env.push((format!("{prefix}_ADDR"), ip.to_string()));
            env.push((format!("{prefix}_PORT"), number.to_string()));
            env.push((format!("{prefix}_PROTO"), protocol.to_string()));
        }
    }
    // Not what every container has.
    let own = link.env.iter().filter(|(name, _)| !matches!(name.as_str(), "HOME" | "PATH"));
    env.extend(own.map(|(name, value)| (format!("{alias}_ENV_{name}"), value.clone())));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_what_dockers_was() {
        let port = |container_port| PublishedPort {
            host_ip: None,
            host_port: 1,
            container_port,
            protocol: Default::default(),
        };
        let link = LinkAssignment {
            alias: "my-db".parse().unwrap(),
            name: "db1".parse().unwrap(),
            hostname: None,
            v4: Some([172, 17, 0, 5].into()),
            v6: None,
            env: [("PGDATA".to_owned(), "/data".to_owned()), ("PATH".to_owned(), "/bin".to_owned())].into(),
            ports: vec![port(5433), port(5432)],
        };
        assert_eq!(hosts(&link), ["172.17.0.5\tmy-db db1"]);
        let env = env(&"web".parse().unwrap(), &link);
        let text: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            text[..4],
            [
                "MY_DB_NAME=/web/my-db",
                "MY_DB_PORT=tcp://172.17.0.5:5432",
                "MY_DB_PORT_5432_TCP=tcp://172.17.0.5:5432",
                "MY_DB_PORT_5432_TCP_ADDR=172.17.0.5",
            ]
        );
        assert!(text.contains(&"MY_DB_PORT_5433_TCP_PROTO=tcp".to_owned()));
        assert_eq!(text.last().map(String::as_str), Some("MY_DB_ENV_PGDATA=/data"));
    }
}
