//! `run` and `create`.

use shoal_proto::pb;
use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};
use tonic::Code;

use super::{
    could_start, gone, one, reference,
    session::{self, Over, Session},
    terminal::Keys,
    until,
};
use crate::{
    args::container::{Create, Run},
    client::{Client, request_id},
    failure::Failure,
    out,
    spec::run::{Asked, refuse_without_command, run as asked, unreached},
};

/// Names are made up so often before that is given up.
const NAMES: usize = 8;
/// How long a pull may say nothing.
const NOTE_EVERY: Duration = Duration::from_secs(3);

pub(super) async fn create(host: &Path, a: &Create) -> Result<(), Failure> {
    // What is wrong with the arguments is told whether or not a daemon answers.
    asked(a, &[], 0)?;
    let client = Client::connect(host).await?;
    let created = made(&client, a).await?;
    out::line(format!("task-{}", created.id))
}

pub(super) async fn run(host: &Path, a: &Run) -> Result<ExitCode, Failure> {
    asked(&a.create, &[], 0)?;
    let client = Client::connect(host).await?;
    let foreground = !a.detach;
    let (stdin, tty, detach) = (a.create.interactive, a.create.tty, Keys::parse(&a.detach_keys)?);
    let input = session::Input { stdin, tty, detach, redraw: false };
    if foreground {
        input.check()?;
    }
    let created = made(&client, &a.create).await?;
    let id = format!("task-{}", created.id);
    let found = one(&client, &id, &a.create.node).await?;
    let session = if foreground { Some(session::attach(&client, &found, input).await?) } else { None };
    let container = reference(&id, &a.create.node);
    let request = pb::StartContainerRequest { container, again: false, request_id: request_id() };
    let started = match client.hosts().start_container(request).await {
        Ok(started) => started.into_inner(),
        Err(status) => {
            // As Docker, it stays; with --rm nothing does.
            if a.create.rm {
                let container = reference(&id, &a.create.node);
                let request =
                    pb::RemoveContainerRequest { container, force: true, volumes: true, request_id: request_id() };
                // The first failure is the one to tell.
                let _ = client.hosts().remove_container(request).await;
            }
            return Err(status.into());
        }
    };
    let over = match session {
        Some(session) => watch(&client, a, &found, &started, session).await,
        None => until(&client, &started, "running").await.and_then(|found| {
            found.as_ref().map_or(Ok(()), could_start)?;
            out::line(id)?;
            Ok(Over { code: ExitCode::SUCCESS, has_ended: false })
        }),
    };
    if a.create.rm && over.as_ref().map_or(true, |over| over.has_ended) {
        gone(&client, &started).await;
    }
    over.map(|over| over.code)
}

/// In the foreground.
async fn watch(
    client: &Client,
    a: &Run,
    found: &pb::Container,
    started: &pb::ContainerReply,
    session: Session,
) -> Result<Over, Failure> {
    let following = session.follow_in_background();
    let running = until(client, started, "running").await;
    if let Err(why) = running.and_then(|found| found.as_ref().map_or(Ok(()), could_start)) {
        following.abort();
        // Not before our terminal is as it was.
        let _ = following.await;
        return Err(why);
    }
    session::pass_signals(client, found, following, a.sig_proxy && !a.create.tty).await
}

/// The container, made; its image is here.
async fn made(client: &Client, a: &Create) -> Result<pb::ContainerReply, Failure> {
    // What another host's images have is that host's to know.
    let exposed = if a.node.is_empty() {
        let image = image(client, a).await?;
        refuse_without_command(a, &image)?;
        image.exposed_ports
    } else {
        Vec::new()
    };
    if a.publish_all && !a.node.is_empty() {
        return Err(Failure::usage(
            "publish-all: which ports an image exposes is known to the other host alone: name them with -p",
        ));
    }
    for attempt in 0.. {
        let Asked { spec, notes } = asked(a, &exposed, rand::random())?;
        if attempt == 0 {
            notes.iter().for_each(|note| out::note(format!("warning: {note}")));
        }
        let node = a.node.clone();
        let request = pb::CreateContainerRequest { node, spec: Some(spec.clone()), request_id: request_id() };
        match client.hosts().create_container(request).await {
            Ok(reply) => {
                warn_of_ports(client, a, &spec).await;
                return Ok(reply.into_inner());
            }
            Err(s) if s.code() == Code::AlreadyExists && a.name.is_none() && attempt < NAMES => {}
            Err(s) => return Err(s.into()),
        }
    }
    unreachable!("the loop ends by returning")
}

/// The container is there whether or not its networks can be looked at now.
async fn warn_of_ports(client: &Client, a: &Create, spec: &pb::RunSpec) {
    if spec.ports.is_empty() || spec.networks.is_empty() {
        return;
    }
    let request = pb::ListNetworksRequest { networks: Vec::new(), node: a.node.clone() };
    let known = client.hosts().list_host_networks(request).await.map(|r| r.into_inner().networks).unwrap_or_default();
    if let Some(warning) = unreached(spec, &known) {
        out::note(format!("warning: {warning}"));
    }
}

/// Says now and then that the work goes on: a registry may take minutes, and may never answer.
async fn noting<T>(what: String, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    let begun = Instant::now();
    loop {
        match tokio::time::timeout(NOTE_EVERY, &mut work).await {
            Ok(done) => return done,
            Err(_) => out::note(format!("{what}: {} s so far", begun.elapsed().as_secs())),
        }
    }
}

/// Sees to it that the image is here, and says what is in it.
async fn image(client: &Client, a: &Create) -> Result<pb::InspectImageReply, Failure> {
    let inspect = || async {
        let request = pb::InspectImageRequest { reference: a.image.clone() };
        client.containers(None).inspect_image(request).await
    };
    if a.pull != "always" {
        match inspect().await {
            Ok(found) => return Ok(found.into_inner()),
            Err(s) if s.code() == Code::NotFound && a.pull == "missing" => {
                out::note(format!("Unable to find image '{}' locally", a.image));
            }
            Err(s) => return Err(s.into()),
        }
    }
    let mut local = client.local();
    let pull = local.pull_image(pb::PullImageRequest { reference: a.image.clone() });
    noting(format!("pulling {}", a.image), pull).await?;
    Ok(inspect().await?.into_inner())
}
