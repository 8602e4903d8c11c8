//! Several servers: which of them a call goes to, what is tried again, and what is counted.
//!
//! `cargo run -p larder-client --example servers -- dns:///cache:5051`

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use larder_client::{
    Balancing, Client, ClientConfig, Error, Metrics, OutlierEjection, SetOptions, Token,
};

/// Reads are hedged: a second one goes out after 20 ms, and the first answer counts. Writes are
/// tried up to four times, as far as that can do no harm.
const SERVICE_CONFIG: &str = r#"{
    "retryThrottling": { "maxTokens": 100, "tokenRatio": 0.1 },
    "healthCheckConfig": { "serviceName": "larder.cache.v1.CacheService" },
    "methodConfig": [
        { "name": [{ "service": "larder.cache.v1.CacheService", "method": "Get" }],
          "hedgingPolicy": { "maxAttempts": 2, "hedgingDelay": "0.020s",
                             "nonFatalStatusCodes": ["UNAVAILABLE"] } },
        { "name": [{ "service": "larder.cache.v1.CacheService" }],
          "retryPolicy": { "maxAttempts": 4, "initialBackoff": "0.1s", "maxBackoff": "2s",
                           "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"] } }
    ]
}"#;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let target = arguments
        .first()
        .map_or("ipv4:127.0.0.1:5051,127.0.0.1:5052", String::as_str);
    let metrics = Metrics::new(target);
    let balancing = Balancing::least_request().with_outlier_ejection(OutlierEjection::default());
    let mut config = ClientConfig::new(target)?
        .with_service_config(SERVICE_CONFIG)?
        .with_balancing(balancing)
        .with_interceptor(metrics.clone())
        .with_timeout(Duration::from_millis(250));
    if let Ok(secret) = std::env::var("LARDER_TOKEN") {
        config = config.with_token(Token::new(secret)?);
    }

    // The first call waits for a server as long as its time allows.
    let client = Client::lazy(config)?;
    let patient = client
        .with_timeout(Duration::from_secs(10))
        .wait_for_ready();
    let version = patient.server_info().await?.version;
    println!("connected to larder {version}");

    for number in 0..10 {
        let key = format!("key-{number}");
        client.set(&key, "value", SetOptions::new()).await?;
        client.get(&key).await?;
    }
    println!("{}", metrics.render());
    Ok(())
}
