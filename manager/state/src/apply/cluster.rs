//! The cluster's own settings.

use ipnet::Ipv4Net;
use shoal_common::{
    Invalid, NodeId,
    node::{NodeDescription, Role},
};

use super::Entry;
use crate::{
    command::ClusterSettings,
    reply::{Outcome, Rejection, Reply},
    state::{Cluster, State},
};

impl State {
    pub(super) fn init_cluster(
        &mut self,
        entry: Entry,
        settings: &ClusterSettings,
        description: &NodeDescription,
    ) -> Outcome {
        if self.cluster.is_some() {
            return Err(Rejection::AlreadyInitialised);
        }
        check_settings(settings)?;
        self.cluster = Some(Cluster { settings: settings.clone(), created: entry.at });
        self.level = description.level;
        let id = NodeId(self.next_id());
        self.insert_node(entry, id, Role::Manager, description, "");
        Ok(Reply::Node(id))
    }

    pub(super) fn rotate_join_token(&mut self, role: Role, secret: &str) -> Outcome {
        if secret.is_empty() {
            return Err(Invalid::new("join secret", secret, "a secret").into());
        }
        let settings = &mut self.cluster.as_mut().ok_or(Rejection::NotInitialised)?.settings;
        let kept = match role {
            Role::Worker => &mut settings.worker_join_secret,
            Role::Manager => &mut settings.manager_join_secret,
        };
        secret.clone_into(kept);
        Ok(Reply::Done)
    }
}

fn check_settings(settings: &ClusterSettings) -> Result<(), Invalid> {
    let length = settings.subnet_prefix_len;
    // A subnet of fewer than 5 addresses to hand out is of no use; see `SubnetSpec::settle`.
    if length > 29 {
        return Err(Invalid::new("subnet prefix length", length, "a prefix length of at most 29"));
    }
    if settings.address_pools.is_empty() {
        return Err(Invalid::new("address pool", "", "at least one subnet"));
    }
    for pool in &settings.address_pools {
        if pool.prefix_len() > length || pool.prefix_len() == 0 || pool.trunc() != *pool {
            return Err(Invalid::new("address pool", pool, format!("a base address with a prefix of /1 to /{length}")));
        }
        let overlaps = |other: &&Ipv4Net| other.contains(&pool.network()) || pool.contains(&other.network());
        if settings.address_pools.iter().filter(overlaps).count() > 1 {
            return Err(Invalid::new("address pool", pool, "pools that do not overlap"));
        }
    }
    let ula = settings.ula_prefix;
    if ula.trunc() != ula || !(48..=64).contains(&ula.prefix_len()) {
        return Err(Invalid::new("ULA prefix", ula, "a base address with a prefix of /48 to /64"));
    }
    Ok(())
}
