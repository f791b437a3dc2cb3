//! The walk through container networking that this project was made from, section by section: its command lines with
//! `docker` replaced by `shoal`, and what it says of them, seen by other witnesses than ourselves.

mod containers;
mod discovery;
mod links;
mod many;
mod one_host;
mod operations;
mod outside;
mod services;
mod terminal;

use anyhow::{Context as _, ensure};
use serde_json::Value;
use shoal_tests::{Lab, eventually};
use std::time::Duration;

const SETTLES_WITHIN: Duration = Duration::from_secs(15);

/// `shoal run -d` on a host, from the tests' image.
fn run(lab: &Lab, host: &str, name: &str, args: &[&str], command: &[&str]) -> anyhow::Result<()> {
    let line = [&["run", "-d", "--name", name], args, &["page"], command].concat();
    lab.shoal(host, line)?.success().map(drop)
}

/// What `shoal inspect` says of one container.
fn inspect(lab: &Lab, host: &str, name: &str) -> anyhow::Result<Value> {
    let found = lab.shoal(host, ["inspect", name])?.json::<Value>()?;
    found.into_iter().next().with_context(|| format!("{name} is there"))
}

/// Its namespace's name on the host.
fn id(lab: &Lab, host: &str, name: &str) -> anyhow::Result<String> {
    Ok(inspect(lab, host, name)?["Id"].as_str().context("an id")?.to_owned())
}

fn status(lab: &Lab, host: &str, name: &str) -> anyhow::Result<String> {
    Ok(inspect(lab, host, name)?["State"]["Status"].as_str().context("a status")?.to_owned())
}

/// Its address on a network: `IPAddress`, `GlobalIPv6Address` or `MacAddress`.
fn on(lab: &Lab, host: &str, name: &str, network: &str, what: &str) -> anyhow::Result<String> {
    let seen = inspect(lab, host, name)?;
    let value = seen["NetworkSettings"]["Networks"][network][what].as_str().unwrap_or_default().to_owned();
    ensure!(!value.is_empty(), "{name} has no {what} on {network}: {seen}");
    Ok(value)
}

fn v4(lab: &Lab, host: &str, name: &str, network: &str) -> anyhow::Result<String> {
    on(lab, host, name, network, "IPAddress")
}

/// A program of the machine's, with a container's network.
fn inside(lab: &Lab, host: &str, name: &str, command: &[&str]) -> anyhow::Result<shoal_tests::Output> {
    lab.inside(host, &id(lab, host, name)?, command)
}

/// What a container is told when it looks for a name.
fn dig(lab: &Lab, host: &str, from: &str, args: &[&str]) -> anyhow::Result<String> {
    let dig = [&["dig", "+short", "+time=2", "+tries=1", "@127.0.0.11"], args].concat();
    Ok(inside(lab, host, from, &dig)?.success()?.trim().to_owned())
}

/// A name that is not ours is somebody else's, who may not answer in a lab.
fn unknown(lab: &Lab, host: &str, from: &str, name: &str, address: &str) -> anyhow::Result<()> {
    let asked = inside(lab, host, from, &["dig", "+short", "+time=1", "+tries=1", "@127.0.0.11", name])?;
    ensure!(!asked.stdout.contains(address), "{from} is told of {name}: {asked}");
    Ok(())
}

/// The page at a URL, as a container sees it.
fn get(lab: &Lab, host: &str, from: &str, url: &str) -> anyhow::Result<String> {
    let curl = ["curl", "-gsS", "--fail", "--max-time", "3", url];
    Ok(inside(lab, host, from, &curl)?.success()?.trim().to_owned())
}

/// The same, as a host sees it.
fn host_get(lab: &Lab, host: &str, url: &str) -> anyhow::Result<String> {
    let curl = ["curl", "-gsS", "--fail", "--max-time", "3", url];
    Ok(lab.exec(host, curl)?.success()?.trim().to_owned())
}

/// Nothing answers there.
fn unreachable(lab: &Lab, host: &str, from: &str, url: &str) -> anyhow::Result<()> {
    let curl = ["curl", "-gsS", "--fail", "--max-time", "1", url];
    let asked = inside(lab, host, from, &curl)?;
    ensure!(!asked.status.success(), "{from} reaches {url}: {asked}");
    Ok(())
}

/// A server takes a moment until it listens.
fn serves(lab: &Lab, host: &str, url: &str) -> anyhow::Result<String> {
    eventually(&format!("{url} answers {host}"), SETTLES_WITHIN, || host_get(lab, host, url))
}

/// What `ip -j` says of the links of a host or, by `netns`, of a container.
fn links(lab: &Lab, host: &str, netns: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let ip = ["ip", "-j", "-d", "addr"];
    match netns {
        Some(netns) => lab.inside(host, netns, ip)?.json(),
        None => lab.exec(host, ip)?.json(),
    }
}
