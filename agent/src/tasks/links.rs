//! `--link`, as Docker's legacy links were: a line in `/etc/hosts`, and variables that tell of the other's ports and
//! environment, its image's included (`DB_NAME`, `DB_PORT_5432_TCP_ADDR`, `DB_ENV_PGDATA`).

use shoal_common::{Name, assignment::LinkAssignment, container::ExposedPort};
use shoal_runtime::{Images, image::RunConfig};
use std::collections::{BTreeMap, BTreeSet};

use crate::chain;

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

/// What is known of the images of the others.
pub(crate) fn images(here: &Images, links: &[LinkAssignment]) -> BTreeMap<String, RunConfig> {
    let found = links.iter().filter_map(|link| match here.inspect(&link.image) {
        Ok(image) => Some((link.image.clone(), image.config.config)),
        Err(error) => {
            let why = chain(&error);
            tracing::warn!(alias = %link.alias, "what its image says is not told to who is linked to it: {why}");
            None
        }
    });
    found.collect()
}

/// `of`: the container that has the link. `image`: the other's.
pub(crate) fn env(of: &Name, link: &LinkAssignment, image: Option<&RunConfig>) -> Vec<(String, String)> {
    let alias = link.alias.as_str().to_ascii_uppercase().replace('-', "_");
    let mut env = vec![(format!("{alias}_NAME"), format!("/{of}/{}", link.alias))];
    if let Some(ip) = link.v4 {
        let of_image = image.and_then(|image| image.exposed_ports.as_ref()).into_iter().flat_map(BTreeMap::keys);
        // What an image says that is no port is not listened at either.
        let of_image = of_image.filter_map(|port| port.parse::<ExposedPort>().ok());
        let ports: BTreeSet<ExposedPort> = link.exposed.iter().copied().chain(of_image).collect();
        if let Some(first) = ports.first() {
            env.push((format!("{alias}_PORT"), format!("{}://{ip}:{}", first.protocol, first.number)));
        }
        for ExposedPort { number, protocol } in ports {
            let prefix = format!("{alias}_PORT_{number}_{}", protocol.to_string().to_ascii_uppercase());
            env.push((prefix.clone(), format!("{protocol}://{ip}:{number}")));
            env.push((format!("{prefix}_ADDR"), ip.to_string()));
            env.push((format!("{prefix}_PORT"), number.to_string()));
            env.push((format!("{prefix}_PROTO"), protocol.to_string()));
        }
    }
    let of_image = image.and_then(|image| image.env.as_ref()).into_iter().flatten();
    let mut theirs: BTreeMap<&str, &str> = of_image.filter_map(|line| line.split_once('=')).collect();
    theirs.extend(link.env.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    // Not what every container has.
    theirs.retain(|name, _| !matches!(*name, "HOME" | "HOSTNAME" | "PATH"));
    env.extend(theirs.into_iter().map(|(name, value)| (format!("{alias}_ENV_{name}"), value.to_owned())));
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_what_dockers_was() {
        let image = RunConfig {
            exposed_ports: Some([("80/udp".to_owned(), BTreeMap::new()), ("x".to_owned(), BTreeMap::new())].into()),
            env: Some(vec!["FOO=bar=1".to_owned(), "PGDATA=/var".to_owned(), "HOSTNAME=db".to_owned()]),
            ..RunConfig::default()
        };
        let link = LinkAssignment {
            alias: "my-db".parse().unwrap(),
            name: "db1".parse().unwrap(),
            hostname: None,
            v4: Some([172, 17, 0, 5].into()),
            v6: None,
            env: [("PGDATA".to_owned(), "/data".to_owned()), ("PATH".to_owned(), "/bin".to_owned())].into(),
            exposed: ["5433", "5432"].into_iter().map(|port| port.parse().unwrap()).collect(),
            image: "db:1".to_owned(),
        };
        assert_eq!(hosts(&link), ["172.17.0.5\tmy-db db1"]);
        let told = |image: Option<&RunConfig>| {
            let env = env(&"web".parse().unwrap(), &link, image);
            env.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>()
        };
        let text = told(Some(&image));
        assert_eq!(
            text[..4],
            [
                "MY_DB_NAME=/web/my-db",
                "MY_DB_PORT=udp://172.17.0.5:80",
                "MY_DB_PORT_80_UDP=udp://172.17.0.5:80",
                "MY_DB_PORT_80_UDP_ADDR=172.17.0.5",
            ]
        );
        assert!(text.contains(&"MY_DB_PORT_5433_TCP_PROTO=tcp".to_owned()));
        assert_eq!(text[text.len() - 2..], ["MY_DB_ENV_FOO=bar=1", "MY_DB_ENV_PGDATA=/data"]);
        // Of an image that is not here nothing is known.
        let text = told(None);
        assert_eq!(text[1], "MY_DB_PORT=tcp://172.17.0.5:5432");
        assert_eq!(text.last().map(String::as_str), Some("MY_DB_ENV_PGDATA=/data"));
    }
}
