//! What of the host is seen in a container besides its image: checked by the daemon, mounted by the supervisor.

use serde_json::{Value, json};
use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use crate::{
    ContainerConfig, Error, Mount, MountSource,
    record::{Dir, Record},
    volumes,
};

/// Whether something can be mounted there in a container.
pub(crate) fn is_target(target: &Path) -> bool {
    let mut parts = target.components();
    parts.next() == Some(Component::RootDir)
        && parts.clone().next().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
        && target.to_str().is_some()
}

/// Before anything is made: a mount that cannot be is the caller's mistake and shall be told as one.
pub(crate) fn check(config: &ContainerConfig) -> Result<(), Error> {
    for mount in &config.options.mounts {
        let target = &mount.target;
        if !is_target(target) {
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
    let own = dir.volumes();
    for (n, target) in record.image_volumes.iter().enumerate() {
        volumes::fill(&own, &n.to_string(), &dir.at("rootfs"), target)?;
    }
    Ok(())
}

/// Makes the volumes that the image wants, where they are not there yet.
pub(crate) fn make_image_volumes(record: &Record, dir: &Dir) -> Result<(), Error> {
    for n in 0..record.image_volumes.len() {
        volumes::make(&dir.volumes(), &n.to_string())?;
    }
    Ok(())
}

/// In the words of the OCI specification: outer ones first, so that none hides another.
pub(crate) fn specified(record: &Record, dir: &Dir) -> Vec<Value> {
    let volumes = record.image_volumes.iter().enumerate().map(|(n, target)| {
        let source = MountSource::Volume(n.to_string());
        (Mount { source, target: target.clone(), read_only: false }, dir.volumes())
    });
    let users = record.options.mounts.iter().map(|mount| (mount.clone(), record.volumes_dir.clone()));
    let mut mounts: Vec<(Mount, PathBuf)> = volumes.chain(users).collect();
    mounts.sort_by_key(|(mount, _)| mount.target.components().count());
    mounts.iter().map(|(mount, volumes)| one(mount, volumes, record.options.privileged)).collect()
}

fn one(mount: &Mount, volumes_dir: &Path, privileged: bool) -> Value {
    let (kind, source, mut options) = match &mount.source {
        // What the user mounts may be a device.
        MountSource::Bind(path) => ("bind", path.clone(), bind()),
        MountSource::Volume(name) => {
            let mut options = bind();
            // As the root file system: a container could make one in it.
            options.extend((!privileged).then(|| "nodev".to_owned()));
            ("bind", volumes_dir.join(name), options)
        }
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
