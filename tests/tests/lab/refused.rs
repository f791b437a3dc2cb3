//! Bad input on the command line: a clear sentence, the documented exit status, and nothing changed.

use anyhow::ensure;
use shoal_tests::{Lab, Shape, eventually, story};
use std::time::Duration;

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const CONFLICT: i32 = 4;
const NOT_CONVERGED: i32 = 5;
const NO_ROOM: i32 = 6;
const NO_MANAGER: i32 = 7;
const NOT_ALLOWED: i32 = 8;

/// All that a user can list.
fn everything(lab: &Lab) -> anyhow::Result<String> {
    let mut all = String::new();
    for noun in ["node", "network", "service"] {
        all += &lab.shoal("m1", [noun, "ls", "-q"])?.success()?;
    }
    Ok(all)
}

#[test]
fn each_mistake_has_its_sentence_and_changes_nothing() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "--subnet", "10.5.0.0/24", "blue"])?.success()?;
        let web = ["service", "create", "--name", "web", "--network", "blue", "page", "serve"];
        lab.shoal("m1", web)?.success()?;
        let before = everything(lab)?;
        let overlay = |rest: &[&'static str]| [&["network", "create", "-d", "overlay"], rest].concat();
        let service = |rest: &[&'static str]| [&["service", "create", "--detach"], rest, &["page", "serve"]].concat();

        let table: Vec<(&str, Vec<&str>, i32, &[&str])> = vec![
            // Networks.
            ("m1", overlay(&["--subnet", "10.5.0.128/25", "red"]), CONFLICT, &["overlaps", "blue", "--allow-overlap"]),
            ("m1", overlay(&["--subnet", "172.31.0.0/16", "red"]), CONFLICT, &["172.31.0.0/24", "node-1", "m1"]),
            (
                "m1",
                overlay(&["--subnet", "10.6.0.0/24", "--gateway", "10.7.0.1", "red"]),
                USAGE,
                &["gateway", "10.7.0.1"],
            ),
            ("m1", overlay(&["--subnet", "10.6.0.1/24", "red"]), USAGE, &["10.6.0.0/24"]),
            ("m1", overlay(&["--subnet", "ten/24", "red"]), USAGE, &["ten/24"]),
            ("m1", overlay(&["blue"]), CONFLICT, &["blue", "taken", "net-"]),
            ("m1", overlay(&["Blue.Net"]), USAGE, &["Blue.Net", "DNS label"]),
            ("m1", vec!["network", "create", "-d", "token-ring", "red"], USAGE, &["driver", "overlay"]),
            ("m1", vec!["network", "rm", "blue"], CONFLICT, &["in use by", "web"]),
            ("m1", vec!["network", "rm", "nope"], NOT_FOUND, &["no network nope"]),
            ("m1", vec!["network", "inspect", "nope"], NOT_FOUND, &["no network nope"]),
            // Services.
            ("m1", service(&["--name", "web"]), CONFLICT, &["web", "taken", "svc-"]),
            ("m1", service(&["--name=-web"]), USAGE, &["web"]),
            ("m1", service(&["--name", "x", "--network", "nope"]), NOT_FOUND, &["no network nope"]),
            ("m1", vec!["service", "create", "--name", "x", "UPPER:1"], USAGE, &["UPPER:1", "nginx"]),
            ("m1", service(&["--name", "x", "--replicas", "many"]), USAGE, &["many"]),
            ("m1", service(&["--name", "x", "--replicas", "100000"]), USAGE, &["100000", "at most"]),
            ("m1", service(&["--name", "x", "--constraint", "node.colour"]), USAGE, &["node.colour"]),
            ("m1", service(&["--name", "x", "--limit-memory", "lots"]), USAGE, &["lots"]),
            ("m1", service(&["--name", "x", "--mount", "type=tmpfs"]), USAGE, &["--mount", "not built yet"]),
            ("m1", vec!["service", "scale", "nope=3"], NOT_FOUND, &["no service nope"]),
            ("m1", vec!["service", "scale", "web"], USAGE, &["web"]),
            ("m1", vec!["service", "rm", "nope"], NOT_FOUND, &["no service nope"]),
            ("m1", vec!["service", "logs", "nope"], NOT_FOUND, &["nope"]),
            // Nodes.
            ("m1", vec!["node", "inspect", "nope"], NOT_FOUND, &["no node nope"]),
            ("m1", vec!["node", "demote", "m1"], CONFLICT, &["last manager"]),
            ("m1", vec!["node", "rm", "m1"], CONFLICT, &["manager", "demote"]),
            ("m1", vec!["node", "rm", "w1"], CONFLICT, &["ready", "--force"]),
            ("m1", vec!["node", "update", "--availability", "asleep", "w1"], USAGE, &["asleep"]),
            // The cluster.
            ("m1", vec!["init"], CONFLICT, &["in a cluster already", "node-1"]),
            ("m1", vec!["leave"], CONFLICT, &["manager", "--force"]),
            ("w1", vec!["service", "ls"], CONFLICT, &["not a manager"]),
            ("w1", vec!["node", "promote", "w1"], CONFLICT, &["not a manager"]),
            ("w1", vec!["join", "--token", "SWMTKN-1-x", "172.31.0.11:2377"], USAGE, &["token", "SHOAL-1-"]),
            ("m1", vec!["frobnicate"], USAGE, &["frobnicate"]),
            ("m1", vec!["image", "rm", "nope"], NOT_FOUND, &["nope"]),
        ];
        for (host, args, status, words) in table {
            let said = lab.shoal(host, &args)?.failure(status)?;
            for word in words {
                ensure!(said.contains(word), "{args:?} does not say {word:?}: {said}");
            }
            ensure!(said.starts_with("error: "), "{args:?}: {said}");
        }
        ensure!(everything(lab)? == before, "something was changed");

        // Without --detach the command itself says that and why it does not come up.
        let missing = ["service", "create", "--name", "missing", "--restart-condition", "none", "localhost:1/no:1"];
        let said = lab.shoal("m1", missing)?.failure(NOT_CONVERGED)?;
        ensure!(said.contains("localhost:1/no:1") && said.contains("could not be pulled"), "{said}");
        Ok(())
    })
}

