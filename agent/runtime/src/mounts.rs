//! What of the host is seen in a container besides its image: checked by the daemon, mounted by the supervisor.

use serde_json::{Value, json};
use std::{
    fs, io,
    path::{Component, Path},
};

use crate::{
    ContainerConfig, Error, Mount, MountSource,
    record::{Dir, Record},
    volumes,
};

/// Before anything is made: a mount that cannot be is the caller's mistake and shall be told as one.
pub(crate) fn check(config: &ContainerConfig) -> Result<(), Error> {
    for mount in &config.options.mounts {
        let target = &mount.target;
        let mut parts = target.components();
        let fits = parts.next() == Some(Component::RootDir)
            && parts.clone().next().is_some()
            && parts.all(|part| matches!(part, Component::Normal(_)))
            && target.to_str().is_some();
        if !fits {
            return Err(Error::MountTarget(target.clone()));
        }
        match &mount.source {
            MountSource::Bind(path) => {
                let refused = |source| Error::MountSource { container: config.id.clone(), path: path.clone(), source };
                if !path.is_absolute() {
                    let reason = io::Error::new(io::ErrorKind::InvalidInput, "it is not an absolute path");
                    return Err(refused(reason));
                }
                if path.to_str().is_none() {
                    return Err(refused(io::Error::new(io::ErrorKind::InvalidInput, "it is not UTF-8")));
                }
                fs::metadata(path).map_err(refused)?;
            }
            MountSource::Volume(name) => volumes::check(name)?,
            MountSource::Tmpfs { .. } => {}
        }
    }
    Ok(())
}

/// Fills new volumes out of the image. The root file system is mounted, and nothing runs in it yet.
pub(crate) fn fill(record: &Record, dir: &Dir) -> io::Result<()> {
    for mount in &record.options.mounts {
        if let MountSource::Volume(name) = &mount.source {
            volumes::fill(&record.volumes_dir, name, &dir.at("rootfs"), &mount.target)?;
        }
    }
    Ok(())
}

/// In the words of the OCI specification: outer ones first, so that none hides another.
pub(crate) fn specified(record: &Record) -> Vec<Value> {
    let mut mounts: Vec<&Mount> = record.options.mounts.iter().collect();
    mounts.sort_by_key(|mount| mount.target.components().count());
    mounts.into_iter().map(|mount| one(mount, &record.volumes_dir)).collect()
}

fn one(mount: &Mount, volumes_dir: &Path) -> Value {
    let (kind, source, mut options) = match &mount.source {
        MountSource::Bind(path) => ("bind", path.clone(), bind()),
        MountSource::Volume(name) => ("bind", volumes_dir.join(name), bind()),
        MountSource::Tmpfs { size } => {
            let mut options = ["nosuid", "nodev", "noexec", "mode=1777"].map(str::to_owned).to_vec();
            options.extend(size.map(|bytes| format!("size={bytes}")));
            ("tmpfs", "tmpfs".into(), options)
        }
    };
    if mount.read_only {
        options.push("ro".to_owned());
        if kind == "bind" {
            // What is mounted below the source is not to be written either.
            options.push("rro".to_owned());
        }
    }
    json!({ "destination": mount.target, "type": kind, "source": source, "options": options })
}

fn bind() -> Vec<String> {
    ["rbind", "rprivate"].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Options;
    use shoal_common::service::{ContainerSpec, Resources};

    fn checked(source: MountSource, target: &str) -> Result<(), Error> {
        let mounts = vec![Mount { source, target: target.into(), read_only: false }];
        check(&ContainerConfig {
            id: "c".into(),
            spec: ContainerSpec::default(),
            resources: Resources::default(),
            labels: Default::default(),
            netns: "/n".into(),
            hostname: "h".into(),
            hosts: vec![],
            resolv_conf: String::new(),
            options: Options { mounts, ..Options::default() },
        })
    }

    #[test]
    fn a_mount_that_cannot_be_is_refused_by_name() {
        for target in ["data", "/", "/a/../b", ""] {
            assert!(
                matches!(checked(MountSource::Tmpfs { size: None }, target), Err(Error::MountTarget(_))),
                "{target}"
            );
        }
        let missing = checked(MountSource::Bind("/no/such/path".into()), "/data").unwrap_err();
        assert!(missing.to_string().contains("/no/such/path"), "{missing}");
        assert!(checked(MountSource::Bind("relative".into()), "/data").is_err());
        assert!(matches!(checked(MountSource::Volume("../x".into()), "/data"), Err(Error::VolumeName(_))));
        checked(MountSource::Bind("/etc".into()), "/data").unwrap();
    }
}
