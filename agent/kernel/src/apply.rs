//! Doing what a plan says, op by op.
//!
//! Requests to the same namespace are put to the kernel together, as long as none needs the index of a link that one
//! before it makes. What is true already counts as done: an address that is there, a route that is not.

use nix::errno::Errno;
use rtnetlink::packet_route::link::{LinkAttribute, LinkLayerType, LinkMessage};
use shoal_common::{LinkName, Mtu};
use shoal_plan::{Ns, Op, Why};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::AsFd,
    sync::{Arc, PoisonError},
};

use crate::{
    kernel::{Error, Inner, is_ours},
    namespace::Namespace,
    netlink::{
        Refusal, Socket, conntrack,
        request::{self, VethEnd},
        route,
    },
    nft, sysctl,
};

/// One thing that could not be done.
#[derive(Debug, thiserror::Error)]
#[error("cannot do: {op}")]
pub struct OpError {
    pub op: Op,
    #[source]
    pub cause: Cause,
}

#[derive(Debug, thiserror::Error)]
pub enum Cause {
    #[error("the kernel refused it")]
    Refused(#[from] Refusal),
    #[error("the namespace cannot be made or deleted")]
    Netns(#[source] io::Error),
    #[error("the sysctl cannot be written")]
    Sysctl(#[source] io::Error),
    #[error("{0}")]
    Impossible(Why),
    #[error("this host has no link {parent}; its links are {}", list(there))]
    NoParent { parent: LinkName, there: BTreeSet<String> },
    #[error(
        "link {0} has other macvlan links: in macvlan_mode passthru there is one on a parent link, and none beside it"
    )]
    NotAlone(LinkName),
    #[error("link {0} is no Ethernet link: use another parent link")]
    NotEthernet(LinkName),
    #[error("link {0} is part of another (a bridge, a bond, a team): use that as parent link")]
    NotItsOwn(LinkName),
    #[error("link {parent} carries packets of up to {has} bytes: give the network an MTU of that or less")]
    Narrow { parent: LinkName, has: u32 },
    #[error("this kernel has no {kind} links: it was built without {option}, or its module {module} is not there")]
    NoSuchKind { kind: &'static str, option: &'static str, module: &'static str },
    #[error(transparent)]
    Namespace(#[from] Box<Error>),
}

impl OpError {
    /// Another attempt fails as well until somebody has done something about it.
    pub fn stays(&self) -> bool {
        match &self.cause {
            Cause::Impossible(_)
            | Cause::NoParent { .. }
            | Cause::NotAlone(_)
            | Cause::NotEthernet(_)
            | Cause::NotItsOwn(_)
            | Cause::Narrow { .. }
            | Cause::NoSuchKind { .. } => true,
            Cause::Refused(_) | Cause::Netns(_) | Cause::Sysctl(_) | Cause::Namespace(_) => false,
        }
    }
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

const NO_MACVLAN: Cause = Cause::NoSuchKind { kind: "macvlan", option: "CONFIG_MACVLAN", module: "macvlan" };
const NO_VLAN: Cause = Cause::NoSuchKind { kind: "VLAN", option: "CONFIG_VLAN_8021Q", module: "8021q" };

/// Does all of it, in order, and gives what failed with its place in `ops`.
pub(crate) fn all(kernel: &Inner, ops: &[Op]) -> Vec<(usize, OpError)> {
    let mut run = Run { kernel, ops, batch: None, failed: BTreeMap::new() };
    let mut next = 0;
    while next < ops.len() {
        // Writing a sysctl takes a thread in the namespace: one for all that follow each other.
        let sysctls = ops[next..].iter().take_while(|op| sysctl_of(op, ops[next].ns()).is_some()).count();
        if sysctls > 0 {
            run.sysctls(next, sysctls);
            next += sysctls;
            continue;
        }
        if let Err(cause) = run.one(next) {
            run.fail(next, cause);
        }
        next += 1;
    }
    run.flush();
    run.failed.into_iter().map(|(at, cause)| (at, OpError { op: ops[at].clone(), cause })).collect()
}

fn sysctl_of(op: &Op, of: Ns) -> Option<(&str, &str)> {
    match op {
        Op::SetSysctl { ns, path, value } if *ns == of => Some((path, value)),
        _ => None,
    }
}

struct Run<'a> {
    kernel: &'a Inner,
    ops: &'a [Op],
    batch: Option<Batch>,
    failed: BTreeMap<usize, Cause>,
}

/// Requests to one namespace that were not put yet.
struct Batch {
    namespace: Arc<Namespace>,
    requests: Vec<Vec<u8>>,
    /// The op that each request is of.
    of: Vec<usize>,
    indices: BTreeMap<LinkName, u32>,
}

impl Run<'_> {
    fn fail(&mut self, at: usize, cause: Cause) {
        self.failed.entry(at).or_insert(cause);
    }

    /// Puts what is waiting.
    fn flush(&mut self) {
        let Some(batch) = &mut self.batch else { return };
        let (requests, of) = (std::mem::take(&mut batch.requests), std::mem::take(&mut batch.of));
        let answers = batch.namespace.route().ask(requests);
        for (at, answer) in of.into_iter().zip(answers) {
            match answer {
                Err(refusal) if !is_true_already(&self.ops[at], refusal.errno) => self.fail(at, refusal.into()),
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Everything before this is done, and what was known of links may no longer hold.
    fn settle(&mut self) {
        self.flush();
        self.batch = None;
    }

    /// The namespace of an op; `None` if it is not there and the op has nothing to do for that reason.
    fn namespace(&self, op: &Op) -> Result<Option<Arc<Namespace>>, Cause> {
        match self.kernel.namespace(op.ns()).map_err(Box::new)? {
            None if !takes_away(op) => Err(Box::new(Error::Absent(op.ns())).into()),
            found => Ok(found),
        }
    }

    fn batch(&mut self, op: &Op) -> Result<Option<&mut Batch>, Cause> {
        if self.batch.as_ref().is_none_or(|batch| batch.namespace.ns != op.ns()) {
            self.settle();
            let namespace = self.namespace(op)?;
            self.batch = namespace.map(|namespace| Batch {
                namespace,
                requests: Vec::new(),
                of: Vec::new(),
                indices: BTreeMap::new(),
            });
        }
        Ok(self.batch.as_mut())
    }

    /// A request that names its link.
    fn put(&mut self, at: usize, request: Vec<u8>) -> Result<(), Cause> {
        let op = &self.ops[at];
        if let Some(batch) = self.batch(op)? {
            batch.requests.push(request);
            batch.of.push(at);
        }
        Ok(())
    }

    /// A request that has its link's index. Looking for it makes whoever made the link before come first.
    fn put_at(&mut self, at: usize, link: &LinkName, request: impl FnOnce(u32) -> Vec<u8>) -> Result<(), Cause> {
        let op = &self.ops[at];
        let Some(batch) = self.batch(op)? else { return Ok(()) };
        let index = match batch.indices.get(link) {
            Some(index) => *index,
            None => {
                self.flush();
                let Some(batch) = self.batch(op)? else { return Ok(()) };
                match route::index(&mut batch.namespace.route(), link.as_str()) {
                    Ok(index) => *batch.indices.entry(link.clone()).or_insert(index),
                    Err(refusal) if refusal.errno == Errno::ENODEV && takes_away(op) => return Ok(()),
                    Err(refusal) => return Err(refusal.into()),
                }
            }
        };
        self.put(at, request(index))
    }

    fn sysctls(&mut self, first: usize, count: usize) {
        self.settle();
        let ops = &self.ops[first..first + count];
        let written = self.namespace(&ops[0]).and_then(|namespace| {
            let Some(namespace) = namespace else { return Ok(Vec::new()) };
            let write = || ops.iter().map(|op| sysctl_of(op, op.ns()).map_or(Ok(()), |(k, v)| sysctl::write(k, v)));
            namespace.enter(|| write().collect::<Vec<_>>()).map_err(Cause::Sysctl)
        });
        match written {
            Ok(written) => {
                for (at, result) in written.into_iter().enumerate() {
                    if let Err(error) = result {
                        self.fail(first + at, Cause::Sysctl(error));
                    }
                }
            }
            Err(cause) => {
                self.fail(first, cause);
                for at in first + 1..first + count {
                    self.fail(at, Box::new(Error::Absent(self.ops[at].ns())).into());
                }
            }
        }
    }

    fn one(&mut self, at: usize) -> Result<(), Cause> {
        let op = &self.ops[at];
        match op {
            Op::AddNetns { ns } => {
                self.settle();
                self.kernel.create(*ns).map_err(Cause::Netns)
            }
            Op::DelNetns { ns } => {
                self.settle();
                self.delete_netns(*ns)
            }
            Op::SetSysctl { .. } => {
                self.sysctls(at, 1);
                Ok(())
            }
            Op::LoopbackUp { .. } => self.put_at(at, &loopback(), |index| request::set_up(index, true)),
            Op::AddBridge { link, mac, mtu, marked, .. } => {
                self.put(at, request::bridge(link, *mac, *mtu))?;
                // The kernel leaves out the alias of a link that it makes. Both go to it together: nothing comes between.
                if *marked { self.put(at, request::mark(link)) } else { Ok(()) }
            }
            Op::Mark { link, .. } => self.put(at, request::mark(link)),
            Op::Impossible { why, .. } => Err(Cause::Impossible(why.clone())),
            Op::AddVxlan { .. } => {
                self.settle();
                self.add_vxlan(op)
            }
            Op::AddVeth { link, mtu, mac, peer_ns, peer, peer_mac, .. } => {
                // The batch of the peer's namespace, if it is the one that waits, comes first.
                let Some(peer_namespace) = self.kernel.namespace(*peer_ns).map_err(Box::new)? else {
                    return Err(Box::new(Error::Absent(*peer_ns)).into());
                };
                let end = VethEnd { name: link, mac: *mac, mtu: *mtu };
                let peer = VethEnd { name: peer, mac: *peer_mac, mtu: *mtu };
                self.put(at, request::veth(&end, &peer, peer_namespace.as_fd()))?;
                // `peer_namespace` is held open until the kernel has read its descriptor.
                self.flush();
                drop(peer_namespace);
                Ok(())
            }
            Op::AddMacvlan { .. } => {
                self.settle();
                self.add_macvlan(op)
            }
            Op::AddVlan { .. } => {
                self.settle();
                self.add_vlan(op)
            }
            Op::DelLink { link, .. } => {
                self.put(at, request::delete_link(link))?;
                if let Some(batch) = &mut self.batch {
                    batch.indices.remove(link);
                }
                Ok(())
            }
            Op::SetMac { link, mac, .. } => {
                self.put(at, request::set(request::named(link).address(mac.0.to_vec()).build()))
            }
            Op::SetMtu { link, mtu, .. } => self.put(at, request::set(request::named(link).mtu(mtu.get()).build())),
            Op::SetMaster { link, master: None, .. } => {
                self.put(at, request::set(request::named(link).nocontroller().build()))
            }
            Op::SetMaster { link, master: Some(master), .. } => {
                self.put_at(at, master, |index| request::set(request::named(link).controller(index).build()))
            }
            Op::SetPort { link, port, .. } => self.put_at(at, link, |index| request::port(index, *port)),
            Op::SetUp { link, up, .. } => self.put_at(at, link, |index| request::set_up(index, *up)),
            Op::AddAddress { link, address, .. } => {
                self.put_at(at, link, |index| request::add_address(index, *address))
            }
            Op::DelAddress { link, address, .. } => {
                self.put_at(at, link, |index| request::delete_address(index, *address))
            }
            Op::AddFdb { link, entry, .. } => {
                self.put_at(at, link, |index| request::append_forwarding(index, entry.mac, entry.dst))
            }
            Op::DelFdb { link, entry, .. } => {
                self.put_at(at, link, |index| request::delete_forwarding(index, entry.mac, entry.dst))
            }
            Op::AddBridgeFdb { link, mac, .. } => self.put_at(at, link, |index| request::set_port(index, *mac)),
            Op::DelBridgeFdb { link, mac, .. } => self.put_at(at, link, |index| request::delete_port(index, *mac)),
            Op::SetNeighbour { link, entry, .. } => {
                self.put_at(at, link, |index| request::set_neighbour(index, entry.ip, entry.mac))
            }
            Op::DelNeighbour { link, ip, .. } => self.put_at(at, link, |index| request::delete_neighbour(index, *ip)),
            Op::AddRoute { route, .. } => {
                self.put_at(at, &route.link, |index| request::add_route(route.to, route.via, index))
            }
            Op::DelRoute { route, .. } => {
                self.put_at(at, &route.link, |index| request::delete_route(route.to, route.via, index))
            }
            Op::ReplaceTable { family, chains, digest, leads, .. } => {
                self.settle();
                let Some(namespace) = self.namespace(op)? else { return Ok(()) };
                Ok(nft::replace(&namespace, *family, digest, chains, leads)?)
            }
            Op::DelTable { family, .. } => {
                self.settle();
                let Some(namespace) = self.namespace(op)? else { return Ok(()) };
                Ok(nft::delete(&namespace, *family)?)
            }
            Op::ForgetFlows { flows, .. } => {
                self.settle();
                let Some(namespace) = self.namespace(op)? else { return Ok(()) };
                let forgotten = conntrack::forget(&mut namespace.filter(), flows)?;
                // Whether that was all is seen by the next look.
                *namespace.flows.lock().unwrap_or_else(PoisonError::into_inner) = None;
                tracing::debug!(ns = %namespace.ns, forgotten, "forgot connections that led astray");
                Ok(())
            }
        }
    }

    /// Makes the link in the host's namespace, where its UDP socket stays, and moves it.
    fn add_vxlan(&self, op: &Op) -> Result<(), Cause> {
        let Op::AddVxlan { link, vni, local, port, mtu, .. } = op else { return Ok(()) };
        let Some(namespace) = self.namespace(op)? else { return Ok(()) };
        // Bears our prefix: whoever finds one left over, from a daemon that was killed here, deletes it.
        let passing: LinkName = format!("{}{:x}", shoal_plan::names::PASSING_PREFIX, vni.get())
            .parse()
            .expect("a prefix of 4 bytes and 6 hex digits are a link name");
        self.make_and_move(&passing, request::vxlan(&passing, *vni, *local, *port, *mtu), &namespace, link)
    }

    /// Makes the link where its parent is, in the host's namespace, and moves it.
    fn add_macvlan(&self, op: &Op) -> Result<(), Cause> {
        let Op::AddMacvlan { link, parent, mode, mac, mtu, .. } = op else { return Ok(()) };
        let Some(namespace) = self.namespace(op)? else { return Ok(()) };
        let passing: LinkName = format!("{}m", shoal_plan::names::PASSING_PREFIX)
            .parse()
            .expect("a prefix of 4 bytes and m are a link name");
        let index = self.parent(parent)?;
        let make = request::macvlan(&passing, index, *mode, *mac, *mtu);
        match self.make_and_move(&passing, make, &namespace, link) {
            // macvlan_common_newlink() and macvlan_port_create() of drivers/net/macvlan.c.
            Err(Cause::Refused(refusal)) => {
                Err(match (refusal.errno, self.on_parent(refusal, parent, *mtu, NO_MACVLAN)) {
                    (Errno::EBUSY, Cause::Refused(_)) => Cause::NotItsOwn(parent.clone()),
                    (Errno::EINVAL, Cause::Refused(_)) if !self.is_ethernet(parent) => {
                        Cause::NotEthernet(parent.clone())
                    }
                    (Errno::EINVAL, Cause::Refused(_)) => Cause::NotAlone(parent.clone()),
                    (_, cause) => cause,
                })
            }
            done => done,
        }
    }

    fn add_vlan(&self, op: &Op) -> Result<(), Cause> {
        let Op::AddVlan { link, parent, id, mtu, .. } = op else { return Ok(()) };
        let index = self.parent(parent)?;
        // Made and marked in one datagram: nobody sees it without the mark.
        let answers = self.kernel.host().route().ask(vec![request::vlan(link, index, *id, *mtu), request::mark(link)]);
        match answers.into_iter().next() {
            Some(Err(refusal)) => Err(self.on_parent(refusal, parent, *mtu, NO_VLAN)),
            Some(Ok(())) | None => Ok(()),
        }
    }

    /// The index of a link of the host's on which another is to be made.
    fn parent(&self, parent: &LinkName) -> Result<u32, Cause> {
        let mut socket = self.kernel.host().route();
        match route::index(&mut socket, parent.as_str()) {
            Err(refusal) if refusal.errno == Errno::ENODEV => {
                let links = route::links(&mut socket)?;
                let others = links.iter().filter(|link| !is_ours(link)).filter_map(route::name);
                let there = others.filter(|name| *name != "lo").map(ToOwned::to_owned).collect();
                Err(Cause::NoParent { parent: parent.clone(), there })
            }
            found => Ok(found?),
        }
    }

    /// Why a link could not be made on its parent.
    fn on_parent(&self, refusal: Refusal, parent: &LinkName, mtu: Mtu, no_such_kind: Cause) -> Cause {
        if refusal.errno == Errno::EOPNOTSUPP && refusal.message.as_deref().is_none_or(|m| m.contains("Unknown")) {
            return no_such_kind;
        }
        let has = self.host_link(parent).and_then(|link| {
            link.attributes.iter().find_map(|a| if let LinkAttribute::Mtu(mtu) = a { Some(*mtu) } else { None })
        });
        match has {
            Some(has) if has < mtu.get() => Cause::Narrow { parent: parent.clone(), has },
            Some(_) | None => refusal.into(),
        }
    }

    fn host_link(&self, name: &LinkName) -> Option<LinkMessage> {
        let links = route::links(&mut self.kernel.host().route()).ok()?;
        links.into_iter().find(|link| route::name(link) == Some(name.as_str()))
    }

    fn is_ethernet(&self, name: &LinkName) -> bool {
        self.host_link(name).is_none_or(|link| link.header.link_layer_type == LinkLayerType::Ether)
    }

    fn make_and_move(
        &self,
        passing: &LinkName,
        make: Vec<u8>,
        namespace: &Namespace,
        link: &LinkName,
    ) -> Result<(), Cause> {
        let mut socket = self.kernel.host().route();
        match socket.ask_one(make.clone()) {
            Err(refusal) if refusal.errno == Errno::EEXIST => {
                // If it is not our own leftover that is in the way, the second attempt says what is.
                let _ = socket.ask_one(request::delete_link(passing));
                socket.ask_one(make)?;
            }
            made => made?,
        }
        let moved = route::index(&mut socket, passing.as_str())
            .and_then(|index| socket.ask_one(request::move_to(index, link, namespace.as_fd())));
        if let Err(refusal) = moved {
            let _ = socket.ask_one(request::delete_link(passing));
            return Err(refusal.into());
        }
        Ok(())
    }

    /// The kernel takes a namespace apart in its own time. Until then its vxlan links hold their VNI, and its macvlan
    /// links their parent, which who comes at once could not have; so they are deleted first.
    fn delete_netns(&self, ns: Ns) -> Result<(), Cause> {
        if let Ok(Some(namespace)) = self.kernel.namespace(ns) {
            let mut socket = namespace.route();
            delete_holders(&mut socket)?;
        }
        self.kernel.delete(ns).map_err(Cause::Netns)
    }
}

fn delete_holders(socket: &mut Socket) -> Result<(), Refusal> {
    let links = route::links(socket)?;
    let holders = links.iter().filter(|link| route::is_vxlan_or_macvlan(link)).filter_map(route::name);
    let requests = holders.filter_map(|name| Some(request::delete_link(&name.parse().ok()?))).collect();
    for answer in socket.ask(requests) {
        match answer {
            Err(refusal) if refusal.errno != Errno::ENODEV => return Err(refusal),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

fn loopback() -> LinkName {
    "lo".parse().expect("lo is a link name")
}

/// Whether an op takes something away: without the namespace or the link, there is nothing left to take away.
fn takes_away(op: &Op) -> bool {
    match op {
        Op::DelNetns { .. }
        | Op::DelLink { .. }
        | Op::DelAddress { .. }
        | Op::DelFdb { .. }
        | Op::DelBridgeFdb { .. }
        | Op::DelNeighbour { .. }
        | Op::DelRoute { .. }
        | Op::DelTable { .. }
        | Op::ForgetFlows { .. } => true,
        Op::AddNetns { .. }
        | Op::SetSysctl { .. }
        | Op::LoopbackUp { .. }
        | Op::AddBridge { .. }
        | Op::Mark { .. }
        | Op::Impossible { .. }
        | Op::AddVxlan { .. }
        | Op::AddVeth { .. }
        | Op::AddMacvlan { .. }
        | Op::AddVlan { .. }
        | Op::SetMac { .. }
        | Op::SetMtu { .. }
        | Op::SetMaster { .. }
        | Op::SetPort { .. }
        | Op::SetUp { .. }
        | Op::AddAddress { .. }
        | Op::AddFdb { .. }
        | Op::AddBridgeFdb { .. }
        | Op::SetNeighbour { .. }
        | Op::AddRoute { .. }
        | Op::ReplaceTable { .. } => false,
    }
}

/// Whether a refusal says that what was asked for is so. Not for links: one of that name may be of another kind.
fn is_true_already(op: &Op, errno: Errno) -> bool {
    match op {
        Op::AddAddress { .. } | Op::AddFdb { .. } | Op::AddBridgeFdb { .. } => errno == Errno::EEXIST,
        Op::DelLink { .. } => errno == Errno::ENODEV,
        Op::DelAddress { .. } => matches!(errno, Errno::EADDRNOTAVAIL | Errno::ENODEV),
        Op::DelFdb { .. } | Op::DelBridgeFdb { .. } | Op::DelNeighbour { .. } => {
            matches!(errno, Errno::ENOENT | Errno::ENODEV)
        }
        Op::DelRoute { .. } => matches!(errno, Errno::ESRCH | Errno::ENODEV),
        Op::AddNetns { .. }
        | Op::DelNetns { .. }
        | Op::SetSysctl { .. }
        | Op::LoopbackUp { .. }
        | Op::AddBridge { .. }
        | Op::Mark { .. }
        | Op::Impossible { .. }
        | Op::AddVxlan { .. }
        | Op::AddVeth { .. }
        | Op::AddMacvlan { .. }
        | Op::AddVlan { .. }
        | Op::SetMac { .. }
        | Op::SetMtu { .. }
        | Op::SetMaster { .. }
        | Op::SetPort { .. }
        | Op::SetUp { .. }
        | Op::SetNeighbour { .. }
        | Op::AddRoute { .. }
        | Op::ReplaceTable { .. }
        | Op::DelTable { .. }
        | Op::ForgetFlows { .. } => false,
    }
}
