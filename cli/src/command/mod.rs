//! The verbs: each asks the daemon, and says what came of it.

mod cluster;
mod image;
mod logs;
mod network;
mod node;
mod service;
mod tasks;

use crate::{
    args::{Cli, Command, cluster::Swarm},
    client::Client,
    failure::Failure,
    out,
};

pub(crate) async fn run(cli: Cli) -> Result<(), Failure> {
    // Without a daemon it still knows its own.
    if let Command::Version(format) = &cli.command {
        return cluster::version(&cli.host, format).await;
    }
    let client = || Client::connect(&cli.host);
    match &cli.command {
        Command::Init(a) | Command::Swarm(Swarm::Init(a)) => cluster::init(&client().await?, a).await,
        Command::Join(a) | Command::Swarm(Swarm::Join(a)) => cluster::join(&client().await?, a).await,
        Command::JoinToken(a) | Command::Swarm(Swarm::JoinToken(a)) => cluster::join_token(&client().await?, a).await,
        Command::Leave(a) | Command::Swarm(Swarm::Leave(a)) => cluster::leave(&client().await?, a).await,
        Command::Info(f) => cluster::info(&client().await?, f).await,
        // Answered before there was an async runtime.
        Command::Version(_) | Command::Lab(_) | Command::Daemon(_) => Ok(()),
        Command::Node(a) => node::run(&cli.host, a).await,
        Command::Network(a) => network::run(&cli.host, a).await,
        Command::Service(a) => service::run(&cli.host, a).await,
        Command::Image(a) => image::run(&client().await?, a).await,
    }
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
