//! Page tokens and resume tokens: opaque to clients, and good only for the
//! request that they came from.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use larder_api::errors::Reason;
use larder_model::{Cursor, Selection};
use sha2::{Digest as _, Sha256};

use crate::failure::Failure;

/// Which method gave a token out.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Page = 1,
    Walk = 2,
    WalkEnd = 3,
}

/// Longest token read, characters: a page token holds a key of 64 KiB at most.
const MAX_TOKEN_CHARS: usize = 96 << 10;
const CHECK_BYTES: usize = 8;

/// Ties a token to what it selects, and finds typing errors. It is no secret:
/// whoever forges one sees only what the same call would show without it.
fn check(kind: Kind, of: Selection<'_>, payload: &[u8]) -> [u8; CHECK_BYTES] {
    let mut hash = Sha256::new();
    hash.update([kind as u8]);
    hash.update(of.namespace.as_str());
    hash.update([0]);
    hash.update((of.prefix.len() as u64).to_be_bytes());
    hash.update(of.prefix);
    hash.update(payload);
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&hash.finalize()[..CHECK_BYTES]);
    check
}

fn encode(kind: Kind, of: Selection<'_>, payload: &[u8]) -> String {
    let mut bytes = vec![kind as u8];
    bytes.extend(check(kind, of, payload));
    bytes.extend(payload);
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(token: &str, of: Selection<'_>) -> Option<(Kind, Vec<u8>)> {
    if token.len() > MAX_TOKEN_CHARS {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let kind = match bytes.first()? {
        1 => Kind::Page,
        2 => Kind::Walk,
        3 => Kind::WalkEnd,
        _ => return None,
    };
    let (given, payload) = bytes[1..].split_at_checked(CHECK_BYTES)?;
    (given == check(kind, of, payload)).then(|| (kind, payload.to_vec()))
}

/// The token after a page whose last key is `last`.
pub(super) fn page_token(of: Selection<'_>, last: &[u8]) -> String {
    encode(Kind::Page, of, last)
}

/// The key to go on after; `None` for the first page.
pub(super) fn page_start(of: Selection<'_>, token: &str) -> Result<Option<Vec<u8>>, Failure> {
    if token.is_empty() {
        return Ok(None);
    }
    match decode(token, of) {
        Some((Kind::Page, last)) => Ok(Some(last)),
        _ => Err(Failure::field(
            Reason::PageTokenInvalid,
            "page_token",
            "was not given out for this namespace and prefix",
        )),
    }
}

/// The token after a part of a walk; `None` is its end.
pub(super) fn resume_token(of: Selection<'_>, next: Option<Cursor>) -> String {
    match next {
        None => encode(Kind::WalkEnd, of, &[]),
        Some(Cursor([a, b])) => {
            let payload = [a.to_be_bytes(), b.to_be_bytes()].concat();
            encode(Kind::Walk, of, &payload)
        }
    }
}

/// Where a walk goes on; `None` if it is at its end.
pub(super) fn resume_start(of: Selection<'_>, token: &str) -> Result<Option<Cursor>, Failure> {
    if token.is_empty() {
        return Ok(Some(Cursor::default()));
    }
    let number = |bytes: &[u8]| bytes.try_into().map(u64::from_be_bytes).ok();
    match decode(token, of) {
        Some((Kind::WalkEnd, _)) => return Ok(None),
        Some((Kind::Walk, payload)) if payload.len() == 16 => {
            if let (Some(a), Some(b)) = (number(&payload[..8]), number(&payload[8..])) {
                return Ok(Some(Cursor([a, b])));
            }
        }
        _ => {}
    }
    Err(Failure::field(
        Reason::ResumeTokenInvalid,
        "resume_token",
        "was not given out for this namespace and prefix",
    ))
}
