//! `run` and `create` as a spec.

use shoal_common::{
    Invalid, NetworkId,
    service::{ContainerSpec, HostAddress, Protocol},
};
use shoal_proto::{convert::run_spec, pb};
use std::collections::BTreeSet;

use super::{env, health, map, name, ports};
use crate::{
    args::container::{Connect, Create},
    failure::Failure,
};

/// What was asked for, and what the user should hear of it.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) spec: pb::RunSpec,
    pub(crate) notes: Vec<String>,
}

/// `exposed`: by the image, as `80/tcp`; wanted for --publish-all alone.
pub(crate) fn run(c: &Create, exposed: &[String], random: u64) -> Result<Asked, Failure> {
    let mut notes = Vec::new();
    let (stack, networks) = networks(c)?;
    let mut exposes = Vec::new();
    for text in &c.expose {
        exposes.extend(ports::exposed(text)?);
    }
    let mut ports = Vec::new();
    for text in &c.publish {
        ports.extend(ports::published(text)?);
    }
    if c.publish_all {
        let known: BTreeSet<(u32, String)> = ports.iter().map(|p| (p.container_port, p.protocol.clone())).collect();
        let mut more = exposes.clone();
        for text in exposed {
            more.extend(ports::exposed(text)?);
        }
        more.sort_by_key(|p| (p.container_port, p.protocol.clone()));
        more.dedup();
        ports.extend(more.into_iter().filter(|p| !known.contains(&(p.container_port, p.protocol.clone()))));
    }
    if stack != "own" && !ports.is_empty() {
        notes.push(format!("published ports are discarded when using {stack} network mode"));
        ports.clear();
    }
    if stack == "own" {
        notes.extend(super::hides_a_public_name(c.hostname.as_deref()));
    }
    if !c.link.is_empty() {
        notes.push(
            "--link is deprecated: put the containers on a network, where they know each other by name".to_owned(),
        );
    }
    let spec = pb::RunSpec {
        name: c.name.as_ref().map_or_else(|| name::name(random), ToString::to_string),
        container: Some(container(c, random)?),
        resources: Some(pb::Resources {
            limits: Some(pb::Amount { nano_cpus: c.cpus.unwrap_or(0), memory_bytes: c.memory.unwrap_or(0) }),
            reservations: None,
            pids_limit: c.pids_limit.unwrap_or(0),
        }),
        stack: stack.to_owned(),
        networks,
        ports,
        restart: c.restart.to_string(),
        auto_remove: c.rm,
        links: c.link.iter().map(|text| link(text)).collect(),
        exposed: exposes.iter().map(|p| format!("{}/{}", p.container_port, p.protocol)).collect(),
    };
    if c.rm && c.restart != shoal_common::container::RestartMode::No {
        return Err(Failure::usage(
            "rm: a container that goes with its end cannot be started again: leave out --rm or --restart",
        ));
    }
    // As the managers will read it; what the networks are is not known here.
    run_spec(spec.clone(), |_| Ok::<_, Invalid>(NetworkId(1)))?;
    Ok(Asked { spec, notes })
}

