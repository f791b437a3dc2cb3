//! Health checks: of containers they are shown, of services' tasks they decide who is reached and who is replaced.

use anyhow::{Context as _, ensure};
use serde_json::Value;
use shoal_tests::{Lab, Shape, eventually, story};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const SETTLES_WITHIN: Duration = Duration::from_secs(20);

fn health(lab: &Lab, container: &str) -> anyhow::Result<Value> {
    let shown = lab.shoal("m1", ["inspect", container])?.json::<Value>()?;
    Ok(shown[0]["State"]["Health"].clone())
}

fn becomes(lab: &Lab, container: &str, status: &str) -> anyhow::Result<Value> {
    eventually(&format!("{container} is {status}"), SETTLES_WITHIN, || {
        let health = health(lab, container)?;
        ensure!(health["Status"] == status, "{health}");
        Ok(health)
    })
}

#[test]
fn a_containers_checks_say_how_it_is() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        let run = |args: &[&str]| lab.shoal("m1", [&["run", "-d", "--name"], args].concat())?.success();
        let every = ["--health-interval", "200ms", "--health-retries", "2"];
        let check = [&["a", "--health-cmd", "test -e /tmp/ok || { echo none; exit 3; }"], &every[..]].concat();
        run(&[&check[..], &["page", "idle"]].concat())?;
        let sick = becomes(lab, "a", "unhealthy")?;
        let said = sick["Log"][0]["Output"].as_str().context("a reason")?;
        ensure!(said == "health check failed 2 times in a row: exit code 3: none", "{said}");
        lab.shoal("m1", ["exec", "a", "touch", "/tmp/ok"])?.success()?;
        becomes(lab, "a", "healthy")?;
        ensure!(lab.shoal("m1", ["ps"])?.success()?.contains("(healthy)"));

        // What is known of it outlives the daemon; a restart begins anew.
        lab.lab(["kill", "m1"])?.success()?;
        lab.lab(["start", "m1"])?.success()?;
        ensure!(health(lab, "a")?["Status"] == "healthy", "{}", health(lab, "a")?);
        lab.shoal("m1", ["exec", "a", "rm", "/tmp/ok"])?.success()?;
        becomes(lab, "a", "unhealthy")?;
        let slow = ["restarted", "--health-cmd", "true", "--health-interval", "1h"];
        run(&[&slow[..], &["page", "idle"]].concat())?;
        ensure!(health(lab, "restarted")?["Status"] == "starting");

        // One that hangs is ended, with what it started.
        let hangs = ["b", "--health-cmd", "sleep 4321; true", "--health-timeout", "300ms"];
        run(&[&hangs[..], &every, &["page", "idle"]].concat())?;
        let hung = becomes(lab, "b", "unhealthy")?;
        ensure!(hung["Log"][0]["Output"].as_str().is_some_and(|s| s.contains("longer than 300ms")), "{hung}");
        lab.shoal("m1", ["stop", "-t", "1", "b"])?.success()?;
        let alive = lab.exec("m1", ["pgrep", "-f", "^sleep 4321"])?;
        ensure!(!alive.status.success(), "{alive}");

        let listed = |filter: &str| lab.shoal("m1", ["ps", "--format", "{{.Names}}", "--filter", filter])?.success();
        ensure!(listed("health=unhealthy")? == "a\n", "{}", listed("health=unhealthy")?);
        ensure!(listed("health=none")?.is_empty() && listed("health=starting")? == "restarted\n");
        run(&["off", "--no-healthcheck", "page", "idle"])?;
        ensure!(listed("health=none")? == "off\n");
        for bad in
            [&["--health-interval", "5us"][..], &["--health-retries", "x"], &["--no-healthcheck", "--health-cmd", "x"]]
        {
            let refused = lab.shoal("m1", [&["create", "--name", "bad"], bad, &["page"]].concat())?;
            ensure!(refused.status.code() == Some(2) && refused.stderr.contains("health"), "{refused}");
        }
        Ok(())
    })
}

fn tasks(lab: &Lab, service: &str) -> anyhow::Result<Vec<Value>> {
    lab.shoal("m1", ["service", "ps", "--format", "json", service])?.json::<Value>()
}

