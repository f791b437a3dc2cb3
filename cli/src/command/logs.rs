//! `service logs`: what containers wrote to stdout goes to stdout, the rest to stderr, each line behind its task.

use shoal_proto::pb;
use std::path::Path;

use crate::{
    args::service::Logs,
    client::Client,
    failure::Failure,
    out,
    progress::follow::now,
    units::{Since, rfc3339},
};

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
    loop {
        let reply = tokio::select! {
            next = stream.message() => next?,
            signal = tokio::signal::ctrl_c() => return Ok(signal?),
        };
        let Some(reply) = reply else { return Ok(()) };
        if !reply.gap.is_empty() {
            out::note(format!("shoal: lines of node {} are missing: {}", reply.node, reply.gap));
            continue;
        }
        let text = line(&reply, a, &mut width);
        if reply.stderr { out::log_aside(&text)? } else { out::log(&text)? }
    }
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
