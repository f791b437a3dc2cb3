//! A host's own part in the life of its containers: processes that are added to them, those who are attached, their
//! logs, signals and use of the host. The `NodeContainers` service.

mod process;
mod waiting;

use futures::{StreamExt, stream::BoxStream};
use shoal_common::{Invalid, NetworkId, TaskId, node::Role};
use shoal_plan::Ns;
use shoal_proto::pb::{self, node_containers_server};
use shoal_rt::Peer;
use shoal_runtime::{ContainerState, Error, ExecConfig, Image, Runtime};
use std::{path::PathBuf, str::FromStr as _};
use tonic::{Request, Response, Status, Streaming};

use crate::{Host, chain, containers, logs};

pub(crate) use waiting::{Waiter, Waiting};

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Whoever may open the host's own socket.
    Local,
    /// Peers whose certificate says that they are managers.
    Managers,
}

/// For the host's own socket.
pub fn local_containers_service(host: Host) -> node_containers_server::NodeContainersServer<Sessions> {
    node_containers_server::NodeContainersServer::new(Sessions { host, access: Access::Local })
}

/// For managers.
pub fn containers_service(host: Host) -> node_containers_server::NodeContainersServer<Sessions> {
    node_containers_server::NodeContainersServer::new(Sessions { host, access: Access::Managers })
}

#[derive(Debug)]
pub struct Sessions {
    host: Host,
    access: Access,
}

impl Sessions {
    fn check<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match (self.access, request.extensions().get::<Peer>().and_then(|p| p.identity)) {
            (Access::Local, _) => Ok(()),
            (Access::Managers, Some(peer)) if peer.role == Role::Manager => Ok(()),
            (Access::Managers, Some(peer)) => Err(Status::permission_denied(format!("{} is no manager", peer.node))),
            (Access::Managers, None) => Err(Status::unauthenticated("show the certificate of a manager")),
        }
    }
}

impl Sessions {
    /// The file of a container's network namespace: its own, or else it has the host's.
    fn netns(&self, container: TaskId) -> PathBuf {
        let own = self.host.kernel().netns_path(Ns::Task(container));
        if own.exists() { own } else { self.host.kernel().netns_path(Ns::Host) }
    }
}

fn refused(error: Error) -> Status {
    let text = chain(&error);
    match error {
        Error::NoSuchContainer(_) | Error::NoSuchImage(_) => Status::not_found(text),
        _ => Status::failed_precondition(text),
    }
}

/// A process as this host calls it, with what it was started as.
fn process_of(pid: i32) -> pb::Process {
    // One that has just ended has no command line any more.
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    pb::Process { pid, command }
}

fn describe(runtime: &Runtime, asked: pb::Asked) -> pb::Description {
    let pb::Asked { container, image: reference } = asked;
    let id = containers::id(TaskId(container));
    let image = match runtime.image_of(&id) {
        Err(Error::NoSuchContainer(_)) => runtime.images().inspect(&reference),
        found => found,
    };
    let state = runtime.status(&id).map(|status| status.state);
    pb::Description {
        container,
        image: image.ok().map(|image| image_says(image, reference)),
        oom_killed: matches!(state, Ok(ContainerState::Exited(exit)) if exit.oom),
    }
}

fn image_says(image: Image, reference: String) -> pb::InspectImageReply {
    let run = image.config.config;
    pb::InspectImageReply {
        image: Some(pb::Image { id: image.id, references: vec![reference], size_bytes: 0, created_ms: 0 }),
        exposed_ports: run.exposed_ports.unwrap_or_default().into_keys().collect(),
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        env: run.env.unwrap_or_default(),
        user: run.user.unwrap_or_default(),
        workdir: run.working_dir.unwrap_or_default(),
        volumes: run.volumes.unwrap_or_default().into_keys().collect(),
        labels: run.labels.unwrap_or_default().into_iter().collect(),
        stop_signal: run.stop_signal.unwrap_or_default(),
        health: run.healthcheck.map(|check| check.read().into()),
    }
}

