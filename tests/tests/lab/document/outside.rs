//! "How Containers Communicate with the Outside World", "Exposing Ports and Forwarding Traffic", "How IPv6 Works".

use super::*;
use shoal_tests::{Shape, story};

#[test]
fn a_published_port_is_reached_from_everywhere_and_the_client_is_seen() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        run(lab, "m1", "web", &["-p", "8000:80", "-p", "127.0.0.1:8001:80", "-p", "9000-9001:80-81"], &["serve"])?;
        run(lab, "m1", "other", &[], &["idle"])?;
        let host = "172.31.0.11";
        serves(lab, "m1", &format!("http://{}/", v4(lab, "m1", "web", "bridge")?))?;

        // From another host, whose own address is seen inside.
        let client = |url: &str| format!("{url}cgi-bin/client");
        let seen = host_get(lab, "w1", &client(&format!("http://{host}:8000/")))?;
        ensure!(seen == "172.31.0.101", "{seen}");
        host_get(lab, "w1", &format!("http://{host}:9000/"))?;
        // From the host, by its address and by localhost.
        host_get(lab, "m1", &format!("http://{host}:8000/"))?;
        host_get(lab, "m1", "http://127.0.0.1:8000/")?;
        host_get(lab, "m1", "http://localhost:8001/")?;
        // One that is bound to localhost is not seen elsewhere.
        let refused = lab.exec("w1", ["curl", "-sS", "--max-time", "2", &format!("http://{host}:8001/")])?;
        ensure!(!refused.status.success(), "{refused}");
        // From the container itself; and from its sibling and a container of another bridge, whose own addresses are seen.
        get(lab, "m1", "web", &format!("http://{host}:8000/"))?;
        lab.shoal("m1", ["network", "create", "-d", "bridge", "apart"])?.success()?;
        run(lab, "m1", "stranger", &["--network", "apart"], &["idle"])?;
        for (name, network) in [("other", "bridge"), ("stranger", "apart")] {
            let (seen, own) =
                (get(lab, "m1", name, &client(&format!("http://{host}:8000/")))?, v4(lab, "m1", name, network)?);
            ensure!(seen == own, "{name} at {own} is seen as {seen}");
        }

        let ports = lab.shoal("m1", ["port", "web"])?.success()?;
        ensure!(ports.contains("80/tcp -> 0.0.0.0:8000") && ports.contains("80/tcp -> 127.0.0.1:8001"), "{ports}");
        // Of several ports of the host, the first that is free.
        run(lab, "m1", "ranged", &["-p", "9000-9002:80"], &["serve"])?;
        let ranged = serves(lab, "w1", &format!("http://{host}:9002/"))?;
        ensure!(ranged == "ranged", "{ranged}");
        // A clash is refused, with the name of the holder, and leaves nothing.
        let clash = lab.shoal("m1", ["run", "-d", "--name", "twin", "-p", "8000:80", "page", "serve"])?;
        ensure!(!clash.status.success() && clash.stderr.contains("container web"), "{clash}");
        // The port is free once its container has ended.
        lab.shoal("m1", ["stop", "-t", "1", "web"])?.success()?;
        run(lab, "m1", "next", &["-p", "8000:80"], &["serve"])?;
        let answer = serves(lab, "w1", &format!("http://{host}:8000/"))?;
        ensure!(answer == "next", "{answer}");
        Ok(())
    })
}

#[test]
fn a_port_has_one_owner_also_among_the_programs_of_its_host() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        let theirs = "mkdir -p /tmp/theirs; echo theirs > /tmp/theirs/index.html; busybox httpd -p 8000 -h /tmp/theirs";
        lab.exec("m1", ["sh", "-c", theirs])?.success()?;
        ensure!(serves(lab, "m1", "http://127.0.0.1:8000/")? == "theirs", "the host's own server");
        let line = ["run", "-d", "--name", "web", "-p", "8000:80", "page", "serve"];
        let refused = lab.shoal("m1", line)?.failure(125)?;
        ensure!(refused.contains("port 8000/tcp of this host is in use by busybox (pid "), "{refused}");
        for url in ["http://127.0.0.1:8000/", "http://172.31.0.11:8000/"] {
            ensure!(host_get(lab, "m1", url)? == "theirs", "{url} is theirs");
        }
        // An address that is somebody else's.
        let line = ["run", "-d", "--name", "astray", "-p", "192.0.2.9:80:80", "page", "serve"];
        let astray = lab.shoal("m1", line)?.failure(125)?;
        ensure!(astray.contains("no address 192.0.2.9"), "{astray}");
        // Once it has ended the port is to be had, and then nobody else gets it; not even while no daemon runs.
        lab.exec("m1", ["pkill", "-f", "httpd -p 8000"])?.success()?;
        lab.shoal("m1", ["start", "web"])?.success()?;
        ensure!(serves(lab, "m1", "http://127.0.0.1:8000/")? == "web", "the container");
        let late = ["busybox", "httpd", "-f", "-p", "8000"];
        lab.exec("m1", late)?.failure(1)?;
        lab.lab(["kill", "m1"])?.success()?;
        lab.exec("m1", late)?.failure(1)?;
        ensure!(host_get(lab, "m1", "http://[::1]:8000/")? == "web", "by the other family, without a daemon");
        lab.lab(["start", "m1"])?.success()?;
        // A resolver that ended is replaced, and its ports are held again.
        lab.exec("m1", ["pkill", "-9", "-f", "resolve /run/shoal"])?.success()?;
        ensure!(serves(lab, "m1", "http://[::1]:8000/")? == "web", "held again");
        lab.shoal("m1", ["rm", "-f", "web", "astray"])?.success()?;
        eventually("the port is free", SETTLES_WITHIN, || lab.exec("m1", ["sh", "-c", theirs])?.success().map(drop))
    })
}

