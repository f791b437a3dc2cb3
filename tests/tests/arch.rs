//! Who may import whom: ARCHITECTURE.md's arrows, read off `cargo metadata`. A new edge is a design decision, and this
//! table is where it is made.
#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// Every crate of the house, and the crates of the house that it may import. Tests and benches are held to the same.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("shoal-common", &[]),
    ("shoal-proto", &["shoal-common"]),
    ("shoal-rt", &["shoal-common"]),
    ("shoal-state", &["shoal-common"]),
    ("shoal-control", &["shoal-common", "shoal-state"]),
    ("shoal-raft", &["shoal-common", "shoal-rt", "shoal-proto", "shoal-state"]),
    ("shoal-manager", &["shoal-common", "shoal-rt", "shoal-proto", "shoal-state", "shoal-control", "shoal-raft"]),
    ("shoal-plan", &["shoal-common"]),
    ("shoal-kernel", &["shoal-common", "shoal-plan"]),
    // rt for its durable files: a container's record must survive what the identity of a host survives.
    ("shoal-runtime", &["shoal-common", "shoal-rt"]),
    ("shoal-dns", &["shoal-common"]),
    (
        "shoal-agent",
        &["shoal-common", "shoal-rt", "shoal-proto", "shoal-plan", "shoal-kernel", "shoal-runtime", "shoal-dns"],
    ),
    // The runtime, because the one binary is also the supervisor that the runtime starts for each container.
    ("shoal", &["shoal-common", "shoal-rt", "shoal-proto", "shoal-manager", "shoal-agent", "shoal-runtime"]),
    ("shoal-tests", &["shoal-common", "shoal-state", "shoal-control", "shoal-plan", "shoal-proto"]),
];

/// The crates that decide, and do nothing: no I/O, no clock, no randomness.
const PURE: &[&str] = &["shoal-common", "shoal-state", "shoal-control", "shoal-plan"];

/// What a pure crate cannot reach, through any dependency of a dependency: whatever waits, talks, stores or rolls dice.
/// (Not `getrandom`: imbl's generator can be seeded by it when somebody else asks for that; imbl does not.)
const IMPURE: &[&str] = &[
    "async-std",
    "chrono",
    "futures",
    "libcontainer",
    "mio",
    "nix",
    "openraft",
    "prost",
    "rand",
    "rtnetlink",
    "rustix",
    "rustls",
    "sled",
    "socket2",
    "time",
    "tokio",
    "tonic",
];

/// What only some crates know, so that the rest can be read without knowing it.
const ONLY_IN: &[(&str, &[&str])] = &[
    ("openraft", &["shoal-raft"]),
    ("crc32c", &["shoal-raft"]),
    ("sled", &["shoal-agent"]),
    ("rtnetlink", &["shoal-kernel"]),
    ("netlink-packet-route", &["shoal-kernel"]),
    ("libcontainer", &["shoal-runtime"]),
    ("oci-client", &["shoal-runtime"]),
    ("hickory-proto", &["shoal-dns"]),
    ("clap", &["shoal"]),
    ("anyhow", &["shoal", "shoal-tests"]),
];

#[test]
fn every_crate_imports_only_what_it_may() {
    let metadata = metadata();
    let members = names(&metadata);
    let may: BTreeMap<&str, &[&str]> = MAY_IMPORT.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let name = package.name.as_str();
        let Some(may) = may.get(name) else {
            wrong.push(format!("{name} is not in MAY_IMPORT"));
            continue;
        };
        for import in imports(package).intersection(&members).filter(|i| !may.contains(i)) {
            wrong.push(format!("{name} may not import {import}"));
        }
    }
    assert_none(wrong);
}

