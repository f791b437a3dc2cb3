//! `service …`.

use shoal_proto::pb;
use std::path::Path;

use super::{each, inspect_each, logs, network, show, tasks};
use crate::{
    args::{
        Listing,
        service::{Create, Scale, Service, Update, Wait},
    },
    client::{Client, request_id},
    failure::{Exit, Failure},
    out,
    progress::follow::follow,
    spec,
    view::service::{inspected, row},
};

/// An update is a change to what was read; when somebody else's change came between, it is made again on theirs.
const MAX_ATTEMPTS: u32 = 3;

pub(super) async fn run(host: &Path, verb: &Service) -> Result<(), Failure> {
    match verb {
        Service::Create(c) => create(host, c).await,
        Service::Ls(listing) => ls(&Client::connect(host).await?, listing).await,
        Service::Ps(ps) => {
            let client = Client::connect(host).await?;
            let mut all = Vec::new();
            for service in &ps.services {
                let request = pb::ListTasksRequest { service: service.clone(), ..Default::default() };
                all.extend(client.control().list_tasks(request).await?.into_inner().tasks);
            }
            tasks::print(all, &ps.listing)
        }
        Service::Inspect(i) => {
            let client = &Client::connect(host).await?;
            inspect_each(i.format.format.as_ref(), &i.services, |service| async move {
                Ok(list(client, &[service]).await?.iter().map(inspected).collect())
            })
            .await
        }
        Service::Scale(s) => scale(&Client::connect(host).await?, s).await,
        Service::Update(u) => update(&Client::connect(host).await?, u).await,
        Service::Logs(l) => logs::run(host, l).await,
        Service::Rm(rm) => {
            let client = &Client::connect(host).await?;
            each(&rm.services, |service| async move {
                client
                    .control()
                    .remove_service(pb::RemoveServiceRequest { service: service.clone(), request_id: request_id() })
                    .await?;
                Ok(service)
            })
            .await
        }
    }
}

async fn create(host: &Path, c: &Create) -> Result<(), Failure> {
    let spec = spec::service::create(c, rand::random())?;
    warn_of_hostname(c.settings.hostname.as_deref());
    let client = &Client::connect(host).await?;
    let name = spec.name.clone();
    let request = pb::CreateServiceRequest { spec: Some(spec), request_id: request_id() };
    let r = client.control().create_service(request).await?.into_inner();
    out::line(format!("svc-{}", r.id))?;
    wait_for(client, &name, r.id, r.version, &c.wait).await
}

fn warn_of_hostname(hostname: Option<&str>) {
    if let Some(warning) = spec::hides_a_public_name(hostname) {
        out::note(format!("warning: {warning}"));
    }
}

async fn wait_for(client: &Client, name: &str, id: u64, version: u64, wait: &Wait) -> Result<(), Failure> {
    if wait.detach { Ok(()) } else { follow(client, name, id, version, wait).await }
}

async fn list(client: &Client, names: &[String]) -> Result<Vec<pb::Service>, Failure> {
    let request = pb::ListServicesRequest { services: names.to_vec() };
    Ok(client.control().list_services(request).await?.into_inner().services)
}

async fn ls(client: &Client, listing: &Listing) -> Result<(), Failure> {
    let rows: Vec<_> = list(client, &[]).await?.iter().map(row).collect();
    if listing.quiet {
        return rows.iter().try_for_each(|s| out::line(&s.id));
    }
    show::rows(listing.format.as_ref(), "ID", &rows, || {
        let cells = rows.iter().map(|s| [&s.id, &s.name, &s.mode, &s.replicas, &s.image, &s.ports].map(String::clone));
        out::table(&["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"], cells.map(Vec::from).collect())
    })
}

/// Reads the service, changes its spec, and proposes it on the version that was read.
async fn change(
    client: &Client,
    service: &str,
    alter: impl Fn(&mut pb::ServiceSpec) -> Result<(), Failure>,
) -> Result<(String, pb::UpdateServiceReply), Failure> {
    let mut attempt = 1;
    loop {
        let found = list(client, &[service.to_owned()]).await?.into_iter().next();
        let gone = || Failure::new(Exit::NotFound, format!("there is no service {service}"));
        let found = found.ok_or_else(gone)?;
        let mut spec = found.spec.ok_or_else(gone)?;
        alter(&mut spec)?;
        let name = spec.name.clone();
        let request = pb::UpdateServiceRequest {
            service: format!("svc-{}", found.id),
            version: found.version,
            spec: Some(spec),
            request_id: request_id(),
        };
        match client.control().update_service(request).await {
            Ok(reply) => return Ok((name, reply.into_inner())),
            Err(s) if s.code() == tonic::Code::Aborted && attempt < MAX_ATTEMPTS => attempt += 1,
            Err(s) => return Err(s.into()),
        }
    }
}

async fn update(client: &Client, u: &Update) -> Result<(), Failure> {
    warn_of_hostname(u.settings.hostname.as_deref());
    // The spec names networks by id; the user may not.
    let networks_gone: Vec<String> = match u.network_rm.as_slice() {
        [] => vec![],
        names => network::list(client, names, &crate::args::container::On::default())
            .await?
            .into_iter()
            .map(|n| format!("net-{}", n.id))
            .collect(),
    };
    let (name, r) = change(client, &u.service, |spec| spec::service::update(spec, u, &networks_gone)).await?;
    out::line(&u.service)?;
    wait_for(client, &name, r.id, r.version, &u.wait).await
}

async fn scale(client: &Client, s: &Scale) -> Result<(), Failure> {
    // All are scaled before any is waited for.
    let mut changed = Vec::new();
    for (service, replicas) in &s.services {
        let (name, r) = change(client, service, |spec| spec::service::scale(spec, *replicas)).await?;
        out::line(format!("{name} scaled to {replicas}"))?;
        changed.push((name, r));
    }
    for (name, r) in changed {
        wait_for(client, &name, r.id, r.version, &s.wait).await?;
    }
    Ok(())
}
