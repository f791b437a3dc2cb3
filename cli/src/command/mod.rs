//! The verbs: each asks the daemon, and says what came of it.

mod cluster;
mod container;
mod image;
mod logs;
mod network;
mod node;
mod service;
pub(crate) mod show;
mod tasks;

use crate::{
    args::{Cli, Command, cluster::Swarm, container::Container},
    client::Client,
    failure::Failure,
    out,
    view::Form,
};
use futures::{StreamExt as _, stream};
use serde_json::Value;
use std::process::ExitCode;

/// Containers of one command that are changed at once: more only wait for each other on the host.
const AT_ONCE: usize = 16;

pub(crate) async fn run(cli: Cli) -> Result<ExitCode, Failure> {
    // Without a daemon it still knows its own.
    if let Command::Version(format) = &cli.command {
        return cluster::version(&cli.host, format).await.map(|()| ExitCode::SUCCESS);
    }
    let host = cli.host.as_path();
    let client = || Client::connect(host);
    match cli.command {
        Command::Init(a) | Command::Swarm(Swarm::Init(a)) => cluster::init(&client().await?, &a).await,
        Command::Join(a) | Command::Swarm(Swarm::Join(a)) => cluster::join(&client().await?, &a).await,
        Command::JoinToken(a) | Command::Swarm(Swarm::JoinToken(a)) => cluster::join_token(&client().await?, &a).await,
        Command::Leave(a) | Command::Swarm(Swarm::Leave(a)) => cluster::leave(&client().await?, &a).await,
        Command::Info(f) => cluster::info(&client().await?, &f).await,
        // Answered before there was an async runtime.
        Command::Version(_) | Command::Lab(_) | Command::Daemon(_) => Ok(()),
        Command::Node(a) => node::run(host, &a).await,
        Command::Network(a) => network::run(host, &a).await,
        Command::Service(a) => service::run(host, &a).await,
        Command::Image(a) => image::run(&client().await?, &a).await,
        Command::Inspect(a) => container::inspect_any(host, &a).await,
        Command::Container(a) => return container::run(host, &a).await,
        Command::Run(a) => return container::run(host, &Container::Run(a)).await,
        Command::Create(a) => return container::run(host, &Container::Create(a)).await,
        Command::Ps(a) => return container::run(host, &Container::Ls(a)).await,
        Command::Start(a) => return container::run(host, &Container::Start(a)).await,
        Command::Stop(a) => return container::run(host, &Container::Stop(a)).await,
        Command::Restart(a) => return container::run(host, &Container::Restart(a)).await,
        Command::Kill(a) => return container::run(host, &Container::Kill(a)).await,
        Command::Rm(a) => return container::run(host, &Container::Rm(a)).await,
        Command::Exec(a) => return container::run(host, &Container::Exec(a)).await,
        Command::Attach(a) => return container::run(host, &Container::Attach(a)).await,
        Command::Logs(a) => return container::run(host, &Container::Logs(a)).await,
        Command::Wait(a) => return container::run(host, &Container::Wait(a)).await,
        Command::Port(a) => return container::run(host, &Container::Port(a)).await,
        Command::Stats(a) => return container::run(host, &Container::Stats(a)).await,
        Command::Top(a) => return container::run(host, &Container::Top(a)).await,
        Command::Rename(a) => return container::run(host, &Container::Rename(a)).await,
    }
    .map(|()| ExitCode::SUCCESS)
}

/// Does the same to each; all are tried, the first failure is the command's, and the others are told before it.
async fn each<T: AsRef<str>, F>(names: &[T], mut act: impl FnMut(String) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<String, Failure>>,
{
    let mut failures = Vec::new();
    for name in names {
        match act(name.as_ref().to_owned()).await {
            Ok(done) => out::line(done)?,
            Err(f) => failures.push(f),
        }
    }
    told(failures)
}

/// The same for things of which several change at once without harm: each waits a tenth of a second for the managers
/// and its host, and three hundred of them in a row half a minute. What was done is told in the order of the names.
async fn each_at_once<T: AsRef<str>, F>(names: &[T], act: impl FnMut(String) -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<String, Failure>>,
{
    let names = names.iter().map(|name| name.as_ref().to_owned());
    let mut done = stream::iter(names).map(act).buffered(AT_ONCE);
    let mut failures = Vec::new();
    while let Some(one) = done.next().await {
        match one {
            Ok(done) => out::line(done)?,
            Err(f) => failures.push(f),
        }
    }
    told(failures)
}

/// The same of what each is found to be, which is shown first.
async fn inspect_each<F>(
    form: Option<&Form>,
    names: &[String],
    mut find: impl FnMut(String) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<Vec<Value>, Failure>>,
{
    let (mut all, mut failures) = (Vec::new(), Vec::new());
    for name in names {
        match find(name.clone()).await {
            Ok(found) => all.extend(found),
            Err(f) => failures.push(f),
        }
    }
    if (!all.is_empty() || failures.is_empty())
        && let Err(f) = show::inspected(form, &all)
    {
        failures.insert(0, f);
    }
    told(failures)
}

fn told(failures: Vec<Failure>) -> Result<(), Failure> {
    let mut failures = failures.into_iter();
    match failures.next() {
        None => Ok(()),
        Some(first) => {
            for other in failures {
                out::error(&other.message);
            }
            Err(first)
        }
    }
}
