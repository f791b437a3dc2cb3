//! The only way to change the state.

use shoal_common::{LogIndex, service::NetworkAttachment};

use crate::{Outcome, Proposal, Rejection, State};

impl State {
    /// Applies one entry of the log.
    pub fn apply(&mut self, index: LogIndex, proposal: &Proposal) -> Outcome {
        let _ = proposal;
        self.applied = index;
        Err(Rejection::NotInitialised)
    }

    /// Whether a task with these networks would get its addresses now.
    pub fn room(&self, networks: &[NetworkAttachment]) -> Result<(), Rejection> {
        let _ = networks;
        Ok(())
    }
}
