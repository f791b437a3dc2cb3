//! How a manager stops to be one by its own wish.

use shoal_common::node::Role;
use shoal_rt::clock;
use shoal_state::{Command, Proposal, RequestId};
use std::collections::BTreeMap;

use crate::Manager;

impl Manager {
    /// Has the managers make this one a worker. Once they have let it go, it is granted a certificate that says so.
    pub async fn step_down(&self) -> Result<(), String> {
        let command = Command::UpdateNode {
            node: self.node,
            availability: None,
            role: Some(Role::Worker),
            labels_add: BTreeMap::new(),
            labels_remove: Vec::new(),
        };
        let proposal = Proposal { at: clock::now(), request: Some(RequestId(rand::random())), command };
        let (_, outcome) = self.consensus.propose(proposal).await.map_err(|e| e.to_string())?;
        outcome.map(drop).map_err(|rejection| rejection.to_string())
    }
}
