//! `--publish` and `--expose`, as Docker's users write them.

use shoal_common::service::{Protocol, PublishMode};
use shoal_proto::pb;
use std::{net::IpAddr, ops::RangeInclusive};

use crate::failure::Failure;

const EXPECTED: &str =
    "[IP:][HOST:]CONTAINER[/tcp|udp|sctp], such as 8000:80, 127.0.0.1:8000:80/udp, 9000-9002:80-82 or 9000-9002:80";

const LONG: &str = "published=PORT,target=PORT[,protocol=tcp|udp|sctp][,mode=ingress|host]";

const OF_SERVICE: &str = "[PUBLISHED:]TARGET[/tcp|udp|sctp], such as 8080:80, 5353:53/udp or 9000-9002:80-82, or \
                          published=PORT,target=PORT[,protocol=tcp|udp|sctp][,mode=ingress|host]";

/// One for each port.
pub(crate) fn published(text: &str) -> Result<Vec<pb::PortSpec>, Failure> {
    let bad = |why: &str| Failure::usage(format!("publish: {text:?} is not accepted: {why}"));
    if text.contains('=') {
        let p = long(text)?;
        if p.mode == PublishMode::Ingress.to_string() {
            return Err(bad("mode=host, or no mode: a container's ports are of its own host"));
        }
        let (host_port, container_port, protocol) = (p.published, p.target, p.protocol);
        return Ok(vec![pb::PortSpec { host_port, container_port, protocol, ..Default::default() }]);
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol: Protocol = protocol.parse().map_err(|_| bad(EXPECTED))?;
    let (host, container) = match ports.rsplit_once(':') {
        Some((host, container)) => (Some(host), container),
        None => (None, ports),
    };
    let (ip, host) = match host {
        None => (None, ""),
        Some(host) => match host.rsplit_once(':') {
            Some((ip, port)) => (Some(unbracketed(ip).ok_or_else(|| bad(EXPECTED))?), port),
            None => (None, host),
        },
    };
    let ip = ip.filter(|ip| !ip.is_empty()).map(|ip| ip.parse::<IpAddr>().map_err(|_| bad(EXPECTED))).transpose()?;
    let container = range(container).ok_or_else(|| bad(EXPECTED))?;
    // As Docker: 0 is one that is free.
    let host = if matches!(host, "" | "0") { None } else { Some(range(host).ok_or_else(|| bad(EXPECTED))?) };
    let spec = |port: u16, host_port: u16, last: u16| pb::PortSpec {
        host_ip: ip.map(|ip| ip.to_string()).unwrap_or_default(),
        host_port: host_port.into(),
        container_port: port.into(),
        protocol: protocol.to_string(),
        host_port_last: last.into(),
    };
    let Some(host) = host else { return Ok(container.map(|port| spec(port, 0, 0)).collect()) };
    match (host.len(), container.len()) {
        (one, other) if one == other => Ok(container.zip(host).map(|(port, at)| spec(port, at, 0)).collect()),
        (_, 1) => Ok(container.map(|port| spec(port, *host.start(), *host.end())).collect()),
        _ => Err(bad("as many ports of the host as of the container, or several of the host to one of the container")),
    }
}

/// `--publish` of a service: `8080:80`, or `published=8080,target=80,protocol=tcp,mode=ingress`.
pub(crate) fn of_service(text: &str) -> Result<Vec<pb::Publish>, Failure> {
    let bad = |why: &str| Failure::usage(format!("publish: {text:?} is not accepted: {why}"));
    if !text.contains('=') {
        // Not the sentence about containers: what it offers is refused here.
        let all = published(text).map_err(|_| bad(OF_SERVICE))?;
        if all.iter().any(|p| !p.host_ip.is_empty()) {
            return Err(bad("[PUBLISHED:]TARGET[/tcp|udp|sctp]: a service's port is on every address of the hosts"));
        }
        if all.iter().any(|p| p.host_port_last != 0) {
            return Err(bad("as many published ports as targets: a service's port is one and the same everywhere"));
        }
        let publish = |p: pb::PortSpec| pb::Publish {
            published: p.host_port,
            target: p.container_port,
            protocol: p.protocol,
            mode: PublishMode::default().to_string(),
        };
        return Ok(all.into_iter().map(publish).collect());
    }
    let publish = long(text)?;
    let mode = if publish.mode.is_empty() { PublishMode::default().to_string() } else { publish.mode };
    Ok(vec![pb::Publish { mode, ..publish }])
}

/// `published=8080,target=80,protocol=tcp,mode=ingress`
fn long(text: &str) -> Result<pb::Publish, Failure> {
    let bad = || Failure::usage(format!("publish: {text:?} is not accepted: {LONG}"));
    let port = |text: &str| text.parse::<u16>().map(u32::from).map_err(|_| bad());
    let mut publish = pb::Publish { protocol: Protocol::default().to_string(), ..Default::default() };
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("published", value)) => publish.published = port(value)?,
            Some(("target", value)) => publish.target = port(value)?,
            Some(("protocol", value)) => publish.protocol = value.parse::<Protocol>().map_err(|_| bad())?.to_string(),
            Some(("mode", value)) => publish.mode = value.parse::<PublishMode>().map_err(|_| bad())?.to_string(),
            Some(_) | None => return Err(bad()),
        }
    }
    if publish.target == 0 { Err(bad()) } else { Ok(publish) }
}

