//! A client that makes calls all the while on a connection of its own, at a fixed
//! rate whatever the server does: a late answer does not make the next call late.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::{calls, client};

/// Calls a second.
pub(crate) const RATE: u32 = 200;
/// A call that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// One call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When it was to begin.
    pub(crate) at: Instant,
    /// From then to its answer; `None` if it failed.
    pub(crate) took: Option<Duration>,
}

/// A client at work.
pub(crate) struct Victim {
    samples: Arc<Mutex<Vec<Sample>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Victim {
    /// Connects, stores what it will ask for, and goes on with calls.
    ///
    /// # Errors
    /// That call fails.
    pub(crate) fn start(address: SocketAddr, token: &str) -> anyhow::Result<Self> {
        let samples = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = mpsc::channel();
        let caller = Caller {
            token: token.to_owned(),
            message: Bytes::from(calls::get(calls::SMALL)),
        };
        let shared = Arc::clone(&samples);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new()
            .name("victim".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    let client = connect(address, &caller).await;
                    let failed = client.is_err();
                    // The one who starts waits for it.
                    let (client, told) = match client {
                        Ok(client) => (Some(client), Ok(())),
                        Err(error) => (None, Err(error)),
                    };
                    let _ = ready.send(told);
                    if let Some(client) = client.filter(|_| !failed) {
                        let calling = call_on(client, caller, shared);
                        tokio::select! {
                            () = calling => {}
                            _ = stopped => {}
                        }
                    }
                });
            })?;
        started.recv().context("the victim's thread ended")??;
        Ok(Self {
            samples,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// The calls that were to begin in a span of time. A failed one is told at
    /// its end, so that the last ten seconds may grow.
    pub(crate) fn samples(&self, from: Instant, to: Instant) -> Vec<Sample> {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let within = |sample: &&Sample| sample.at >= from && sample.at < to;
        samples.iter().filter(within).copied().collect()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It has nothing more to say.
            let _ = thread.join();
        }
    }
}

/// What each of its calls is made of.
#[derive(Clone)]
struct Caller {
    token: String,
    message: Bytes,
}

async fn connect(address: SocketAddr, caller: &Caller) -> anyhow::Result<SendRequest<Bytes>> {
    let io = TcpStream::connect(address).await?;
    io.set_nodelay(true)?;
    let client = client::connect(io).await?;
    let store = Caller {
        message: Bytes::from(calls::store(calls::SMALL, b"value")),
        ..caller.clone()
    };
    store.call(client.clone(), calls::STORE).await?;
    caller.call(client.clone(), calls::GET).await?;
    Ok(client)
}

async fn call_on(client: SendRequest<Bytes>, caller: Caller, samples: Arc<Mutex<Vec<Sample>>>) {
    let interval = Duration::from_secs(1) / RATE;
    let caller = Arc::new(caller);
    let mut at = Instant::now();
    loop {
        tokio::time::sleep_until(at).await;
        let (client, caller, samples) = (client.clone(), Arc::clone(&caller), Arc::clone(&samples));
        tokio::spawn(async move {
            let called = tokio::time::timeout(PATIENCE, caller.call(client, calls::GET)).await;
            let took = matches!(called, Ok(Ok(()))).then(|| at.elapsed());
            let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
            samples.push(Sample { at, took });
        });
        at += interval;
    }
}

impl Caller {
    /// One call, which must be answered with OK.
    async fn call(&self, client: SendRequest<Bytes>, path: &str) -> anyhow::Result<()> {
        let mut client = client.ready().await?;
        let mut request = http::Request::post(format!("http://localhost{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        if !self.token.is_empty() {
            request = request.header("authorization", format!("Bearer {}", self.token));
        }
        let request = request.body(())?;
        let (response, mut body) = client.send_request(request, false)?;
        body.send_data(self.message.clone(), true)?;
        let response = response.await?;
        ensure!(response.status() == 200, "status {}", response.status());
        let mut body = response.into_body();
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
        }
        let trailers = body.trailers().await?;
        match trailers.as_ref().and_then(|map| map.get("grpc-status")) {
            Some(status) if status == "0" => Ok(()),
            status => bail!("grpc-status {status:?}"),
        }
    }
}

/// The 99th percentile of calls that succeeded.
pub(crate) fn p99(samples: &[Sample]) -> Duration {
    let mut took: Vec<Duration> = samples.iter().filter_map(|sample| sample.took).collect();
    took.sort_unstable();
    let place = (took.len() * 99).div_ceil(100).saturating_sub(1);
    took.get(place).copied().unwrap_or_default()
}

/// Calls that failed.
pub(crate) fn failed(samples: &[Sample]) -> usize {
    samples
        .iter()
        .filter(|sample| sample.took.is_none())
        .count()
}
