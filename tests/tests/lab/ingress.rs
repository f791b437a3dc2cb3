//! Ports of services: on every host of the cluster, or on each task's own.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use shoal_tests::{Lab, Shape, eventually, story};
use std::{collections::BTreeSet, time::Duration};

const SETTLES_WITHIN: Duration = Duration::from_secs(15);
/// Two tasks are both met in so many tries, but for one run in 2^39.
const TRIES: usize = 40;
const HOSTS: [(&str, &str, &str); 3] = [
    ("m1", "172.31.0.11", "[fd5a:10ab::b]"),
    ("w1", "172.31.0.101", "[fd5a:10ab::65]"),
    ("w2", "172.31.0.102", "[fd5a:10ab::66]"),
];

fn ask(lab: &Lab, from: &str, url: &str) -> anyhow::Result<String> {
    let curl = ["curl", "-gsS", "--fail", "--max-time", "3", url];
    Ok(lab.exec(from, curl)?.success()?.trim().to_owned())
}

fn answers(lab: &Lab, from: &str, url: &str) -> anyhow::Result<String> {
    let mut answer = String::new();
    eventually(&format!("{url} answers {from}"), SETTLES_WITHIN, || {
        answer = ask(lab, from, url)?;
        Ok(())
    })?;
    Ok(answer)
}

fn closed(lab: &Lab, from: &str, url: &str) -> anyhow::Result<()> {
    eventually(&format!("{url} is closed"), SETTLES_WITHIN, || {
        let asked = lab.exec(from, ["curl", "-gsS", "--max-time", "1", url])?;
        ensure!(!asked.status.success(), "{asked}");
        Ok(())
    })
}

/// Whoever answers there.
fn everybody(lab: &Lab, from: &str, url: &str) -> anyhow::Result<BTreeSet<String>> {
    (0..TRIES).map(|_| ask(lab, from, url)).collect()
}

