//! Whatever people do to containers and networks, and whenever a daemon is killed: the kernel is what the managers say
//! and what would be made from nothing, and nothing is left when all is removed. `SHOAL_SEED` (in the place of seed 1)
//! and `SHOAL_OPERATIONS` ask for another run than the usual one.

use anyhow::{Context as _, ensure};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::Value;
use shoal_tests::{Lab, Shape, eventually, story};
use std::{collections::BTreeSet, env, time::Duration};

const OPERATIONS: u64 = 500;
/// Between two looks at everything.
const LOOK_EVERY: u64 = 100;
const SETTLES_WITHIN: Duration = Duration::from_secs(20);

const HOSTS: &[&str] = &["m1", "w1"];
const CONTAINERS: &[&str] = &["a", "b", "c", "d", "e"];
/// Bridges of the host that is asked, and overlays of both.
const NETWORKS: &[&str] = &["bridge-1", "bridge-2", "overlay-1", "overlay-2"];
/// Not found; in conflict with what is there; a network of all hosts is none of a worker's; what `run` says of these.
const REFUSALS: &[i32] = &[3, 4, 8, 125];

fn of_env(name: &str, usual: u64) -> anyhow::Result<u64> {
    env::var(name).map_or(Ok(usual), |given| given.parse().with_context(|| format!("{name}={given}")))
}

#[test]
fn seed_1() -> anyhow::Result<()> {
    nothing_differs_and_nothing_is_left(of_env("SHOAL_SEED", 1)?)
}

#[test]
fn seed_2() -> anyhow::Result<()> {
    nothing_differs_and_nothing_is_left(2)
}

#[test]
fn seed_3() -> anyhow::Result<()> {
    nothing_differs_and_nothing_is_left(3)
}

#[test]
fn seed_4() -> anyhow::Result<()> {
    nothing_differs_and_nothing_is_left(4)
}

fn nothing_differs_and_nothing_is_left(seed: u64) -> anyhow::Result<()> {
    let operations = of_env("SHOAL_OPERATIONS", OPERATIONS)?;
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        let bare = || HOSTS.iter().map(|host| remains(lab, host)).collect::<anyhow::Result<Vec<_>>>();
        // The default bridge takes a moment.
        let mut before = Vec::new();
        eventually("the hosts are made", SETTLES_WITHIN, || {
            before = bare()?;
            ensure!(before.iter().all(|host| host.contains("shoal0")), "{before:?}");
            Ok(())
        })?;
        for (host, driver, network) in
            [("m1", "bridge", "bridge-1"), ("w1", "bridge", "bridge-1"), ("m1", "overlay", "overlay-1")]
        {
            lab.shoal(host, ["network", "create", "-d", driver, "--attachable", network])?.success()?;
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let mut done = Vec::new();
        for n in 1..=operations {
            operate(lab, &mut rng, &mut done).with_context(|| format!("seed {seed}, after {done:#?}"))?;
            if n % LOOK_EVERY == 0 || n == operations {
                agree(lab).with_context(|| format!("seed {seed}, operation {n}, after {done:#?}"))?;
                done.clear();
            }
        }
        for host in HOSTS {
            is_made_again(lab, host).with_context(|| format!("seed {seed}"))?;
        }
        agree(lab).with_context(|| format!("seed {seed}, after all was made again"))?;
        for host in HOSTS {
            for name in names(lab, host, &["ps", "-a"], "Names")? {
                lab.shoal(host, ["rm", "-f", &name])?.success()?;
            }
        }
        for host in HOSTS {
            for name in names(lab, host, &["network", "ls"], "Name")? {
                if NETWORKS.contains(&name.as_str()) {
                    lab.shoal(host, ["network", "rm", &name])?.success()?;
                }
            }
        }
        eventually("nothing is left", SETTLES_WITHIN, || {
            let now = bare()?;
            ensure!(now == before, "seed {seed}: there was {before:#?}, and now there is {now:#?}");
            Ok(())
        })?;
        for host in HOSTS {
            let bridge = lab.shoal(host, ["network", "inspect", "bridge"])?.json::<Value>()?;
            ensure!(bridge[0]["IPAM"]["Config"][0]["Used"] == 0, "addresses are left: {bridge:?}");
        }
        Ok(())
    })
}

