//! What can go wrong, said by what we were doing and to what.

use std::{io, path::PathBuf};

use crate::Fault;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {doing} {path}")]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Durable(shoal_rt::durable::Error),
    #[error("{path} is not what was written there: it cannot be read as {what}")]
    Garbled {
        what: &'static str,
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error(transparent)]
    Reference(#[from] shoal_common::Invalid),
    #[error(
        "image {image} is not on this host and could not be pulled: {reason}; load it with shoal image load, or \
         name one that shoal image ls shows"
    )]
    Pull { image: String, reason: String },
    #[error("image {0} is not on this host")]
    NoSuchImage(String),
    #[error("image {image} is in use by container {container}; remove the container first")]
    ImageInUse { image: String, container: String },
    #[error("this archive is not an image: {0}")]
    NotAnImage(String),
    #[error("layer {layer} does not match its digest: expected {expected}, got {got}")]
    Digest { layer: String, expected: String, got: String },
    #[error("cannot unpack {entry} of layer {layer}")]
    Unpack {
        layer: String,
        entry: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "--change {0:?} is not accepted: expected CMD, ENTRYPOINT, ENV, WORKDIR, USER, EXPOSE, VOLUME, LABEL or \
         STOPSIGNAL"
    )]
    Change(String),
    #[error(
        "{0:?} cannot be the id of a container: 1 to 63 of a-z, A-Z, 0-9, '-', '_' and '.', not beginning with '.'"
    )]
    Id(String),
    #[error("container {0} exists already and has not ended; stop or remove it first")]
    Exists(String),
    #[error(
        "container {container} was made from image {made_from} and cannot be started from {wanted}; remove it first"
    )]
    OtherImage { container: String, made_from: String, wanted: String },
    #[error("container {container} cannot be started: {files}; put them back, or remove the container (shoal rm)")]
    SetAside { container: String, files: crate::SetAside },
    #[error("there is no container {0} on this host")]
    NoSuchContainer(String),
    #[error("image {image} names no command and none was given for container {container}")]
    NoCommand { container: String, image: String },
    #[error(
        "container {container} shall have {limits}, and this host has no cgroups to keep it to that (it is of a lab \
         without root, say): leave the limit out, or run it on a host that has"
    )]
    NoCgroups { container: String, limits: String },
    #[error("cannot start container {container}: {reason}")]
    Start { container: String, reason: String, fault: Fault },
    #[error("container {0} does not run")]
    NotRunning(String),
    #[error("cannot run {command:?} in container {container}: {reason}")]
    Exec { container: String, command: String, reason: String, fault: Fault },
    #[error("cannot attach to container {container}")]
    Attach {
        container: String,
        #[source]
        source: io::Error,
    },
    #[error("nobody can tell any more how {command:?} in container {container} ended")]
    Lost { container: String, command: String },
    #[error("cannot send signal {signal} to container {container}")]
    Signal {
        container: String,
        signal: i32,
        #[source]
        source: io::Error,
    },
    #[error("container {0} is still there after SIGKILL")]
    WontDie(String),
    #[error("{0:?} is not a signal to stop a container by: expected a name as SIGQUIT or QUIT, or a number as 3")]
    StopSignal(String),
    #[error("{0:?} is not a capability: expected a name as NET_ADMIN or CAP_NET_ADMIN, or ALL")]
    Capability(String),
    #[error("{0:?} cannot be mounted at: expected an absolute path below / without '..'")]
    MountTarget(PathBuf),
    #[error("cannot mount {path} of this host into container {container}")]
    MountSource {
        container: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{0:?} cannot be the name of a volume: 1 to 255 of a-z, A-Z, 0-9, '-', '_' and '.', beginning with a letter or \
         digit"
    )]
    VolumeName(String),
    #[error("there is no volume {0} on this host")]
    NoSuchVolume(String),
    #[error("volume {volume} is in use by container {container}; remove the container first")]
    VolumeInUse { volume: String, container: String },
    #[error("a worker thread of the runtime ended early while it was to {0}")]
    Worker(&'static str),
}

impl Error {
    /// What was wrong with the process that was to be started.
    pub fn fault(&self) -> Fault {
        match self {
            Error::Start { fault, .. } | Error::Exec { fault, .. } => *fault,
            _ => Fault::Other,
        }
    }

    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { doing, path, source }
    }
}
