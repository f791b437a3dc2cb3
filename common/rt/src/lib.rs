//! The tokio side of the vocabulary: clocks, backoff, owned tasks, telemetry, durable files, and mutual TLS between
//! hosts.

pub mod backoff;
pub mod bucket;
pub mod clock;
pub mod connect;
pub mod connections;
pub mod durable;
pub mod identity;
pub mod incoming;
pub mod peer;
pub mod removed;
pub mod tasks;
pub mod telemetry;
pub mod tls;
pub mod token;

pub use backoff::Backoff;
pub use bucket::{Buckets, Rate};
pub use connect::{Expect, connect};
pub use connections::Connections;
pub use identity::{Credentials, Identity};
pub use incoming::Incoming;
pub use peer::{Peer, PeerIdentity};
pub use removed::Removed;
pub use tasks::{Fatal, Tasks};
pub use token::JoinToken;
