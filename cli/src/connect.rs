//! From the command line to a client.

use std::io;
use std::path::Path;

use larder_client::{CaCertificates, Client, ClientConfig, ClientIdentity, Error, Token};

use crate::args::Connection;
use crate::data_dir::{ADMIN_TOKEN_FILE, default_data_dir};
use crate::failure::Failure;

/// Largest token file read, bytes: no header could carry more.
const MAX_TOKEN_FILE_BYTES: u64 = 16 << 10;

/// A client, and where its server is, for words about failures.
pub(crate) struct Caller {
    pub(crate) client: Client,
    server: String,
}

impl Caller {
    /// Connects, with the credential that the rules of the command line find.
    pub(crate) async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let server = &connection.server;
        let failed = |error| Failure::call(server, error);
        let config = config(connection)?;
        let client = Client::connect(config).await.map_err(failed)?;
        Ok(Self {
            client,
            server: server.clone(),
        })
    }

    /// Connects to an admin listener, which asks for no credential and is shown none.
    pub(crate) async fn connect_admin(server: &str) -> Result<Self, Failure> {
        let failed = |error| Failure::call(server, error);
        let config = ClientConfig::new(server).map_err(failed)?;
        let client = Client::connect(config).await.map_err(failed)?;
        Ok(Self {
            client,
            server: server.to_owned(),
        })
    }

    /// The client for this call: a dry run checks and changes nothing.
    pub(crate) fn mutating(&self, dry_run: bool) -> Client {
        if dry_run {
            self.client.dry_run()
        } else {
            self.client.clone()
        }
    }

    /// Says what a failed call means.
    pub(crate) fn failed(&self, error: Error) -> Failure {
        Failure::call(&self.server, error)
    }
}

/// What the command line says about the server.
pub(crate) fn config(connection: &Connection) -> Result<ClientConfig, Failure> {
    let failed = |error| Failure::call(&connection.server, error);
    let mut config = ClientConfig::new(&connection.server)
        .map_err(failed)?
        .with_timeout(connection.timeout);
    if let Some(namespace) = &connection.namespace {
        config = config.with_namespace(namespace);
    }
    if let Some(path) = &connection.ca_file {
        config = config.with_authorities(CaCertificates::from_file(path).map_err(failed)?);
    }
    if let (Some(chain), Some(key)) = (&connection.cert_file, &connection.key_file) {
        config = config.with_identity(ClientIdentity::from_files(chain, key).map_err(failed)?);
    }
    if connection.insecure {
        config = config
            .dangerously_accept_any_certificate()
            .allow_clear_text_token();
    }
    if let Some(token) = token(connection, config.endpoint().is_loopback())? {
        config = config.with_token(token);
    }
    Ok(config)
}

/// The token that calls are made with.
pub(crate) fn credential(connection: &Connection) -> Result<Option<Token>, Failure> {
    token(connection, config(connection)?.endpoint().is_loopback())
}

/// In this order: `--token` or `LARDER_TOKEN`, `--token-file`, and the token
/// that a server on this machine made for its administrator.
fn token(connection: &Connection, loopback: bool) -> Result<Option<Token>, Failure> {
    let parse = |text: &str, what: &str| {
        Token::new(text)
            .map(Some)
            .map_err(|error| Failure::Usage(format!("{what}: {error}")))
    };
    if let Some(secret) = connection
        .bearer
        .as_ref()
        .filter(|secret| !secret.0.is_empty())
    {
        return parse(&secret.0, "--token or LARDER_TOKEN");
    }
    if let Some(path) = &connection.token_file {
        let what = format!("--token-file {}", path.display());
        let text = read_secret(path).map_err(|error| Failure::Usage(format!("{what}: {error}")))?;
        return parse(&text, &what);
    }
    let Some(path) = default_data_dir().filter(|_| loopback) else {
        return Ok(None);
    };
    let path = path.join(ADMIN_TOKEN_FILE);
    match read_secret(&path) {
        Ok(text) => parse(&text, &path.display().to_string()),
        // No server made one here, or not for this user: the call goes out
        // without, and the server says whether that will do.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Failure::file(path.display(), &error)),
    }
}

/// A secret of a file, without the line end that editors add.
pub(crate) fn read_secret(path: &Path) -> io::Result<String> {
    read_secret_from(std::fs::File::open(path)?)
}

/// A secret of a stream.
pub(crate) fn read_secret_from(from: impl io::Read) -> io::Result<String> {
    let text = io::read_to_string(from.take(MAX_TOKEN_FILE_BYTES))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
