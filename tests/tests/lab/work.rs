//! Services at work: updates that nobody notices, names, limits, logs, and what repairs itself.

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use shoal_tests::{Lab, Shape, eventually, story};
use std::{collections::BTreeSet, thread, time::Duration};

const SETTLES_WITHIN: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    node: String,
    state: String,
    desired_state: String,
    message: String,
    exit_code: Option<i32>,
    endpoints: Vec<Address>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
struct Address {
    #[serde(rename = "IPv4")]
    v4: String,
    #[serde(rename = "IPv6")]
    v6: String,
}

fn tasks(lab: &Lab, service: &str) -> anyhow::Result<Vec<Task>> {
    lab.shoal("m1", ["service", "ps", "--format", "json", service])?.json::<Task>()
}

fn running(lab: &Lab, service: &str) -> anyhow::Result<Vec<Task>> {
    let mut tasks = tasks(lab, service)?;
    tasks.retain(|t| t.state == "running" && t.desired_state == "Running");
    tasks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(tasks)
}

fn only(lab: &Lab, service: &str) -> anyhow::Result<Task> {
    running(lab, service)?.into_iter().next().with_context(|| format!("{service} runs"))
}

/// `shoal service create`, converged.
fn create(lab: &Lab, args: &[&str]) -> anyhow::Result<()> {
    lab.shoal("m1", [&["service", "create"], args].concat())?.success().map(drop)
}

fn dig(lab: &Lab, from: &Task, args: &[&str]) -> anyhow::Result<String> {
    let dig = [&["dig", "+time=2", "+tries=1", "@127.0.0.11"], args].concat();
    lab.inside(&from.node, &from.id, dig)?.success()
}

fn short(lab: &Lab, from: &Task, args: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    Ok(dig(lab, from, &[&["+short"], args].concat())?.lines().map(str::to_owned).collect())
}

fn set(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn a_rolling_update_is_noticed_by_nobody_who_asks() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "blue"])?.success()?;
        create(lab, &["--name", "client", "--network", "blue", "--constraint", "node.hostname==w2", "page", "idle"])?;
        create(lab, &["--name", "web", "--network", "blue", "--replicas", "3", "page", "serve"])?;
        let (client, before) = (only(lab, "client")?, running(lab, "web")?);
        ensure!(client.node == "w2", "{client:?}");

        let vip = short(lab, &client, &["web", "A"])?.into_iter().next().context("web has a VIP")?;
        let stop = tempfile::tempdir()?.path().with_extension("stop");
        let script = "while [ ! -e $1 ]; do curl -sS --fail --max-time 3 http://$0/ >/dev/null || exit 1; done";
        let asks = ["sh", "-c", script, &vip, stop.to_str().context("a path")?];
        thread::scope(|s| {
            let asking = s.spawn(|| lab.inside("w2", &client.id, asks)?.success());
            let update = ["service", "update", "--env-add", "VERSION=2", "--update-parallelism", "1", "web"];
            let updated = lab.shoal("m1", update)?.success();
            std::fs::write(&stop, "")?;
            let asked = asking.join().expect("it does not panic");
            std::fs::remove_file(&stop)?;
            updated.and(asked)
        })?;
        let after = running(lab, "web")?;
        ensure!(after.len() == 3 && after.iter().all(|t| !before.iter().any(|b| b.id == t.id)), "{before:?} {after:?}");

        // Up and down, and away without a trace.
        lab.shoal("m1", ["service", "scale", "web=5"])?.success()?;
        ensure!(running(lab, "web")?.len() == 5, "five");
        lab.shoal("m1", ["service", "scale", "web=1"])?.success()?;
        ensure!(running(lab, "web")?.len() == 1, "one");
        lab.shoal("m1", ["service", "rm", "web", "client"])?.success()?;
        for host in lab.hosts() {
            eventually(&format!("nothing is left on {host}"), SETTLES_WITHIN, || {
                let left =
                    lab.exec(host, ["sh", "-c", "ls /run/shoal/netns; ip -o link show type veth | grep -v eth0"])?;
                ensure!(left.stdout.trim().is_empty(), "{left}");
                Ok(())
            })?;
        }
        Ok(())
    })
}

