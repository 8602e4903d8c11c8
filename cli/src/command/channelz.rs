//! `larder channelz`.

use larder_client::{ServerStatus, SocketStatus};
use serde_json::{Value, json};

use crate::args::ChannelzArgs;
use crate::connect::Caller;
use crate::failure::Failure;
use crate::output::{Format, Output};
use crate::units::show_time;

/// Prints the server, and a line for each of its connections.
pub(super) async fn run(
    args: &ChannelzArgs,
    caller: &Caller,
    out: &mut Output,
) -> Result<(), Failure> {
    let failed = |error| caller.failed(error);
    let channelz = caller.client.channelz();
    for server in channelz.servers().await.map_err(failed)? {
        let found = channelz.sockets(server.id, args.limit).await;
        let found = found.map_err(failed)?;
        match out.format {
            Format::Json => {
                let sockets: Vec<Value> = found.sockets.iter().map(socket_object).collect();
                out.json(&server_object(&server, &sockets, found.more))?;
            }
            Format::Text => {
                out.pairs(&server_pairs(&server))?;
                out.line("")?;
                let rows: Vec<Vec<String>> = found.sockets.iter().map(socket_row).collect();
                out.table(
                    &[
                        "SOCKET",
                        "REMOTE",
                        "LOCAL",
                        "SECURITY",
                        "STREAMS",
                        "OPEN",
                        "FAILED",
                        "RECEIVED",
                        "SENT",
                        "KEEPALIVES",
                        "LAST STREAM",
                    ],
                    &rows,
                )?;
                if found.more {
                    out.line("there are more; see --limit")?;
                }
            }
        }
    }
    Ok(())
}

fn server_pairs(server: &ServerStatus) -> [(&'static str, String); 6] {
    let last = server.last_call_started;
    [
        ("server", format!("{}, {}", server.id, server.name)),
        ("listens on", server.listeners.join(", ")),
        ("calls", server.calls_started.to_string()),
        ("succeeded", server.calls_succeeded.to_string()),
        ("failed", server.calls_failed.to_string()),
        ("last call", last.map_or_else(|| "none".into(), show_time)),
    ]
}

/// Streams that have begun and not ended.
fn open(socket: &SocketStatus) -> u64 {
    let ended = socket.streams_succeeded + socket.streams_failed;
    socket.streams_started.saturating_sub(ended)
}

fn socket_row(socket: &SocketStatus) -> Vec<String> {
    let last = socket.last_stream_started;
    let suite = socket.cipher_suite.as_deref();
    vec![
        socket.id.to_string(),
        socket.remote.clone(),
        socket.local.clone(),
        suite.unwrap_or("clear text").to_owned(),
        socket.streams_started.to_string(),
        open(socket).to_string(),
        socket.streams_failed.to_string(),
        socket.messages_received.to_string(),
        socket.messages_sent.to_string(),
        socket.keepalives_sent.to_string(),
        last.map_or_else(|| "none".into(), show_time),
    ]
}

fn server_object(server: &ServerStatus, sockets: &[Value], more: bool) -> Value {
    json!({
        "server_id": server.id,
        "name": server.name,
        "listeners": server.listeners,
        "calls_started": server.calls_started,
        "calls_succeeded": server.calls_succeeded,
        "calls_failed": server.calls_failed,
        "last_call_started": server.last_call_started.map(show_time),
        "sockets": sockets,
        "more": more,
    })
}

fn socket_object(socket: &SocketStatus) -> Value {
    json!({
        "socket_id": socket.id,
        "remote": socket.remote,
        "local": socket.local,
        "cipher_suite": socket.cipher_suite,
        "streams_started": socket.streams_started,
        "streams_succeeded": socket.streams_succeeded,
        "streams_failed": socket.streams_failed,
        "messages_received": socket.messages_received,
        "messages_sent": socket.messages_sent,
        "keepalives_sent": socket.keepalives_sent,
        "last_stream_started": socket.last_stream_started.map(show_time),
    })
}
