//! "Containers Connected to Multiple Networks", "Overlay Networks", "Macvlan Networks", "Docker Networking with Multiple
//! Hosts".

use super::*;
use shoal_tests::{Shape, story};
use std::time::Instant;

#[test]
fn a_container_is_on_two_networks_at_once_and_joins_and_leaves_while_it_runs() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        // In the document's order.
        lab.shoal("m1", ["network", "create", "net1"])?.success()?;
        lab.shoal("m1", ["network", "create", "net2"])?.success()?;
        lab.shoal("m1", ["create", "-i", "--net", "net1", "--name", "cont1", "page", "sh"])?.success()?;
        lab.shoal("m1", ["network", "connect", "net2", "cont1"])?.success()?;
        ensure!(status(lab, "m1", "cont1")? == "created", "not started yet");
        lab.shoal("m1", ["start", "cont1"])?.success()?;
        run(lab, "m1", "one", &["--network", "net1"], &["serve"])?;
        run(lab, "m1", "two", &["--network", "net2"], &["serve"])?;
        for (name, network) in [("one", "net1"), ("two", "net2")] {
            serves(lab, "m1", &format!("http://{}/", v4(lab, "m1", name, network)?))?;
            ensure!(dig(lab, "m1", "cont1", &[name])? == v4(lab, "m1", name, network)?, "{name} is known");
            ensure!(get(lab, "m1", "cont1", &format!("http://{}/", v4(lab, "m1", name, network)?))? == name, "{name}");
        }
        let names = |lab: &Lab| -> anyhow::Result<Vec<String>> {
            let seen = links(lab, "m1", Some(&id(lab, "m1", "cont1")?))?;
            Ok(seen.iter().filter_map(|l| l["ifname"].as_str().map(str::to_owned)).collect())
        };
        ensure!(names(lab)? == ["lo", "eth0", "eth1"], "{:?}", names(lab)?);

        let hosts = |what: &str, wanted: &[String]| {
            eventually(what, SETTLES_WITHIN, || {
                let text = lab.shoal("m1", ["exec", "cont1", "cat", "/etc/hosts"])?.success()?;
                let seen: Vec<&str> = text.lines().filter(|line| !line.contains("localhost")).collect();
                ensure!(seen == wanted, "{text}");
                Ok(())
            })
        };
        let line = |network| -> anyhow::Result<String> { Ok(format!("{}\tcont1", v4(lab, "m1", "cont1", network)?)) };
        hosts("both of its addresses", &[line("net1")?, line("net2")?])?;
        let mine = "192.0.2.1\tmine".to_owned();
        lab.shoal("m1", ["exec", "cont1", "sh", "-c", &format!("echo '{mine}' >> /etc/hosts")])?.success()?;

        // Live, both ways; the resolver sees what the container is on at that moment.
        lab.shoal("m1", ["network", "disconnect", "net1", "cont1"])?.success()?;
        hosts("one address, and what it wrote itself", &[line("net2")?, mine.clone()])?;
        eventually("eth0 has gone", SETTLES_WITHIN, || {
            ensure!(names(lab)? == ["lo", "eth1"], "{:?}", names(lab)?);
            ensure!(dig(lab, "m1", "cont1", &["one"])?.is_empty(), "one is still named");
            Ok(())
        })?;
        let address = ["network", "connect", "--ip", "172.18.0.99", "--alias", "uno", "net1", "cont1"];
        lab.shoal("m1", address)?.success()?;
        eventually("eth0 is back", SETTLES_WITHIN, || {
            ensure!(names(lab)?.contains(&"eth0".to_owned()), "{:?}", names(lab)?);
            ensure!(get(lab, "m1", "cont1", &format!("http://{}/", v4(lab, "m1", "one", "net1")?))? == "one", "one");
            ensure!(dig(lab, "m1", "one", &["uno"])? == "172.18.0.99", "the alias");
            Ok(())
        })?;
        // In the order in which it joined, and under the name that it had at its start.
        lab.shoal("m1", ["rename", "cont1", "cont2"])?.success()?;
        lab.shoal("m1", ["rename", "cont2", "cont1"])?.success()?;
        hosts("both again", &[line("net2")?, line("net1")?, mine.clone()])?;
        // Stopped and started it has its own lines alone, as in Docker.
        lab.shoal("m1", ["restart", "-t", "0", "cont1"])?.success()?;
        hosts("anew", &[line("net2")?, line("net1")?])?;
        let refused = lab.shoal("m1", ["network", "rm", "net1"])?;
        ensure!(!refused.status.success() && refused.stderr.contains("cont1"), "{refused}");
        Ok(())
    })
}

