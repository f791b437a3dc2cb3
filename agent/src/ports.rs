//! The daemon's side of the published ports: which are to be listened at, and which of them cannot be.
//!
//! The resolver is asked beside the reconciler, which reads what came of it: a resolver that does not answer holds up
//! what is published, and nothing else.

use shoal_common::{ServiceId, TaskId};
use shoal_plan::{Holder, Listener, Listeners};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use tokio::{sync::watch, time::sleep};

use crate::{chain, resolver::Client};

/// Before the resolver is asked again for the same ports: somebody else may have ended who had one.
const TRY_AGAIN: Duration = Duration::from_secs(10);
/// After a question that it could not be asked.
const ASK_AGAIN: Duration = Duration::from_millis(500);

type Wanted = BTreeMap<Listener, Vec<SocketAddr>>;

/// What became of the ports that were asked for last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Nobody has been asked in this daemon's life: what an earlier one had is still listened at.
    pub(crate) unasked: bool,
    /// Listened at, or it does no harm that they are not.
    open: BTreeSet<Listener>,
    /// Those that others of this host have, and why each cannot be had.
    closed: BTreeMap<Listener, String>,
}

impl Held {
    fn is_pending(&self, listener: &Listener) -> bool {
        !self.open.contains(listener) && !self.closed.contains_key(listener)
    }

    /// Nothing may lead there: others have it, or nobody knows yet. What an earlier daemon led to stays until something
    /// is known: its connections would be cut.
    fn is_shut(&self, listener: &Listener) -> bool {
        self.closed.contains_key(listener) || (self.is_pending(listener) && !self.unasked)
    }
}

/// For the reconciler.
#[derive(Debug)]
pub(crate) struct Ports {
    resolver: Client,
    wanted: watch::Sender<Wanted>,
    /// Whose they are.
    holders: BTreeMap<Listener, Holder>,
    held: watch::Sender<Held>,
}

/// Asks the resolver.
#[derive(Debug)]
pub(crate) struct Asker {
    resolver: Client,
    wanted: watch::Receiver<Wanted>,
    held: watch::Sender<Held>,
}

impl Ports {
    pub(crate) fn new(resolver: Client) -> Self {
        let held = watch::Sender::new(Held { unasked: true, ..Held::default() });
        Self { resolver, wanted: watch::Sender::default(), holders: BTreeMap::new(), held }
    }

    /// To be run beside this.
    pub(crate) fn asker(&self) -> Asker {
        Asker { resolver: self.resolver.clone(), wanted: self.wanted.subscribe(), held: self.held.clone() }
    }

    /// Changes when more or fewer ports are listened at.
    pub(crate) fn changes(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    pub(crate) fn want(&mut self, listeners: &Listeners) {
        self.holders = listeners.iter().map(|(listener, behind)| (*listener, behind.holder)).collect();
        let wanted: Wanted = listeners.iter().map(|(listener, behind)| (*listener, behind.to.clone())).collect();
        self.wanted.send_if_modified(|before| {
            let news = *before != wanted;
            *before = wanted;
            news
        });
    }

    /// Ports that nothing may lead to.
    pub(crate) fn shut(&self) -> BTreeSet<Listener> {
        let held = self.held.borrow();
        self.holders.keys().filter(|listener| held.is_shut(listener)).copied().collect()
    }

    /// Whose ports cannot be had, and why.
    pub(crate) fn closed(&self) -> BTreeMap<TaskId, String> {
        let held = self.held.borrow();
        let closed = held.closed.iter().filter_map(|(listener, why)| match self.holders.get(listener)? {
            Holder::Container(id) => Some((*id, why.clone())),
            Holder::Service(_) => None,
        });
        closed.collect()
    }

    /// Whose ports the resolver has not answered for yet.
    pub(crate) fn pending(&self) -> Pending {
        let held = self.held.borrow();
        let mut pending = Pending::default();
        for (_, holder) in self.holders.iter().filter(|(listener, _)| held.is_pending(listener)) {
            match holder {
                Holder::Container(id) => drop(pending.containers.insert(*id)),
                Holder::Service(id) => drop(pending.services.insert(*id)),
            }
        }
        pending
    }
}

/// Those who wait for one of their ports.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) containers: BTreeSet<TaskId>,
    pub(crate) services: BTreeSet<ServiceId>,
}

impl Asker {
    /// Never ends by itself.
    pub(crate) async fn run(mut self) {
        let mut ended = self.resolver.ended();
        loop {
            let (wanted, number) = (self.wanted.borrow_and_update().clone(), *ended.borrow_and_update());
            let again = match self.resolver.hold(wanted.clone()).await {
                // Else what it answered for is gone already.
                Ok(closed) if *ended.borrow() == number => {
                    let is_empty = wanted.is_empty();
                    self.note(wanted, closed);
                    (!is_empty).then_some(TRY_AGAIN)
                }
                Ok(_) => Some(Duration::ZERO),
                Err(error) => {
                    tracing::debug!(error = chain(&error), "published ports are not listened at");
                    Some(ASK_AGAIN)
                }
            };
            let pause = async {
                match again {
                    Some(pause) => sleep(pause).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.wanted.changed() => if changed.is_err() { std::future::pending::<()>().await },
                changed = ended.changed() => if changed.is_err() { std::future::pending::<()>().await },
                () = pause => {}
            }
        }
    }

    fn note(&self, wanted: Wanted, closed: BTreeMap<Listener, String>) {
        let open = wanted.into_keys().filter(|listener| !closed.contains_key(listener)).collect();
        self.held.send_if_modified(|before| {
            for (listener, why) in closed.iter().filter(|(listener, _)| !before.closed.contains_key(listener)) {
                tracing::warn!(%listener, "a published port leads nowhere on this host: {why}");
            }
            let held = Held { unasked: false, open, closed };
            let news = *before != held;
            *before = held;
            news
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_plan::nft::Transport;

    #[test]
    fn nothing_leads_to_a_port_before_it_is_listened_at_unless_an_earlier_daemon_led_there() {
        let [open, closed, new] = [80, 81, 82]
            .map(|port| Listener { transport: Transport::Tcp, at: SocketAddr::new([0, 0, 0, 0].into(), port) });
        let held =
            Held { unasked: false, open: [open].into(), closed: [(closed, "nginx (pid 7) has it".to_owned())].into() };
        assert_eq!([open, closed, new].map(|l| held.is_shut(&l)), [false, true, true]);
        assert_eq!([open, closed, new].map(|l| held.is_pending(&l)), [false, false, true]);
        let unasked = Held { unasked: true, ..Held::default() };
        // It is led to as before, and a container that is yet to start waits.
        assert!(!unasked.is_shut(&new) && unasked.is_pending(&new));
    }
}
