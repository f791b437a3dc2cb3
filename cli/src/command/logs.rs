//! `service logs`: what containers wrote to stdout goes to stdout, the rest to stderr, each line behind its task.

use shoal_proto::pb;
use std::{path::Path, time::Duration};

use crate::{
    args::service::Logs,
    client::Client,
    failure::Failure,
    out,
    progress::follow::now,
    units::{Since, rfc3339},
    view::task::row,
};

/// Until the first line, before it is said why none comes.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) async fn run(host: &Path, a: &Logs) -> Result<(), Failure> {
    let since_ms = match a.since {
        None => 0,
        Some(Since::At { epoch_ms }) => epoch_ms,
        Some(Since::Ago(d)) => now().0.saturating_sub(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
    };
    let request = pb::ServiceLogsRequest { service: a.service.clone(), follow: a.follow, tail: a.tail.0, since_ms };
    let client = Client::connect(host).await?;
    let mut stream = client.control().service_logs(request).await?.into_inner();
    // Grows with the longest name seen, so that bars stand in line as far as that is possible.
    let mut width = 0;
    let mut silent = true;
    loop {
        let reply = tokio::select! {
            next = stream.message() => next?,
            signal = tokio::signal::ctrl_c() => return Ok(signal?),
            () = tokio::time::sleep(SILENCE), if silent => {
                silent = false;
                note_waiting(&client, &a.service).await;
                continue;
            }
        };
        let Some(reply) = reply else {
            if silent {
                note_waiting(&client, &a.service).await;
            }
            return Ok(());
        };
        silent = false;
        if !reply.gap.is_empty() {
            out::note(format!("shoal: lines of node {} are missing: {}", reply.node, reply.gap));
            continue;
        }
        let text = line(&reply, a, &mut width);
        if reply.stderr { out::log_aside(&text)? } else { out::log(&text)? }
    }
}

/// A service whose tasks wait has no logs; silence alone would not say so. What cannot be asked is not told: the logs
/// were asked for.
async fn note_waiting(client: &Client, service: &str) {
    let request = pb::ListTasksRequest { service: service.to_owned(), ..Default::default() };
    if let Ok(reply) = client.control().list_tasks(request).await {
        waiting(&reply.into_inner().tasks).iter().for_each(out::note);
    }
}

/// The tasks that have not run yet, each with its reason.
fn waiting(tasks: &[pb::Task]) -> Vec<String> {
    let now = now().0;
    let rows = tasks.iter().map(|task| row(task, now));
    let before_running = ["pending", "assigned", "preparing", "starting"];
    let waits = rows.filter(|t| t.desired_state == "Running" && before_running.contains(&t.state.as_str()));
    waits
        .map(|t| {
            let why = if t.error.is_empty() { String::new() } else { format!(": {}", t.error) };
            format!("shoal: {} has no logs yet, it is {}{why}", t.name, t.state)
        })
        .collect()
}

fn line(reply: &pb::ServiceLogsReply, a: &Logs, width: &mut usize) -> Vec<u8> {
    let mut text = Vec::new();
    if a.timestamps {
        text.extend_from_slice(rfc3339(reply.time_ms).as_bytes());
        text.push(b' ');
    }
    if !a.raw {
        let who = format!("{}@{}", reply.task, reply.node);
        *width = (*width).max(who.len());
        text.extend_from_slice(format!("{who:<width$}    | ", width = *width).as_bytes());
    }
    text.extend_from_slice(&reply.line);
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command, service::Service};
    use clap::Parser;

    fn logs(flags: &str) -> Logs {
        let line = format!("shoal service logs {flags} web");
        match Cli::try_parse_from(line.split_whitespace()).expect("parses").command {
            Command::Service(Service::Logs(l)) => l,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_task_that_waits_says_so_in_place_of_its_logs() {
        let task = |name: &str, state: pb::TaskState, message: &str| pb::Task {
            name: name.into(),
            desired: pb::DesiredState::Running.into(),
            status: Some(pb::TaskStatus { state: state.into(), message: message.into(), ..Default::default() }),
            ..Default::default()
        };
        let tasks = [
            task("web.1", pb::TaskState::Pending, "no node"),
            task("web.2", pb::TaskState::Running, ""),
            task("web.3", pb::TaskState::Preparing, ""),
        ];
        assert_eq!(
            waiting(&tasks),
            ["shoal: web.1 has no logs yet, it is pending: no node", "shoal: web.3 has no logs yet, it is preparing"]
        );
    }

    #[test]
    fn a_line_stands_behind_its_task() {
        let reply = pb::ServiceLogsReply {
            task: "web.1".into(),
            node: "n1".into(),
            line: b"hello".to_vec(),
            ..Default::default()
        };
        let mut width = 10;
        assert_eq!(line(&reply, &logs(""), &mut width), b"web.1@n1      | hello\n");
        assert_eq!(line(&reply, &logs("--raw"), &mut width), b"hello\n");
        assert_eq!(line(&reply, &logs("--raw -t"), &mut width), b"1970-01-01T00:00:00.000Z hello\n");
    }

    #[test]
    fn tail_is_a_number_or_all() {
        assert_eq!(logs("-f --tail 5").tail.0, Some(5));
        assert_eq!(logs("--tail all").tail.0, None);
        assert!(Cli::try_parse_from(["shoal", "service", "logs", "--tail", "some", "web"]).is_err());
    }
}
