//! Addresses spelt as names, for reverse look-ups.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::labels::Labels;

/// The address that `4.3.2.1.in-addr.arpa` or its IPv6 equal (RFC 3596 §2.5) stands for.
pub(crate) fn address(labels: &Labels) -> Option<IpAddr> {
    let n = labels.count();
    if n < 2 || labels.label(n - 1) != b"arpa" {
        return None;
    }
    match (labels.label(n - 2), n - 2) {
        (b"in-addr", 4) => {
            let mut octets = [0u8; 4];
            for (i, octet) in octets.iter_mut().rev().enumerate() {
                let text = std::str::from_utf8(labels.label(i)).ok()?;
                // `parse` would take `+1` and `01`.
                *octet = text.parse().ok().filter(|o: &u8| o.to_string() == text)?;
            }
            Some(Ipv4Addr::from(octets).into())
        }
        (b"ip6", 32) => {
            let mut bits = 0u128;
            for i in 0..32 {
                let &[digit] = labels.label(i) else { return None };
                bits |= u128::from(char::from(digit).to_digit(16)?) << (4 * i);
            }
            Some(Ipv6Addr::from(bits).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::Name;

    #[test]
    fn an_address_reads_back_from_its_reverse_name() {
        for ip in ["10.0.1.2", "255.0.0.254", "fd00:9::1f", "::"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(address(&Labels::of(&Name::from(ip))), Some(ip));
        }
        for bad in [
            "1.10.in-addr.arpa",
            "01.0.0.10.in-addr.arpa",
            "256.0.0.10.in-addr.arpa",
            "arpa",
            "web",
            "1.2.3.4.ip6.arpa",
        ] {
            assert_eq!(address(&Labels::parse(bad).unwrap()), None, "{bad}");
        }
    }
}
