//! Calls to another host's containers, passed on as they come: a manager's users may speak of every host.

use shoal_common::NodeId;
use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
    server::NamedService,
};
use tower::ServiceExt as _;

use super::cluster::Cluster;
use crate::client::ON_NODE;

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// A service of this host's; a call that carries [`ON_NODE`] goes to the same service of that host.
#[derive(Clone)]
pub(super) struct Elsewhere<S> {
    here: S,
    cluster: Arc<Cluster>,
}

impl<S> Elsewhere<S> {
    pub(super) fn new(here: S, cluster: Arc<Cluster>) -> Self {
        Self { here, cluster }
    }
}

impl<S: NamedService> NamedService for Elsewhere<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request> for Elsewhere<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let (mut here, cluster) = (self.here.clone(), Arc::clone(&self.cluster));
        Box::pin(async move {
            let Some(named) = request.headers_mut().remove(ON_NODE) else { return here.call(request).await };
            let node = match named.to_str().ok().and_then(|id| id.parse().ok()) {
                Some(id) => NodeId(id),
                None => return Ok(Status::invalid_argument(format!("{ON_NODE}: the number of a node")).into_http()),
            };
            match cluster.to_node(node).await {
                Ok(None) => here.call(request).await,
                Ok(Some(line)) => Ok(line.oneshot(request).await.unwrap_or_else(|e| lost(node, &e).into_http())),
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

fn lost(node: NodeId, error: &tonic::transport::Error) -> Status {
    Status::unavailable(format!("{node} was lost: {}", shoal_rt::connect::root_cause(error)))
}
