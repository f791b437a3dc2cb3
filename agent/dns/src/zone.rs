//! All names of all networks that this host knows.
//!
//! A zone is made whole from an assignment and never changed, so that a swap of one `Arc` replaces every answer at
//! once. Which of it a container sees is its [`Scope`]'s matter.

use hickory_proto::rr::Name;
use ipnet::IpNet;
use shoal_common::{
    Generation, NetworkId, ServiceId, TaskId,
    assignment::{Assignment, EndpointAssignment, NetworkAssignment, ServiceAssignment},
    container::ContainerLink,
    service::EndpointMode,
    task::Endpoint,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    instance::{Instance, Offer},
    labels::Labels,
    scope::Scope,
};

/// The names of every network of one host, at one generation.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    generation: Generation,
    networks: BTreeMap<NetworkId, Network>,
    /// Names that one container alone is answered.
    links: BTreeMap<TaskId, Vec<Link>>,
}

/// An alias of one container's own, for what has another name on the network.
#[derive(Debug, Clone)]
struct Link {
    network: NetworkId,
    /// Both by [`Labels::key`].
    alias: Box<[u8]>,
    target: Box<[u8]>,
}

#[derive(Debug, Clone)]
struct Network {
    name: Box<[u8]>,
    subnets: Vec<IpNet>,
    internal: bool,
    /// By [`Labels::key`], without the network's name.
    entries: BTreeMap<Box<[u8]>, Entry>,
    pointers: BTreeMap<IpAddr, Name>,
}

/// What one name stands for in one network.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    standing: Standing,
    pub(crate) v4: Vec<Ipv4Addr>,
    pub(crate) v6: Vec<Ipv6Addr>,
    /// Endpoints of the name that do not serve: each is told to its own container only.
    unready: Vec<(TaskId, Endpoint)>,
    /// Services of the name.
    pub(crate) offers: Vec<Arc<Offer>>,
}

/// Whose claim to a name prevails. Equal claims share the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Alias,
    Task,
    Service,
}

/// What became of a name that was looked for.
#[derive(Debug)]
pub(crate) enum Found<'z> {
    Entry(&'z Entry),
    /// Ours to answer, and it does not exist.
    Nothing,
    /// Below the name of a network here, and nobody here bears it. It may be a public name: networks are called `dev`
    /// and `app`, as top-level domains are.
    Unclaimed,
    /// Somebody else's.
    Foreign,
}

/// What became of an address that was looked for.
#[derive(Debug)]
pub(crate) enum FoundAddress<'z> {
    Pointer(&'z Name),
    Nothing,
    Foreign,
}

impl Zone {
    pub fn of(assignment: &Assignment) -> Zone {
        let mut zone = Zone { generation: assignment.generation, ..Zone::default() };
        for (id, network) in &assignment.networks {
            zone.networks.insert(*id, Network::of(network));
        }
        let mut serving: BTreeMap<(NetworkId, ServiceId), Vec<Instance>> = BTreeMap::new();
        for ((id, task), endpoint) in &assignment.endpoints {
            // An endpoint whose network is not told of yet cannot be seen by anybody either.
            let Some(network) = zone.networks.get_mut(id) else { continue };
            let target = network.add_endpoint(*task, endpoint);
            if endpoint.serving
                && let (Some(target), Some(service)) = (target, endpoint.service)
            {
                let (v4, v6) = (endpoint.endpoint.v4, endpoint.endpoint.v6);
                serving.entry((*id, service)).or_default().push(Instance { target, v4, v6 });
            }
        }
        for ((id, service_id), service) in &assignment.services {
            let Some(network) = zone.networks.get_mut(id) else { continue };
            network.add_service(service, serving.remove(&(*id, *service_id)).unwrap_or_default());
        }
        for (id, container) in &assignment.containers {
            let key = |name: &shoal_common::Name| Some(Labels::parse(name.as_str())?.key());
            let links = container.spec.attachments().iter().flat_map(|a| a.links.iter().map(|l| (a.network, l)));
            let link = |(network, l): (NetworkId, &ContainerLink)| {
                Some(Link { network, alias: key(&l.alias)?, target: key(&l.container)? })
            };
            let links: Vec<Link> = links.filter_map(link).collect();
            if !links.is_empty() {
                zone.links.insert(*id, links);
            }
        }
        zone
    }

