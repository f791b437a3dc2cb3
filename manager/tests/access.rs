//! Every call, made with every kind of certificate.

#![allow(clippy::unwrap_used, reason = "in tests a panic is the report")]

#[allow(dead_code, reason = "each of the test programs uses a part of it")]
mod stage;

use shoal_common::{NodeId, node::Role};
use shoal_manager::{access, authority};
use shoal_proto::{
    Call, Who,
    pb::{self, certificate_authority_client::CertificateAuthorityClient, host_control_client::HostControlClient},
};
use shoal_rt::{Credentials, Expect, Incoming, connect::connect_joiner, incoming};
use shoal_state::Command;
use stage::{Stage, asking};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

const LIMIT: Duration = Duration::from_secs(20);

impl Stage {
    async fn channel(&self, credentials: &Credentials) -> Channel {
        shoal_rt::connect(self.addr, Expect::AnyManager, credentials).await.unwrap()
    }

    async fn set_role(&self, node: NodeId, role: Role) {
        let (labels_add, labels_remove) = Default::default();
        let command = Command::UpdateNode { node, availability: None, role: Some(role), labels_add, labels_remove };
        self.propose(command).await.unwrap();
    }

    async fn remove(&self, node: NodeId) {
        self.propose(Command::RemoveNode { node, force: true }).await.unwrap();
    }
}

/// An empty request. Connections of nodes that were removed are closed, also under a call: that is no answer.
async fn ask(channel: &Channel, call: Call) -> Result<(), Status> {
    loop {
        match ask_once(channel, call).await {
            Err(status) if std::error::Error::source(&status).is_some() => {}
            answer => return answer,
        }
    }
}

async fn ask_once(channel: &Channel, call: Call) -> Result<(), Status> {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let asked = client.unary(Request::new(()), PathAndQuery::from_static(call.path()), ProstCodec::<(), ()>::default());
    timeout(LIMIT, asked).await.unwrap_or_else(|_| panic!("{call:?} has no answer")).map(drop)
}

