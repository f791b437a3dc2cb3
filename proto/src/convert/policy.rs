//! When to restart, where to place, how to update.

use crate::pb;
use shoal_common::{
    Invalid,
    service::{Placement, RestartPolicy, UpdatePolicy},
};
use std::time::Duration;

use super::field::{millis, parsed};

impl TryFrom<pb::RestartPolicy> for RestartPolicy {
    type Error = Invalid;

    fn try_from(p: pb::RestartPolicy) -> Result<Self, Invalid> {
        Ok(Self {
            condition: parsed("condition", &p.condition)?,
            delay: Duration::from_millis(p.delay_ms),
            max_attempts: p.max_attempts,
            window: Duration::from_millis(p.window_ms),
        })
    }
}

impl From<RestartPolicy> for pb::RestartPolicy {
    fn from(p: RestartPolicy) -> Self {
        Self {
            condition: p.condition.to_string(),
            delay_ms: millis(p.delay),
            max_attempts: p.max_attempts,
            window_ms: millis(p.window),
        }
    }
}

impl TryFrom<pb::Placement> for Placement {
    type Error = Invalid;

    fn try_from(p: pb::Placement) -> Result<Self, Invalid> {
        Ok(Self {
            constraints: p
                .constraints
                .iter()
                .enumerate()
                .map(|(i, c)| parsed(format!("constraints[{i}]"), c))
                .collect::<Result<_, _>>()?,
            max_replicas_per_node: p.max_replicas_per_node,
        })
    }
}

impl From<Placement> for pb::Placement {
    fn from(p: Placement) -> Self {
        Self {
            constraints: p.constraints.iter().map(ToString::to_string).collect(),
            max_replicas_per_node: p.max_replicas_per_node,
        }
    }
}

impl TryFrom<pb::UpdatePolicy> for UpdatePolicy {
    type Error = Invalid;

    fn try_from(p: pb::UpdatePolicy) -> Result<Self, Invalid> {
        Ok(Self { parallelism: p.parallelism, delay: Duration::from_millis(p.delay_ms) })
    }
}

impl From<UpdatePolicy> for pb::UpdatePolicy {
    fn from(p: UpdatePolicy) -> Self {
        Self { parallelism: p.parallelism, delay_ms: millis(p.delay) }
    }
}
