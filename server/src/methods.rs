//! Every method that is served, and what its caller must be: one table, read
//! before a byte of the body is.

use larder_accounts::Action;

use Access::{Account, AnyAccount, Control, Open, TalkAccount};
use Action::{Admin, Read, Verify, Write};
use Effect::{Mutates, Reads};

/// What a method asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing: health and reflection.
    Open,
    /// An account, and a token with this right. Namespace and prefix are
    /// checked by the handler, which has read them.
    Account(Action),
    /// As `Account`, but the token may stand in the request.
    TalkAccount(Action),
    /// Any account, whatever its token may do.
    AnyAccount,
    /// A token with this right over the control plane.
    Control(Action),
}

/// Whether a method changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    Reads,
    Mutates,
}

/// A method of the typed lane: gRPC calls of it are answered by the transport's
/// thread, without a task or a body of their own. The rest, and all other
/// protocols, take the general lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Typed {
    TalkGet,
    TalkStore,
    TalkDump,
    Get,
    GetAndTouch,
    Set,
    Delete,
    Touch,
    BatchGet,
    BatchSet,
    BatchDelete,
    Increment,
    ListKeys,
    DeletePrefix,
    Dump,
    GetUsage,
    GetServerInfo,
}

impl Typed {
    /// True for methods that may look at many entries.
    pub(crate) fn is_long(self) -> bool {
        matches!(
            self,
            Self::BatchGet
                | Self::BatchSet
                | Self::BatchDelete
                | Self::ListKeys
                | Self::DeletePrefix
                | Self::GetUsage
        )
    }
}

/// One method.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Method {
    /// Its path, `/package.Service/Method`.
    pub(crate) path: &'static str,
    pub(crate) access: Access,
    pub(crate) effect: Effect,
    /// `None`: all its calls take the general lane.
    pub(crate) typed: Option<Typed>,
    /// Each of its calls has a line in the audit log.
    pub(crate) audited: bool,
}

impl Method {
    /// Stands for a path that is not served; its text came from a peer and is
    /// not kept.
    pub(crate) const UNKNOWN: Self = Self {
        path: "unknown",
        access: Open,
        effect: Reads,
        typed: None,
        audited: false,
    };

    /// The method of a path.
    pub(crate) fn of(path: &str) -> Option<&'static Self> {
        METHODS.iter().find(|method| method.path == path)
    }

    /// Its row in [`METHODS`]; that after the last for [`Method::UNKNOWN`].
    #[inline]
    pub(crate) fn index(&self) -> usize {
        // By its place: to look for it would take longer than what is counted by it.
        let first = METHODS.as_ptr().addr();
        let bytes = std::ptr::from_ref(self).addr().wrapping_sub(first);
        (bytes / size_of::<Self>()).min(METHODS.len())
    }

    /// Its name as gRPC's metrics have it (gRFC A66, "grpc.method"): without the leading slash,
    /// and `other` for what is not served.
    pub(crate) fn metric_name(&self) -> &'static str {
        self.path.strip_prefix('/').unwrap_or("other")
    }

    pub(crate) fn is_talk(&self) -> bool {
        self.path.starts_with("/rpc.")
    }

    /// True for calls that last: they outlive what their credential was.
    pub(crate) fn is_stream(&self) -> bool {
        self.path.ends_with("/Dump") || self.path.ends_with("/Load")
    }

    /// True for every method with a stream, either way.
    pub(crate) fn lasts(&self) -> bool {
        self.is_stream() || self.takes_messages() || self.path.ends_with("/Watch")
    }

    /// True for methods that take more than one message.
    pub(crate) fn takes_messages(&self) -> bool {
        self.path.ends_with("/Load") || self.path.ends_with("/ServerReflectionInfo")
    }

    pub(crate) fn mutates(&self) -> bool {
        self.effect == Mutates
    }
}

const fn method(path: &'static str, access: Access, effect: Effect) -> Method {
    Method {
        path,
        access,
        effect,
        typed: None,
        audited: matches!((access, effect), (Control(Admin), Mutates)),
    }
}

impl Method {
    const fn on(self, typed: Typed) -> Self {
        Self {
            typed: Some(typed),
            ..self
        }
    }

    const fn audited(self) -> Self {
        Self {
            audited: true,
            ..self
        }
    }
}