/// `HUP`, `SIGHUP` or `1`.
fn signal(text: &str) -> Result<i32, Status> {
    let bad =
        || Status::invalid_argument(Invalid::new("signal", text, "a number or a name such as SIGHUP").to_string());
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=64).contains(&number) { Ok(number) } else { Err(bad()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    nix::sys::signal::Signal::from_str(&name).map(|signal| signal as i32).map_err(|_| bad())
}

type Output = BoxStream<'static, Result<pb::ProcessOutput, Status>>;

#[tonic::async_trait]
impl node_containers_server::NodeContainers for Sessions {
    type ExecStream = Output;
    type AttachStream = Output;
    type ContainerLogsStream = BoxStream<'static, Result<pb::TaskLogsReply, Status>>;

    async fn exec(&self, request: Request<Streaming<pb::ExecInput>>) -> Result<Response<Output>, Status> {
        self.check(&request)?;
        let mut inputs = request.into_inner();
        let first = inputs.message().await?.unwrap_or_default();
        let start = first.start.ok_or_else(|| Status::invalid_argument("the first message says what to start"))?;
        let id = containers::id(TaskId(start.container));
        let config = ExecConfig {
            args: start.args,
            env: start.env,
            workdir: start.workdir,
            user: start.user,
            tty: start.tty,
            size: first.resize.map(process::as_size),
            stdin: start.stdin,
            privileged: start.privileged,
            time_limit: None,
        };
        let runtime = self.host.runtime();
        let one = |message| Ok(Response::new(futures::stream::iter([Ok(message)]).boxed()));
        let started = match start.detached {
            true => runtime.exec_detached(&id, config).await.map(|()| None),
            false => runtime.exec(&id, config).await.map(Some),
        };
        match started {
            Ok(Some(session)) => {
                let inputs = inputs.map(|input| input.map(Into::into)).boxed();
                Ok(Response::new(process::serve(async { Ok(session) }, inputs)))
            }
            Ok(None) => one(process::ready()),
            Err(error @ Error::Exec { .. }) => one(process::unstarted(&error)),
            Err(error) => Err(refused(error)),
        }
    }

    async fn attach(&self, request: Request<Streaming<pb::AttachInput>>) -> Result<Response<Output>, Status> {
        self.check(&request)?;
        let mut inputs = request.into_inner();
        let first = inputs.message().await?.unwrap_or_default();
        let (container, size) = (TaskId(first.container), first.resize.map(process::as_size));
        let inputs = inputs.map(|input| input.map(Into::into)).boxed();
        match self.host.runtime().attach(&containers::id(container)).await {
            Ok(session) => Ok(Response::new(process::serve(async { Ok(session) }, inputs))),
            // It is about to be started: by who asks, once we say that we listen.
            Err(Error::NoSuchContainer(_) | Error::NotRunning(_)) => {
                let waiter = self.host.waiting().wait(container, size);
                let started = async move {
                    waiter.await.map_err(|_| Status::failed_precondition(format!("{container} was not started")))
                };
                Ok(Response::new(process::serve(started, inputs)))
            }
            Err(error) => Err(refused(error)),
        }
    }

    async fn container_logs(
        &self,
        request: Request<pb::TaskLogsRequest>,
    ) -> Result<Response<Self::ContainerLogsStream>, Status> {
        self.check(&request)?;
        logs::read(&self.host, request.into_inner()).map(Response::new)
    }

    async fn signal(&self, request: Request<pb::SignalRequest>) -> Result<Response<pb::SignalReply>, Status> {
        self.check(&request)?;
        let asked = request.into_inner();
        let signal = signal(&asked.signal)?;
        self.host.runtime().kill(&containers::id(TaskId(asked.container)), signal).await.map_err(refused)?;
        Ok(Response::new(pb::SignalReply {}))
    }

    async fn stats(&self, request: Request<pb::StatsRequest>) -> Result<Response<pb::StatsReply>, Status> {
        self.check(&request)?;
        let mut all = Vec::new();
        for container in request.into_inner().containers {
            let id = containers::id(TaskId(container));
            let stats = match self.host.runtime().stats(&id).await {
                Ok(stats) => stats,
                // It has ended since whoever asks has looked.
                Err(Error::NotRunning(_)) => continue,
                Err(error) => return Err(refused(error)),
            };
            let pid = match self.host.runtime().status(&id).map(|status| status.state) {
                Ok(ContainerState::Running { pid, .. }) => pid,
                Ok(ContainerState::Created | ContainerState::Exited(_)) | Err(_) => continue,
            };
            let processes = self.host.runtime().processes(&id).await.unwrap_or_default();
            all.push(pb::ContainerStats {
                container,
                cpu_nanos: stats.cpu_nanos,
                memory_bytes: stats.memory_bytes,
                memory_limit_bytes: stats.memory_limit_bytes.unwrap_or(0),
                pids: stats.pids,
                processes: processes.into_iter().map(process_of).collect(),
                pid,
                netns: self.netns(TaskId(container)).display().to_string(),
            });
        }
        let at = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .unwrap_or(nix::sys::time::TimeSpec::new(0, 0));
        let at_nanos = std::time::Duration::from(at).as_nanos();
        Ok(Response::new(pb::StatsReply { containers: all, at_nanos: u64::try_from(at_nanos).unwrap_or(u64::MAX) }))
    }

    async fn check_network(
        &self,
        request: Request<pb::CheckNetworkRequest>,
    ) -> Result<Response<pb::CheckNetworkReply>, Status> {
        self.check(&request)?;
        match self.host.checks().ask(NetworkId(request.into_inner().network)).await {
            Some(Ok(checked)) => Ok(Response::new(pb::CheckNetworkReply {
                generation: checked.generation.0,
                differences: checked.differences,
            })),
            Some(Err(why)) => Err(Status::unavailable(why)),
            None => Err(Status::failed_precondition("this host takes part in no cluster")),
        }
    }

    async fn inspect_image(
        &self,
        request: Request<pb::InspectImageRequest>,
    ) -> Result<Response<pb::InspectImageReply>, Status> {
        self.check(&request)?;
        let reference = request.into_inner().reference;
        let image = self.host.runtime().images().inspect(&reference).map_err(refused)?;
        Ok(Response::new(image_says(image, reference)))
    }

    async fn describe_containers(
        &self,
        request: Request<pb::DescribeContainersRequest>,
    ) -> Result<Response<pb::DescribeContainersReply>, Status> {
        self.check(&request)?;
        let (runtime, asked) = (self.host.runtime().clone(), request.into_inner().containers);
        // Each is a file that is read and parsed.
        let described =
            tokio::task::spawn_blocking(move || asked.into_iter().map(|asked| describe(&runtime, asked)).collect());
        let containers = described.await.map_err(|e| Status::internal(format!("cannot describe containers: {e}")))?;
        Ok(Response::new(pb::DescribeContainersReply { containers }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_or_a_number() {
        for (text, number) in [("HUP", 1), ("SIGTERM", 15), ("sigusr1", 10), ("9", 9), ("64", 64)] {
            assert_eq!(signal(text).unwrap(), number, "{text}");
        }
        for text in ["", "0", "65", "SIGNONE", "-9"] {
            assert!(signal(text).is_err(), "{text}");
        }
    }
}
