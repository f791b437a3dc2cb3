//! A manager on loopback: hosts join, are given certificates, hear of their tasks and tell of them.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

#[allow(dead_code, reason = "each of the test programs uses a part of it")]
mod stage;

use shoal_common::{
    NodeId,
    node::{Liveness, Role},
};
use shoal_manager::{authority, ca};
use shoal_proto::pb::{self, assignments_reply::Kind, certificate_authority_client::CertificateAuthorityClient};
use shoal_rt::{Expect, Incoming, JoinToken, connect::connect_joiner};
use shoal_state::{Command, State};
use stage::{Stage, asking};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::{Code, transport::Server};

#[tokio::test]
async fn the_token_decides_the_role_and_a_wrong_one_opens_nothing() {
    let stage = Stage::set().await;
    let worker = stage.join(&stage.worker_token, "w1").await.unwrap().current();
    let manager = stage.join(&stage.manager_token, "m2").await.unwrap().current();
    assert_eq!((worker.role, manager.role), (Role::Worker, Role::Manager));
    assert_ne!(worker.node, manager.node);

    let wrong = JoinToken { secret: JoinToken::new_secret(), ..stage.worker_token.clone() };
    let refused = stage.join(&wrong, "w2").await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let known = stage.manager.consensus.read().await.unwrap();
    assert_eq!(known.nodes.values().filter(|n| n.description.hostname == "w2").count(), 0);

    // The old token ends when it is rotated.
    let secret = JoinToken::new_secret();
    stage.propose(Command::RotateJoinToken { role: Role::Worker, secret: secret.clone() }).await.unwrap();
    assert_eq!(stage.join(&stage.worker_token, "w2").await.map(drop).unwrap_err().code(), Code::Unauthenticated);
    let fresh = JoinToken { secret, ..stage.worker_token.clone() };
    assert!(stage.join(&fresh, "w2").await.is_ok());
}

#[tokio::test]
async fn a_manager_that_cannot_be_reached_back_is_not_taken_in() {
    let stage = Stage::set().await;
    // Bound, so that nobody else listens there, and not listened at.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.2.250:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    let join = async |token: &JoinToken| {
        let (key, request) = ca::signing_request().unwrap();
        stage.join_from(token, "m2", addr, key, request).await
    };
    let refused = join(&stage.manager_token).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains(&addr.to_string()), "{}", refused.message());
    assert_eq!(stage.manager.consensus.state().borrow().nodes.len(), 1, "no half-member stays");
    // A worker is told everything by connections of its own.
    assert!(join(&stage.worker_token).await.is_ok());
}

#[tokio::test]
async fn a_join_that_is_repeated_becomes_the_same_node() {
    let stage = Stage::set().await;
    let (key, request) = ca::signing_request().unwrap();
    let first = stage.join_with(&stage.worker_token, "w1", key.clone(), request.clone()).await.unwrap();
    let second = stage.join_with(&stage.worker_token, "w1", key, request).await.unwrap();
    assert_eq!(first.current().node, second.current().node);
}

#[tokio::test]
async fn the_public_key_of_a_node_does_not_open_its_record() {
    let stage = Stage::set().await;
    let (key, request) = ca::signing_request().unwrap();
    let node = stage.join_with(&stage.worker_token, "w1", key.clone(), request.clone()).await.unwrap().current().node;
    let before = stage.manager.consensus.read().await.unwrap();

    // Whoever has spoken with the host knows its public key, but cannot sign with it.
    let mut forged = request.clone();
    *forged.last_mut().unwrap() ^= 1;
    let refused = stage.join_with(&stage.worker_token, "thief", key.clone(), forged).await.map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let after = stage.manager.consensus.read().await.unwrap();
    assert_eq!(after.nodes.get(&node), before.nodes.get(&node));
    assert_eq!(after.nodes.len(), before.nodes.len());

    // Who repeats its own join is what it is now, whatever the token said then.
    let role = Some(Role::Manager);
    let (labels_add, labels_remove) = Default::default();
    stage.propose(Command::UpdateNode { node, availability: None, role, labels_add, labels_remove }).await.unwrap();
    let again = stage.join_with(&stage.worker_token, "w1", key, request).await.unwrap().current();
    assert_eq!((again.node, again.role), (node, Role::Manager));
}

