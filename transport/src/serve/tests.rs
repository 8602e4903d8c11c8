//! With sockets, or what stands for them, and the `h2` crate as the client.

mod differential;
mod sockets;

use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request as HttpRequest;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::*;
use crate::connection::{Connection, Failure};
use crate::testing::service::{Methods, Mirror};

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: Option<String>,
    content: Vec<u8>,
}

/// Serves one end of a pipe until its connection ends.
fn drive(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    methods: Methods,
    limits: Limits,
) -> (
    watch::Sender<bool>,
    tokio::task::JoinHandle<Option<Failure>>,
) {
    let (drain, drained) = watch::channel(false);
    let rpc = Rpc::new(methods, Mirror);
    let now = tokio::time::Instant::now().into_std();
    let connection = Connection::new(rpc, Arc::new(limits.in_range()), now, 0);
    let driver = Driver::new(io, connection, Vec::new(), drained);
    (drain, tokio::spawn(driver))
}

fn prefixed(message: &[u8]) -> Vec<u8> {
    let mut out = vec![0];
    out.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend_from_slice(message);
    out
}

fn request(method: &str) -> HttpRequest<()> {
    HttpRequest::post(format!("http://host/t.T/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap()
}

async fn read_answer(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let response = response.await?;
    let status_of = |fields: &http::HeaderMap| {
        let status = fields.get("grpc-status")?;
        Some(status.to_str().unwrap().to_owned())
    };
    let mut status = status_of(response.headers());
    let mut body = response.into_body();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        content.extend_from_slice(&data);
        body.flow_control().release_capacity(data.len())?;
    }
    if let Some(trailers) = body.trailers().await? {
        status = status_of(&trailers);
    }
    Ok(Answer { status, content })
}

async fn call(
    client: &SendRequest<Bytes>,
    method: &str,
    message: &[u8],
) -> Result<Answer, h2::Error> {
    let mut client = client.clone().ready().await?;
    let (response, mut body) = client.send_request(request(method), false)?;
    body.send_data(prefixed(message).into(), true)?;
    read_answer(response).await
}
