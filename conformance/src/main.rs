//! The server that the Connect conformance suite is run against: the suite's
//! service on larder's transport. `cargo xtask conformance` runs it.
//!
//! The suite starts it, writes to its standard input how it is to serve, reads
//! from its standard output where it does, and ends it.
//!
//! | argument | what serves the gRPC calls of unary methods and server streams |
//! |---|---|
//! | `general` | the general lane, as everything else |
//! | `typed` | the typed lane, unless their requests are compressed |

mod answer;
mod protocols;
mod serve;
mod tls;
mod typed;
mod wire;

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use larder_transport::limits::Limits;
use larder_transport::serve::{Config, Listener};

use crate::protocols::Protocols;
use crate::serve::Conformance;
use crate::typed::Lane;
use crate::wire::{ServerCompatRequest, ServerCompatResponse};

/// How often the server looks whether the suite is still there.
const LOOKS_FOR_SUITE: Duration = Duration::from_secs(1);

fn main() -> anyhow::Result<()> {
    let lane = match std::env::args().nth(1).as_deref() {
        Some("general") => Lane::General,
        Some("typed") => Lane::Typed,
        _ => bail!("usage: larder-conformance general|typed"),
    };
    let suite = parent_id();
    wire::register_types();
    let asked: ServerCompatRequest = wire::read(&mut std::io::stdin())?;
    let tls = tls::asked_for(&asked)?;
    let mut limits = Limits::default();
    if asked.message_receive_limit > 0 {
        limits.max_message_bytes = asked.message_receive_limit as usize;
    }
    let served = Conformance {
        lane,
        protocols: Protocols::new(limits.max_message_bytes),
    };
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = socket.local_addr()?;
    let listener = match tls {
        Some(tls) => Listener::from(socket).with_tls(tls),
        None => Listener::from(socket),
    };
    let config = Config {
        limits,
        ..Config::default()
    };
    let running = larder_transport::serve::serve(vec![listener], &Arc::new(served), config)?;
    let answer = ServerCompatResponse {
        host: address.ip().to_string(),
        port: address.port().into(),
        // The certificate that the suite gave for this.
        pem_cert: asked.server_creds.into_option().unwrap_or_default().cert,
        ..ServerCompatResponse::default()
    };
    wire::write(&mut std::io::stdout(), &answer)?;
    // The suite ends this process, unless it was killed itself.
    while parent_id() == suite {
        std::thread::park_timeout(LOOKS_FOR_SUITE);
    }
    running.drain();
    Ok(())
}