#[test]
fn names_are_of_the_askers_networks_and_all_others_are_somebody_elses() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "--ipv6", "blue"])?.success()?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "red"])?.success()?;
        let web =
            ["--name", "web", "--network", "name=blue,alias=www", "--replicas", "2", "--service-port", "http=80/tcp"];
        create(lab, &[&web[..], &["page", "serve"]].concat())?;
        create(
            lab,
            &["--name", "rr", "--network", "blue", "--endpoint-mode", "dnsrr", "--replicas", "2", "page", "idle"],
        )?;
        create(lab, &["--name", "secret", "--network", "red", "page", "idle"])?;
        create(lab, &["--name", "client", "--network", "blue", "page", "idle"])?;
        let (client, web, rr) = (only(lab, "client")?, running(lab, "web")?, running(lab, "rr")?);
        let of = |tasks: &[Task], v6: bool| -> BTreeSet<String> {
            tasks.iter().map(|t| if v6 { &t.endpoints[0].v6 } else { &t.endpoints[0].v4 }.clone()).collect()
        };

        let vip = short(lab, &client, &["web", "A"])?;
        ensure!(vip.len() == 1 && vip.is_disjoint(&of(&web, false)), "one VIP: {vip:?}");
        ensure!(short(lab, &client, &["www", "A"])? == vip, "the alias is the VIP");
        ensure!(short(lab, &client, &["+tcp", "web", "A"])? == vip, "by TCP too");
        ensure!(short(lab, &client, &["web", "AAAA"])?.len() == 1, "a v6 VIP");
        ensure!(short(lab, &client, &["tasks.web", "A"])? == of(&web, false), "its tasks");
        ensure!(short(lab, &client, &["tasks.web", "AAAA"])? == of(&web, true), "its tasks, v6");
        ensure!(short(lab, &client, &["rr", "A"])? == of(&rr, false), "without a VIP the name is the tasks");
        ensure!(short(lab, &client, &["web.1", "A"])? == set(&[&web[0].endpoints[0].v4]), "a container by its name");
        let back = short(lab, &client, &["-x", &web[0].endpoints[0].v4])?;
        ensure!(back.iter().any(|n| n.starts_with("web.1.")), "an address has its container's name: {back:?}");
        let srv = short(lab, &client, &["_http._tcp.web", "SRV"])?;
        ensure!(!srv.is_empty() && srv.iter().all(|s| s.contains(" 80 ")), "{srv:?}");

        // No such type is another answer than no such name; the other network's names do not exist here.
        let nodata = dig(lab, &client, &["web", "MX"])?;
        ensure!(nodata.contains("status: NOERROR") && nodata.contains("ANSWER: 0"), "{nodata}");
        for unknown in ["secret", "nope", "tasks.secret"] {
            let answer = dig(lab, &client, &[unknown, "A"])?;
            ensure!(answer.contains("status: NXDOMAIN"), "{unknown}: {answer}");
        }
        // Other people's names go to the host's resolvers, of which a lab host reaches none.
        let answer = dig(lab, &client, &["+time=15", "example.com", "A"])?;
        ensure!(answer.contains("status: SERVFAIL"), "{answer}");
        let ttl = dig(lab, &client, &["+noall", "+answer", "web", "A"])?;
        let ttl: u32 = ttl.split_whitespace().nth(1).context("a TTL")?.parse()?;
        ensure!(ttl <= 5, "a TTL of {ttl} s outlives what it names");
        Ok(())
    })
}