fn tasks(lab: &Lab, service: &str) -> anyhow::Result<Vec<Value>> {
    let all = lab.shoal("m1", ["service", "ps", "--format", "json", service])?.json::<Value>()?;
    Ok(all.into_iter().filter(|t| t["DesiredState"] == "Running").collect())
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn a_services_port_answers_on_every_host_and_a_task_of_the_same_host_sees_the_client() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "--ipv6", "blue"])?.success()?;
        let create = ["service", "create", "--name", "web", "--replicas", "2", "--network", "blue", "-p", "8080:80"];
        let create = [&create[..], &["--constraint", "node.hostname!=m1", "page", "serve"]].concat();
        lab.shoal("m1", create)?.success()?;
        for (host, v4, v6) in HOSTS {
            for (from, _, _) in HOSTS {
                answers(lab, from, &format!("http://{v4}:8080/")).with_context(|| format!("{from} to {host}"))?;
                answers(lab, from, &format!("http://{v6}:8080/")).with_context(|| format!("{from} to {host}"))?;
            }
        }
        // m1 has no task, and spreads over both; the others prefer their own, which see who asks.
        for ip in [HOSTS[0].1, HOSTS[0].2] {
            let met = everybody(lab, "w1", &format!("http://{ip}:8080/"))?;
            ensure!(met == set(["web-1", "web-2"]), "by m1: {met:?}");
        }
        let met = everybody(lab, "m1", "http://172.31.0.101:8080/")?;
        ensure!(met.len() == 1, "by w1: {met:?}");
        let client = ask(lab, "m1", "http://172.31.0.101:8080/cgi-bin/client")?;
        ensure!(client == "172.31.0.11", "{client}");
        let client = ask(lab, "m1", "http://[fd5a:10ab::65]:8080/cgi-bin/client")?;
        ensure!(client == "fd5a:10ab::b", "{client}");
        for (host, _, _) in HOSTS {
            // Whether or not it has a task.
            ask(lab, host, "http://127.0.0.1:8080/")?;
            ask(lab, host, "http://[::1]:8080/")?;
        }
        // From a container, by its host's address.
        lab.shoal("m1", ["run", "-d", "--name", "by-hand", "page", "idle"])?.success()?;
        let fetched = lab.shoal("m1", ["exec", "by-hand", "wget", "-qO-", "http://172.31.0.11:8080/"])?.success()?;
        ensure!(fetched.starts_with("web-"), "{fetched}");
        let listed = lab.shoal("m1", ["service", "ls"])?.success()?;
        ensure!(listed.contains("*:8080->80/tcp"), "{listed}");

        // A port has one owner, whoever asks.
        let twin = ["service", "create", "--name", "twin", "-p", "8080:80", "page", "serve"];
        let twin = lab.shoal("m1", twin)?.failure(4)?;
        ensure!(twin.contains("service web"), "{twin}");
        let taken = lab.shoal("w2", ["run", "-d", "--name", "t", "-p", "8080:80", "page", "serve"])?;
        ensure!(!taken.status.success() && taken.stderr.contains("service web"), "{taken}");
        lab.shoal("w2", ["rm", "-f", "t"])?.success()?;

        // Another port makes no new tasks; a task that goes is asked no more.
        let before = tasks(lab, "web")?;
        lab.shoal("m1", ["service", "update", "--publish-add", "8081:80", "web"])?.success()?;
        answers(lab, "w2", "http://172.31.0.11:8081/")?;
        lab.shoal("m1", ["service", "update", "--publish-rm", "8080:80", "web"])?.success()?;
        closed(lab, "w2", "http://172.31.0.11:8080/")?;
        closed(lab, "m1", "http://172.31.0.101:8080/")?;
        let after = tasks(lab, "web")?;
        ensure!(before.iter().map(|t| &t["ID"]).eq(after.iter().map(|t| &t["ID"])), "{before:?}, then {after:?}");
        lab.shoal("m1", ["service", "scale", "web=1"])?.success()?;
        for (_, ip, _) in HOSTS {
            eventually("web.1 alone answers", SETTLES_WITHIN, || {
                let met = everybody(lab, "m1", &format!("http://{ip}:8081/"))?;
                ensure!(met == set(["web-1"]), "{met:?}");
                Ok(())
            })?;
        }
        lab.shoal("m1", ["service", "rm", "web"])?.success()?;
        for (_, ip, _) in HOSTS {
            closed(lab, "w1", &format!("http://{ip}:8081/"))?;
        }
        lab.shoal("m1", ["network", "rm", "blue"])?.success().map(drop)
    })
}

/// Answers each datagram with a name and the address that it came from.
const ANSWER: &str = r#"
    use IO::Socket::INET;
    my $s = IO::Socket::INET->new(LocalPort => 53, Proto => "udp") or die "no socket";
    while ($s->recv(my $asked, 512)) { $s->send("$ARGV[0] " . $s->peerhost) }
"#;

/// Asks at ADDRESS:5300 from a port, and says what is answered within a second.
const QUERY: &str = r#"
    use IO::Socket::INET;
    my $s = IO::Socket::INET->new(LocalPort => $ARGV[1], PeerAddr => $ARGV[0], PeerPort => 5300, Proto => "udp") or die;
    $SIG{ALRM} = sub { exit 1 };
    alarm 1;
    $s->send("?");
    defined $s->recv(my $answer, 512) or exit 1;
    print $answer;
"#;

fn query(lab: &Lab, from: &str, ip: &str, port: u16) -> anyhow::Result<(String, String)> {
    let answer = lab.exec(from, ["perl", "-e", QUERY, ip, &port.to_string()])?.success()?;
    answer.split_once(' ').map(|(task, client)| (task.to_owned(), client.to_owned())).context("who, and whom it saw")
}

