//! Containers that are run by hand.

mod inspect;
mod list;
mod run;
mod session;
mod terminal;

use shoal_proto::pb;
use std::{path::Path, process::ExitCode, time::Duration};
use tokio::time::sleep;

use super::each_at_once;
use crate::{
    args::container::{Container, Exec, Inspect, Kill, Logs, Named, One, Port, Ps, Rename, Rm, Start, Stats, Stop},
    client::{Client, request_id},
    failure::{Exit, Failure},
    out,
    progress::follow::now,
    spec,
    units::{Since, rfc3339},
    view,
};

pub(super) use inspect::run as inspect_any;

/// With --rm, its name and ports are free when who watched it ends.
const GONE_WITHIN_MS: u64 = 10_000;
/// Between two looks of `stats`.
const STATS_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn run(host: &Path, verb: &Container) -> Result<ExitCode, Failure> {
    let client = || Client::connect(host);
    match verb {
        Container::Run(a) => return run::run(host, a).await.map_err(Failure::of_run),
        Container::Create(a) => run::create(host, a).await?,
        Container::Ls(a) => ps(host, a).await?,
        Container::Inspect(a) => {
            let kind = Some("container".to_owned());
            let a = Inspect { format: a.format.clone(), kind, on: a.on.clone(), names: a.names.clone() };
            inspect::run(host, &a).await?;
        }
        Container::Start(a) => return start(&client().await?, a).await,
        Container::Stop(a) => stop(&client().await?, a).await?,
        Container::Restart(a) => restart(&client().await?, a).await?,
        Container::Kill(a) => kill(&client().await?, a).await?,
        Container::Rm(a) => rm(&client().await?, a).await?,
        Container::Exec(a) => return exec(&client().await?, a).await,
        Container::Attach(a) => {
            let client = client().await?;
            let found = one(&client, &a.container, &a.on.node).await?;
            if !matches!(phase(&found), "running" | "restarting") {
                let message = format!("container {} does not run: start it first, or use 'start -a'", a.container);
                return Err(Failure::new(Exit::Conflict, message));
            }
            let tty = found.spec.clone().and_then(|s| s.container).is_some_and(|c| c.tty);
            let detach = terminal::Keys::parse(&a.detach_keys)?;
            let input = session::Input { stdin: !a.no_stdin, tty, detach, redraw: true };
            let attached = async {
                let following = session::attach(&client, &found, input).await?.follow_in_background();
                Ok(session::pass_signals(&client, &found, following, a.sig_proxy && !tty).await?.code)
            };
            return attached.await.map_err(|f: Failure| f.calling(found.id, &a.container));
        }
        Container::Logs(a) => logs(&client().await?, a).await?,
        Container::Wait(a) => wait(&client().await?, a).await?,
        Container::Port(a) => port(&client().await?, a).await?,
        Container::Stats(a) => stats(&client().await?, a).await?,
        Container::Top(a) => top(&client().await?, a).await?,
        Container::Rename(a) => rename(&client().await?, a).await?,
    }
    Ok(ExitCode::SUCCESS)
}

fn reference(container: &str, node: &str) -> Option<pb::ContainerRef> {
    Some(pb::ContainerRef { container: container.to_owned(), node: node.to_owned() })
}

/// What is known of a container.
pub(super) async fn one(client: &Client, name: &str, node: &str) -> Result<pb::Container, Failure> {
    let request =
        pb::ListContainersRequest { containers: vec![name.to_owned()], node: node.to_owned(), all_nodes: false };
    let found = client.list_containers(request).await?;
    found.into_iter().next().ok_or_else(|| Failure::new(Exit::NotFound, format!("there is no container {name}")))
}

/// What its host alone knows of it.
async fn described(client: &Client, container: &pb::Container) -> Option<pb::Description> {
    list::descriptions(client, std::slice::from_ref(container)).await.remove(&container.id)
}

