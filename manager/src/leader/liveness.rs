//! Which nodes are alive.

use futures::future::{Fuse, FusedFuture as _, FutureExt as _};
use shoal_common::Timestamp;
use shoal_control::{Liveness, liveness::TIMEOUT};
use shoal_state::{Command, State};
use std::{pin::pin, sync::Arc};
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep_until},
};

use super::{propose, retry};
use crate::{Heard, Manager};

pub(super) async fn run(manager: Manager, heard: Heard) {
    let states = manager.consensus.state();
    watch(states, &heard, |command| propose(&manager, command)).await;
}

/// Heartbeats are drained also while a proposal waits: on a leader with a slow disk they would be refused otherwise,
/// and the agents would leave it.
async fn watch<P: Future<Output = bool>>(
    mut states: watch::Receiver<Arc<State>>,
    heard: &Heard,
    propose: impl Fn(Command) -> P,
) {
    // A clock that never jumps.
    let origin = Instant::now();
    let now = || Timestamp(u64::try_from(origin.elapsed().as_millis()).unwrap_or(u64::MAX));
    let mut liveness = Liveness::new(now(), TIMEOUT);
    let mut backoff = retry();
    let mut wake_at = origin;
    let mut rest_until = origin;
    let mut proposing = pin!(Fuse::terminated());
    loop {
        tokio::select! {
            // What was heard counts before silence does.
            biased;
            nodes = heard.next() => {
                for node in &nodes {
                    liveness.heard(*node, now());
                }
                heard.delivered(&nodes);
            }
            done = &mut proposing, if !proposing.is_terminated() => {
                if done {
                    backoff.reset();
                } else {
                    rest_until = Instant::now() + backoff.delay();
                }
            }
            // A node that is new is given its time from now on.
            changed = states.changed() => if changed.is_err() { return },
            () = sleep_until(wake_at) => {}
        }
        let state = states.borrow_and_update().clone();
        let verdicts = liveness.verdicts(&state, now());
        wake_at = origin + Duration::from_millis(liveness.wake_at(now()).0);
        if verdicts.is_empty() || !proposing.is_terminated() {
            continue;
        }
        if Instant::now() < rest_until {
            wake_at = wake_at.min(rest_until);
            continue;
        }
        for (node, verdict) in &verdicts {
            tracing::info!(%node, %verdict, "a node's liveness changes");
        }
        proposing.set(propose(Command::SetLiveness { nodes: verdicts }).fuse());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{LogIndex, Mtu, NodeId, node::NodeDescription, service::Amount};
    use shoal_state::{ClusterSettings, Proposal};
    use std::sync::Mutex;

    fn state() -> State {
        let settings = ClusterSettings {
            id: "c1".to_owned(),
            ca_certificate_pem: String::new(),
            ca_key_pem: String::new(),
            worker_join_secret: "w".to_owned(),
            manager_join_secret: "m".to_owned(),
            address_pools: vec!["10.0.0.0/16".parse().unwrap()],
            subnet_prefix_len: 24,
            ula_prefix: "fd00::/48".parse().unwrap(),
            data_path_port: 4789,
        };
        let node = NodeDescription {
            hostname: "m1".to_owned(),
            control_addr: "192.0.2.1:2377".parse().unwrap(),
            vtep: "192.0.2.1".parse().unwrap(),
            underlay_mtu: Mtu::ETHERNET,
            underlay: vec!["192.0.2.0/24".parse().unwrap()],
            capacity: Amount { nano_cpus: 1, memory_bytes: 1 },
            os: "linux".to_owned(),
            arch: "x86_64".to_owned(),
            version: "0.1.0".to_owned(),
            level: Default::default(),
            addresses: vec![],
            default_bridge: None,
        };
        let mut state = State::default();
        let command = Command::InitCluster { cluster: Box::new(settings), node };
        state.apply(LogIndex(1), &Proposal { at: Timestamp(1), request: None, command }).unwrap();
        state
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_are_taken_while_a_proposal_waits_for_a_slow_disk() {
        let (heard, node) = (Heard::default(), NodeId(1));
        let (_states, seen) = watch::channel(Arc::new(state()));
        let proposed = Mutex::new(0);
        let proposals = |_| {
            *proposed.lock().unwrap() += 1;
            std::future::pending()
        };
        let agent = async {
            for second in 0..30 {
                assert!(heard.tell(node), "refused after {second} s");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = watch(seen, &heard, proposals) => panic!("it ended"),
            () = agent => {}
        }
        // It proposed that the node is ready, and waits for that.
        assert_eq!(*proposed.lock().unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_refused_is_proposed_again() {
        let (heard, node) = (Heard::default(), NodeId(1));
        let (_states, seen) = watch::channel(Arc::new(state()));
        let proposed = Mutex::new(0);
        let proposals = |_| {
            *proposed.lock().unwrap() += 1;
            std::future::ready(false)
        };
        assert!(heard.tell(node));
        let watching = tokio::time::timeout(Duration::from_secs(2), watch(seen, &heard, proposals));
        assert!(watching.await.is_err());
        assert!(*proposed.lock().unwrap() > 3);
    }
}
