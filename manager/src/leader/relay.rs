//! A follower tells the leader whom it has heard.

use shoal_common::NodeId;
use shoal_proto::pb::{RelayHeartbeatsRequest, dispatcher_client::DispatcherClient};
use shoal_rt::Expect;
use std::{collections::BTreeSet, net::SocketAddr};
use tokio::time::{Duration, sleep, timeout};
use tonic::transport::Channel;

use crate::{Heard, Manager};

/// Heartbeats that come within this time travel together; far below the node timeout.
const WINDOW: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) async fn run(manager: Manager, heard: Heard) {
    let mut line: Option<(NodeId, SocketAddr, Channel)> = None;
    loop {
        let nodes = heard.next().await;
        match timeout(PATIENCE, relay(&manager, &mut line, &nodes)).await {
            Ok(Ok(())) => heard.delivered(&nodes),
            Ok(Err(why)) => {
                tracing::debug!(why, "heartbeats do not reach the leader");
                line = None;
            }
            Err(_) => line = None,
        }
        sleep(WINDOW).await;
    }
}

async fn relay(
    manager: &Manager,
    line: &mut Option<(NodeId, SocketAddr, Channel)>,
    nodes: &BTreeSet<NodeId>,
) -> Result<(), String> {
    let leader = manager.consensus.leadership().borrow().leader.ok_or("there is no leader")?;
    let addr = manager.consensus.state().borrow().nodes.get(&leader).map(|n| n.description.control_addr);
    let addr = addr.ok_or("the leader is not known as a node")?;
    let channel = match line {
        Some((to, at, channel)) if (*to, *at) == (leader, addr) => channel.clone(),
        _ => {
            let channel = shoal_rt::connect(addr, Expect::Node(leader), &manager.credentials)
                .await
                .map_err(|e| shoal_rt::connect::root_cause(&e))?;
            *line = Some((leader, addr, channel.clone()));
            channel
        }
    };
    let request = RelayHeartbeatsRequest { nodes: nodes.iter().map(|n| n.0).collect() };
    DispatcherClient::new(channel).relay_heartbeats(request).await.map_err(|s| s.message().to_owned())?;
    Ok(())
}
