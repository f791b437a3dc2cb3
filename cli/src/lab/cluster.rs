//! Making one cluster of hosts whose daemons answer: as a user would, with our own `init`, `join-token`, `join` and
//! `node ls`, each asked at the host's socket.

use shoal_common::node::Role;
use std::{
    env,
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{layout::Layout, name::HostName, state::State};
use crate::{
    failure::{Exit, Failure},
    view::node::Row,
};

/// One answer of a daemon.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// From the last join until every host is ready and every manager votes.
const CONVERGES_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);
const ENDED_EVERY: Duration = Duration::from_millis(5);

pub(super) fn form(layout: &Layout, state: &State) -> Result<(), Failure> {
    let mut hosts = state.hosts.keys().copied();
    let Some(first) = hosts.next().filter(|h| h.role() == Role::Manager) else {
        return Err(Failure::usage("a cluster has a manager: give --managers 1 or more, or --no-cluster"));
    };
    shoal(layout, first, &["init", "--advertise-addr", &first.v4().to_string()])?;
    let token = |role: &str| shoal(layout, first, &["join-token", "--quiet", role]).map(|t| t.trim().to_owned());
    let (manager, worker) = (token("manager")?, token("worker")?);
    let remote = format!("{}:2377", first.v4());
    super::each(hosts, |host| {
        let token = match host.role() {
            Role::Manager => &manager,
            Role::Worker => &worker,
        };
        shoal(layout, host, &["join", "--token", token, "--advertise-addr", &host.v4().to_string(), &remote]).map(drop)
    })?;
    let deadline = Instant::now() + CONVERGES_WITHIN;
    loop {
        let seen = shoal(layout, first, &["node", "ls", "--format", "json"]).and_then(|text| nodes(&text));
        let missing = match seen {
            Ok(nodes) => missing(&nodes, state),
            Err(f) => f.message,
        };
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            let message = format!("the cluster is not complete after {} s: {missing}", CONVERGES_WITHIN.as_secs());
            return Err(Failure::new(Exit::NotConverged, message));
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn nodes(text: &str) -> Result<Vec<Row>, Failure> {
    let node = |line: &str| serde_json::from_str(line);
    let bad = |e| Failure::new(Exit::General, format!("'node ls' printed what is no node: {e}"));
    text.lines().map(node).collect::<Result<_, _>>().map_err(bad)
}

/// What each host lacks to be a full member; empty when all is well.
fn missing(nodes: &[Row], state: &State) -> String {
    let lacks = |host: &HostName| {
        let Some(node) = nodes.iter().find(|n| n.hostname == host.to_string()) else {
            return Some(format!("{host} is not listed"));
        };
        if node.status != "Ready" {
            Some(format!("{host} is {}", node.status.to_lowercase()))
        } else if node.role != host.role().to_string() {
            Some(format!("{host} is a {}", node.role))
        } else if host.role() == Role::Manager && !matches!(node.raft.as_str(), "leader" | "voter") {
            Some(format!("{host} does not vote"))
        } else {
            None
        }
    };
    state.hosts.keys().filter_map(lacks).collect::<Vec<_>>().join(", ")
}

/// Runs our own program against a host's daemon, and gives what it printed.
fn shoal(layout: &Layout, host: HostName, args: &[&str]) -> Result<String, Failure> {
    let what = args.iter().take_while(|arg| !arg.starts_with('-')).copied().collect::<Vec<_>>().join(" ");
    let failed = |why: String| Failure::new(Exit::General, format!("'shoal {what}' on {host}: {why}"));
    let mut child = Command::new(env::current_exe()?)
        .args(args)
        .env("SHOAL_HOST", layout.socket(host))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let (stdout, stderr) = (gather(child.stdout.take()), gather(child.stderr.take()));
    let deadline = Instant::now() + ANSWER_WITHIN;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break None;
        }
        thread::sleep(ENDED_EVERY);
    };
    let text = |reader: thread::JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&reader.join().expect("a thread that only reads does not panic")).into_owned()
    };
    let (stdout, stderr) = (text(stdout), text(stderr));
    match status {
        Some(status) if status.success() => Ok(stdout),
        Some(_) => Err(failed(stderr.trim().trim_start_matches("error: ").to_owned())),
        None => Err(failed(format!("no answer within {} s", ANSWER_WITHIN.as_secs()))),
    }
}

fn gather(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::{self, node::row};
    use shoal_proto::pb;

    #[test]
    fn a_cluster_is_complete_when_all_are_ready_and_managers_vote() {
        let state = State::new(HostName::all(2, 1), "/bin/shoal".into());
        let line = |host: &str, liveness: pb::Liveness, role: pb::Role, raft: &str| {
            let description = Some(pb::NodeDescription { hostname: host.into(), ..Default::default() });
            let (liveness, role, raft) = (liveness.into(), role.into(), raft.into());
            view::value(&row(&pb::Node { description, liveness, role, raft, ..Default::default() })).to_string()
        };
        let (ready, manager, worker) = (pb::Liveness::Ready, pb::Role::Manager, pb::Role::Worker);
        let m1 = line("m1", ready, manager, "leader");
        let said = |lines: &[String]| missing(&nodes(&lines.join("\n")).unwrap(), &state);
        assert_eq!(said(std::slice::from_ref(&m1)), "m2 is not listed, w1 is not listed");
        let (m2, w1) = (line("m2", ready, manager, "learner"), line("w1", pb::Liveness::Unknown, worker, ""));
        assert_eq!(said(&[m1.clone(), m2, w1]), "m2 does not vote, w1 is unknown");
        let (m2, w1) = (line("m2", ready, manager, "voter"), line("w1", ready, worker, ""));
        assert_eq!(said(&[m1, m2, w1]), "");
    }
}
