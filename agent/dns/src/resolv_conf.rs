//! The host's own resolvers, out of its resolv.conf(5).

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

pub(crate) const DNS_PORT: u16 = 53;

/// The servers that a resolv.conf names, in order and each once. A line that cannot be read is passed over, as
/// libc does; so is a link-local server whose zone is a link's name, because nothing here may look links up.
pub fn upstream_servers(resolv_conf: &str) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for line in resolv_conf.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        if let Some(server) = words.next().and_then(server)
            && !servers.contains(&server)
        {
            servers.push(server);
        }
    }
    servers
}

fn server(word: &str) -> Option<SocketAddr> {
    if let Some((ip, zone)) = word.split_once('%') {
        let ip: Ipv6Addr = ip.parse().ok()?;
        return Some(SocketAddrV6::new(ip, DNS_PORT, 0, zone.parse().ok()?).into());
    }
    let ip: IpAddr = word.parse().ok()?;
    Some((ip, DNS_PORT).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_servers_and_nothing_else_is() {
        let text = "# nameserver 9.9.9.9\n; nameserver 8.8.8.8\nsearch example.com\n\tnameserver 10.0.0.2 # mine\n\
                    nameserver fd00::53\nnameserver 10.0.0.2\nnameserver\nnameserver dns.example\n\
                    nameserver fe80::1%3\nnameserver fe80::1%eth0\nnameservers 1.1.1.1\noptions edns0\r\n";
        let got: Vec<String> = upstream_servers(text).iter().map(ToString::to_string).collect();
        assert_eq!(got, ["10.0.0.2:53", "[fd00::53]:53", "[fe80::1%3]:53"]);
        assert!(upstream_servers("").is_empty());
    }
}
