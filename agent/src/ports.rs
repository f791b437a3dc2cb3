//! The daemon's side of the published ports: which are to be listened at, and which of them others of the host have.

use shoal_common::TaskId;
use shoal_plan::{Holder, Listener, Listeners};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use tokio::sync::watch;

use crate::{chain, resolver::Client};

#[derive(Debug)]
pub(crate) struct Ports {
    resolver: Client,
    wanted: Listeners,
    closed: BTreeMap<Listener, String>,
    /// What was asked for last, of how many processes' successor.
    asked: Option<(BTreeMap<Listener, Vec<SocketAddr>>, u64)>,
}

impl Ports {
    pub(crate) fn new(resolver: Client) -> Self {
        Self { resolver, wanted: Listeners::default(), closed: BTreeMap::new(), asked: None }
    }

    /// Changes when nobody listens any more.
    pub(crate) fn lost(&self) -> watch::Receiver<u64> {
        self.resolver.ended()
    }

    pub(crate) fn want(&mut self, listeners: Listeners) {
        self.wanted = listeners;
    }

    /// Sees to it that what is wanted is listened at, if there is news, and `again`, if some of it could not be before.
    /// Gives what cannot be.
    pub(crate) async fn hold(&mut self, again: bool) -> BTreeSet<Listener> {
        let ports = self.wanted.iter().map(|(listener, behind)| (*listener, behind.to.clone())).collect();
        let ask = (ports, *self.resolver.ended().borrow());
        // An earlier daemon's process may hold some that nobody wants any more.
        let known = self.asked.as_ref() == Some(&ask) && (!again || self.closed.is_empty());
        if !known {
            match self.resolver.hold(ask.0.clone()).await {
                Ok(closed) => {
                    for (listener, why) in closed.iter().filter(|(listener, _)| !self.closed.contains_key(listener)) {
                        tracing::warn!(%listener, "a published port leads nowhere on this host: {why}");
                    }
                    self.closed = closed;
                    self.asked = Some(ask);
                }
                Err(error) => tracing::warn!(error = chain(&error), "published ports are not listened at"),
            }
        }
        self.closed.keys().copied().collect()
    }

    /// Whose ports cannot be had, and why.
    pub(crate) fn closed(&self) -> BTreeMap<TaskId, String> {
        let closed = self.closed.iter().filter_map(|(listener, why)| match self.wanted.get(listener)?.holder {
            Holder::Container(id) => Some((id, why.clone())),
            Holder::Service(_) => None,
        });
        closed.collect()
    }
}