    /// The log index that the zone was cut from.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Whether a container of this scope may be told of the world outside. One that is on internal networks alone
    /// may not (CVE-2024-29018: a name can carry data out); nor may one whose networks are not known, lest they be
    /// internal.
    pub(crate) fn reaches_outside(&self, scope: &Scope) -> bool {
        scope.networks.is_empty() || self.visible(scope).any(|n| !n.internal)
    }

    fn visible<'z>(&'z self, scope: &'z Scope) -> impl Iterator<Item = &'z Network> + Clone {
        scope.networks.iter().filter_map(|id| self.networks.get(id))
    }

    /// What a container's own aliases make of a name, of which the first `skip` labels are not part.
    fn linked<'z>(&'z self, scope: &'z Scope, name: &Labels, skip: usize) -> impl Iterator<Item = &'z Entry> {
        let end = name.count();
        let links = scope.task.and_then(|task| self.links.get(&task)).into_iter().flatten();
        links.filter(|l| scope.networks.contains(&l.network)).filter_map(move |link| {
            let network = self.networks.get(&link.network)?;
            let within = || *network.name == *name.label(end - 1) && *link.alias == *name.wire(skip..end - 1);
            let asked = *link.alias == *name.wire(skip..end) || (end - skip > 1 && within());
            if asked { network.entries.get(&link.target) } else { None }
        })
    }

    /// Looks for a name, of which the first `skip` labels are not part. Of several networks that know it, the
    /// first prevails whose entry has what is `wanted`.
    pub(crate) fn find<'z>(
        &'z self,
        scope: &'z Scope,
        name: &Labels,
        skip: usize,
        wanted: impl Fn(&Entry) -> bool,
    ) -> Found<'z> {
        let end = name.count();
        if skip == end {
            return Found::Nothing;
        }
        let (whole, last) = (name.wire(skip..end), name.label(end - 1));
        let mut first = None;
        // An alias of the container's own prevails, as with Docker: whatever it leads to is all there is of the name.
        for entry in self.linked(scope, name, skip) {
            if wanted(entry) {
                return Found::Entry(entry);
            }
            first = first.or(Some(entry));
        }
        if let Some(entry) = first {
            return Found::Entry(entry);
        }
        for network in self.visible(scope) {
            if let Some(entry) = network.entries.get(whole) {
                if wanted(entry) {
                    return Found::Entry(entry);
                }
                first = first.or(Some(entry));
            }
        }
        let mut within_ours = false;
        for network in self.visible(scope).filter(|n| *n.name == *last && end - skip > 1) {
            within_ours = true;
            if let Some(entry) = network.entries.get(name.wire(skip..end - 1)) {
                if wanted(entry) {
                    return Found::Entry(entry);
                }
                first = first.or(Some(entry));
            }
        }
        match first {
            Some(entry) => Found::Entry(entry),
            None if has_our_shape(name, skip, end) => Found::Nothing,
            // `web.1.blue` and `tasks.web.blue`; a bare word before the network's name may be anybody's.
            None if within_ours && end - skip > 2 && has_our_shape(name, skip, end - 1) => Found::Nothing,
            None if within_ours => Found::Unclaimed,
            None => Found::Foreign,
        }
    }

    pub(crate) fn find_address<'z>(&'z self, scope: &'z Scope, ip: IpAddr) -> FoundAddress<'z> {
        if let Some(name) = self.visible(scope).find_map(|n| n.pointers.get(&ip)) {
            return FoundAddress::Pointer(name);
        }
        if self.visible(scope).any(|n| n.subnets.iter().any(|s| s.contains(&ip))) {
            FoundAddress::Nothing
        } else {
            FoundAddress::Foreign
        }
    }
}

/// Whether a name that no network knows could have been, or become, one of ours, so that to ask others for it would
/// tell them our names: a bare word, `tasks.web`, `web.1`, `web.node-3`. (Not `tasks.google.com`, nor
/// `google.com` where a service is called google. No top-level domain is numeric: RFC 3696 §2.)
fn has_our_shape(name: &Labels, skip: usize, end: usize) -> bool {
    let count = end - skip;
    let last = name.label(end - 1);
    let numeric = |s: &[u8]| !s.is_empty() && s.iter().all(u8::is_ascii_digit);
    count == 1
        || (count == 2 && name.label(skip) == TASKS.as_bytes())
        || numeric(last)
        || (count == 2 && last.strip_prefix(b"node-").is_some_and(numeric))
}

