//! The layer before the router. It sees a call's path and the certificate of its connection, and no byte of the request.

use shoal_proto::Call;
use shoal_rt::Peer;
use std::{
    convert::Infallible,
    task::{Context, Poll},
};
use tonic::{
    Status,
    body::Body,
    codegen::{BoxFuture, Service, http},
};
use tower::Layer;

use super::{
    Known,
    body::{Bounded, Held},
    in_flight::{InFlight, Permit},
    pace,
};

type Request = http::Request<Body>;
type Response = http::Response<Body>;

/// What gRPC puts before a message.
const MESSAGE_HEAD: usize = 5;

/// Adds the table to a server.
#[derive(Debug, Clone)]
pub struct Guard {
    known: Known,
    in_flight: InFlight,
    pace: pace::Pace,
}

impl Guard {
    pub fn new(known: Known) -> Self {
        Self { known, in_flight: InFlight::default(), pace: pace::Pace::default() }
    }

    async fn admit(&self, path: &str, peer: Option<&Peer>) -> Result<(Call, Permit), Status> {
        // Tonic says so itself only to those who may call anything at all.
        let call = Call::of_path(path).ok_or_else(|| Status::unimplemented(format!("there is no call {path:?}")))?;
        let peer = peer.ok_or_else(|| Status::internal("the server does not know who is connected"))?;
        let permit = self.in_flight.begin(peer)?;
        if let Some(node) = pace::is_paced(peer) {
            // Inside of its permit: as many wait as may be under way.
            let wait = self.pace.take(node);
            tokio::time::sleep(wait).await;
        }
        self.known.admit(call.who(), peer.identity).await.inspect_err(|status| {
            tracing::debug!(addr = %peer.addr, identity = ?peer.identity, path, told = status.message(), "a call is refused");
        })?;
        Ok((call, permit))
    }
}

impl<S> Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, guard: self.clone() }
    }
}

/// A server behind the table.
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    inner: S,
    guard: Guard,
}

impl<S> Service<Request> for Guarded<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<Response, Infallible>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        // The one that is ready is the one that is called.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let guard = self.guard.clone();
        Box::pin(async move {
            let peer = request.extensions().get::<Peer>();
            let (call, permit) = match guard.admit(request.uri().path(), peer).await {
                Ok(admitted) => admitted,
                Err(status) => return Ok(status.into_http()),
            };
            let request = match call.request_bytes() {
                Some(limit) => request.map(|body| Body::new(Bounded::new(body, limit + MESSAGE_HEAD))),
                None => request,
            };
            let response = inner.call(request).await?;
            Ok(response.map(|body| Body::new(Held::new(body, permit))))
        })
    }
}
