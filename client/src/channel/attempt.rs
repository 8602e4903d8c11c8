//! One attempt of a call: its head, and what is told and counted of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use larder_transport::client::{Failed, RequestHead, Response, Unary};
use tokio::time::Instant;

use super::call::Call;
use super::ends::{end_of, speaks_well};
use super::lane::{Lane, UnderWay};
use super::retry::AttemptEnd;
use crate::interceptor::AttemptWatch;

/// Metadata that says how often a call was sent before (gRFC A6).
const PREVIOUS_ATTEMPTS: &str = larder_api::wire::PREVIOUS_ATTEMPTS;

/// The head of an attempt: that of its method, copied only if something is added.
pub(super) struct Head<'a> {
    base: &'a RequestHead,
    own: Option<RequestHead>,
}

/// An attempt under way. Dropped, it is given up, and its server told so.
pub(super) struct Running {
    unary: Unary,
    lane: Arc<Lane>,
    _under_way: UnderWay,
    pub(super) previous: u32,
    watch: Option<AttemptWatch>,
}

impl<'a> Head<'a> {
    pub(super) fn new(call: &Call<'a>, target: usize, previous: u32) -> Self {
        let base = call.heads.head(target);
        let own = call
            .metadata
            .map(|other| base.clone().with_metadata_of(other));
        let mut head = Self { base, own };
        if previous > 0 {
            let value = previous.to_string();
            let set = head.own().set_metadata(PREVIOUS_ATTEMPTS, value.as_bytes());
            set.expect("a number is a field's value");
        }
        head
    }

    fn own(&mut self) -> &mut RequestHead {
        self.own.get_or_insert_with(|| self.base.clone())
    }

    /// Tells that an attempt starts.
    pub(super) fn told(
        &mut self,
        call: &Call<'_>,
        lane: &Lane,
        previous: u32,
    ) -> Option<AttemptWatch> {
        let told = call.told?;
        Some(told.start(Arc::clone(lane.address()), previous, self.own()))
    }

    pub(super) fn get(&self) -> &RequestHead {
        self.own.as_ref().unwrap_or(self.base)
    }
}

impl Running {
    pub(super) fn start(
        call: &Call<'_>,
        lane: Arc<Lane>,
        previous: u32,
        message: &mut impl FnMut(&mut Vec<u8>),
    ) -> Self {
        let mut head = Head::new(call, lane.target(), previous);
        let watch = head.told(call, &lane, previous);
        let under_way = lane.begin();
        let deadline = call.deadline.map(Instant::into_std);
        let unary = lane.connection().unary(head.get(), message, deadline);
        Self {
            unary,
            lane,
            _under_way: under_way,
            previous,
            watch,
        }
    }
}

impl Future for Running {
    type Output = Result<Response, Failed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let polled = Pin::new(&mut self.unary).poll(cx);
        if let Poll::Ready(result) = &polled {
            let end = end_of(result);
            if end != AttemptEnd::NotSent {
                self.lane.count(speaks_well(end));
            }
            if let Some(mut watch) = self.watch.take() {
                watch.answered(result);
            }
        }
        polled
    }
}
