//! Secrets of tokens: shown once, kept only as a digest.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::error::FieldError;
use crate::limits::{MAX_SECRET_BYTES, MIN_SECRET_BYTES};

/// How every secret begins that larder makes, so that scanners for leaked
/// credentials can recognise one.
pub const SECRET_PREFIX: &str = "lrd_";

/// Random bytes in a secret: 256 bits.
const RANDOM_BYTES: usize = 32;

/// What a client sends as bearer credential. `Debug` does not show it.
#[derive(Clone, Default)]
pub struct Secret(Box<str>);

impl Secret {
    /// Takes an existing secret: [`MIN_SECRET_BYTES`] to [`MAX_SECRET_BYTES`]
    /// visible ASCII characters, because it travels in a header.
    ///
    /// # Errors
    /// [`FieldError`] on `secret`.
    pub fn import(text: &str) -> Result<Self, FieldError> {
        let bytes = text.len();
        if !(MIN_SECRET_BYTES..=MAX_SECRET_BYTES).contains(&bytes) {
            return Err(FieldError::new(
                "secret",
                format!("has {bytes} bytes, outside {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES}"),
            ));
        }
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(FieldError::new(
                "secret",
                "may hold only visible ASCII characters",
            ));
        }
        Ok(Self(text.into()))
    }

    /// 256 random bits in URL-safe base64 behind [`SECRET_PREFIX`].
    pub(crate) fn generate(fill_random: &dyn Fn(&mut [u8])) -> Self {
        let mut bytes = [0; RANDOM_BYTES];
        fill_random(&mut bytes);
        let mut text = String::from(SECRET_PREFIX);
        URL_SAFE_NO_PAD.encode_string(bytes, &mut text);
        Self(text.into())
    }

    /// The secret itself; for the one reply that shows it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// True for the answer of a dry run, which made none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn digest(&self) -> SecretDigest {
        SecretDigest::of(&self.0)
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// SHA-256 of a secret. A plain hash is enough for 256 random bits; an imported
/// secret is as strong as whoever chose it made it. `Debug` does not show it,
/// for the sake of those.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SecretDigest([u8; 32]);

impl SecretDigest {
    pub(crate) fn of(secret: &str) -> Self {
        Self(Sha256::digest(secret.as_bytes()).into())
    }

    pub(crate) fn encode(self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    pub(crate) fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        bytes.try_into().ok().map(Self)
    }

    /// Compares in a time that does not depend on where the two differ.
    pub(crate) fn matches(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretDigest(..)")
    }
}
