//! The program of a process that is about to be one: where it is, or what is wrong with it. Asked inside the container,
//! as who it will be.

use nix::unistd::{AccessFlags, access};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read},
    path::{Path, PathBuf},
};

use crate::Fault;

/// As Docker has it for who took PATH away.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the kernel runs begins so.
const MAGIC: [&[u8]; 2] = [b"\x7fELF", b"#!"];

/// Why a program cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unrunnable {
    pub(crate) fault: Fault,
    pub(crate) reason: String,
}

/// By its path if the name has a slash; else in the directories of `path`, where what cannot be run is passed over.
pub(crate) fn find(name: &str, path: Option<&str>) -> Result<PathBuf, Unrunnable> {
    if name.contains('/') {
        return check(Path::new(name)).map(|()| name.into()).map_err(|e| refusal(name, &e));
    }
    let mut dirs = path.unwrap_or(DEFAULT_PATH).split(':');
    let found = dirs.by_ref().filter(|_| !name.is_empty()).map(|dir| Path::new(dir).join(name)).find(|p| is_allowed(p));
    match found {
        Some(file) => check(&file).map(|()| file).map_err(|e| refusal(name, &e)),
        None => Err(Unrunnable {
            fault: Fault::NotFound,
            reason: format!("cannot run {name:?}: executable file not found in $PATH"),
        }),
    }
}

/// What the kernel's refusal means.
pub(crate) fn refusal(name: &str, error: &io::Error) -> Unrunnable {
    let fault = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Fault::NotFound,
        // Also what is no program, or one for another kind of machine.
        _ => Fault::NotExecutable,
    };
    let why = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => "no such file or directory".to_owned(),
        ErrorKind::IsADirectory => "is a directory".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ if error.raw_os_error() == Some(nix::libc::ENOEXEC) => "exec format error".to_owned(),
        _ => error.to_string(),
    };
    Unrunnable { fault, reason: format!("cannot run {name:?}: {why}") }
}

fn is_allowed(file: &Path) -> bool {
    file.is_file() && access(file, AccessFlags::X_OK).is_ok()
}

fn check(file: &Path) -> io::Result<()> {
    if fs::metadata(file)?.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    access(file, AccessFlags::X_OK)?;
    let mut begin = [0; 4];
    // One that may be run need not be readable; then the kernel will say.
    let Ok(length) = File::open(file).and_then(|mut file| file.read(&mut begin)) else { return Ok(()) };
    // Whoever calls exec in Rust has it try a shell on all else, which Docker does not.
    match MAGIC.iter().any(|magic| begin[..length].starts_with(magic)) {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(nix::libc::ENOEXEC)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_program_is_found_as_docker_finds_it_or_told_what_is_wrong_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, mode: u32, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        };
        let script = put("script", 0o700, "#!/bin/sh\n");
        let (text, plain) = (put("text", 0o755, "echo hello\n"), put("plain", 0o644, "#!/bin/sh\n"));
        fs::create_dir(dir.path().join("dir")).unwrap();
        let path = format!("/nowhere:{}", dir.path().display());
        let find = |name: &str| find(name, Some(&path)).map_err(|e| e.fault);
        let at = |name: &str| find(&dir.path().join(name).to_string_lossy());
        assert_eq!((find("script"), at("script")), (Ok(script.clone()), Ok(script)));
        assert_eq!(
            (find("plain"), find("dir"), find("")),
            (Err(Fault::NotFound), Err(Fault::NotFound), Err(Fault::NotFound))
        );
        assert_eq!((at("none"), at("plain/x")), (Err(Fault::NotFound), Err(Fault::NotFound)));
        assert_eq!(
            (at("dir"), at("plain"), at("text")),
            (Err(Fault::NotExecutable), Err(Fault::NotExecutable), Err(Fault::NotExecutable))
        );
        assert_eq!(find("text"), Err(Fault::NotExecutable));
        drop((text, plain));
    }
}
