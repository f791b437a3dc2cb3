//! Settings: flags before the file, the file before the defaults.

use anyhow::{Context, bail};
use shoal_common::{Mtu, node::DefaultBridge, subnet::SubnetSpec};
use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use crate::args::{
    DEFAULT_SOCKET,
    daemon::{DEFAULT_CONFIG, Daemon, Settings},
};

pub(crate) const DEFAULT_PORT: u16 = 2377;
pub(crate) const DEFAULT_DATA_PATH_PORT: u16 = 4789;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) socket: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) run_dir: PathBuf,
    pub(crate) listen_addr: SocketAddr,
    pub(crate) advertise_addr: Option<IpAddr>,
    pub(crate) data_path_port: u16,
    pub(crate) cgroup_parent: String,
    /// `None`: it has none.
    pub(crate) default_bridge: Option<DefaultBridge>,
}

impl Config {
    /// `socket` is the global flag; it counts only if it is not the default.
    pub(crate) fn read(args: &Daemon, socket: &Path) -> anyhow::Result<Self> {
        let file = match &args.config {
            Some(path) => {
                Some(std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?)
            }
            None => match std::fs::read_to_string(DEFAULT_CONFIG) {
                Ok(text) => Some(text),
                Err(e) if e.kind() == io::ErrorKind::NotFound => None,
                Err(e) => return Err(e).with_context(|| format!("cannot read {DEFAULT_CONFIG}")),
            },
        };
        let named = args.config.as_deref().unwrap_or(Path::new(DEFAULT_CONFIG));
        let file: Settings = match file {
            Some(text) => toml::from_str(&text).with_context(|| format!("{} is not understood", named.display()))?,
            None => Settings::default(),
        };
        Self::merge(&args.settings, file, socket)
    }

    fn merge(flags: &Settings, file: Settings, socket: &Path) -> anyhow::Result<Self> {
        let default_bridge = default_bridge(flags, &file)?;
        let socket = if socket == Path::new(DEFAULT_SOCKET) { file.socket } else { Some(socket.to_owned()) };
        let config = Self {
            socket: socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            data_dir: flags.data_dir.clone().or(file.data_dir).unwrap_or_else(|| "/var/lib/shoal".into()),
            run_dir: flags.run_dir.clone().or(file.run_dir).unwrap_or_else(|| "/run/shoal".into()),
            listen_addr: flags
                .listen_addr
                .or(file.listen_addr)
                .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], DEFAULT_PORT))),
            advertise_addr: flags.advertise_addr.or(file.advertise_addr),
            data_path_port: flags.data_path_port.or(file.data_path_port).unwrap_or(DEFAULT_DATA_PATH_PORT),
            default_bridge,
            cgroup_parent: flags.cgroup_parent.clone().or(file.cgroup_parent).unwrap_or_else(|| "/shoal".to_owned()),
        };
        if config.listen_addr.port() == 0 {
            bail!("listen-addr {}: other hosts must know the port, so it cannot be 0", config.listen_addr);
        }
        if !config.cgroup_parent.starts_with('/') || config.cgroup_parent.contains("..") {
            bail!(
                "cgroup-parent {:?}: expected a path from the root of the hierarchy, like /shoal",
                config.cgroup_parent
            );
        }
        Ok(config)
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.data_dir.join("identity")
    }

    pub(crate) fn raft_dir(&self) -> PathBuf {
        self.data_dir.join("raft")
    }

    pub(crate) fn joining(&self) -> PathBuf {
        self.data_dir.join("joining.json")
    }

    /// Why this member of the managers may not serve again. It goes with the directory, when the host is demoted.
    pub(crate) fn diverged(&self) -> PathBuf {
        self.raft_dir().join("diverged")
    }

    pub(crate) fn joined(&self) -> PathBuf {
        self.data_dir.join("cluster.json")
    }
}