/// Whether the caller got past the question of who it is.
fn admitted(answer: &Result<(), Status>) -> Result<(), Code> {
    match answer {
        // The secret of an empty request is wrong.
        Err(status) if status.message().contains("join token") => Ok(()),
        Err(status) if matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied) => Err(status.code()),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[tokio::test]
async fn every_call_with_every_certificate() {
    let stage = Stage::set().await;
    let worker = stage.join(&stage.worker_token, "w1").await.unwrap();
    let manager = stage.join(&stage.manager_token, "m2").await.unwrap();
    let demoted = stage.join(&stage.manager_token, "m3").await.unwrap();
    stage.set_role(demoted.current().node, Role::Worker).await;
    let removed_worker = stage.join(&stage.worker_token, "w2").await.unwrap();
    stage.remove(removed_worker.current().node).await;
    let removed_manager = stage.join(&stage.manager_token, "m4").await.unwrap();
    stage.set_role(removed_manager.current().node, Role::Worker).await;
    stage.remove(removed_manager.current().node).await;

    let (yes, no, stranger) = (Ok(()), Err(Code::PermissionDenied), Err(Code::Unauthenticated));
    let none = connect_joiner(stage.addr, stage.worker_token.ca).await.unwrap();
    let channels = [
        ("no certificate", none),
        ("a worker", stage.channel(&worker).await),
        ("a manager", stage.channel(&manager).await),
        ("a demoted manager", stage.channel(&demoted).await),
        ("a removed worker", stage.channel(&removed_worker).await),
        ("a removed manager", stage.channel(&removed_manager).await),
    ];
    let mut wrong = Vec::new();
    for call in Call::ALL {
        let expected = match call.who() {
            Who::Local => [no; 6],
            Who::Stranger => [yes; 6],
            Who::Node => [stranger, yes, yes, yes, no, no],
            Who::Manager => [stranger, no, yes, no, no, no],
            // The leader knows that m3 is none.
            Who::Member => [stranger, no, yes, no, no, no],
        };
        for ((who, channel), expected) in channels.iter().zip(expected) {
            let answer = ask(channel, *call).await;
            if admitted(&answer) != expected {
                wrong.push(format!("{call:?} by {who}: {answer:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A host that is no manager goes by the managers that it was told of.
#[tokio::test]
async fn a_worker_answers_its_managers_only() {
    let stage = Stage::set().await;
    let worker = stage.join(&stage.worker_token, "w1").await.unwrap();
    let other = stage.join(&stage.worker_token, "w2").await.unwrap();
    // Its certificate says manager. The worker was never told of it, or not any more.
    let former = stage.join(&stage.manager_token, "m2").await.unwrap();

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let incoming = Incoming::new(listener, worker.clone(), CancellationToken::new());
    let known = access::Known::new(shoal_manager::seat().1, Arc::new(|node| node == NodeId(1)));
    let nothing = authority::service(shoal_manager::seat().1);
    let server = incoming::server().layer(access::Guard::new(known)).add_service(nothing);
    tokio::spawn(server.serve_with_incoming(incoming));

    let expect = Expect::Node(worker.current().node);
    let mut answers = Vec::new();
    for credentials in [&stage.manager.credentials, &former, &other] {
        let channel = shoal_rt::connect(addr, expect, credentials).await.unwrap();
        let of_managers = Call::ALL.iter().filter(|call| call.who() == Who::Manager);
        for call in of_managers {
            answers.push((credentials.current().node, *call, ask(&channel, *call).await.unwrap_err().code()));
        }
    }
    let manager = stage.manager.node;
    for (node, call, code) in &answers {
        // That service is not there; the question of who asks comes first.
        let expected = if *node == manager { Code::Unimplemented } else { Code::PermissionDenied };
        assert_eq!(*code, expected, "{call:?} by {node}");
    }
}

#[tokio::test]
async fn a_worker_asks_about_its_own_only() {
    let stage = Stage::set().await;
    let worker = stage.join(&stage.worker_token, "w1").await.unwrap();
    stage.join(&stage.worker_token, "w2").await.unwrap();
    let mut client = HostControlClient::new(stage.channel(&worker).await);
    let node = || "w2".to_owned();
    let container = || Some(pb::ContainerRef { container: "c".to_owned(), node: node() });
    let create = pb::CreateContainerRequest { node: node(), spec: Some(Default::default()), ..Default::default() };
    let refused = [
        client.create_container(create).await.map(drop),
        client
            .start_container(pb::StartContainerRequest { container: container(), ..Default::default() })
            .await
            .map(drop),
        client
            .stop_container(pb::StopContainerRequest { container: container(), ..Default::default() })
            .await
            .map(drop),
        client
            .remove_container(pb::RemoveContainerRequest { container: container(), ..Default::default() })
            .await
            .map(drop),
        client
            .rename_container(pb::RenameContainerRequest {
                container: container(),
                name: "d".to_owned(),
                ..Default::default()
            })
            .await
            .map(drop),
        client
            .connect_container(pb::ConnectContainerRequest { container: container(), ..Default::default() })
            .await
            .map(drop),
        client
            .disconnect_container(pb::DisconnectContainerRequest {
                container: container(),
                network: "n".to_owned(),
                ..Default::default()
            })
            .await
            .map(drop),
        client.list_containers(pb::ListContainersRequest { node: node(), ..Default::default() }).await.map(drop),
        client.list_host_networks(pb::ListNetworksRequest { node: node(), ..Default::default() }).await.map(drop),
        client.remove_host_network(pb::RemoveNetworkRequest { node: node(), network: "n".to_owned() }).await.map(drop),
    ];
    for (n, answer) in refused.into_iter().enumerate() {
        assert_eq!(answer.map_err(|s| s.code()), Err(Code::PermissionDenied), "question {n}");
    }
}

#[tokio::test]
async fn a_request_is_refused_before_it_is_read() {
    let stage = Stage::set().await;
    let none = connect_joiner(stage.addr, stage.worker_token.ca).await.unwrap();
    let mut authority = CertificateAuthorityClient::new(none.clone());
    let big = |bytes| pb::JoinRequest { secret: "x".repeat(bytes), ..Default::default() };
    assert_eq!(authority.join(big(60 << 10)).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(authority.join(big(65 << 10)).await.unwrap_err().code(), Code::ResourceExhausted);

    // Whoever may not ask is answered although its request never ends.
    let mut client = Grpc::new(none.clone());
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static(Call::HostControlCreateContainer.path());
    let endless = Request::new(tokio_stream::pending::<()>());
    let asked = client.client_streaming(endless, path, ProstCodec::<(), ()>::default());
    let answer = timeout(LIMIT, asked).await.expect("an answer before the request has ended");
    assert_eq!(answer.map(drop).map_err(|s| s.code()), Err(Code::Unauthenticated));

    let worker = stage.join(&stage.worker_token, "w1").await.unwrap();
    let spec = || Some(pb::RunSpec { name: "x".repeat(2 << 20), ..Default::default() });
    let create = || pb::CreateContainerRequest { spec: spec(), ..Default::default() };
    let refused = HostControlClient::new(none).create_container(create()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let too_large = HostControlClient::new(stage.channel(&worker).await).create_container(create()).await.unwrap_err();
    assert_eq!(too_large.code(), Code::ResourceExhausted, "{too_large}");
}

#[tokio::test]
async fn what_was_open_ends_with_the_membership() {
    let stage = Stage::set().await;
    let worker = stage.join(&stage.worker_token, "w1").await.unwrap();
    let node = worker.current().node;
    let mut dispatcher = stage.dispatcher(&worker).await;
    let mut stream = dispatcher.assignments(asking("w1", 0)).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    let open = || stage.connections.peers().iter().filter(|(_, p)| p.identity.is_some_and(|i| i.node == node)).count();
    assert_eq!(open(), 1);
    stage.remove(node).await;
    let begun = Instant::now();
    while open() > 0 {
        assert!(begun.elapsed() < LIMIT, "the connection of a removed node is open");
        sleep(Duration::from_millis(20)).await;
    }
    // It may come again to hear why, and has nothing by it.
    let status = stage.dispatcher(&worker).await.heartbeat(pb::HeartbeatRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
}

/// Such as a container of a host opens with its host's address.
#[tokio::test]
async fn silent_connections_keep_nobody_out() {
    let stage = Stage::set().await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(TcpStream::connect(stage.addr).await.unwrap());
    }
    let begun = Instant::now();
    stage.join(&stage.worker_token, "w1").await.unwrap();
    // The handshakes that were cut off took 10 s each, 256 at a time.
    assert!(begun.elapsed() < Duration::from_secs(5), "a join took {:?}", begun.elapsed());
}

#[tokio::test]
async fn wrong_tokens_are_rationed_by_address_and_right_ones_never() {
    let stage = Stage::set().await;
    let none = connect_joiner(stage.addr, stage.worker_token.ca).await.unwrap();
    let mut authority = CertificateAuthorityClient::new(none);
    let mut codes = Vec::new();
    for n in 0..12 {
        let wrong = pb::JoinRequest { secret: format!("guess {n}"), ..Default::default() };
        codes.push(authority.join(wrong).await.unwrap_err().code());
    }
    assert_eq!(codes[..10], [Code::Unauthenticated; 10]);
    assert_eq!(codes[10..], [Code::ResourceExhausted; 2]);
    assert!(stage.join(&stage.worker_token, "w1").await.is_ok());
}
