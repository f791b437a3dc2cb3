//! Whether a Raft message comes from whom it says. A manager's certificate names one node, and a message names a leader
//! or a candidate: they must be the same, or one manager could speak for all.
//!
//! Refusing a message is always safe, as losing one is. It must also not keep a member from its true leader: a member
//! that was away may have a leader that it does not know yet. So a node that this member knows as none of the group is
//! refused only while another leader is heard from.

use openraft::vote::RaftLeaderId as _;
use shoal_common::NodeId;
use std::time::Duration;
use tonic::Status;

use crate::types::Vote;

/// The furthest that a message may carry the term beyond this member's own. Elections reach it in a century; one
/// message with the last term of all would end them for ever.
const TERM_JUMP: u64 = 1 << 32;

/// What a member knows of a node that speaks to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) node: NodeId,
    /// A voter or a learner, in the newest membership that this member has.
    pub(crate) in_group: bool,
    /// In the cluster's state, a node that is no manager.
    pub(crate) is_worker: bool,
    /// Since this member led by a majority, or heard a leader of the group. `None`: not since it was opened.
    pub(crate) led_since: Option<Duration>,
}

impl Sender {
    /// Whether it is heard at all. `lease`: for this long after a leader was heard, it is taken to lead.
    pub(crate) fn is_heard(self, lease: Duration) -> Result<(), Status> {
        let led = self.led_since.is_some_and(|since| since < lease);
        if self.is_worker && !self.in_group && led {
            return Err(Status::permission_denied(format!("{} is not a manager any more", self.node)));
        }
        Ok(())
    }

    /// Whether it may send a message under this vote: its own, as a leader or as a candidate.
    pub(crate) fn may_claim(self, vote: &Vote, own_term: u64) -> Result<(), Status> {
        let claimed = NodeId(*vote.leader_id().node_id());
        if claimed != self.node {
            return Err(Status::permission_denied(format!("{} speaks for {claimed}", self.node)));
        }
        let term = vote.leader_id().term();
        if term.saturating_sub(own_term) > TERM_JUMP {
            let told = format!("term {term} of {} is out of all proportion: this member is at {own_term}", self.node);
            return Err(Status::invalid_argument(told));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    const LEASE: Duration = Duration::from_millis(750);

    #[test]
    fn a_demoted_manager_is_not_heard_while_another_leads() {
        let now = Some(Duration::ZERO);
        for (in_group, is_worker, led_since, heard) in [
            (true, false, now, true),
            // It leads, or votes, until the group has let it go.
            (true, true, now, true),
            // A manager that this member does not have in its group yet.
            (false, false, now, true),
            (false, true, now, false),
            // Nobody leads this member: it may be behind, and this node may have been promoted again.
            (false, true, None, true),
            (false, true, Some(LEASE), true),
        ] {
            let sender = Sender { node: NodeId(3), in_group, is_worker, led_since };
            assert_eq!(sender.is_heard(LEASE).is_ok(), heard, "{sender:?}");
        }
    }

    #[test]
    fn a_message_is_its_senders_own_and_its_term_within_reach() {
        let sender = Sender { node: NodeId(3), in_group: true, is_worker: false, led_since: None };
        let code = |term, node, own| sender.may_claim(&Vote::new(term, node), own).map_err(|s| s.code());
        assert_eq!(code(7, 3, 5), Ok(()));
        assert_eq!(code(4, 3, 5), Ok(()), "Raft itself answers an old term");
        assert_eq!(code(7, 2, 5), Err(Code::PermissionDenied));
        assert_eq!(code(u64::MAX, 3, 5), Err(Code::InvalidArgument));
        assert_eq!(code(5 + TERM_JUMP, 3, 5), Ok(()));
    }
}
