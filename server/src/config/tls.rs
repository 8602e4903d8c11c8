//! TLS: the files, and the table `[tls]`, whose list `[[tls.account]]` says which
//! client certificates stand for which accounts.

use std::path::PathBuf;
use std::time::Duration;

use larder_accounts::{Action, TokenRights};
use larder_model::AccountName;
use serde::{Deserialize, Serialize};

use super::{ConfigError, Settings, bad, within};
use crate::tls::caller::CertificateAccount;
use crate::tls::names::NamePattern;

/// Certificate and key of the server, and whose client certificates it takes.
/// Read at start, and again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Authorities of client certificates, PEM.
    pub client_ca: Option<PathBuf>,
    /// Revocation lists of these authorities, PEM.
    pub client_crl: Option<PathBuf>,
    /// Whether every client must show a certificate.
    pub client_certificates: ClientCertificates,
    /// How often the files are looked at.
    pub reload_interval: Duration,
}

/// Whether clients must show a certificate, where `client_ca` is given. One that
/// is shown must always be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// Who has none gets no connection.
    #[default]
    Required,
    /// Who has none is known by a token, or not at all.
    Optional,
}

/// The table `[tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// How often the files are looked at, seconds; default 10.
    pub reload_seconds: Option<u64>,
    /// Whether clients must show a certificate; default `required`.
    pub client_certificates: Option<ClientCertificates>,
    /// Client certificates that stand for accounts, in order.
    #[serde(default)]
    pub account: Vec<CertificateAccountSettings>,
}

impl TlsSettings {
    /// The settings that say all of this, defaults too.
    pub(super) fn of(files: &TlsFiles, account: &[CertificateAccountSettings]) -> Self {
        let with_ca = files.client_ca.is_some();
        Self {
            reload_seconds: Some(files.reload_interval.as_secs()),
            client_certificates: with_ca.then_some(files.client_certificates),
            account: account.to_vec(),
        }
    }
}

/// One of `[[tls.account]]`: exactly one name, and an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateAccountSettings {
    /// Pattern of the subject's common name.
    pub common_name: Option<String>,
    /// Pattern of a host name among the subject alternative names.
    pub dns: Option<String>,
    /// Pattern of a URI among the subject alternative names.
    pub uri: Option<String>,
    /// The account.
    pub account: String,
    /// What its holder may do; default read and write.
    #[serde(default)]
    pub actions: Vec<CertificateUse>,
    /// Only these namespaces; default all.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Only keys that begin with one of these; default all.
    #[serde(default)]
    pub key_prefixes: Vec<String>,
}

/// What the holder of a certificate may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CertificateUse {
    /// Get, list, dump.
    Read,
    /// Set, delete, increment, load.
    Write,
    /// The control plane, of every account.
    Admin,
    /// Verify tokens.
    Verify,
}

const DEFAULT_RELOAD_SECONDS: u64 = 10;

/// The files that the settings name; `None` for clear text.
pub(super) fn files(settings: &Settings) -> Result<Option<TlsFiles>, ConfigError> {
    let more = settings.tls.clone().unwrap_or_default();
    let reload = within(
        "tls.reload_seconds",
        more.reload_seconds,
        DEFAULT_RELOAD_SECONDS,
        1..=24 * 3600,
    )?;
    let (client_ca, client_crl) = (settings.client_ca.clone(), settings.client_crl.clone());
    if client_ca.is_none() {
        let useless = [
            ("client_crl", client_crl.is_some()),
            (
                "tls.client_certificates",
                more.client_certificates.is_some(),
            ),
            ("tls.account", !more.account.is_empty()),
        ];
        if let Some((name, _)) = useless.into_iter().find(|(_, given)| *given) {
            return Err(bad(name, "needs client_ca"));
        }
    }
    match (settings.tls_cert.clone(), settings.tls_key.clone()) {
        (Some(cert), Some(key)) => Ok(Some(TlsFiles {
            cert,
            key,
            client_ca,
            client_crl,
            client_certificates: more.client_certificates.unwrap_or_default(),
            reload_interval: Duration::from_secs(reload),
        })),
        (None, None) if client_ca.is_some() => Err(bad("client_ca", "needs tls_cert and tls_key")),
        (None, None) => Ok(None),
        (Some(_), None) => Err(bad("tls_key", "tls_cert needs it")),
        (None, Some(_)) => Err(bad("tls_cert", "tls_key needs it")),
    }
}

/// The rules of `[[tls.account]]`.
pub(super) fn certificate_accounts(
    settings: &Settings,
) -> Result<Vec<CertificateAccount>, ConfigError> {
    let given = settings.tls.iter().flat_map(|tls| &tls.account);
    let rules: Vec<_> = given.map(rule).collect::<Result<_, _>>()?;
    if !rules.is_empty() && settings.accounts.is_some() {
        return Err(bad(
            "tls.account",
            "needs accounts in this process: another Accounts server is asked about tokens only",
        ));
    }
    Ok(rules)
}

fn rule(given: &CertificateAccountSettings) -> Result<CertificateAccount, ConfigError> {
    let names = [
        given.common_name.clone().map(NamePattern::CommonName),
        given.dns.clone().map(NamePattern::Dns),
        given.uri.clone().map(NamePattern::Uri),
    ];
    let mut names = names.into_iter().flatten();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(bad(
            "tls.account",
            "needs exactly one of common_name, dns and uri",
        ));
    };
    let (NamePattern::CommonName(text) | NamePattern::Dns(text) | NamePattern::Uri(text)) = &name;
    if text.is_empty() {
        return Err(bad(
            "tls.account",
            "has an empty name, which no certificate has",
        ));
    }
    let account = AccountName::parse(&given.account).map_err(|error| {
        bad(
            "tls.account",
            format!("account `{}` {error}", given.account),
        )
    })?;
    let actions = given.actions.iter().map(|action| match action {
        CertificateUse::Read => Action::Read,
        CertificateUse::Write => Action::Write,
        CertificateUse::Admin => Action::Admin,
        CertificateUse::Verify => Action::Verify,
    });
    let prefixes = given.key_prefixes.iter();
    let rights = TokenRights::parse(
        actions.collect(),
        &given.namespaces,
        prefixes.map(|prefix| prefix.clone().into_bytes()).collect(),
    )
    .map_err(|error| {
        let field = error.field.trim_start_matches("token.");
        bad("tls.account", format!("{field} {}", error.reason))
    })?;
    Ok(CertificateAccount {
        name,
        account,
        rights,
    })
}
