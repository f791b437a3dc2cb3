//! Networks.

use shoal_common::{NetworkId, ServiceId, network::NetworkSpec};
use std::collections::BTreeSet;

use super::{Entry, not_found};
use crate::{
    reply::{Outcome, Rejection, Reply},
    state::{Network, State},
};

/// Users named in a refusal; the others are counted.
const USERS_NAMED: usize = 5;

impl State {
    pub(super) fn create_network(&mut self, entry: Entry, spec: &NetworkSpec) -> Outcome {
        if let Some(holder) = self.networks.values().find(|n| *n.name() == spec.name) {
            return Err(Rejection::NameTaken {
                kind: "network".to_owned(),
                name: spec.name.clone(),
                holder: holder.id.to_string(),
            });
        }
        let pools = self.take_subnets(spec)?;
        let vni = self.take_vni()?;
        let id = NetworkId(self.next_id());
        self.networks.insert(id, Network { id, spec: spec.clone(), vni, pools, created: entry.at });
        Ok(Reply::Network(id))
    }

    pub(super) fn remove_network(&mut self, id: NetworkId) -> Outcome {
        let network = self.networks.get(&id).ok_or_else(|| not_found("network", id))?;
        let services = self.services_of_network(id).map(|s| format!("service {}", s.spec.name));
        // Tasks of a service that still names the network are covered by the service.
        let leaving = self
            .tasks_of_network(id)
            .filter(|t| !self.services_by_network.contains(&(id, t.service)))
            .map(|t| format!("task {} (still ending)", t.name()));
        let users: BTreeSet<String> = services.chain(leaving).collect();
        if users.is_empty() {
            self.networks.remove(&id);
            return Ok(Reply::Done);
        }
        let mut named: Vec<String> = users.iter().take(USERS_NAMED).cloned().collect();
        if users.len() > USERS_NAMED {
            named.push(format!("{} more", users.len() - USERS_NAMED));
        }
        Err(Rejection::NetworkInUse { network: network.name().clone(), users: named.join(", ") })
    }

    pub(crate) fn services_of_network(&self, id: NetworkId) -> impl Iterator<Item = &crate::state::Service> {
        self.services_by_network
            .range((id, ServiceId(0))..=(id, ServiceId(u64::MAX)))
            .filter_map(|(_, service)| self.services.get(service))
    }
}
