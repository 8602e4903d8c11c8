//! Asking over gRPC: `larder.accounts.v1` first, and the talk's `rpc.Accounts`
//! where a server knows no other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connectrpc::client::{CallOptions, ClientConfig, Http2Connection, SharedHttp2Connection};
use connectrpc::{ConnectError, ErrorCode, Protocol};
use futures::FutureExt;
use futures::future::BoxFuture;
use larder_accounts::{Actions, TokenRights};
use larder_api::errors::Code;
use larder_api::wire::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use larder_api::{accounts_v1, talk};
use larder_model::{AccountId, AccountName, AccountUid, AtLimit, Quota};
use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use sha2::{Digest as _, Sha256};

use super::remote::{Ask, AskError, Verdict, margin};
use super::{Grant, Holder, whole_account};
use crate::clock;
use crate::config::{ClientCertificateFiles, RemoteAccounts};
use crate::rate::RateLimiter;
use crate::telemetry::asking::{Asked, Asking};
use crate::telemetry::trace_context::{TRACEPARENT, TRACESTATE, TraceContext};
use crate::tenants::AccountGrant;
use crate::tls::client::ClientCertificate;
use crate::tls::{self, TlsError};

/// Calls in flight on the one connection.
const MAX_IN_FLIGHT: usize = 1024;
/// `grpc-timeout` travels in whole milliseconds, rounded down: the callee's time
/// may be up this much before ours.
const TIMEOUT_UNIT: Duration = Duration::from_millis(1);

/// A client of an Accounts server.
pub(crate) struct GrpcAsker(Arc<Inner>);

struct Inner {
    v1: accounts_v1::AccountServiceClient<SharedHttp2Connection>,
    talk: talk::AccountsClient<SharedHttp2Connection>,
    /// It said UNIMPLEMENTED to `larder.accounts.v1`.
    knows_only_talk: AtomicBool,
    /// It has answered in `larder.accounts.v1`.
    knows_v1: AtomicBool,
    default_max_age: Duration,
    asking: Option<Asking>,
    /// Lines of the log about refusals of this server's own credential.
    refusals_told: RateLimiter,
}

/// Why the client cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {}: {reason}", path.display())]
pub(crate) struct AskerError {
    setting: &'static str,
    path: std::path::PathBuf,
    reason: String,
}

impl From<TlsError> for AskerError {
    fn from(error: TlsError) -> Self {
        let TlsError {
            setting,
            path,
            reason,
        } = error;
        Self {
            setting,
            path,
            reason,
        }
    }
}

impl GrpcAsker {
    /// Reads the files that `remote` names; connects on first use.
    /// `asking` records the spans of what it asks, if anything does.
    pub(crate) fn new(remote: &RemoteAccounts, asking: Option<Asking>) -> Result<Self, AskerError> {
        let builder = Http2Connection::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let connection = match &remote.ca {
            Some(ca) => {
                let tls = client_tls("accounts_ca", ca, remote.certificate.as_ref())?;
                builder.lazy_tls(remote.uri.clone(), tls)
            }
            None => builder.lazy_plaintext(remote.uri.clone()),
        };
        let connection = connection.shared(MAX_IN_FLIGHT);
        let mut config = ClientConfig::new(remote.uri.clone()).with_protocol(Protocol::Grpc);
        if let Some(path) = &remote.token_file {
            config = config.with_default_header("authorization", credential(path)?);
        }
        Ok(Self(Arc::new(Inner {
            v1: accounts_v1::AccountServiceClient::new(connection.clone(), config.clone()),
            talk: talk::AccountsClient::new(connection, config),
            knows_only_talk: AtomicBool::new(false),
            knows_v1: AtomicBool::new(false),
            default_max_age: remote.default_max_age,
            refusals_told: RateLimiter::at_most(1),
            asking,
        })))
    }
}

