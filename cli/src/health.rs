//! `larder health`: for health checks where there is no other program.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::{Format, Output};

/// Most that is read of an answer, bytes.
const ANSWER_BYTES: u64 = 64 << 10;

/// `larder health`.
#[derive(Debug, Args)]
pub(crate) struct HealthArgs {
    /// Its admin listener, IP:PORT
    #[arg(
        long,
        env = "LARDER_ADMIN",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:5053"
    )]
    admin: SocketAddr,
}

/// Asks `/readyz`; an answer other than 200 is a failure.
pub(crate) fn run(args: &HealthArgs, timeout: Duration, out: &mut Output) -> Result<(), Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::Failed(format!("{}: {why}", args.admin));
    let answer = ask(args.admin, timeout).map_err(|error| failed(&error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default();
    let said = body.trim();
    if status != "200" {
        return Err(failed(&format!("not ready: {status} {said}")));
    }
    match out.format {
        Format::Json => out.json(&json!({ "ready": true }))?,
        Format::Text => out.line(said)?,
    }
    Ok(())
}

fn ask(admin: SocketAddr, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&admin, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(
        stream,
        "GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}
