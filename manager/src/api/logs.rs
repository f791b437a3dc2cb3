//! What a service's containers wrote, from every host that runs or ran one.

mod ask;
mod follow;
mod merge;
mod subject;

use futures::{StreamExt, future::ready, stream::BoxStream};
use shoal_proto::pb;
use std::collections::{BTreeMap, BTreeSet};
use tonic::Status;

use self::{ask::Hosts, subject::Subject};
use super::status::Refusal;
use crate::Manager;

pub(super) type Lines = BoxStream<'static, Result<pb::ServiceLogsReply, Status>>;

/// Tasks whose logs one call reads from the start. Each is a stream that holds up to 2 MiB while others are read.
const MAX_MERGED: usize = 256;
/// Tasks that one call follows at the same time. Those of one host share a connection and its 5 MiB.
const MAX_FOLLOWED: usize = 2000;

pub(super) async fn service(manager: &Manager, asked: pb::ServiceLogsRequest) -> Result<Lines, Refusal> {
    let state = manager.consensus.read().await?;
    let subject = Subject::find(&state, &asked.service)?;
    let sources = subject.sources(&state);
    let most = if asked.follow { MAX_FOLLOWED } else { MAX_MERGED };
    if sources.len() > most {
        return Err(Refusal::TooMuch(format!(
            "{} has {} tasks with logs, and {most} are read at once; name one task, such as {}",
            asked.service,
            sources.len(),
            sources.first().map_or("", |s| s.name.as_str()),
        )));
    }
    let hosts = Hosts::new(manager.credentials.clone(), &asked);
    let lines = if asked.follow {
        follow::follow(subject, hosts, manager.consensus.state())
    } else {
        let mut hosts = hosts;
        merge::in_order_of_time(sources.into_iter().map(|s| hosts.lines(s, None)).collect())
    };
    Ok(each_gap_once(lines).map(Ok).boxed())
}

/// A host that cannot be asked is told once, not for each of its tasks, nor for each new try; and again if it was
/// heard in between.
fn each_gap_once(lines: BoxStream<'static, pb::ServiceLogsReply>) -> BoxStream<'static, pb::ServiceLogsReply> {
    let mut told: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let news = move |line: pb::ServiceLogsReply| {
        let news = if line.gap.is_empty() {
            told.remove(&line.node);
            true
        } else {
            told.entry(line.node.clone()).or_default().insert(line.gap.clone())
        };
        ready(news.then_some(line))
    };
    lines.filter_map(news).boxed()
}
