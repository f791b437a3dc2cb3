//! What must survive: daemons that are killed, managers that are lost, hosts that come and go.

mod alone;
mod connection;
mod log;
mod unreadable;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use shoal_tests::{Lab, Shape, eventually, story};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, thread,
    time::{Duration, Instant},
};

/// The node timeout is 5 s; a machine that is busy takes its time.
const REPLACED_WITHIN: Duration = Duration::from_secs(25);
const SETTLES_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    #[serde(rename = "ID")]
    id: String,
    node: String,
    state: String,
    desired_state: String,
    endpoints: Vec<Address>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Address {
    #[serde(rename = "IPv4")]
    v4: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "ID")]
    id: String,
    hostname: String,
    status: String,
    raft: String,
    tasks: u32,
}

fn running(lab: &Lab, at: &str, service: &str) -> anyhow::Result<Vec<Task>> {
    let mut tasks = lab.shoal(at, ["service", "ps", "--format", "json", service])?.json::<Task>()?;
    tasks.retain(|t| t.state == "running" && t.desired_state == "Running");
    tasks.sort();
    Ok(tasks)
}

fn nodes(lab: &Lab, at: &str) -> anyhow::Result<BTreeMap<String, Node>> {
    let nodes = lab.shoal(at, ["node", "ls", "--format", "json"])?.json::<Node>()?;
    Ok(nodes.into_iter().map(|n| (n.hostname.clone(), n)).collect())
}

fn leader(lab: &Lab, at: &str) -> anyhow::Result<String> {
    let nodes = nodes(lab, at)?;
    nodes.into_values().find(|n| n.raft == "leader").map(|n| n.hostname).context("somebody leads")
}

/// The first process of a task's container, as this machine counts.
fn pid(lab: &Lab, task: &Task) -> Option<u32> {
    ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"]
        .map(|root| format!("{root}/shoal/{}/{}/{}/cgroup.procs", lab.name(), task.node, task.id))
        .into_iter()
        .find_map(|path| fs::read_to_string(path).ok())
        .and_then(|procs| procs.lines().next()?.parse().ok())
}

fn vip(lab: &Lab, at: &str, service: &str) -> anyhow::Result<String> {
    let found = lab.shoal(at, ["service", "inspect", service])?.json::<serde_json::Value>()?;
    let vip = found.first().and_then(|s| s["Endpoint"]["VirtualIPs"][0]["Addr"].as_str());
    vip.map(str::to_owned).context("it has a VIP")
}

/// web: three replicas, and a client on every host, on one network.
fn stage(lab: &Lab) -> anyhow::Result<()> {
    lab.import("page")?;
    lab.shoal("m1", ["network", "create", "-d", "overlay", "blue"])?.success()?;
    let web = ["service", "create", "--name", "web", "--network", "blue", "--replicas", "3", "page", "serve"];
    lab.shoal("m1", web)?.success()?;
    let client = ["service", "create", "--name", "client", "--network", "blue", "--mode", "global", "page", "idle"];
    lab.shoal("m1", client)?.success()?;
    Ok(())
}

/// Asks for a page without a pause until the time is over: how often it was answered. One failure is an error.
fn requests(lab: &Lab, from: &Task, url: &str, seconds: u32) -> anyhow::Result<u32> {
    let script = format!(
        "end=$(($(date +%s) + {seconds})); n=0; while [ $(date +%s) -lt $end ]; do \
         curl -sS --fail --max-time 3 {url} >/dev/null || exit 1; n=$((n+1)); done; echo $n"
    );
    Ok(lab.inside(&from.node, &from.id, ["sh", "-c", &script])?.success()?.trim().parse()?)
}

/// Of containers, networks and rules, on a host that is in no cluster any more.
fn nothing_is_left(lab: &Lab, host: &str) -> anyhow::Result<()> {
    let left = lab.exec(host, ["sh", "-c", "ls -A /run/shoal/netns; nft list tables; pgrep -f 'bin/(serve|idle)'"])?;
    ensure!(left.stdout.is_empty(), "{left}");
    let links = lab.exec(host, ["ip", "-br", "link"])?.success()?;
    ensure!(links.lines().count() == 2, "not only lo and eth0: {links}");
    Ok(())
}