fn credential(path: &Path) -> Result<http::HeaderValue, AskerError> {
    let failed = |reason: String| AskerError {
        setting: "accounts_token_file",
        path: path.into(),
        reason,
    };
    let token = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let token = token.trim();
    if token.is_empty() || token.contains([' ', '\n', '\t', '{', '"']) {
        return Err(failed(
            "must hold the token's secret and nothing else".into(),
        ));
    }
    let mut value = http::HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| failed("holds characters that no token has".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// TLS as a client of a server with a certificate of this authority, over HTTP/2. `setting` is
/// the one that named the file. `certificate` is shown to it, if it asks for one.
pub(crate) fn client_tls(
    setting: &'static str,
    ca: &Path,
    certificate: Option<&ClientCertificateFiles>,
) -> Result<Arc<rustls::ClientConfig>, AskerError> {
    let failed = |reason: String| AskerError {
        setting,
        path: ca.into(),
        reason,
    };
    let mut roots = rustls::RootCertStore::empty();
    let certs = CertificateDer::pem_file_iter(ca).map_err(|e| failed(e.to_string()))?;
    for cert in certs {
        let cert = cert.map_err(|e| failed(e.to_string()))?;
        roots.add(cert).map_err(|e| failed(e.to_string()))?;
    }
    let builder = rustls::ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| failed(e.to_string()))?
        .with_root_certificates(roots);
    let mut config = match certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let settings = ["accounts_cert", "accounts_key"];
            let shown = ClientCertificate::open(files.clone(), settings)?;
            let mut config = builder.with_client_cert_resolver(Arc::new(shown));
            // A session that is resumed stands for the certificate it began with.
            config.resumption = Resumption::disabled();
            config
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

impl Ask for GrpcAsker {
    fn ask(
        &self,
        secret: String,
        limit: Duration,
        trace: Option<&TraceContext>,
    ) -> BoxFuture<'static, Result<Verdict, AskError>> {
        let trace = trace.cloned();
        let inner = Arc::clone(&self.0);
        async move {
            // The callee is told less than we wait; we do not rely on it.
            match tokio::time::timeout(limit, inner.ask(secret, limit, trace)).await {
                Ok(result) => result,
                Err(_) => Err(AskError::TimedOut),
            }
        }
        .boxed()
    }
}

impl Inner {
    async fn ask(
        &self,
        secret: String,
        limit: Duration,
        trace: Option<TraceContext>,
    ) -> Result<Verdict, AskError> {
        let asked_at = clock::instant();
        let times_up = asked_at + limit.saturating_sub(margin(limit));
        let begin = |method| {
            let asking = self.asking.as_ref();
            asking.and_then(|asking| asking.begin(method, trace.as_ref(), asked_at + limit))
        };
        let options = |asked: Option<&Asked<'_>>| {
            let left = times_up.saturating_duration_since(clock::instant());
            let trace = asked.map(Asked::context).or(trace.as_ref());
            traced(CallOptions::default().with_timeout(left), trace)
        };
        if !self.knows_only_talk.load(Ordering::Relaxed) {
            let request = accounts_v1::VerifyTokenRequest {
                secret: secret.clone(),
                ..Default::default()
            };
            let asked = begin(VERIFY_TOKEN);
            let options = options(asked.as_ref());
            let answer = self.v1.verify_token_with_options(request, options).await;
            ended(asked, answer.as_ref().err());
            match answer {
                Ok(response) => return self.v1_answered(&response.into_owned(), asked_at),
                // Only from a server that never knew better: the talk's answer
                // has no scopes, and a token must not grow by an error.
                Err(error)
                    if error.code == ErrorCode::Unimplemented
                        && !self.knows_v1.load(Ordering::Relaxed) =>
                {
                    self.knows_only_talk.store(true, Ordering::Relaxed);
                }
                Err(error) => return self.no_answer(&error, times_up),
            }
        }
        let request = talk::GetByTokenReq {
            token: secret.clone(),
            ..Default::default()
        };
        let asked = begin(GET_BY_TOKEN);
        let options = options(asked.as_ref());
        let answer = self.talk.get_by_token_with_options(request, options).await;
        ended(asked, answer.as_ref().err());
        match answer {
            Ok(response) => Ok(talk_verdict(
                &response.into_owned(),
                &secret,
                self.default_max_age,
                asked_at,
            )),
            // A server that learned `larder.accounts.v1` since is asked there
            // again.
            Err(error) if error.code == ErrorCode::Unimplemented => {
                self.knows_only_talk.store(false, Ordering::Relaxed);
                self.no_answer(&error, times_up)
            }
            Err(error) => self.no_answer(&error, times_up),
        }
    }
}

const VERIFY_TOKEN: &str = "/larder.accounts.v1.AccountService/VerifyToken";
const GET_BY_TOKEN: &str = "/rpc.Accounts/GetByToken";

/// The span of a call that was answered.
fn ended(asked: Option<Asked<'_>>, error: Option<&ConnectError>) {
    if let Some(asked) = asked {
        let number = error.map_or(0, |error| error.code.grpc_code());
        asked.end(Code::from_number(number));
    }
}

/// Tells the callee which trace the call is part of.
fn traced(options: CallOptions, trace: Option<&TraceContext>) -> CallOptions {
    let Some(trace) = trace else {
        return options;
    };
    let options = options.with_header(TRACEPARENT, trace.to_parent());
    match trace.state.is_empty() {
        true => options,
        false => options.with_header(TRACESTATE, &*trace.state),
    }
}

impl Inner {
    fn v1_answered(
        &self,
        response: &accounts_v1::VerifyTokenResponse,
        asked_at: Instant,
    ) -> Result<Verdict, AskError> {
        self.knows_v1.store(true, Ordering::Relaxed);
        v1_verdict(response, self.default_max_age, asked_at)
    }