#[test]
fn a_services_udp_port_keeps_nobody_with_a_task_that_went() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "blue"])?.success()?;
        let create = ["service", "create", "--name", "names", "--replicas", "2", "--network", "blue"];
        let place = ["--publish", "published=5300,target=53,protocol=udp", "--constraint", "node.hostname!=m1"];
        let line = [&create[..], &place, &["-p", "8095:80", "page", "serve"]].concat();
        lab.shoal("m1", line)?.success()?;
        // Over IPv6 too, which the network does not have.
        for ((host, _, v6), from) in HOSTS.into_iter().zip(["w2", "m1", "w2"]) {
            for url in [format!("http://{v6}:8095/"), "http://[::1]:8095/".to_owned()] {
                let from = if url.contains("::1]") { host } else { from };
                answers(lab, from, &url).with_context(|| format!("{from} to {host}"))?;
            }
        }
        for task in tasks(lab, "names")? {
            let of = |key: &str| task[key].as_str().with_context(|| key.to_owned());
            let line = format!("perl -e '{ANSWER}' {} >/dev/null 2>&1 &", of("Name")?);
            lab.inside(of("Node")?, of("ID")?, ["sh", "-c", &line])?.success()?;
        }
        for (_, ip, _) in HOSTS {
            eventually("it answers", SETTLES_WITHIN, || query(lab, "m1", ip, 39_999))?;
        }
        // By a host with a task of its own, which sees who asks.
        ensure!(query(lab, "w2", "172.31.0.101", 40_000)?.1 == "172.31.0.102", "w1's task sees w2");
        // One flow per port: some are of the second task's.
        let mut flows = Vec::new();
        for port in 40_001..40_041 {
            flows.push((port, query(lab, "w1", "172.31.0.11", port)?.0));
        }
        let met: BTreeSet<_> = flows.iter().map(|(_, task)| task.clone()).collect();
        ensure!(met == set(["names.1", "names.2"]), "{met:?}");
        let again = flows.iter().find(|(_, task)| task == "names.2").map(|(port, _)| *port).context("a flow")?;
        ensure!(query(lab, "w1", "172.31.0.11", again)?.0 == "names.2", "a flow stays where it is");
        lab.shoal("m1", ["service", "scale", "names=1"])?.success()?;
        eventually("the flow goes on with the task that is left", SETTLES_WITHIN, || {
            let met = query(lab, "w1", "172.31.0.11", again)?.0;
            ensure!(met == "names.1", "{met}");
            Ok(())
        })
    })
}

#[test]
fn a_service_without_a_network_has_a_way_out_and_its_ports_too() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        let create = ["service", "create", "--name", "plain", "-p", "80", "--constraint", "node.hostname==w1"];
        lab.shoal("m1", [&create[..], &["page", "serve"]].concat())?.success()?;
        let shown = lab.shoal("m1", ["service", "inspect", "plain"])?.json::<Value>()?;
        let port = shown[0]["Endpoint"]["Ports"][0]["PublishedPort"].as_u64().context("a port")?;
        ensure!((30_000..=32_767).contains(&port), "{port}");
        for (_, ip, _) in &HOSTS[..2] {
            let answer = answers(lab, "m1", &format!("http://{ip}:{port}/"))?;
            ensure!(answer == "plain-1", "{answer}");
        }
        // It reaches the world by its host's default bridge.
        lab.shoal("m1", ["run", "-d", "--name", "far", "-p", "8000:80", "page", "serve"])?.success()?;
        answers(lab, "w1", "http://172.31.0.11:8000/")?;
        let id = tasks(lab, "plain")?[0]["ID"].as_str().context("an id")?.to_owned();
        let out =
            lab.inside("w1", &id, ["curl", "-sS", "--max-time", "3", "http://172.31.0.11:8000/cgi-bin/client"])?;
        ensure!(out.success()?.trim() == "172.31.0.101", "by its host's address");
        // Its neighbours on that bridge are seen as who they are; by another host's address as who asks there.
        lab.shoal("w1", ["run", "-d", "--name", "near", "page", "idle"])?.success()?;
        let own = lab.shoal("w1", ["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "near"])?.success()?;
        let by = |ip: &str| {
            let asking = ["exec", "near", "wget", "-qO-", &format!("http://{ip}:{port}/cgi-bin/client")];
            anyhow::Ok(lab.shoal("w1", asking)?.success()?.trim().to_owned())
        };
        let seen = by("172.31.0.101")?;
        ensure!(seen == own.trim(), "{own} is seen as {seen}");
        by("172.31.0.11")?;
        Ok(())
    })
}

