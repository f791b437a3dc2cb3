//! Why no node fits, as a sentence with a count for each reason.

use std::{collections::BTreeMap, fmt::Write};

use shoal_common::service::Amount;
use shoal_state::Service;

use super::filter::Refusal;

/// How many nodes refused for one reason, and the most that any of them had left.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) nodes: usize,
    pub(crate) most_left: Amount,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(BTreeMap<Refusal, Tally>);

impl Refusals {
    pub(crate) fn note(&mut self, refusal: Refusal, left: Amount) {
        let tally = self.0.entry(refusal).or_default();
        tally.nodes += 1;
        tally.most_left.memory_bytes = tally.most_left.memory_bytes.max(left.memory_bytes);
        tally.most_left.nano_cpus = tally.most_left.nano_cpus.max(left.nano_cpus);
    }

    /// `no node fits: 2 nodes are drained, 1 lacks node.labels.disk==ssd`.
    pub(crate) fn sentence(&self, service: &Service) -> String {
        if self.0.is_empty() {
            return "no node fits: the cluster has no node".to_owned();
        }
        let mut out = "no node fits: ".to_owned();
        for (i, (refusal, tally)) in self.0.iter().enumerate() {
            let one = tally.nodes == 1;
            let noun = match (i, one) {
                (0, true) => " node",
                (0, false) => " nodes",
                (_, true | false) => "",
            };
            let comma = if i == 0 { "" } else { ", " };
            // Writing to a String cannot fail.
            let _ = write!(out, "{comma}{}{noun} {}", tally.nodes, clause(*refusal, *tally, service));
        }
        out
    }
}

fn clause(refusal: Refusal, tally: Tally, service: &Service) -> String {
    let one = tally.nodes == 1;
    let be = if one { "is" } else { "are" };
    let have = if one { "has" } else { "have" };
    let has_left = if one { "has" } else { "at most" };
    let needs = service.spec.resources.reservations;
    match refusal {
        Refusal::Down => format!("{be} down"),
        Refusal::Unknown => format!("{} not heard from yet", if one { "was" } else { "were" }),
        Refusal::Drained => format!("{be} drained"),
        Refusal::Paused => format!("{be} paused"),
        Refusal::Constraint(index) => match service.spec.placement.constraints.get(index) {
            Some(c) if c.equal => format!("{} {c}", if one { "lacks" } else { "lack" }),
            Some(c) => format!("{be} excluded by {c}"),
            None => format!("{be} excluded by a constraint"),
        },
        Refusal::Network(network) => {
            format!("{have} no parent for the macvlan network {network} (--opt parent@HOST=LINK)")
        }
        Refusal::Memory => format!(
            "{have} too little memory (needs {}, {has_left} {} left)",
            bytes(needs.memory_bytes),
            bytes(tally.most_left.memory_bytes)
        ),
        Refusal::Cpu => format!(
            "{have} too little CPU (needs {}, {has_left} {} left)",
            cores(needs.nano_cpus),
            cores(tally.most_left.nano_cpus)
        ),
        Refusal::Port(port, protocol) => format!("{have} port {port}/{protocol} in use"),
        Refusal::Full => format!(
            "{have} {} of its tasks already, which is the most per node",
            service.spec.placement.max_replicas_per_node
        ),
    }
}

/// `512 MiB`: the largest unit that leaves at least 1, rounded down.
fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    for (size, unit) in UNITS {
        if n >= size {
            let (whole, tenth) = (n / size, n % size * 10 / size);
            return if tenth == 0 { format!("{whole} {unit}") } else { format!("{whole}.{tenth} {unit}") };
        }
    }
    format!("{n} B")
}

/// `0.25 cores`, rounded down to a hundredth.
fn cores(nano: u64) -> String {
    let hundredths = nano / 10_000_000;
    let text = format!("{}.{:02}", hundredths / 100, hundredths % 100);
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text} {}", if text == "1" { "core" } else { "cores" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_as_people_write_them() {
        for (n, text) in [(0, "0 B"), (1023, "1023 B"), (512 << 20, "512 MiB"), (3 << 29, "1.5 GiB")] {
            assert_eq!(bytes(n), text);
        }
        for (n, text) in
            [(0, "0 cores"), (250_000_000, "0.25 cores"), (1_000_000_000, "1 core"), (2_500_000_000, "2.5 cores")]
        {
            assert_eq!(cores(n), text);
        }
    }
}