fn phase(container: &pb::Container) -> &str {
    container.status.as_ref().map_or("", |status| status.phase.as_str())
}

async fn until(client: &Client, of: &pb::ContainerReply, until: &str) -> Result<Option<pb::Container>, Failure> {
    let request = pb::AwaitContainerRequest { id: of.id, start: of.start, until: until.to_owned(), limit_ms: 0 };
    Ok(client.hosts().await_container(request).await?.into_inner().container)
}

/// How it ended was the answer, whether or not a manager is there to take it away now.
async fn gone(client: &Client, of: &pb::ContainerReply) {
    let until = "gone".to_owned();
    let request = pb::AwaitContainerRequest { id: of.id, start: of.start, until, limit_ms: GONE_WITHIN_MS };
    let _ = client.hosts().await_container(request).await;
}

/// Started, and seen to run; else why not.
async fn started(client: &Client, name: &str, node: &str, again: bool) -> Result<pb::ContainerReply, Failure> {
    let request = pb::StartContainerRequest { container: reference(name, node), again, request_id: request_id() };
    let reply = client.hosts().start_container(request).await?.into_inner();
    match until(client, &reply, "running").await? {
        Some(found) => could_start(&found).map(|()| reply),
        // It went with its end.
        None => Ok(reply),
    }
}

fn could_start(container: &pb::Container) -> Result<(), Failure> {
    let status = container.status.clone().unwrap_or_default();
    // One whose policy says so is tried again all the same.
    if status.unstarted {
        let name = container.spec.clone().unwrap_or_default().name;
        let message = format!("container {name} could not be started: {}", status.message);
        return Err(Failure::new(Exit::of_unstarted(status.exit_code), message));
    }
    Ok(())
}

async fn start(client: &Client, a: &Start) -> Result<ExitCode, Failure> {
    let (names, node) = (&a.named.containers, &a.named.on.node);
    if a.attach || a.interactive {
        let [name] = names.as_slice() else {
            return Err(Failure::usage("--attach and --interactive are for one container"));
        };
        let found = one(client, name, node).await?;
        let tty = found.spec.clone().and_then(|s| s.container).is_some_and(|c| c.tty);
        let detach = terminal::Keys::parse(&a.detach_keys)?;
        let input = session::Input { stdin: a.interactive, tty, detach, redraw: false };
        let session = session::attach(client, &found, input).await?;
        let start = started(client, name, node, false).await?;
        let following = session.follow_in_background();
        let over = session::pass_signals(client, &found, following, a.sig_proxy && !tty).await?;
        if over.has_ended && found.spec.as_ref().is_some_and(|spec| spec.auto_remove) {
            gone(client, &start).await;
        }
        return Ok(over.code);
    }
    let apart = |f: Failure| match f.exit {
        // Several may have been asked for: which number is whose would not be known.
        Exit::NotRun | Exit::NotExecutable | Exit::NoProgram => Failure { exit: Exit::NotConverged, ..f },
        _ => f,
    };
    each_at_once(names, |name| async move { started(client, &name, node, false).await.map(|_| name).map_err(apart) })
        .await?;
    Ok(ExitCode::SUCCESS)
}

async fn stop(client: &Client, a: &Stop) -> Result<(), Failure> {
    each_at_once(&a.named.containers, |name| async move {
        let grace_ms = a.time.map(|seconds| seconds.saturating_mul(1000));
        let request = pb::StopContainerRequest {
            container: reference(&name, &a.named.on.node),
            grace_ms,
            request_id: request_id(),
        };
        let reply = client.hosts().stop_container(request).await?.into_inner();
        until(client, &reply, "ended").await?;
        Ok(name)
    })
    .await
}

async fn restart(client: &Client, a: &Stop) -> Result<(), Failure> {
    each_at_once(&a.named.containers, |name| async move {
        if let Some(seconds) = a.time {
            let grace_ms = Some(seconds.saturating_mul(1000));
            let request = pb::StopContainerRequest {
                container: reference(&name, &a.named.on.node),
                grace_ms,
                request_id: request_id(),
            };
            let reply = client.hosts().stop_container(request).await?.into_inner();
            until(client, &reply, "ended").await?;
        }
        started(client, &name, &a.named.on.node, true).await?;
        Ok(name)
    })
    .await
}