#[test]
fn every_exposed_port_is_published_on_a_port_that_is_free() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        run(lab, "m1", "web", &["-P", "--expose", "80"], &["serve"])?;
        let port = lab.shoal("m1", ["port", "web", "80/tcp"])?.success()?;
        let port = port.lines().next().context("a port")?.trim().to_owned();
        let number: u16 = port.rsplit_once(':').context("HOST:PORT")?.1.parse()?;
        ensure!((32_768..=60_999).contains(&number), "{port}");
        serves(lab, "m1", &format!("http://172.31.0.11:{number}/")).map(drop)
    })
}

#[test]
fn both_address_families_work_alike() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "--ipv6", "dual"])?.success()?;
        lab.shoal(
            "m1",
            ["network", "create", "--ipv6", "--subnet", "192.0.2.0/24", "--subnet", "2001:db8:7::/64", "own"],
        )?
        .success()?;
        run(lab, "m1", "web", &["--network", "dual", "-p", "8000:80"], &["serve"])?;
        run(lab, "m1", "b", &["--network", "dual"], &["idle"])?;
        let v6 = on(lab, "m1", "web", "dual", "GlobalIPv6Address")?;
        serves(lab, "m1", &format!("http://[{v6}]/"))?;
        ensure!(get(lab, "m1", "b", &format!("http://[{v6}]/"))? == "web", "neighbours over IPv6");
        ensure!(dig(lab, "m1", "b", &["web", "AAAA"])? == v6, "a name has both");
        let host6 = "[fd5a:10ab::b]";
        let seen = host_get(lab, "w1", &format!("http://{host6}:8000/cgi-bin/client"))?;
        ensure!(seen == "fd5a:10ab::65", "{seen}");
        host_get(lab, "m1", &format!("http://{host6}:8000/"))?;
        // Of IPv6, too, there is a localhost: among all addresses, or alone.
        host_get(lab, "m1", "http://[::1]:8000/")?;
        run(lab, "m1", "near", &["--network", "dual", "-p", "[::1]:8001:80"], &["serve"])?;
        ensure!(serves(lab, "m1", "http://[::1]:8001/")? == "near", "by [::1] alone");
        let refused = lab.exec("w1", ["curl", "-gsS", "--max-time", "2", &format!("http://{host6}:8001/")])?;
        ensure!(!refused.status.success(), "{refused}");
        // A container that has IPv4 only.
        run(lab, "m1", "four", &["-p", "8004:80"], &["serve"])?;
        for (from, url) in [("m1", "http://[::1]:8004/"), ("w1", &format!("http://{host6}:8004/"))] {
            ensure!(serves(lab, from, url)? == "four", "{url} from {from}");
        }
        // Asked for by name of the address.
        run(lab, "m1", "c", &["--network", "own", "--ip", "192.0.2.77", "--ip6", "2001:db8:7::77"], &["serve"])?;
        serves(lab, "m1", "http://[2001:db8:7::77]/")?;
        serves(lab, "m1", "http://192.0.2.77/").map(drop)
    })
}

/// `--ipv6` and `--fixed-cidr-v6` of the daemon.
#[test]
fn a_daemon_with_ipv6_gives_global_addresses_on_the_default_bridge() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        for (host, settings) in [("m1", "ipv6 = true\nfixed-cidr-v6 = '2001:db8:1::/64'\n"), ("w1", "ipv6 = true\n")] {
            std::fs::write(lab.dir(host)?.join("daemon.toml"), settings)?;
            lab.lab(["stop", host])?.success()?;
            lab.lab(["start", host])?.success()?;
        }
        for host in ["m1", "w1"] {
            eventually("the default bridge has both families", SETTLES_WITHIN, || {
                let seen = lab.exec(host, ["ip", "-6", "-br", "addr", "show", "dev", "shoal0"])?.success()?;
                ensure!(seen.contains("fe80::1/64"), "{host}: {seen}");
                Ok(())
            })?;
        }
        run(lab, "m1", "web", &["-p", "8000:80"], &["serve"])?;
        run(lab, "m1", "near", &[], &["idle"])?;
        run(lab, "w1", "far", &[], &["idle"])?;
        let global = on(lab, "m1", "web", "bridge", "GlobalIPv6Address")?;
        ensure!(global.starts_with("2001:db8:1::"), "{global}");
        let unique = on(lab, "w1", "far", "bridge", "GlobalIPv6Address")?;
        ensure!(unique.starts_with("fd"), "of the cluster's own: {unique}");
        let seen =
            inside(lab, "m1", "web", &["ip", "-6", "addr", "show", "dev", "eth0", "scope", "global"])?.success()?;
        ensure!(seen.contains(&format!("{global}/64")), "{seen}");
        // By name, as neighbours, which are found like those of IPv4.
        ensure!(dig(lab, "m1", "near", &["web", "AAAA"])? == global, "a name has both");
        eventually("its neighbour answers", SETTLES_WITHIN, || get(lab, "m1", "near", &format!("http://[{global}]/")))?;
        inside(lab, "m1", "near", &["ping", "-6", "-c", "1", "-W", "2", &global])?.success()?;
        let found = inside(lab, "m1", "near", &["ip", "-6", "neigh", "show", &global])?.success()?;
        ensure!(found.contains("lladdr"), "{found}");
        // Its host, and from there on the world; and the world by the published port.
        inside(lab, "m1", "near", &["ping", "-6", "-c", "1", "-W", "2", "fd5a:10ab::65"])?.success()?;
        let client = host_get(lab, "w1", "http://[fd5a:10ab::b]:8000/cgi-bin/client")?;
        ensure!(client == "fd5a:10ab::65", "{client}");
        Ok(())
    })
}
