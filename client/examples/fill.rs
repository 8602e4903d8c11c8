//! Cache-aside without a stampede: a hundred tasks want one value, which is made once.
//!
//! `cargo run -p larder-client --example fill -- http://127.0.0.1:5051`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::convert::Infallible;
use std::time::Duration;

use larder_client::{Client, ClientConfig, FillError, FillOrigin};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), FillError<Infallible>> {
    let server = std::env::args().nth(1);
    let server = server.as_deref().unwrap_or("http://127.0.0.1:5051");
    let config = ClientConfig::new(server).map_err(FillError::Cache)?;
    let client = Client::connect(config).await.map_err(FillError::Cache)?;

    let tasks = (0..100).map(|_| {
        let client = client.clone();
        tokio::spawn(async move {
            let ttl = Some(Duration::from_secs(2));
            client.get_or_fill("report", ttl, make_report).await
        })
    });
    let mut made = 0;
    for task in tasks.collect::<Vec<_>>() {
        // A task that panicked has no value.
        if let Ok(filled) = task.await {
            made += u32::from(filled?.origin == FillOrigin::Made);
        }
    }
    println!("made {made} time(s) for 100 tasks");

    // Gets of the same moment leave as one batch.
    let batched = client.batched();
    let gets = ["report", "other", "third"].map(|key| {
        let batched = batched.clone();
        tokio::spawn(async move { batched.get(key).await })
    });
    for get in gets {
        if let Ok(entry) = get.await {
            println!("{:?}", entry.map_err(FillError::Cache)?);
        }
    }
    Ok(())
}

/// What takes long enough that nobody wants it twice.
async fn make_report() -> Result<&'static str, Infallible> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok("forty-two")
}
