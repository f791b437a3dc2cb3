//! Reading one field: every complaint names it.

use ipnet::IpNet;
use shoal_common::{Invalid, name::Labels};
use std::{collections::BTreeMap, fmt::Display, net::IpAddr, str::FromStr, time::Duration};

/// An enum's value, which prost carries as `i32`. Unspecified and unknown values are refused.
pub fn enumerated<P, C>(field: &str, n: i32) -> Result<C, Invalid>
where
    P: TryFrom<i32>,
    C: TryFrom<P, Error = Invalid>,
{
    let known = P::try_from(n).map_err(|_| Invalid::new(field, n, "a value that this version knows"))?;
    C::try_from(known).map_err(|e| e.at(field))
}

/// The same where "unspecified" means something, such as "as it is".
pub fn enumerated_unless_unspecified<P, C>(field: &str, n: i32) -> Result<Option<C>, Invalid>
where
    P: TryFrom<i32>,
    C: TryFrom<P, Error = Invalid>,
{
    if n == 0 { Ok(None) } else { enumerated::<P, C>(field, n).map(Some) }
}

/// A common enum and its like-named counterpart on the wire.
macro_rules! enumeration {
    ($common:path, $wire:path, $field:literal, [$($variant:ident),+]) => {
        impl From<$common> for $wire {
            fn from(v: $common) -> Self {
                match v {
                    $(<$common>::$variant => <$wire>::$variant),+
                }
            }
        }

        impl TryFrom<$wire> for $common {
            type Error = shoal_common::Invalid;
            fn try_from(v: $wire) -> Result<Self, shoal_common::Invalid> {
                match v {
                    <$wire>::Unspecified => {
                        Err(shoal_common::Invalid::new($field, "unspecified", concat!("one of ", stringify!($($variant),+))))
                    }
                    $(<$wire>::$variant => Ok(<$common>::$variant)),+
                }
            }
        }
    };
}
pub(super) use enumeration;

/// Puts the complaint of an inner value under the outer value's field.
pub(super) trait Inside {
    fn inside(self, path: impl Display) -> Self;
}

impl Inside for Invalid {
    fn inside(self, path: impl Display) -> Self {
        let field = format!("{path}.{}", self.field);
        self.at(field)
    }
}

impl<T> Inside for Result<T, Invalid> {
    fn inside(self, path: impl Display) -> Self {
        self.map_err(|e| e.inside(path))
    }
}

pub(super) fn required<T>(field: &str, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::new(field, "", "a value, and none was given"))
}

/// A message inside of a message that may not be absent.
pub(super) fn message<M, C: TryFrom<M, Error = Invalid>>(field: &str, value: Option<M>) -> Result<C, Invalid> {
    C::try_from(required(field, value)?).inside(field)
}

/// One of our own types out of its text.
pub(super) fn parsed<T: FromStr<Err = Invalid>>(field: impl Into<String>, text: &str) -> Result<T, Invalid> {
    text.parse().map_err(|e: Invalid| e.at(field))
}

/// Somebody else's type out of its text.
pub(super) fn read<T: FromStr>(field: impl Into<String>, text: &str, expected: &str) -> Result<T, Invalid> {
    text.parse().map_err(|_| Invalid::new(field, text, expected))
}

pub(super) fn read_unless_empty<T: FromStr>(field: &str, text: &str, expected: &str) -> Result<Option<T>, Invalid> {
    if text.is_empty() { Ok(None) } else { read(field, text, expected).map(Some) }
}

pub(super) const AN_ADDRESS: &str = "an IP address such as 10.0.1.3 or fd00::3";
pub(super) const AN_IPV4_ADDRESS: &str = "an IPv4 address such as 10.0.1.3";
pub(super) const AN_IPV6_ADDRESS: &str = "an IPv6 address such as fd00::3";
pub(super) const A_SUBNET: &str = "a subnet such as 10.0.1.0/24 or fd00::/64";
pub(super) const A_SOCKET_ADDRESS: &str = "an address and port such as 192.0.2.1:2377 or [2001:db8::1]:2377";

pub(super) fn address(field: impl Into<String>, text: &str) -> Result<IpAddr, Invalid> {
    read(field, text, AN_ADDRESS)
}

pub(super) fn subnet(field: impl Into<String>, text: &str) -> Result<IpNet, Invalid> {
    read(field, text, A_SUBNET)
}

/// Ids count from 1, so 0 is a field that was left out.
pub(super) fn id<T>(field: impl Into<String>, n: u64, wrap: impl FnOnce(u64) -> T) -> Result<T, Invalid> {
    if n == 0 { Err(Invalid::new(field, n, "an id, which is above 0")) } else { Ok(wrap(n)) }
}

pub(super) fn port(field: impl Into<String>, n: u32) -> Result<u16, Invalid> {
    match u16::try_from(n) {
        Ok(p) if p > 0 => Ok(p),
        Ok(_) | Err(_) => Err(Invalid::new(field, n, "a port from 1 to 65535")),
    }
}

pub(super) fn not_empty(field: &str, text: String, expected: &str) -> Result<String, Invalid> {
    if text.is_empty() { Err(Invalid::new(field, text, expected)) } else { Ok(text) }
}

/// What ends up in a C string (`execve`, `sethostname`) holds no NUL.
pub(super) fn without_nul(field: impl Into<String>, text: &str) -> Result<(), Invalid> {
    if text.contains('\0') { Err(Invalid::new(field, text, "text without NUL")) } else { Ok(()) }
}

pub(super) fn labels(field: &str, labels: BTreeMap<String, String>) -> Result<Labels, Invalid> {
    match labels.get("") {
        Some(value) => Err(Invalid::new(field, format!("={value}"), "labels that have a key")),
        None => Ok(labels),
    }
}

pub(super) fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|v| v.to_string()).unwrap_or_default()
}
/// Of the reason that a host tells for a state. Each is kept in the log and in the memory of every manager.
const REPORT_MESSAGE_BYTES: usize = 1 << 10;

/// A reason longer than that is cut where it arrives, so that no host fills the log of the managers.
pub(super) fn report_message(text: String) -> String {
    shoal_common::text::cut(text, REPORT_MESSAGE_BYTES)
}
