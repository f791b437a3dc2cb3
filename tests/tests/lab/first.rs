//! The thinnest path through everything: a service on one overlay of three hosts, reached by its name from a container
//! on one of them.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use shoal_tests::{Lab, Shape, eventually, story, story_without_root};

/// From a change until all hosts act on it.
const SETTLES_WITHIN: Duration = Duration::from_secs(10);

const SHAPE: Shape = Shape { managers: 1, workers: 2 };

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    node: String,
    state: String,
    endpoints: Vec<Address>,
}

#[derive(Debug, Deserialize)]
struct Address {
    #[serde(rename = "IPv4")]
    v4: String,
}

#[test]
fn a_service_answers_by_name_from_a_container_on_another_host() -> anyhow::Result<()> {
    story(SHAPE, tell)
}

/// Nothing of this needs root, but the kernel's word.
#[test]
fn a_service_answers_by_name_in_a_lab_of_nobody() -> anyhow::Result<()> {
    story_without_root(SHAPE, tell)
}

fn tell(lab: &Lab) -> anyhow::Result<()> {
    lab.import("page")?;
    lab.shoal("m1", ["network", "create", "-d", "overlay", "blue"])?.success()?;
    let web = ["service", "create", "--name", "web", "--network", "blue", "--replicas", "3", "--timeout", "60s"];
    lab.shoal("m1", web.into_iter().chain(["page", "serve"]))?.success()?;
    let client = ["service", "create", "--name", "client", "--network", "blue", "--timeout", "60s"];
    lab.shoal("m1", client.into_iter().chain(["--constraint", "node.hostname==w2", "page", "idle"]))?.success()?;

    let replicas = running(lab, "web")?;
    ensure!(replicas.len() == 3, "{replicas:?}");
    let hosts: BTreeSet<&str> = replicas.iter().map(|t| t.node.as_str()).collect();
    ensure!(hosts == BTreeSet::from(["m1", "w1", "w2"]), "three replicas are spread over three hosts: {hosts:?}");
    let client = running(lab, "client")?.into_iter().next().context("the client runs")?;
    ensure!(client.node == "w2", "{client:?}");

    let vip = ["service", "inspect", "--format", "{{range .Endpoint.VirtualIPs}}{{.Addr}}{{end}}", "web"];
    let vip = bare(lab.shoal("m1", vip)?.success()?.trim());
    ensure!(resolve(lab, &client, "web")? == BTreeSet::from([vip.clone()]), "the name is the VIP {vip}");
    let addresses: BTreeSet<String> = replicas.iter().map(address).collect::<Result<_, _>>()?;
    ensure!(resolve(lab, &client, "tasks.web")? == addresses, "tasks.web is {addresses:?}");

    // Each by its own address, which is where the answer says that it comes from ...
    let mut names = BTreeSet::new();
    for replica in &replicas {
        names.insert(get(lab, &client, &address(replica)?, "/")?);
    }
    ensure!(names.len() == 3, "each replica has a name of its own: {names:?}");
    // ... and all by the VIP, with the client's address kept.
    let mut seen = BTreeSet::new();
    eventually("every replica answers at the VIP", SETTLES_WITHIN, || {
        seen.insert(get(lab, &client, &vip, "/")?);
        ensure!(seen == names, "so far {seen:?} of {names:?}");
        Ok(())
    })?;
    let from = get(lab, &client, &vip, "/cgi-bin/client")?;
    ensure!(from == address(&client)?, "the client is seen as {from}, and is {client:?}");

    lab.shoal("m1", ["service", "scale", "--timeout", "60s", "web=1"])?.success()?;
    let left = running(lab, "web")?;
    ensure!(left.len() == 1, "{left:?}");
    eventually("only the one that is left is in tasks.web", SETTLES_WITHIN, || {
        let resolved = resolve(lab, &client, "tasks.web")?;
        ensure!(resolved == BTreeSet::from([address(&left[0])?]), "{resolved:?}");
        Ok(())
    })?;

    let refused = lab.shoal("m1", ["network", "rm", "blue"])?;
    ensure!(!refused.status.success() && refused.stderr.contains("web"), "who uses it is told: {refused}");
    lab.shoal("m1", ["service", "rm", "web", "client"])?.success()?;
    eventually("the network can go when its last task has ended", SETTLES_WITHIN, || {
        lab.shoal("m1", ["network", "rm", "blue"])?.success()
    })?;
    for host in lab.hosts() {
        eventually(&format!("no namespace is left on {host}"), Duration::from_secs(20), || {
            let left = lab.exec(host, ["ls", "/run/shoal/netns"])?.success()?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })?;
    }
    Ok(())
}

fn running(lab: &Lab, service: &str) -> anyhow::Result<Vec<Task>> {
    let tasks = lab.shoal("m1", ["service", "ps", "--format", "json", service])?.json::<Task>()?;
    let running: Vec<Task> = tasks.into_iter().filter(|t| t.state == "running").collect();
    ensure!(running.iter().all(|t| t.name.starts_with(service)), "{running:?}");
    Ok(running)
}

fn address(task: &Task) -> anyhow::Result<String> {
    Ok(bare(&task.endpoints.first().with_context(|| format!("{task:?} has an endpoint"))?.v4))
}

/// Without the length of a prefix, if it has one.
fn bare(address: &str) -> String {
    address.split('/').next().unwrap_or_default().to_owned()
}

/// What a name is in a task's container, by dig's word.
fn resolve(lab: &Lab, task: &Task, name: &str) -> anyhow::Result<BTreeSet<String>> {
    let dig = ["dig", "+short", "+time=2", "+tries=2", "@127.0.0.11", name, "A"];
    let said = lab.inside(&task.node, &task.id, dig)?.success()?;
    Ok(said.lines().map(str::to_owned).collect())
}

/// What HTTP answers in a task's container, by curl's word.
fn get(lab: &Lab, task: &Task, address: &str, path: &str) -> anyhow::Result<String> {
    let url = format!("http://{address}{path}");
    let curl = ["curl", "--silent", "--show-error", "--fail", "--max-time", "5", url.as_str()];
    Ok(lab.inside(&task.node, &task.id, curl)?.success()?.trim().to_owned())
}
