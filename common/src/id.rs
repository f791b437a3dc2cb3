//! Identities. The log allocates them, in one ascending sequence, and none is ever used twice.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

use crate::Invalid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // `pad` so that `{:<12}` aligns in tables.
                f.pad(&format!(concat!($prefix, "-{}"), self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = Invalid;
            fn from_str(s: &str) -> Result<Self, Invalid> {
                s.strip_prefix(concat!($prefix, "-"))
                    .and_then(|n| n.parse().ok())
                    .map($name)
                    .ok_or_else(|| Invalid::new("id", s, concat!("an id such as ", $prefix, "-12")))
            }
        }
    };
}

id!(/// A host of the cluster. Also its Raft node id: reuse could split a cluster, so there is none.
    NodeId, "node");
id!(/// A network.
    NetworkId, "net");
id!(/// A service.
    ServiceId, "svc");
id!(/// A task: one scheduled instance of a service. A replacement is another task.
    TaskId, "task");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        assert_eq!("svc-12".parse::<ServiceId>(), Ok(ServiceId(12)));
        assert_eq!(ServiceId(12).to_string(), "svc-12");
        assert!("net-12".parse::<ServiceId>().is_err());
        assert!("svc-".parse::<ServiceId>().is_err());
    }
}
