//! Services: what users want to run.

use shoal_common::{
    Invalid, LogIndex, ServiceId, TaskId,
    service::{Mode, ServiceSpec},
};
use std::collections::BTreeMap;

use super::{Entry, not_found};
use crate::{
    ipam::places::wants_vips,
    reply::{Outcome, Rejection, Reply},
    state::{Service, State},
};

impl State {
    pub(super) fn create_service(&mut self, entry: Entry, spec: &ServiceSpec) -> Outcome {
        self.check_service(spec)?;
        if let Some(holder) = self.services.values().find(|s| s.spec.name == spec.name) {
            return Err(Rejection::NameTaken {
                kind: "service".to_owned(),
                name: spec.name.clone(),
                holder: holder.id.to_string(),
            });
        }
        let id = ServiceId(self.next_id());
        let mut service = Service {
            id,
            spec: spec.clone(),
            version: entry.index,
            spec_version: entry.index,
            previous: None,
            vips: BTreeMap::new(),
            ingress: Vec::new(),
            created: entry.at,
            updated: entry.at,
        };
        self.settle_service(&mut service)?;
        self.services.insert(id, service);
        Ok(Reply::Service(id, entry.index))
    }

    pub(super) fn update_service(
        &mut self,
        entry: Entry,
        id: ServiceId,
        version: LogIndex,
        spec: &ServiceSpec,
    ) -> Outcome {
        let mut service = self.services.get(&id).cloned().ok_or_else(|| not_found("service", id))?;
        let old = service.spec.clone();
        if service.version != version {
            return Err(Rejection::VersionConflict { service: old.name, given: version, current: service.version });
        }
        if old.name != spec.name {
            return Err(Invalid::new("name", &spec.name, format!("{}: a service keeps its name", old.name)).into());
        }
        if std::mem::discriminant(&old.mode) != std::mem::discriminant(&spec.mode) {
            return Err(Invalid::new(
                "mode",
                format!("{:?}", spec.mode),
                "the mode it was created with: replicated and global have other slots",
            )
            .into());
        }
        self.check_service(spec)?;
        if old.needs_new_tasks(spec) {
            service.spec_version = entry.index;
        }
        for attachment in &old.networks {
            self.services_by_network.remove(&(attachment.network, id));
        }
        service.version = entry.index;
        service.updated = entry.at;
        service.spec = spec.clone();
        service.previous = Some(Box::new(old));
        self.settle_service(&mut service)?;
        self.services.insert(id, service);
        Ok(Reply::Service(id, entry.index))
    }

    pub(super) fn remove_service(&mut self, entry: Entry, id: ServiceId) -> Outcome {
        let service = self.services.remove(&id).ok_or_else(|| not_found("service", id))?;
        for (network, vip) in &service.vips {
            self.release_vip(*network, &service.spec.name, *vip);
        }
        for attachment in &service.spec.networks {
            self.services_by_network.remove(&(attachment.network, id));
        }
        self.publishing.remove(&id);
        let tasks: Vec<TaskId> = self.tasks_of_service(id).map(|t| t.id).collect();
        for task in tasks {
            self.shut_down(entry, task, "its service was removed");
        }
        Ok(Reply::Done)
    }

    /// Brings VIPs, ports and indexes in line with a service's spec. An address that can stay, stays.
    fn settle_service(&mut self, service: &mut Service) -> Result<(), Rejection> {
        service.ingress = self.ingress_ports(service)?;
        match service.ingress.is_empty() {
            true => drop(self.publishing.remove(&service.id)),
            false => drop(self.publishing.insert(service.id)),
        }
        let name = service.spec.name.clone();
        let has_vip = wants_vips(&service.spec);
        let old = std::mem::take(&mut service.vips);
        for (network, vip) in old {
            if has_vip && service.spec.networks.iter().any(|a| a.network == network) {
                service.vips.insert(network, vip);
            } else {
                self.release_vip(network, &name, vip);
            }
        }
        for attachment in &service.spec.networks {
            self.services_by_network.insert((attachment.network, service.id));
            if has_vip && !service.vips.contains_key(&attachment.network) {
                let vip = self.take_vip(attachment.network, &name)?;
                service.vips.insert(attachment.network, vip);
            }
        }
        Ok(())
    }

    fn check_service(&self, spec: &ServiceSpec) -> Result<(), Rejection> {
        if let Mode::Replicated { replicas } = spec.mode
            && replicas > Mode::MAX_REPLICAS
        {
            let expected = format!("a number from 0 to {}", Mode::MAX_REPLICAS);
            return Err(Invalid::new("replicas", replicas, expected).into());
        }
        if spec.container.image.is_empty() {
            return Err(Invalid::new("image", "", "the name of an image").into());
        }
        self.check_networks(spec)?;
        self.check_publish(spec)
    }
}
