//! What clients asked for, what they were answered, and whether the cluster kept its word.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// What a client knows of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome<T> {
    Acknowledged(T),
    /// The request did nothing.
    Refused,
    /// No answer came: it may have happened, or may still happen.
    Unknown,
}

/// One network that a client created, and perhaps removed.
#[derive(Debug, Clone)]
pub struct Life {
    pub name: String,
    /// The answer is its id.
    pub created: Outcome<u64>,
    pub removed: Option<Outcome<()>>,
}

/// A network as a manager lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    pub id: u64,
    pub name: String,
    pub vni: u32,
    pub subnets: Vec<String>,
}

/// Everything that the clients of one run did, in no particular order.
#[derive(Debug, Default)]
pub struct History {
    pub lives: Vec<Life>,
    /// When each acknowledgement came.
    pub acknowledged: Vec<Instant>,
}

/// Broken promises. All are empty when all is well.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Harm {
    /// Acknowledged, and not there; or acknowledged as removed, and there.
    pub lost: BTreeSet<String>,
    /// An id, a VNI or a subnet that two owners have.
    pub twice: BTreeSet<String>,
}

impl Harm {
    pub fn is_none(&self) -> bool {
        self.lost.is_empty() && self.twice.is_empty()
    }
}

impl History {
    /// Compares what was answered with what is there once everything is quiet.
    pub fn harm(&self, listed: &[Listed]) -> Harm {
        let mut harm = Harm::default();
        let by_name: BTreeMap<&str, &Listed> = listed.iter().map(|l| (l.name.as_str(), l)).collect();
        for life in &self.lives {
            let there = by_name.get(life.name.as_str());
            match (&life.created, &life.removed) {
                (Outcome::Acknowledged(id), None | Some(Outcome::Refused)) => match there {
                    None => drop(harm.lost.insert(format!("{} was created and is gone", life.name))),
                    Some(l) if l.id != *id => {
                        harm.lost.insert(format!("{} was answered net-{id} and is net-{}", life.name, l.id));
                    }
                    Some(_) => {}
                },
                (_, Some(Outcome::Acknowledged(()))) if there.is_some() => {
                    harm.lost.insert(format!("{} was removed and is there", life.name));
                }
                (Outcome::Refused, _) if there.is_some() => {
                    harm.lost.insert(format!("{} was refused and is there", life.name));
                }
                _ => {}
            }
        }
        let answered = self.lives.iter().filter_map(|life| match life.created {
            Outcome::Acknowledged(id) => Some((format!("net-{id}"), life.name.as_str())),
            Outcome::Refused | Outcome::Unknown => None,
        });
        let present = listed.iter().flat_map(|l| {
            let own = [format!("net-{}", l.id), format!("VNI {}", l.vni)];
            own.into_iter().chain(l.subnets.iter().cloned()).map(|thing| (thing, l.name.as_str()))
        });
        let mut owners: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
        for (thing, owner) in answered.chain(present) {
            owners.entry(thing).or_default().insert(owner);
        }
        let shared = owners.into_iter().filter(|(_, owners)| owners.len() > 1);
        harm.twice = shared.map(|(thing, owners)| format!("{thing} of {owners:?}")).collect();
        harm
    }

    /// The longest time without an acknowledgement between these moments.
    pub fn longest_silence(&self, from: Instant, to: Instant) -> Duration {
        longest_gap(self.acknowledged.iter().copied(), from, to)
    }
}

/// The longest time between two moments, or between one of them and an end of the window.
pub(super) fn longest_gap(moments: impl Iterator<Item = Instant>, from: Instant, to: Instant) -> Duration {
    let mut inside: Vec<Instant> = moments.filter(|at| (from..=to).contains(at)).collect();
    inside.extend([from, to]);
    inside.sort_unstable();
    inside.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(name: &str, created: Outcome<u64>, removed: Option<Outcome<()>>) -> Life {
        Life { name: name.into(), created, removed }
    }

    fn listed(id: u64, name: &str) -> Listed {
        Listed {
            id,
            name: name.into(),
            vni: 4096 + u32::try_from(id).unwrap(),
            subnets: vec![format!("10.0.{id}.0/24")],
        }
    }

    #[test]
    fn each_broken_promise_is_seen_and_an_unknown_outcome_is_none() {
        use Outcome::{Acknowledged, Refused, Unknown};
        for (what, life, there, harmless) in [
            ("kept", life("a", Acknowledged(1), None), Some(1), true),
            ("lost", life("a", Acknowledged(1), None), None, false),
            ("another", life("a", Acknowledged(1), None), Some(2), false),
            ("removed", life("a", Acknowledged(1), Some(Acknowledged(()))), None, true),
            ("risen", life("a", Acknowledged(1), Some(Acknowledged(()))), Some(1), false),
            ("perhaps removed", life("a", Acknowledged(1), Some(Unknown)), None, true),
            ("perhaps not removed", life("a", Acknowledged(1), Some(Unknown)), Some(1), true),
            ("perhaps created", life("a", Unknown, None), Some(1), true),
            ("perhaps not created", life("a", Unknown, None), None, true),
            ("refused", life("a", Refused, None), None, true),
            ("refused and done", life("a", Refused, None), Some(1), false),
        ] {
            let history = History { lives: vec![life], acknowledged: Vec::new() };
            let listed: Vec<Listed> = there.map(|id| listed(id, "a")).into_iter().collect();
            assert_eq!(history.harm(&listed).is_none(), harmless, "{what}: {:?}", history.harm(&listed));
        }
    }

    #[test]
    fn what_two_owners_have_is_seen() {
        let history = |ids: [u64; 2]| History {
            lives: vec![
                life("a", Outcome::Acknowledged(ids[0]), Some(Outcome::Acknowledged(()))),
                life("b", Outcome::Acknowledged(ids[1]), None),
            ],
            acknowledged: Vec::new(),
        };
        assert!(history([1, 2]).harm(&[listed(2, "b")]).is_none());
        assert_eq!(history([2, 2]).harm(&[listed(2, "b")]).twice.len(), 1);
        let mut same_subnet = listed(3, "c");
        same_subnet.subnets = listed(2, "b").subnets;
        assert_eq!(history([1, 2]).harm(&[listed(2, "b"), same_subnet]).twice.len(), 1);
    }

    #[test]
    fn silence_reaches_to_the_ends_of_the_window() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let history = History { lives: Vec::new(), acknowledged: [90, 10, 30].map(at).into() };
        assert_eq!(history.longest_silence(at(0), at(100)), Duration::from_millis(60));
        assert_eq!(history.longest_silence(at(0), at(200)), Duration::from_millis(110));
        assert_eq!(history.longest_silence(at(40), at(80)), Duration::from_millis(40));
    }
}