/// `random`: makes the names of volumes that have none.
fn container(c: &Create, random: u64) -> Result<pb::ContainerSpec, Failure> {
    let mut mounts = Vec::new();
    for text in &c.volume {
        mounts.push(volume(text)?);
    }
    for text in &c.mount {
        mounts.push(mount(text)?);
    }
    let nameless = mounts.iter_mut().filter(|m| m.r#type == "volume" && m.source.is_empty());
    for (n, mount) in nameless.enumerate() {
        (mount.source, mount.anonymous) = (format!("{random:016x}{n:04x}"), true);
    }
    for target in &c.tmpfs {
        // Docker takes options behind the path.
        let target = target.split(':').next().unwrap_or(target).to_owned();
        mounts.push(pb::Mount {
            r#type: "tmpfs".to_owned(),
            source: String::new(),
            target,
            read_only: false,
            anonymous: false,
        });
    }
    let mut extra_hosts = Vec::new();
    for text in &c.add_host {
        extra_hosts.push(extra_host(text)?);
    }
    let grace = c.stop_timeout.map_or(ContainerSpec::DEFAULT_STOP_GRACE, std::time::Duration::from_secs);
    let mut check = None;
    health::settle(&mut check, &c.health)?;
    Ok(pb::ContainerSpec {
        health: check,
        image: c.image.clone(),
        has_entrypoint: c.entrypoint.is_some(),
        entrypoint: c.entrypoint.clone().map(|w| w.0).unwrap_or_default(),
        args: c.command.clone(),
        env: env::collect(&c.env_file, &c.env)?,
        hostname: c.hostname.clone(),
        workdir: c.workdir.clone(),
        user: c.user.clone(),
        labels: map(&c.label),
        stop_grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
        ports: Vec::new(),
        tty: c.tty,
        stdin: c.interactive,
        mounts,
        dns_servers: c.dns.iter().map(ToString::to_string).collect(),
        dns_search: c.dns_search.clone(),
        dns_options: c.dns_option.clone(),
        extra_hosts,
        privileged: c.privileged,
        cap_add: c.cap_add.clone(),
        cap_drop: c.cap_drop.clone(),
        read_only: c.read_only,
        stop_signal: c.stop_signal.clone().unwrap_or_default(),
    })
}

fn networks(c: &Create) -> Result<(&'static str, Vec<pb::Attachment>), Failure> {
    let asks = c.ip.is_some() || c.ip6.is_some() || c.mac_address.is_some() || !c.network_alias.is_empty();
    let mut all = Vec::new();
    for text in &c.network {
        match text.as_str() {
            "host" | "none" if c.network.len() > 1 => {
                return Err(Failure::usage(format!("network: {text:?} cannot be joined with another network")));
            }
            stack @ ("host" | "none") if asks => {
                return Err(Failure::usage(format!(
                    "network: {stack:?} is not accepted with --ip, --ip6, --mac-address or --network-alias: those are \
                     for a network, and there the container is on none"
                )));
            }
            "host" => return Ok(("host", Vec::new())),
            "none" => return Ok(("none", Vec::new())),
            text if text.starts_with("container:") => {
                return Err(Failure::usage(format!(
                    "network: {text:?} is not accepted: the network of another container is not shared in Shoal; put \
                     both on one network, where they know each other by name"
                )));
            }
            "default" => all.push(pb::Attachment { network: "bridge".to_owned(), ..Default::default() }),
            text => all.push(attachment(text)?),
        }
    }
    if asks && all.is_empty() {
        all.push(pb::Attachment { network: "bridge".to_owned(), ..Default::default() });
    }
    if asks && all.len() > 1 {
        return Err(Failure::usage(
            "--ip, --ip6, --mac-address and --network-alias are for one network: say them as \
             --network name=NAME,ip=ADDRESS",
        ));
    }
    if let Some(first) = all.first_mut().filter(|_| asks) {
        first.v4 = c.ip.map(|ip| ip.to_string()).unwrap_or_default();
        first.v6 = c.ip6.map(|ip| ip.to_string()).unwrap_or_default();
        first.mac = c.mac_address.map(|mac| mac.to_string()).unwrap_or_default();
        first.aliases.extend(c.network_alias.iter().map(ToString::to_string));
    }
    Ok(("own", all))
}

/// What is to be said of published ports that lead nowhere: a port leads to its container by the network of its way out,
/// unless that is macvlan.
pub(crate) fn unreached(spec: &pb::RunSpec, known: &[pb::Network]) -> Option<String> {
    let is = |n: &&pb::Network, text: &str| {
        NetworkId(n.id).to_string() == text || n.spec.as_ref().is_some_and(|s| s.name == text)
    };
    let mut wanted: Vec<_> = spec.networks.iter().collect();
    wanted.sort_by_key(|a| std::cmp::Reverse(a.gw_priority));
    let find = |a: &pb::Attachment| known.iter().find(|n| is(n, &a.network)).and_then(|n| n.spec.as_ref());
    // One that is not known may have a way out.
    let on: Vec<&pb::NetworkSpec> = wanted.into_iter().map(find).collect::<Option<_>>()?;
    let way_out = on.iter().find(|n| !n.internal);
    let (network, why) = match way_out {
        Some(n) if n.driver == "macvlan" => (n, "is macvlan: the container is reached at its own address there"),
        Some(_) => return None,
        None => (on.first()?, "is internal: nothing leads into it"),
    };
    let ports: Vec<String> = spec.ports.iter().map(|p| format!("{}/{}", p.container_port, p.protocol)).collect();
    let (ports, name) = (ports.join(", "), &network.name);
    (!ports.is_empty()).then(|| format!("-p has no effect on {ports}: network {name} {why}"))
}

/// Whether there is something to run: an entrypoint of one's own leaves the image's command out.
pub(crate) fn refuse_without_command(c: &Create, image: &pb::InspectImageReply) -> Result<(), Failure> {
    let (entrypoint, command) = match &c.entrypoint {
        Some(own) => (&own.0, &[][..]),
        None => (&image.entrypoint, &image.cmd[..]),
    };
    let command = if c.command.is_empty() { command } else { &c.command };
    match entrypoint.iter().chain(command).next() {
        Some(program) if !program.is_empty() => Ok(()),
        Some(_) | None => {
            Err(Failure::usage(format!("no command specified: give one after the image, as in {} COMMAND", c.image)))
        }
    }
}

fn attachment(text: &str) -> Result<pb::Attachment, Failure> {
    if !text.contains('=') {
        return Ok(pb::Attachment { network: text.to_owned(), ..Default::default() });
    }
    let bad = |why: &str| Failure::usage(format!("network: {text:?} is not accepted: {why}"));
    let mut out = pb::Attachment::default();
    for part in text.split(',') {
        let (key, value) = part.split_once('=').ok_or_else(|| bad("KEY=VALUE, joined by commas"))?;
        match key {
            "name" => value.clone_into(&mut out.network),
            "alias" => out.aliases.push(value.to_owned()),
            "ip" => value.clone_into(&mut out.v4),
            "ip6" => value.clone_into(&mut out.v6),
            "mac-address" => value.clone_into(&mut out.mac),
            "gw-priority" => out.gw_priority = value.parse().map_err(|_| bad("a whole number as gw-priority"))?,
            _ => return Err(bad("name, alias, ip, ip6, mac-address and gw-priority are known")),
        }
    }
    if out.network.is_empty() { Err(bad("name=NETWORK is missing")) } else { Ok(out) }
}

/// `network connect`.
pub(crate) fn connected(c: &Connect) -> Result<pb::Attachment, Failure> {
    let wish = pb::Attachment {
        network: c.network.clone(),
        aliases: c.alias.iter().map(ToString::to_string).collect(),
        v4: c.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        v6: c.ip6.map(|ip| ip.to_string()).unwrap_or_default(),
        mac: c.mac_address.map(|mac| mac.to_string()).unwrap_or_default(),
        gw_priority: c.gw_priority,
        links: c.link.iter().map(|text| link(text)).collect(),
    };
    shoal_proto::convert::attachment(wish.clone(), |_| Ok::<_, Invalid>(NetworkId(1)))?;
    Ok(wish)
}

/// `CONTAINER[:ALIAS]`
fn link(text: &str) -> pb::ContainerLink {
    let (container, alias) = text.split_once(':').unwrap_or((text, text));
    let bare = |name: &str| name.trim_start_matches('/').to_owned();
    pb::ContainerLink { container: bare(container), alias: bare(alias) }
}

fn volume(text: &str) -> Result<pb::Mount, Failure> {
    let bad = || {
        let expected =
            "SOURCE:TARGET[:ro], where SOURCE is an absolute path of the host or a volume's name, or TARGET alone";
        Failure::usage(format!("volume: {text:?} is not accepted: {expected}"))
    };
    let mut parts = text.split(':');
    let (source, target, options) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(source), Some(target), options, None) if !source.is_empty() => (source, target, options),
        (Some(target), None, None, None) if target.starts_with('/') => ("", target, None),
        _ => return Err(bad()),
    };
    let read_only = match options {
        None | Some("rw" | "z" | "Z") => false,
        Some("ro") => true,
        Some(_) => return Err(bad()),
    };
    // Such are paths to who writes them.
    if !source.starts_with('/') && (source.contains('/') || source.starts_with('.')) {
        return Err(bad());
    }
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let (source, target) = (source.to_owned(), target.to_owned());
    Ok(pb::Mount { r#type: kind.to_owned(), source, target, read_only, ..Default::default() })
}

fn mount(text: &str) -> Result<pb::Mount, Failure> {
    let bad = |why: &str| Failure::usage(format!("mount: {text:?} is not accepted: {why}"));
    let mut mount = pb::Mount { r#type: "volume".to_owned(), ..Default::default() };
    for part in text.split(',') {
        match part.split_once('=').unwrap_or((part, "true")) {
            ("type", kind) => kind.clone_into(&mut mount.r#type),
            ("source" | "src", source) => source.clone_into(&mut mount.source),
            ("target" | "dst" | "destination", target) => target.clone_into(&mut mount.target),
            ("readonly" | "ro", value) => mount.read_only = value == "true" || value == "1",
            _ => return Err(bad("type, source, target and readonly are known")),
        }
    }
    if mount.target.is_empty() { Err(bad("target=PATH is missing")) } else { Ok(mount) }
}

fn extra_host(text: &str) -> Result<pb::ExtraHost, Failure> {
    let bad = || Failure::usage(format!("add-host: {text:?} is not accepted: NAME:ADDRESS, or NAME:host-gateway"));
    let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(bad)?;
    let address: HostAddress = ports::unbracketed(address).and_then(|a| a.parse().ok()).ok_or_else(bad)?;
    Ok(pb::ExtraHost { name: name.to_owned(), address: address.to_string() })
}

/// `80/tcp`, or 80 alone.
pub(crate) fn port_and_protocol(text: &str) -> Result<(u32, String), Failure> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let bad = || Failure::usage(format!("port: {text:?} is not accepted: PORT[/tcp|udp|sctp]"));
    let protocol: Protocol = protocol.parse().map_err(|_| bad())?;
    Ok((port.parse().map_err(|_| bad())?, protocol.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn asked(line: &str) -> Result<Asked, Failure> {
        let line = format!("shoal create {line}");
        match Cli::try_parse_from(line.split(' ')).expect("parses").command {
            Command::Create(c) => run(&c, &["81/tcp".to_owned()], 7),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_documents_command_lines_are_understood() {
        let a =
            asked("--name test-container -it --hostname=test-con.example.com --dns=8.8.8.8 ubuntu /bin/bash").unwrap();
        let c = a.spec.container.unwrap();
        assert_eq!((c.hostname.as_deref(), c.dns_servers[0].as_str()), (Some("test-con.example.com"), "8.8.8.8"));
        assert!(a.notes[0].contains("nobody there reaches a public test-con.example.com"), "{:?}", a.notes);
        assert!(asked("--hostname box busybox").unwrap().notes.is_empty());
        assert!(asked("--hostname a.b --net none busybox").unwrap().notes.is_empty());
        assert!(c.tty && c.stdin && c.args == ["/bin/bash"]);
        let a = asked("--name myweb --link mydb:mydb -P myapp python app.py").unwrap();
        assert_eq!(a.spec.links.len(), 1);
        assert!(a.notes[0].contains("deprecated") && a.spec.ports.len() == 1);
        let a = asked("--expose 80-81/udp web").unwrap();
        assert_eq!((a.spec.exposed, a.spec.ports), (vec!["80/udp".to_owned(), "81/udp".to_owned()], vec![]));
        let a = asked("-it --net net1 --name cont1 busybox sh").unwrap();
        assert_eq!((a.spec.stack.as_str(), a.spec.networks[0].network.as_str()), ("own", "net1"));
    }

    #[test]
    fn a_command_keeps_its_own_flags() {
        let a = asked("-e A=1 image ls -la --rm").unwrap();
        assert_eq!(a.spec.container.unwrap().args, ["ls", "-la", "--rm"]);
        assert!(!a.spec.auto_remove);
    }

    #[test]
    fn a_volume_without_a_name_is_given_one() {
        let a = asked("-v /data -v named:/other --mount type=volume,target=/third web").unwrap();
        let mounts: Vec<_> = a.spec.container.unwrap().mounts.into_iter().map(|m| (m.source, m.anonymous)).collect();
        let anonymous = |n| (format!("0000000000000007{n:04x}"), true);
        assert_eq!(mounts, [anonymous(0), ("named".to_owned(), false), anonymous(1)]);
    }

    #[test]
    fn an_image_without_a_command_is_given_one_or_refused() {
        let image = |entrypoint: &[&str], cmd: &[&str]| {
            let words = |words: &[&str]| words.iter().map(ToString::to_string).collect();
            pb::InspectImageReply { entrypoint: words(entrypoint), cmd: words(cmd), ..Default::default() }
        };
        let (bare, both) = (image(&[], &[]), image(&["/enter"], &["serve"]));
        for (line, image, has_one) in [
            ("web", &bare, false),
            ("web sh", &bare, true),
            ("--entrypoint /sh web", &bare, true),
            ("web", &both, true),
            ("web", &image(&[], &["serve"]), true),
            ("--entrypoint= web", &both, false),
            ("--entrypoint= web sh", &both, true),
        ] {
            let line = format!("shoal create {line}");
            let Command::Create(c) = Cli::try_parse_from(line.split(' ')).expect("parses").command else {
                panic!("{line}")
            };
            let found = refuse_without_command(&c, image);
            assert_eq!(found.is_ok(), has_one, "{line}: {found:?}");
        }
    }

    #[test]
    fn ports_of_a_container_without_a_stack_of_its_own_are_discarded_and_it_is_said() {
        let a = asked("--network host -p 80:80 web").unwrap();
        assert!(a.spec.ports.is_empty() && a.notes[0].contains("discarded"), "{a:?}");
    }

    #[test]
    fn of_ports_that_lead_nowhere_it_is_said_why() {
        let network = |id, name: &str, driver: &str, internal| {
            let spec = pb::NetworkSpec { name: name.to_owned(), driver: driver.to_owned(), internal, ..<_>::default() };
            pb::Network { id, spec: Some(spec), ..<_>::default() }
        };
        let known = [
            network(1, "blue", "bridge", false),
            network(2, "quiet", "bridge", true),
            network(3, "wire", "macvlan", false),
        ];
        for (line, said) in [
            ("-p 80:80 web", None),
            ("-p 80:80 --network blue --network wire web", None),
            ("-p 80:80 --network quiet --network blue web", None),
            ("-p 80:80 --network nowhere web", None),
            ("--network quiet web", None),
            ("-p 80:80 -p 53:53/udp --network quiet web", Some("80/tcp, 53/udp: network quiet is internal")),
            ("-p 80:80 --network net-3 web", Some("80/tcp: network wire is macvlan")),
            ("-p 80:80 --network blue --network name=wire,gw-priority=1 web", Some("network wire is macvlan")),
        ] {
            let warning = unreached(&asked(line).unwrap().spec, &known);
            assert_eq!(warning.is_some(), said.is_some(), "{line}: {warning:?}");
            assert!(warning.unwrap_or_default().contains(said.unwrap_or_default()), "{line}");
        }
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        for (line, part) in [
            ("--network host --network blue web", "network"),
            ("--network name=a,speed=9 web", "gw-priority"),
            ("--network a --network b --ip 10.0.0.9 web", "one network"),
            ("--network host --ip 10.0.0.9 web", "\"host\" is not accepted with --ip"),
            ("--network none --network-alias db web", "--network-alias"),
            ("--network container:db web", "put both on one network"),
            ("-v relative:/x/../y:ro:z web", "volume"),
            ("-v data web", "volume"),
            ("-v relative/path:/data web", "SOURCE is an absolute path of the host or a volume's name"),
            ("-v .:/data web", "SOURCE is an absolute path"),
            ("-v /a:/b:rx web", "volume"),
            ("--mount type=bind,source=/a web", "target"),
            ("--mount type=disk,source=a,target=/b web", "type"),
            ("--add-host nas web", "add-host"),
            ("--add-host nas=[fd00::1 web", "add-host"),
            ("--rm --restart always web", "--rm"),
            ("-p x web", "publish"),
            ("--expose 80-x web", "expose"),
            ("--link db: web", "link"),
            ("--link a:db --link b:db web", "db leads to a already"),
            ("--network host --link db web", "no links on the network host"),
            ("--network none --link db web", "no links on the network none"),
        ] {
            let f = asked(line).expect_err(line);
            assert!(f.message.contains(part), "{line}: {f}");
        }
    }
}
