//! What the command line may say.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::bench::BenchArgs;
use crate::config_file::ConfigCommand;
use crate::health::HealthArgs;
use crate::import::ImportArgs;
use crate::serve::{AccountsCommand, ServeArgs};
use crate::units::{Limit, parse_duration, parse_limit, parse_size_limit};

/// Where the server is if nobody says otherwise.
const DEFAULT_SERVER: &str = "http://127.0.0.1:5051";

/// larder: a cache for many teams, callable from any language.
#[derive(Debug, Parser)]
#[command(name = "larder", version, max_term_width = 100, after_long_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXIT_CODES: &str = "Exit status: 0 done, 1 failed, 2 wrong command line, 3 not found.\n\n\
    A token is looked for in --token, LARDER_TOKEN, --token-file, and for the server on this \
    machine that uses the default data directory in the file admin-token there.\n\n\
    With --json every result is one JSON object on a line of its own, errors included (on standard \
    error). Bytes stand as text if they are UTF-8, else as base64 in a field with _base64 at the \
    end of its name.";

/// A server as it says itself where it listens, or as a URL.
#[expect(
    clippy::unnecessary_wraps,
    reason = "what a parser of arguments returns"
)]
fn server_url(text: &str) -> Result<String, String> {
    let schemes = ["unix:", "ipv4:", "ipv6:"];
    let is_complete =
        text.contains("://") || schemes.into_iter().any(|scheme| text.starts_with(scheme));
    Ok(if is_complete {
        text.into()
    } else {
        format!("http://{text}")
    })
}

/// How to reach the server.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// The server: http://HOST:PORT, https://HOST:PORT, unix:PATH, or HOST:PORT for http://
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "LARDER_SERVER",
        default_value = DEFAULT_SERVER,
        value_parser = server_url
    )]
    pub(crate) server: String,
    /// Trust the certificate authorities in this PEM file, not the platform's
    #[arg(long = "ca", value_name = "FILE", global = true)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Present the certificate chain in this PEM file
    #[arg(
        long = "cert",
        value_name = "FILE",
        global = true,
        requires = "key_file"
    )]
    pub(crate) cert_file: Option<PathBuf>,
    /// The key of that certificate, in PEM
    #[arg(
        long = "key",
        value_name = "FILE",
        global = true,
        requires = "cert_file"
    )]
    pub(crate) key_file: Option<PathBuf>,
    /// Accept any certificate, and send the token over clear text too
    #[arg(long, global = true)]
    pub(crate) insecure: bool,
    /// The token; better in the environment, for other users see arguments
    #[arg(
        long = "token",
        value_name = "TOKEN",
        global = true,
        env = "LARDER_TOKEN",
        hide_env_values = true
    )]
    pub(crate) bearer: Option<Secret>,
    /// Read the token from this file
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) token_file: Option<PathBuf>,
    /// Time for each call
    #[arg(long, value_name = "DURATION", global = true, default_value = "5s", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// Key space inside the account [default: default]
    #[arg(long, value_name = "NAME", global = true)]
    pub(crate) namespace: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A secret of the command line; `Debug` does not show it.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(Box<ServeArgs>),
    /// Configuration files
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Whether the server of this machine is ready, as its admin listener says
    Health(HealthArgs),
    /// The Accounts service as a process of its own
    #[command(subcommand)]
    Accounts(AccountsCommand),
    /// Accounts, for administrators
    #[command(subcommand)]
    Account(AccountCommand),
    /// Tokens, for administrators
    #[command(subcommand)]
    Token(TokenCommand),
    /// Read a value
    Get(GetArgs),
    /// Store a value
    Set(SetArgs),
    /// Delete entries
    Del(DelArgs),
    /// Give entries a new expiry
    Touch(TouchArgs),
    /// Add to a counter
    Incr(IncrArgs),
    /// List keys, in order
    Keys(KeysArgs),
    /// Write all entries to standard output
    Dump(DumpArgs),
    /// Store the entries of a dump from standard input
    Load(LoadArgs),
    /// Copy the entries of a Redis or Valkey, with what is left of their time
    Import(Box<ImportArgs>),
    /// What the account uses and may use
    Usage,
    /// What a server says of its connections, on its admin listener
    Channelz(ChannelzArgs),
    /// Load a running server, or replay a real trace through it
    Bench(Box<BenchArgs>),
    /// Write a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages
    Man(ManArgs),
}

