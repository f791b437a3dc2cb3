//! Many streams, each in order of time, as one that is.

use futures::{StreamExt, future::join_all, stream, stream::BoxStream};
use shoal_proto::pb::ServiceLogsReply;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

type Lines = BoxStream<'static, ServiceLogsReply>;

/// Where the merge is.
struct Merge {
    streams: Vec<Lines>,
    /// The next of each stream that has one, by the stream's index.
    heads: BTreeMap<usize, ServiceLogsReply>,
    /// Of the heads: time and index, earliest first.
    order: BinaryHeap<Reverse<(u64, usize)>>,
}

/// Lines of the same time come in the order of their streams. A gap has no time, and so comes as soon as it is known.
pub(super) fn in_order_of_time(streams: Vec<Lines>) -> Lines {
    stream::once(Merge::begin(streams))
        .flat_map(|merge| stream::unfold(merge, |mut merge| async move { Some((merge.next().await?, merge)) }))
        .boxed()
}

impl Merge {
    /// Waits for every stream at the same time.
    async fn begin(mut streams: Vec<Lines>) -> Self {
        let first = join_all(streams.iter_mut().map(StreamExt::next)).await;
        let mut merge = Merge { streams, heads: BTreeMap::new(), order: BinaryHeap::new() };
        for (i, line) in first.into_iter().enumerate() {
            merge.put(i, line);
        }
        merge
    }

    fn put(&mut self, i: usize, line: Option<ServiceLogsReply>) {
        if let Some(line) = line {
            self.order.push(Reverse((line.time_ms, i)));
            self.heads.insert(i, line);
        }
    }

    async fn next(&mut self) -> Option<ServiceLogsReply> {
        let Reverse((_, i)) = self.order.pop()?;
        let line = self.heads.remove(&i);
        let next = match self.streams.get_mut(i) {
            Some(stream) => stream.next().await,
            None => None,
        };
        self.put(i, next);
        line
    }
}
