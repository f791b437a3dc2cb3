//! Small values of the command line as people write and read them.

use ipnet::IpNet;
use shoal_common::service::{Protocol, Resources};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyValue {
    pub(crate) key: String,
    pub(crate) value: String,
}

pub(crate) fn key_value(s: &str) -> Result<KeyValue, String> {
    let (key, value) = s.split_once('=').unwrap_or((s, ""));
    if key.is_empty() {
        return Err("KEY=VALUE".to_owned());
    }
    Ok(KeyValue { key: key.to_owned(), value: value.to_owned() })
}

pub(crate) fn ip(s: &str) -> Result<IpAddr, String> {
    s.parse().map_err(|_| "an IP address such as 10.0.1.3 or fd00::3".to_owned())
}

pub(crate) fn ip4(s: &str) -> Result<Ipv4Addr, String> {
    s.parse().map_err(|_| "an IPv4 address such as 10.0.1.3".to_owned())
}

pub(crate) fn ip6(s: &str) -> Result<Ipv6Addr, String> {
    s.parse().map_err(|_| "an IPv6 address such as fd00::3".to_owned())
}

pub(crate) fn subnet(s: &str) -> Result<IpNet, String> {
    s.parse().map_err(|_| "a subnet such as 10.0.1.0/24 or fd00::/64".to_owned())
}

/// `10s`, `1m30s`, `500ms`; a bare 0 too.
pub(crate) fn duration(s: &str) -> Result<Duration, String> {
    if s == "0" {
        return Ok(Duration::ZERO);
    }
    humantime::parse_duration(s).map_err(|_| "a duration such as 500ms, 10s or 1m30s".to_owned())
}

/// `512m`, `1g`, `1.5GiB`: powers of 1024, as Docker counts.
pub(crate) fn bytes(s: &str) -> Result<u64, String> {
    let expected = || "a number of bytes such as 512m or 1g".to_owned();
    let digits = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
    let (number, unit) = s.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(expected()),
    };
    scaled(number, 1 << shift).ok_or_else(expected)
}

/// Billionths of a core out of `0.5`.
/// Of processes, as Docker writes it: -1, and 0, are no limit.
pub(crate) fn pids(s: &str) -> Result<u64, String> {
    match s {
        "0" | "-1" => Ok(Resources::PIDS_UNLIMITED),
        _ => s.parse().map_err(|_| "a number of processes such as 200, or -1 for no limit".to_owned()),
    }
}

pub(crate) fn cpus(s: &str) -> Result<u64, String> {
    scaled(s, 1_000_000_000).ok_or_else(|| "a number of cores such as 0.5 or 2".to_owned())
}

/// A decimal number times `unit`, exactly: no float rounds it.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = whole.parse().ok()?;
    let part = match fraction {
        "" => 0,
        f => {
            let n: u64 = f.parse().ok()?;
            let denominator = 10u128.pow(u32::try_from(f.len()).ok()?);
            u64::try_from(u128::from(n) * u128::from(unit) / denominator).ok()?
        }
    };
    whole.checked_mul(unit)?.checked_add(part)
}

/// A network as `--network` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) network: String,
    pub(crate) aliases: Vec<String>,
}

pub(crate) fn attachment(s: &str) -> Result<Attachment, String> {
    if !s.contains('=') {
        return Ok(Attachment { network: s.to_owned(), aliases: vec![] });
    }
    let mut out = Attachment { network: String::new(), aliases: vec![] };
    for part in s.split(',') {
        match part.split_once('=') {
            Some(("name", v)) => v.clone_into(&mut out.network),
            Some(("alias", v)) => out.aliases.push(v.to_owned()),
            Some((k @ ("driver-opt" | "mac-address" | "ip" | "ip6"), _)) => {
                return Err(format!("{k} is not built yet for services"));
            }
            Some(_) | None => return Err("NAME, or name=NAME,alias=ALIAS".to_owned()),
        }
    }
    if out.network.is_empty() { Err("name=NAME is missing".to_owned()) } else { Ok(out) }
}

/// A port that a service offers inside its networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
}

pub(crate) fn port(s: &str) -> Result<Port, String> {
    let expected = || "NAME=PORT[/tcp|udp], such as http=80/tcp".to_owned();
    let (name, rest) = s.split_once('=').ok_or_else(expected)?;
    let (number, protocol) = rest.split_once('/').unwrap_or((rest, "tcp"));
    let port = number.parse().ok().filter(|p| *p > 0).ok_or_else(expected)?;
    Ok(Port { name: name.to_owned(), port, protocol: protocol.parse().map_err(|_| expected())? })
}

/// A command in one argument, split as a shell would, without expanding anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Words(pub(crate) Vec<String>);

pub(crate) fn words(s: &str) -> Result<Words, String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut chars = s.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some('\''), '\'') | (Some('"'), '"') => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                let next = chars.next().ok_or_else(|| "nothing follows the last backslash".to_owned())?;
                // Inside of double quotes a shell keeps a backslash that escapes nothing.
                if quote.is_some() && !matches!(next, '"' | '\\' | '$' | '`') {
                    word.get_or_insert_default().push('\\');
                }
                word.get_or_insert_default().push(next);
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(q) = quote {
        return Err(format!("{q} is opened and not closed"));
    }
    out.extend(word);
    Ok(Words(out))
}