/// `80/tcp` or `80-82`: each on a port that is free.
pub(crate) fn exposed(text: &str) -> Result<Vec<pb::PortSpec>, Failure> {
    let expected = "PORT[/tcp|udp|sctp] or a range of ports";
    let bad = || Failure::usage(format!("expose: {text:?} is not accepted: {expected}"));
    if text.contains([':', '=']) { Err(bad()) } else { published(text).map_err(|_| bad()) }
}

/// `::1` of `[::1]`; an address without brackets is what it is, and one with half of them none.
pub(super) fn unbracketed(text: &str) -> Option<&str> {
    match (text.strip_prefix('['), text.strip_suffix(']')) {
        (Some(rest), Some(_)) => rest.strip_suffix(']').filter(|address| !address.is_empty()),
        (None, None) => Some(text),
        (Some(_), None) | (None, Some(_)) => None,
    }
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
        let last =
            |p: &pb::PortSpec| if p.host_port_last == 0 { String::new() } else { format!("-{}", p.host_port_last) };
        let show =
            |p: pb::PortSpec| format!("{} {}{} {} {}", p.host_ip, p.host_port, last(&p), p.container_port, p.protocol);
        published(text).map(|all| all.into_iter().map(show).collect()).map_err(|f| f.message)
    }

    #[test]
    fn a_wrong_port_of_a_service_is_answered_with_what_services_take() {
        for text in ["80:80:80:80", "x", "8080:x", "99999:80", "80/icmp", "8080-8081:80-83"] {
            let f = of_service(text).expect_err("it is wrong");
            assert!(f.message.contains("[PUBLISHED:]TARGET") && !f.message.contains("127.0.0.1"), "{}", f.message);
        }
    }

    #[test]
    fn every_form_that_docker_takes() {
        for (text, ports) in [
            ("80", vec![" 0 80 tcp"]),
            ("8000:80", vec![" 8000 80 tcp"]),
            ("8000:80/udp", vec![" 8000 80 udp"]),
            ("8531:80/TCP", vec![" 8531 80 tcp"]),
            ("target=80,protocol=UDP", vec![" 0 80 udp"]),
            ("127.0.0.1:8000:80", vec!["127.0.0.1 8000 80 tcp"]),
            ("127.0.0.1::80/sctp", vec!["127.0.0.1 0 80 sctp"]),
            ("[::1]:8000:80", vec!["::1 8000 80 tcp"]),
            ("9000-9001:80-81", vec![" 9000 80 tcp", " 9001 81 tcp"]),
            ("80-81", vec![" 0 80 tcp", " 0 81 tcp"]),
            ("7000-7003:80", vec![" 7000-7003 80 tcp"]),
            ("0:80", vec![" 0 80 tcp"]),
            ("published=8080,target=80,protocol=udp", vec![" 8080 80 udp"]),
            ("target=80,mode=host", vec![" 0 80 tcp"]),
            ("127.0.0.1:0:80-81", vec!["127.0.0.1 0 80 tcp", "127.0.0.1 0 81 tcp"]),
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
        for text in [
            "",
            "127.0.0.1:80:80",
            "7000-7003:80",
            "published=80",
            "target=0",
            "target=80,mode=x",
            "target=80,what=1",
            "80=80",
        ] {
            assert!(shown(text).unwrap_err().contains("publish"), "{text}");
        }
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in [
            "",
            "x",
            "0",
            "80:0",
            "70000",
            "1.2.3:80:80",
            "80/icmp",
            "9-8",
            "8000-8002:80-81",
            "80:80:80:80",
            "[::1:8531:80",
            "::1]:8531:80",
            "[]:8531:80",
            "[[::1]]:8531:80",
            "target=80,mode=ingress",
            "published=80",
        ] {
            assert!(shown(text).unwrap_err().contains("publish"), "{text}");
        }
        assert!(exposed("80:80").is_err() && exposed("80/tcp").is_ok());
    }
}
