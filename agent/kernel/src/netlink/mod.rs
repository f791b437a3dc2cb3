//! Talking netlink: one socket, one conversation at a time, in the network namespace where it was opened.

pub(crate) mod attr;
pub(crate) mod conntrack;
pub(crate) mod nftables;
pub(crate) mod request;
pub(crate) mod route;
pub(crate) mod socket;
pub(crate) mod table;
#[cfg(test)]
mod tests;

pub use socket::Refusal;
pub(crate) use socket::Socket;