#[test]
fn a_port_of_each_tasks_own_host_leads_to_that_task_and_places_one_on_each_host() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        lab.import("page")?;
        let publish = "published=8090,target=80,mode=host";
        let create = ["service", "create", "--name", "own", "--replicas", "4", "--detach", "--publish", publish];
        lab.shoal("m1", [&create[..], &["page", "serve"]].concat())?.success()?;
        let mut met = BTreeSet::new();
        for (host, v4, v6) in HOSTS {
            let from = if host == "m1" { "w1" } else { "m1" };
            let answer = answers(lab, from, &format!("http://{v4}:8090/"))?;
            ensure!(everybody(lab, from, &format!("http://{v4}:8090/"))?.len() == 1, "one task at {host}");
            // The default bridge has no IPv6 unless its daemon is told so; its host has.
            ensure!(ask(lab, from, &format!("http://{v6}:8090/"))? == answer, "{host} over IPv6");
            met.insert(answer);
        }
        ensure!(met.len() == 3, "{met:?}");
        let waiting: Vec<Value> = tasks(lab, "own")?.into_iter().filter(|t| t["State"] == "pending").collect();
        ensure!(waiting.len() == 1 && waiting[0].to_string().contains("port 8090/tcp"), "{waiting:?}");
        let shown = lab.shoal("m1", ["service", "ps", "own"])?.success()?;
        ensure!(shown.contains("*:8090->80/tcp"), "{shown}");
        // Neither a service nor a container gets a port that others have.
        let over = ["service", "create", "--name", "over", "-p", "8090:80", "page", "serve"];
        let over = lab.shoal("m1", over)?.failure(4)?;
        ensure!(over.contains("service own"), "{over}");
        Ok(())
    })
}

/// Asks all hosts in turn, a new connection each time, and prints a line for each that is not answered: when, whom, why.
const HAMMER: &str = r#"use IO::Socket::INET; use Time::HiRes "time"; $| = 1; my $n = 0; my $end = time + shift @ARGV;
while (time < $end) {
    for my $host (@ARGV) {
        my $why;
        my $socket = IO::Socket::INET->new(PeerAddr => $host, PeerPort => 8080, Proto => "tcp", Timeout => 3);
        if ($socket) {
            print $socket "GET / HTTP/1.0\r\n\r\n";
            my $line = <$socket> // "";
            $why = "answered: $line" unless $line =~ /200/;
        } else { $why = "$@" }
        $n++;
        printf "%.3f %s %s\n", time, $host, $why if $why;
    }
}
print "asked $n\n";"#;

#[test]
fn a_rolling_update_and_a_scale_up_refuse_nobody() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "blue"])?.success()?;
        let create = ["service", "create", "--name", "web", "--network", "blue", "-p", "8080:80"];
        lab.shoal("m1", [&create[..], &["--update-parallelism", "1", "page", "serve"]].concat())?.success()?;
        for (_, ip, _) in HOSTS {
            answers(lab, "m1", &format!("http://{ip}:8080/"))?;
        }
        let hammer = |from: &'static str| {
            std::thread::scope(|scope| {
                let line = [&["perl", "-e", HAMMER, "20"][..], &HOSTS.map(|(_, ip, _)| ip)].concat();
                let asking = scope.spawn(move || lab.exec(from, line));
                for change in [
                    &["service", "scale", "web=4"][..],
                    &["service", "update", "--env-add", "ROUND=1", "web"],
                    &["service", "scale", "web=2"],
                    &["service", "scale", "web=5"],
                    &["service", "scale", "web=1"],
                ] {
                    lab.shoal("m1", change)?.success()?;
                }
                asking.join().map_err(|_| anyhow::anyhow!("who asks has panicked"))?
            })
        };
        let told = hammer("w2")?.success()?;
        let asked = told.lines().last().and_then(|l| l.strip_prefix("asked ")).context("how many were asked")?;
        eprintln!("{asked} asked");
        ensure!(asked.parse::<usize>()? > 100, "too few to tell: {told}");
        ensure!(told.lines().count() == 1, "refused or lost:\n{told}");
        Ok(())
    })
}
