//! Requests that say which ones they are (AIP-155).

use std::time::Duration;

use larder_api::errors::Reason;
use larder_model::{Fingerprint, OnceError, RequestId, Store};
use sha2::{Digest as _, Sha256};

use crate::call::Call;
use crate::failure::Failure;
use crate::layers::admit::overloaded;
use crate::layers::attempt::Attempt;

/// What carrying a request out a second time would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing more: the state would be the same.
    Harmless,
    /// It would count again, make another one, or report its own success as a
    /// condition that does not hold.
    Counts,
}

/// How soon the outcome of a write that is under way may be there.
const IN_PROGRESS_DELAY: Duration = Duration::from_millis(20);

/// Parses the field `request_id`, where it is set.
pub(crate) fn parse(text: &str) -> Result<RequestId<'_>, Failure> {
    RequestId::parse(text)
        .map_err(|error| Failure::field(Reason::FieldInvalid, "request_id", error.to_string()))
}

/// The fingerprint of a request: `body` is all of it but for its id, and whether
/// it takes effect. A digest that nobody can aim at: a client that could would be
/// told another request's outcome, if only of its own account.
pub(crate) fn fingerprint<S: Store>(call: &Call<S>, body: &[u8]) -> Fingerprint {
    let digest = Sha256::new()
        .chain_update(call.method.path)
        .chain_update([0])
        .chain_update(body)
        .finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    Fingerprint(half)
}

/// Refuses a request without an id that was sent before, and must not be carried
/// out twice.
pub(crate) fn check_attempt<S: Store>(call: &Call<S>, repeat: Repeat) -> Result<(), Failure> {
    if call.attempt == Attempt::First || repeat == Repeat::Harmless {
        return Ok(());
    }
    let message = "an earlier attempt may have had its effect; retry this only with a request_id";
    Err(Failure::new(Reason::RetryUnsafe, message))
}

/// A window's refusal; that of a store in the words of the call's contract.
pub(crate) fn failure<S: Store>(call: &Call<S>, error: &OnceError) -> Failure {
    match error {
        OnceError::Reused => Failure::field(
            Reason::RequestIdReused,
            "request_id",
            "was used for another request",
        ),
        OnceError::InProgress => Failure::new(Reason::RequestInProgress, error.to_string())
            .retry_after(IN_PROGRESS_DELAY),
        OnceError::Full => overloaded(&error.to_string()),
        OnceError::Store(error) => call.store_failure(error),
    }
}