#[test]
fn what_a_container_joined_while_its_hosts_daemon_was_dead_is_in_its_hosts_file() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        for network in ["net1", "net2"] {
            lab.shoal("m1", ["network", "create", "-d", "overlay", "--attachable", network])?.success()?;
        }
        run(lab, "w1", "box", &["--network", "net1"], &["idle"])?;
        lab.lab(["kill", "w1"])?.success()?;
        lab.shoal("m1", ["network", "connect", "--node", "w1", "net2", "box"])?.success()?;
        lab.lab(["start", "w1"])?.success()?;
        eventually("it is told of both", SETTLES_WITHIN, || {
            let text = lab.shoal("w1", ["exec", "box", "cat", "/etc/hosts"])?.success()?;
            for network in ["net1", "net2"] {
                let line = format!("{}\tbox", v4(lab, "w1", "box", network)?);
                ensure!(text.lines().any(|l| l == line), "{line}: {text}");
            }
            Ok(())
        })
    })
}

#[test]
fn containers_of_two_hosts_meet_on_an_attachable_overlay() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        let overlay =
            ["network", "create", "-d", "overlay", "--subnet=192.168.10.0/24", "--attachable", "my-overlay-net"];
        lab.shoal("m1", overlay)?.success()?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "closed"])?.success()?;
        run(lab, "m1", "a", &["--network", "my-overlay-net"], &["idle"])?;
        run(lab, "w1", "b", &["--network", "my-overlay-net", "-p", "8000:80"], &["serve"])?;
        let address = v4(lab, "w1", "b", "my-overlay-net")?;
        ensure!(address.starts_with("192.168.10."), "{address}");
        ensure!(dig(lab, "m1", "a", &["b"])? == address, "by name, from another host");
        eventually("b answers a", SETTLES_WITHIN, || {
            ensure!(get(lab, "m1", "a", &format!("http://{address}/"))? == "b", "b");
            Ok(())
        })?;
        // Another network with the same addresses: those who have them do not meet.
        let double = ["network", "create", "-d", "overlay", "--subnet=192.168.10.0/24", "--attachable"];
        let refused = lab.shoal("m1", [&double[..], &["double"]].concat())?.failure(4)?;
        ensure!(refused.contains("my-overlay-net"), "{refused}");
        lab.shoal("m1", [&double[..], &["--allow-overlap", "double"]].concat())?.success()?;
        run(lab, "m1", "a2", &["--network", "double"], &["idle"])?;
        run(lab, "w1", "b2", &["--network", "double"], &["serve"])?;
        ensure!(v4(lab, "w1", "b2", "double")? == address, "b2 has the address of b");
        for (from, met) in [("a", "b"), ("a2", "b2")] {
            eventually("the one of its own network answers", SETTLES_WITHIN, || {
                let who = get(lab, "m1", from, &format!("http://{address}/"))?;
                ensure!(who == met, "{from} meets {who}");
                Ok(())
            })?;
        }
        // A port of a container that is on an overlay alone.
        let seen = host_get(lab, "m1", "http://172.31.0.101:8000/cgi-bin/client")?;
        ensure!(seen == "172.31.0.11", "{seen}");
        let twin = lab.shoal("m1", ["run", "-d", "--name", "b", "--network", "my-overlay-net", "page", "idle"])?;
        ensure!(!twin.status.success() && twin.stderr.contains("taken"), "{twin}");
        let closed = lab.shoal("m1", ["run", "-d", "--network", "closed", "page", "idle"])?;
        ensure!(!closed.status.success() && closed.stderr.contains("--attachable"), "{closed}");
        // A service finds it too, and is found.
        lab.shoal("m1", ["service", "create", "--name", "web", "--network", "my-overlay-net", "page", "serve"])?
            .success()?;
        ensure!(!dig(lab, "w1", "b", &["web"])?.is_empty(), "the service has a name");
        Ok(())
    })
}

