//! Names this build: a number made from every source that the agent is compiled from. A resolver's process outlives its
//! daemon, and is replaced by a daemon whose number differs. The version of the package says nothing: it stays the
//! same from commit to commit.

use std::{
    collections::BTreeSet,
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    path::{Path, PathBuf},
    process::Command,
};

/// The agent and the crates of this repository that it imports, from the repository's root, and what the others are.
const SOURCES: &[&str] = &["Cargo.lock", "agent", "common", "proto"];

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    let mut files = BTreeSet::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
        collect(&root.join(source), &mut files)?;
    }
    let mut hasher = DefaultHasher::new();
    for file in &files {
        file.strip_prefix(&root).unwrap_or(file).hash(&mut hasher);
        fs::read(file)?.hash(&mut hasher);
    }
    // The layout of what is compiled is the compiler's.
    for variable in ["PROFILE", "TARGET"] {
        env::var(variable).unwrap_or_default().hash(&mut hasher);
    }
    let compiler = env::var_os("RUSTC").unwrap_or("rustc".into());
    Command::new(compiler).arg("-vV").output()?.stdout.hash(&mut hasher);
    println!("cargo::rustc-env=SHOAL_AGENT_BUILD={:016x}", hasher.finish());
    Ok(())
}

fn collect(path: &Path, files: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            collect(&entry?.path(), files)?;
        }
    } else if ["rs", "proto", "toml", "lock"].iter().any(|e| path.extension().is_some_and(|x| x == *e)) {
        files.insert(path.to_owned());
    }
    Ok(())
}
