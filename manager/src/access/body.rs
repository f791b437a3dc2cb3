//! Bodies of requests that end at a limit, and bodies of answers that hold their permit.

use http_body::{Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};
use tonic::{Status, body::Body, codegen::Bytes};

use super::in_flight::Permit;

/// A request that must not be larger than a limit. What is beyond is never gathered: tonic would keep all of a message
/// in memory before its handler sees the first byte.
#[derive(Debug)]
pub(super) struct Bounded {
    body: Body,
    limit: usize,
    left: usize,
}

impl Bounded {
    pub(super) fn new(body: Body, limit: usize) -> Self {
        Self { body, limit, left: limit }
    }
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => frame,
            other => return other,
        };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(Ok(frame)))
            }
            None => {
                let limit = self.limit;
                Poll::Ready(Some(Err(Status::resource_exhausted(format!("the request is larger than {limit} bytes")))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer: its call counts until the last of it was sent, or nobody reads it any more.
#[derive(Debug)]
pub(super) struct Held {
    body: Body,
    _permit: Permit,
}

impl Held {
    pub(super) fn new(body: Body, permit: Permit) -> Self {
        Self { body, _permit: permit }
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