#[test]
fn a_task_is_reached_while_it_is_healthy_and_replaced_when_it_is_not() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 2 }, |lab| {
        lab.import("page")?;
        lab.shoal("m1", ["network", "create", "-d", "overlay", "--attachable", "net1"])?.success()?;
        lab.shoal("m1", ["run", "-d", "--name", "client", "--network", "net1", "page", "idle"])?.success()?;
        let client = lab.shoal("m1", ["ps", "-q"])?.success()?;
        let create = |name: &str, args: &[&str]| {
            let service = ["service", "create", "--name", name, "--network", "net1", "--health-interval", "200ms"];
            lab.shoal("m1", [&service[..], args].concat())?.success()
        };
        // Not until a check has passed.
        let never = ["--detach", "--health-cmd", "false", "--health-retries", "100000", "page", "serve"];
        create("never", &never)?;
        eventually("its process runs", SETTLES_WITHIN, || {
            let seen = tasks(lab, "never")?;
            let node = seen[0]["Node"].as_str().context("a node")?.to_owned();
            let addr = seen[0]["Endpoints"][0]["IPv4"].as_str().context("an address")?.to_owned();
            lab.inside("m1", client.trim(), ["curl", "-sS", "--max-time", "1", &format!("http://{addr}/")])?
                .success()?;
            ensure!(!node.is_empty() && seen[0]["State"] == "starting", "{seen:?}");
            Ok(())
        })?;
        let resolved = |name: &str| {
            let asked =
                lab.inside("m1", client.trim(), ["dig", "+short", "+tries=1", "@127.0.0.11", name])?.success()?;
            Ok::<_, anyhow::Error>(asked.lines().map(str::to_owned).collect::<Vec<_>>())
        };
        ensure!(resolved("tasks.never")?.is_empty(), "{:?}", resolved("tasks.never")?);
        lab.shoal("m1", ["service", "rm", "never"])?.success()?;

        // It is created once all are healthy.
        let check = ["--health-cmd", "test -e /tmp/well", "--health-retries", "2", "--restart-delay", "100ms"];
        create("web", &[&check[..], &["--replicas", "2", "page", "serve"]].concat())?;
        ensure!(resolved("tasks.web")?.len() == 2, "{:?}", resolved("tasks.web")?);
        let before = tasks(lab, "web")?;
        let sick = before.iter().find(|t| t["Name"] == "web.1").context("web.1")?.clone();
        let addr = sick["Endpoints"][0]["IPv4"].as_str().context("an address")?;

        // Whoever asks the service is never sent to one that is ending.
        let done = AtomicBool::new(false);
        let vip = resolved("web")?.first().context("a VIP")?.clone();
        let asked = thread::scope(|scope| {
            let asking = scope.spawn(|| {
                let mut times = 0;
                while !done.load(Ordering::Relaxed) {
                    let curl = ["curl", "-sS", "--fail", "--max-time", "2", &format!("http://{vip}/")];
                    lab.inside("m1", client.trim(), curl)?.success().context("the service does not answer")?;
                    times += 1;
                }
                Ok::<_, anyhow::Error>(times)
            });
            let replaced = || {
                let sicken = format!("http://{addr}/cgi-bin/sicken");
                lab.inside("m1", client.trim(), ["curl", "-sS", "--max-time", "2", &sicken])?.success()?;
                eventually("web.1 is replaced", SETTLES_WITHIN, || {
                    let now = tasks(lab, "web")?;
                    let old = now.iter().find(|t| t["ID"] == sick["ID"]).context("the old one")?;
                    let message = old["Message"].as_str().unwrap_or_default();
                    ensure!(old["State"] == "failed" && message.starts_with("health check failed 2 times"), "{old}");
                    let running = now.iter().filter(|t| t["State"] == "running").count();
                    ensure!(running == 2, "{now:?}");
                    Ok(())
                })
            };
            let replaced = replaced();
            done.store(true, Ordering::Relaxed);
            let asked = asking.join().expect("the one who asks does not panic");
            replaced.and(asked)
        })?;
        ensure!(asked > 0);
        ensure!(resolved("tasks.web")?.len() == 2, "{:?}", resolved("tasks.web")?);

        // One that never gets well is given up by its policy, and says why.
        let bad = ["--health-cmd", "exit 3", "--health-retries", "1", "--restart-max-attempts", "1", "page", "idle"];
        let bad =
            [&["service", "create", "--name", "bad", "--health-interval", "100ms", "--restart-delay", "0s"], &bad[..]];
        let bad = lab.shoal("m1", bad.concat())?;
        ensure!(bad.status.code() == Some(5) && bad.stderr.contains("exit code 3"), "{bad}");
        lab.shoal("m1", ["service", "rm", "bad", "web"])?.success().map(drop)
    })
}
