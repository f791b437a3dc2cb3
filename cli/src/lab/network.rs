//! The underlay: a switch in a network namespace of its own, and a cable to each host. The machine's own namespace
//! sees none of it, and the hosts have no way out of the machine.

use nix::sched::{CloneFlags, setns};
use std::{
    fs,
    io::{self, Write as _},
    process::{Command, Stdio},
    thread,
};

use super::{name::HostName, process::Process, state::MAIN_BRIDGE};
use crate::failure::{Exit, Failure};

/// The switch's own addresses: what a default route of a host points to, and nothing is behind it.
const GATEWAY_V4: &str = "172.31.0.1";
const GATEWAY_V6: &str = "fd5a:10ab::1";
const PREFIX_V4: u8 = 24;
const PREFIX_V6: u8 = 64;

/// The main bridge, its addresses, and a prompt "unreachable" for everything beyond.
pub(super) fn build_switch(switch: &Process) -> Result<(), Failure> {
    sysctls(switch)?;
    ip(
        switch,
        &[
            "link set lo up".to_owned(),
            add_bridge(MAIN_BRIDGE),
            format!("addr add {GATEWAY_V4}/{PREFIX_V4} dev br{MAIN_BRIDGE}"),
            format!("addr add {GATEWAY_V6}/{PREFIX_V6} dev br{MAIN_BRIDGE} nodad"),
            format!("link set br{MAIN_BRIDGE} up"),
            "route add unreachable 0.0.0.0/0".to_owned(),
            "route add unreachable ::/0".to_owned(),
        ],
    )
}

fn add_bridge(bridge: u32) -> String {
    format!("link add br{bridge} type bridge forward_delay 0 stp_state 0 mcast_snooping 0")
}

/// Forwarding, so that there is someone to answer "unreachable"; and frames that cross a bridge are no packets of
/// the switch.
fn sysctls(switch: &Process) -> Result<(), Failure> {
    let set = || {
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            ("bridge/bridge-nf-call-iptables", "0"),
            ("bridge/bridge-nf-call-ip6tables", "0"),
            ("bridge/bridge-nf-call-arptables", "0"),
        ] {
            match fs::write(format!("/proc/sys/net/{key}"), value) {
                // The module is not loaded.
                Err(e) if e.kind() == io::ErrorKind::NotFound && key.starts_with("bridge/") => {}
                other => other?,
            }
        }
        Ok(())
    };
    inside(switch, set).map_err(|e| Failure::new(Exit::General, format!("cannot set up the lab's switch: {e}")))
}

/// A cable from the host's eth0 to the switch, and the host's addresses and routes.
pub(super) fn plug(switch: &Process, host: HostName, init: &Process, bridge: u32) -> Result<(), Failure> {
    let (mac, pid) = (host.mac(), init.pid());
    ip(
        switch,
        &[
            format!("link add {host} type veth peer name eth0 address {mac} netns {pid}"),
            format!("link set {host} master br{bridge}"),
            format!("link set {host} up"),
        ],
    )?;
    ip(
        init,
        &[
            "link set lo up".to_owned(),
            format!("addr add {}/{PREFIX_V4} dev eth0", host.v4()),
            format!("addr add {}/{PREFIX_V6} dev eth0 nodad", host.v6()),
            "link set eth0 up".to_owned(),
            format!("route add 0.0.0.0/0 via {GATEWAY_V4}"),
            format!("route add ::/0 via {GATEWAY_V6}"),
        ],
    )
}

/// Pulls the cable; nothing to do if there is none.
pub(super) fn unplug(switch: &Process, host: HostName) -> Result<(), Failure> {
    let present = inside(switch, || Ok(nix::net::if_::if_nametoindex(host.to_string().as_str()).is_ok()));
    match present {
        Ok(true) => ip(switch, &[format!("link del {host}")]),
        Ok(false) => Ok(()),
        Err(e) => Err(Failure::new(Exit::General, format!("cannot enter the lab's switch: {e}"))),
    }
}

/// Moves cables to a new bridge: what they carried to others stops at once, flows that are under way too.
pub(super) fn cut_off(switch: &Process, hosts: &[HostName], bridge: u32) -> Result<(), Failure> {
    let mut script = vec![add_bridge(bridge), format!("link set br{bridge} up")];
    script.extend(hosts.iter().map(|host| format!("link set {host} master br{bridge}")));
    ip(switch, &script)
}

/// Moves cables back, and removes bridges that nobody is on any more.
pub(super) fn heal(switch: &Process, hosts: &[HostName], bridges: &[u32]) -> Result<(), Failure> {
    let mut script: Vec<String> = hosts.iter().map(|host| format!("link set {host} master br{MAIN_BRIDGE}")).collect();
    script.extend(bridges.iter().map(|bridge| format!("link del br{bridge}")));
    if script.is_empty() { Ok(()) } else { ip(switch, &script) }
}

/// Runs lines of `ip` in the process's network namespace; the first that fails ends it.
fn ip(place: &Process, script: &[String]) -> Result<(), Failure> {
    let run = || {
        let mut ip = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        // It reads no further than a line that fails, and says which; then the pipe is broken.
        let written =
            ip.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all((script.join("\n") + "\n").as_bytes()));
        let output = ip.wait_with_output()?;
        if output.status.success() {
            return written;
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        Err(io::Error::other(format!("'ip' said: {said}; it was told: {}", script.join("; "))))
    };
    inside(place, run).map_err(|e| Failure::new(Exit::General, format!("cannot set up the lab's network: {e}")))
}

/// Runs `f` in the process's network namespace, on a thread of its own that ends with it.
#[allow(clippy::disallowed_methods, reason = "on a thread of its own, in a process without an async runtime")]
fn inside<T: Send>(place: &Process, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let handle = place.open()?.ok_or_else(|| io::Error::other("the process that holds the namespace is gone"))?;
    let enter = move || {
        setns(handle, CloneFlags::CLONE_NEWNET)?;
        f()
    };
    thread::scope(|scope| match thread::Builder::new().name("netns".into()).spawn_scoped(scope, enter)?.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Said before anything is made.
pub(super) fn check_programs() -> Result<(), Failure> {
    match Command::new("ip").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(_) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Failure::new(Exit::General, "the program 'ip' is missing: install iproute2"))
        }
        Err(e) => Err(Failure::new(Exit::General, format!("cannot run 'ip': {e}"))),
    }
}