async fn kill(client: &Client, a: &Kill) -> Result<(), Failure> {
    let is_kill = matches!(a.signal.to_ascii_uppercase().as_str(), "KILL" | "SIGKILL" | "9");
    each_at_once(&a.named.containers, |name| async move {
        let found = one(client, &name, &a.named.on.node).await?;
        if !matches!(found.status.clone().unwrap_or_default().phase.as_str(), "running" | "restarting") {
            return Err(Failure::new(Exit::Conflict, format!("container {name} does not run")));
        }
        if is_kill && found.service == 0 {
            // Wanted so: its restart policy does not start it again.
            let container = reference(&name, &a.named.on.node);
            let request = pb::StopContainerRequest { container, grace_ms: Some(0), request_id: request_id() };
            client.hosts().stop_container(request).await?;
        }
        let request = pb::SignalRequest { container: found.id, signal: a.signal.clone() };
        let sent = client.containers(Some(found.node)).signal(request).await;
        sent.map_err(|status| Failure::from(status).calling(found.id, &name))?;
        Ok(name)
    })
    .await
}

async fn rm(client: &Client, a: &Rm) -> Result<(), Failure> {
    each_at_once(&a.named.containers, |name| async move {
        let container = reference(&name, &a.named.on.node);
        let request =
            pb::RemoveContainerRequest { container, force: a.force, volumes: a.volumes, request_id: request_id() };
        let reply = client.hosts().remove_container(request).await?.into_inner();
        until(client, &reply, "gone").await?;
        Ok(name)
    })
    .await
}

async fn exec(client: &Client, a: &Exec) -> Result<ExitCode, Failure> {
    let found = one(client, &a.container, &a.on.node).await?;
    if phase(&found) == "created" {
        return Err(Failure::new(Exit::Conflict, format!("container {} does not run: start it first", a.container)));
    }
    let start = pb::ExecStart {
        container: found.id,
        args: a.command.clone(),
        env: spec::env::collect(&a.env_file, &a.env)?,
        workdir: a.workdir.clone(),
        user: a.user.clone(),
        tty: a.tty,
        stdin: a.interactive,
        privileged: a.privileged,
        detached: a.detach,
    };
    let input = session::Input {
        stdin: a.interactive && !a.detach,
        tty: a.tty && !a.detach,
        detach: terminal::Keys::parse(&a.detach_keys)?,
        redraw: false,
    };
    let done = async {
        let session = session::exec(client, found.node, start, input).await?;
        if a.detach { Ok(ExitCode::SUCCESS) } else { Ok(session.follow().await?.code) }
    };
    done.await.map_err(|f: Failure| f.calling(found.id, &a.container))
}

async fn logs(client: &Client, a: &Logs) -> Result<(), Failure> {
    let since_ms = match a.since {
        None => 0,
        Some(Since::At { epoch_ms }) => epoch_ms,
        Some(Since::Ago(d)) => now().0.saturating_sub(u64::try_from(d.as_millis()).unwrap_or(u64::MAX)),
    };
    let found = one(client, &a.container, &a.on.node).await?;
    if phase(&found) == "created" && !a.follow {
        // It never wrote anything.
        return Ok(());
    }
    let request = pb::TaskLogsRequest { task: found.id, follow: a.follow, tail: a.tail.0, since_ms };
    let mut lines = client.containers(Some(found.node)).container_logs(request).await?.into_inner();
    loop {
        let line = tokio::select! {
            next = lines.message() => next?,
            signal = tokio::signal::ctrl_c() => return Ok(signal?),
        };
        let Some(line) = line else { return Ok(()) };
        let mut text = Vec::new();
        if a.timestamps {
            text.extend_from_slice(rfc3339(line.time_ms).as_bytes());
            text.push(b' ');
        }
        text.extend_from_slice(&line.line);
        if !text.ends_with(b"\n") {
            text.push(b'\n');
        }
        if line.stderr { out::log_aside(&text)? } else { out::log(&text)? }
    }
}