#[test]
fn a_joiner_is_not_fooled_and_cannot_fool() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        let before = everything(lab)?;
        lab.shoal("w1", ["leave"])?.success()?;
        let token = lab.shoal("m1", ["join-token", "-q", "worker"])?.success()?.trim().to_owned();
        let join = |token: &str, at: &str| lab.shoal("w1", ["join", "--token", token, at]);

        // Another secret, another CA, another host, nobody, no name.
        let mut secret = token.clone();
        let last = if secret.pop() == Some('a') { 'b' } else { 'a' };
        secret.push(last);
        ensure!(join(&secret, "172.31.0.11:2377")?.failure(NOT_ALLOWED)?.contains("not valid"), "a wrong secret");
        let digest = token.replacen("SHOAL-1-", "", 1);
        let other = if digest.starts_with('a') { 'b' } else { 'a' };
        let false_ca = format!("SHOAL-1-{other}{}", &digest[1..]);
        let said = join(&false_ca, "172.31.0.11:2377")?.failure(NO_MANAGER)?;
        ensure!(said.contains("not a manager of the token's cluster"), "{said}");
        ensure!(join(&token, "172.31.0.11:9")?.failure(NO_MANAGER)?.contains("172.31.0.11:9"), "nobody listens");
        ensure!(join(&token, "no-such-host.invalid")?.failure(NO_MANAGER)?.contains("HOST:PORT"), "no such host");
        ensure!(lab.shoal("w1", ["info"])?.success()?.contains("inactive"), "it joined something");

        // A token that was rotated opens nothing; the new one does.
        let fresh = lab.shoal("m1", ["join-token", "-q", "--rotate", "worker"])?.success()?.trim().to_owned();
        join(&token, "172.31.0.11:2377")?.failure(NOT_ALLOWED)?;
        join(&fresh, "172.31.0.11")?.success()?;
        join(&fresh, "172.31.0.11")?.failure(CONFLICT)?;
        let after = everything(lab)?;
        ensure!(after.lines().count() == before.lines().count() + 1, "{before} became {after}");
        Ok(())
    })
}