#[test]
fn limits_ends_and_words_of_containers_are_told() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        let ended = |service: &str| {
            eventually(&format!("{service} has ended"), SETTLES_WITHIN, || {
                let task = tasks(lab, service)?.into_iter().next().context("a task")?;
                ensure!(["failed", "complete", "rejected"].contains(&task.state.as_str()), "{task:?}");
                Ok(task)
            })
        };
        let once = |name: &'static str, more: &[&'static str]| {
            let base = ["service", "create", "--detach", "--restart-condition", "none", "--name", name];
            lab.shoal("m1", [&base[..], more].concat())?.success()
        };
        once("hungry", &["--limit-memory", "16m", "page", "sh", "-c", "x=$(yes | head -c 200m); echo $x | wc -c"])?;
        once("seven", &["--env", "WORD=hello", "page", "sh", "-c", "echo $WORD from $(hostname); exit 7"])?;
        once("fine", &["--hostname", "box", "page", "sh", "-c", "hostname; pwd", "--"])?;
        once("lost", &["page", "no-such-program"])?;

        let hungry = ended("hungry")?;
        ensure!(hungry.state == "failed" && hungry.message.contains("memory"), "{hungry:?}");
        let seven = ended("seven")?;
        ensure!((seven.state.as_str(), seven.exit_code) == ("failed", Some(7)), "{seven:?}");
        let words = lab.shoal("m1", ["service", "logs", "seven"])?.success()?;
        ensure!(words.contains("hello from seven-1"), "{words}");
        let fine = ended("fine")?;
        ensure!((fine.state.as_str(), fine.exit_code) == ("complete", Some(0)), "{fine:?}");
        ensure!(lab.shoal("m1", ["service", "logs", "fine"])?.success()?.contains("box"), "its hostname");
        let lost = ended("lost")?;
        ensure!(lost.state != "complete" && lost.message.contains("no-such-program"), "{lost:?}");

        // One that keeps ending is started again after its delay, and not in a hurry.
        let loops = ["service", "create", "--detach", "--name", "loop", "--restart-delay", "1s", "page", "false"];
        lab.shoal("m1", loops)?.success()?;
        eventually("it was tried a third time", Duration::from_secs(30), || {
            let tries = tasks(lab, "loop")?;
            ensure!(tries.iter().filter(|t| t.state == "failed").count() >= 2, "{tries:?}");
            Ok(())
        })
    })
}

#[test]
fn what_others_break_in_the_kernel_is_repaired_before_anybody_asks() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "blue"])?.success()?;
        create(lab, &["--name", "web", "--network", "blue", "--constraint", "node.hostname==m1", "page", "serve"])?;
        create(lab, &["--name", "client", "--network", "blue", "--constraint", "node.hostname==w1", "page", "idle"])?;
        let (client, web) = (only(lab, "client")?, only(lab, "web")?);
        let vip = short(lab, &client, &["web", "A"])?.into_iter().next().context("a VIP")?;
        let sandbox = lab.exec("w1", ["sh", "-c", "ls /run/shoal/netns | grep net-"])?.success()?.trim().to_owned();
        let answers = |what: &str| {
            eventually(&format!("the VIP answers: {what}"), Duration::from_secs(5), || {
                let url = format!("http://{vip}/");
                lab.inside("w1", &client.id, ["curl", "-sS", "--fail", "--max-time", "1", &url])?.success()
            })
        };
        answers("at first")?;
        for (what, damage) in [
            ("the tunnel is gone", "ip link del $(ip -o link show type vxlan | awk -F'[:@] *' '{ print $2 }')"),
            (
                "forwarding entries are gone",
                "bridge fdb flush dev $(ip -o link show type vxlan | awk -F'[:@] *' '{ print $2 }')",
            ),
            ("neighbours are gone", "ip neigh flush all nud permanent"),
            ("the tables are gone", "nft flush ruleset"),
            ("the bridge is down", "ip link set $(ip -o link show type bridge | awk -F'[:@] *' '{ print $2 }') down"),
            (
                "the ports are gone",
                "for l in $(ip -o link show type veth | awk -F'[:@] *' '{ print $2 }'); do ip link del $l; done",
            ),
        ] {
            lab.inside("w1", &sandbox, ["sh", "-c", damage])?.success().with_context(|| what.to_owned())?;
            answers(what)?;
        }
        lab.inside("m1", &web.id, ["ip", "addr", "flush", "dev", "eth0"])?.success()?;
        answers("the other side has no address")?;
        ensure!(only(lab, "web")? == web && only(lab, "client")? == client, "tasks were replaced");
        Ok(())
    })
}
