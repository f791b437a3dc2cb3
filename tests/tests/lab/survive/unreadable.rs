//! A container whose record its host cannot read any more: its files are kept, it says where, and it is not begun
//! without them.

use super::*;
use serde_json::Value;
use std::path::{Path, PathBuf};

#[test]
fn a_container_that_cannot_be_read_says_where_its_files_are_and_does_not_start_without_them() -> anyhow::Result<()> {
    story(Shape { managers: 1, workers: 0 }, |lab| {
        lab.import("page")?;
        let script = "echo precious >> /data; cat /data";
        lab.shoal("m1", ["run", "--name", "db", "page", "sh", "-c", script])?.success()?;
        let inspected = |key: &str| -> anyhow::Result<Value> {
            let found = lab.shoal("m1", ["inspect", "db"])?.json::<Value>()?;
            Ok(found.first().context("it is there")?[key].clone())
        };
        let id = inspected("Id")?.as_str().context("it has an id")?.to_owned();
        lab.lab(["kill", "m1"])?.success()?;
        let data = lab.data("m1")?;
        let record = find(data, "container.json").context("a container has a record")?;
        let text = fs::read_to_string(&record)?;
        fs::write(&record, "")?;
        lab.lab(["start", "m1"])?.success()?;
        eventually("it says where its files are", SETTLES_WITHIN, || {
            let state = inspected("State")?;
            let said = state.to_string();
            ensure!(said.contains("set-aside") && said.contains(&id) && state["Status"] == "exited", "{said}");
            Ok(())
        })?;
        ensure!(!record.exists(), "it is no container any more");
        let files = find_dir(data, &format!("{id}.unreadable-")).context("they were set aside")?;
        ensure!(fs::read_to_string(files.join("upper/data"))? == "precious\n", "what it wrote is kept");

        let refused = lab.shoal("m1", ["start", "db"])?;
        ensure!(!refused.status.success() && refused.stderr.contains("set-aside"), "{refused}");
        ensure!(fs::read_to_string(files.join("upper/data"))? == "precious\n", "what it wrote is kept");

        // Repaired and put back, it is the container that it was.
        lab.lab(["kill", "m1"])?.success()?;
        fs::write(files.join("container.json"), text)?;
        fs::rename(&files, record.parent().context("of the container")?)?;
        lab.lab(["start", "m1"])?.success()?;
        eventually("it starts again with its files", SETTLES_WITHIN, || {
            lab.shoal("m1", ["start", "db"])?.success()?;
            let said = lab.shoal("m1", ["logs", "db"])?.success()?;
            ensure!(said.lines().filter(|line| *line == "precious").count() >= 3, "{said}");
            Ok(())
        })?;
        lab.shoal("m1", ["rm", "-f", "db"])?.success().map(drop)
    })
}

/// The first file of that name.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let mut below = Vec::new();
    for entry in fs::read_dir(dir).ok()?.flatten() {
        let path = entry.path();
        if entry.file_name() == name {
            return Some(path);
        }
        below.extend(entry.file_type().is_ok_and(|kind| kind.is_dir()).then_some(path));
    }
    below.iter().find_map(|dir| find(dir, name))
}

/// The first directory whose name begins so.
fn find_dir(dir: &Path, beginning: &str) -> Option<PathBuf> {
    let dirs = fs::read_dir(dir).ok()?.flatten().filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()));
    let dirs: Vec<_> = dirs.map(|e| e.path()).collect();
    let is_it = |dir: &&PathBuf| dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with(beginning));
    dirs.iter().find(is_it).cloned().or_else(|| dirs.iter().find_map(|dir| find_dir(dir, beginning)))
}
