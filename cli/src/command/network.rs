//! `network …`.

use shoal_proto::pb;
use std::path::Path;

use super::each;
use crate::{
    args::{Listing, network::Network},
    client::{Client, request_id},
    failure::Failure,
    out, spec, view,
};

pub(super) async fn run(host: &Path, verb: &Network) -> Result<(), Failure> {
    // What is wrong with the arguments is told whether or not a daemon answers.
    let created = match verb {
        Network::Create(c) => Some(spec::network::spec(c)?),
        Network::Ls(_) | Network::Inspect(_) | Network::Rm(_) => None,
    };
    let client = &Client::connect(host).await?;
    match verb {
        Network::Create(_) => {
            let request = pb::CreateNetworkRequest { spec: created, request_id: request_id() };
            let id = client.control().create_network(request).await?.into_inner().id;
            out::line(format!("net-{id}"))
        }
        Network::Ls(listing) => ls(client, listing).await,
        Network::Inspect(i) => {
            let networks = list(client, &i.networks).await?;
            if i.format.json() { networks.iter().try_for_each(out::json) } else { out::json_array(&networks) }
        }
        Network::Rm(rm) => {
            each(&rm.networks, |name| async move {
                match client.control().remove_network(pb::RemoveNetworkRequest { network: name.clone() }).await {
                    Ok(_) => Ok(name),
                    Err(s) if rm.force && s.code() == tonic::Code::NotFound => Ok(name),
                    Err(s) => Err(s.into()),
                }
            })
            .await
        }
    }
}

pub(super) async fn list(client: &Client, names: &[String]) -> Result<Vec<view::Network>, Failure> {
    let request = pb::ListNetworksRequest { networks: names.to_vec() };
    let reply = client.control().list_networks(request).await?.into_inner();
    Ok(reply.networks.into_iter().map(Into::into).collect())
}

async fn ls(client: &Client, listing: &Listing) -> Result<(), Failure> {
    let networks = list(client, &[]).await?;
    if listing.quiet {
        return networks.iter().try_for_each(|n| out::line(&n.id));
    }
    if listing.format.json() {
        return networks.iter().try_for_each(out::json);
    }
    let rows = networks.iter().map(|n| {
        let subnets: Vec<&str> = n.subnets.iter().map(|s| s.subnet.as_str()).collect();
        vec![n.id.clone(), n.name.clone(), n.driver.clone(), n.scope.to_owned(), subnets.join(" ")]
    });
    out::table(&["NETWORK ID", "NAME", "DRIVER", "SCOPE", "SUBNETS"], rows.collect())
}