const TASKS: &str = "tasks";

impl Entry {
    fn new(standing: Standing) -> Self {
        Self { standing, v4: Vec::new(), v6: Vec::new(), unready: Vec::new(), offers: Vec::new() }
    }

    fn add(&mut self, v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) {
        self.v4.extend(v4);
        self.v6.extend(v6);
    }

    fn add_all(&mut self, instances: &[Instance]) {
        for instance in instances {
            self.add(instance.v4, instance.v6);
        }
    }

    /// The asker's own endpoint of this name, if it does not serve yet.
    pub(crate) fn own(&self, scope: &Scope) -> Option<&Endpoint> {
        self.unready.iter().find(|(task, _)| Some(*task) == scope.task).map(|(_, e)| e)
    }
}

impl Network {
    fn of(network: &NetworkAssignment) -> Self {
        Self {
            name: network.name.as_str().as_bytes().into(),
            subnets: network.subnets.iter().map(|s| s.net).collect(),
            internal: network.internal,
            entries: BTreeMap::new(),
            pointers: BTreeMap::new(),
        }
    }

    /// The entry of a name, if this claim to it is good enough.
    fn claim(&mut self, name: &Labels, standing: Standing) -> Option<&mut Entry> {
        let entry = self.entries.entry(name.key()).or_insert_with(|| Entry::new(standing));
        if entry.standing < standing {
            *entry = Entry::new(standing);
        }
        (entry.standing == standing).then_some(entry)
    }

    /// Returns by which name SRV records point at the endpoint.
    fn add_endpoint(&mut self, task: TaskId, assigned: &EndpointAssignment) -> Option<Name> {
        let endpoint = &assigned.endpoint;
        let task_name = Labels::parse(&assigned.task_name);
        let mut names: Vec<(Labels, Standing)> = task_name.iter().map(|n| (n.clone(), Standing::Task)).collect();
        // An alias is free text; one that is no domain name cannot be asked for.
        for alias in assigned.aliases.iter().filter_map(|a| Labels::parse(a)) {
            if names.iter().all(|(n, _)| n.key() != alias.key()) {
                names.push((alias, Standing::Alias));
            }
        }
        for (name, standing) in &names {
            if let Some(entry) = self.claim(name, *standing) {
                if assigned.serving {
                    entry.add(endpoint.v4, endpoint.v6);
                } else {
                    entry.unready.push((task, endpoint.clone()));
                }
            }
        }
        let task_name = task_name?;
        self.point(endpoint.addresses(), &task_name);
        Some(task_name.to_name())
    }

    fn add_service(&mut self, service: &ServiceAssignment, instances: Vec<Instance>) {
        let offer = Arc::new(Offer { ports: service.ports.clone(), instances });
        let aliases: BTreeSet<&shoal_common::Name> = service.aliases.iter().filter(|a| **a != service.name).collect();
        let name = std::iter::once((&service.name, Standing::Service));
        for (name, standing) in name.chain(aliases.into_iter().map(|a| (a, Standing::Alias))) {
            let Some(labels) = Labels::parse(name.as_str()) else { continue };
            if let Some(entry) = self.claim(&labels, standing) {
                match service.mode {
                    EndpointMode::Vip => entry.add(service.vip4, service.vip6),
                    EndpointMode::DnsRr => entry.add_all(&offer.instances),
                }
                entry.offers.push(Arc::clone(&offer));
            }
            if let Some(entry) = Labels::parse(TASKS)
                .and_then(|tasks| tasks.under(name.as_str()))
                .and_then(|tasks| self.claim(&tasks, standing))
            {
                entry.add_all(&offer.instances);
                entry.offers.push(Arc::clone(&offer));
            }
        }
        if let Some(labels) = Labels::parse(service.name.as_str()) {
            let vips = service.vip4.map(IpAddr::from).into_iter().chain(service.vip6.map(IpAddr::from));
            self.point(vips, &labels);
        }
    }

    fn point(&mut self, addresses: impl Iterator<Item = IpAddr>, name: &Labels) {
        let network = std::str::from_utf8(&self.name).expect("a network's name is ASCII");
        let Some(name) = name.under(network).map(|n| n.to_name()) else { return };
        self.pointers.extend(addresses.map(|ip| (ip, name.clone())));
    }
}