/// Whole seconds, as Docker takes them; `10s` too.
pub(crate) fn seconds(s: &str) -> Result<u64, String> {
    s.parse().or_else(|_| duration(s).map(|d| d.as_secs())).map_err(|_| "a number of seconds".to_owned())
}

/// Where logs begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Since {
    Ago(Duration),
    At { epoch_ms: u64 },
}

pub(crate) fn since(s: &str) -> Result<Since, String> {
    if let Ok(d) = duration(s) {
        return Ok(Since::Ago(d));
    }
    if let Ok(seconds) = s.parse::<u64>() {
        return Ok(Since::At { epoch_ms: seconds.saturating_mul(1000) });
    }
    let expected = "a duration such as 10m, a time such as 2026-01-31T13:00:00Z, or seconds since 1970";
    let at = humantime::parse_rfc3339_weak(s).map_err(|_| expected.to_owned())?;
    let since_epoch = at.duration_since(std::time::UNIX_EPOCH).map_err(|_| expected.to_owned())?;
    Ok(Since::At { epoch_ms: u64::try_from(since_epoch.as_millis()).map_err(|_| expected.to_owned())? })
}

/// `5 minutes`, as Docker rounds.
pub(crate) fn approximately(d: Duration) -> String {
    let s = d.as_secs();
    let many = |n: u64, unit: &str| if n == 1 { format!("1 {unit}") } else { format!("{n} {unit}s") };
    match s {
        0 => "less than a second".to_owned(),
        1..=59 => many(s, "second"),
        60..=3_599 => many(s / 60, "minute"),
        3_600..=172_799 => many(s / 3_600, "hour"),
        172_800..=1_209_599 => many(s / 86_400, "day"),
        _ => many(s / 604_800, "week"),
    }
}

/// `1.5MB`, powers of 1000 as `docker image ls` shows them.
pub(crate) fn size(bytes: u64) -> String {
    let mut unit = 1;
    for name in ["B", "kB", "MB", "GB", "TB"] {
        if bytes < unit * 1000 || name == "TB" {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return match (unit, tenths % 10) {
                (1, _) | (_, 0) => format!("{}{name}", tenths / 10),
                (_, tenth) => format!("{}.{tenth}{name}", tenths / 10),
            };
        }
        unit *= 1000;
    }
    format!("{bytes}B")
}

/// `2026-01-31T13:00:00.123Z`.
pub(crate) fn rfc3339(epoch_ms: u64) -> String {
    // Beyond the year 9999 there is no RFC 3339, and humantime refuses.
    let shown = Duration::from_millis(epoch_ms.min(253_402_300_799_999));
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + shown).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly() {
        for (text, want) in [("512m", 512 << 20), ("1g", 1 << 30), ("1.5GiB", 3 << 29), ("100", 100), ("64kb", 65536)] {
            assert_eq!(bytes(text), Ok(want), "{text}");
        }
        for (text, want) in [("0.5", 500_000_000), ("2", 2_000_000_000), ("0.000000001", 1)] {
            assert_eq!(cpus(text), Ok(want), "{text}");
        }
        for bad in ["", "m", "1x", "-1", "1..2", ".5", "99999999999999999999g"] {
            assert!(bytes(bad).is_err() && cpus(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_command_in_one_word_is_split_as_a_shell_would() {
        for (text, want) in [
            ("nginx -g 'daemon off;'", vec!["nginx", "-g", "daemon off;"]),
            (r#"sh -c "echo \"a b\"""#, vec!["sh", "-c", r#"echo "a b""#]),
            (r"a\ b  c", vec!["a b", "c"]),
            ("''", vec![""]),
            ("", vec![]),
            (r#""a\n""#, vec![r"a\n"]),
        ] {
            assert_eq!(words(text), Ok(Words(want.into_iter().map(str::to_owned).collect())), "{text}");
        }
        assert!(words("'open").is_err() && words("end\\").is_err());
    }

    #[test]
    fn networks_and_ports_are_read_in_both_notations() {
        assert_eq!(attachment("blue"), Ok(Attachment { network: "blue".into(), aliases: vec![] }));
        assert_eq!(
            attachment("name=blue,alias=db,alias=sql"),
            Ok(Attachment { network: "blue".into(), aliases: vec!["db".into(), "sql".into()] })
        );
        assert!(attachment("alias=db").is_err() && attachment("name=b,what=1").is_err());
        assert_eq!(port("http=80"), Ok(Port { name: "http".into(), port: 80, protocol: Protocol::Tcp }));
        assert_eq!(port("dns=53/udp"), Ok(Port { name: "dns".into(), port: 53, protocol: Protocol::Udp }));
        for bad in ["80", "http=0", "http=70000", "http=80/icmp"] {
            assert!(port(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_and_sizes_are_shown_as_docker_shows_them() {
        assert_eq!(approximately(Duration::from_secs(61)), "1 minute");
        assert_eq!(approximately(Duration::from_secs(86_400)), "24 hours");
        assert_eq!(size(999), "999B");
        assert_eq!(size(4_290_000), "4.2MB");
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(since("1970-01-01T00:00:01Z"), Ok(Since::At { epoch_ms: 1000 }));
        assert_eq!(since("10m"), Ok(Since::Ago(Duration::from_secs(600))));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
    }
}
