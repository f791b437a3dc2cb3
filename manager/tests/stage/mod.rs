//! A manager on loopback, served as a daemon serves it.

use shoal_common::{
    Mtu,
    node::{Availability, NodeDescription},
    service::Amount,
};
use shoal_manager::{
    Heard, Manager, access, api, authority,
    bootstrap::{self, Founding},
    ca, dispatcher, leader,
};
use shoal_proto::pb::{
    self, certificate_authority_client::CertificateAuthorityClient, dispatcher_client::DispatcherClient,
};
use shoal_rt::{
    Connections, Credentials, Expect, Fatal, Identity, Incoming, JoinToken, Tasks, clock, connect::connect_joiner,
    incoming,
};
use shoal_state::{Command, Proposal, Rejection, Reply, RequestId, State};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::DropGuard;
use tonic::Status;

pub(crate) struct Stage {
    pub(crate) manager: Manager,
    pub(crate) addr: SocketAddr,
    pub(crate) worker_token: JoinToken,
    pub(crate) manager_token: JoinToken,
    pub(crate) connections: Connections,
    _seat: watch::Sender<Option<Manager>>,
    _stops: DropGuard,
    _dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let founding = Founding {
            incarnation: bootstrap::new_incarnation(),
            description: description("m1", addr),
            address_pools: vec!["10.0.0.0/16".parse().unwrap()],
            subnet_prefix_len: 24,
            data_path_port: 4789,
            availability: Availability::Active,
        };
        let founded = bootstrap::found(dir.path(), founding).await.unwrap();
        let (seat, seats) = shoal_manager::seat();
        let tasks = Tasks::new(Fatal::default());
        let shutdown = tasks.shutdown();
        let heard = Heard::default();
        seat.send_replace(Some(founded.manager.clone()));
        let incoming = Incoming::new(listener, founded.manager.credentials.clone(), shutdown.clone());
        let connections = incoming.connections();
        let known = access::Known::new(seats.clone(), Arc::new(|_| false));
        tokio::spawn(access::close_departed(known.clone(), connections.clone()));
        let server = incoming::server()
            .layer(access::Guard::new(known))
            .add_service(seats.raft_service())
            .add_service(authority::service(seats.clone()))
            .add_service(api::for_hosts(seats.clone()))
            .add_service(dispatcher::service(seats, heard.clone(), &tasks))
            .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
        tokio::spawn(server);
        tasks.forever("leader", leader::run(founded.manager.clone(), heard, tasks.clone()));
        Self {
            manager: founded.manager,
            addr,
            connections,
            worker_token: founded.worker_token,
            manager_token: founded.manager_token,
            _seat: seat,
            _stops: shutdown.drop_guard(),
            _dir: dir,
        }
    }

    /// Joins as a host would.
    pub(crate) async fn join(&self, token: &JoinToken, name: &str) -> Result<Credentials, Status> {
        let (key, signing_request_der) = ca::signing_request().unwrap();
        self.join_with(token, name, key, signing_request_der).await
    }

    pub(crate) async fn join_with(
        &self,
        token: &JoinToken,
        name: &str,
        key: Vec<u8>,
        signing_request_der: Vec<u8>,
    ) -> Result<Credentials, Status> {
        if token.secret != self.manager_token.secret {
            return self.join_from(token, name, address(name), key, signing_request_der).await;
        }
        // As a host that joins as a manager, which listens before it asks.
        let [.., last] = match address(name).ip() {
            std::net::IpAddr::V4(ip) => ip.octets(),
            std::net::IpAddr::V6(_) => unreachable!("its addresses are IPv4"),
        };
        let listening = TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 2, last), 0)).await.unwrap();
        self.join_from(token, name, listening.local_addr().unwrap(), key, signing_request_der).await
    }

    pub(crate) async fn join_from(
        &self,
        token: &JoinToken,
        name: &str,
        control_addr: SocketAddr,
        key: Vec<u8>,
        signing_request_der: Vec<u8>,
    ) -> Result<Credentials, Status> {
        let channel = connect_joiner(self.addr, token.ca).await.unwrap();
        let request = pb::JoinRequest {
            secret: token.secret.clone(),
            signing_request_der,
            description: Some(description(name, control_addr).into()),
            availability: pb::Availability::Unspecified.into(),
        };
        let certificate = CertificateAuthorityClient::new(channel).join(request).await?.into_inner();
        let identity = Identity::new(key, certificate.certificate_der, certificate.ca_der).unwrap();
        assert_eq!(identity.node.0, certificate.node);
        Ok(Credentials::new(identity))
    }

    pub(crate) async fn propose(&self, command: Command) -> Result<Reply, Rejection> {
        let proposal = Proposal { at: clock::now(), request: Some(RequestId(rand::random())), command };
        self.manager.consensus.propose(proposal).await.unwrap().1
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&State) -> bool) -> Arc<State> {
        let mut states = self.manager.consensus.state();
        let found = tokio::time::timeout(Duration::from_secs(20), states.wait_for(|s| holds(s))).await;
        found.unwrap_or_else(|_| panic!("not in time: {what}")).unwrap().clone()
    }

    pub(crate) async fn dispatcher(&self, credentials: &Credentials) -> DispatcherClient<tonic::transport::Channel> {
        DispatcherClient::new(shoal_rt::connect(self.addr, Expect::AnyManager, credentials).await.unwrap())
    }
}

/// Each host has its own.
fn address(name: &str) -> SocketAddr {
    let sum: u32 = name.bytes().map(u32::from).sum();
    ([192, 0, 2, u8::try_from(10 + sum % 200).unwrap()], 2377).into()
}

pub(crate) fn description(name: &str, control_addr: SocketAddr) -> NodeDescription {
    NodeDescription {
        hostname: name.to_owned(),
        control_addr,
        vtep: control_addr.ip(),
        underlay_mtu: Mtu::ETHERNET,
        underlay: vec!["192.0.2.0/24".parse().unwrap()],
        capacity: Amount { nano_cpus: 2_000_000_000, memory_bytes: 1 << 30 },
        os: "linux".to_owned(),
        arch: "x86_64".to_owned(),
        version: "0.1.0".to_owned(),
        level: shoal_common::Level::KNOWN,
        addresses: vec![],
        default_bridge: None,
    }
}

pub(crate) fn asking(name: &str, have_generation: u64) -> pb::AssignmentsRequest {
    let description = Some(description(name, address(name)).into());
    pb::AssignmentsRequest { description, have_generation }
}
