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
        let policy = Self {
            condition: parsed("condition", &p.condition)?,
            delay: Duration::from_millis(p.delay_ms),
            max_attempts: p.max_attempts,
            window: Duration::from_millis(p.window_ms),
        };
        policy.holds()?;
        Ok(policy)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_restarts_that_could_never_be_reached_is_refused() {
        let refused = |delay_ms, max_attempts, window_ms| {
            let on_wire = pb::RestartPolicy { condition: "any".to_owned(), delay_ms, max_attempts, window_ms };
            RestartPolicy::try_from(on_wire).err().map(|e| e.to_string())
        };
        for (delay_ms, max_attempts, window_ms) in
            [(5000, 0, 1), (5000, 3, 0), (5000, 3, 15_001), (0, 3, 1), (5000, 100, 0), (5000, 1, 5001)]
        {
            assert_eq!(refused(delay_ms, max_attempts, window_ms), None, "{delay_ms} {max_attempts} {window_ms}");
        }
        for (delay_ms, max_attempts, window_ms, says) in [
            (5000, 3, 2000, "window: \"2s\""),
            (5000, 3, 15_000, "more than 15s, which 3 restarts take with a delay of 5s"),
            (5000, 101, 0, "1 to 100, or 0 for no limit"),
        ] {
            let said = refused(delay_ms, max_attempts, window_ms).unwrap_or_default();
            assert!(said.contains(says), "{said}");
        }
    }
}