/// The table. A test compares it with the compiled contract.
pub(crate) static METHODS: &[Method] = &[
    method("/larder.cache.v1.CacheService/Get", Account(Read), Reads).on(Typed::Get),
    method("/rpc.Cache/Get", TalkAccount(Read), Reads).on(Typed::TalkGet),
    method("/larder.cache.v1.CacheService/Set", Account(Write), Mutates).on(Typed::Set),
    method("/rpc.Cache/Store", TalkAccount(Write), Mutates).on(Typed::TalkStore),
    method(
        "/larder.cache.v1.CacheService/GetAndTouch",
        Account(Write),
        Mutates,
    )
    .on(Typed::GetAndTouch),
    method(
        "/larder.cache.v1.CacheService/Delete",
        Account(Write),
        Mutates,
    )
    .on(Typed::Delete),
    method(
        "/larder.cache.v1.CacheService/Touch",
        Account(Write),
        Mutates,
    )
    .on(Typed::Touch),
    method(
        "/larder.cache.v1.CacheService/BatchGet",
        Account(Read),
        Reads,
    )
    .on(Typed::BatchGet),
    method(
        "/larder.cache.v1.CacheService/BatchSet",
        Account(Write),
        Mutates,
    )
    .on(Typed::BatchSet),
    method(
        "/larder.cache.v1.CacheService/BatchDelete",
        Account(Write),
        Mutates,
    )
    .on(Typed::BatchDelete),
    method(
        "/larder.cache.v1.CacheService/Increment",
        Account(Write),
        Mutates,
    )
    .on(Typed::Increment),
    method(
        "/larder.cache.v1.CacheService/ListKeys",
        Account(Read),
        Reads,
    )
    .on(Typed::ListKeys),
    method(
        "/larder.cache.v1.CacheService/DeletePrefix",
        Account(Write),
        Mutates,
    )
    .on(Typed::DeletePrefix),
    method("/larder.cache.v1.CacheService/Dump", Account(Read), Reads).on(Typed::Dump),
    method(
        "/larder.cache.v1.CacheService/Load",
        Account(Write),
        Mutates,
    )
    .audited(),
    method(
        "/larder.cache.v1.CacheService/GetUsage",
        Account(Read),
        Reads,
    )
    .on(Typed::GetUsage),
    method(
        "/larder.cache.v1.CacheService/GetServerInfo",
        AnyAccount,
        Reads,
    )
    .on(Typed::GetServerInfo),
    method("/rpc.Cache/Dump", TalkAccount(Read), Reads).on(Typed::TalkDump),
    method("/rpc.Accounts/GetByToken", Control(Verify), Reads),
    method(
        "/larder.accounts.v1.AccountService/CreateAccount",
        Control(Admin),
        Mutates,
    ),
    method(
        "/larder.accounts.v1.AccountService/GetAccount",
        Control(Admin),
        Reads,
    ),
    method(
        "/larder.accounts.v1.AccountService/ListAccounts",
        Control(Admin),
        Reads,
    ),
    method(
        "/larder.accounts.v1.AccountService/UpdateAccount",
        Control(Admin),
        Mutates,
    ),
    method(
        "/larder.accounts.v1.AccountService/DeleteAccount",
        Control(Admin),
        Mutates,
    ),
    method(
        "/larder.accounts.v1.AccountService/CreateToken",
        Control(Admin),
        Mutates,
    ),
    method(
        "/larder.accounts.v1.AccountService/ListTokens",
        Control(Admin),
        Reads,
    ),
    method(
        "/larder.accounts.v1.AccountService/RevokeToken",
        Control(Admin),
        Mutates,
    ),
    method(
        "/larder.accounts.v1.AccountService/VerifyToken",
        Control(Verify),
        Reads,
    ),
    method("/grpc.health.v1.Health/Check", Open, Reads),
    method("/grpc.health.v1.Health/Watch", Open, Reads),
    method(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Open,
        Reads,
    ),
    method(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Open,
        Reads,
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use connectrpc_reflection::Reflector;

    use super::*;

    #[test]
    fn every_method_of_the_contract_has_a_row_and_every_row_a_method() {
        let compiled = Reflector::from_descriptor_set_bytes(larder_api::FILE_DESCRIPTOR_SET)
            .expect("the compiled contract can be read");
        let contract: BTreeSet<String> = compiled
            .pool()
            .services()
            .iter()
            .flat_map(|service| {
                service
                    .methods()
                    .iter()
                    .map(move |method| format!("/{}/{}", service.full_name(), method.name()))
            })
            .collect();
        let rows: BTreeSet<String> = METHODS
            .iter()
            .map(|method| method.path.to_owned())
            .filter(|path| !path.starts_with("/grpc."))
            .collect();
        assert_eq!(rows, contract);
    }

    #[test]
    fn every_method_knows_its_row() {
        for (row, method) in METHODS.iter().enumerate() {
            assert_eq!(method.index(), row, "{}", method.path);
        }
        assert_eq!(Method::UNKNOWN.index(), METHODS.len());
        assert_eq!(METHODS[0].metric_name(), "larder.cache.v1.CacheService/Get");
        assert_eq!(Method::UNKNOWN.metric_name(), "other");
    }

    #[test]
    fn what_mutates_needs_a_right_to_write_or_administer() {
        for method in METHODS {
            let may_write = matches!(
                method.access,
                Account(Write) | TalkAccount(Write) | Control(Admin)
            );
            assert!(!method.mutates() || may_write, "{}", method.path);
        }
    }
}
