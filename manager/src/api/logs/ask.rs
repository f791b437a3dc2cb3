//! Asking the hosts.

use futures::{
    FutureExt, StreamExt,
    future::{BoxFuture, Shared},
    stream,
    stream::BoxStream,
};
use shoal_common::NodeId;
use shoal_proto::pb::{self, node_logs_client::NodeLogsClient};
use shoal_rt::{Credentials, Expect, connect, connect::root_cause};
use std::{collections::BTreeMap, net::SocketAddr, time::Duration};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::subject::Source;

/// How long a host that is connected may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A merge reads from one stream and leaves the others waiting, full. Their windows (hyper: 2 MiB a stream) must not
/// use up the connection's (5 MiB), or the one that is read from would starve. Nothing that is followed waits.
const MERGED_PER_CONNECTION: usize = 2;

/// A connection that is made when it is first needed, and shared.
type Connecting = Shared<BoxFuture<'static, Result<Channel, String>>>;

/// The hosts that have logs, and what is asked of each.
pub(super) struct Hosts {
    credentials: Credentials,
    follow: bool,
    tail: Option<u32>,
    since_ms: u64,
    /// The newest connection to each, and how many streams it bears.
    connections: BTreeMap<NodeId, (usize, Connecting)>,
}

impl Hosts {
    pub(super) fn new(credentials: Credentials, asked: &pb::ServiceLogsRequest) -> Self {
        Self {
            credentials,
            follow: asked.follow,
            tail: asked.tail,
            since_ms: asked.since_ms,
            connections: BTreeMap::new(),
        }
    }

    /// What the task wrote (after `heard`, if some of it was heard before), oldest first. The host is asked when the stream is first polled; if it cannot be asked,
    /// or is lost on the way, that is the last thing said.
    pub(super) fn lines(&mut self, source: Source, heard: Option<u64>) -> BoxStream<'static, pb::ServiceLogsReply> {
        let Some(addr) = source.addr else {
            let gap = gap(&source, "it has left the cluster".to_owned());
            return stream::iter([gap]).boxed();
        };
        let connecting = self.connection(source.node, addr);
        let request = pb::TaskLogsRequest {
            task: source.task.0,
            follow: self.follow,
            tail: self.tail,
            since_ms: heard.map_or(self.since_ms, |at| at.saturating_add(1)),
        };
        let lines = async move {
            match open(connecting, request).await {
                Ok(Some(lines)) => lines.map(move |line| reply(&source, line)).boxed(),
                Ok(None) => stream::empty().boxed(),
                Err(why) => stream::iter([gap(&source, why)]).boxed(),
            }
        };
        lines.flatten_stream().boxed()
    }

    /// From now on all lines are asked for, not the last few.
    pub(super) fn without_tail(&mut self) {
        self.tail = None;
    }

    fn connection(&mut self, node: NodeId, addr: SocketAddr) -> Connecting {
        if let Some((streams, connecting)) = self.connections.get_mut(&node)
            && (self.follow || *streams < MERGED_PER_CONNECTION)
            && !matches!(connecting.peek(), Some(Err(_)))
        {
            *streams += 1;
            return connecting.clone();
        }
        let credentials = self.credentials.clone();
        let connecting = async move {
            connect(addr, Expect::Node(node), &credentials)
                .await
                .map_err(|e| format!("cannot reach {addr}: {}", root_cause(&e)))
        };
        let connecting = connecting.boxed().shared();
        self.connections.insert(node, (1, connecting.clone()));
        connecting
    }
}

/// `None`: the host has no container of the task (any more), so there is nothing to read.
async fn open(
    connecting: Connecting,
    request: pb::TaskLogsRequest,
) -> Result<Option<Streaming<pb::TaskLogsReply>>, String> {
    let mut client = NodeLogsClient::new(connecting.await?);
    match tokio::time::timeout(ANSWER_TIMEOUT, client.task_logs(request)).await {
        Ok(Ok(lines)) => Ok(Some(lines.into_inner())),
        Ok(Err(status)) if status.code() == Code::NotFound => Ok(None),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("it has not answered within {ANSWER_TIMEOUT:?}")),
    }
}

fn reply(source: &Source, line: Result<pb::TaskLogsReply, Status>) -> pb::ServiceLogsReply {
    match line {
        Ok(line) => pb::ServiceLogsReply {
            task: source.name.clone(),
            node: source.host_name.clone(),
            time_ms: line.time_ms,
            stderr: line.stderr,
            line: line.line,
            gap: String::new(),
        },
        Err(status) => gap(source, format!("it was lost while being read: {}", status.message())),
    }
}

fn gap(source: &Source, why: String) -> pb::ServiceLogsReply {
    pb::ServiceLogsReply { task: source.name.clone(), node: source.host_name.clone(), gap: why, ..Default::default() }
}
