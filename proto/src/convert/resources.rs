//! CPU, memory and processes. Absent on the wire: unlimited, nothing set aside.

use crate::pb;
use shoal_common::{
    Invalid,
    service::{Amount, Resources},
};

use super::field::Inside;

impl TryFrom<pb::Amount> for Amount {
    type Error = Invalid;

    fn try_from(a: pb::Amount) -> Result<Self, Invalid> {
        // A cgroup's memory limit is a signed 64-bit number.
        if i64::try_from(a.memory_bytes).is_err() {
            return Err(Invalid::new("memory_bytes", a.memory_bytes, "at most 9223372036854775807"));
        }
        Ok(Self { nano_cpus: a.nano_cpus, memory_bytes: a.memory_bytes })
    }
}

impl From<Amount> for pb::Amount {
    fn from(a: Amount) -> Self {
        Self { nano_cpus: a.nano_cpus, memory_bytes: a.memory_bytes }
    }
}

impl TryFrom<pb::Resources> for Resources {
    type Error = Invalid;

    fn try_from(r: pb::Resources) -> Result<Self, Invalid> {
        Ok(Self {
            limits: r.limits.unwrap_or_default().try_into().inside("limits")?,
            reservations: r.reservations.unwrap_or_default().try_into().inside("reservations")?,
            pids_limit: r.pids_limit,
        })
    }
}

impl From<Resources> for pb::Resources {
    fn from(r: Resources) -> Self {
        Self { limits: Some(r.limits.into()), reservations: Some(r.reservations.into()), pids_limit: r.pids_limit }
    }
}
