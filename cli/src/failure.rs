//! Why a command failed, as one line, one JSON object and an exit code.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use larder_client::{Code, Error, Reason};
use serde_json::{Value, json};

use crate::data_dir::{ADMIN_TOKEN_FILE, default_data_dir};
use crate::output::{Format, escape};

/// The command could not do its work.
const EXIT_FAILED: u8 = 1;

/// The command line is wrong.
pub(crate) const EXIT_USAGE: u8 = 2;

/// What was asked for is not there.
const EXIT_NOT_FOUND: u8 = 3;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A call failed, to the server at this URL.
    Call {
        /// Where the server is, or was thought to be.
        server: String,
        /// What the client says.
        error: Box<Error>,
        /// Why no token was sent, if there is one that was kept back.
        withheld: Option<String>,
    },
    /// The command line, or what it names, is wrong.
    Usage(String),
    /// What was asked for is not there; already told, if the text is empty.
    NotFound(String),
    /// Anything else; already told, if the text is empty.
    Failed(String),
    /// Nobody reads the output any more.
    ReaderGone,
}

impl Failure {
    /// A failed call to that server.
    pub(crate) fn call(server: &str, error: Error) -> Self {
        Self::Call {
            server: server.to_owned(),
            error: Box::new(error),
            withheld: None,
        }
    }

    /// A failed call to that server, to which the token of this machine's server was not
    /// sent.
    pub(crate) fn call_without_token(server: &str, error: Error, withheld: &str) -> Self {
        Self::Call {
            server: server.to_owned(),
            error: Box::new(error),
            withheld: Some(withheld.to_owned()),
        }
    }

    /// A failure of the file or stream that `what` names.
    pub(crate) fn file(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::Failed(format!("{what}: {error}"))
    }

    /// Prints it on standard error, and says how the process ends.
    pub(crate) fn report(&self, format: Format) -> ExitCode {
        let message = self.message();
        if !message.is_empty() {
            let line = match format {
                Format::Json => self.json(&message).to_string(),
                Format::Text => match self.hint() {
                    Some(hint) => format!("larder: {message}; {hint}"),
                    None => format!("larder: {message}"),
                },
            };
            // If standard error is gone too, the exit code is all there is.
            let _ = writeln!(io::stderr(), "{line}");
        }
        self.exit_code()
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::ReaderGone => return ExitCode::SUCCESS,
            Self::Call { error, .. } if error.code() == Code::NotFound => EXIT_NOT_FOUND,
            Self::Call { error, .. } if error.is_configuration() => EXIT_USAGE,
            Self::Call { .. } | Self::Failed(_) => EXIT_FAILED,
            Self::Usage(_) => EXIT_USAGE,
            Self::NotFound(_) => EXIT_NOT_FOUND,
        })
    }

    fn message(&self) -> String {
        let text = match self {
            Self::Call { server, error, .. } if error.is_connect() => {
                format!("cannot reach {server}: {error}")
            }
            Self::Call { error, .. } => {
                let mut text = error.to_string();
                for violation in error.field_violations() {
                    // The server's own messages tell it already.
                    if !text.contains(&violation.description) {
                        text.push_str(&format!("; {}: {}", violation.field, violation.description));
                    }
                }
                text
            }
            Self::Usage(text) | Self::NotFound(text) | Self::Failed(text) => text.clone(),
            Self::ReaderGone => String::new(),
        };
        // Words of a server are not to move a cursor; backslashes may stay.
        escape(text.as_bytes()).replace("\\\\", "\\")
    }

    /// What the person at the terminal can do.
    fn hint(&self) -> Option<String> {
        let Self::Call {
            server,
            error,
            withheld,
        } = self
        else {
            return None;
        };
        if error.is_connect() {
            let message = error.message();
            return if message.contains("https://") || message.contains("http://") {
                // It says already what may be meant.
                None
            } else if message.contains("TLS") {
                Some("give its authority with --ca FILE".into())
            } else {
                Some(format!("is `larder serve` running at {server}?"))
            };
        }
        if error.is_configuration() && error.message().contains("clear text") {
            return Some("or with --insecure".into());
        }
        let hint = match (error.reason(), error.code()) {
            (Some(Reason::TokenMissing | Reason::ScopeDenied), _) if withheld.is_some() => {
                return withheld.clone();
            }
            (Some(Reason::TokenMissing), _) => {
                "give a token with --token, LARDER_TOKEN or --token-file"
            }
            (Some(Reason::TokenInvalid), _) => return Some(token_hint()),
            (Some(Reason::ScopeDenied), _) => {
                "use a token with this right; `larder token create` makes one"
            }
            (Some(Reason::KeyQuotaExceeded), _) => {
                "`larder account set ACCOUNT --max-keys N` raises the limit"
            }
            (Some(Reason::ByteQuotaExceeded), _) => {
                "`larder account set ACCOUNT --max-bytes SIZE` raises the limit"
            }
            (_, Code::DeadlineExceeded) => "--timeout gives it more time",
            (None, Code::Unimplemented) => "is it a larder server, and recent enough?",
            _ => return None,
        };
        Some(hint.into())
    }

    /// `{"error": {…}}` with `code`, `reason`, `message`, `hint`, `retryable`,
    /// `may_have_applied`, `retry_after_ms` and `field_violations`; what does
    /// not apply is `null` or `false`.
    fn json(&self, message: &str) -> Value {
        let error = match self {
            Self::Call { error, .. } => Some(error),
            _ => None,
        };
        let code = match self {
            Self::Call { error, .. } => error.code().name(),
            Self::Usage(_) => "USAGE",
            Self::NotFound(_) => Code::NotFound.name(),
            Self::Failed(_) | Self::ReaderGone => "FAILED",
        };
        let violations = error.map_or_else(Vec::new, |error| {
            let violations = error.field_violations().iter();
            violations
                .map(|violation| {
                    json!({"field": violation.field, "description": violation.description})
                })
                .collect()
        });
        json!({"error": {
            "code": code,
            "reason": error.and_then(|error| error.reason_name()),
            "message": message,
            "hint": self.hint(),
            "retryable": error.is_some_and(|error| error.is_retryable()),
            "may_have_applied": error.is_some_and(|error| error.may_have_applied()),
            "retry_after_ms": error
                .and_then(|error| error.retry_after())
                .map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            "field_violations": violations,
        }})
    }
}

/// Failures to write to standard output: only there do commands use `?` on an
/// [`io::Error`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::file("cannot write to standard output", &error)
        }
    }
}

/// Where a token that nobody named may have come from.
fn token_hint() -> String {
    let hint = "is it a token of this server, and not expired?";
    let file = default_data_dir().map(|dir| dir.join(ADMIN_TOKEN_FILE));
    match file.filter(|path| path.exists()) {
        Some(path) => format!(
            "{hint} (if none is given, that in {} is sent to its server)",
            path.display()
        ),
        None => hint.into(),
    }
}
