//! Heads of requests (RFC 9113, section 8.3.1; gRPC over HTTP/2, "Requests").

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::assembly::Flag;
use crate::gzip;
use crate::message::check_field;

/// The scheme of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Clear text.
    Http,
    /// TLS.
    Https,
}

/// The head of the calls of one method: made once, and used for each of them.
///
/// What [`with`](Self::with) adds is the same for all, and costs a byte a field from
/// the second call on a connection on; what [`metadata`](Self::metadata) adds belongs
/// to one call, and is sent as it is. To clone one costs a count, and the metadata.
#[derive(Clone)]
pub struct RequestHead {
    pub(super) fixed: Arc<Fixed>,
    pub(super) metadata: Vec<Field>,
}

/// What is the same for each call.
#[derive(Clone)]
pub(super) struct Fixed {
    /// No two have the same: connections know their encoded form by it.
    pub(super) id: u64,
    pub(super) scheme: Scheme,
    pub(super) fields: Vec<Field>,
    /// Of the one message of a unary call.
    pub(super) flag: Flag,
}

#[derive(Clone)]
pub(super) struct Field {
    pub(super) name: Box<str>,
    pub(super) value: Box<[u8]>,
    pub(super) indexing: Indexing,
}

/// RFC 7541, section 6.2: what becomes of a field's value in the peer's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Indexing {
    Inserted,
    /// Section 7.1.3: neither here nor by any proxy.
    Never,
}

/// A field that a head cannot have, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadField(&'static str);

impl fmt::Display for BadField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for BadField {}

impl RequestHead {
    /// The head of a call to `path`, which is `/package.Service/Method`, with the
    /// fields that gRPC asks for.
    ///
    /// # Errors
    /// If a part has octets that it cannot have.
    pub fn new(scheme: Scheme, authority: &str, path: &str) -> Result<Self, BadField> {
        let graphic = |text: &str| text.bytes().all(|octet| octet.is_ascii_graphic());
        if !path.starts_with('/') || !graphic(path) {
            return Err(BadField("a path that is none"));
        }
        if authority.contains('@') || !graphic(authority) {
            return Err(BadField("an authority that is none"));
        }
        let field = |name: &str, value: &str| Field::new(name, value.as_bytes());
        let fields = vec![
            field(":path", path),
            field(":authority", authority),
            field("content-type", "application/grpc"),
            field("te", "trailers"),
        ];
        Ok(Self {
            fixed: Arc::new(Fixed {
                id: fresh(),
                scheme,
                fields,
                flag: Flag::Plain,
            }),
            metadata: Vec::new(),
        })
    }

    /// The same, with a field that each call has. `name` is in lower case.
    ///
    /// # Errors
    /// If it is none that a head can have, or one that this crate writes itself.
    pub fn with(self, name: &str, value: &[u8]) -> Result<Self, BadField> {
        self.with_field(Field::checked(name, value)?)
    }

    /// The same, with a field that each call has and that nobody on the way may keep
    /// in a table (RFC 7541, section 7.1.3): it is sent in full with each call. A
    /// credential on a connection that others share wants that; one that is the
    /// same for all calls of a connection does not.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn with_never_indexed(self, name: &str, value: &[u8]) -> Result<Self, BadField> {
        let mut field = Field::checked(name, value)?;
        field.indexing = Indexing::Never;
        self.with_field(field)
    }

    /// The same, of calls that send what [`gzip`] has made smaller
    /// (`grpc-encoding`): a unary call, the one message that it writes; a stream, each
    /// that is [sent as such](super::Sending::send_compressed).
    #[must_use]
    pub fn compressed(mut self) -> Self {
        let fixed = Arc::make_mut(&mut self.fixed);
        fixed.flag = Flag::Compressed;
        fixed
            .fields
            .push(Field::new("grpc-encoding", gzip::NAME.as_bytes()));
        fixed.id = fresh();
        self
    }

    /// Adds a field of this call alone. `name` is in lower case.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn metadata(&mut self, name: &str, value: &[u8]) -> Result<(), BadField> {
        self.metadata.push(Field::checked(name, value)?);
        Ok(())
    }

    /// Sets a field of this call alone, in place of those of its name there were.
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub fn set_metadata(&mut self, name: &str, value: &[u8]) -> Result<(), BadField> {
        let mut field = Field::checked(name, value)?;
        let is_other = |it: &Field| *it.name != *name;
        let mut fields = self.fixed.fields.iter().chain(&self.metadata);
        if fields.any(|it| !is_other(it) && it.indexing == Indexing::Never) {
            field.indexing = Indexing::Never;
        }
        self.metadata.retain(is_other);
        if !self.fixed.fields.iter().all(is_other) {
            // Another head, which is encoded anew.
            let fixed = Arc::make_mut(&mut self.fixed);
            fixed.fields.retain(is_other);
            fixed.id = fresh();
        }
        self.metadata.push(field);
        Ok(())
    }

    /// The first value of a field, `:path` and `:authority` among them.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&[u8]> {
        let mut fields = self.fixed.fields.iter().chain(&self.metadata);
        fields
            .find(|field| *field.name == *name)
            .map(|field| &*field.value)
    }

    /// The names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let fields = self.fixed.fields.iter().chain(&self.metadata);
        fields.map(|field| &*field.name)
    }

    /// The same, with what another has as [`metadata`](Self::metadata), in place of
    /// what there was of these names.
    #[must_use]
    pub fn with_metadata_of(mut self, other: &Self) -> Self {
        let is_kept = |it: &Field| other.metadata.iter().all(|theirs| theirs.name != it.name);
        self.metadata.retain(is_kept);
        if !self.fixed.fields.iter().all(is_kept) {
            let fixed = Arc::make_mut(&mut self.fixed);
            fixed.fields.retain(is_kept);
            fixed.id = fresh();
        }
        self.metadata.extend_from_slice(&other.metadata);
        self
    }

    /// `:path`.
    #[must_use]
    pub fn path(&self) -> &str {
        let path = self.value(":path").unwrap_or_default();
        std::str::from_utf8(path).unwrap_or_default()
    }

    fn with_field(mut self, field: Field) -> Result<Self, BadField> {
        let fixed = Arc::make_mut(&mut self.fixed);
        fixed.fields.push(field);
        fixed.id = fresh();
        Ok(self)
    }
}

impl Field {
    fn new(name: &str, value: &[u8]) -> Self {
        Self {
            name: name.into(),
            value: value.into(),
            indexing: Indexing::Inserted,
        }
    }

    fn checked(name: &str, value: &[u8]) -> Result<Self, BadField> {
        // Those of `new`, and the deadline, which is an argument of the call.
        if ["content-type", "te", "grpc-timeout", "grpc-encoding"].contains(&name) {
            return Err(BadField("a field that is not to be set"));
        }
        check_field(name.as_bytes(), value).map_err(BadField)?;
        Ok(Self::new(name, value))
    }
}

/// Values are left out: one may be a credential.
impl fmt::Debug for RequestHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.names().collect();
        f.debug_struct("RequestHead")
            .field("path", &self.path())
            .field("fields", &names)
            .finish()
    }
}

fn fresh() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
