//! From a user's intent to an entry of the log.

use sha2::{Digest as _, Sha256};
use shoal_common::{Invalid, NodeId};
use shoal_proto::Call;
use shoal_rt::clock;
use shoal_state::{Command, Proposal, Reply, RequestId};

use super::status::Refusal;
use crate::Manager;

/// Answered once the change is applied on a majority.
pub(super) async fn write(manager: &Manager, request: RequestId, command: Command) -> Result<Reply, Refusal> {
    let proposal = Proposal { at: clock::now(), request: Some(request), command };
    let (_, outcome) = manager.consensus.propose(proposal).await?;
    Ok(outcome?)
}

/// Of our own. A proposal is repeated when its fate is not known, so it needs one all the same.
pub(super) fn new_request() -> RequestId {
    RequestId(rand::random())
}

/// Who means what by an id.
#[derive(Debug, Clone, Copy)]
pub(super) enum By {
    /// The users of managers are one, whichever manager they ask.
    Managers,
    /// The users of a host that is none.
    Host(NodeId),
}

/// The client's id of its intent; one of our own if it sent none. It is bound to who asks and to what is asked, so that
/// an id that comes again with something else does not get this answer.
pub(super) fn request(text: &str, by: By, call: Call, asked: &impl prost::Message) -> Result<RequestId, Invalid> {
    if text.is_empty() {
        return Ok(new_request());
    }
    let bad = || Invalid::new("request_id", text, "32 hexadecimal digits, drawn at random once for each intent");
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let id = u128::from_str_radix(text, 16).map_err(|_| bad())?;
    let mut sum = Sha256::new_with_prefix(id.to_be_bytes());
    sum.update(match by {
        By::Managers => [0; 8],
        By::Host(NodeId(node)) => node.to_be_bytes(),
    });
    sum.update(call.path());
    sum.update(asked.encode_to_vec());
    let id = sum.finalize().iter().take(16).fold(0, |id, byte| id << 8 | u128::from(*byte));
    Ok(RequestId(id))
}

/// The answer that is remembered under the request's id is of another kind of change.
pub(super) fn reused(request: RequestId) -> Refusal {
    let id = format!("{:032x}", request.0);
    Invalid::new("request_id", id, "an id that no other request bore").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_proto::pb;

    #[test]
    fn a_request_id_is_32_hex_digits_and_drawn_if_there_is_none() {
        let request =
            |text: &str| request(text, By::Managers, Call::ControlRemoveNode, &pb::RemoveNodeRequest::default());
        assert_eq!(request("000000000000000000000000000000fF"), request("000000000000000000000000000000Ff"));
        assert_ne!(request("").unwrap(), request("").unwrap());
        for bad in ["1", "+0000000000000000000000000000001", "0000000000000000000000000000000g", &"0".repeat(33)] {
            assert_eq!(request(bad).unwrap_err().field, "request_id", "{bad}");
        }
    }

    #[test]
    fn an_id_is_its_askers_and_for_what_was_asked() {
        let ask = |by, call, node: &str| {
            let asked = pb::RemoveNodeRequest { node: node.to_owned(), ..Default::default() };
            request(&"1".repeat(32), by, call, &asked).unwrap()
        };
        let (call, host) = (Call::ControlRemoveNode, By::Host(NodeId(3)));
        let first = ask(By::Managers, call, "w1");
        assert_eq!(ask(By::Managers, call, "w1"), first);
        for other in [
            ask(By::Managers, call, "w2"),
            ask(host, call, "w1"),
            ask(By::Managers, Call::ControlUpdateNode, "w1"),
            ask(By::Host(NodeId(4)), call, "w1"),
        ] {
            assert_ne!(other, first);
        }
        assert_ne!(ask(host, call, "w1"), ask(By::Host(NodeId(4)), call, "w1"));
    }
}
