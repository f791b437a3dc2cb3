//! One change to the kernel. Prints as the command that would do the same.

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use shoal_common::{LinkName, MacAddr, Mtu, Vni, Vtep, network::MacvlanMode};
use std::{collections::BTreeSet, fmt, net::IpAddr};

use crate::{
    impossible::Why,
    names,
    nft::{Chain, Family},
    ns::Ns,
    world::{Backend, Fdb, Flow, Neighbour, PortFlags, Route, World},
};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    AddNetns {
        ns: Ns,
    },
    /// With everything in it.
    DelNetns {
        ns: Ns,
    },
    SetSysctl {
        ns: Ns,
        path: String,
        value: String,
    },
    LoopbackUp {
        ns: Ns,
    },
    AddBridge {
        ns: Ns,
        link: LinkName,
        mac: Option<MacAddr>,
        mtu: Mtu,
        /// With our mark, put on before anybody can look.
        marked: bool,
    },
    /// Puts our mark ([`crate::names::MARK`]) on a link that is ours.
    Mark {
        ns: Ns,
        link: LinkName,
    },
    /// Never succeeds, and does nothing: a link that cannot be had on this host as it is.
    Impossible {
        ns: Ns,
        link: LinkName,
        why: Why,
    },
    /// Made in the host's namespace, then moved to `ns` under its final name: its socket stays on the underlay.
    AddVxlan {
        ns: Ns,
        link: LinkName,
        vni: Vni,
        local: Vtep,
        port: u16,
        mtu: Mtu,
    },
    AddVeth {
        ns: Ns,
        link: LinkName,
        mtu: Mtu,
        mac: Option<MacAddr>,
        peer_ns: Ns,
        peer: LinkName,
        peer_mac: Option<MacAddr>,
    },
    /// Made in the host's namespace, where its parent is, then moved to `ns` under its final name.
    AddMacvlan {
        ns: Ns,
        link: LinkName,
        parent: LinkName,
        mode: MacvlanMode,
        mac: Option<MacAddr>,
        mtu: Mtu,
    },
    /// With our mark.
    AddVlan {
        ns: Ns,
        link: LinkName,
        parent: LinkName,
        id: u16,
        mtu: Mtu,
    },
    DelLink {
        ns: Ns,
        link: LinkName,
    },
    SetMac {
        ns: Ns,
        link: LinkName,
        mac: MacAddr,
    },
    SetMtu {
        ns: Ns,
        link: LinkName,
        mtu: Mtu,
    },
    SetMaster {
        ns: Ns,
        link: LinkName,
        master: Option<LinkName>,
    },
    SetPort {
        ns: Ns,
        link: LinkName,
        port: PortFlags,
    },
    SetUp {
        ns: Ns,
        link: LinkName,
        up: bool,
    },
    /// IPv6 addresses come without duplicate address detection (`nodad`).
    AddAddress {
        ns: Ns,
        link: LinkName,
        address: IpNet,
    },
    DelAddress {
        ns: Ns,
        link: LinkName,
        address: IpNet,
    },
    AddFdb {
        ns: Ns,
        link: LinkName,
        entry: Fdb,
    },
    DelFdb {
        ns: Ns,
        link: LinkName,
        entry: Fdb,
    },
    AddBridgeFdb {
        ns: Ns,
        link: LinkName,
        mac: MacAddr,
    },
    DelBridgeFdb {
        ns: Ns,
        link: LinkName,
        mac: MacAddr,
    },
    /// Replaces what the kernel may have learnt.
    SetNeighbour {
        ns: Ns,
        link: LinkName,
        entry: Neighbour,
    },
    DelNeighbour {
        ns: Ns,
        link: LinkName,
        ip: IpAddr,
    },
    AddRoute {
        ns: Ns,
        route: Route,
    },
    DelRoute {
        ns: Ns,
        route: Route,
    },
    /// [`crate::names::TABLE`]; what is there under that name goes in the same transaction. [`crate::nft::text`] prints it.
    ReplaceTable {
        ns: Ns,
        family: Family,
        chains: Vec<Chain>,
        digest: String,
        /// Where it leads.
        leads: BTreeSet<Backend>,
    },
    DelTable {
        ns: Ns,
        family: Family,
    },
    /// Forgets tracked connections that disagree with the table ([`crate::Table::is_stray`]).
    ForgetFlows {
        ns: Ns,
        flows: BTreeSet<Flow>,
    },
}