#[test]
fn every_daemon_is_killed_at_once_and_nobody_notices() -> anyhow::Result<()> {
    story(Shape { managers: 3, workers: 1 }, |lab| {
        stage(lab)?;
        let (web, clients) = (running(lab, "m1", "web")?, running(lab, "m1", "client")?);
        let pids: Vec<Option<u32>> = web.iter().chain(&clients).map(|t| pid(lab, t)).collect();
        ensure!(pids.iter().all(Option::is_some), "{pids:?}");
        let url = format!("http://{}/", vip(lab, "m1", "web")?);

        // From two hosts, before, while and after no daemon lives anywhere.
        let answered = thread::scope(|s| {
            let asked: Vec<_> = clients[..2].iter().map(|c| s.spawn(|| requests(lab, c, &url, 6))).collect();
            let hosts: Vec<&str> = lab.hosts().collect();
            lab.lab(["kill"].into_iter().chain(hosts.iter().copied()))?.success()?;
            // Names too, while there is none.
            let dig = ["dig", "+short", "+time=2", "+tries=1", "@127.0.0.11", "web", "A"];
            let name = lab.inside(&clients[0].node, &clients[0].id, dig)?.success()?;
            ensure!(url.contains(name.trim()) && !name.trim().is_empty(), "{name:?} is not in {url}");
            lab.lab(["start"].into_iter().chain(hosts.iter().copied()))?.success()?;
            asked.into_iter().map(|a| a.join().expect("it does not panic")).collect::<anyhow::Result<Vec<u32>>>()
        })?;
        ensure!(answered.iter().all(|n| *n > 20), "{answered:?}");

        eventually("the managers answer again", SETTLES_WITHIN, || {
            let nodes = nodes(lab, "m2")?;
            ensure!(nodes.values().all(|n| n.status == "Ready"), "{nodes:?}");
            Ok(())
        })?;
        ensure!(running(lab, "m2", "web")? == web && running(lab, "m2", "client")? == clients, "tasks were replaced");
        let after: Vec<Option<u32>> = web.iter().chain(&clients).map(|t| pid(lab, t)).collect();
        ensure!(after == pids, "{pids:?} became {after:?}");
        Ok(())
    })
}

#[test]
fn a_host_without_a_daemon_is_replaced_after_the_timeout_and_stops_only_that_when_it_is_back() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        stage(lab)?;
        let before = running(lab, "m1", "web")?;
        let lost = before.iter().find(|t| t.node == "w1").context("one replica is on w1")?.clone();
        let client = running(lab, "m1", "client")?.into_iter().find(|t| t.node == "w1").context("a client on w1")?;
        lab.lab(["kill", "w1"])?.success()?;
        let after = eventually("three replicas run elsewhere", REPLACED_WITHIN, || {
            let now = running(lab, "m1", "web")?;
            ensure!(now.len() == 3 && now.iter().all(|t| t.node != "w1"), "{now:?}");
            Ok(now)
        })?;
        // The others were let be; its address went to nobody yet; it runs on where it is.
        let kept: Vec<&Task> = before.iter().filter(|t| t.node != "w1").collect();
        ensure!(kept.iter().all(|t| after.contains(t)), "{before:?} became {after:?}");
        ensure!(after.iter().all(|t| t.endpoints != lost.endpoints), "an address was given out at once: {after:?}");
        ensure!(pid(lab, &lost).is_some(), "the container was ended with its daemon");
        let other = running(lab, "m1", "client")?.into_iter().find(|t| t.node == "w2").context("a client on w2")?;
        let dig = ["dig", "+short", "+time=2", "+tries=1", "@127.0.0.11", "tasks.web", "A"];
        let named = lab.inside("w2", &other.id, dig)?.success()?;
        ensure!(!named.contains(&lost.endpoints[0].v4), "the lost address is still named: {named}");

        lab.lab(["start", "w1"])?.success()?;
        eventually("what was replaced is stopped", SETTLES_WITHIN, || {
            ensure!(pid(lab, &lost).is_none() && pid(lab, &client).is_none(), "still there");
            Ok(())
        })?;
        ensure!(running(lab, "m1", "web")? == after, "its return moved a task");
        eventually("its client is there again, as another task", SETTLES_WITHIN, || {
            let clients = running(lab, "m1", "client")?;
            ensure!(clients.iter().any(|t| t.node == "w1" && t.id != client.id), "{clients:?}");
            Ok(())
        })?;
        Ok(())
    })
}

