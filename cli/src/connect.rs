//! From the command line to a client.

use std::io;
use std::path::Path;

use larder_client::{CaCertificates, Client, ClientConfig, ClientIdentity, Endpoint, Error, Token};

use crate::args::Connection;
use crate::data_dir::default_data_dir;
use crate::failure::Failure;
use crate::local_server::{Certificate, LocalServer, Way};

/// Largest token file read, bytes: no header could carry more.
const MAX_TOKEN_FILE_BYTES: u64 = 16 << 10;

/// A client, and where its server is, for words about failures.
pub(crate) struct Caller {
    pub(crate) client: Client,
    server: String,
    /// Why the token of this machine's server was not sent, if it was not.
    withheld: Option<String>,
}

impl Caller {
    /// Connects, with the credential that the rules of the command line find.
    pub(crate) async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let server = &connection.server;
        let failed = |error| Failure::call(server, error);
        let (config, credential) = config_and_credential(connection)?;
        let client = Client::connect(config).await.map_err(failed)?;
        Ok(Self {
            client,
            server: server.clone(),
            withheld: match credential {
                Credential::Withheld(why) => Some(why),
                Credential::Token(_) | Credential::None => None,
            },
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
            withheld: None,
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
        match &self.withheld {
            Some(why) => Failure::call_without_token(&self.server, error, why),
            None => Failure::call(&self.server, error),
        }
    }
}

/// What the command line says about the server.
pub(crate) fn config(connection: &Connection) -> Result<ClientConfig, Failure> {
    config_and_credential(connection).map(|(config, _)| config)
}

fn config_and_credential(connection: &Connection) -> Result<(ClientConfig, Credential), Failure> {
    let failed = |error| Failure::call(&connection.server, error);
    let named = ClientConfig::new(&connection.server).map_err(failed)?;
    let (credential, url) = find_credential(connection, &named)?;
    let config = match url {
        Some(url) => ClientConfig::new(&url).map_err(failed)?,
        None => named,
    };
    let mut config = config.with_timeout(connection.timeout);
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
    if let Credential::Token(token) = &credential {
        config = config.with_token(token.clone());
    }
    Ok((config, credential))
}

/// The token that calls are made with.
pub(crate) fn credential(connection: &Connection) -> Result<Option<Token>, Failure> {
    match config_and_credential(connection)?.1 {
        Credential::Token(token) => Ok(Some(token)),
        Credential::Withheld(_) | Credential::None => Ok(None),
    }
}

/// What calls are made with.
enum Credential {
    Token(Token),
    None,
    /// There is a token, for another server: why it was not sent.
    Withheld(String),
}

/// In this order: `--token` or `LARDER_TOKEN`, `--token-file`, and the token
/// that a server on this machine made for its administrator. With the last comes the
/// URL that leads to this server alone, if the one that was given may lead to others.
fn find_credential(
    connection: &Connection,
    named: &ClientConfig,
) -> Result<(Credential, Option<String>), Failure> {
    let given = |text: &str, what: &str| Ok((Credential::Token(parse(text, what)?), None));
    if let Some(secret) = connection
        .bearer
        .as_ref()
        .filter(|secret| !secret.0.is_empty())
    {
        return given(&secret.0, "--token or LARDER_TOKEN");
    }
    if let Some(path) = &connection.token_file {
        let what = format!("--token-file {}", path.display());
        let text = read_secret(path).map_err(|error| Failure::Usage(format!("{what}: {error}")))?;
        return given(&text, &what);
    }
    let is_local = named.endpoints().all(Endpoint::is_loopback);
    let Some(dir) = default_data_dir().filter(|_| is_local) else {
        return Ok((Credential::None, None));
    };
    let local = LocalServer::of(dir);
    let path = local.token_file();
    let token = match read_secret(&path) {
        Ok(text) => parse(&text, &path.display().to_string())?,
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
            return Ok((Credential::None, None));
        }
        Err(error) => return Err(Failure::file(path.display(), &error)),
    };
    let certificate = match connection.insecure {
        true => Certificate::Unchecked,
        false => Certificate::Checked,
    };
    let mut url = None;
    for endpoint in named.endpoints() {
        match local.way(endpoint, certificate) {
            Way::There => {}
            // Lists of servers hold addresses, so that a name stands alone.
            Way::By(its) => url = Some(its),
            Way::Elsewhere => return Ok((Credential::Withheld(local.withheld()), None)),
        }
    }
    Ok((Credential::Token(token), url))
}

fn parse(secret: &str, what: &str) -> Result<Token, Failure> {
    Token::new(secret).map_err(|error| Failure::Usage(format!("{what}: {error}")))
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