impl Op {
    /// The namespace that is changed.
    pub fn ns(&self) -> Ns {
        match self {
            Op::AddNetns { ns }
            | Op::DelNetns { ns }
            | Op::SetSysctl { ns, .. }
            | Op::LoopbackUp { ns }
            | Op::AddBridge { ns, .. }
            | Op::Mark { ns, .. }
            | Op::Impossible { ns, .. }
            | Op::AddVxlan { ns, .. }
            | Op::AddVeth { ns, .. }
            | Op::AddMacvlan { ns, .. }
            | Op::AddVlan { ns, .. }
            | Op::DelLink { ns, .. }
            | Op::SetMac { ns, .. }
            | Op::SetMtu { ns, .. }
            | Op::SetMaster { ns, .. }
            | Op::SetPort { ns, .. }
            | Op::SetUp { ns, .. }
            | Op::AddAddress { ns, .. }
            | Op::DelAddress { ns, .. }
            | Op::AddFdb { ns, .. }
            | Op::DelFdb { ns, .. }
            | Op::AddBridgeFdb { ns, .. }
            | Op::DelBridgeFdb { ns, .. }
            | Op::SetNeighbour { ns, .. }
            | Op::DelNeighbour { ns, .. }
            | Op::AddRoute { ns, .. }
            | Op::DelRoute { ns, .. }
            | Op::ReplaceTable { ns, .. }
            | Op::DelTable { ns, .. }
            | Op::ForgetFlows { ns, .. } => *ns,
        }
    }
}

impl Op {
    /// The link that it is about, if it is about one.
    pub fn link(&self) -> Option<&str> {
        match self {
            Op::AddBridge { link, .. }
            | Op::Mark { link, .. }
            | Op::Impossible { link, .. }
            | Op::AddVxlan { link, .. }
            | Op::AddVeth { link, .. }
            | Op::AddMacvlan { link, .. }
            | Op::AddVlan { link, .. }
            | Op::DelLink { link, .. }
            | Op::SetMac { link, .. }
            | Op::SetMtu { link, .. }
            | Op::SetMaster { link, .. }
            | Op::SetPort { link, .. }
            | Op::SetUp { link, .. }
            | Op::AddAddress { link, .. }
            | Op::DelAddress { link, .. }
            | Op::AddFdb { link, .. }
            | Op::DelFdb { link, .. }
            | Op::AddBridgeFdb { link, .. }
            | Op::DelBridgeFdb { link, .. }
            | Op::SetNeighbour { link, .. }
            | Op::DelNeighbour { link, .. } => Some(link.as_str()),
            Op::AddRoute { route, .. } | Op::DelRoute { route, .. } => Some(route.link.as_str()),
            Op::SetSysctl { path, .. } => names::sysctl_link(path),
            Op::AddNetns { .. }
            | Op::DelNetns { .. }
            | Op::LoopbackUp { .. }
            | Op::ReplaceTable { .. }
            | Op::DelTable { .. }
            | Op::ForgetFlows { .. } => None,
        }
    }