#[test]
fn every_crate_in_the_tables_is_there() {
    let metadata = metadata();
    let members = names(&metadata);
    let mut wrong = Vec::new();
    let tabled = MAY_IMPORT.iter().flat_map(|(name, may)| [name].into_iter().chain(*may));
    let sole = ONLY_IN.iter().flat_map(|(_, users)| *users);
    for name in tabled.chain(PURE).chain(sole).filter(|n| !members.contains(*n)) {
        wrong.push(format!("the tables name {name}, which is no crate of the house"));
    }
    for (name, users) in ONLY_IN {
        for user in
            metadata.workspace_packages().iter().filter(|p| p.name != "shoal-tests" && users.contains(&p.name.as_str()))
        {
            if !imports(user).contains(name) {
                wrong.push(format!("{} is said to be what knows {name}, and does not import it", user.name));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn no_pure_crate_reaches_io_clocks_or_chance() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages().into_iter().filter(|p| PURE.contains(&p.name.as_str())) {
        let reached = reached(&metadata, &package.id);
        assert!(reached.contains_key("serde"), "{} reaches serde, or nothing is seen here at all", package.name);
        for name in IMPURE {
            if let Some(through) = reached.get(*name) {
                wrong.push(format!("{} reaches {name}: {}", package.name, through.join(" → ")));
            }
        }
    }
    assert_none(wrong);
}

#[test]
fn what_one_crate_hides_no_other_imports() {
    let metadata = metadata();
    let mut wrong = Vec::new();
    for package in metadata.workspace_packages() {
        let imports = imports(package);
        for (name, users) in ONLY_IN {
            if imports.contains(name) && !users.contains(&package.name.as_str()) {
                wrong.push(format!("{} may not import {name}: that is for {}", package.name, users.join(", ")));
            }
        }
    }
    assert_none(wrong);
}

/// Clippy takes the nearest `.clippy.toml` and does not merge.
#[test]
fn every_pure_crate_has_the_bans_of_the_root_and_of_the_pure() {
    let metadata = metadata();
    let root = bans(metadata.workspace_root.as_std_path());
    assert!(!root.is_empty(), "the root bans something");
    let mut wrong = Vec::new();
    let mut own = BTreeMap::new();
    for package in metadata.workspace_packages() {
        let dir = package.manifest_path.parent().unwrap().as_std_path();
        let bans = nearest(dir, metadata.workspace_root.as_std_path());
        for missing in root.difference(&bans) {
            wrong.push(format!("{} does not ban what the root bans: {missing}", package.name));
        }
        let more: BTreeSet<String> = bans.difference(&root).cloned().collect();
        match PURE.contains(&package.name.as_str()) {
            true => drop(own.insert(package.name.to_string(), more)),
            false if more.is_empty() => {}
            false => wrong.push(format!("{} is held to the bans of a pure crate, by a folder above it", package.name)),
        }
    }
    for what in ["Instant::now", "SystemTime::now", "HashMap", "HashSet", "std::env::", "std::fs::", "std::thread::"] {
        for (name, _) in own.iter().filter(|(_, bans)| !bans.iter().any(|b| b.contains(what))) {
            wrong.push(format!("{name} does not ban {what}"));
        }
    }
    assert!(own.values().collect::<BTreeSet<_>>().len() == 1, "the pure crates ban the same: {own:#?}");
    assert_none(wrong);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let metadata = metadata();
    let lacking = metadata
        .workspace_packages()
        .into_iter()
        .filter(|package| !fs::read_to_string(&package.manifest_path).unwrap().contains("[lints]\nworkspace = true\n"));
    assert_none(lacking.map(|p| format!("{} has no `[lints] workspace = true`", p.name)).collect());
}

/// What cargo knows of the house, without asking the network: of this platform, as the others' packages are not here.
fn metadata() -> Metadata {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    MetadataCommand::new()
        .manifest_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .other_options(["--offline".to_owned(), format!("--filter-platform={platform}")])
        .exec()
        .unwrap()
}

fn names(metadata: &Metadata) -> BTreeSet<&str> {
    metadata.workspace_packages().into_iter().map(|p| p.name.as_str()).collect()
}

/// What a crate's manifest names, for its code, its build script, its tests and its benches.
fn imports(package: &Package) -> BTreeSet<&str> {
    package.dependencies.iter().map(|d| d.name.as_str()).collect()
}

/// What is compiled into a crate: each name, with the way to it. Not what builds it (proc-macros have clocks and files,
/// on the builder's machine) nor what tests it.
fn reached<'a>(metadata: &'a Metadata, from: &'a PackageId) -> BTreeMap<&'a str, Vec<&'a str>> {
    let nodes: BTreeMap<_, _> = metadata.resolve.as_ref().unwrap().nodes.iter().map(|n| (&n.id, n)).collect();
    let mut reached = BTreeMap::new();
    let mut todo = vec![(from, Vec::new())];
    while let Some((id, mut way)) = todo.pop() {
        let package = &metadata[id];
        way.push(package.name.as_str());
        let is_macro = package.targets.iter().any(|t| t.is_proc_macro());
        if is_macro || reached.insert(package.name.as_str(), way.clone()).is_some() {
            continue;
        }
        let normal = |d: &&cargo_metadata::NodeDep| d.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal);
        todo.extend(nodes[id].deps.iter().filter(normal).map(|d| (&d.pkg, way.clone())));
    }
    reached
}

/// The bans of the file that clippy would take for a crate.
fn nearest(dir: &Path, root: &Path) -> BTreeSet<String> {
    let holder = dir.ancestors().take_while(|d| d.starts_with(root)).find(|d| d.join(".clippy.toml").exists());
    bans(holder.expect("the root has one"))
}

/// The entries of a `.clippy.toml`, one a line.
fn bans(dir: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(dir.join(".clippy.toml")).unwrap();
    text.lines().map(str::trim).filter(|l| l.starts_with("{ path = ")).map(str::to_owned).collect()
}

fn assert_none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Where the daemon's code starts a task without `shoal_rt::tasks`, and why its end needs no owner there.
const MAY_SPAWN: &[(&str, &str)] = &[
    ("agent/dns/src/server.rs", "the resolver's process: one container, served on after a panic"),
    ("agent/kernel/src/monitor.rs", "the kernel's word of one namespace: looks by the clock remain"),
    ("agent/runtime/src/logs.rs", "one reader of a log: its end ends the stream"),
    ("agent/runtime/src/runtime.rs", "one container's beginning or end: looks at all of them remain"),
    ("agent/runtime/src/runtime/sessions.rs", "one start, awaited at once"),
    ("agent/runtime/src/runtime/start.rs", "one start, awaited at once"),
    ("agent/runtime/src/session.rs", "one session with a process: its end ends the session"),
    ("agent/src/resolver/ports/mod.rs", "the resolver's process: one published port"),
    ("agent/src/resolver/ports/relay.rs", "the resolver's process: one connection"),
    ("agent/src/resolver/server.rs", "the resolver's process: one client"),
    ("agent/src/sessions/process.rs", "one session of one client"),
    ("common/rt/src/incoming.rs", "its end ends the stream of connections, and with it the server, which has an owner"),
    ("common/rt/src/tasks.rs", "the owner"),
    ("manager/raft/src/lines.rs", "one connection: whoever sends by it awaits it"),
    ("manager/raft/src/rt.rs", "what a simulation can stand in for: `owned` is what notes a panic"),
    ("manager/raft/src/store/writer.rs", "its end ends the queue, and with it the log and Raft"),
];

const SPAWNS: [&str; 5] = ["tokio::spawn(", "task::spawn(", "rt::spawn(", "Runtime::spawn(", "runtime.spawn("];

/// A bare `tokio::spawn` keeps a panic in a handle that nobody reads: the daemon goes on without one of its loops.
#[test]
fn no_loop_of_the_daemon_runs_without_an_owner() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = BTreeSet::new();
    let mut dirs: Vec<_> = ["agent", "cli/src/daemon", "common", "manager"].iter().map(|dir| root.join(dir)).collect();
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if entry.is_dir() && !["tests", "benches", "examples", "sim"].contains(&name) {
                dirs.push(entry);
            } else if name.ends_with(".rs") && name != "tests.rs" {
                let text = fs::read_to_string(&entry).unwrap();
                let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
                let mut lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                if lines.any(|line| SPAWNS.iter().any(|spawn| line.contains(spawn))) {
                    found.insert(entry.strip_prefix(root).unwrap().display().to_string());
                }
            }
        }
    }
    let may: BTreeSet<String> = MAY_SPAWN.iter().map(|(file, _)| (*file).to_owned()).collect();
    assert_eq!(found, may, "run loops by shoal_rt::Tasks::forever, and what belongs to one client by tasks::detached");
}