fn default_bridge(flags: &Settings, file: &Settings) -> anyhow::Result<Option<DefaultBridge>> {
    if flags.bridge.is_some() || file.bridge.is_some() {
        let of_it = |s: &Settings| {
            [
                ("bip", s.bip.is_some()),
                ("fixed-cidr", s.fixed_cidr.is_some()),
                ("ipv6", s.ipv6 == Some(true)),
                ("fixed-cidr-v6", s.fixed_cidr_v6.is_some()),
                ("mtu", s.mtu.is_some()),
            ]
        };
        return match of_it(flags).into_iter().chain(of_it(file)).find(|(_, is_given)| *is_given) {
            Some((name, _)) => bail!("{name}: expected only without bridge = none: it is about the default bridge"),
            None => Ok(None),
        };
    }
    let mtu = flags.mtu.or(file.mtu).map(Mtu::try_from).transpose()?;
    let bridge = DefaultBridge {
        bip: flags.bip.or(file.bip),
        fixed_cidr: flags.fixed_cidr.or(file.fixed_cidr),
        ipv6: flags.ipv6.or(file.ipv6).unwrap_or(false),
        fixed_cidr_v6: flags.fixed_cidr_v6.or(file.fixed_cidr_v6),
        mtu,
    };
    // What the managers would refuse, told where it was written.
    let subnet = |net, gateway, ip_range| SubnetSpec { net, gateway, ip_range, aux: BTreeMap::new() }.settle();
    match (bridge.bip, bridge.fixed_cidr) {
        (Some(bip), _) if bip.addr().is_ipv6() => bail!("bip {bip}: expected an IPv4 address and prefix length"),
        (Some(bip), range) => drop(subnet(bip.trunc(), Some(bip.addr()), range).map_err(|e| e.at("bip"))?),
        (None, Some(range)) => bail!("fixed-cidr {range}: expected only together with bip, whose subnet it is part of"),
        (None, None) => {}
    }
    if let Some(net) = bridge.fixed_cidr_v6 {
        if !net.addr().is_ipv6() {
            bail!("fixed-cidr-v6 {net}: expected an IPv6 subnet");
        }
        if !bridge.ipv6 {
            bail!("fixed-cidr-v6 {net}: expected together with ipv6 = true");
        }
        subnet(net, None, None).map_err(|e| e.at("fixed-cidr-v6"))?;
    }
    Ok(Some(bridge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let file: Settings =
            toml::from_str("data-dir = '/srv/shoal'\nlisten-addr = '10.0.0.1:99'\nsocket = '/a.sock'").unwrap();
        let flags = Settings { listen_addr: Some("10.0.0.2:98".parse().unwrap()), ..Settings::default() };
        let config = Config::merge(&flags, file.clone(), Path::new(DEFAULT_SOCKET)).unwrap();
        assert_eq!(config.data_dir, Path::new("/srv/shoal"));
        assert_eq!(config.listen_addr, "10.0.0.2:98".parse().unwrap());
        assert_eq!(
            (config.socket.as_path(), config.run_dir.as_path()),
            (Path::new("/a.sock"), Path::new("/run/shoal"))
        );
        let config = Config::merge(&flags, file, Path::new("/b.sock")).unwrap();
        assert_eq!(config.socket, Path::new("/b.sock"));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_name() {
        assert!(toml::from_str::<Settings>("data-dri = '/x'").unwrap_err().to_string().contains("data-dri"));
        let flags = Settings { listen_addr: Some("0.0.0.0:0".parse().unwrap()), ..Settings::default() };
        let error = Config::merge(&flags, Settings::default(), Path::new("/b")).unwrap_err();
        assert!(error.to_string().starts_with("listen-addr 0.0.0.0:0"), "{error}");
        for (file, field) in [
            ("bip = '172.20.0.0/16'", "bip"),
            ("bip = 'fd00::1/64'", "bip"),
            ("bip = '172.20.0.1/16'\nfixed-cidr = '172.21.0.0/24'", "bip"),
            ("fixed-cidr = '172.21.0.0/24'", "fixed-cidr"),
            ("fixed-cidr-v6 = 'fd00::/64'", "fixed-cidr-v6"),
            ("ipv6 = true\nfixed-cidr-v6 = '10.0.0.0/24'", "fixed-cidr-v6"),
            ("mtu = 7", "mtu"),
            ("bridge = 'none'\nbip = '172.20.0.1/16'", "bip: expected only without bridge = none"),
            ("bridge = 'none'\nfixed-cidr-v6 = 'fd00::/64'", "fixed-cidr-v6"),
            ("bridge = 'none'\nipv6 = true", "ipv6"),
            ("bridge = 'none'\nmtu = 1400", "mtu"),
        ] {
            let error =
                Config::merge(&Settings::default(), toml::from_str(file).unwrap(), Path::new("/b")).unwrap_err();
            assert!(error.to_string().starts_with(field), "{file}: {error}");
        }
    }

    #[test]
    fn a_host_has_a_default_bridge_unless_it_opts_out() {
        let bridge = |file: &str| {
            Config::merge(&Settings::default(), toml::from_str(file).unwrap(), Path::new("/b")).unwrap().default_bridge
        };
        assert_eq!(bridge(""), Some(DefaultBridge::default()));
        assert_eq!(bridge("bridge = 'none'"), None);
        let flags = Settings { bip: Some("172.20.0.1/16".parse().unwrap()), ..Settings::default() };
        let none = toml::from_str("bridge = 'none'").unwrap();
        let refused = Config::merge(&flags, none, Path::new("/b")).unwrap_err().to_string();
        assert!(refused.starts_with("bip"), "{refused}");
        let v6 = bridge("ipv6 = true\nfixed-cidr-v6 = '2001:db8:1::/64'").unwrap();
        assert_eq!(v6.fixed_cidr_v6, Some("2001:db8:1::/64".parse().unwrap()));
    }
}
