//! Logs of a service whose tasks are on several hosts.

use futures::StreamExt;
use shoal_common::{NodeId, task::TaskState};
use shoal_proto::pb::{self, control_server::Control as _};
use std::{collections::BTreeSet, time::Duration};
use tokio::net::TcpListener;
use tonic::{Code, Request, Status};

use super::stage::{BREAKS, Stage, Written, refused};
use crate::api::logs::Lines;

fn lines(times: &[u64]) -> Vec<pb::TaskLogsReply> {
    let line = |t: &u64| pb::TaskLogsReply { time_ms: *t, stderr: false, line: format!("at {t}").into_bytes() };
    times.iter().map(line).collect()
}

async fn ask(stage: &Stage, subject: &str, follow: bool, tail: Option<u32>) -> Result<Lines, Status> {
    let request = pb::ServiceLogsRequest { service: subject.into(), follow, tail, since_ms: 0 };
    stage.control.service_logs(Request::new(request)).await.map(|r| r.into_inner())
}

/// `web.1@m1 at 5`, or `(w2)` for a host that could not be asked.
fn short(line: Result<pb::ServiceLogsReply, Status>) -> String {
    let line = line.unwrap();
    match line.gap.is_empty() {
        true => format!("{}@{} {}", line.task, line.node, String::from_utf8(line.line).unwrap()),
        false => format!("({})", line.node),
    }
}

async fn all(stage: &Stage, subject: &str, tail: Option<u32>) -> Vec<String> {
    ask(stage, subject, false, tail).await.unwrap().map(short).collect().await
}

/// Ids are given out in order: m1 is 1, w2 is 2, blue 3, web 4, and its tasks follow.
#[tokio::test]
async fn lines_of_all_hosts_come_in_order_of_time_and_a_host_that_is_away_is_told_once() {
    let stage = Stage::set().await;
    stage.show_own(Written::from([(6, lines(&[1, 4, 9])), (7, lines(&[2]))]));
    let w2 = stage.worker_with_logs("w2", Written::from([(8, lines(&[3, 5]))])).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = stage.worker("w3", closed.local_addr().unwrap()).await;
    drop(closed);
    stage.network("blue", "").await.unwrap();
    let web = stage.create("web", "").await.unwrap().id;
    let ended = stage.start(web, 1, NodeId(1)).await;
    stage.report(NodeId(1), ended, TaskState::Failed).await;
    let tasks = [
        ended.0,
        stage.start(web, 1, NodeId(1)).await.0,
        stage.start(web, 2, w2).await.0,
        stage.start(web, 3, away).await.0,
        stage.start(web, 4, away).await.0,
        // Its host knows nothing of it.
        stage.start(web, 5, w2).await.0,
    ];
    assert_eq!(tasks, [6, 7, 8, 9, 10, 11]);

    let expected =
        ["(w3)", "web.1@m1 at 1", "web.1@m1 at 2", "web.2@w2 at 3", "web.1@m1 at 4", "web.2@w2 at 5", "web.1@m1 at 9"];
    assert_eq!(all(&stage, "web", None).await, expected);
    assert_eq!(all(&stage, "web", Some(1)).await, ["(w3)", "web.1@m1 at 2", "web.2@w2 at 5", "web.1@m1 at 9"]);
    assert_eq!(all(&stage, "web.2", None).await, ["web.2@w2 at 3", "web.2@w2 at 5"]);
    assert_eq!(all(&stage, "web.1", Some(1)).await, ["web.1@m1 at 2", "web.1@m1 at 9"], "all that were in the slot");
    assert_eq!(all(&stage, "task-7", None).await, ["web.1@m1 at 2"]);
    refused(ask(&stage, "web.9", false, None).await.map(|_| ()), Code::NotFound, "service or task web.9");
}

#[tokio::test]
async fn following_takes_up_tasks_that_come_later_with_all_that_they_wrote() {
    let stage = Stage::set().await;
    stage.show_own(Written::from([(5, lines(&[1, 2]))]));
    let w2 = stage.worker_with_logs("w2", Written::from([(6, lines(&[3, 4]))])).await;
    stage.network("blue", "").await.unwrap();
    let web = stage.create("web", "").await.unwrap().id;
    assert_eq!(stage.start(web, 1, NodeId(1)).await.0, 5);

    let mut following = ask(&stage, "web", true, Some(1)).await.unwrap();
    assert_eq!(short(following.next().await.unwrap()), "web.1@m1 at 2");
    assert_eq!(stage.start(web, 2, w2).await.0, 6);
    assert_eq!(short(following.next().await.unwrap()), "web.2@w2 at 3", "the tail is of what was there at first");
    assert_eq!(short(following.next().await.unwrap()), "web.2@w2 at 4");
}