#[test]
fn a_manager_that_the_others_cannot_reach_joins_whole_or_not_at_all() -> anyhow::Result<()> {
    story(Shape { managers: 2, workers: 1 }, |lab| {
        lab.shoal("w1", ["leave"])?.success()?;
        lab.shoal("m1", ["node", "rm", "--force", "w1"])?.success()?;
        let before = everything(lab)?;
        let token = lab.shoal("m1", ["join-token", "-q", "manager"])?.success()?.trim().to_owned();
        let join = || lab.shoal("w1", ["join", "--token", &token, "172.31.0.12:2377"]);
        // Drops what comes from there to the port of managers.
        let closed = |from: &str| {
            let rules = format!(
                "table inet closed\ndelete table inet closed\ntable inet closed {{\nchain in {{\n\
                 type filter hook input priority 0\nip saddr {from} tcp dport 2377 drop\n}}\n}}\n"
            );
            lab.exec("w1", ["nft", &rules])?.success()
        };
        let is_as_before = || -> anyhow::Result<()> {
            ensure!(lab.shoal("w1", ["info"])?.success()?.contains("inactive"), "it is in the cluster");
            let after = everything(lab)?;
            ensure!(after.lines().count() == before.lines().count(), "{before} became {after}");
            Ok(())
        };

        // By the manager that it asks.
        closed("172.31.0.12")?;
        let said = join()?.failure(CONFLICT)?;
        ensure!(said.contains("cannot reach the host back at 172.31.0.101:2377"), "{said}");
        is_as_before()?;
        // By the leader only, which is another.
        closed("172.31.0.11")?;
        let said = join()?.failure(NO_MANAGER)?;
        ensure!(said.contains("has reached this host at 172.31.0.101:2377"), "{said}");
        is_as_before()?;

        lab.exec("w1", ["nft", "delete", "table", "inet", "closed"])?.success()?;
        join()?.success()?;
        eventually("three managers", Duration::from_secs(20), || {
            let listed = lab.shoal("m1", ["node", "ls"])?.success()?;
            let managers = listed.lines().filter(|l| l.contains("Leader") || l.contains(" Reachable")).count();
            ensure!(managers == 3, "{listed}");
            Ok(())
        })
    })
}

#[test]
fn a_network_that_is_full_says_so_and_the_next_task_starts_by_itself_when_there_is_room() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 1 }, |lab| {
        lab.import("page")?;
        // Six addresses, less the gateway.
        lab.shoal("m1", ["network", "create", "-d", "overlay", "--subnet", "10.5.0.0/29", "small"])?.success()?;
        let filler = ["service", "create", "--name", "filler", "--endpoint-mode", "dnsrr", "--network", "small"];
        lab.shoal("m1", filler.into_iter().chain(["--replicas", "2", "page", "idle"]))?.success()?;
        let web = ["service", "create", "--name", "web", "--endpoint-mode", "dnsrr", "--network", "small"];
        let created = lab.shoal("m1", web.into_iter().chain(["--replicas", "5", "page", "idle"]))?;
        let said = created.failure(NO_ROOM)?;
        ensure!(said.contains("small") && said.contains("no free address"), "{said}");

        let count = |state: &str| -> anyhow::Result<usize> {
            let tasks = lab.shoal("m1", ["service", "ps", "--format", "json", "web"])?.json::<serde_json::Value>()?;
            Ok(tasks.iter().filter(|t| t["State"] == state).count())
        };
        ensure!((count("running")?, count("pending")?) == (3, 2), "three of the five have room");
        let why = lab.shoal("m1", ["service", "ps", "web"])?.success()?;
        ensure!(why.contains("small") && why.contains("10.5.0.0/29") && why.contains("filler"), "{why}");

        lab.shoal("m1", ["service", "rm", "filler"])?.success()?;
        eventually("all five run", Duration::from_secs(20), || {
            let running = count("running")?;
            ensure!(running == 5, "{running} run");
            Ok(())
        })
    })
}