    /// The namespaces that are not as desired when this failed. In the host's namespace, what is about one link is the
    /// business of those who need that link: a bridge that cannot be had is no reason to keep everybody else waiting.
    pub fn concerns(&self, desired: &World) -> BTreeSet<Ns> {
        let mut concerned = match (self.ns(), self.link()) {
            (Ns::Host, Some(link)) => desired.who_needs(link),
            (ns, _) => [ns].into(),
        };
        if let Op::AddVeth { peer_ns, .. } = self {
            concerned.insert(*peer_ns);
        }
        concerned
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let up = |up: &bool| if *up { "up" } else { "down" };
        let flag = |on: bool| if on { "on" } else { "off" };
        match self {
            Op::AddNetns { ns } => write!(f, "ip netns add {ns}"),
            Op::DelNetns { ns } => write!(f, "ip netns del {ns}"),
            Op::SetSysctl { ns, path, value } => {
                write!(f, "ip netns exec {ns} sysctl {}={value}", path.replace('/', "."))
            }
            Op::LoopbackUp { ns } => write!(f, "ip -n {ns} link set lo up"),
            Op::AddBridge { ns, link, mac, mtu, marked } => {
                write!(f, "ip -n {ns} link add {link}")?;
                if *marked {
                    write!(f, " alias {}", names::MARK)?;
                }
                if let Some(mac) = mac {
                    write!(f, " address {mac}")?;
                }
                write!(f, " mtu {} type bridge", mtu.get())
            }
            Op::Mark { ns, link } => write!(f, "ip -n {ns} link set {link} alias {}", names::MARK),
            Op::Impossible { ns, link, why } => write!(f, "ip -n {ns} link add {link} # but {why}"),
            Op::AddVxlan { ns, link, vni, local, port, mtu } => write!(
                f,
                "ip link add {link} mtu {} netns {ns} type vxlan id {vni} dstport {port} local {local} nolearning proxy",
                mtu.get()
            ),
            Op::AddVeth { ns, link, mtu, mac, peer_ns, peer, peer_mac } => {
                write!(f, "ip -n {ns} link add {link}")?;
                if let Some(mac) = mac {
                    write!(f, " address {mac}")?;
                }
                write!(f, " mtu {} type veth peer name {peer} netns {peer_ns}", mtu.get())?;
                if let Some(mac) = peer_mac {
                    write!(f, " address {mac}")?;
                }
                write!(f, " mtu {}", mtu.get())
            }
            Op::AddMacvlan { ns, link, parent, mode, mac, mtu } => {
                write!(f, "ip link add {link} link {parent}")?;
                if let Some(mac) = mac {
                    write!(f, " address {mac}")?;
                }
                write!(f, " mtu {} netns {ns} type macvlan mode {mode}", mtu.get())
            }
            Op::AddVlan { ns, link, parent, id, mtu } => {
                let (mark, mtu) = (names::MARK, mtu.get());
                write!(f, "ip -n {ns} link add {link} link {parent} alias {mark} mtu {mtu} type vlan id {id}")
            }
            Op::DelLink { ns, link } => write!(f, "ip -n {ns} link del {link}"),
            Op::SetMac { ns, link, mac } => write!(f, "ip -n {ns} link set {link} address {mac}"),
            Op::SetMtu { ns, link, mtu } => write!(f, "ip -n {ns} link set {link} mtu {}", mtu.get()),
            Op::SetMaster { ns, link, master: Some(master) } => write!(f, "ip -n {ns} link set {link} master {master}"),
            Op::SetMaster { ns, link, master: None } => write!(f, "ip -n {ns} link set {link} nomaster"),
            Op::SetPort { ns, link, port } => write!(
                f,
                "bridge -n {ns} link set dev {link} hairpin {} learning {} flood {} mcast_flood {}",
                flag(port.hairpin),
                flag(port.learning),
                flag(port.flood),
                flag(port.mcast_flood)
            ),
            Op::SetUp { ns, link, up: yes } => write!(f, "ip -n {ns} link set {link} {}", up(yes)),
            Op::AddAddress { ns, link, address } => {
                write!(f, "ip -n {ns} addr add {address} dev {link}")?;
                if address.addr().is_ipv6() { write!(f, " nodad") } else { Ok(()) }
            }
            Op::DelAddress { ns, link, address } => write!(f, "ip -n {ns} addr del {address} dev {link}"),
            Op::AddFdb { ns, link, entry } => {
                write!(f, "bridge -n {ns} fdb append {} dev {link} dst {}", entry.mac, entry.dst)
            }
            Op::DelFdb { ns, link, entry } => {
                write!(f, "bridge -n {ns} fdb del {} dev {link} dst {}", entry.mac, entry.dst)
            }
            Op::AddBridgeFdb { ns, link, mac } => {
                write!(f, "bridge -n {ns} fdb replace {mac} dev {link} master static")
            }
            Op::DelBridgeFdb { ns, link, mac } => write!(f, "bridge -n {ns} fdb del {mac} dev {link} master"),
            Op::SetNeighbour { ns, link, entry } => {
                write!(f, "ip -n {ns} neigh replace {} lladdr {} dev {link} nud permanent", entry.ip, entry.mac)
            }
            Op::DelNeighbour { ns, link, ip } => write!(f, "ip -n {ns} neigh del {ip} dev {link}"),
            Op::AddRoute { ns, route } | Op::DelRoute { ns, route } => {
                let verb = if matches!(self, Op::AddRoute { .. }) { "add" } else { "del" };
                write!(f, "ip -n {ns} route {verb} {}", route.to)?;
                if let Some(via) = route.via {
                    write!(f, " via {via}")?;
                }
                write!(f, " dev {}", route.link)
            }
            Op::ReplaceTable { ns, family, digest, .. } => {
                write!(f, "ip netns exec {ns} nft -f - # table {family} {}, {digest}", family.table())
            }
            Op::DelTable { ns, family } => write!(f, "ip netns exec {ns} nft delete table {family} {}", family.table()),
            Op::ForgetFlows { ns, flows } => {
                for (nth, flow) in flows.iter().enumerate() {
                    let state = if flow.opening { " --state SYN_SENT" } else { "" };
                    let Flow { transport, to, answers, .. } = flow;
                    write!(f, "{}ip netns exec {ns} conntrack -D -p {transport}", if nth == 0 { "" } else { "; " })?;
                    write!(f, " --orig-dst {} --orig-port-dst {}", to.ip(), to.port())?;
                    write!(f, " --reply-src {} --reply-port-src {}{state}", answers.ip(), answers.port())?;
                }
                Ok(())
            }
        }
    }
}
