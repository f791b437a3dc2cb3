//! The interface on a real log: one manager, asked as a user asks it.

mod logs;
mod stage;

use futures::StreamExt;
use shoal_common::{NodeId, task::TaskState};
use shoal_proto::pb::{self, control_server::Control as _};
use shoal_rt::{JoinToken, token::CaDigest};
use tonic::{Code, Request, Status};

use self::stage::{Stage, refused};

#[tokio::test]
async fn a_host_that_is_no_manager_says_so() {
    let (_fills, seat) = crate::seat();
    seat.set_known();
    let control = super::Control { seat };
    let answer = control.list_tasks(Request::new(pb::ListTasksRequest::default())).await;
    assert_eq!(answer.unwrap_err().code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn who_asks_a_daemon_that_still_reads_its_log_waits_for_it() {
    for fault in [None, Some("E-LOG-DAMAGED: it cannot be read")] {
        let (_fills, seat) = crate::seat();
        let control = super::Control { seat: seat.clone() };
        let mut answer = control.list_tasks(Request::new(pb::ListTasksRequest::default()));
        assert!(futures::poll!(&mut answer).is_pending(), "it is not known yet what this host is");
        match fault {
            None => seat.set_known(),
            Some(why) => seat.set_fault(Some(crate::Fault { why: why.to_owned(), lasting: true })),
        }
        let refused = answer.await.unwrap_err();
        assert!(refused.message().contains(fault.unwrap_or("this host is not a manager")), "{refused}");
    }
}

#[tokio::test]
async fn a_network_is_made_once_for_one_request_and_goes_when_nobody_uses_it() {
    let stage = Stage::set().await;
    let id = stage.network("blue", "0123456789abcdef0123456789abcdef").await.unwrap();
    assert_eq!(stage.network("blue", "0123456789abcdef0123456789abcdef").await.unwrap(), id, "the first answer again");
    refused(stage.network("blue", "").await, Code::AlreadyExists, "blue is taken");
    refused(stage.network("blue", "12").await, Code::InvalidArgument, "request_id");
    refused(stage.network("No", "").await, Code::InvalidArgument, "name");

    // The same id with something else is something else.
    let web = stage.create("web", "0123456789abcdef0123456789abcdef").await.unwrap();
    let remove = |name: &str| {
        stage
            .control
            .remove_network(Request::new(pb::RemoveNetworkRequest { network: name.to_owned(), node: String::new() }))
    };
    refused(remove("blue").await, Code::FailedPrecondition, "web");
    refused(remove("red").await, Code::NotFound, "there is no network red");
    let task = stage.start(web.id, 1, NodeId(1)).await;
    let request = pb::RemoveServiceRequest { service: format!("svc-{}", web.id), ..Default::default() };
    stage.control.remove_service(Request::new(request)).await.unwrap();
    // Its task still ends: that is waited for.
    let removing = remove("blue");
    tokio::pin!(removing);
    let soon = tokio::time::timeout(std::time::Duration::from_millis(100), &mut removing).await;
    assert!(soon.is_err(), "{soon:?}");
    stage.report(NodeId(1), task, TaskState::Shutdown).await;
    assert_eq!(removing.await.unwrap().into_inner().id, id);
    let listed = stage.control.list_networks(Request::new(pb::ListNetworksRequest::default())).await.unwrap();
    assert_eq!(listed.into_inner().networks, []);
}

#[tokio::test]
async fn a_services_networks_are_resolved_and_an_unknown_one_is_named() {
    let stage = Stage::set().await;
    refused(stage.create("web", "").await, Code::NotFound, "there is no network blue");
    let network = stage.network("blue", "").await.unwrap();
    stage.create("web", "").await.unwrap();
    let listed = |name: &str| {
        stage.control.list_services(Request::new(pb::ListServicesRequest { services: vec![name.to_owned()] }))
    };
    let web = listed("web").await.unwrap().into_inner().services.remove(0);
    assert_eq!((web.vips[0].network, web.vips[0].network_name.as_str()), (network, "blue"));
    assert_eq!(web.spec.unwrap().networks[0].network, format!("net-{network}"));
    refused(listed("api").await, Code::NotFound, "there is no service api");
}

#[tokio::test]
async fn an_update_is_made_on_the_version_that_it_names_or_on_whichever_is_current() {
    let stage = Stage::set().await;
    stage.network("blue", "").await.unwrap();
    let created = stage.create("web", "").await.unwrap();
    let update = async |version, replicas, request_id: &str| {
        let mut spec = stage::spec("web");
        spec.mode = Some(pb::service_spec::Mode::Replicas(replicas));
        let request = pb::UpdateServiceRequest {
            service: "web".into(),
            version,
            spec: Some(spec),
            request_id: request_id.to_owned(),
        };
        stage.control.update_service(Request::new(request)).await.map(|r| r.into_inner().version)
    };
    let second = update(created.version, 2, "").await.unwrap();
    assert!(second > created.version);
    refused(update(created.version, 3, "").await, Code::Aborted, "changed meanwhile");
    let third = update(0, 4, "000000000000000000000000000000aa").await.unwrap();
    assert!(third > second);
    assert_eq!(update(0, 4, "000000000000000000000000000000aa").await.unwrap(), third, "the first answer again");
}

#[tokio::test]
async fn updates_that_name_no_version_all_succeed_at_the_same_time() {
    let stage = Stage::set().await;
    stage.network("blue", "").await.unwrap();
    stage.create("web", "").await.unwrap();
    let request =
        || pb::UpdateServiceRequest { service: "web".into(), spec: Some(stage::spec("web")), ..Default::default() };
    let both = futures::future::join(
        stage.control.update_service(Request::new(request())),
        stage.control.update_service(Request::new(request())),
    );
    let (one, other) = both.await;
    assert_ne!(one.unwrap().into_inner().version, other.unwrap().into_inner().version);
}

#[tokio::test]
async fn a_watch_tells_each_change_of_its_service_and_nothing_else_until_it_is_removed() {
    let stage = Stage::set().await;
    stage.network("blue", "").await.unwrap();
    let web = stage.create("web", "").await.unwrap();
    let request = pb::WatchServiceRequest { service: "web".into() };
    let mut watch = stage.control.watch_service(Request::new(request)).await.unwrap().into_inner();

    let first = watch.next().await.unwrap().unwrap();
    assert_eq!((first.service.unwrap().id, first.tasks.len()), (web.id, 0));
    stage.network("red", "").await.unwrap();
    let task = stage.start(web.id, 1, NodeId(1)).await;
    let next = watch.next().await.unwrap().unwrap();
    assert_eq!(next.tasks.iter().map(|t| t.id).collect::<Vec<_>>(), [task.0], "red is not of interest");

    stage.report(NodeId(1), task, TaskState::Failed).await;
    // Changes that came between two looks are told as one.
    let mut last = next;
    while last.tasks[0].status.as_ref().unwrap().state() != pb::TaskState::Failed {
        last = watch.next().await.unwrap().unwrap();
    }
    let request = pb::RemoveServiceRequest { service: "web".into(), ..Default::default() };
    stage.control.remove_service(Request::new(request)).await.unwrap();
    let gone = watch.next().await.unwrap().unwrap();
    assert_eq!(gone.service, None);
    assert!(watch.next().await.is_none());

    let request = pb::WatchServiceRequest { service: "web".into() };
    let unknown = stage.control.watch_service(Request::new(request)).await.map(|_| ());
    refused(unknown, Code::NotFound, "there is no service web");
}

#[tokio::test]
async fn a_join_token_is_for_one_role_and_worth_nothing_once_it_was_rotated() {
    let stage = Stage::set().await;
    let token = async |role: pb::Role, rotate| {
        let request = pb::GetJoinTokenRequest { role: role.into(), rotate };
        stage.control.get_join_token(Request::new(request)).await.map(|r| r.into_inner())
    };
    let worker = token(pb::Role::Worker, false).await.unwrap();
    let manager = token(pb::Role::Manager, false).await.unwrap();
    let read: JoinToken = worker.token.parse().unwrap();
    assert_eq!(read.ca, CaDigest::of(&stage.manager.credentials.current().ca));
    assert_eq!(worker.manager_addr, stage.addr.to_string());
    assert_ne!(worker.token, manager.token);

    let rotated = token(pb::Role::Worker, true).await.unwrap();
    assert_ne!(rotated.token, worker.token);
    assert_eq!(token(pb::Role::Worker, false).await.unwrap(), rotated);
    assert_eq!(token(pb::Role::Manager, false).await.unwrap(), manager, "the other role's stays");
    refused(token(pb::Role::Unspecified, false).await, Code::InvalidArgument, "role");

    let cluster = stage.control.get_cluster(Request::new(pb::GetClusterRequest {})).await.unwrap().into_inner();
    assert_eq!((cluster.this_node, cluster.leader, cluster.voters), (1, 1, vec![1]));
    assert_eq!(cluster.ca_sha256, data_encoding::HEXLOWER.encode(&read.ca.0));
}

#[tokio::test]
async fn nodes_are_found_by_id_or_by_a_host_name_that_only_one_bears() {
    let stage = Stage::set().await;
    let (second, third) = (stage.worker("w", stage.addr).await, stage.worker("w", stage.addr).await);
    let listed = async |names: &[&str]| {
        let nodes = names.iter().map(|s| (*s).to_owned()).collect();
        let reply = stage.control.list_nodes(Request::new(pb::ListNodesRequest { nodes })).await?;
        Ok::<_, Status>(reply.into_inner().nodes.iter().map(|n| (n.id, n.raft.clone())).collect::<Vec<_>>())
    };
    let leader = (1, "leader".to_owned());
    let worker = |id: NodeId| (id.0, String::new());
    assert_eq!(listed(&[]).await.unwrap(), [leader.clone(), worker(second), worker(third)]);
    assert_eq!(listed(&["node-3", "m1"]).await.unwrap(), [worker(third), leader]);
    refused(listed(&["w"]).await, Code::InvalidArgument, "node-2, node-3");
    refused(listed(&["x"]).await, Code::NotFound, "there is no node x");

    let update = |node: &str, role: pb::Role| {
        stage.control.update_node(Request::new(pb::UpdateNodeRequest {
            node: node.to_owned(),
            role: role.into(),
            ..Default::default()
        }))
    };
    refused(update("m1", pb::Role::Worker).await, Code::FailedPrecondition, "last manager");
    update("node-2", pb::Role::Manager).await.unwrap();
    let remove = |node: &str| {
        stage.control.remove_node(Request::new(pb::RemoveNodeRequest { node: node.to_owned(), ..Default::default() }))
    };
    refused(remove("node-2").await, Code::FailedPrecondition, "demote");
    refused(remove("node-3").await, Code::FailedPrecondition, "ready");
}

#[tokio::test]
async fn tasks_are_listed_of_a_service_or_of_a_node_but_not_of_both() {
    let stage = Stage::set().await;
    stage.network("blue", "").await.unwrap();
    let web = stage.create("web", "").await.unwrap();
    let task = stage.start(web.id, 1, NodeId(1)).await;
    let listed = async |service: &str, node: &str| {
        let request = pb::ListTasksRequest { service: service.to_owned(), node: node.to_owned() };
        let reply = stage.control.list_tasks(Request::new(request)).await?;
        Ok::<_, Status>(reply.into_inner().tasks.iter().map(|t| t.id).collect::<Vec<_>>())
    };
    for (service, node) in [("", ""), ("web", ""), ("", "m1")] {
        assert_eq!(listed(service, node).await.unwrap(), [task.0], "{service:?} {node:?}");
    }
    refused(listed("web", "m1").await, Code::InvalidArgument, "node");
    refused(listed("api", "").await, Code::NotFound, "service api");
}
