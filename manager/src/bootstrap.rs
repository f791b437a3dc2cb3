//! A manager comes to be: the first of a new cluster, or one more with a certificate that says so.

use ipnet::{Ipv4Net, Ipv6Net};
use shoal_common::{
    LogIndex, NodeId,
    node::{Availability, NodeDescription, Role},
};
use shoal_raft::{Connector, Consensus, OpenError, Owner, ProposeError, Settings};
use shoal_rt::{Credentials, Expect, Identity, JoinToken, clock, token::CaDigest};
use shoal_state::{ClusterSettings, Command, Proposal, Rejection, RequestId};
use std::{collections::BTreeMap, net::SocketAddr, path::Path, sync::Arc};
use tonic::{Status, transport::Channel};

use crate::{
    Manager,
    ca::{self, Ca},
    refused,
};

/// Node ids come from the log, and the log begins with this one.
pub const FIRST: NodeId = NodeId(1);

/// What `shoal init` settles for good.
#[derive(Debug, Clone)]
pub struct Founding {
    /// Of its log.
    pub incarnation: String,
    pub description: NodeDescription,
    pub address_pools: Vec<Ipv4Net>,
    pub subnet_prefix_len: u8,
    pub data_path_port: u16,
    pub availability: Availability,
}

/// A cluster of one manager. It exists for others once the identity in its credentials is kept.
#[derive(Debug)]
pub struct Founded {
    pub manager: Manager,
    pub worker_token: JoinToken,
    pub manager_token: JoinToken,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make the cluster's CA")]
    Ca(#[from] ca::Error),
    #[error("cannot use the certificate that was just made")]
    Identity(#[from] shoal_rt::identity::Error),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Propose(#[from] ProposeError),
    #[error(transparent)]
    Rejected(#[from] Rejection),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(rejection) => refused(rejection),
            Error::Propose(unanswered) => refused(unanswered),
            Error::Ca(_) | Error::Identity(_) | Error::Open(_) => {
                let cause = std::error::Error::source(&error).map(|c| format!(": {c}")).unwrap_or_default();
                Status::failed_precondition(format!("{error}{cause}"))
            }
        }
    }
}

/// Reaches other members with the certificate that is in force.
#[derive(Debug)]
struct ByCertificate(Credentials);

#[tonic::async_trait]
impl Connector for ByCertificate {
    async fn connect(
        &self,
        node: NodeId,
        addr: SocketAddr,
    ) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
        Ok(shoal_rt::connect(addr, Expect::Node(node), &self.0).await?)
    }
}

/// A name for the store of a host that becomes a manager. No other store has it.
pub fn new_incarnation() -> String {
    data_encoding::HEXLOWER.encode(&rand::random::<[u8; 12]>())
}

/// Creates the store, and says which one it is: this, or one that was created and never used. Whoever calls keeps
/// that, durably, before the store is opened: from then on it is this one or none.
pub async fn create(raft_dir: &Path, credentials: &Credentials, incarnation: String) -> Result<String, Error> {
    Ok(shoal_raft::create(raft_dir, owner(credentials, incarnation)).await?.incarnation)
}

fn owner(credentials: &Credentials, incarnation: String) -> Owner {
    let identity = credentials.current();
    Owner { cluster: CaDigest::of(&identity.ca).to_string(), node: identity.node.0, incarnation }
}

/// Opens this host's member of the Raft group on the store of that incarnation. One that is new waits to be taken in.
pub async fn open(
    raft_dir: &Path,
    credentials: Credentials,
    incarnation: String,
    seen: LogIndex,
) -> Result<Manager, Error> {
    let node = credentials.current().node;
    let owner = owner(&credentials, incarnation);
    let settings = Settings { stands_from: seen, ..Settings::new(owner, raft_dir.to_owned()) };
    let consensus = Consensus::open(settings, Arc::new(ByCertificate(credentials.clone()))).await?;
    Ok(Manager { node, consensus, credentials })
}

/// CA, log and first entries, in a directory that holds no log yet. What a failure leaves there is of no use.
pub async fn found(raft_dir: &Path, founding: Founding) -> Result<Founded, Error> {
    let id = data_encoding::HEXLOWER.encode(&rand::random::<[u8; 12]>());
    let material = ca::generate(&id)?;
    let settings = ClusterSettings {
        id,
        ca_certificate_pem: material.certificate_pem,
        ca_key_pem: material.key_pem,
        worker_join_secret: JoinToken::new_secret(),
        manager_join_secret: JoinToken::new_secret(),
        address_pools: founding.address_pools,
        subnet_prefix_len: founding.subnet_prefix_len,
        ula_prefix: ula_prefix(rand::random()),
        data_path_port: founding.data_path_port,
    };
    let authority = Ca::from_settings(&settings)?;
    let (key, request) = ca::signing_request()?;
    let certificate = authority.sign(&request, FIRST, Role::Manager, clock::now())?;
    let identity = Identity::new(key, certificate, authority.certificate_der().to_vec())?;
    let ca = CaDigest::of(&identity.ca);
    let worker_token = JoinToken { ca, secret: settings.worker_join_secret.clone() };
    let manager_token = JoinToken { ca, secret: settings.manager_join_secret.clone() };

    let credentials = Credentials::new(identity);
    let incarnation = create(raft_dir, &credentials, founding.incarnation).await?;
    let manager = open(raft_dir, credentials, incarnation, LogIndex(0)).await?;
    let control_addr = founding.description.control_addr;
    let init = Command::InitCluster { cluster: Box::new(settings), node: founding.description };
    match first_entries(&manager.consensus, control_addr, init, founding.availability).await {
        Ok(()) => Ok(Founded { manager, worker_token, manager_token }),
        Err(error) => {
            manager.consensus.shutdown().await;
            Err(error)
        }
    }
}

async fn first_entries(
    consensus: &Consensus,
    control_addr: SocketAddr,
    init: Command,
    availability: Availability,
) -> Result<(), Error> {
    consensus.bootstrap(control_addr).await?;
    propose(consensus, init).await?;
    if availability != Availability::Active {
        let command = Command::UpdateNode {
            node: FIRST,
            availability: Some(availability),
            role: None,
            labels_add: BTreeMap::new(),
            labels_remove: Vec::new(),
        };
        propose(consensus, command).await?;
    }
    Ok(())
}

async fn propose(consensus: &Consensus, command: Command) -> Result<(), Error> {
    // A try whose answer is lost is repeated. Without an id the second try of InitCluster finds the first one's work,
    // and `init` fails with "this cluster was initialised already".
    let proposal = Proposal { at: clock::now(), request: Some(RequestId(rand::random())), command };
    consensus.propose(proposal).await?.1?;
    Ok(())
}

/// A /48 below fd00::/8 with a random global id (RFC 4193).
fn ula_prefix(global_id: [u8; 5]) -> Ipv6Net {
    let mut octets = [0u8; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&global_id);
    Ipv6Net::new_assert(octets.into(), 48)
}
