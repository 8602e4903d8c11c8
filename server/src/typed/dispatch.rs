//! From a method to its handler, for calls that own their request.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use buffa::Message;
use futures::{Stream, TryStreamExt as _, stream};
use larder_api::{cache_v1, talk};
use larder_model::Store;
use larder_transport::rpc::{Outcome, Reply};

use super::answers::Answers;
use super::work::{Work, conclude};
use super::{Lane, Routed};
use crate::call::Call;
use crate::failure::Failure;
use crate::layers::admit::admit;
use crate::methods::Typed;

/// A unary handler, as a future that owns what it needs.
macro_rules! unary {
    ($begun:ident, $reply:ident, $service:ident.$handler:ident($view:ty)) => {{
        let begun = $begun;
        let call = Arc::clone(&begun.call);
        let answers = begun.routed.answers;
        let work = async move {
            let request = begun.admitted::<$view>().await?;
            begun.lane.$service.$handler(&begun.call, &request).await
        };
        start(&call, work, answers, $reply)
    }};
}

/// As `unary`, for a handler that shows its reply instead of returning it.
macro_rules! showing {
    ($begun:ident, $reply:ident, $service:ident.$handler:ident($view:ty)) => {{
        let begun = $begun;
        let call = Arc::clone(&begun.call);
        let answers = begun.routed.answers;
        let work = async move {
            let request = begun.admitted::<$view>().await?;
            let mut shown = None;
            let (service, call) = (&begun.lane.$service, &begun.call);
            service.$handler(call, &request, &mut shown).await?;
            Ok(shown.unwrap_or_default())
        };
        start(&call, work, answers, $reply)
    }};
}

/// A server stream.
macro_rules! stream {
    ($begun:ident, $handler:expr, $view:ty) => {{
        let begun = $begun;
        let call = Arc::clone(&begun.call);
        let answers = begun.routed.answers;
        let parts = async move {
            let request = begun.admitted::<$view>().await?;
            $handler(&*begun.lane, &begun.call, request).await
        };
        follow(&call, stream::once(parts).try_flatten(), answers)
    }};
}

/// A call with its request.
struct Begun<S: Store> {
    lane: Arc<Lane<S>>,
    call: Arc<Call<S>>,
    routed: Arc<Routed>,
    message: Box<[u8]>,
}

impl<S: Store> Begun<S> {
    /// The request, once its caller may make it.
    async fn admitted<'b, V: buffa::MessageView<'b>>(&'b self) -> Result<V, Failure> {
        admit(&self.call, &self.routed.head).await?;
        self.lane.decode(&self.message)
    }
}

/// Begins a call; ends it too, if its handler need not wait.
pub(super) fn begin<S: Store>(
    lane: &Arc<Lane<S>>,
    call: Call<S>,
    routed: &Arc<Routed>,
    message: &[u8],
    reply: &mut Reply<'_>,
) -> Outcome<Work<S>> {
    use cache_v1 as v1;
    let begun = Begun {
        lane: Arc::clone(lane),
        call: Arc::new(call),
        routed: Arc::clone(routed),
        message: message.into(),
    };
    match routed.typed {
        Typed::Set => unary!(begun, reply, v1.set(v1::SetRequestView<'_>)),
        Typed::TalkStore => unary!(begun, reply, talk.store(talk::StoreReqView<'_>)),
        Typed::Get => showing!(begun, reply, v1.get(v1::GetRequestView<'_>)),
        Typed::TalkGet => showing!(begun, reply, talk.get(talk::GetReqView<'_>)),
        Typed::GetAndTouch => {
            unary!(begun, reply, v1.get_and_touch(v1::GetAndTouchRequestView<'_>))
        }
        Typed::Delete => unary!(begun, reply, v1.delete(v1::DeleteRequestView<'_>)),
        Typed::Touch => unary!(begun, reply, v1.touch(v1::TouchRequestView<'_>)),
        Typed::BatchGet => unary!(begun, reply, v1.batch_get(v1::BatchGetRequestView<'_>)),
        Typed::BatchSet => unary!(begun, reply, v1.batch_set(v1::BatchSetRequestView<'_>)),
        Typed::BatchDelete => {
            unary!(begun, reply, v1.batch_delete(v1::BatchDeleteRequestView<'_>))
        }
        Typed::Increment => unary!(begun, reply, v1.increment(v1::IncrementRequestView<'_>)),
        Typed::ListKeys => unary!(begun, reply, v1.list_keys(v1::ListKeysRequestView<'_>)),
        Typed::DeletePrefix => {
            unary!(begun, reply, v1.delete_prefix(v1::DeletePrefixRequestView<'_>))
        }
        Typed::GetUsage => unary!(begun, reply, v1.get_usage(v1::GetUsageRequestView<'_>)),
        Typed::GetServerInfo => {
            unary!(begun, reply, v1.get_server_info(v1::GetServerInfoRequestView<'_>))
        }
        Typed::Dump => stream!(
            begun,
            async |lane: &Lane<S>, call, request| lane.v1.dump(call, &request),
            v1::DumpRequestView<'_>
        ),
        Typed::TalkDump => stream!(
            begun,
            async |lane: &Lane<S>, call, request| lane.talk.dump(call, &request).await,
            talk::DumpReqView<'_>
        ),
    }
}

/// Polls a call once. The transport polls again what waits, with a waker.
fn start<S: Store, M: Message>(
    call: &Arc<Call<S>>,
    work: impl Future<Output = Result<M, Failure>> + Send + 'static,
    answers: Answers,
    reply: &mut Reply<'_>,
) -> Outcome<Work<S>> {
    let mut work = Box::pin(work);
    match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => {
            let done = done.map(|message| answers.send(&message, reply));
            Outcome::Done(conclude(call, done, reply))
        }
        Poll::Pending => follow(call, stream::once(work), answers),
    }
}

/// Leaves a call to the transport, which polls it while it waits or streams.
fn follow<S: Store, M: Message>(
    call: &Arc<Call<S>>,
    messages: impl Stream<Item = Result<M, Failure>> + Send + 'static,
    answers: Answers,
) -> Outcome<Work<S>> {
    let encoded = messages.map_ok(|message| message.encode_to_vec());
    Outcome::Waits(Work::new(Arc::clone(call), encoded, answers))
}