/// Calls on accounts.
#[derive(Debug, Subcommand)]
pub(crate) enum AccountCommand {
    /// Create an account
    Create(AccountCreateArgs),
    /// List all accounts
    List,
    /// Show one account
    Show {
        /// Its name
        name: String,
    },
    /// Change an account; what is not named stays
    Set(AccountSetArgs),
    /// Delete an account, its tokens and its entries
    Delete {
        /// Its name
        name: String,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// Check everything, change nothing.
#[derive(Debug, Args)]
pub(crate) struct DryRun {
    /// Check everything, change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// `larder account create`.
#[derive(Debug, Args)]
pub(crate) struct AccountCreateArgs {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// `larder account set`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("change").required(true).multiple(true)
    .args(["display_name", "max_keys", "max_bytes", "max_rps", "at_limit"]))]
pub(crate) struct AccountSetArgs {
    /// Its name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    /// Change it only if it still has this etag
    #[arg(long)]
    pub(crate) etag: Option<String>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// What can be set on an account.
#[derive(Debug, Args)]
pub(crate) struct SettingsArgs {
    /// Name for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,
    /// Keys allowed, or none for no limit
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub(crate) max_keys: Option<Limit>,
    /// Bytes allowed, such as 64MiB, or none for no limit
    #[arg(long, value_name = "SIZE", value_parser = parse_size_limit)]
    pub(crate) max_bytes: Option<Limit>,
    /// Requests allowed a second, or none for no limit
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub(crate) max_rps: Option<Limit>,
    /// What happens to a new key at the limit [default: refuse]
    #[arg(long, value_enum, value_name = "WHAT")]
    pub(crate) at_limit: Option<AtLimitArg>,
}

/// What happens to a new key at the limit.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum AtLimitArg {
    /// The write is refused
    Refuse,
    /// The account's least useful entries make room
    Evict,
}

/// Calls on tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; its secret is shown only now
    Create(TokenCreateArgs),
    /// List the tokens of an account, without their secrets
    List {
        /// The account
        account: String,
    },
    /// Make a token useless
    Revoke {
        /// accounts/ACCOUNT/tokens/TOKEN, as `token list` shows it
        #[arg(value_name = "NAME")]
        token_name: String,
        #[command(flatten)]
        dry_run: DryRun,
    },
}

/// `larder token create`.
#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// The account
    pub(crate) account: String,
    #[command(flatten)]
    pub(crate) actions: ActionArgs,
    /// Only keys that begin with this; may be given up to 8 times
    #[arg(long, value_name = "P")]
    pub(crate) prefix: Vec<OsString>,
    /// Only this namespace; may be given several times
    #[arg(long, value_name = "NS")]
    pub(crate) namespace_scope: Vec<String>,
    /// How long it is good for [default: for ever]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) expires: Option<Duration>,
    /// Import the secret in this file, or from standard input with -
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// What a token may do.
#[derive(Debug, Args)]
pub(crate) struct ActionArgs {
    /// May read [without any right named: --read --write]
    #[arg(long)]
    pub(crate) read: bool,
    /// May write
    #[arg(long)]
    pub(crate) write: bool,
    /// May use the control plane, for every account
    #[arg(long)]
    pub(crate) admin: bool,
    /// May ask for other tokens: a cache server's credential
    #[arg(long)]
    pub(crate) verify: bool,
}

/// `larder get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) entry_key: OsString,
}

/// `larder set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) entry_key: OsString,
    /// The value, or - to read it from standard input
    pub(crate) value: OsString,
    /// It expires after this time [default: never]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// It expires when the entry that it replaces would have
    #[arg(long, conflicts_with = "ttl")]
    pub(crate) keep_ttl: bool,
    /// Only if there is no entry
    #[arg(long, group = "condition")]
    pub(crate) if_absent: bool,
    /// Only if there is an entry
    #[arg(long, group = "condition")]
    pub(crate) if_present: bool,
    /// Only if the entry has this version
    #[arg(long, value_name = "V", group = "condition")]
    pub(crate) if_version: Option<u64>,
    /// A number that is kept with the value
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) flags: u32,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// `larder del`.
#[derive(Debug, Args)]
pub(crate) struct DelArgs {
    /// The keys
    #[arg(value_name = "KEY", required_unless_present = "prefix")]
    pub(crate) entry_keys: Vec<OsString>,
    /// All keys that begin with this, in place of single keys
    #[arg(long, value_name = "P", conflicts_with = "entry_keys")]
    pub(crate) prefix: Option<OsString>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// `larder touch`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("expiry").required(true).args(["ttl", "never"]))]
pub(crate) struct TouchArgs {
    /// The keys
    #[arg(value_name = "KEY", required = true)]
    pub(crate) entry_keys: Vec<OsString>,
    /// They expire after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// They no longer expire
    #[arg(long)]
    pub(crate) never: bool,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// `larder incr`.
#[derive(Debug, Args)]
pub(crate) struct IncrArgs {
    /// The key
    #[arg(value_name = "KEY")]
    pub(crate) entry_key: OsString,
    /// What to add; may be negative
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    pub(crate) delta: i64,
    /// Value before the first add
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub(crate) initial: i64,
    /// A new counter expires after this time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) ttl: Option<Duration>,
    /// The result does not go above this
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) max: Option<i64>,
    /// The result does not go below this
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(crate) min: Option<i64>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// `larder keys`.
#[derive(Debug, Args)]
pub(crate) struct KeysArgs {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    pub(crate) prefix: OsString,
    /// Size, version and expiry too
    #[arg(long, short)]
    pub(crate) long: bool,
}

/// `larder dump`.
#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    pub(crate) prefix: OsString,
}

/// `larder load`.
#[derive(Debug, Args)]
pub(crate) struct LoadArgs {
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
}

/// `larder channelz`.
#[derive(Debug, Args)]
pub(crate) struct ChannelzArgs {
    /// The admin listener of the server
    #[arg(
        long,
        value_name = "URL",
        env = "LARDER_ADMIN",
        default_value = "http://127.0.0.1:5053",
        value_parser = server_url
    )]
    pub(crate) admin: String,
    /// Most connections to print
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: usize,
}

/// `larder man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// Write the pages of all commands into this directory, not to standard output
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_scheme_is_one_of_http() {
        for (text, url) in [
            ("127.0.0.1:5051", "http://127.0.0.1:5051"),
            ("cache", "http://cache"),
            ("dns:5051", "http://dns:5051"),
            ("https://cache", "https://cache"),
            ("dns:///cache:5051", "dns:///cache:5051"),
            ("unix:/run/larder.sock", "unix:/run/larder.sock"),
            ("ipv4:10.0.0.1:1,10.0.0.2:1", "ipv4:10.0.0.1:1,10.0.0.2:1"),
        ] {
            assert_eq!(server_url(text).as_deref(), Ok(url));
        }
    }
}