#[tokio::test]
async fn following_ends_when_the_service_is_gone_and_everything_was_said() {
    let stage = Stage::set().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = stage.worker("w2", closed.local_addr().unwrap()).await;
    drop(closed);
    stage.network("blue", "").await.unwrap();
    let web = stage.create("web", "").await.unwrap().id;
    stage.start(web, 1, away).await;
    let mut following = ask(&stage, "web", true, None).await.unwrap();
    assert_eq!(short(following.next().await.unwrap()), "(w2)");
    let request = pb::RemoveServiceRequest { service: "web".into(), ..Default::default() };
    stage.control.remove_service(Request::new(request)).await.unwrap();
    assert!(following.next().await.is_none());
}

#[tokio::test]
async fn a_host_that_was_lost_is_followed_on_where_it_was_left() {
    let stage = Stage::set().await;
    let mut written = lines(&[1, 2, 3]);
    // A stream from the start fails after the first line; one from there on does not.
    written[1] = pb::TaskLogsReply { time_ms: 1, line: BREAKS.to_vec(), ..Default::default() };
    stage.show_own(Written::from([(4, written)]));
    stage.network("blue", "").await.unwrap();
    let web = stage.create("web", "").await.unwrap().id;
    assert_eq!(stage.start(web, 1, NodeId(1)).await.0, 4);

    let mut following = ask(&stage, "web", true, None).await.unwrap();
    for expected in ["web.1@m1 at 1", "(m1)", "web.1@m1 at 3"] {
        assert_eq!(short(following.next().await.unwrap()), expected);
    }
    let from_start = all(&stage, "web", None).await;
    assert_eq!(from_start, ["web.1@m1 at 1", "(m1)"], "a gap in what is read from the start is told where it is");
}

#[tokio::test]
async fn hundreds_of_tasks_of_one_host_are_followed_at_once() {
    let stage = Stage::set().await;
    let tasks = 4..=213;
    stage.show_own(tasks.clone().map(|task| (task, lines(&[1]))).collect());
    stage.network("blue", "").await.unwrap();
    let web = stage.create("web", "").await.unwrap().id;
    let started = stage.start_all(web, 1..=210, NodeId(1)).await;
    assert_eq!(started.iter().map(|t| t.0).collect::<Vec<_>>(), tasks.collect::<Vec<_>>());

    let following = ask(&stage, "web", true, None).await.unwrap();
    let heard = following.take(started.len()).map(short).collect::<BTreeSet<_>>();
    let heard = tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap();
    assert_eq!(heard.len(), started.len());
}

#[tokio::test]
async fn long_logs_that_wait_for_their_turn_do_not_stop_the_one_that_is_read() {
    let stage = Stage::set().await;
    // 6 MiB each; all that the first wrote is older than all that the others did.
    let long = |first: u64| {
        (first..first + 96).map(|t| pb::TaskLogsReply { time_ms: t, line: vec![b'x'; 64 << 10], ..Default::default() })
    };
    stage.show_own((4..=8).map(|task| (task, long(task * 1000).collect())).collect());
    stage.network("blue", "").await.unwrap();
    let web = stage.create("web", "").await.unwrap().id;
    assert_eq!(stage.start_all(web, 1..=5, NodeId(1)).await.len(), 5);
    let read = ask(&stage, "web", false, None).await.unwrap().map(|line| line.unwrap().time_ms).collect::<Vec<_>>();
    let read = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap();
    assert_eq!(read.len(), 5 * 96);
    assert!(read.is_sorted());
}

#[tokio::test]
async fn more_tasks_than_can_be_read_at_once_are_refused_and_one_is_named() {
    let stage = Stage::set().await;
    stage.network("blue", "").await.unwrap();
    let web = stage.create("web", "").await.unwrap().id;
    // Two rounds, for the network has no 257 addresses.
    for _ in 0..2 {
        for task in stage.start_all(web, 1..=129, NodeId(1)).await {
            stage.report(NodeId(1), task, TaskState::Failed).await;
        }
    }
    refused(ask(&stage, "web", false, None).await.map(|_| ()), Code::ResourceExhausted, "such as web.1");
}
