//! Where the host itself is to listen for its published ports.
//!
//! The kernel leads a published port to its container before any socket is asked ([`crate::nft`]), so nobody else of the
//! host can be reached at it: a port that somebody has must not be published, and one that is published must not be
//! had. Hence each is listened at. What does come to such a socket is what the kernel cannot lead, for an answer would
//! not find back: what the host's own processes send to `::1`, or to 127.0.0.1 for a container of another host.

use serde::{Deserialize, Serialize};
use shoal_common::{ServiceId, TaskId};
use std::{collections::BTreeMap, fmt, net::SocketAddr};

use crate::nft::Transport;

/// Where something is listened at, in the host's namespace. An unspecified address: all of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    pub transport: Transport,
    pub at: SocketAddr,
}

/// To whom that leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    pub holder: Holder,
    /// At least one, and each as good as any other. Of the other family where there is none of the listener's own.
    pub to: Vec<SocketAddr>,
}

/// Whose port it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A port of this host alone.
    Container(TaskId),
    /// A port of the cluster.
    Service(ServiceId),
}

pub type Listeners = BTreeMap<Listener, Behind>;

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Listener { transport, at } = self;
        if at.ip().is_unspecified() {
            write!(f, "port {}/{transport} of this host", at.port())
        } else {
            write!(f, "port {}/{transport} of {}", at.port(), at.ip())
        }
    }
}
