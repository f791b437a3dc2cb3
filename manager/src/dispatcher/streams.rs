//! One stream of assignments for each node: each holds what was sent last, and is woken by every entry of the log.

use shoal_common::NodeId;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;
use tonic::Status;

/// By node, the stream that counts: its number, and the address that opened it.
type Newest = Arc<Mutex<BTreeMap<NodeId, (u64, watch::Sender<Option<SocketAddr>>)>>>;

#[derive(Debug, Default)]
pub(super) struct Streams {
    newest: Newest,
    last: Mutex<u64>,
}

/// A stream, until this is dropped.
#[derive(Debug)]
pub(super) struct Stream {
    node: NodeId,
    number: u64,
    from: SocketAddr,
    replaced: watch::Receiver<Option<SocketAddr>>,
    newest: Newest,
}

impl Streams {
    /// The newest wins: a host that lost its connection opens another before its managers notice.
    pub(super) fn open(&self, node: NodeId, from: SocketAddr) -> Stream {
        let number = {
            let mut last = lock(&self.last);
            *last += 1;
            *last
        };
        let (tx, replaced) = watch::channel(None);
        if let Some((_, before)) = lock(&self.newest).insert(node, (number, tx)) {
            before.send_replace(Some(from));
        }
        Stream { node, number, from, replaced, newest: Arc::clone(&self.newest) }
    }
}

impl Stream {
    /// Resolves when another stream of this node was opened, with what to tell the agent at the end of this one. Two
    /// hosts with one identity, as copies of a virtual machine have, take the stream from each other; this names both.
    pub(super) async fn replaced(&mut self) -> Status {
        let by = match self.replaced.wait_for(Option::is_some).await {
            Ok(by) => *by,
            Err(_) => None,
        };
        let by = by.map_or_else(|| "another address".to_owned(), |by| by.to_string());
        let (node, from) = (self.node, self.from);
        if by.parse().is_ok_and(|by: SocketAddr| by.ip() != from.ip()) {
            tracing::warn!(%node, %from, by, "a node connects from another address while it is connected: was its host copied?");
        }
        Status::aborted(format!(
            "{node} has connected from {by}, which takes the place of the connection from {from}: if these are two hosts, one \
             is a copy of the other and must leave with 'shoal leave --force'"
        ))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut newest = lock(&self.newest);
        if newest.get(&self.node).is_some_and(|(number, _)| *number == self.number) {
            newest.remove(&self.node);
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test]
    async fn the_newest_stream_of_a_node_is_the_only_one() {
        let streams = Streams::default();
        let at = |last: u8| SocketAddr::from(([192, 0, 2, last], 1));
        let mut first = streams.open(NodeId(1), at(1));
        let mut other = streams.open(NodeId(2), at(2));
        assert!(first.replaced().now_or_never().is_none());
        let second = streams.open(NodeId(1), at(3));
        let told = first.replaced().await;
        assert!(told.message().contains("192.0.2.1:1") && told.message().contains("192.0.2.3:1"), "{told}");
        assert!(other.replaced().now_or_never().is_none());
        // Its end does not take the newer one along.
        drop(first);
        assert_eq!(lock(&streams.newest).len(), 2);
        drop((second, other));
        assert!(lock(&streams.newest).is_empty());
    }
}