/// One thing that somebody may do. Refusals are fine, failures are not.
fn operate(lab: &Lab, rng: &mut StdRng, done: &mut Vec<String>) -> anyhow::Result<()> {
    let one_of = |rng: &mut StdRng, all: &[&'static str]| *all.choose(rng).expect("there are some");
    let host = one_of(rng, HOSTS);
    let (container, network) = (one_of(rng, CONTAINERS), one_of(rng, NETWORKS));
    let driver = if network.starts_with("bridge") { "bridge" } else { "overlay" };
    let line: Vec<&str> = match rng.random_range(0..20) {
        0 => vec!["create", "--name", container, "--network", network, "page", "idle"],
        1 | 2 => vec!["run", "-d", "--name", container, "--network", network, "page", "idle"],
        3 => vec!["run", "-d", "-p", "8000-8002:80", "--name", container, "--network", network, "page", "idle"],
        4 => vec!["run", "-d", "--name", container, "page", "idle"],
        5 => vec!["run", "-d", "--rm", "--name", container, "page", "idle"],
        6 => vec!["start", container],
        7 => vec!["stop", "-t", "0", container],
        8 => vec!["restart", "-t", "0", container],
        9 => vec!["kill", container],
        10 | 11 => vec!["rm", "-f", container],
        12..=14 => vec!["network", "create", "-d", driver, network],
        15 => vec!["network", "rm", network],
        16 | 17 => vec!["network", "connect", network, container],
        18 => vec!["network", "disconnect", network, container],
        _ => {
            done.push(format!("{host}: kill -9 of the daemon"));
            lab.lab(["kill", host])?.success()?;
            lab.lab(["start", host])?.success()?;
            return eventually("it answers", SETTLES_WITHIN, || lab.shoal(host, ["ps"])?.success().map(drop));
        }
    };
    // An overlay that others are to join says so.
    let attachable: &[&str] =
        if line.starts_with(&["network", "create"]) && driver == "overlay" { &["--attachable"] } else { &[] };
    let line = [&line[..], attachable].concat();
    let said = lab.shoal(host, &line)?;
    done.push(format!("{host}: {} ({})", line.join(" "), said.status));
    let refused = said.status.code().is_some_and(|code| REFUSALS.contains(&code));
    ensure!(said.status.success() || refused, "{said}");
    Ok(())
}

/// Each container has exactly the addresses that the managers say it has, and each address has one container.
fn agree(lab: &Lab) -> anyhow::Result<()> {
    eventually("the kernel is what the managers say", SETTLES_WITHIN, || {
        let mut given = BTreeSet::new();
        for host in HOSTS {
            let mut namespaces = BTreeSet::new();
            for name in names(lab, host, &["ps", "-a"], "Names")? {
                let container = lab.shoal(host, ["inspect", &name])?.json::<Value>()?.swap_remove(0);
                let networks = container["NetworkSettings"]["Networks"].as_object().context("networks")?;
                let told = |n: &Value| format!("{}/{}", n["IPAddress"].as_str().unwrap_or_default(), n["IPPrefixLen"]);
                let told: BTreeSet<String> = networks.values().map(told).collect();
                for (network, address) in networks.iter().map(|(name, n)| (name, n["IPAddress"].clone())) {
                    let whose = if network.starts_with("overlay") { "all" } else { host };
                    ensure!(
                        given.insert((whose, network.clone(), address.to_string())),
                        "{address} twice on {network}"
                    );
                }
                if container["State"]["Status"] != "running" {
                    continue;
                }
                let id = container["Id"].as_str().context("an id")?;
                namespaces.insert(id.to_owned());
                let seen: Vec<Value> = lab.inside(host, id, ["ip", "-j", "-4", "addr"])?.json()?;
                let addresses = seen.iter().filter(|link| link["ifname"] != "lo").flat_map(|link| {
                    let all = link["addr_info"].as_array().cloned().unwrap_or_default();
                    all.into_iter().map(|a| format!("{}/{}", a["local"].as_str().unwrap_or_default(), a["prefixlen"]))
                });
                let seen: BTreeSet<String> = addresses.collect();
                ensure!(seen == told, "{name} of {host} has {seen:?} and is said to have {told:?}");
            }
            agrees(lab, host)?;
            let there = lab.exec(host, ["ls", "/run/shoal/netns"])?.success()?;
            let there: BTreeSet<String> = there.lines().filter(|n| n.starts_with("task-")).map(str::to_owned).collect();
            ensure!(there == namespaces, "{host} has the namespaces {there:?} and runs {namespaces:?}");
        }
        Ok(())
    })
}

/// The reconciler of each host has nothing to do for a network, and as many addresses are taken as containers have.
fn agrees(lab: &Lab, host: &str) -> anyhow::Result<()> {
    let named = names(lab, host, &["network", "ls"], "Name")?;
    let networks = lab.shoal(host, ["network", "inspect"].into_iter().chain(named.iter().map(String::as_str)))?;
    for network in networks.json::<Value>()? {
        let name = &network["Name"];
        // A worker asks nobody but itself.
        let hosts = network["Hosts"].as_object().context("hosts")?;
        for (host, said) in hosts.iter().filter(|(it, _)| host.starts_with('m') || it.as_str() == host) {
            ensure!(said["KernelAgrees"] == true, "{name} on {host}: {said:#}");
        }
        let Some(pool) = network["IPAM"]["Config"].get(0) else { continue };
        let has = network["Containers"].as_object().map_or(0, serde_json::Map::len);
        // Of an overlay a worker sees its own containers only, and how many addresses the cluster has given.
        let is_all = host.starts_with('m') || network["Driver"] != "overlay";
        let used = usize::try_from(pool["Used"].as_u64().context("used")?)?;
        let agree = if is_all { used == has } else { used >= has };
        ensure!(agree, "{has} containers are on {name}, and {pool} says otherwise");
    }
    Ok(())
}

/// All that is ours in the kernel is taken away, and comes back as it was.
fn is_made_again(lab: &Lab, host: &str) -> anyhow::Result<()> {
    let shape = || lab.exec(host, ["sh", "-c", SHAPE])?.success();
    let before = shape()?;
    ensure!(before.contains("shoal0"), "{before}");
    lab.exec(host, ["sh", "-c", WIPE])?.success()?;
    eventually("all is made again", SETTLES_WITHIN, || {
        let now = shape()?;
        let missing: Vec<_> = before.lines().filter(|line| !now.contains(line)).collect();
        let new: Vec<_> = now.lines().filter(|line| !before.contains(line)).collect();
        ensure!(now == before, "{host} lacks {missing:#?} and has {new:#?}");
        Ok(())
    })
}

/// Links, addresses, routes, neighbours, forwarding entries and rules of a host and of each namespace of ours, without
/// what the kernel numbers as it likes.
const SHAPE: &str = r#"
look() {
    $2 ip -j -d link | jq -r '.[] | [.ifname, .mtu, .master, .linkinfo.info_kind, .linkinfo.info_data.id,
        (.address | select(. != null and test("^02:42:")))] | @tsv'
    $2 ip -j addr | jq -r '.[] | .ifname as $l | .addr_info[] | select(.scope != "link") | [$l, .local, .prefixlen] | @tsv'
    { $2 ip route; $2 ip -6 route | grep -v ^fe80; } | sed 's/ pref medium//; s/ *$//'
    $2 ip neigh show nud permanent
    $2 bridge fdb show | grep ' dst '
    $2 nft list ruleset
}
{
    look host | sed 's/^/host /'
    for n in /run/shoal/netns/*; do look "$n" "nsenter --net=$n" | sed "s|^|$(basename "$n") |"; done
} | sort
"#;

/// From the containers outwards, so that nothing is put back before all is gone.
const WIPE: &str = r#"
for n in /run/shoal/netns/*; do
    nsenter --net="$n" sh -c 'nft flush ruleset; for l in $(ip -o link | cut -d" " -f2 | tr -d : | sed "s/@.*//"); do
        ip link del "$l" 2>/dev/null; done; true'
done
nft flush ruleset
for l in $(ip -o link | cut -d' ' -f2 | tr -d : | sed 's/@.*//' | grep '^sh'); do ip link del "$l" 2>/dev/null; done
true
"#;

fn names(lab: &Lab, host: &str, list: &[&str], field: &str) -> anyhow::Result<Vec<String>> {
    let template = format!("{{{{.{field}}}}}");
    let rows = lab.shoal(host, [list, &["--format", &template]].concat())?.success()?;
    Ok(rows.lines().map(str::to_owned).collect())
}

/// What a host has that we make: links, namespaces, tables, listeners, mounts, processes, cgroups, directories.
fn remains(lab: &Lab, host: &str) -> anyhow::Result<String> {
    let cgroups = format!("find /sys/fs/cgroup -type d -path '*/shoal/{}/{host}/*' | wc -l", lab.name());
    let look = "ip -br link | awk '{ print $1 }' | sed 's/@.*//' | sort; ls /run/shoal/netns; nft list tables | sort; \
                ss -Hlntu | awk '{ print $1, $5 }' | sort; \
                grep -c overlay /proc/self/mounts; pgrep -fc 'bin/idle'";
    let seen = lab.exec(host, ["sh", "-c", &format!("{look}; {cgroups}")])?.success()?;
    let containers = lab.data(host)?.join("containers");
    let kept = std::fs::read_dir(&containers).map_or(0, Iterator::count);
    Ok(format!("{seen}{kept} directories of containers"))
}
