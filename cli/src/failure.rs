//! How a command ends when it does not end well: a sentence for people, a number for scripts.

use shoal_common::Invalid;
use std::{error::Error as _, fmt};
use tonic::{Code, Status};

/// The numbers that scripts rely on; they never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    General = 1,
    Usage = 2,
    NotFound = 3,
    /// Taken, in use, or changed meanwhile.
    Conflict = 4,
    /// The work goes on, or keeps failing.
    NotConverged = 5,
    /// No address, port, node or resource for it.
    NotPlaced = 6,
    /// No daemon, no manager or no quorum.
    NoManager = 7,
    NotAllowed = 8,
    /// Of `run` alone: whatever is not the program's; as Docker.
    NotRun = 125,
    /// Of a program that cannot be executed.
    NotExecutable = 126,
    /// Of a program that is not there.
    NoProgram = 127,
}

impl Exit {
    /// Of a process that could not be started, by its exit code.
    pub(crate) fn of_unstarted(code: Option<i32>) -> Self {
        match code {
            Some(126) => Exit::NotExecutable,
            Some(127) => Exit::NoProgram,
            Some(_) | None => Exit::NotRun,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// As `run` ends where it was not the program that failed.
    pub(crate) fn of_run(self) -> Self {
        match self.exit {
            Exit::NotExecutable | Exit::NoProgram => self,
            _ => Self { exit: Exit::NotRun, ..self },
        }
    }

    /// A host knows a container by its id, who asks by what was typed.
    pub(crate) fn calling(self, id: u64, name: &str) -> Self {
        Self { message: self.message.replace(&format!("container task-{id}"), &format!("container {name}")), ..self }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<Invalid> for Failure {
    fn from(e: Invalid) -> Self {
        Self::usage(of_a_flag(&e.to_string()))
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::new(Exit::General, e.to_string())
    }
}

impl From<Status> for Failure {
    fn from(s: Status) -> Self {
        // What a server answers has no source; what never reached one, or broke off, has.
        if s.source().is_some() {
            let why = innermost(&s);
            return Self::new(Exit::NoManager, format!("the shoal daemon did not answer to the end: {why}"));
        }
        let (exit, unexplained) = match s.code() {
            Code::InvalidArgument | Code::OutOfRange => {
                (Exit::Usage, "the daemon refused a value, and did not say which")
            }
            Code::NotFound => (Exit::NotFound, "there is no such thing"),
            Code::AlreadyExists => (Exit::Conflict, "there is one already"),
            Code::FailedPrecondition => (Exit::Conflict, "it cannot be done in the present state"),
            Code::Aborted => (Exit::Conflict, "it was changed meanwhile: look again, and repeat the command"),
            Code::ResourceExhausted => (Exit::NotPlaced, "there is no address, subnet or resource left for it"),
            Code::Unavailable => (Exit::NoManager, "no manager answers, or the managers have no quorum"),
            Code::DeadlineExceeded => (Exit::NoManager, "no manager answered in time"),
            Code::PermissionDenied | Code::Unauthenticated => (Exit::NotAllowed, "that is not allowed"),
            Code::Unimplemented => {
                let message =
                    "this host does not offer that: it is not a manager, or its daemon is older than this command";
                return Self::new(Exit::NoManager, message);
            }
            Code::Cancelled => (Exit::General, "the daemon broke the command off"),
            Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => {
                (Exit::General, "the daemon failed, and did not say why: see its log")
            }
        };
        let message = if s.message().is_empty() { unexplained } else { s.message() };
        Self::new(exit, if exit == Exit::Usage { of_a_flag(message) } else { message.to_owned() })
    }
}

/// `subnets[0].ip_range: …` is `ip-range: …` to who types flags.
fn of_a_flag(message: &str) -> String {
    match message.split_once(": ") {
        Some((path, rest)) if !path.is_empty() && !path.contains(' ') => format!("{}: {rest}", flag(path)),
        Some(_) | None => message.to_owned(),
    }
}

/// What a field of the interface is called on the command line.
fn flag(path: &str) -> String {
    // Options of networks and variables have names with dots.
    if let Some(at) = path.find("com.docker.").or_else(|| path.find("parent@")) {
        return format!("opt {}", &path[at..]);
    }
    if let Some((_, name)) = path.split_once("env.") {
        return format!("env {name}");
    }
    let fields: Vec<&str> = path.split('.').map(|field| field.split('[').next().unwrap_or(field)).collect();
    match fields.as_slice() {
        [.., "parent" | "macvlan_mode" | "mtu"] => format!("opt {}", fields[fields.len() - 1]),
        [.., "aux_addresses", name] => format!("aux-address {name}"),
        [.., "mounts", part] => format!("mount {part}"),
        [.., "container", "ports", _] => "service-port".to_owned(),
        ["ports" | "publish", _] => "publish".to_owned(),
        [.., "limits", "memory_bytes"] => "limit-memory".to_owned(),
        [.., group @ ("restart" | "update"), part] => format!("{group}-{}", part.replace('_', "-")),
        [.., "aliases"] => "network alias".to_owned(),
        [.., "labels"] => "label".to_owned(),
        [.., "networks"] => "network".to_owned(),
        [.., "constraints"] => "constraint".to_owned(),
        [.., last] => last.replace('_', "-"),
        [] => path.to_owned(),
    }
}

fn innermost(e: &dyn std::error::Error) -> String {
    let mut at = e;
    while let Some(next) = at.source() {
        at = next;
    }
    at.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_its_number_and_a_sentence() {
        for (code, number) in [
            (Code::InvalidArgument, 2),
            (Code::OutOfRange, 2),
            (Code::NotFound, 3),
            (Code::AlreadyExists, 4),
            (Code::FailedPrecondition, 4),
            (Code::Aborted, 4),
            (Code::ResourceExhausted, 6),
            (Code::Unavailable, 7),
            (Code::DeadlineExceeded, 7),
            (Code::Unimplemented, 7),
            (Code::PermissionDenied, 8),
            (Code::Unauthenticated, 8),
            (Code::Internal, 1),
            (Code::Unknown, 1),
            (Code::Cancelled, 1),
        ] {
            let silent = Failure::from(Status::new(code, ""));
            assert_eq!(silent.exit as i32, number, "{code:?}");
            assert!(!silent.message.is_empty() && !silent.message.contains("status"), "{code:?}: {silent}");
            if code != Code::Unimplemented {
                assert_eq!(
                    Failure::from(Status::new(code, "network blue is in use by web")).message,
                    "network blue is in use by web"
                );
            }
        }
    }

    #[test]
    fn a_field_of_the_interface_is_called_as_the_flag_that_it_came_from() {
        for (told, shown) in [
            ("subnets[0].ip_range: \"x\" is not accepted: a.b", "ip-range: \"x\" is not accepted: a.b"),
            ("container.image: bad", "image: bad"),
            ("networks[1]: bad", "network: bad"),
            ("container.mounts[0].source: bad", "mount source: bad"),
            ("mounts.target: bad", "mount target: bad"),
            ("ports[0].host_port: bad", "publish: bad"),
            ("publish[0].target: bad", "publish: bad"),
            ("container.ports[0].name: bad", "service-port: bad"),
            ("container.dns[1]: bad", "dns: bad"),
            ("container.dns-search[0]: bad", "dns-search: bad"),
            ("container.env.A.B: bad", "env A.B: bad"),
            ("bridge.com.docker.network.bridge.name: bad", "opt com.docker.network.bridge.name: bad"),
            ("parent@w1.example: bad", "opt parent@w1.example: bad"),
            ("mtu: bad", "opt mtu: bad"),
            ("subnets[0].aux_addresses.nas: bad", "aux-address nas: bad"),
            ("resources.limits.memory_bytes: bad", "limit-memory: bad"),
            ("update.parallelism: bad", "update-parallelism: bad"),
            ("placement.constraints[0]: bad", "constraint: bad"),
            ("cannot parse this: bad", "cannot parse this: bad"),
            ("bad", "bad"),
        ] {
            assert_eq!(Failure::from(Status::invalid_argument(told)).message, shown);
        }
    }

    #[test]
    fn a_connection_that_breaks_is_not_the_servers_answer() {
        let broken = std::io::Error::new(std::io::ErrorKind::BrokenPipe, "broken pipe");
        let f = Failure::from(Status::from_error(Box::new(broken)));
        assert_eq!(
            (f.exit, f.message.as_str()),
            (Exit::NoManager, "the shoal daemon did not answer to the end: broken pipe")
        );
    }
}
