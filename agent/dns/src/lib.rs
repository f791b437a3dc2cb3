//! The resolver that stands at 127.0.0.11 in every container.
//!
//! [`Zone::of`] turns what a host was told into all names of its networks; [`answer`](answer::answer) is a function
//! from a query to a reply, or to the word that it is somebody else's to answer. Both are pure: no socket, no
//! clock, no chance. [`Resolver`] carries bytes between them, the containers and the upstream servers. Start
//! reading at `answer`.
//!
//! **What must hold.** A name of ours never leaves the host: not a service's, not that of a task that ended, not
//! a bare word nobody bears. An answer is made from the newest zone there is at the moment of asking. A container
//! sees only the networks it is on, and one that is on internal networks alone reaches no server outside. No container
//! takes the resolver from the others (`share`).
//!
//! A network's name is not a domain of ours: `www.web.dev` on a network called `dev` is a public name unless a container
//! here bears it. The price: `gone.dev`, once `gone` has been removed, is asked for outside.
//!
//! Not done: DNSSEC (a stub's own validation works through forwarding), a cache (upstream servers have one),
//! reverse zones above the single address (`1.0.10.in-addr.arpa`), Kubernetes' and Mesos' record schemas.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answer;
#[cfg(test)]
mod fixture;
mod instance;
mod labels;
mod query;
mod reply;
mod resolv_conf;
mod reverse;
mod scope;
mod server;
mod share;
mod tcp;
mod upstream;
mod zone;

pub use answer::{Outcome, Transport, answer};
pub use reply::{TTL_SECONDS, UDP_PAYLOAD};
pub use resolv_conf::upstream_servers;
pub use scope::Scope;
pub use server::{Asker, Resolver, ServeError};
pub use upstream::{OwnWay, RESOLVER_ADDRESS, Servers, Way};
pub use zone::Zone;