async fn wait(client: &Client, a: &Named) -> Result<(), Failure> {
    each_at_once(&a.containers, |name| async move {
        let found = one(client, &name, &a.on.node).await?;
        let of = pb::ContainerReply { id: found.id, start: found.start };
        let ended = until(client, &of, "ended").await?;
        let why = match ended.map(|c| c.status.unwrap_or_default()) {
            Some(pb::RunStatus { exit_code: Some(code), .. }) => return Ok(code.to_string()),
            Some(status) if status.phase == "created" => format!("container {name} was not started yet"),
            Some(status) => format!("container {name} ended without an exit status: {}", status.message),
            None => format!("container {name} was removed with its end, and its exit status with it"),
        };
        Err(Failure::new(Exit::General, why))
    })
    .await
}

async fn port(client: &Client, a: &Port) -> Result<(), Failure> {
    let wanted = a.port.as_deref().map(spec::run::port_and_protocol).transpose()?;
    let ports = one(client, &a.container, &a.on.node).await?.ports;
    let mut found = false;
    for p in &ports {
        for at in view::container::hosts(p) {
            match &wanted {
                None => out::line(format!("{}/{} -> {at}", p.container_port, p.protocol))?,
                Some((port, protocol)) if (*port, protocol) == (p.container_port, &p.protocol) => {
                    found = true;
                    out::line(at)?;
                }
                Some(_) => {}
            }
        }
    }
    match wanted {
        Some((port, protocol)) if !found => {
            let message = format!("container {} publishes no port {port}/{protocol}", a.container);
            Err(Failure::new(Exit::NotFound, message))
        }
        Some(_) | None => Ok(()),
    }
}

async fn rename(client: &Client, a: &Rename) -> Result<(), Failure> {
    let container = reference(&a.container, &a.on.node);
    let request = pb::RenameContainerRequest { container, name: a.name.to_string(), request_id: request_id() };
    client.hosts().rename_container(request).await?;
    Ok(())
}

async fn top(client: &Client, a: &One) -> Result<(), Failure> {
    let found = one(client, &a.container, &a.on.node).await?;
    let request = pb::StatsRequest { containers: vec![found.id] };
    let stats = client.containers(Some(found.node)).stats(request).await?.into_inner();
    let Some(of) = stats.containers.into_iter().next() else {
        return Err(Failure::new(Exit::Conflict, format!("container {} does not run", a.container)));
    };
    let rows = of.processes.into_iter().map(|p| vec![p.pid.to_string(), p.command]);
    out::table(&["PID", "COMMAND"], rows.collect())
}

async fn stats(client: &Client, a: &Stats) -> Result<(), Failure> {
    let mut before: Option<pb::StatsReply> = None;
    loop {
        let known = list::of_host(client, &a.containers, &a.on.node).await?;
        let node = known.first().map(|(c, _)| c.node);
        let containers = known.iter().filter(|(_, runs)| *runs).map(|(c, _)| c.id).collect();
        let now = client.containers(node).stats(pb::StatsRequest { containers }).await?.into_inner();
        if before.is_some() || !a.no_stream {
            list::show_stats(&known, before.as_ref(), &now, a.format.format.as_ref())?;
        }
        if a.no_stream && before.is_some() {
            return Ok(());
        }
        before = Some(now);
        tokio::select! {
            () = sleep(STATS_EVERY) => {}
            signal = tokio::signal::ctrl_c() => return Ok(signal?),
        }
    }
}

async fn ps(host: &Path, a: &Ps) -> Result<(), Failure> {
    list::ps(&Client::connect(host).await?, a).await
}
