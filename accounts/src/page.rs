//! Pages of a list, and the tokens that lead from one to the next (AIP-158).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};

use crate::error::FieldError;
use crate::limits::{MAX_PAGE_SIZE, MAX_PAGE_TOKEN_BYTES};

/// Bytes of a page token that tie it to its list.
const CHECK_BYTES: usize = 8;

/// Which part of a list is wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct PageRequest<'a> {
    /// Most elements; 0 means [`MAX_PAGE_SIZE`], and so does more than that.
    /// A negative number is refused.
    pub page_size: i32,
    /// [`ListPage::next_page_token`] of the page before; empty to begin.
    pub page_token: &'a str,
}

/// A part of a list, in the order of names. An element that is there while all
/// pages are read is shown exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListPage<T> {
    /// The elements.
    pub items: Vec<T>,
    /// Leads to the next page; empty at the end.
    pub next_page_token: String,
}

impl PageRequest<'_> {
    /// The most elements to show.
    pub(crate) fn limit(&self) -> Result<usize, FieldError> {
        match usize::try_from(self.page_size) {
            Ok(0) => Ok(MAX_PAGE_SIZE),
            Ok(size) => Ok(size.min(MAX_PAGE_SIZE)),
            Err(_) => Err(FieldError::new(
                "page_size",
                format!(
                    "must be 0, for {MAX_PAGE_SIZE}, or more; it is {}",
                    self.page_size
                ),
            )),
        }
    }

    /// The name to go on after, if this is not the first page. `list` must be
    /// that which [`next_page_token`] was given.
    pub(crate) fn after(&self, list: &str) -> Result<Option<String>, FieldError> {
        if self.page_token.is_empty() {
            return Ok(None);
        }
        decode(list, self.page_token)
            .map(Some)
            .ok_or_else(|| FieldError::new("page_token", "is none that this list gave out"))
    }
}

/// Cuts `items`, of which one more than `limit` was read, to a page.
pub(crate) fn cut<T>(
    list: &str,
    limit: usize,
    mut items: Vec<T>,
    name: impl Fn(&T) -> &str,
) -> ListPage<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next_page_token = match items.last() {
        Some(last) if more => next_page_token(list, name(last)),
        _ => String::new(),
    };
    ListPage {
        items,
        next_page_token,
    }
}

/// A token that leads past `last` in `list`. Not secret and not signed: the
/// check only tells a token of another list, or a mangled one, from a good
/// one.
fn next_page_token(list: &str, last: &str) -> String {
    let mut bytes = check(list, last).to_vec();
    bytes.extend_from_slice(last.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode(list: &str, token: &str) -> Option<String> {
    if token.len() > MAX_PAGE_TOKEN_BYTES {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (given, last) = bytes.split_at_checked(CHECK_BYTES)?;
    let last = str::from_utf8(last).ok()?;
    (given == check(list, last)).then(|| last.to_owned())
}

fn check(list: &str, last: &str) -> [u8; CHECK_BYTES] {
    let mut hash = Sha256::new();
    hash.update(b"page 1\0");
    hash.update(list.as_bytes());
    hash.update(b"\0");
    hash.update(last.as_bytes());
    let mut short = [0; CHECK_BYTES];
    short.copy_from_slice(&hash.finalize()[..CHECK_BYTES]);
    short
}