#[tokio::test]
async fn a_certificate_follows_the_role_and_dies_with_the_node() {
    let stage = Stage::set().await;
    let credentials = stage.join(&stage.worker_token, "w1").await.unwrap();
    let node = credentials.current().node;
    let channel = shoal_rt::connect(stage.addr, Expect::Node(NodeId(1)), &credentials).await.unwrap();
    let mut authority = CertificateAuthorityClient::new(channel);
    let renew = || pb::RenewRequest { signing_request_der: ca::signing_request().unwrap().1 };
    let role = |c: &pb::Certificate| pb::Role::try_from(c.role).unwrap();

    assert_eq!(role(authority.renew(renew()).await.unwrap().get_ref()), pb::Role::Worker);
    let promote = |role| Command::UpdateNode {
        node,
        availability: None,
        role: Some(role),
        labels_add: Default::default(),
        labels_remove: Vec::new(),
    };
    stage.propose(promote(Role::Manager)).await.unwrap();
    assert_eq!(role(authority.renew(renew()).await.unwrap().get_ref()), pb::Role::Manager);
    stage.propose(promote(Role::Worker)).await.unwrap();
    stage.propose(Command::RemoveNode { node, force: true }).await.unwrap();
    assert_eq!(authority.renew(renew()).await.unwrap_err().code(), Code::PermissionDenied);

    // Who has no certificate cannot renew one.
    let channel = connect_joiner(stage.addr, stage.worker_token.ca).await.unwrap();
    let stranger = CertificateAuthorityClient::new(channel).renew(renew()).await.unwrap_err();
    assert_eq!(stranger.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_workers_certificate_does_not_pass_for_a_manager() {
    let stage = Stage::set().await;
    let worker = stage.join(&stage.worker_token, "w1").await.unwrap();
    // It cannot serve as one ...
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let _stops = shutdown.clone().drop_guard();
    let incoming = Incoming::new(listener, worker.clone(), shutdown);
    tokio::spawn(
        Server::builder().add_service(authority::service(shoal_manager::seat().1)).serve_with_incoming(incoming),
    );
    assert!(shoal_rt::connect(addr, Expect::AnyManager, &worker).await.is_err());
    assert!(shoal_rt::connect(addr, Expect::Node(worker.current().node), &worker).await.is_ok());
    // ... and it cannot speak as one.
    let channel = shoal_rt::connect(stage.addr, Expect::AnyManager, &worker).await.unwrap();
    let raft = pb::raft_client::RaftClient::new(channel).read_index(pb::ReadIndexRequest {}).await.unwrap_err();
    assert_eq!(raft.code(), Code::PermissionDenied);
    let relay = stage.dispatcher(&worker).await.relay_heartbeats(pb::RelayHeartbeatsRequest { nodes: vec![1] }).await;
    assert_eq!(relay.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn an_agent_is_told_everything_once_and_then_what_changed() {
    let stage = Stage::set().await;
    let credentials = stage.join(&stage.worker_token, "w1").await.unwrap();
    let node = credentials.current().node;
    let mut dispatcher = stage.dispatcher(&credentials).await;
    let mut stream = dispatcher.assignments(asking("w1-renamed", 0)).await.unwrap().into_inner();
    let Some(Kind::Complete(whole)) = stream.message().await.unwrap().unwrap().kind else { panic!("first the whole") };
    assert_eq!((whole.node.as_ref().unwrap().id, whole.tasks.len()), (node.0, 0));
    assert_eq!(whole.node.unwrap().managers.keys().collect::<Vec<_>>(), [&1]);
    // What the host said of itself is on record, and it is ready, for it speaks.
    let known = stage.until("it is ready", |s| s.nodes.get(&node).is_some_and(|n| n.liveness == Liveness::Ready)).await;
    assert_eq!(known.nodes.get(&node).unwrap().description.hostname, "w1-renamed");

    // The leader gives it a task: one message, and only what changed.
    let spec = pb::ServiceSpec {
        name: "web".to_owned(),
        mode: Some(pb::service_spec::Mode::Replicas(1)),
        container: Some(pb::ContainerSpec { image: "demo:1".to_owned(), ..Default::default() }),
        placement: Some(pb::Placement { constraints: vec![format!("node.id=={node}")], ..Default::default() }),
        ..Default::default()
    };
    let spec = shoal_proto::convert::service_spec(spec, |_| -> Result<_, shoal_common::Invalid> {
        unreachable!("it is on no network")
    })
    .unwrap();
    stage.propose(Command::CreateService { spec: Box::new(spec) }).await.unwrap();
    let delta = loop {
        match stream.message().await.unwrap().unwrap().kind {
            Some(Kind::Incremental(delta)) if !delta.tasks.is_empty() => break delta,
            Some(Kind::Incremental(delta)) => assert!(delta.from >= whole.generation),
            other => panic!("{other:?}"),
        }
    };
    let task = delta.tasks[0].id;

    // It reports, and is believed about its own tasks only.
    let report = |task| pb::TaskReport {
        task,
        state: pb::TaskState::Preparing.into(),
        message: "now".to_owned(),
        exit_code: None,
    };
    dispatcher
        .report_status(pb::ReportStatusRequest { reports: vec![report(task)], containers: vec![] })
        .await
        .unwrap();
    let state = stage.manager.consensus.read().await.unwrap();
    assert_eq!(state.tasks.get(&shoal_common::TaskId(task)).unwrap().status.message, "now");
    let other = stage.join(&stage.worker_token, "w2").await.unwrap();
    let before = stage.manager.consensus.read().await.unwrap().tasks.clone();
    let lie = pb::TaskReport { message: "a lie".to_owned(), ..report(task) };
    let lies = pb::ReportStatusRequest { reports: vec![lie], containers: vec![] };
    stage.dispatcher(&other).await.report_status(lies).await.unwrap();
    assert_eq!(stage.manager.consensus.read().await.unwrap().tasks, before);

    // A manager that is behind does not serve; one that has removed the node says so, and ends the stream.
    let ahead = dispatcher.assignments(asking("w1", u64::MAX)).await.unwrap_err();
    assert_eq!(ahead.code(), Code::Unavailable);
    stage.propose(Command::RemoveNode { node, force: true }).await.unwrap();
    let end = loop {
        match stream.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a word"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::PermissionDenied);
    assert_eq!(dispatcher.heartbeat(pb::HeartbeatRequest::default()).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test]
async fn a_node_that_falls_silent_is_called_down_and_is_ready_again_when_it_speaks() {
    let stage = Stage::set().await;
    let credentials = stage.join(&stage.worker_token, "w1").await.unwrap();
    let node = credentials.current().node;
    let mut dispatcher = stage.dispatcher(&credentials).await;
    let is = |wanted| move |s: &State| s.nodes.get(&node).is_some_and(|n| n.liveness == wanted);
    dispatcher.heartbeat(pb::HeartbeatRequest::default()).await.unwrap();
    stage.until("it is ready", is(Liveness::Ready)).await;
    let begin = tokio::time::Instant::now();
    stage.until("it is down", is(Liveness::Down)).await;
    assert!(begin.elapsed() > Duration::from_secs(4), "called down after {:?}", begin.elapsed());
    dispatcher.heartbeat(pb::HeartbeatRequest::default()).await.unwrap();
    stage.until("it is ready again", is(Liveness::Ready)).await;
}
