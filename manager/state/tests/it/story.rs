//! Golden scripts: lines that begin with `>` are said, the others are what must be answered.
//! `SHOAL_BLESS=1 cargo test -p shoal-state` writes what is answered now; read the difference before committing it.

use shoal_common::{
    NodeId, TaskId,
    node::{Liveness, Role},
    service::Mode,
    task::{Slot, TaskState},
};
use shoal_state::{Command, Reply, TaskChange, TaskReport};
use std::fmt::Write;

use crate::world::{World, init, network, register, service};

#[test]
fn the_life_of_a_cluster() {
    replay("life");
}

#[allow(clippy::disallowed_methods, reason = "golden scripts are files, and are blessed by the environment")]
fn replay(name: &str) {
    let path = format!("{}/testdata/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    let script = std::fs::read_to_string(&path).unwrap();
    let mut world = World::default();
    let mut told = String::new();
    for line in script.lines().filter(|l| l.starts_with('>') || l.starts_with('#') || l.is_empty()) {
        writeln!(told, "{line}").unwrap();
        if let Some(said) = line.strip_prefix('>') {
            told.push_str(&say(&mut world, said));
        }
    }
    if std::env::var_os("SHOAL_BLESS").is_some() {
        std::fs::write(&path, told).unwrap();
    } else {
        assert!(told == script, "{path} tells another story than this:\n{told}");
    }
}

fn say(w: &mut World, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let net = |w: &World, name: &&str| w.state.find_network(name, None).unwrap().id;
    let svc = |w: &World, name: &str| w.state.find_service(name).unwrap().id;
    let node = |n: &str| n.parse::<NodeId>().unwrap();
    let task = |t: &str| t.parse::<TaskId>().unwrap();
    let command = match words.as_slice() {
        ["show"] => return show(w),
        ["init"] => init(),
        ["join", name] => register(name, Role::Worker),
        ["hear", nodes @ ..] => {
            Command::SetLiveness { nodes: nodes.iter().map(|n| (node(n), Liveness::Ready)).collect() }
        }
        ["lose", nodes @ ..] => {
            Command::SetLiveness { nodes: nodes.iter().map(|n| (node(n), Liveness::Down)).collect() }
        }
        ["network", name, "dual"] => {
            let mut spec = network(name, &[]);
            spec.ipv6 = true;
            Command::CreateNetwork { spec }
        }
        ["network", name, subnets @ ..] => Command::CreateNetwork { spec: network(name, subnets) },
        ["remove-network", name] => Command::RemoveNetwork { network: net(w, name) },
        ["service", name, replicas, networks @ ..] => {
            let networks: Vec<_> = networks.iter().map(|n| net(w, n)).collect();
            Command::CreateService { spec: Box::new(service(name, replicas.parse().unwrap(), &networks)) }
        }
        ["scale", name, replicas] => {
            let row = w.state.services[&svc(w, name)].clone();
            let mut spec = row.spec;
            spec.mode = Mode::Replicated { replicas: replicas.parse().unwrap() };
            Command::UpdateService { service: row.id, version: row.version, spec: Box::new(spec) }
        }
        ["remove-service", name] => Command::RemoveService { service: svc(w, name) },
        ["remove-node", n] => Command::RemoveNode { node: node(n), force: false },
        ["create", name, slots @ ..] => {
            let service = svc(w, name);
            let spec_version = w.state.services[&service].spec_version;
            let change = |said: &&str| {
                let (slot, on) = said.split_once('@').unwrap();
                TaskChange::Create {
                    service,
                    spec_version,
                    slot: Slot::Replica(slot.parse().unwrap()),
                    node: on.parse().ok(),
                    why_pending: "no node fits".into(),
                }
            };
            Command::Orchestrate { changes: slots.iter().map(change).collect() }
        }
        ["assign", t, n] => Command::Orchestrate { changes: vec![TaskChange::Assign { task: task(t), node: node(n) }] },
        ["shutdown", t] => {
            Command::Orchestrate { changes: vec![TaskChange::Shutdown { task: task(t), why: "scaled down".into() }] }
        }
        ["orphan", t] => Command::Orchestrate { changes: vec![TaskChange::Orphan { task: task(t) }] },
        ["forget", tasks @ ..] => {
            Command::Orchestrate { changes: tasks.iter().map(|t| TaskChange::Forget { task: task(t) }).collect() }
        }
        ["report", n, state, tasks @ ..] => {
            let state = TaskState::ALL.into_iter().find(|s| s.to_string() == *state).unwrap();
            let report =
                |t: &&str| TaskReport { node: node(n), task: task(t), state, message: String::new(), exit_code: None };
            Command::ReportStatus { reports: tasks.iter().map(report).collect() }
        }
        other => panic!("nobody understands {other:?}"),
    };
    match w.apply(command) {
        Ok(Reply::Done) => "done\n".into(),
        Ok(Reply::Node(id)) => format!("{id}\n"),
        Ok(Reply::Network(id)) => format!("{id}\n"),
        Ok(Reply::Service(id, version)) => format!("{id} version {version}\n"),
        Ok(Reply::Container(id, start)) => format!("{id} start {start}\n"),
        Ok(Reply::Made(n)) => format!("made {n}\n"),
        Err(why) => format!("refused: {why}\n"),
    }
}

fn show(w: &World) -> String {
    let mut out = format!("applied {}\n", w.state.applied);
    for n in w.state.nodes.values() {
        writeln!(out, "{} {} {} {} {}", n.id, n.description.hostname, n.role, n.availability, n.liveness).unwrap();
    }
    for n in w.state.networks.values() {
        let pools: Vec<String> = n
            .pools
            .iter()
            .map(|p| format!("{} gateway {} used {}", p.subnet().net, p.subnet().gateway, p.used()))
            .collect();
        writeln!(out, "{} {} vni {}: {}", n.id, n.name(), n.vni.unwrap(), pools.join(", ")).unwrap();
    }
    for s in w.state.services.values() {
        let vips: Vec<String> =
            s.vips.iter().map(|(n, v)| format!("{n} {}", v.v4.map(|ip| ip.to_string()).unwrap_or_default())).collect();
        writeln!(out, "{} {} version {} spec {}: {}", s.id, s.spec.name, s.version, s.spec_version, vips.join(", "))
            .unwrap();
    }
    for t in w.state.tasks.values() {
        let on = t.node.map_or("nowhere".to_owned(), |n| n.to_string());
        let line = format!(
            "{} {} {on} wanted {} is {} [{}] {}",
            t.id,
            t.name(),
            t.desired,
            t.status.state,
            w.address(t.id),
            t.status.message
        );
        writeln!(out, "{}", line.trim_end()).unwrap();
    }
    out
}
