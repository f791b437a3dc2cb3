//! nftables: whole tables replaced by `nft` in one transaction, and read by netlink.
//!
//! A table says in its comment what text it was made from. That it still is as it was made is known by the
//! namespace's generation number, which any transaction raises; when that moved without us, the table's contents are
//! compared with what they were right after we made it.

use nix::errno::Errno;
use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use crate::{
    namespace::Namespace,
    netlink::{Refusal, Socket, nftables},
};

/// Where distributions put it, for a daemon that was started without a PATH.
const NFT: [&str; 2] = ["/usr/sbin/nft", "/sbin/nft"];
/// An error message of `nft` repeats the line that it is about; a map may be one of a thousand elements.
const COMPLAINT_BYTES: usize = 2 << 10;

/// NFPROTO_INET.
pub(crate) const INET: u8 = 1;

/// A table: NFPROTO_* family and name.
pub(crate) type Key = (u8, String);

/// What our tables of one namespace looked like right after they were made. On disk (of the run directory, which a
/// reboot empties like the kernel) so that the next daemon knows too.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    file: PathBuf,
    fingerprints: BTreeMap<Key, u64>,
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
        Self { fingerprints: fingerprints.collect(), file, generation: None }
    }

    fn store(&self) {
        let lines = self.fingerprints.iter().map(|((family, name), print)| format!("{family} {name} {print:x}\n"));
        if let Err(error) = fs::write(&self.file, lines.collect::<String>()) {
            // The price is one replacement of each table after a restart.
            tracing::warn!(%error, file = %self.file.display(), "cannot remember nftables tables");
        }
    }
}

/// Our tables in a namespace, and the comment of each that still is as it was made: `None` if somebody changed it.
pub(crate) fn observe(ns: &Namespace) -> Result<BTreeMap<Key, Option<String>>, Refusal> {
    let mut memory = ns.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut socket = ns.filter();
    let generation = nftables::generation(&mut socket)?;
    let same = generation.is_some() && generation == memory.generation;
    let mut tables = BTreeMap::new();
    let mut all_same = true;
    for table in nftables::tables(&mut socket)?.into_iter().filter(|t| is_ours(&t.name)) {
        let key = (table.family, table.name);
        let known = memory.fingerprints.get(&key);
        let intact =
            known.is_some() && (same || nftables::fingerprint(&mut socket, key.0, &key.1).ok().as_ref() == known);
        all_same &= intact;
        tables.insert(key, table.comment.filter(|_| intact));
    }
    // Only if nothing happened while we compared.
    memory.generation = generation.filter(|g| all_same && nftables::generation(&mut socket).ok().flatten() == Some(*g));
    Ok(tables)
}

/// Puts `text`, which is the whole table, in the place of the table of that name.
pub(crate) fn replace(ns: &Namespace, name: &str, text: &str) -> Result<(), Error> {
    apply(ns, &format!("{}{text}\n", emptied(name)), &[(INET, name.to_owned())])
}

/// Deletes a table, if it is there.
pub(crate) fn delete(ns: &Namespace, name: &str) -> Result<(), Error> {
    apply(ns, &emptied(name), &[])
}

/// There is no "delete if it is there" before nft 1.0.7: it is added first, which does nothing if it is.
fn emptied(name: &str) -> String {
    format!("add table inet {name}\ndelete table inet {name}\n")
}

/// Feeds `script` to `nft` as one transaction, then remembers how `made` looks, and forgets what is not there.
fn apply(ns: &Namespace, script: &str, made: &[Key]) -> Result<(), Error> {
    let mut memory = ns.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = nftables::generation(&mut ns.filter()).ok().flatten();
    ns.enter(|| run(script)).map_err(Error::Start)??;
    let mut socket = ns.filter();
    for key in made {
        match nftables::fingerprint(&mut socket, key.0, &key.1) {
            Ok(print) => memory.fingerprints.insert(key.clone(), print),
            // Not known to be as it was made, it will be made again.
            Err(_) => memory.fingerprints.remove(key),
        };
    }
    let there: Vec<Key> = tables(&mut socket);
    memory.fingerprints.retain(|key, _| there.contains(key));
    let after = nftables::generation(&mut socket).ok().flatten();
    let alone = before.zip(after).is_some_and(|(before, after)| before.wrapping_add(1) == after);
    if !alone {
        // Somebody else was at it meanwhile, perhaps at our table: what we saw is not known to be what we made.
        memory.fingerprints.retain(|key, _| !made.contains(key));
    }
    let kept = memory.generation == before && before.is_some();
    memory.generation = after.filter(|_| alone && kept);
    memory.store();
    Ok(())
}

/// Whether a table of this name is ours.
pub(crate) fn is_ours(name: &str) -> bool {
    name == shoal_plan::names::TABLE
}

fn tables(socket: &mut Socket) -> Vec<Key> {
    nftables::tables(socket).unwrap_or_default().into_iter().map(|t| (t.family, t.name)).collect()
}

fn run(script: &str) -> Result<(), Error> {
    let spawn = |program: &str| {
        let mut command = Command::new(program);
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
    };
    // The child is in the namespace of the thread that spawns it.
    let mut child = match NFT.iter().map(|path| spawn(path)).find(|r| !absent(r)).unwrap_or_else(|| spawn("nft")) {
        Ok(child) => child,
        Err(error) => return Err(Error::Start(error)),
    };
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(script.as_bytes()));
    let output = child.wait_with_output().map_err(Error::Start)?;
    if !output.status.success() {
        let mut complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if complaint.len() > COMPLAINT_BYTES {
            complaint = complaint.chars().take(COMPLAINT_BYTES / 4).chain(['…']).collect();
        }
        return Err(Error::Refused { complaint });
    }
    written.map_err(Error::Start)
}

fn absent<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.raw_os_error() == Some(Errno::ENOENT as i32))
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot run nft (package nftables)")]
    Start(#[source] io::Error),
    #[error("nft refused it: {complaint}")]
    Refused { complaint: String },
}
