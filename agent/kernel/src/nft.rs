//! nftables: whole tables, replaced in one transaction.
//!
//! A table says in its comment what text it was made from. That it still is as it was made is known by the
//! namespace's generation number, which any transaction raises; when that moved without us, the table's contents are
//! compared with what they were right after we made it.

use shoal_plan::{
    Backend,
    nft::{Chain, Family},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use crate::{
    namespace::Namespace,
    netlink::{Refusal, nftables, table},
};

/// A table: NFPROTO_* family and name.
pub(crate) type Key = (u8, String);

/// What our tables of one namespace looked like right after they were made. On disk (of the run directory, which a
/// reboot empties like the kernel) so that the next daemon knows too.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    file: PathBuf,
    fingerprints: BTreeMap<Key, u64>,
    /// Where the tables lead that this process made.
    leads: BTreeMap<Key, BTreeSet<Backend>>,
    /// The rule set's generation at which all the fingerprints were right.
    generation: Option<u32>,
}

impl Memory {
    /// Reads what is remembered. What cannot be read is not remembered: the table is made again.
    pub(crate) fn load(file: PathBuf) -> Self {
        let text = fs::read_to_string(&file).unwrap_or_default();
        let fingerprints = text.lines().filter_map(|line| {
            let mut words = line.split(' ');
            let (family, name, print) = (words.next()?, words.next()?, words.next()?);
            Some(((family.parse().ok()?, name.to_owned()), u64::from_str_radix(print, 16).ok()?))
        });
        Self { fingerprints: fingerprints.collect(), leads: BTreeMap::new(), file, generation: None }
    }

    fn store(&self) {
        let lines = self.fingerprints.iter().map(|((family, name), print)| format!("{family} {name} {print:x}\n"));
        if let Err(error) = fs::write(&self.file, lines.collect::<String>()) {
            // The price is one replacement of each table after a restart.
            tracing::warn!(%error, file = %self.file.display(), "cannot remember nftables tables");
        }
    }
}

/// What is known of a table: nothing if somebody changed it.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) comment: Option<String>,
    pub(crate) leads: Option<BTreeSet<Backend>>,
}

/// Our tables in a namespace.
pub(crate) fn observe(ns: &Namespace) -> Result<BTreeMap<Key, Seen>, Refusal> {
    let mut memory = ns.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut socket = ns.filter();
    let generation = nftables::generation(&mut socket)?;
    let same = generation.is_some() && generation == memory.generation;
    let mut tables = BTreeMap::new();
    let mut all_same = true;
    for table in nftables::tables(&mut socket)?.into_iter().filter(|t| is_ours(&t.name)) {
        let key = (table.family, table.name);
        let known = memory.fingerprints.get(&key);
        let intact = known.is_some()
            && (same
                || match nftables::fingerprint(&mut socket, key.0, &key.1) {
                    Ok(print) => Some(&print) == known,
                    // Not seen is not the same as changed.
                    Err(refusal) if refusal.is_torn() => return Err(refusal),
                    Err(_) => false,
                });
        all_same &= intact;
        let seen = Seen { comment: table.comment, leads: memory.leads.get(&key).cloned() };
        tables.insert(key, if intact { seen } else { Seen::default() });
    }
    // Only if nothing happened while we compared.
    memory.generation = generation.filter(|g| all_same && nftables::generation(&mut socket).ok().flatten() == Some(*g));
    Ok(tables)
}

/// Makes a table of these chains, in the place of the one that is there.
pub(crate) fn replace(
    ns: &Namespace,
    family: Family,
    digest: &str,
    chains: &[Chain],
    leads: &BTreeSet<Backend>,
) -> Result<(), Refusal> {
    let made = (number(family), family.table().to_owned());
    apply(ns, table::replace(made.0, family.table(), Some((digest, chains))), Some((made, leads)))
}

/// Deletes a table, if it is there.
pub(crate) fn delete(ns: &Namespace, family: Family) -> Result<(), Refusal> {
    apply(ns, table::replace(number(family), family.table(), None), None)
}

/// NFPROTO_*.
fn number(family: Family) -> u8 {
    match family {
        Family::Inet | Family::Idle => 1,
        Family::Bridge => 7,
    }
}

const ALL: [Family; 3] = [Family::Inet, Family::Bridge, Family::Idle];

pub(crate) fn family(of: &Key) -> Option<Family> {
    ALL.into_iter().find(|family| number(*family) == of.0 && family.table() == of.1)
}

/// Whether the kernel knows all that a table is made of.
pub(crate) fn can(ns: &Namespace, family: Family, chains: &[Chain]) -> Result<(), Refusal> {
    ns.filter().transaction(table::attempt(number(family), "shoal_attempt", chains))
}

/// Puts one transaction, then remembers how `made` looks, and forgets what is not there.
fn apply(ns: &Namespace, transaction: Vec<Vec<u8>>, made: Option<(Key, &BTreeSet<Backend>)>) -> Result<(), Refusal> {
    let mut memory = ns.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut socket = ns.filter();
    let before = nftables::generation(&mut socket).ok().flatten();
    socket.transaction(transaction)?;
    if let Some((key, leads)) = &made {
        match nftables::fingerprint(&mut socket, key.0, &key.1) {
            Ok(print) => memory.fingerprints.insert(key.clone(), print),
            // Not known to be as it was made, it will be made again.
            Err(_) => memory.fingerprints.remove(key),
        };
        memory.leads.insert(key.clone(), (*leads).clone());
    }
    if let Ok(there) = nftables::tables(&mut socket) {
        let there: Vec<Key> = there.into_iter().map(|t| (t.family, t.name)).collect();
        memory.fingerprints.retain(|key, _| there.contains(key));
        memory.leads.retain(|key, _| there.contains(key));
    }
    let after = nftables::generation(&mut socket).ok().flatten();
    let alone = before.zip(after).is_some_and(|(before, after)| before.wrapping_add(1) == after);
    if !alone {
        // Somebody else was at it meanwhile, perhaps at our table: what we saw is not known to be what we made.
        memory.fingerprints.retain(|key, _| made.as_ref().is_none_or(|(made, _)| made != key));
    }
    let kept = memory.generation == before && before.is_some();
    memory.generation = after.filter(|_| alone && kept);
    memory.store();
    Ok(())
}

/// Whether a table of this name is ours.
pub(crate) fn is_ours(name: &str) -> bool {
    ALL.iter().any(|family| family.table() == name)
}
