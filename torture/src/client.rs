//! Calls of a client that keeps to the rules.

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderMap;
use tokio::io::{AsyncRead, AsyncWrite};

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Reply {
    /// `grpc-status`.
    pub(crate) status: String,
    /// The content.
    pub(crate) content: Vec<u8>,
    /// Metadata and trailers.
    pub(crate) fields: HeaderMap,
}

/// What a server may send before it is read, bytes. The `h2` crate ends a connection on which
/// many small answers wait for a client that was not given the processor; how many, follows
/// from this: with the 64 KiB that it has by default it is about 100.
const WINDOW_BYTES: u32 = 16 << 20;

/// Begins to speak HTTP/2.
///
/// # Errors
/// The server does not.
pub(crate) async fn connect(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> anyhow::Result<SendRequest<Bytes>> {
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(WINDOW_BYTES);
    let (client, connection) = builder.handshake(io).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// One call with one message, which has its prefix already.
///
/// # Errors
/// There was no answer, or it is none of gRPC.
pub(crate) async fn call(
    client: SendRequest<Bytes>,
    path: &str,
    metadata: &[(&str, &str)],
    message: Vec<u8>,
) -> anyhow::Result<Reply> {
    let mut client = client.ready().await?;
    let mut request = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in metadata {
        request = request.header(*name, *value);
    }
    let (response, mut body) = client.send_request(request.body(())?, false)?;
    body.send_data(message.into(), true)?;
    let response = response.await?;
    ensure!(response.status() == 200, "status {}", response.status());
    let mut fields = response.headers().clone();
    let mut body = response.into_body();
    let mut content = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        content.extend_from_slice(&data);
    }
    fields.extend(body.trailers().await?.unwrap_or_default());
    let status = fields
        .get("grpc-status")
        .context("an answer has a grpc-status")?;
    Ok(Reply {
        status: status.to_str()?.to_owned(),
        content,
        fields,
    })
}