#[test]
fn no_acknowledged_write_is_lost_with_its_leader_and_without_a_quorum_there_is_an_error() -> anyhow::Result<()> {
    story(Shape { managers: 3, workers: 0 }, |lab| {
        let mut acknowledged = BTreeSet::new();
        let mut create = |at: &str, name: &str| -> anyhow::Result<()> {
            let created = lab.shoal(at, ["network", "create", "-d", "overlay", name])?;
            if created.status.success() {
                acknowledged.insert(name.to_owned());
            }
            created.success().map(drop)
        };
        for round in 0..3 {
            create("m1", &format!("before-{round}"))?;
            let lost = leader(lab, "m1")?;
            let at = ["m1", "m2", "m3"].into_iter().find(|m| *m != lost).context("another one")?;
            lab.lab([if round == 1 { "power-off" } else { "kill" }, &lost])?.success()?;
            let begin = Instant::now();
            create(at, &format!("without-{round}"))?;
            eprintln!("round {round}: {lost} lost, a write at {at} was acknowledged after {:?}", begin.elapsed());
            lab.lab(["start", &lost])?.success()?;
            eventually("all are there again", SETTLES_WITHIN, || {
                let nodes = nodes(lab, &lost)?;
                ensure!(nodes.values().all(|n| n.status == "Ready"), "{nodes:?}");
                Ok(())
            })?;
        }

        // A partition: the one that is cut off answers with an error, and the two go on.
        let alone = leader(lab, "m1")?;
        let rest: Vec<&str> = ["m1", "m2", "m3"].into_iter().filter(|m| *m != alone).collect();
        lab.lab(["partition", &alone])?.success()?;
        create(rest[0], "beside-a-partition")?;
        let begin = Instant::now();
        let refused = lab.shoal(&alone, ["network", "create", "-d", "overlay", "nowhere"])?.failure(7)?;
        ensure!(begin.elapsed() < Duration::from_secs(12), "it took {:?}", begin.elapsed());
        ensure!(refused.contains("quorum") || refused.contains("leader"), "{refused}");
        lab.shoal(&alone, ["network", "ls"])?.failure(7)?;
        lab.lab(["heal"])?.success()?;

        for at in ["m1", "m2", "m3"] {
            eventually(&format!("{at} knows all that was acknowledged, and nothing else"), SETTLES_WITHIN, || {
                let listed = lab
                    .shoal(at, ["network", "ls", "--filter", "driver=overlay", "--format", "json"])?
                    .json::<serde_json::Value>()?;
                let listed: Vec<String> = listed.iter().filter_map(|n| n["Name"].as_str().map(str::to_owned)).collect();
                ensure!(listed.len() == acknowledged.len(), "{listed:?}");
                ensure!(listed.into_iter().collect::<BTreeSet<_>>() == acknowledged, "not what was acknowledged");
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn nodes_are_promoted_demoted_drained_removed_and_leave() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 3 }, |lab| {
        stage(lab)?;
        let voters = |at: &str| -> anyhow::Result<BTreeSet<String>> {
            let nodes = nodes(lab, at)?;
            Ok(nodes.into_values().filter(|n| n.raft == "leader" || n.raft == "voter").map(|n| n.hostname).collect())
        };
        let become_voters = |at: &str, wanted: &[&str]| {
            let wanted: BTreeSet<String> = wanted.iter().map(|h| (*h).to_owned()).collect();
            eventually(&format!("{wanted:?} vote"), SETTLES_WITHIN, || {
                let now = voters(at)?;
                ensure!(now == wanted, "{now:?}");
                Ok(())
            })
        };
        lab.shoal("m1", ["node", "promote", "w1", "w2"])?.success()?;
        become_voters("m1", &["m1", "w1", "w2"])?;
        // A promoted node takes commands; a demoted one, here the leader, does not any more.
        eventually("w1 is a manager", SETTLES_WITHIN, || lab.shoal("w1", ["service", "ls"])?.success())?;
        lab.shoal("w1", ["node", "demote", "m1"])?.success()?;
        become_voters("w1", &["w1", "w2"])?;
        eventually("m1 is a worker", SETTLES_WITHIN, || lab.shoal("m1", ["service", "ls"])?.failure(4))?;
        ensure!(running(lab, "w1", "web")?.len() == 3, "a demotion moved tasks");
        lab.shoal("w1", ["node", "promote", "m1"])?.success()?;
        become_voters("w1", &["m1", "w1", "w2"])?;

        lab.shoal("w1", ["node", "update", "--availability", "drain", "w3"])?.success()?;
        eventually("w3 is empty", SETTLES_WITHIN, || {
            let on_w3 = nodes(lab, "w1")?.remove("w3").context("w3 is there")?;
            ensure!(on_w3.tasks == 0 && on_w3.status == "Ready", "{on_w3:?}");
            let left = lab.exec("w3", ["ls", "/run/shoal/netns"])?.success()?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
        ensure!(running(lab, "w1", "web")?.len() == 3, "web is whole");

        // Leaving: nothing of it is left on the host, and the cluster forgets it.
        let refused = lab.shoal("w2", ["leave"])?.failure(4)?;
        ensure!(refused.contains("demote"), "{refused}");
        lab.shoal("w3", ["leave"])?.success()?;
        nothing_is_left(lab, "w3")?;
        // At once: nobody waits for a host that said that it goes.
        let nodes_now = nodes(lab, "w1")?;
        ensure!(nodes_now["w3"].status == "Down", "{nodes_now:?}");
        lab.shoal("w1", ["node", "rm", &nodes_now["w3"].id])?.success()?;
        ensure!(!nodes(lab, "w1")?.contains_key("w3"), "w3 is still listed");
        // And it may come back, as another node.
        let token = lab.shoal("w1", ["join-token", "-q", "worker"])?.success()?;
        lab.shoal("w3", ["join", "--token", token.trim(), "172.31.0.101:2377"])?.success()?;
        eventually("w3 is back, and used", SETTLES_WITHIN, || {
            let node = nodes(lab, "w1")?.remove("w3").context("w3 is there")?;
            ensure!(node.status == "Ready" && node.id != nodes_now["w3"].id, "{node:?}");
            let clients = running(lab, "w1", "client")?;
            ensure!(clients.iter().any(|t| t.node == "w3"), "{clients:?}");
            Ok(())
        })
    })
}

#[test]
fn of_two_managers_one_may_leave_and_the_other_still_decides() -> anyhow::Result<()> {
    story(Shape { managers: 2, workers: 1 }, |lab| {
        let said = lab.shoal("m1", ["info"])?.success()?;
        ensure!(said.contains("of two managers none may fail"), "{said}");
        let leader = leader(lab, "m1")?;
        let other = if leader == "m1" { "m2" } else { "m1" };
        // The one that leads, who takes the majority with it unless the other is told before.
        lab.shoal(&leader, ["leave", "--force"])?.success()?;
        nothing_is_left(lab, &leader)?;
        lab.shoal(other, ["network", "create", "-d", "overlay", "after"])?.success()?;
        let now = nodes(lab, other)?;
        ensure!(now[&leader].status == "Down" && now[other].raft == "leader", "{now:?}");
        let said = lab.shoal(other, ["info"])?.success()?;
        ensure!(!said.contains("of two managers"), "{said}");
        // Alone, it has nobody to tell, and leaves all the same.
        lab.shoal(other, ["leave", "--force"])?.success().map(drop)
    })
}

fn addresses(tasks: &[Task]) -> BTreeSet<String> {
    let all = tasks.iter().flat_map(|t| &t.endpoints);
    all.map(|e| e.v4.split('/').next().unwrap_or_default().to_owned()).collect()
}

/// What the names of web's tasks mean to a task on m1.
fn answered_to(lab: &Lab, asker: &Task) -> anyhow::Result<BTreeSet<String>> {
    let dig = ["dig", "+short", "+time=2", "+tries=1", "@127.0.0.11", "tasks.web", "A"];
    Ok(lab.inside("m1", &asker.id, dig)?.success()?.lines().map(str::to_owned).collect())
}

#[test]
fn a_host_that_leaves_ends_what_it_runs_only_after_nobody_is_sent_there() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        stage(lab)?;
        let before = running(lab, "m1", "web")?;
        ensure!(before.iter().any(|t| t.node == "w1"), "none to move: {before:?}");
        lab.shoal("w1", ["leave"])?.success()?;
        let web = running(lab, "m1", "web")?;
        ensure!(web.iter().all(|t| t.node != "w1"), "{web:?}");
        let asker = running(lab, "m1", "client")?.into_iter().find(|t| t.node == "m1").context("on m1")?;
        let names = answered_to(lab, &asker)?;
        ensure!(!names.is_empty() && names.is_subset(&addresses(&web)), "{names:?} are answered, {web:?} run");
        lab.shoal("m1", ["node", "rm", "w1"])?.success().map(drop)
    })
}

#[test]
fn a_host_that_was_removed_while_it_lived_runs_nothing_any_more_and_may_leave() -> anyhow::Result<()> {
    story(Shape { managers: 3, workers: 1 }, |lab| {
        stage(lab)?;
        lab.shoal("m1", ["node", "rm", "--force", "w1"])?.success()?;
        eventually("w1 runs nothing", SETTLES_WITHIN, || {
            let left = lab.exec("w1", ["ls", "/run/shoal/netns"])?.success()?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
        // Nor after a start, when it remembers what it was told.
        lab.lab(["stop", "w1"])?.success()?;
        lab.lab(["start", "w1"])?.success()?;
        eventually("it is told again", SETTLES_WITHIN, || {
            let info = lab.shoal("w1", ["info"])?.success()?;
            ensure!(info.contains("removed from its cluster: run shoal leave"), "{info}");
            Ok(())
        })?;
        let left = lab.exec("w1", ["ls", "/run/shoal/netns"])?.success()?;
        ensure!(left.is_empty(), "{left}");
        lab.shoal("w1", ["leave"])?.success()?;

        // A manager that was away meanwhile says the same, and needs no force to leave.
        lab.lab(["power-off", "m3"])?.success()?;
        lab.shoal("m1", ["node", "demote", "m3"])?.success()?;
        eventually("m3 is down and can be removed", REPLACED_WITHIN, || {
            lab.shoal("m1", ["node", "rm", "m3"])?.success().map(drop)
        })?;
        lab.lab(["start", "m3"])?.success()?;
        eventually("it knows", SETTLES_WITHIN, || {
            let info = lab.shoal("m3", ["info"])?.success()?;
            ensure!(info.contains("removed from its cluster: run shoal leave"), "{info}");
            Ok(())
        })?;
        lab.shoal("m3", ["leave"])?.success()?;
        nothing_is_left(lab, "m3")
    })
}

#[test]
fn a_leave_and_a_demotion_that_were_cut_short_are_finished_at_the_next_start() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        stage(lab)?;
        // Both begin with the certificate: it is gone, or that of a worker already.
        lab.lab(["kill", "w1", "w2"])?.success()?;
        for file in ["identity", "cluster.json"] {
            fs::remove_file(lab.data("w1")?.join(file)).context(file)?;
        }
        let log = lab.data("w2")?.join("raft");
        fs::create_dir(&log)?;
        fs::write(log.join("db"), "of a manager")?;
        let on_w2: Vec<Task> = running(lab, "m1", "client")?.into_iter().filter(|t| t.node == "w2").collect();
        lab.lab(["start", "w1", "w2"])?.success()?;

        eventually("nothing of the cluster is left on w1", SETTLES_WITHIN, || nothing_is_left(lab, "w1"))?;
        eventually("w2 is no manager", SETTLES_WITHIN, || {
            ensure!(!log.exists(), "{} is still there", log.display());
            Ok(())
        })?;
        ensure!(running(lab, "m1", "client")?.into_iter().filter(|t| t.node == "w2").eq(on_w2), "it was replaced");
        // And it is a host like any other.
        let token = lab.shoal("m1", ["join-token", "-q", "worker"])?.success()?;
        lab.shoal("w1", ["join", "--token", token.trim(), "172.31.0.11:2377"])?.success().map(drop)
    })
}

#[test]
fn a_host_that_lost_its_power_is_replaced_and_comes_back_with_nothing_of_before() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        stage(lab)?;
        let asker = running(lab, "m1", "client")?.into_iter().find(|t| t.node == "m1").context("on m1")?;
        let answered = || answered_to(lab, &asker);
        lab.lab(["power-off", "w1"])?.success()?;
        let web = eventually("web runs elsewhere", REPLACED_WITHIN, || {
            let web = running(lab, "m1", "web")?;
            ensure!(web.len() == 3 && web.iter().all(|t| t.node != "w1"), "{web:?}");
            Ok(web)
        })?;
        ensure!(answered()? == addresses(&web), "{:?} is answered, {web:?} runs", answered()?);

        lab.lab(["start", "w1"])?.success()?;
        let client = eventually("w1 works again", SETTLES_WITHIN, || {
            let clients = running(lab, "m1", "client")?;
            clients.into_iter().find(|t| t.node == "w1").context("a client on w1")
        })?;
        // Its own network namespace and that of the network; nothing of the tasks that it had.
        eventually("w1 has what it should", SETTLES_WITHIN, || {
            let there = lab.exec("w1", ["ls", "/run/shoal/netns"])?.success()?;
            ensure!(there.lines().count() == 2 && there.contains(&client.id), "{there}");
            Ok(())
        })?;
        ensure!(running(lab, "m1", "web")? == web, "its return moved tasks");
        let url = format!("http://{}/", vip(lab, "m1", "web")?);
        requests(lab, &client, &url, 1).map(drop)
    })
}
