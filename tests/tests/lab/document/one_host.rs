//! "Docker Default Networking", "Network Types", "Bridge Networks".

use super::*;
use shoal_tests::{Shape, story};

#[test]
fn a_container_lands_on_the_default_bridge_and_has_the_hosts_stack_or_none_if_asked() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        // The three networks that every host has.
        let listed = lab.shoal("m1", ["network", "ls"])?.success()?;
        for name in ["bridge", "host", "none"] {
            ensure!(listed.lines().any(|l| l.split_whitespace().any(|w| w == name)), "{name}: {listed}");
        }
        run(lab, "m1", "web", &[], &["serve"])?;
        let address = v4(lab, "m1", "web", "bridge")?;
        let bridge = links(lab, "m1", None)?.into_iter().find(|l| l["ifname"] == "shoal0").context("shoal0")?;
        ensure!(bridge["linkinfo"]["info_kind"] == "bridge", "{bridge}");
        let seen = links(lab, "m1", Some(&id(lab, "m1", "web")?))?;
        let eth0 = seen.iter().find(|l| l["ifname"] == "eth0").context("eth0")?;
        let has = eth0["addr_info"].as_array().into_iter().flatten().any(|a| a["local"] == address.as_str());
        ensure!(has && eth0["address"] == on(lab, "m1", "web", "bridge", "MacAddress")?.as_str(), "{eth0}");
        serves(lab, "m1", &format!("http://{address}/"))?;

        // The host's own stack.
        run(lab, "m1", "as-host", &["--network", "host"], &["serve", "8080"])?;
        let name = serves(lab, "m1", "http://172.31.0.11:8080/")?;
        ensure!(name == "m1", "it is called as its host: {name}");
        // None but loopback.
        run(lab, "m1", "alone", &["--network", "none"], &["idle"])?;
        let seen = links(lab, "m1", Some(&id(lab, "m1", "alone")?))?;
        ensure!(seen.len() == 1 && seen[0]["ifname"] == "lo", "{seen:?}");
        lab.shoal("m1", ["rm", "-f", "web", "as-host", "alone"])?.success()?;
        let left = lab.exec("m1", ["ls", "-A", "/run/shoal/netns"])?.success()?;
        ensure!(left.is_empty(), "{left}");
        let refused = lab.shoal("m1", ["network", "rm", "bridge"])?;
        ensure!(!refused.status.success() && refused.stderr.contains("is on every host"), "{refused}");
        Ok(())
    })
}

#[test]
fn bridges_are_apart_and_an_internal_one_has_no_way_out() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        // On a host that is no manager, which changes nothing.
        lab.shoal("w1", ["network", "create", "-d", "bridge", "my-bridge-net"])?.success()?;
        lab.shoal("w1", ["network", "create", "--internal", "vault"])?.success()?;
        lab.shoal("w1", ["network", "create", "-o", "com.docker.network.bridge.name=br-mine", "mine"])?.success()?;
        for (name, network) in [("a", "my-bridge-net"), ("b", "my-bridge-net"), ("v", "vault"), ("m", "mine")] {
            run(lab, "w1", name, &["--network", network], &["serve"])?;
        }
        let url =
            |name: &str, network: &str| Ok::<_, anyhow::Error>(format!("http://{}/", v4(lab, "w1", name, network)?));
        let (b, v, m) = (url("b", "my-bridge-net")?, url("v", "vault")?, url("m", "mine")?);
        for of in [&b, &m] {
            serves(lab, "w1", of)?;
        }
        ensure!(get(lab, "w1", "a", &b)? == "b", "neighbours reach each other");
        unreachable(lab, "w1", "a", &v)?;
        unreachable(lab, "w1", "a", &m)?;
        unreachable(lab, "w1", "m", &b)?;
        unreachable(lab, "w1", "v", &b)?;
        ensure!(links(lab, "w1", None)?.iter().any(|l| l["ifname"] == "br-mine"), "the bridge is called as asked");
        // The way out: another host sees this host's address. There is none from an internal network.
        run(lab, "m1", "far", &["--network", "host"], &["serve", "8080"])?;
        serves(lab, "m1", "http://172.31.0.11:8080/")?;
        let seen = get(lab, "w1", "a", "http://172.31.0.11:8080/cgi-bin/client")?;
        ensure!(seen == "172.31.0.101", "{seen}");
        unreachable(lab, "w1", "v", "http://172.31.0.11:8080/")?;
        // Another host's bridges are not seen from here, and may be called the same.
        let elsewhere = lab.shoal("m1", ["network", "inspect", "mine"])?;
        ensure!(!elsewhere.status.success(), "{elsewhere}");
        lab.shoal("m1", ["network", "create", "mine"])?.success()?;
        // The bridge goes with its network.
        lab.shoal("w1", ["rm", "-f", "m"])?.success()?;
        lab.shoal("w1", ["network", "rm", "mine"])?.success()?;
        eventually("the bridge is gone", SETTLES_WITHIN, || {
            ensure!(!links(lab, "w1", None)?.iter().any(|l| l["ifname"] == "br-mine"), "it is there");
            Ok(())
        })
    })
}
