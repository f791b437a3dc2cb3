//! From a user's intent to an entry of the log.

use shoal_common::Invalid;
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

/// For a call that brings no id. A proposal is repeated when its fate is not known, so it needs one all the same.
pub(super) fn new_request() -> RequestId {
    RequestId(rand::random())
}

/// The client's id of its intent; one of our own if it sent none.
pub(super) fn request(text: &str) -> Result<RequestId, Invalid> {
    if text.is_empty() {
        return Ok(new_request());
    }
    let bad = || Invalid::new("request_id", text, "32 hexadecimal digits, drawn at random once for each intent");
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    u128::from_str_radix(text, 16).map(RequestId).map_err(|_| bad())
}

/// The answer that is remembered under the request's id is of another kind of change.
pub(super) fn reused(request: RequestId) -> Refusal {
    let id = format!("{:032x}", request.0);
    Invalid::new("request_id", id, "an id that no other request bore").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_32_hex_digits_and_drawn_if_there_is_none() {
        assert_eq!(request("000000000000000000000000000000fF"), Ok(RequestId(255)));
        assert_ne!(request("").unwrap(), request("").unwrap());
        for bad in ["1", "+0000000000000000000000000000001", "0000000000000000000000000000000g", &"0".repeat(33)] {
            assert_eq!(request(bad).unwrap_err().field, "request_id", "{bad}");
        }
    }
}