#[test]
fn macvlan_containers_are_neighbours_of_hosts_and_never_share_an_address() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        let create = [
            "network",
            "create",
            "-d",
            "macvlan",
            "--subnet=192.168.40.0/24",
            "--gateway=192.168.40.1",
            "-o",
            "parent=eth0",
            "my-macvlan-net",
        ];
        lab.shoal("m1", create)?.success()?;
        run(lab, "m1", "a", &["--network", "my-macvlan-net"], &["idle"])?;
        run(lab, "w1", "b", &["--network", "my-macvlan-net"], &["serve"])?;
        let (a, b) = (v4(lab, "m1", "a", "my-macvlan-net")?, v4(lab, "w1", "b", "my-macvlan-net")?);
        ensure!(a != b, "two hosts gave out {a}");
        let seen = links(lab, "m1", Some(&id(lab, "m1", "a")?))?;
        let eth0 = seen.iter().find(|l| l["ifname"] == "eth0").context("eth0")?;
        ensure!(eth0["linkinfo"]["info_kind"] == "macvlan", "{eth0}");
        // Over the wire that the hosts share, with no tunnel between.
        eventually("b answers a", SETTLES_WITHIN, || {
            ensure!(get(lab, "m1", "a", &format!("http://{b}/"))? == "b", "b");
            Ok(())
        })?;
        // One of a single host: no other host has a link for it.
        let one_sided = ["network", "create", "-d", "macvlan", "-o", "parent@m1=eth0", "one-sided"];
        lab.shoal("m1", one_sided)?.success()?;
        run(lab, "m1", "c", &["--network", "one-sided"], &["idle"])?;
        let refused = lab.shoal("w1", ["run", "-d", "--network", "one-sided", "page", "idle"])?;
        ensure!(!refused.status.success() && refused.stderr.contains("parent@w1=LINK"), "{refused}");
        let published = lab.shoal("m1", ["create", "-p", "8080:80", "--network", "my-macvlan-net", "page", "serve"])?;
        let warned = "warning: -p has no effect on 80/tcp: network my-macvlan-net is macvlan";
        ensure!(published.status.success() && published.stderr.contains(warned), "{published}");
        // What cannot be had is said at once: a parent that is not there, and one that the host itself needs.
        let soon = Duration::from_secs(5);
        lab.shoal("m1", ["network", "create", "-d", "macvlan", "-o", "parent=eth7", "nowhere"])?.success()?;
        let whole = ["network", "create", "-d", "macvlan", "-o", "parent=eth0", "-o", "macvlan_mode=passthru", "whole"];
        lab.shoal("m1", whole)?.success()?;
        for (name, network, restart, why) in [
            ("lost", "nowhere", "no", "this host has no link eth7; its links are eth0"),
            ("waits", "nowhere", "always", "this host has no link eth7; its links are eth0"),
            ("greedy", "whole", "no", "link eth0 has addresses of this host (172.31.0."),
        ] {
            let begun = Instant::now();
            let line = ["run", "-d", "--name", name, "--restart", restart, "--network", network, "page", "idle"];
            let refused = lab.shoal("m1", line)?;
            ensure!(refused.status.code() == Some(125) && refused.stderr.contains(why), "{refused}");
            ensure!(begun.elapsed() < soon, "{name} took {:?}", begun.elapsed());
        }
        lab.exec("m1", ["ping", "-c", "1", "-W", "2", "172.31.0.101"])?.success()?;
        // Who is restarted whatever happens comes by itself once it can; the other one was told no.
        lab.exec("m1", ["ip", "link", "add", "eth7", "type", "veth", "peer", "eth8"])?.success()?;
        eventually("the one that waits runs", SETTLES_WITHIN, || {
            let up = lab.shoal("m1", ["ps", "--format", "{{.Names}}"])?.success()?;
            ensure!(up.contains("waits") && !up.contains("lost"), "{up}");
            Ok(())
        })?;
        lab.shoal("m1", ["start", "lost"])?.success()?;
        Ok(())
    })
}