    /// What an error says of the token. A refusal of *our* credential is no word
    /// about the caller's. A callee whose time is up may say so, or just reset the
    /// stream (grpc-go does either, as it happens): both mean the same.
    fn no_answer(&self, error: &ConnectError, times_up: Instant) -> Result<Verdict, AskError> {
        match error.code {
            ErrorCode::NotFound => Ok(Verdict::Unknown),
            ErrorCode::Unauthenticated | ErrorCode::PermissionDenied => {
                // Any caller with a token that is unknown here can cause it.
                if self.refusals_told.take(clock::instant()).is_ok() {
                    tracing::warn!("the Accounts server refuses this server's own credential");
                }
                let why = "it refuses this server's own credential (accounts_token_file)";
                Err(AskError::Unavailable(why.into()))
            }
            ErrorCode::DeadlineExceeded => Err(AskError::TimedOut),
            _ if clock::instant() + TIMEOUT_UNIT >= times_up => Err(AskError::TimedOut),
            code => Err(AskError::Unavailable(format!(
                "{}: {}",
                code.as_str(),
                error.message.as_deref().unwrap_or_default()
            ))),
        }
    }
}

fn v1_verdict(
    response: &accounts_v1::VerifyTokenResponse,
    default_max_age: Duration,
    verified_at: Instant,
) -> Result<Verdict, AskError> {
    let nonsense = |what: &str| AskError::Unavailable(format!("its answer has a bad {what}"));
    let (Some(account), Some(token)) = (response.account.as_option(), response.token.as_option())
    else {
        return Err(nonsense("account or token"));
    };
    let name = account.name.strip_prefix("accounts/").unwrap_or_default();
    let name = AccountName::parse(name).map_err(|_| nonsense("account name"))?;
    let actions: Actions = token
        .actions
        .iter()
        .filter_map(|action| crate::rpc::accounts_v1::action(action.as_known()?))
        .collect();
    let mut namespaces: Vec<Box<str>> = token
        .namespaces
        .iter()
        .map(|ns| ns.as_str().into())
        .collect();
    namespaces.sort_unstable();
    let key_prefixes = std::iter::once(&token.key_prefix)
        .filter(|first| !first.is_empty())
        .chain(&token.key_prefixes)
        .map(|prefix| prefix.as_slice().into())
        .collect();
    let max_age = response
        .max_age
        .as_option()
        .map_or(Ok(default_max_age), |age| {
            Duration::try_from(age.clone()).map_err(|_| nonsense("max_age"))
        })?;
    let grant = Grant {
        account: AccountGrant {
            id: AccountId {
                name,
                uid: AccountUid::new(&account.uid),
            },
            quota: Quota {
                max_keys: limit(account.max_keys).unwrap_or(u64::MAX),
                max_bytes: limit(account.max_bytes).unwrap_or(u64::MAX),
                at_limit: crate::rpc::accounts_v1::at_limit(account.at_limit.as_known()),
            },
            max_requests_per_second: limit(account.max_requests_per_second),
        },
        rights: TokenRights {
            actions,
            namespaces: namespaces.into(),
            key_prefixes,
        },
        holder: Holder::Token(token.name.as_str().into()),
        verified_at,
    };
    Ok(Verdict::Granted {
        grant: Arc::new(grant),
        max_age,
    })
}

/// 0 and less mean no limit.
fn limit(wire: i64) -> Option<u64> {
    u64::try_from(wire).ok().filter(|n| *n > 0)
}

/// The talk's answer names no account: it is called by a digest of its token,
/// so that two tokens never share entries by accident.
fn talk_verdict(
    response: &talk::GetByTokenResp,
    secret: &str,
    max_age: Duration,
    verified_at: Instant,
) -> Verdict {
    let Some(account) = response.account.as_option() else {
        return Verdict::Unknown;
    };
    let digest = Sha256::digest(secret.as_bytes());
    let name = digest[..16]
        .iter()
        .fold(String::from("token-"), |text, byte| {
            format!("{text}{byte:02x}")
        });
    let Ok(name) = AccountName::parse(&name) else {
        return Verdict::Unknown;
    };
    let uid = AccountUid::new(name.as_str());
    let holder = format!("accounts/{name}");
    Verdict::Granted {
        grant: Arc::new(Grant {
            account: AccountGrant {
                id: AccountId { name, uid },
                quota: Quota {
                    max_keys: u64::try_from(account.max_cache_keys).unwrap_or(0),
                    max_bytes: u64::MAX,
                    at_limit: AtLimit::Refuse,
                },
                max_requests_per_second: None,
            },
            rights: whole_account(),
            holder: Holder::Token(holder.into()),
            verified_at,
        }),
        max_age,
    }
}
