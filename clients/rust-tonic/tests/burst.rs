//! Many calls at once on one connection, from a stock Rust client.

use std::error::Error;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use larder_clients_tonic::rpc::cache_client::CacheClient;
use larder_clients_tonic::rpc::{GetReq, StoreReq};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

const CALLS: usize = 1000;
const ROUNDS: usize = 5;
const TOKEN: &str = "inconshreveable";

/// Bounds every call; none takes that long unless it is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// A `larder serve` on a free port, with a data directory of its own.
struct Larder {
    child: Child,
    address: String,
    home: tempfile::TempDir,
}

impl Larder {
    fn start() -> Result<Self, Box<dyn Error>> {
        let home = tempfile::tempdir()?;
        let errors = File::create(home.path().join("stderr"))?;
        let mut child = larder()
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(home.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(errors)
            .spawn()?;
        let output = child.stdout.take();
        let mut started = Self {
            child,
            address: String::new(),
            home,
        };
        for line in BufReader::new(output.ok_or("its output is piped")?).lines() {
            if let Some(address) = line?.strip_prefix("listening on ") {
                started.address = address.to_owned();
                return Ok(started);
            }
        }
        Err("larder did not listen".into())
    }

    /// Makes an account whose token is `secret`.
    fn import_token(&self, account: &str, secret: &str) -> Result<(), Box<dyn Error>> {
        let file = self.home.path().join("secret");
        std::fs::write(&file, secret)?;
        let run = |arguments: &[&str], file: Option<&Path>| {
            let mut command = larder();
            command.args(arguments).args(file);
            command.args(["--server", &format!("http://{}", self.address)]);
            command.arg("--token-file");
            command.arg(self.home.path().join("data/admin-token"));
            match command.stdout(Stdio::null()).status()?.success() {
                true => Ok(()),
                false => Err(format!("larder {arguments:?} failed")),
            }
            .map_err(Box::<dyn Error>::from)
        };
        run(
            &["account", "create", account, "--max-keys", "1000000"],
            None,
        )?;
        run(&["token", "create", account, "--secret-file"], Some(&file))
    }
}

impl Drop for Larder {
    fn drop(&mut self) {
        // It may have ended already; then the test has failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let errors = std::fs::read_to_string(self.home.path().join("stderr"));
            eprintln!("larder's standard error:\n{}", errors.unwrap_or_default());
        }
    }
}

/// The program that `cargo build` makes, or that LARDER_BIN names; without what
/// would point it at another server.
fn larder() -> Command {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/larder");
    let program = std::env::var_os("LARDER_BIN").map_or(built, PathBuf::from);
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LARDER_") {
            command.env_remove(name);
        }
    }
    command
}

fn with_token<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let token = format!("Bearer {TOKEN}").parse().unwrap();
    request.metadata_mut().insert("authorization", token);
    request.set_timeout(PATIENCE);
    request
}

/// Makes calls that all begin together; each checks its own answer.
async fn at_once<F>(client: &CacheClient<Channel>, call: fn(CacheClient<Channel>, String) -> F)
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let barrier = Arc::new(Barrier::new(CALLS));
    let mut calls = JoinSet::new();
    for number in 0..CALLS {
        let (barrier, client) = (Arc::clone(&barrier), client.clone());
        calls.spawn(async move {
            barrier.wait().await;
            call(client, format!("key-{number}")).await
        });
    }
    let failed: Vec<Status> = calls
        .join_all()
        .await
        .into_iter()
        .filter_map(Result::err)
        .collect();
    assert!(
        failed.is_empty(),
        "{} failed: {:?}",
        failed.len(),
        failed[0]
    );
}

async fn store(mut client: CacheClient<Channel>, key: String) -> Result<(), Status> {
    let message = StoreReq {
        val: key.clone().into_bytes(),
        key,
        ..StoreReq::default()
    };
    client.store(with_token(message)).await.map(drop)
}

async fn get(mut client: CacheClient<Channel>, key: String) -> Result<(), Status> {
    let message = GetReq {
        key: key.clone(),
        ..GetReq::default()
    };
    let answer = client.get(with_token(message)).await?.into_inner();
    match answer.val == key.as_bytes() {
        true => Ok(()),
        false => Err(Status::internal(format!("another's value for {key}"))),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_on_one_connection_all_succeed() {
    let larder = Larder::start().unwrap();
    larder.import_token("burst", TOKEN).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{}", larder.address)).unwrap();
    let client = CacheClient::new(endpoint.connect().await.unwrap());
    at_once(&client, store).await;
    for _ in 1..ROUNDS {
        at_once(&client, get).await;
    }
}
