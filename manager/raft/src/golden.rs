//! What is on the disks of this release: `testdata/level-N.json` (one proposal a line, for people) and `level-N.txt`
//! (name and bytes in hex of each log entry, a vote, a snapshot of the state after all of them, and its digest).
//!
//! A later version has to open all of it, to apply it to the same state, and to write what uses nothing new as the same
//! bytes: managers of that level read them. A test that fails here found a change of the log's format or meaning:
//!
//! - A new field needs `#[serde(default, skip_serializing_if = …)]`, and a level in `Command::level` when it is set.
//! - New behaviour of `apply` branches on `State::level`.
//! - Once a level was released its files are never written again; a new level gets files of its own. To create those:
//!   write `level-N.json`, then run this test with `SHOAL_WRITE_GOLDEN=N`. It refuses to overwrite.

use openraft::{EntryPayload, entry::RaftEntry as _, impls::leader_id_std::LeaderId, vote::RaftLeaderId as _};
use serde_json::Value;
use shoal_common::LogIndex;
use shoal_state::{Command, Proposal, State, digest, violations};
use std::{collections::BTreeSet, fmt::Write as _, fs, path::PathBuf, sync::Arc};

use crate::{
    codec,
    types::{Entry, LogId, Logged, Vote},
};

/// Every level that was released, or is about to be.
const LEVELS: [u32; 1] = [1];

fn path(level: u32, extension: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/level-{level}.{extension}"))
}

fn values(level: u32) -> Vec<Value> {
    serde_json::from_slice(&fs::read(path(level, "json")).unwrap()).unwrap()
}

fn proposals(level: u32) -> Vec<Proposal> {
    let read = |v: Value| serde_json::from_value(v.clone()).unwrap_or_else(|e| panic!("{e}: {v}"));
    values(level).into_iter().map(read).collect()
}

fn entry(index: u64, proposal: &Proposal) -> Entry {
    let term = LeaderId { term: 3, voted_for: 2 }.to_committed();
    Entry::new(LogId::new(term, index), EntryPayload::Normal(Logged(Arc::new(proposal.clone()))))
}

fn vote() -> Vote {
    Vote::new_committed(3, 2)
}

fn replayed(proposals: &[Proposal]) -> State {
    let mut state = State::default();
    for (index, proposal) in (1..).zip(proposals) {
        let _ = state.apply(LogIndex(index), proposal);
        assert_eq!(violations(&state), Vec::<String>::new(), "after entry {index}");
    }
    state
}

fn rendered(level: u32) -> String {
    let proposals = proposals(level);
    let state = replayed(&proposals);
    let mut text = String::new();
    let mut line = |name: String, bytes: &[u8]| {
        let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        writeln!(text, "{name} {hex}").unwrap();
    };
    for (index, proposal) in (1..).zip(&proposals) {
        let bytes = codec::encode(&entry(index, proposal)).unwrap();
        line(format!("entry-{index}-{}", proposal.command.name()), &bytes);
    }
    line("vote".to_owned(), &codec::encode(&vote()).unwrap());
    line("snapshot".to_owned(), &codec::encode(&state).unwrap());
    text + &format!("digest {}\n", digest(&state))
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn what_was_released_is_opened_and_means_the_same() {
    if let Ok(level) = std::env::var("SHOAL_WRITE_GOLDEN") {
        let level = level.parse().expect("SHOAL_WRITE_GOLDEN is a level");
        let mut file = fs::File::create_new(path(level, "txt")).expect("a file that was released is not written again");
        std::io::Write::write_all(&mut file, rendered(level).as_bytes()).unwrap();
    }
    for level in LEVELS {
        let golden = fs::read_to_string(path(level, "txt")).unwrap();
        let golden: Vec<(&str, &str)> = golden.lines().map(|l| l.split_once(' ').unwrap()).collect();
        let proposals = proposals(level);
        let state = replayed(&proposals);
        let mut entries = (1..).zip(&proposals);
        for (name, hex) in &golden {
            match *name {
                "vote" => assert_eq!(codec::decode::<Vote>(&bytes(hex)).unwrap(), vote()),
                "snapshot" => assert!(codec::decode::<State>(&bytes(hex)).unwrap() == state, "the state differs"),
                "digest" => assert_eq!(digest(&state), *hex, "the same entries give another state"),
                _ => {
                    let (index, proposal) = entries.next().unwrap();
                    assert_eq!(codec::decode::<Entry>(&bytes(hex)).unwrap(), entry(index, proposal), "{name}");
                }
            }
        }
        assert!(entries.next().is_none(), "each proposal has its bytes");
        for ((name, was), now) in golden.iter().zip(rendered(level).lines()) {
            assert_eq!(format!("{name} {was}"), now, "managers of level {level} could not read this");
        }
    }
}

/// Until 0.1.0 was released, snapshots also held which entry had touched what.
#[test]
fn a_snapshot_of_before_the_first_release_is_opened() {
    let golden = fs::read_to_string(path(1, "txt").with_file_name("level-1-with-changes.txt")).unwrap();
    let (_, hex) = golden.trim_end().split_once(' ').unwrap();
    assert!(hex.contains(&"changes".bytes().map(|b| format!("{b:02x}")).collect::<String>()));
    assert!(codec::decode::<State>(&bytes(hex)).unwrap() == replayed(&proposals(1)), "the state differs");
}

/// serde names all variants when it is given none of them.
#[test]
fn every_command_is_in_the_golden_files() {
    let refused = serde_json::from_str::<Command>("\"?\"").unwrap_err().to_string();
    let all: BTreeSet<&str> = refused.split('`').skip(3).step_by(2).collect();
    assert!(all.contains("InitCluster") && all.len() > 20, "{all:?}");
    let proposals: Vec<Proposal> = LEVELS.into_iter().flat_map(proposals).collect();
    let present: BTreeSet<&str> = proposals.iter().map(|p| p.command.name()).collect();
    assert_eq!(present, all);
}

/// An older manager that ignored a field would apply something else than the others do.
#[test]
fn an_unknown_field_anywhere_in_an_entry_is_refused() {
    let mut tried = 0;
    for value in LEVELS.into_iter().flat_map(values) {
        let mut objects = Vec::new();
        find_objects(&value, String::new(), &mut objects);
        for at in objects {
            let mut changed = value.clone();
            let object = changed.pointer_mut(&at).and_then(Value::as_object_mut).unwrap();
            // No map of ours has such a value.
            object.insert("9".to_owned(), Value::Array(vec![Value::Bool(true)]));
            let read = serde_json::from_value::<Proposal>(changed);
            assert!(read.is_err(), "{at} of {value} takes an unknown field: it lacks #[serde(deny_unknown_fields)]");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

/// The JSON pointer of every object in it.
fn find_objects(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(key, inner)| find_objects(inner, format!("{at}/{key}"), found));
            found.push(at);
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(nth, inner)| find_objects(inner, format!("{at}/{nth}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
