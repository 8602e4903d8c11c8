//! Inside a call that this program serves itself: what is left of its time, and its trace, go with
//! every call that is made for it.
//!
//! `cargo run -p larder-client --example inside -- http://127.0.0.1:5051`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::{Duration, Instant};

use larder_client::{
    AttemptEnd, CallEnd, Client, ClientConfig, Code, Error, Interceptor, SetOptions, Token,
};

/// What came with the call that is served: of gRPC's `grpc-timeout`, and W3C's `traceparent`.
struct Served {
    deadline: Instant,
    traceparent: String,
}

/// Prints a line for each call, and one for each attempt; a tracer would make spans of them.
struct Lines;

impl Interceptor for Lines {
    fn attempt_end(&self, attempt: &AttemptEnd<'_>) {
        println!("  at {}: {}", attempt.address, attempt.code);
    }

    fn end(&self, call: &CallEnd<'_>) {
        println!("{}: {} in {:?}", call.method, call.code, call.duration);
    }
}

async fn answer(client: &Client, served: &Served) -> Result<bool, Error> {
    // Of this and the client's own timeout the earlier holds. A clone costs no connection.
    let client = client.within(served.deadline).traced(&served.traceparent)?;
    let options = SetOptions::new().ttl(Duration::from_secs(60));
    client.set("inside", "value", options).await?;
    let entry = client.get("inside").await?;
    Ok(entry.is_some())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let server = std::env::args().nth(1);
    let server = server.as_deref().unwrap_or("http://127.0.0.1:5051");
    let mut config = ClientConfig::new(server)?.with_interceptor(Lines);
    if let Ok(secret) = std::env::var("LARDER_TOKEN") {
        config = config.with_token(Token::new(secret)?);
    }
    let client = Client::connect(config).await?;

    let mut served = Served {
        deadline: now() + Duration::from_millis(500),
        traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into(),
    };
    println!("found: {}", answer(&client, &served).await?);

    // Nobody waits any more: nothing is sent.
    served.deadline = now();
    match answer(&client, &served).await {
        Err(error) if error.code() == Code::DeadlineExceeded => {
            println!("too late, after {} attempts", error.attempts());
        }
        other => println!("{other:?}"),
    }
    Ok(())
}

/// The clock of the runtime, by which the client keeps its deadlines.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
