//! `--publish` and `--expose`, as Docker's users write them.

use shoal_common::service::{Protocol, PublishMode};
use shoal_proto::pb;
use std::{net::IpAddr, ops::RangeInclusive};

use crate::failure::Failure;

const EXPECTED: &str =
    "[IP:][HOST:]CONTAINER[/tcp|udp|sctp], such as 8000:80, 127.0.0.1:8000:80/udp or 9000-9002:80-82";

/// One for each port.
pub(crate) fn published(text: &str) -> Result<Vec<pb::PortSpec>, Failure> {
    let bad = |why: &str| Failure::usage(format!("publish: {text:?} is not accepted: {why}"));
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol = protocol.parse().map_err(|_| bad(EXPECTED))?;
    let (host, container) = match ports.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, ports),
    };
    let (ip, host) = match host {
        None => (None, ""),
        Some(host) => match host.rsplit_once(':') {
            Some((ip, port)) => (Some(ip.trim_start_matches('[').trim_end_matches(']')), port),
            None => (None, host),
        },
    };
    let ip = ip.filter(|ip| !ip.is_empty()).map(|ip| ip.parse::<IpAddr>().map_err(|_| bad(EXPECTED))).transpose()?;
    let container = range(container).ok_or_else(|| bad(EXPECTED))?;
    let host = if host.is_empty() { None } else { Some(range(host).ok_or_else(|| bad(EXPECTED))?) };
    if let Some(host) = &host
        && host.clone().count() != container.clone().count()
    {
        return Err(bad("as many ports of the host as of the container"));
    }
    let mut hosts = host.into_iter().flatten();
    let spec = |port: u16, host_port: u16| pb::PortSpec {
        host_ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
        host_port: host_port.into(),
        container_port: port.into(),
        protocol: protocol.to_string(),
    };
    Ok(container.map(|port| spec(port, hosts.next().unwrap_or(0))).collect())
}

/// `--publish` of a service: `8080:80`, or `published=8080,target=80,protocol=tcp,mode=ingress`.
pub(crate) fn of_service(text: &str) -> Result<Vec<pb::Publish>, Failure> {
    let bad = |why: &str| Failure::usage(format!("publish: {text:?} is not accepted: {why}"));
    if !text.contains('=') {
        let all = published(text)?;
        if all.iter().any(|p| !p.host_ip.is_empty()) {
            return Err(bad("[PUBLISHED:]TARGET[/tcp|udp|sctp]: a service's port is on every address of the hosts"));
        }
        let publish = |p: pb::PortSpec| pb::Publish {
            published: p.host_port,
            target: p.container_port,
            protocol: p.protocol,
            mode: PublishMode::default().to_string(),
        };
        return Ok(all.into_iter().map(publish).collect());
    }
    let expected = "published=PORT,target=PORT[,protocol=tcp|udp|sctp][,mode=ingress|host]";
    let port = |text: &str| text.parse::<u16>().ok().filter(|p| *p > 0).ok_or_else(|| bad(expected));
    let mut publish = pb::Publish {
        protocol: Protocol::default().to_string(),
        mode: PublishMode::default().to_string(),
        ..Default::default()
    };
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("published", value)) => publish.published = port(value)?.into(),
            Some(("target", value)) => publish.target = port(value)?.into(),
            Some(("protocol", value)) => {
                publish.protocol = value.parse::<Protocol>().map_err(|_| bad(expected))?.to_string();
            }
            Some(("mode", value)) => {
                publish.mode = value.parse::<PublishMode>().map_err(|_| bad(expected))?.to_string();
            }
            Some(_) | None => return Err(bad(expected)),
        }
    }
    if publish.target == 0 { Err(bad(expected)) } else { Ok(vec![publish]) }
}

/// `80/tcp` or `80-82`: each on a port that is free.
pub(crate) fn exposed(text: &str) -> Result<Vec<pb::PortSpec>, Failure> {
    let expected = "PORT[/tcp|udp|sctp] or a range of ports";
    let bad = || Failure::usage(format!("expose: {text:?} is not accepted: {expected}"));
    if text.contains(':') { Err(bad()) } else { published(text).map_err(|_| bad()) }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |t: &str| t.parse::<u16>().ok().filter(|p| *p > 0);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Result<Vec<String>, String> {
        let show = |p: pb::PortSpec| format!("{} {} {} {}", p.host_ip, p.host_port, p.container_port, p.protocol);
        published(text).map(|all| all.into_iter().map(show).collect()).map_err(|f| f.message)
    }

    #[test]
    fn every_form_that_docker_takes() {
        for (text, ports) in [
            ("80", vec![" 0 80 tcp"]),
            ("8000:80", vec![" 8000 80 tcp"]),
            ("8000:80/udp", vec![" 8000 80 udp"]),
            ("127.0.0.1:8000:80", vec!["127.0.0.1 8000 80 tcp"]),
            ("127.0.0.1::80/sctp", vec!["127.0.0.1 0 80 sctp"]),
            ("[::1]:8000:80", vec!["::1 8000 80 tcp"]),
            ("9000-9001:80-81", vec![" 9000 80 tcp", " 9001 81 tcp"]),
            ("80-81", vec![" 0 80 tcp", " 0 81 tcp"]),
        ] {
            assert_eq!(shown(text).unwrap(), ports, "{text}");
        }
    }

    #[test]
    fn a_services_port_is_written_short_or_long() {
        let shown = |text: &str| {
            let show = |p: pb::Publish| format!("{} {} {} {}", p.published, p.target, p.protocol, p.mode);
            of_service(text).map(|all| all.into_iter().map(show).collect::<Vec<_>>()).map_err(|f| f.message)
        };
        for (text, ports) in [
            ("8080:80", vec!["8080 80 tcp ingress"]),
            ("80/udp", vec!["0 80 udp ingress"]),
            ("8080-8081:80-81", vec!["8080 80 tcp ingress", "8081 81 tcp ingress"]),
            ("published=8080,target=80", vec!["8080 80 tcp ingress"]),
            ("target=53,protocol=udp,mode=host,published=53", vec!["53 53 udp host"]),
            ("target=80,mode=host", vec!["0 80 tcp host"]),
        ] {
            assert_eq!(shown(text).unwrap(), ports, "{text}");
        }
        for text in ["", "127.0.0.1:80:80", "published=80", "target=0", "target=80,mode=x", "target=80,what=1", "80=80"]
        {
            assert!(shown(text).unwrap_err().contains("publish"), "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in ["", "x", "0", "80:0", "70000", "1.2.3:80:80", "80/icmp", "9-8", "8000-8002:80-81", "80:80:80:80"] {
            assert!(shown(text).unwrap_err().contains("publish"), "{text}");
        }
        assert!(exposed("80:80").is_err() && exposed("80/tcp").is_ok());
    }
}
